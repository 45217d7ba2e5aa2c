package udp

import (
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/internal/mmsg"
)

// reader is the state of ReadBatch, laid out once so that a call allocates
// nothing.
type reader struct {
	c     *Conn
	hdrs  [mmsg.MaxBatch]mmsg.Header
	iovs  [mmsg.MaxBatch]unix.Iovec
	names [mmsg.MaxBatch][mmsg.NameLen6]byte
	ctl   [mmsg.MaxBatch]recvControl

	// recv is bound once: a method value made at each call would be allocated.
	recv  func(fd uintptr) bool
	want  int // messages offered
	got   int
	errno unix.Errno
}

func (r *reader) init(c *Conn) {
	r.c = c
	r.recv = r.tryRecv
	for i := range r.hdrs {
		h := &r.hdrs[i].Hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = &r.names[i][0]
		h.Control = &r.ctl[i].bytes()[0]
	}
}

// ReadBatch waits until at least one message arrived, reads at most len(ms) of
// those that are there, and returns how many. It borrows the Buf of each
// message; of the messages it returns it sets all other fields. With GRO in
// use a Buf below packet.Size bytes may be too short for a run: what does not
// fit is counted, and its message has N zero. (So has an empty datagram.)
//
// An error ends the Conn; after Close it is net.ErrClosed.
func (c *Conn) ReadBatch(ms []Message) (int, error) {
	r := &c.r
	r.want = min(len(ms), mmsg.MaxBatch)
	if r.want == 0 {
		return 0, nil
	}
	for i := range r.want {
		b := ms[i].Buf
		r.iovs[i].Base = unsafe.SliceData(b)
		r.iovs[i].SetLen(len(b))
		h := &r.hdrs[i].Hdr
		h.Namelen = mmsg.NameLen6
		h.SetControllen(recvControlSize)
	}
	err := c.rc.Read(r.recv)
	for i := range r.want {
		r.iovs[i].Base = nil // the loan ends
	}
	if err != nil {
		if errors.Is(err, net.ErrClosed) {
			return 0, errClosed
		}
		return 0, fmt.Errorf("udp: read: %w", err)
	}
	if r.errno != 0 {
		return 0, fmt.Errorf("udp: read: %w", r.errno)
	}
	r.finish(ms[:r.got])
	return r.got, nil
}

// tryRecv is called by the poller; false makes it wait for the socket.
func (r *reader) tryRecv(fd uintptr) bool {
	for {
		r.got, r.errno = mmsg.Recv(fd, r.hdrs[:r.want])
		switch r.errno {
		case 0:
			return true
		case unix.EAGAIN:
			return false
		case unix.ECONNREFUSED, unix.ECONNRESET, unix.ECONNABORTED, unix.EHOSTUNREACH, unix.ENETUNREACH,
			unix.EHOSTDOWN, unix.ENETDOWN, unix.ENOPROTOOPT, unix.EPROTO, unix.EMSGSIZE, unix.EACCES, unix.EOPNOTSUPP:
			// Pending error of an earlier send, taken from the socket by this
			// call. Who caused it cannot be told here, and anybody can forge it.
			r.c.stats.recvErrors.Add(1)
		default:
			return true
		}
	}
}

// finish turns what the kernel filled into messages.
func (r *reader) finish(ms []Message) {
	var datagrams, bytes, runs uint64
	for i := range ms {
		m, h := &ms[i], &r.hdrs[i]
		m.N, m.Segment = int(h.N), 0
		from, ok := mmsg.ParseName(&r.names[i], h.Hdr.Namelen, &r.c.zones)
		m.Addr = from
		local, segment := parseControl(r.ctl[i].bytes()[:h.Hdr.Controllen], &r.c.zones)
		m.Local = local
		if h.Hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || !ok {
			m.N = 0
			r.c.stats.recvDropTruncated.Add(1)
			continue
		}
		if segment > 0 && segment < m.N {
			m.Segment = segment
			datagrams += uint64((m.N + segment - 1) / segment)
			runs++
		} else {
			datagrams++
		}
		bytes += uint64(m.N)
	}
	s := &r.c.stats
	s.recvCalls.Add(1)
	s.recvDatagrams.Add(datagrams)
	s.recvBytes.Add(bytes)
	if runs > 0 {
		s.recvRuns.Add(runs)
	}
}
