package translate

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa/rpc"
)

// client is one TCP client of a Forward. One goroutine, the reader, scans requests
// and makes RPCs of them; another, the writer, takes the answers in the order of the
// requests. The reader waits on changed for what the writer does. The writer waits on
// wake, which its calls know as well: what it can do nothing about yet does not wake it.
type client struct {
	f    *Forward
	conn net.Conn
	meta Meta
	base time.Time

	// The reader's.
	in      window
	scanner framing.Scanner
	current *exchange // is being scanned
	held    collector
	eof     bool
	clock   clock

	// The writer's.
	encoder  *framing.Encoder
	response window
	out      []byte
	flushed  bool // something of the answer that is being written has left

	mu      sync.Mutex
	changed sync.Cond   // for the reader
	queue   []*exchange // pushed and not finished, in order
	unsafe  int         // opened and not finished, of those that change something
	opening Call        // of current, when it is not in the queue yet
	over    bool        // all is
	timer   *time.Timer // calls watch
	ended   bool        // the reader will push nothing more
	written bool        // the writer will write nothing more
	closing bool        // and that was a last answer
	aborted bool
	gone    chan struct{} // closed when closing or aborted

	wake chan struct{} // has a token when the writer should look again
}

// wakeWriter makes the writer look again.
func (c *client) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// now is the time since the client came.
func (c *client) now() time.Duration { return time.Since(c.base) }

// serve returns when the connection is closed.
func (c *client) serve(ctx context.Context) {
	c.changed.L = &c.mu
	c.gone, c.wake = make(chan struct{}), make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, c.abort)
	c.mu.Lock()
	c.timer = time.AfterFunc(min(c.f.idle, c.f.request, c.f.write), c.watch)
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.write()
	}()
	c.read()
	<-done
	stop()
	c.finish()
}

// finish releases what is left.
func (c *client) finish() {
	c.mu.Lock()
	c.over = true
	c.timer.Stop()
	aborted := c.aborted
	left := c.queue
	if c.current != nil && !c.current.pushed {
		left = append(left, c.current)
	}
	c.queue = nil
	c.mu.Unlock()
	end := c.now()
	for _, ex := range left {
		if ex.call != nil {
			_ = ex.call.Close() // it returns nil
		}
		c.leave(ex)
		ex.aborted = ex.fault == nil
		c.f.record(c, ex, end)
	}
	c.held.release()
	c.in.release()
	c.response.release()
	if aborted {
		reset(c.conn)
	} else {
		_ = c.conn.Close() // everything was written
	}
}

// abort resets the client and gives its calls up.
func (c *client) abort() {
	c.mu.Lock()
	if !c.aborted {
		c.leaving()
		c.aborted = true
		c.closeCalls()
		reset(c.conn)
	}
	c.changed.Broadcast()
	c.wakeWriter()
	c.mu.Unlock()
}

// leaving tells all who wait that the client has no further use for it. It needs mu.
func (c *client) leaving() {
	if !c.closing && !c.aborted {
		close(c.gone)
	}
}

// closeCalls gives up all calls. It needs mu.
func (c *client) closeCalls() {
	for _, ex := range c.queue {
		if ex.call != nil {
			_ = ex.call.Close() // it returns nil
		}
	}
	if c.opening != nil {
		_ = c.opening.Close()
	}
}

// read scans requests until there are no more.
func (c *client) read() {
	for c.step() {
	}
	c.mu.Lock()
	c.ended = true
	c.wakeWriter()
	// What follows a last answer is read for a while and dropped.
	for !c.written && !c.aborted {
		c.changed.Wait()
	}
	drain := c.closing && !c.aborted && !c.eof
	c.mu.Unlock()
	if drain {
		_, _ = io.Copy(io.Discard, onlyReader{c.conn}) // until the deadline that the writer has set
	}
}

// onlyReader hides the ways around Read.
type onlyReader struct{ io.Reader }

// step takes one result of the scanner, and reports whether to go on.
func (c *client) step() bool {
	r, err := c.scanner.Scan(c.in.bytes(), c.eof, nil)
	if err != nil {
		c.broken(asFault(err), r.Request)
		return false
	}
	if r.Progress() {
		more := c.take(&r)
		c.in.advance(r.Advance)
		return more
	}
	return !c.eof && c.fill()
}

// asFault is the error of a scanner or encoder.
func asFault(err error) *framing.Error {
	var fault *framing.Error
	if errors.As(err, &fault) {
		return fault
	}
	return &framing.Error{Fault: framing.Malformed, Reason: err.Error()}
}

// fill reads from the connection.
func (c *client) fill() bool {
	stamp(&c.clock.readSince, c.now())
	n, err := c.conn.Read(c.in.room())
	c.clock.readSince.Store(0)
	c.in.fill(n)
	c.f.bytesIn.Add(uint64(n))
	switch {
	case n > 0: // an error comes again
		return true
	case err == io.EOF:
		c.eof = true
		return true
	case errors.Is(err, os.ErrDeadlineExceeded): // idle, or after a last answer
		if (c.current != nil || len(c.in.bytes()) > 0) && !c.stopped() {
			c.broken(errStopped, nil)
		}
		return false
	case err == nil:
		return true
	}
	c.abort()
	return false
}

// broken ends the requests with a fault after which nothing can be understood.
func (c *client) broken(fault *framing.Error, req *framing.Request) {
	ex := c.current
	if ex == nil {
		ex = &exchange{begun: c.now()}
	}
	if req != nil && ex.call == nil {
		ex.req, ex.known = *req, true
	}
	c.mu.Lock()
	ex.final = true
	c.mu.Unlock()
	c.refuse(ex, fault)
	c.current = nil
}

// take handles one result, and reports whether to go on.
func (c *client) take(r *framing.Result) bool {
	if r.Begin {
		c.current = &exchange{begun: c.now()}
	}
	ex := c.current
	if ex == nil {
		return true // between messages
	}
	if r.Request != nil && ex.call == nil {
		ex.req, ex.known = *r.Request, true
	}
	if r.Refused != nil && !ex.dropped {
		c.refuse(ex, r.Refused)
	}
	if r.Interim != "" {
		ex.interim = r.Interim
		c.push(ex)
	}
	switch {
	case ex.dropped || ex.req.Local:
	case ex.call != nil:
		c.send(ex, r.Data, 0)
	case r.Length < 0:
		if !c.held.add(r.Data) {
			c.refuse(ex, errBuffered)
		}
	default:
		c.open(ex, r)
	}
	if !r.End {
		return !c.stopped()
	}
	c.current = nil
	c.end(ex)
	return !ex.req.Last && !c.stopped()
}

// stopped reports that further requests get no answer.
func (c *client) stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing || c.aborted
}

// open makes the RPC of a request whose length is known now, and sends what is
// here of it.
func (c *client) open(ex *exchange, r *framing.Result) {
	if !c.enter(ex) {
		return
	}
	ex.length, ex.opened = r.Length, c.now()
	first := c.held.buf
	if len(first) == 0 {
		first = r.Data
	}
	call, n, err := c.f.openWith(int(r.Length), rpc.OpenOptions{First: first, Wake: c.wake}, c.gone)
	if err != nil {
		c.refuse(ex, faultOf(err))
		return
	}
	c.mu.Lock()
	ex.call = call
	if ex.pushed {
		ex.ready = true
		c.wakeWriter()
	} else {
		c.opening = call
	}
	if !ex.req.Safe {
		c.unsafe++
	}
	if c.aborted || c.closing {
		_ = call.Close() // it returns nil
	}
	c.mu.Unlock()
	if c.f.rule.Retry && ex.req.Safe && r.Length <= maxCopied {
		ex.copied = make([]byte, 0, r.Length)
	}
	if len(c.held.buf) > 0 {
		c.send(ex, c.held.buf, n)
		c.held.release()
		n = 0
	}
	if !r.End {
		c.push(ex) // the response is waited for while the request goes on
	}
	c.send(ex, r.Data, n)
}

// send hands on a part of the request, of which the first n bytes have been. An error
// is the writer's to find: it is the call's.
func (c *client) send(ex *exchange, p []byte, n int) {
	if ex.copied != nil {
		ex.copied = append(ex.copied, p...)
	}
	if n < len(p) {
		_, _ = ex.call.Write(p[n:])
	}
}

// end finishes a request whose last byte was scanned.
func (c *client) end(ex *exchange) {
	if ex.req.Local {
		c.held.release()
	}
	c.mu.Lock()
	if !ex.over {
		ex.sent, ex.ready = c.now(), true
	}
	if ex.pushed && ex.call == nil {
		c.wakeWriter() // else push does, or the call
	}
	c.mu.Unlock()
	c.push(ex)
}

// refuse makes fault the answer to a request.
func (c *client) refuse(ex *exchange, fault *framing.Error) {
	c.held.release()
	ex.dropped = true
	c.mu.Lock()
	if !ex.over && ex.fault == nil {
		ex.fault, ex.ready = fault, true
	}
	if ex.call != nil {
		_ = ex.call.Close() // it returns nil
	}
	c.wakeWriter()
	c.mu.Unlock()
	c.push(ex)
}

// push puts an exchange into the queue when there is room in it.
func (c *client) push(ex *exchange) {
	if ex.pushed {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) >= c.f.rule.Limits.Outstanding && !c.aborted && !c.closing {
		c.changed.Wait()
	}
	ex.pushed = true
	ex.ready = ex.ready || ex.call != nil
	c.opening = nil // the queue has it
	c.queue = append(c.queue, ex)
	// What a call has to say wakes the writer itself, unless it did so already.
	if ex.call == nil || ex.fault != nil || ex.interim != "" || ex.call.Ready() {
		c.wakeWriter()
	}
}

// enter waits for the turn of a request: for room among those of this client and of
// all, and until what came before allows it. Requests that change nothing may run
// beside each other; one that does waits for all before it, and all behind it wait
// for it, so that the server sees the order that the client saw.
func (c *client) enter(ex *exchange) bool {
	c.mu.Lock()
	for waited := false; ; {
		before := len(c.queue)
		if ex.pushed {
			before--
		}
		free := before < c.f.rule.Limits.Outstanding && c.unsafe == 0 && (ex.req.Safe || before == 0)
		if free || c.aborted || c.closing {
			break
		}
		if !waited {
			waited = true
			c.f.waiting.Add(1)
			defer c.f.waiting.Add(-1)
		}
		c.changed.Wait()
	}
	gone := c.aborted || c.closing
	c.mu.Unlock()
	if gone {
		return false
	}
	select {
	case c.f.places <- struct{}{}:
	default:
		c.f.waiting.Add(1)
		defer c.f.waiting.Add(-1)
		select {
		case c.f.places <- struct{}{}:
		case <-c.gone:
			return false
		}
	}
	c.f.outstanding.Add(1)
	ex.placed = true
	return true
}

// leave gives the place of an exchange back.
func (c *client) leave(ex *exchange) {
	if ex.placed {
		ex.placed = false
		<-c.f.places
		c.f.room.freed()
		c.f.outstanding.Add(-1)
	}
}
