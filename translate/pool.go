package translate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/tougw/tougw/framing"
)

// need is what a request wants of its connection.
type need struct {
	client netip.AddrPort // whose connections they are, with ProxyOut
	key    uint64         // of keyed framings
	alone  bool           // nobody else may be on it
}

// applicant is a request that waits for a connection.
type applicant struct {
	need need
	// woken has a token when conn, dial or err is set.
	woken chan struct{}
	conn  *serverConn
	dial  *server // to be connected to, dialing is counted
	err   error
}

func (a *applicant) end(err error) {
	a.err = err
	a.woken <- struct{}{}
}

// acquire finds a connection for a request. Fresh says that it was made for it.
func (r *Reverse) acquire(ctx context.Context, a *applicant) (c *serverConn, fresh bool, err error) {
	var failed *connectError
	for tries := 0; ; tries++ {
		a.conn, a.dial, a.err = nil, nil, nil
		r.mu.Lock()
		switch {
		case r.closed:
			r.mu.Unlock()
			return nil, false, errClosed
		case r.allDown():
			err := r.allFailed()
			r.mu.Unlock()
			return nil, false, err
		case len(r.queue) == 0 && r.assign(a):
			r.mu.Unlock()
		case len(r.queue) >= r.rule.Limits.OutstandingAll:
			r.mu.Unlock()
			return nil, false, errTooMany
		default:
			r.queue = append(r.queue, a)
			r.mu.Unlock()
			if err := r.await(ctx, a); err != nil {
				return nil, false, err
			}
		}
		if a.err != nil {
			return nil, false, a.err
		}
		if a.conn != nil {
			return a.conn, false, nil
		}
		c, err := r.connectTo(ctx, a.dial, a.need.client)
		if err == nil {
			r.mu.Lock()
			r.use(c, &a.need)
			if !a.need.alone {
				r.dispatch() // others may join
			}
			r.mu.Unlock()
			return c, true, nil
		}
		if err == errClosed {
			return nil, false, err
		}
		failed = failed.and(a.dial.addr, err)
		if ctx.Err() != nil || tries+1 >= len(r.servers) {
			return nil, false, failed
		}
	}
}

// await waits in the queue.
func (r *Reverse) await(ctx context.Context, a *applicant) error {
	r.waiting.Add(1)
	defer r.waiting.Add(-1)
	timer := time.NewTimer(r.request)
	defer timer.Stop()
	var err error
	select {
	case <-a.woken:
		return nil
	case <-timer.C:
		err = errLateTCP
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.queue, a); i >= 0 {
		r.queue = slices.Delete(r.queue, i, i+1)
		return err
	}
	<-a.woken // it got something at the last moment
	return nil
}

// connectError is why no server could be reached.
type connectError struct {
	fault  *framing.Error
	server netip.AddrPort // the last one that was tried
	cause  error          // there
	text   string         // of all that were
}

// and returns e, which may be nil, with one more server that could not be reached.
func (e *connectError) and(server netip.AddrPort, err error) *connectError {
	next := &connectError{fault: errNotConnected, server: server, cause: err, text: fmt.Sprintf("connect %v: %v", server, dialCause(err))}
	if isTimeout(err) {
		next.fault = errLateConnect
	}
	if e != nil {
		next.text = e.text + "; " + next.text
	}
	return next
}

// Error names the servers and what was wrong with each.
func (e *connectError) Error() string { return e.text }

// Unwrap returns what a client is told, which does not name servers, and the error of
// the last one.
func (e *connectError) Unwrap() []error { return []error{e.fault, e.cause} }

// dialCause is an error of a dialer without the address.
func dialCause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err
}

// tried is the server that err is about, if it is about one that was not reached.
func tried(err error) netip.AddrPort {
	var failed *connectError
	if errors.As(err, &failed) {
		return failed.server
	}
	return netip.AddrPort{}
}

// assign gives a request a connection, or a server to connect to, and reports
// whether it found one: of the server with the least work a free connection, else
// a new one, else one that others use if the protocol allows that. It needs mu.
func (r *Reverse) assign(a *applicant) bool {
	for _, s := range r.byWork() {
		if c := s.take(&a.need, r.rule.ProxyOut); c != nil {
			r.use(c, &a.need)
			a.conn = c
			return true
		}
		if len(s.conns)+s.dialing < r.rule.Limits.ServerConns || r.evict(s) {
			s.dialing++
			a.dial = s
			return true
		}
		if a.need.alone || !r.traits.Pipelined {
			continue
		}
		var best *serverConn
		for _, c := range s.conns {
			if c.open(&a.need, r.rule.Limits.Pipeline, r.rule.ProxyOut) && (best == nil || c.depth < best.depth) {
				best = c
			}
		}
		if best != nil {
			r.use(best, &a.need)
			a.conn = best
			return true
		}
	}
	return false
}

// byWork returns the servers that are up, the one with the least work first. It
// needs mu.
func (r *Reverse) byWork() []*server {
	if len(r.servers) == 1 {
		if r.servers[0].up {
			return r.servers
		}
		return nil
	}
	// Of those with equal work another one comes first each time.
	first := r.servers[0]
	copy(r.servers, r.servers[1:])
	r.servers[len(r.servers)-1] = first
	up := make([]*server, 0, len(r.servers))
	for _, s := range r.servers {
		if s.up {
			up = append(up, s)
		}
	}
	slices.SortStableFunc(up, func(a, b *server) int { return a.work() - b.work() })
	return up
}

// take returns a free connection that is still good. It needs mu.
func (s *server) take(n *need, own bool) *serverConn {
	for i := len(s.free) - 1; i >= 0; i-- {
		c := s.free[i]
		if own && c.client != n.client {
			continue
		}
		s.free = slices.Delete(s.free, i, i+1)
		if c.stale() {
			c.drop()
			continue
		}
		return c
	}
	return nil
}

// evict closes a free connection of another client, which leaves a place. It needs
// mu.
func (r *Reverse) evict(s *server) bool {
	if len(s.free) == 0 {
		return false
	}
	c := s.free[0]
	s.free = slices.Delete(s.free, 0, 1)
	c.drop()
	return true
}

// open reports whether a request may join those on c. It needs mu.
func (c *serverConn) open(n *need, most int, own bool) bool {
	if c.depth == 0 || c.depth >= most || c.alone || c.err() != nil || own && c.client != n.client {
		return false
	}
	return !c.r.traits.Keyed || !slices.Contains(c.keys, n.key)
}

// use counts a request on c. It needs mu.
func (r *Reverse) use(c *serverConn, n *need) {
	c.depth++
	c.alone = n.alone
	c.server.outstanding++
	if r.traits.Keyed {
		c.keys = append(c.keys, n.key)
	}
}

// leave ends the use of c by a request. It needs mu.
func (r *Reverse) leave(c *serverConn, key uint64) {
	c.depth--
	c.server.outstanding--
	if i := slices.Index(c.keys, key); i >= 0 && r.traits.Keyed {
		c.keys = slices.Delete(c.keys, i, i+1)
	}
	if c.depth == 0 {
		c.alone = false
		if c.err() != nil || len(c.in.bytes()) > 0 || r.closed {
			c.drop()
		} else {
			c.idleSince = time.Now()
			c.in.release()
			c.server.free = append(c.server.free, c)
		}
	}
	r.dispatch()
}

// dispatch serves those that wait, in order, as far as there are connections. It
// needs mu.
func (r *Reverse) dispatch() {
	for len(r.queue) > 0 && r.assign(r.queue[0]) {
		a := r.queue[0]
		r.queue[0] = nil
		r.queue = r.queue[1:]
		a.woken <- struct{}{}
	}
}

// adopt makes a connection one of a server's, with nobody on it. It needs mu.
func (r *Reverse) adopt(s *server, conn net.Conn, client netip.AddrPort) *serverConn {
	c := newServerConn(r, s, conn, client)
	c.idleSince = time.Now() // until it is used, in a moment
	s.conns = append(s.conns, c)
	r.open[c] = struct{}{}
	r.conns.Add(1)
	r.connsTotal.Add(1)
	r.arm()
	return c
}

// drop closes a connection that nobody uses and forgets it. It needs mu.
func (c *serverConn) drop() {
	s := c.server
	if i := slices.Index(s.conns, c); i >= 0 {
		s.conns = slices.Delete(s.conns, i, i+1)
		delete(c.r.open, c)
		c.r.conns.Add(-1)
	}
	c.in.release()
	_ = c.conn.Close() // nothing of it is of use
}
