package translate

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tougw/tougw/framing"
)

// serverConn is a connection to a TCP server. Requests are written in the order of
// their turns, and whoever is first in turn reads. With a keyed framing it reads for
// the others too.
type serverConn struct {
	r      *Reverse
	server *server
	conn   net.Conn
	client netip.AddrPort // whose it is, with ProxyOut
	raw    syscall.RawConn

	// Of the first in turn.
	in      window
	scanner framing.Scanner
	eof     bool

	// With Reverse.mu: how many requests use it, whether one wants nobody else on it,
	// and the keys of those.
	depth     int
	alone     bool
	keys      []uint64
	idleSince time.Time

	write   sync.Mutex // held while a request is written
	failure atomic.Pointer[error]
	retired atomic.Bool // its server closes it

	mu    sync.Mutex
	turns []*exec

	// For tick, in nanoseconds since Reverse.base: since when the server is waited for,
	// 0 if it is not. A response is expected since a time, 0 if it is not.
	reading, writing, expected atomic.Int64
}

func newServerConn(r *Reverse, s *server, conn net.Conn, client netip.AddrPort) *serverConn {
	c := &serverConn{
		r: r, server: s, conn: conn, client: client,
		in: window{large: r.large}, scanner: r.rule.Framing.Responses(),
	}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	return c
}

// now is the time for tick.
func (r *Reverse) now() int64 { return max(1, int64(time.Since(r.base))) }

// err is why the connection takes no further request; nil if it does.
func (c *serverConn) err() error {
	if p := c.failure.Load(); p != nil {
		return *p
	}
	if c.retired.Load() {
		return errHungUp
	}
	return nil
}

// fail ends the connection and all that wait for it.
func (c *serverConn) fail(err error) {
	if c.failure.CompareAndSwap(nil, &err) {
		reset(c.conn)
		c.wakeAll()
	}
}

// retire keeps further requests away from a connection that its server closes.
func (c *serverConn) retire() {
	if c.retired.CompareAndSwap(false, true) {
		c.wakeAll()
	}
}

func (c *serverConn) wakeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.turns {
		x.signal()
	}
}

// enqueue gives x the next turn.
func (c *serverConn) enqueue(x *exec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turns = append(c.turns, x); len(c.turns) == 1 {
		x.signal()
	}
}

// dequeue ends x's turn.
func (c *serverConn) dequeue(x *exec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.turns, x)
	c.turns = slices.Delete(c.turns, i, i+1)
	if i == 0 && len(c.turns) > 0 {
		c.turns[0].signal()
	}
}

// first reports whether x is to read.
func (c *serverConn) first(x *exec) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.turns[0] == x
}

// handed gives the response of x that another request has read, nil if none has.
func (c *serverConn) handed(x *exec) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return x.handed
}

// hand gives a whole response to the request with its key, if there is one.
func (c *serverConn) hand(key uint64, message []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.turns {
		if x.req.Key == key && x.handed == nil {
			x.handed = message
			x.signal()
			return
		}
	}
}

// read waits for more of the responses.
func (c *serverConn) read() error {
	c.reading.Store(c.r.now())
	n, err := c.conn.Read(c.in.room())
	c.reading.Store(0)
	c.in.fill(n)
	c.r.bytesIn.Add(uint64(n))
	switch {
	case n > 0 || err == nil:
		return nil
	case errors.Is(err, io.EOF):
		c.eof = true
		return nil
	}
	if failure := c.err(); failure != nil {
		return failure
	}
	return errHungUp
}

// put writes a part of a request.
func (c *serverConn) put(p []byte) (int, error) {
	c.writing.Store(c.r.now())
	n, err := c.conn.Write(p)
	c.writing.Store(0)
	c.r.bytesOut.Add(uint64(n))
	if err != nil {
		if failure := c.err(); failure != nil {
			err = failure
		} else {
			err = errHungUp
		}
	}
	return n, err
}

// tickInterval bounds how late a time-out of a server may be.
const tickInterval = 250 * time.Millisecond

// arm starts the timer if something is to be looked at. It needs mu.
func (r *Reverse) arm() {
	if r.timer == nil && !r.closed && len(r.open)+len(r.streams) > 0 {
		r.timer = time.AfterFunc(max(5*time.Millisecond, min(tickInterval, r.request/4, r.idle/4, r.silence/4)), r.tick)
	}
}

// tick ends what takes too long.
func (r *Reverse) tick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer = nil; r.closed {
		return
	}
	now := r.now()
	for c := range r.open {
		switch {
		case c.depth > 0:
			c.check(now)
		case time.Since(c.idleSince) >= r.idle || c.stale():
			s := c.server
			s.free = slices.DeleteFunc(s.free, func(f *serverConn) bool { return f == c })
			c.drop()
		}
	}
	r.checkStreams()
	r.arm()
}

// check ends a connection whose server is silent for too long, or whose only client
// has gone.
func (c *serverConn) check(now int64) {
	late := func(since int64) bool { return since != 0 && now-since >= int64(c.r.request) }
	read, expected := c.reading.Load(), c.expected.Load()
	if late(c.writing.Load()) || read != 0 && expected != 0 && late(max(read, expected)) {
		c.failLater(errLateTCP)
		return
	}
	c.mu.Lock()
	gone := len(c.turns) == 1 && c.turns[0].ctx.Err() != nil
	c.mu.Unlock()
	if gone && read != 0 {
		c.failLater(errEarlyEnd)
	}
}

// failLater fails c, which nobody takes from now on, in another goroutine: a reset
// may take a moment, and mu of the Reverse is held.
func (c *serverConn) failLater(err error) {
	if c.failure.CompareAndSwap(nil, &err) {
		go func() {
			reset(c.conn)
			c.wakeAll()
		}()
	}
}
