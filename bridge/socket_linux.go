package bridge

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// recvCheck is after how many bytes read the size of the receive buffer is
	// looked at: a getsockopt costs as much as copying 2 KiB.
	recvCheck = 64 << 10
	// recvFloor is what SetBuffers makes of the receive window at once if it may.
	recvFloor = 256 << 10

	// Bits of SO_BUF_LOCK, include/uapi/linux/socket.h.
	rcvbufLock = 2
)

// socket is a kernel TCP connection as a Stream.
type socket struct {
	p  *poller
	id uint64
	fd int // not used after closed was set

	// The descriptor is closed with all three locks held, taken in this order,
	// so that no call is under way on a number that the system may give away.
	rmu    sync.Mutex // Read
	wmu    sync.Mutex // Write, CloseWrite
	emu    sync.Mutex // everything else
	closed bool

	// errno is the error that the connection failed with, as the kernel said it;
	// 0 while it lives. Kept because the kernel reports it once only.
	errno atomic.Uint32
	fin   atomic.Bool // FIN was seen before any error
	// urgent: there was urgent data, at whose mark each read ends, whatever follows.
	urgent atomic.Bool

	// A read that gave less than it could have emptied the receive buffer, and
	// until the next event another one would give nothing.
	events atomic.Uint32 // counts them
	empty  uint32        // events before such a read, of which there was one at least; rmu

	sinceCheck int          // bytes read since the last look at the receive buffer; rmu
	recvMax    atomic.Int64 // to which the receive buffer may grow; 0: not watched

	notSent   int         // DialerConfig.NotSent
	sendSmall atomic.Bool // as much as notSent may not be unsent yet

	nmu    sync.Mutex // held during a call of notify
	notify func(readable, writable, failed bool)
}

func (s *socket) event(ev uint32) {
	failed := false
	if ev&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		failed = s.takeError() != 0
	}
	if ev&unix.EPOLLRDHUP != 0 && !failed {
		s.fin.Store(true)
	}
	if ev&unix.EPOLLPRI != 0 {
		s.urgent.Store(true)
	}
	s.events.Add(1) // after what Read looks at beside it, before it is called for
	s.nmu.Lock()
	defer s.nmu.Unlock()
	if s.notify != nil {
		s.notify(ev&(unix.EPOLLIN|unix.EPOLLPRI|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0,
			ev&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0, failed)
	}
}

// takeError asks the kernel for the pending error and keeps it. It returns the
// error of the connection, 0 for none.
func (s *socket) takeError() unix.Errno {
	s.emu.Lock()
	defer s.emu.Unlock()
	if s.errno.Load() == 0 && !s.closed {
		if n, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil {
			s.errno.CompareAndSwap(0, uint32(n))
		}
	}
	return unix.Errno(s.errno.Load())
}

// with calls f with the descriptor, unless that is closed.
func (s *socket) with(f func(fd int)) {
	s.emu.Lock()
	defer s.emu.Unlock()
	if !s.closed {
		f(s.fd)
	}
}

func (s *socket) connectError() error {
	if e := s.takeError(); e != 0 {
		return e
	}
	return nil
}

// keep notes err, an error of read or write, and returns what the caller gets.
func (s *socket) keep(err error) error {
	if e, ok := err.(unix.Errno); ok {
		s.errno.CompareAndSwap(0, uint32(e))
		return s.Err()
	}
	return err
}

// Err implements Stream. The kernel says EPIPE for a reset that follows a FIN.
func (s *socket) Err() error {
	switch e := unix.Errno(s.errno.Load()); e {
	case 0:
		return nil
	case unix.EPIPE:
		return unix.ECONNRESET
	default:
		return e
	}
}

func (s *socket) Read(p []byte) (int, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	events := s.events.Load()
	if s.empty == events && events != 0 {
		return 0, unix.EAGAIN
	}
	for {
		n, err := rawRead(s.fd, p)
		switch {
		case n > 0:
			s.checkRecv(n)
			// An end that has come already has no event to follow.
			if n < len(p) && !s.fin.Load() && !s.urgent.Load() && s.errno.Load() == 0 {
				s.empty = events
			}
			return n, nil
		case err == nil:
			return 0, s.endOfData()
		case err == unix.EAGAIN:
			return 0, err
		case err != unix.EINTR:
			return 0, s.keep(err)
		}
	}
}

// endOfData tells a FIN from a reset whose error has been taken: read(2) returns
// 0 for both. If there was a FIN before the reset, the FIN counts, because all
// data is there. It is known from its own event, or from EPIPE, which is what the
// kernel calls a reset that follows a FIN unless we have sent one as well.
func (s *socket) endOfData() error {
	// Whoever takes the error keeps it before giving up the lock.
	s.emu.Lock()
	defer s.emu.Unlock()
	if e := unix.Errno(s.errno.Load()); e != 0 && e != unix.EPIPE && !s.fin.Load() {
		return e
	}
	return io.EOF
}

// checkRecv ends the kernel's tuning of the receive buffer near its bound. The
// kernel makes it four times what was read in a round trip, which may be beyond
// the bound at once after a pause; then it is made smaller, where that is allowed.
func (s *socket) checkRecv(n int) {
	limit := int(s.recvMax.Load())
	if limit == 0 {
		return
	}
	s.sinceCheck += n
	if s.sinceCheck < recvCheck {
		return
	}
	s.sinceCheck = 0
	size, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil || 2*size <= limit {
		return
	}
	// The kernel doubles the value, and sets the lock that hold sets.
	if size > limit && unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, limit/2) == nil || hold(s.fd) == nil {
		s.recvMax.CompareAndSwap(int64(limit), 0)
	}
}

func (s *socket) Write(p []byte) (int, error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	done := 0
	if s.sendSmall.Load() {
		// The kernel looks at the unsent bytes only before it begins a segment,
		// and fills the last one up to 64 KiB.
		if !s.writable() {
			return 0, unix.EAGAIN
		}
	}
	for done < len(p) {
		n, err := rawWrite(s.fd, p[done:])
		switch {
		case n > 0:
			// A short count may be followed by room again. Only EAGAIN makes
			// the kernel report that there is room.
			done += n
		case err == unix.EAGAIN:
			return done, err
		case err != nil && err != unix.EINTR:
			return done, s.keep(err)
		}
	}
	return done, nil
}

// writable reports whether less than half of what may be unsent is. If not, the
// kernel will report when it is.
func (s *socket) writable() bool {
	fds := [1]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds[:], 0)
	return err != nil || n > 0 // of an error write(2) will tell
}

func (s *socket) CloseWrite() error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if err := unix.Shutdown(s.fd, unix.SHUT_WR); err != nil {
		if err == unix.ENOTCONN {
			// The connection is gone, and perhaps nobody took the error yet.
			if e := s.takeError(); e != 0 {
				return s.Err()
			}
			err = unix.ECONNRESET
		}
		return s.keep(err)
	}
	return nil
}

func (s *socket) Reset() {
	s.release(true)
}

func (s *socket) Close() error {
	return s.release(false)
}

func (s *socket) release(reset bool) error {
	s.SetNotify(nil)
	s.rmu.Lock()
	defer s.rmu.Unlock()
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.emu.Lock()
	defer s.emu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.p.remove(s)
	if reset {
		// RFC 9293 calls it ABORT. A socket on which this fails is closed all
		// the same.
		_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	return unix.Close(s.fd)
}

func (s *socket) Outstanding() int {
	s.emu.Lock()
	defer s.emu.Unlock()
	if s.closed || s.errno.Load() != 0 {
		return 0
	}
	n, err := unix.IoctlGetInt(s.fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

func (s *socket) SetNotify(fn func(readable, writable, failed bool)) {
	s.nmu.Lock()
	s.notify = fn
	s.nmu.Unlock()
}

// SetBuffers implements Stream. It lets the kernel tune the receive buffer
// within recv bytes, its own overhead included, and hold send bytes unsent, but
// not more than DialerConfig.NotSent.
func (s *socket) SetBuffers(recv, send int) {
	s.emu.Lock()
	defer s.emu.Unlock()
	if s.closed {
		return
	}
	if recv > 0 {
		s.recvMax.Store(int64(recv))
		// From a small window on a short path the kernel does not grow: it sees
		// every round trip's bytes read in time, and nothing of what waking up for
		// so few of them costs. SO_RCVBUF doubles its value and sets the lock.
		if n, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil && n < min(recv, 2*recvFloor) {
			_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, min(recv/2, recvFloor))
		}
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0)
	}
	if send > 0 && s.sendSmall.Load() {
		s.sendSmall.Store(send < s.notSent)
		_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, min(send, s.notSent))
	}
}

// WriteSize implements Stream: it does not matter.
func (*socket) WriteSize() int { return 0 }

func (s *socket) SetKeepalive(idle, interval time.Duration, count int) {
	s.emu.Lock()
	defer s.emu.Unlock()
	if s.closed {
		return
	}
	// All are supported by every kernel; a value out of range is refused and
	// leaves the system's own.
	if idle <= 0 {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
		return
	}
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(idle))
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(interval))
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, max(1, count))
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}
