package rawip

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/internal/mmsg"
)

// recvControlSize holds the local address and the mark of fragmentation.
const recvControlSize = mmsg.SpaceInfo6 + mmsg.SpaceInt

// recvControl has the alignment of struct cmsghdr.
type recvControl [(recvControlSize + 7) / 8]uint64

func (c *recvControl) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), recvControlSize)
}

// reader is the state of Receive, laid out once so that a call allocates
// nothing.
type reader struct {
	s     *socket
	hdrs  [carrier.MaxBatch]mmsg.Header
	iovs  [carrier.MaxBatch]unix.Iovec
	names [carrier.MaxBatch][mmsg.NameLen6]byte
	ctl   [carrier.MaxBatch]recvControl
	errs  errorQueue
	last  lastPeer

	// recv is bound once: a method value made at each call would be allocated.
	recv  func(fd uintptr) bool
	batch []carrier.Packet
	tries int // of recv, since Receive was called
	got   int // packets
	told  int // reports, in front of the batch
	errno unix.Errno
}

// lastPeer saves most questions of the table of peers.
type lastPeer struct{ addr, local netip.Addr }

func (r *reader) init(s *socket) {
	r.s = s
	r.recv = r.tryRecv
	r.errs.init(s)
	for i := range r.hdrs {
		h := &r.hdrs[i].Hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = &r.names[i][0]
		h.Control = &r.ctl[i].bytes()[0]
	}
}

// Receive waits for packets or reports of ICMP errors. See carrier.Carrier.
func (c *Conn) Receive(receiver int, batch []carrier.Packet) (int, error) {
	r := &c.sockets[receiver].r
	batch = batch[:min(len(batch), carrier.MaxBatch)]
	for {
		n, err := r.receive(batch)
		if n > 0 || err != nil || len(batch) == 0 {
			return n, err
		}
	}
}

// Waiting asks the kernel whether a packet waits (SIOCINQ).
func (c *Conn) Waiting(receiver int) bool {
	waits := false
	_ = c.sockets[receiver].rc.Control(func(fd uintptr) { // closed: nothing waits
		n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
		waits = err == nil && n > 0
	})
	return waits
}

// receive may return nothing when all that came is to be dropped.
func (r *reader) receive(batch []carrier.Packet) (int, error) {
	for i := range batch {
		b := batch[i].Buf
		r.iovs[i].Base = unsafe.SliceData(b)
		r.iovs[i].SetLen(len(b))
		h := &r.hdrs[i].Hdr
		h.Namelen = mmsg.NameLen6
		h.SetControllen(recvControlSize)
	}
	r.batch, r.tries = batch, 0
	err := r.s.rc.Read(r.recv)
	r.batch = nil
	for i := range batch {
		r.iovs[i].Base = nil // the loan ends
	}
	if err != nil {
		return 0, errClosed // there is no deadline: nothing else ends the wait
	}
	if r.errno != 0 {
		return 0, fmt.Errorf("rawip: receive: %w", r.errno)
	}
	if r.told > 0 {
		return r.told, nil
	}
	return r.finish(batch[:r.got]), nil
}

// tryRecv is called by the poller; false makes it wait for the socket.
func (r *reader) tryRecv(fd uintptr) bool {
	r.told = 0
	r.tries++
	for {
		r.got, r.errno = mmsg.Recv(fd, r.hdrs[:len(r.batch)])
		switch {
		case r.errno == 0:
			return true
		case r.errno != unix.EAGAIN && !pending(r.errno):
			return true
		}
		// An ICMP error makes the next call fail, and its story is in the error queue.
		// If that call was one of Send, it wakes us for nothing, or is noted. Otherwise
		// a question saved is half of what it costs to find the socket empty.
		if noted := r.s.erred.Swap(false); r.errno == unix.EAGAIN && r.tries == 1 && !noted {
			return false
		}
		if r.told = r.errs.drain(fd, r.batch); r.told > 0 {
			r.errno = 0
			return true
		}
		if r.errno == unix.EAGAIN {
			return false
		}
	}
}

// pending reports whether errno may come from an ICMP error about an earlier
// packet, which the kernel reports to whatever call is next.
func pending(errno unix.Errno) bool {
	switch errno {
	case unix.ECONNREFUSED, unix.ECONNRESET, unix.ECONNABORTED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN,
		unix.ENETDOWN, unix.ENOPROTOOPT, unix.EPROTO, unix.EMSGSIZE, unix.EACCES, unix.EOPNOTSUPP, unix.ENONET:
		return true
	}
	return false
}

// finish turns what the kernel filled into packets, moves those that are to be
// kept to the front, and returns how many.
func (r *reader) finish(batch []carrier.Packet) int {
	st := &r.s.c.stats
	kept := 0
	var bytes uint64
	for i := range batch {
		p, h := &batch[i], &r.hdrs[i]
		*p = carrier.Packet{Buf: p.Buf}
		from, ok := mmsg.ParseName(&r.names[i], h.Hdr.Namelen, &r.s.c.zones)
		data := p.Buf[:h.N]
		if !r.s.v6 {
			data = behindIPv4(data)
		}
		if h.Hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || !ok || data == nil {
			st.recvDropTruncated.Add(1)
			continue
		}
		local, fragmented := parseControl(r.ctl[i].bytes()[:h.Hdr.Controllen], &r.s.c.zones)
		if fragmented {
			st.recvDropFragmented.Add(1)
			continue
		}
		if !r.s.allows(local) {
			st.recvDropForeign.Add(1)
			continue
		}
		p.Addr, p.Local, p.Data = from.Addr(), local, data
		if seen := (lastPeer{p.Addr, local}); seen != r.last {
			r.s.c.peers.seen(p.Addr, local)
			r.last = seen
		}
		bytes += uint64(len(data))
		batch[kept], *p = *p, batch[kept] // the buffers change places
		kept++
	}
	st.recvCalls.Add(1)
	st.recvPackets.Add(uint64(kept))
	st.recvBytes.Add(bytes)
	return kept
}

// behindIPv4 returns what follows the IPv4 header of b, or nil.
func behindIPv4(b []byte) []byte {
	if len(b) < 20 {
		return nil
	}
	n := int(b[0]&0xf) * 4
	if n < 20 || n > len(b) {
		return nil
	}
	return b[n:]
}

// parseControl reads control messages: the local address, and whether the packet
// came in fragments.
func parseControl(b []byte, zones *mmsg.Zones) (local netip.Addr, fragmented bool) {
	for {
		level, typ, d, rest, ok := mmsg.NextCmsg(b)
		if !ok {
			return local, fragmented
		}
		if a, ok := mmsg.ParseSource(level, typ, d, zones); ok {
			local = a
		} else if level == unix.IPPROTO_IP && typ == ipRecvFragSize || level == unix.IPPROTO_IPV6 && typ == ipv6RecvFragSize {
			fragmented = true
		}
		b = rest
	}
}
