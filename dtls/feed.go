package dtls

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// feedConn is the packet connection that the handshake library believes in. It
// reads what the demultiplexer pushes; what it writes goes to a function.
type feedConn struct {
	remote net.Addr
	local  net.Addr
	write  func(datagram []byte)

	mu      sync.Mutex
	wake    sync.Cond
	queue   [][]byte
	budget  int  // bytes that may still be pushed
	expired bool // the read deadline has passed
	closed  bool
	timer   *time.Timer
}

// maxFeedQueue bounds the datagrams waiting for the library; a flight has a
// handful.
const maxFeedQueue = 32

// maxFeedDatagram is what the library reads at once.
const maxFeedDatagram = 8192

// The library keeps up to 2 MB of fragments for each connection. What an
// unauthenticated peer can make us keep is bounded by what it may send in all:
// a client's certificates with their repetitions, a server's with longer
// chains.
const (
	acceptBudget = 64 << 10
	dialBudget   = 256 << 10
)

func newFeedConn(remote, local netip.AddrPort, budget int, write func([]byte)) *feedConn {
	c := &feedConn{budget: budget, remote: net.UDPAddrFromAddrPort(remote), local: net.UDPAddrFromAddrPort(local), write: write}
	c.wake.L = &c.mu
	return c
}

// push copies a datagram into the queue; false means that it was dropped.
func (c *feedConn) push(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.queue) >= maxFeedQueue || len(b) > maxFeedDatagram || len(b) > c.budget {
		return false
	}
	c.budget -= len(b)
	c.queue = append(c.queue, append([]byte(nil), b...))
	c.wake.Broadcast()
	return true
}

// ReadFrom waits for a datagram, the deadline or Close.
func (c *feedConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, nil, net.ErrClosed
		case c.expired:
			return 0, nil, os.ErrDeadlineExceeded
		case len(c.queue) > 0:
			n := copy(b, c.queue[0])
			c.queue[0] = nil
			c.queue = c.queue[1:]
			return n, c.remote, nil
		}
		c.wake.Wait()
	}
}

// WriteTo hands the datagram on. It never fails: a socket error must not end
// the handshake, which repeats its flights anyway.
func (c *feedConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	c.write(b)
	return len(b), nil
}

// Close ends reading.
func (c *feedConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.queue = nil
	if c.timer != nil {
		c.timer.Stop()
	}
	c.wake.Broadcast()
	return nil
}

// LocalAddr is the socket's address.
func (c *feedConn) LocalAddr() net.Addr { return c.local }

// SetDeadline sets the read deadline; writes do not block.
func (c *feedConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline interrupts a waiting ReadFrom at t; the zero time means
// never.
func (c *feedConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	wait := time.Until(t)
	c.expired = !t.IsZero() && wait <= 0
	if !t.IsZero() && wait > 0 {
		var tm *time.Timer
		tm = time.AfterFunc(wait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.timer == tm { // not replaced meanwhile
				c.expired = true
				c.wake.Broadcast()
			}
		})
		c.timer = tm
	}
	c.wake.Broadcast()
	return nil
}

// SetWriteDeadline does nothing: writes do not block.
func (c *feedConn) SetWriteDeadline(time.Time) error { return nil }
