package bridge

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/tougw/tougw/internal/packet"
)

// Conn is a blocking connection that can be half-closed: *net.TCPConn,
// *net.UnixConn, *tls.Conn.
type Conn interface {
	net.Conn
	CloseWrite() error
}

// NewConnStream takes c and gives it as a Stream. It costs two goroutines and one
// or two buffers until it is closed or reset: it is for systems and connections
// that have nothing better. SetBuffers has no effect, Outstanding counts what the
// system has not taken, SetKeepalive works for TCP, and a reset behind unread
// data is noticed when that has been read or something is written.
func NewConnStream(c Conn) Stream {
	s := &connStream{c: c}
	s.wait.L = &s.mu
	go s.readLoop()
	go s.writeLoop()
	return s
}

// connStream turns blocking calls into events. The reader goroutine fills its
// buffer when it is empty, the writer goroutine empties its own when it is not.
type connStream struct {
	c Conn

	mu      sync.Mutex
	wait    sync.Cond // any change
	in, out half
	rerr    error // io.EOF or failure, valid once in is empty
	err     error // failure
	fin     bool  // CloseWrite was called
	closed  bool  // Close or Reset was called
	reset   bool
	written bool // the writer has ended
	full    bool // a Write was cut short

	nmu    sync.Mutex // held during a call of notify
	notify func(readable, writable, failed bool)
}

// half is buffered data of one direction: buf.B[off:n].
type half struct {
	buf    *packet.Buffer
	off, n int
}

func (h *half) len() int { return h.n - h.off }

func (h *half) release() {
	if h.buf != nil {
		h.buf.Release()
	}
	*h = half{}
}

func (s *connStream) readLoop() {
	for {
		// The buffer is out of s while the read waits, and the lock free.
		buf := packet.Get()
		n, err := s.c.Read(buf.B)
		s.mu.Lock()
		if n > 0 && !s.closed {
			s.in = half{buf: buf, n: n}
		} else {
			buf.Release()
		}
		if err != nil && !s.closed {
			s.rerr = err
			if !errors.Is(err, io.EOF) {
				s.failLocked(err)
			}
		}
		s.mu.Unlock()
		s.tell(true, false)
		s.mu.Lock()
		for s.in.len() > 0 && !s.closed {
			s.wait.Wait()
		}
		if s.closed {
			s.in.release()
		}
		end := s.closed || err != nil
		s.mu.Unlock()
		if end {
			return
		}
	}
}

func (s *connStream) writeLoop() {
	defer s.writeEnded()
	for {
		s.mu.Lock()
		for s.out.len() == 0 && !s.fin && !s.closed && s.err == nil {
			s.wait.Wait()
		}
		if s.err != nil || s.reset || s.out.len() == 0 {
			fin := s.fin && !s.reset && s.err == nil
			s.mu.Unlock()
			if fin {
				if err := s.c.CloseWrite(); err != nil {
					s.fail(err)
				}
			}
			return
		}
		p := s.out.buf.B[s.out.off:s.out.n]
		s.mu.Unlock()
		n, err := s.c.Write(p)
		s.mu.Lock()
		s.out.off += n
		if s.out.len() == 0 {
			s.out.release()
		}
		room := s.full && s.out.len() == 0
		if room {
			s.full = false
		}
		if err != nil {
			s.failLocked(err)
		}
		s.mu.Unlock()
		if room || err != nil {
			s.tell(false, room)
		}
	}
}

// writeEnded closes the connection if Close came first and left that to the
// writer, which had data. Reset closes it itself, once it is set to send RST.
func (s *connStream) writeEnded() {
	s.mu.Lock()
	s.written = true
	s.out.release()
	closed := s.closed && !s.reset
	s.mu.Unlock()
	if closed {
		_ = s.c.Close()
	}
}

func (s *connStream) fail(err error) {
	s.mu.Lock()
	s.failLocked(err)
	s.mu.Unlock()
	s.tell(false, false)
}

func (s *connStream) failLocked(err error) {
	if s.err == nil && !s.closed {
		s.err = connError(err)
		s.wait.Broadcast()
	}
}

// connError strips what net adds, so that callers can compare errno values.
func connError(err error) error {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno) && errno == syscall.EPIPE:
		return syscall.ECONNRESET
	case errors.As(err, &errno):
		return errno
	case isTimeout(err):
		return syscall.ETIMEDOUT
	}
	return err
}

func (s *connStream) tell(readable, writable bool) {
	failed := s.Err() != nil
	s.nmu.Lock()
	defer s.nmu.Unlock()
	if s.notify != nil {
		s.notify(readable || failed, writable || failed, failed)
	}
}

func (s *connStream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0, net.ErrClosed
	case s.in.len() > 0:
		n := copy(p, s.in.buf.B[s.in.off:s.in.n])
		s.in.off += n
		if s.in.len() == 0 {
			s.in.release()
			s.wait.Broadcast()
		}
		return n, nil
	case s.rerr == nil:
		// Also after a failed write: what was received is on its way.
		return 0, syscall.EAGAIN
	case errors.Is(s.rerr, io.EOF):
		return 0, io.EOF
	}
	return 0, s.err
}

func (s *connStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed || s.fin:
		return 0, net.ErrClosed
	case s.err != nil:
		return 0, s.err
	case len(p) == 0:
		return 0, nil
	case s.out.len() > 0:
		s.full = true
		return 0, syscall.EAGAIN
	}
	s.out = half{buf: packet.Get()}
	s.out.n = copy(s.out.buf.B, p)
	s.wait.Broadcast()
	if s.out.n < len(p) {
		s.full = true
		return s.out.n, syscall.EAGAIN
	}
	return s.out.n, nil
}

func (s *connStream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if s.err != nil {
		return s.err
	}
	s.fin = true
	s.wait.Broadcast()
	return nil
}

func (s *connStream) Reset() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed, s.reset = true, true
	s.wait.Broadcast()
	s.mu.Unlock()
	s.SetNotify(nil)
	if t, ok := s.c.(interface{ SetLinger(int) error }); ok {
		// If it fails the peer sees a FIN instead of RST.
		_ = t.SetLinger(0)
	}
	_ = s.c.Close()
}

func (s *connStream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed, s.fin = true, true
	written := s.written
	s.wait.Broadcast()
	s.mu.Unlock()
	s.SetNotify(nil)
	if written {
		return s.c.Close()
	}
	return nil
}

func (s *connStream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *connStream) Outstanding() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.closed {
		return 0
	}
	return s.out.len()
}

func (s *connStream) SetNotify(fn func(readable, writable, failed bool)) {
	s.nmu.Lock()
	s.notify = fn
	s.nmu.Unlock()
}

func (s *connStream) SetBuffers(recv, send int) {}

// WriteSize implements Stream: it does not matter.
func (*connStream) WriteSize() int { return 0 }

func (s *connStream) SetKeepalive(idle, interval time.Duration, count int) {
	if t, ok := s.c.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok {
		// Refused values leave the system's own.
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: idle > 0, Idle: idle, Interval: interval, Count: count})
	}
}
