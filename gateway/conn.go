package gateway

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/tougw/tougw/tcpip"
)

// conn makes a net.Conn of a tcpip.Stream, for code that waits in calls. It has
// no goroutine: calls that cannot go on wait for an event of the stream, their
// deadline or the end. It can also be half-closed and reset. All methods are safe
// for concurrent use; concurrent Reads (and concurrent Writes) take turns.
type conn struct {
	s             *tcpip.Stream
	local, remote net.Addr
	once          sync.Once
	closed        chan struct{} // by Close and Reset
	in, out       direction
}

// direction is what one direction of a conn waits for.
type direction struct {
	turn  sync.Mutex    // held by the call that reads or writes
	event chan struct{} // has an entry when it is worth trying again
	deadline
}

// newConn wraps a stream, which it owns from then on. The addresses are what
// LocalAddr and RemoteAddr give: in a tunnel a stream does not know them.
func newConn(s *tcpip.Stream, local, remote netip.AddrPort) *conn {
	c := &conn{
		s: s, local: net.TCPAddrFromAddrPort(local), remote: net.TCPAddrFromAddrPort(remote), closed: make(chan struct{}),
		in:  direction{event: make(chan struct{}, 1)},
		out: direction{event: make(chan struct{}, 1)},
	}
	c.in.init()
	c.out.init()
	s.SetNotify(func(ev tcpip.Ready) {
		if ev&(tcpip.Readable|tcpip.Hup) != 0 {
			c.in.wake()
		}
		if ev&(tcpip.Writable|tcpip.Hup) != 0 {
			c.out.wake()
		}
	})
	return c
}

// wake says that it is worth trying again. It does not block.
func (d *direction) wake() {
	select {
	case d.event <- struct{}{}:
	default: // it was said already
	}
}

// wait returns nil when it is worth trying again, or why the call must end.
func (c *conn) wait(d *direction) error {
	select {
	case <-d.event:
		return nil
	case <-d.over():
		return os.ErrDeadlineExceeded
	case <-c.closed:
		return net.ErrClosed
	}
}

// begin reports a deadline that is over, which fails calls that could go on.
func (d *direction) begin() error {
	select {
	case <-d.over():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	c.in.turn.Lock()
	defer c.in.turn.Unlock()
	if err := c.in.begin(); err != nil {
		return 0, c.failed("read", err)
	}
	for {
		n, err := c.s.Read(p)
		if !errors.Is(err, syscall.EAGAIN) {
			return n, c.failed("read", err)
		}
		if err := c.wait(&c.in); err != nil {
			return 0, c.failed("read", err)
		}
	}
}

// Write implements net.Conn: it waits until the stream has taken all of p.
func (c *conn) Write(p []byte) (int, error) {
	c.out.turn.Lock()
	defer c.out.turn.Unlock()
	if err := c.out.begin(); err != nil {
		return 0, c.failed("write", err)
	}
	done := 0
	for {
		n, err := c.s.Write(p[done:])
		done += n
		if !errors.Is(err, syscall.EAGAIN) {
			return done, c.failed("write", err)
		}
		if err := c.wait(&c.out); err != nil {
			return done, c.failed("write", err)
		}
	}
}

// failed names an error as package net does; io.EOF stays what it is.
func (c *conn) failed(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
	default:
		var errno syscall.Errno
		if !errors.As(err, &errno) { // io.EOF
			return err
		}
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// CloseWrite sends FIN after all that was written. Reading goes on.
func (c *conn) CloseWrite() error { return c.failed("close", c.s.CloseWrite()) }

// Close implements net.Conn. What was written is still delivered.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.closed)
		c.in.stop()
		c.out.stop()
		err = nil
		if e := c.s.Close(); e != nil {
			err = e
		}
	})
	return c.failed("close", err)
}

// Reset ends the connection with an RST, so that the peer sees that something
// failed.
func (c *conn) Reset() {
	c.once.Do(func() {
		close(c.closed)
		c.in.stop()
		c.out.stop()
		c.s.SetNotify(nil)
		c.s.Reset()
	})
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.in.set(t)
	c.out.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { c.in.set(t); return nil }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { c.out.set(t); return nil }

// deadline is an instant that may move at any time, also while somebody waits for
// it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{} // closed while the deadline is over
}

func (d *deadline) init() { d.done = make(chan struct{}) }

// over is closed once the deadline is over. Who waits for it sees also a deadline
// that was moved: to an earlier instant because done closes, to a later one
// because it is closed no sooner.
func (d *deadline) over() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

// set moves the deadline; the zero time is none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.done // its function runs, or has run, and closes it
	}
	d.timer = nil
	select {
	case <-d.done:
		d.done = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	done := d.done
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(done) })
	} else {
		close(done)
	}
}

// stop forgets the deadline for good.
func (d *deadline) stop() { d.set(time.Time{}) }
