package translate

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// How long a server that cannot be connected to is left alone, at first and at most.
// Our choice: short enough for a restart, long enough that nobody suffers.
const (
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = 5 * time.Second
)

// server is a TCP server of a Reverse. Its fields need Reverse.mu.
type server struct {
	addr        netip.AddrPort
	up          bool
	failure     error // of the last attempt to connect; nil if it did not fail
	backoff     time.Duration
	probe       *time.Timer
	conns       []*serverConn
	free        []*serverConn // not in use, the last used at the end
	dialing     int
	outstanding int
	streams     atomic.Int64

	dials, dialFailures uint64
}

func (s *server) stats() ServerStats {
	return ServerStats{
		Addr: s.addr, Up: s.up, Conns: len(s.conns) + int(s.streams.Load()), Outstanding: s.work(),
		Dials: s.dials, DialFailures: s.dialFailures,
	}
}

// work is what the server has to do.
func (s *server) work() int { return s.outstanding + s.dialing + int(s.streams.Load()) }

func (s *server) stopProbe() {
	if s.probe != nil {
		s.probe.Stop()
	}
}

// connectTo connects to a server whose dialing was counted.
func (r *Reverse) connectTo(ctx context.Context, s *server, client netip.AddrPort) (*serverConn, error) {
	conn, err := r.dialServer(ctx, s, client)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.dialed(ctx, s, conn, err); err != nil {
		return nil, err
	}
	return r.adopt(s, conn, client), nil
}

// dialServer makes a connection and names the client on it, if that is wanted.
func (r *Reverse) dialServer(ctx context.Context, s *server, client netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, r.connect)
	defer cancel()
	stop := context.AfterFunc(r.ctx, cancel)
	defer stop()
	conn, err := r.dial(ctx, s.addr)
	if err == nil && r.rule.ProxyOut && client.IsValid() {
		err = r.introduce(conn, client, s.addr)
	}
	return conn, err
}

// dialed ends the count of a dialing for ctx and keeps the health of the server. It
// needs mu.
func (r *Reverse) dialed(ctx context.Context, s *server, conn net.Conn, err error) error {
	s.dialing--
	s.dials++
	switch {
	case r.closed:
		if err == nil {
			reset(conn)
		}
		return errClosed
	case err != nil && ctx.Err() != nil:
		r.dispatch() // the client gave up, which says nothing of the server
	case err != nil:
		s.dialFailures++
		s.failure = err
		r.connsRefused.Add(1)
		r.markDown(s)
		r.dispatch() // our place is free
	default:
		s.up, s.backoff, s.failure = true, 0, nil
	}
	return err
}

// introduce names the client to a server.
func (r *Reverse) introduce(conn net.Conn, client, server netip.AddrPort) error {
	header, err := proxyHeader(client, server)
	if err == nil {
		_ = conn.SetWriteDeadline(time.Now().Add(r.connect)) // else it is waited for by the request
		_, err = conn.Write(header)
		_ = conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		reset(conn)
	}
	return err
}

// markDown takes a server out of use until a probe reaches it. It needs mu.
func (r *Reverse) markDown(s *server) {
	if r.closed || !s.up && s.probe != nil {
		return
	}
	s.up = false
	s.backoff = min(max(2*s.backoff, firstBackoff), lastBackoff)
	s.probe = time.AfterFunc(s.backoff, func() { r.runProbe(s) })
	if r.allDown() {
		for _, a := range r.queue {
			a.end(r.allFailed())
		}
		r.queue = nil
	}
}

// allFailed is why no server can be reached when all are down. It needs mu.
func (r *Reverse) allFailed() error {
	var failed *connectError
	for _, s := range r.servers {
		failed = failed.and(s.addr, s.failure)
	}
	failed.fault = errAllDown
	return failed
}

func (r *Reverse) allDown() bool {
	for _, s := range r.servers {
		if s.up {
			return false
		}
	}
	return true
}

// runProbe tries to connect to a server that is down.
func (r *Reverse) runProbe(s *server) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.wg.Add(1)
	defer r.wg.Done()
	s.probe = nil
	s.dialing++
	r.mu.Unlock()
	if !r.rule.ProxyOut && !r.traits.Stream {
		if c, err := r.connectTo(r.ctx, s, netip.AddrPort{}); err == nil {
			r.mu.Lock()
			r.use(c, &need{})
			r.leave(c, 0)
			r.mu.Unlock()
		}
		return
	}
	// A connection without a client is of no further use.
	conn, err := r.dialServer(r.ctx, s, netip.AddrPort{})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dialed(r.ctx, s, conn, err) == nil {
		reset(conn)
		r.dispatch()
	}
}
