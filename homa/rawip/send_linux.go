package rawip

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/internal/mmsg"
)

const (
	// maxIdleWriters bounds the states kept for reuse (some 12 KB each).
	maxIdleWriters = 16
	// maxRetries is how often a packet is tried again that failed with an error
	// which may be about an earlier one.
	maxRetries = 3
)

// sendControlSize holds the local address and the traffic class.
const sendControlSize = mmsg.SpaceInfo6 + mmsg.SpaceInt

// sendControl has the alignment of struct cmsghdr.
type sendControl [(sendControlSize + 7) / 8]uint64

func (c *sendControl) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), sendControlSize)
}

// writerPool keeps the states of Send. A sync.Pool would lose them at each
// garbage collection.
type writerPool struct {
	s    *socket
	mu   sync.Mutex
	idle []*writer
}

func (p *writerPool) get() *writer {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		w := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return w
	}
	p.mu.Unlock()
	return newWriter(p.s)
}

func (p *writerPool) put(w *writer) {
	p.mu.Lock()
	if len(p.idle) < maxIdleWriters {
		p.idle = append(p.idle, w)
	}
	p.mu.Unlock()
}

// writer is the state of sending one run of packets.
type writer struct {
	s     *socket
	hdrs  [carrier.MaxBatch]mmsg.Header
	iovs  [carrier.MaxBatch]unix.Iovec
	names [carrier.MaxBatch][mmsg.NameLen6]byte
	ctl   [carrier.MaxBatch]sendControl

	// Bound once, as reader.recv is.
	send     func(fd uintptr)
	sendRoom func(fd uintptr) bool
	setLevel func(fd uintptr)
	pos, end int // hdrs[pos:end] are to be sent
	sent     int
	errno    unix.Errno
	level    int
}

func newWriter(s *socket) *writer {
	w := &writer{s: s}
	w.send, w.sendRoom, w.setLevel = w.trySend, w.trySendRoom, w.trySetLevel
	for i := range w.hdrs {
		h := &w.hdrs[i].Hdr
		h.Iov = &w.iovs[i]
		h.SetIovlen(1)
		h.Name = &w.names[i][0]
	}
	return w
}

// Send sends a batch. See carrier.Carrier.
func (c *Conn) Send(batch []carrier.Packet) error {
	for len(batch) > 0 {
		s := c.socketOf(batch[0].Addr)
		n := 1
		for n < len(batch) && n < carrier.MaxBatch && c.socketOf(batch[n].Addr) == s &&
			(len(c.cfg.LinkPriority) == 0 || batch[n].Priority == batch[0].Priority) {
			n++
		}
		run := batch[:n]
		batch = batch[n:]
		if s == nil {
			for i := range run {
				run[i].Trouble, run[i].Err = carrier.HostUnreachable, unix.EAFNOSUPPORT
			}
			c.stats.sendDropFamily.Add(uint64(n))
			continue
		}
		w := s.w.get()
		err := w.write(run)
		s.w.put(w)
		if err != nil {
			return err
		}
	}
	return nil
}

// write sends packets for one socket and, where the priority belongs to the
// socket, of one priority.
func (w *writer) write(run []carrier.Packet) error {
	s := w.s
	var last, local netip.Addr
	for i := range run {
		p := &run[i]
		p.Trouble, p.Err = carrier.None, nil
		if i == 0 || p.Addr != last {
			last, local = p.Addr, s.sourceFor(p.Addr)
		}
		from := p.Local
		if !from.IsValid() {
			from = local
		}
		w.fill(i, p, from)
	}
	if len(s.c.cfg.LinkPriority) > 0 {
		s.linkMu.Lock()
		defer s.linkMu.Unlock()
		if w.level = int(run[0].Priority & (levels - 1)); s.level != w.level+1 {
			if err := s.rc.Control(w.setLevel); err != nil {
				return errClosed
			}
		}
	}
	err := w.flush(run)
	for i := range run {
		w.iovs[i].Base = nil // the loan ends
	}
	return err
}

// sourceFor is the address to send from to peer; the zero Addr leaves it to the
// kernel.
func (s *socket) sourceFor(peer netip.Addr) netip.Addr {
	if len(s.locals) == 1 {
		return netip.Addr{} // bound
	}
	if local := s.c.peers.get(peer).local; local.IsValid() {
		return local
	}
	if len(s.locals) > 1 {
		return s.locals[0]
	}
	return netip.Addr{}
}

// fill lays out kernel message i for p.
func (w *writer) fill(i int, p *carrier.Packet, from netip.Addr) {
	s := w.s
	h := &w.hdrs[i].Hdr
	h.Namelen = mmsg.PutName(&w.names[i], netip.AddrPortFrom(p.Addr, 0), s.v6, &s.c.zones)
	w.iovs[i].Base = unsafe.SliceData(p.Data)
	w.iovs[i].SetLen(len(p.Data))
	b := w.ctl[i].bytes()
	used := 0
	if from.IsValid() {
		used = mmsg.PutSource(b, from, s.v6, &s.c.zones)
	}
	// An IPv4 control message would reset the priority of the socket.
	if tos := s.c.cfg.TOS[p.Priority&(levels-1)]; tos != 0 && (s.v6 || len(s.c.cfg.LinkPriority) == 0) {
		level, typ := int32(unix.IPPROTO_IP), int32(unix.IP_TOS)
		if s.v6 {
			level, typ = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
		}
		binary.NativeEndian.PutUint32(mmsg.PutCmsg(b[used:], level, typ, 4), uint32(tos))
		used += mmsg.SpaceInt
	}
	h.Control = nil
	if used > 0 {
		h.Control = &b[0]
	}
	h.SetControllen(used)
}

// trySetLevel sets what all packets of one priority share. Setting the TOS
// resets the other, so it comes first.
func (w *writer) trySetLevel(fd uintptr) {
	s := w.s
	if !s.v6 {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, int(s.c.cfg.TOS[w.level])) // any byte is taken
	}
	err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, int(s.c.cfg.LinkPriority[w.level]))
	s.level = 0
	if err == nil {
		s.level = w.level + 1
	} else {
		s.c.stats.linkPriorityDenied.Add(1)
	}
}

// flush sends the kernel messages of run.
func (w *writer) flush(run []carrier.Packet) error {
	st := &w.s.c.stats
	w.pos, w.end = 0, len(run)
	retries := 0
	for w.pos < w.end {
		err := w.s.rc.Control(w.send)
		if err == nil && w.errno == unix.EAGAIN {
			err = w.waitRoom()
		}
		if err != nil {
			return errClosed
		}
		st.sendCalls.Add(1)
		if w.sent > 0 {
			var bytes uint64
			for i := w.pos; i < w.pos+w.sent; i++ {
				bytes += uint64(w.iovs[i].Len)
			}
			st.sendPackets.Add(uint64(w.sent))
			st.sendBytes.Add(bytes)
			w.pos += w.sent
			retries = 0
		}
		switch {
		case w.errno == 0:
			if w.pos < w.end { // an error that the kernel keeps to itself
				w.s.erred.Store(true)
			}
		case pending(w.errno) && retries < maxRetries:
			w.s.erred.Store(true)
			retries++
		default:
			w.failed(&run[w.pos])
			w.pos++
			retries = 0
		}
	}
	return nil
}

// failed books a packet that could not be sent because of w.errno.
func (w *writer) failed(p *carrier.Packet) {
	c := w.s.c
	switch w.errno {
	case unix.ENOBUFS:
		c.stats.sendDropNoBufs.Add(1)
	case unix.EAGAIN:
		c.stats.sendDropWait.Add(1)
	case unix.EPERM:
		c.stats.sendDropDenied.Add(1)
	case unix.EMSGSIZE:
		c.stats.sendDropTooBig.Add(1)
		c.peers.forgetMTU(p.Addr)
		p.Trouble, p.Err = carrier.MTUChanged, w.errno
	default:
		c.stats.sendDropNoRoute.Add(1)
		// The address that we answered from may be gone: the route decides next time.
		c.peers.update(p.Addr, func(s *peerState) { s.local = netip.Addr{} })
		// An error that another host caused is none of p.
		if _, err := w.s.route.mtu(p.Addr, &c.zones); err != nil {
			p.Trouble, p.Err = carrier.NoRoute, w.errno
		}
	}
}

// trySend is called with the descriptor held open but not locked, so that
// senders do not wait for each other's system calls.
func (w *writer) trySend(fd uintptr) {
	w.sent, w.errno = mmsg.Send(fd, w.hdrs[w.pos:w.end])
}

// trySendRoom is called by the poller; false makes it wait for room.
func (w *writer) trySendRoom(fd uintptr) bool {
	w.trySend(fd)
	return w.errno != unix.EAGAIN
}

// waitRoom sends once there is room in the send buffer. If there is none in
// time it leaves EAGAIN in w.errno. It fails only when the Conn is closed.
func (w *writer) waitRoom() error {
	s := w.s
	s.c.stats.sendWaits.Add(1)
	// Counted from here, so that a queue of waiters does not add up their times.
	deadline := time.Now().Add(s.c.cfg.SendWait)
	s.roomMu.Lock()
	defer s.roomMu.Unlock()
	if err := s.file.SetWriteDeadline(deadline); err != nil {
		return err
	}
	err := s.rc.Write(w.sendRoom)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.sent, w.errno = 0, unix.EAGAIN
		return nil
	}
	return err
}
