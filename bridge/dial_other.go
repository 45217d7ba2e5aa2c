//go:build !linux

package bridge

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// Dialer opens kernel TCP connections and gives them as Streams. On this system
// each costs two goroutines, and the fields of DialerConfig have no effect.
type Dialer struct {
	mu     sync.Mutex
	closed bool
	left   map[*dialed]struct{}
}

// dialed is a connection that its Dialer can reset.
type dialed struct {
	Stream
	d *Dialer
}

// NewDialer returns a Dialer that has opened nothing yet.
func NewDialer(cfg DialerConfig) *Dialer {
	return &Dialer{left: make(map[*dialed]struct{})}
}

// Dial connects to dst. It returns when the connection is established, has
// failed, or ctx ends. Its errors wrap what the caller is to pass on:
// syscall.ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EACCES (administratively
// prohibited), ETIMEDOUT (also when ctx's deadline passed), ctx's error when it
// was cancelled, net.ErrClosed; anything else is trouble on this side.
func (d *Dialer) Dial(ctx context.Context, dst netip.AddrPort) (Stream, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", dst.String())
	if err != nil {
		if ctx.Err() == context.Canceled {
			err = context.Canceled
		}
		return nil, dialError(dst, err)
	}
	s := &dialed{Stream: NewConnStream(c.(*net.TCPConn)), d: d}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		s.Stream.Reset()
		return nil, dialError(dst, net.ErrClosed)
	}
	d.left[s] = struct{}{}
	return s, nil
}

// Close resets the connections that are left. It is idempotent.
func (d *Dialer) Close() error {
	d.mu.Lock()
	d.closed = true
	left := d.left
	d.left = nil
	d.mu.Unlock()
	for s := range left {
		s.Stream.Reset()
	}
	return nil
}

func (d *Dialer) forget(s *dialed) {
	d.mu.Lock()
	delete(d.left, s)
	d.mu.Unlock()
}

// Reset implements Stream.
func (s *dialed) Reset() {
	s.d.forget(s)
	s.Stream.Reset()
}

// Close implements Stream.
func (s *dialed) Close() error {
	s.d.forget(s)
	return s.Stream.Close()
}
