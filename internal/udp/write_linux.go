package udp

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/internal/mmsg"
)

const (
	// maxIdleWriters bounds the states kept for reuse (some 20 KB each): as
	// many writers as cores are at work on one socket.
	maxIdleWriters = 16
	// maxStrikes is how many runs in a row the kernel may refuse with EINVAL
	// and yet send as single datagrams before GSO is given up. One is not
	// enough: kernels before 6.17 answer EINVAL also when a datagram exceeds
	// the MTU of the path, which is a matter of one peer.
	maxStrikes = 8
)

// writerPool keeps the states of WriteBatch. A sync.Pool would lose them at
// each garbage collection, and the packet path would allocate again.
type writerPool struct {
	c    *Conn
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
	return newWriter(p.c)
}

func (p *writerPool) put(w *writer) {
	p.mu.Lock()
	if len(p.idle) < maxIdleWriters {
		p.idle = append(p.idle, w)
	}
	p.mu.Unlock()
}

// writer is the state of one call of WriteBatch.
type writer struct {
	c     *Conn
	hdrs  [mmsg.MaxBatch]mmsg.Header
	iovs  [mmsg.MaxBatch]unix.Iovec
	names [mmsg.MaxBatch][mmsg.NameLen6]byte
	ctl   [mmsg.MaxBatch]sendControl
	parts [mmsg.MaxBatch]part

	// Bound once, as reader.recv is.
	send     func(fd uintptr)
	sendRoom func(fd uintptr) bool
	pos, end int // hdrs[pos:end] are to be sent
	sent     int
	errno    unix.Errno

	// Of room: who waits behind this one, and the word that it is first.
	next *writer
	turn chan struct{}
}

// cursor is a place in a batch: byte off of message msg.
type cursor struct{ msg, off int }

// part is what one kernel message carries.
type part struct {
	at, next  cursor
	datagrams int // more than one: a run
}

func newWriter(c *Conn) *writer {
	w := &writer{c: c, turn: make(chan struct{}, 1)}
	w.send, w.sendRoom = w.trySend, w.trySendRoom
	for i := range w.hdrs {
		h := &w.hdrs[i].Hdr
		h.Iov = &w.iovs[i]
		h.SetIovlen(1)
		h.Name = &w.names[i][0]
	}
	return w
}

// WriteBatch sends ms in order and returns how many went out whole. It borrows
// the buffers. A run longer than MaxSegments datagrams or MaxPayload bytes is
// cut into several. Where the kernel takes no runs, their datagrams are sent
// one by one.
//
// An error concerns ms[n] alone, of which a part may have been sent, and the
// messages after it were not tried: the caller goes on with ms[n+1:] if it
// likes. Only net.ErrClosed means that the Conn has ended. All others are plain
// errno values:
//   - EMSGSIZE: a datagram above MaxPayload or, under Config.DontFragment, above
//     the MTU of the outgoing device;
//   - EAGAIN: the send buffer stayed full for Config.WriteWait;
//   - EINVAL: N or Segment out of range, port zero;
//   - EAFNOSUPPORT: no address, or an IPv6 address on an IPv4 socket;
//   - ENETUNREACH, EHOSTUNREACH, EPERM (a firewall here) and what else the
//     kernel knows; a Local that is not ours is ENETUNREACH or EINVAL.
//
// A loss that the kernel reports (ENOBUFS) is counted and is no error.
//
// Calls may run at the same time; each makes its own system calls, and only
// those that find the send buffer full wait for each other, in the order of their
// coming. Others queue behind them meanwhile, so that nobody takes the room that
// the kernel would have told those of who wait.
func (c *Conn) WriteBatch(ms []Message) (int, error) {
	w := c.w.get()
	n, err := w.write(ms)
	c.w.put(w)
	return n, err
}

func (w *writer) write(ms []Message) (int, error) {
	c := w.c
	var at cursor
	single := -1         // the message whose run was refused: sent as datagrams
	var cause unix.Errno // of that refusal
	for at.msg < len(ms) {
		n, errno := w.fill(ms, at, single)
		if n > 0 {
			var err error
			if at, errno, err = w.flush(n); err != nil {
				return at.msg, err
			}
			if single >= 0 && at.msg > single {
				c.strike(cause)
				single = -1
			}
		}
		switch {
		case errno == 0:
		case n > 0 && w.parts[w.pos].datagrams > 1 && refusesRun(errno):
			c.stats.sendGSORefused.Add(1)
			single, cause = at.msg, errno
		default:
			c.countDrop(errno)
			return at.msg, errno
		}
	}
	return len(ms), nil
}

// fill lays out kernel messages for the batch from at on and returns how many.
// It stops before a message that cannot be sent; if that is the first one, it
// returns why.
func (w *writer) fill(ms []Message, at cursor, single int) (int, unix.Errno) {
	c := w.c
	gso := c.gso.Load()
	n := 0
	for ; at.msg < len(ms); at = (cursor{at.msg + 1, 0}) {
		if n > 0 && w.parts[n-1].at.msg == single {
			return n, 0 // what comes of it decides about the next run
		}
		m := &ms[at.msg]
		if m.N < 0 || m.N > len(m.Buf) || m.Segment < 0 {
			return n, errnoIfFirst(n, unix.EINVAL)
		}
		segment, most := m.N, 1
		if m.Segment > 0 && m.Segment < m.N {
			segment = m.Segment
			if gso && at.msg != single {
				most = max(1, min(MaxSegments, MaxPayload/segment))
			}
		}
		if segment > MaxPayload {
			return n, errnoIfFirst(n, unix.EMSGSIZE)
		}
		// An empty message is one empty datagram.
		for more := true; more; more = at.off < m.N {
			if n == mmsg.MaxBatch {
				return n, 0
			}
			if !w.setTarget(n, m) {
				return n, errnoIfFirst(n, unix.EAFNOSUPPORT)
			}
			size := min(segment*most, m.N-at.off)
			p := &w.parts[n]
			p.at, p.datagrams = at, 1
			if size > segment {
				p.datagrams = (size + segment - 1) / segment
				h := &w.hdrs[n].Hdr
				used := int(h.Controllen)
				used += putSegment(w.ctl[n].bytes()[used:], segment)
				w.setControl(n, used)
			}
			w.iovs[n].Base = unsafe.SliceData(m.Buf[at.off:])
			w.iovs[n].SetLen(size)
			at.off += size
			p.next = at
			if at.off >= m.N {
				p.next = cursor{at.msg + 1, 0}
			}
			n++
		}
	}
	return n, 0
}

// errnoIfFirst leaves an error for the call that finds it at the front.
func errnoIfFirst(n int, errno unix.Errno) unix.Errno {
	if n > 0 {
		return 0
	}
	return errno
}

// setTarget fills in where kernel message i goes to and comes from. It reports
// false if the socket's family has no such address.
func (w *writer) setTarget(i int, m *Message) bool {
	c := w.c
	h := &w.hdrs[i].Hdr
	h.Namelen = mmsg.PutName(&w.names[i], m.Addr, c.v6, &c.zones)
	used := 0
	if m.Local.IsValid() {
		if used = mmsg.PutSource(w.ctl[i].bytes(), m.Local, c.v6, &c.zones); used == 0 {
			return false
		}
	}
	w.setControl(i, used)
	return h.Namelen != 0
}

func (w *writer) setControl(i, used int) {
	h := &w.hdrs[i].Hdr
	h.Control = nil
	if used > 0 {
		h.Control = &w.ctl[i].bytes()[0]
	}
	h.SetControllen(used)
}

// flush sends the first n kernel messages. It returns the place after the last
// one that went out and why the next one, parts[w.pos], did not; err is set
// when the Conn was closed.
func (w *writer) flush(n int) (at cursor, errno unix.Errno, err error) {
	c := w.c
	at = w.parts[0].at
	w.pos, w.end = 0, n
	for w.pos < w.end && errno == 0 && err == nil {
		if c.room.open() || w.passes() {
			err = c.rc.Control(w.send)
		} else {
			w.sent, w.errno = 0, unix.EAGAIN
		}
		if err == nil && w.errno == unix.EAGAIN {
			err = w.waitRoom()
		}
		if err != nil {
			err = errClosed
			break
		}
		w.count()
		w.pos += w.sent
		if errno = w.errno; errno == unix.ENOBUFS {
			c.stats.sendDropNoBufs.Add(uint64(w.parts[w.pos].datagrams))
			w.pos++
			errno = 0
		}
		if w.pos > 0 {
			at = w.parts[w.pos-1].next
		}
	}
	for i := range n {
		w.iovs[i].Base = nil // the loan ends
	}
	return at, errno, err
}

// count books the w.sent messages from w.pos on.
func (w *writer) count() {
	s := &w.c.stats
	s.sendCalls.Add(1)
	var datagrams, bytes, runs uint64
	for i := w.pos; i < w.pos+w.sent; i++ {
		d := w.parts[i].datagrams
		datagrams += uint64(d)
		bytes += uint64(w.iovs[i].Len)
		if d > 1 {
			runs++
		}
	}
	if datagrams > 0 {
		s.sendDatagrams.Add(datagrams)
		s.sendBytes.Add(bytes)
	}
	if runs > 0 {
		s.sendRuns.Add(runs)
		if w.c.gsoStrikes.Load() != 0 {
			w.c.gsoStrikes.Store(0)
		}
	}
}

// trySend is called with the descriptor held open but not locked, so that
// writers do not wait for each other's system calls.
func (w *writer) trySend(fd uintptr) {
	w.sent, w.errno = w.c.sendSys(fd, w.hdrs[w.pos:w.end])
}

// trySendRoom is called by the poller; false makes it wait for room.
func (w *writer) trySendRoom(fd uintptr) bool {
	w.trySend(fd)
	return w.errno != unix.EAGAIN
}

// passes reports whether what is to be sent may go past those that wait for
// room: a small message or two do not take it.
func (w *writer) passes() bool {
	n := uint64(0)
	for i := w.pos; i < w.end; i++ {
		n += w.iovs[i].Len
	}
	return n <= smallWrite && w.c.room.pass(int64(n))
}

// waitRoom sends once there is room in the send buffer. If there is none in
// time it leaves EAGAIN in w.errno. It fails only when the Conn is closed.
func (w *writer) waitRoom() error {
	c := w.c
	c.stats.sendWaits.Add(1)
	// Counted from here, so that a queue of waiters does not add up their times.
	deadline := time.Now().Add(c.wait)
	if !c.room.enter(w) {
		<-w.turn
	}
	defer c.room.leave()
	return w.atRoom(deadline)
}

// atRoom is waitRoom for the first of those who wait, who owns the write deadline.
// The poller tells of room only when half of the buffer is free, and that would
// be taken by whoever is fast; by looking more often, what becomes free goes to
// those who wait, one write each.
func (w *writer) atRoom(deadline time.Time) error {
	for c := w.c; ; {
		next := time.Now().Add(roomPoll)
		last := !next.Before(deadline)
		if last {
			next = deadline
		}
		if err := c.udp.SetWriteDeadline(next); err != nil {
			return err
		}
		err := c.rc.Write(w.sendRoom)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if last {
			w.sent, w.errno = 0, unix.EAGAIN
			return nil
		}
	}
}

// refusesRun reports whether errno may mean that the kernel or the device does
// not take runs. For EMSGSIZE the datagrams are tried singly because the kernel
// fragments those and never runs.
func refusesRun(errno unix.Errno) bool {
	switch errno {
	case unix.EIO, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOPROTOOPT, unix.EMSGSIZE:
		return true
	}
	return false
}

// strike books that a run was refused for cause although its datagrams went out
// one by one, and gives up on runs where that proves that none will be taken.
func (c *Conn) strike(cause unix.Errno) {
	switch cause {
	case unix.EMSGSIZE: // the MTU towards one peer
	case unix.EINVAL:
		if c.gsoStrikes.Add(1) >= maxStrikes {
			c.gsoOff(fmt.Sprintf("%d runs in a row refused: %v", maxStrikes, cause))
		}
	default: // EIO: the device cannot complete checksums, or IPsec is in the way
		c.gsoOff(fmt.Sprintf("run refused: %v", cause))
	}
}

// countDrop books a message that was not sent.
func (c *Conn) countDrop(errno unix.Errno) {
	switch errno {
	case unix.EMSGSIZE:
		c.stats.sendDropTooBig.Add(1)
	case unix.EAGAIN:
		c.stats.sendDropWait.Add(1)
	default:
		c.stats.sendDropOther.Add(1)
	}
}
