package translate

import (
	"errors"
	"io"
	"time"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa/rpc"
)

// directWrite is from how many bytes on data is written where it is, rather than
// copied behind what is written before. Our choice.
const directWrite = 8 << 10

// write gives the answers until there are no more.
func (c *client) write() {
	for {
		ex := c.next()
		if ex == nil || !c.answer(ex) {
			break
		}
	}
	c.mu.Lock()
	c.written = true
	c.changed.Broadcast()
	c.mu.Unlock()
	c.releaseOut()
}

// next waits for the request whose answer is next, and for what that is; nil if
// there is none. Before it waits, everything is written.
func (c *client) next() *exchange {
	if !c.await(func() bool { return len(c.queue) > 0 || c.ended }) {
		return nil
	}
	c.mu.Lock()
	var ex *exchange
	if len(c.queue) > 0 {
		ex = c.queue[0]
	}
	c.mu.Unlock()
	if ex == nil {
		c.flush()
		return nil
	}
	if ex.interim != "" {
		c.emit([]byte(ex.interim))
	}
	if !c.await(func() bool { return ex.ready }) {
		return nil
	}
	return ex
}

// await waits until done, which is called with mu, and reports false if the client
// is aborted.
func (c *client) await(done func() bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !done() && !c.aborted {
		if len(c.out) > 0 {
			c.mu.Unlock()
			c.flush()
			c.mu.Lock()
			continue
		}
		c.releaseOut()
		c.mu.Unlock()
		<-c.wake
		c.mu.Lock()
	}
	return !c.aborted
}

// answer writes the answer of an exchange, and reports whether to go on.
func (c *client) answer(ex *exchange) bool {
	c.flushed = false
	if c.out == nil {
		c.out = c.f.large.get()[:0]
	}
	keep := true
	c.mu.Lock()
	fault, final := ex.fault, ex.final
	ex.over = fault != nil
	c.mu.Unlock()
	switch {
	case fault != nil:
		keep = c.refusal(ex, len(c.out))
	case ex.call != nil:
		keep = c.respond(ex)
	default:
		c.emit([]byte(ex.req.Reply))
	}
	keep = keep && !ex.req.Last && !final
	if !keep {
		c.flush()
	}
	c.done(ex, keep)
	return keep
}

// done takes an exchange out of the queue.
func (c *client) done(ex *exchange, keep bool) {
	now := c.now()
	stamp(&c.clock.progress, now)
	c.mu.Lock()
	ex.over = true
	if c.aborted {
		c.mu.Unlock() // finish does it
		return
	}
	c.queue[0] = nil
	if c.queue = c.queue[1:]; len(c.queue) == 0 {
		c.queue = nil
	}
	if ex.call != nil && !ex.req.Safe {
		c.unsafe--
	}
	if !keep {
		c.leaving()
		c.closing = true
		c.closeCalls()
	}
	c.changed.Broadcast()
	c.mu.Unlock()
	c.f.record(c, ex, now)
	if ex.call != nil {
		_ = ex.call.Close() // it returns nil
	}
	c.leave(ex)
	if !keep {
		_ = closeWrite(c.conn)                             // if it fails, so does reading
		_ = c.conn.SetReadDeadline(time.Now().Add(linger)) // else reading ends with the client
	}
}

// refusal writes the answer to a request that has failed, in place of what out holds
// behind mark, and reports whether the connection goes on.
func (c *client) refusal(ex *exchange, mark int) bool {
	if ex.fault == nil { // the client has gone
		return false
	}
	if c.flushed {
		c.abort()
		return false
	}
	c.out = c.out[:mark]
	var req *framing.Request
	if ex.known {
		req = &ex.req
	}
	out, keep := c.f.rule.Framing.Answer(c.out, ex.fault, req)
	c.out = out
	if !keep && len(out) == mark {
		c.flush() // the answers before it
		c.abort()
	}
	return keep
}

// respond writes the response of the call, and reports whether the connection goes
// on.
func (c *client) respond(ex *exchange) bool {
	for {
		mark := len(c.out)
		if mark > 0 && !ex.call.Ready() {
			c.flush()
			c.flushed, mark = false, 0
		}
		length, err := ex.call.Response()
		if err == nil {
			ex.answered, ex.answer = c.now(), int64(length)
			stamp(&c.clock.progress, ex.answered)
			keep := false
			if keep, err = c.relay(ex, length); err == nil {
				return keep
			}
			c.fail(ex, badResponse(err))
			return c.refusal(ex, mark)
		}
		fault := faultOf(err)
		c.mu.Lock()
		expired := ex.expired
		c.mu.Unlock()
		switch {
		case expired:
			fault = errNoResponse
		case c.again(ex, fault):
			continue
		}
		c.fail(ex, fault)
		return c.refusal(ex, mark)
	}
}

// fail notes why an exchange has failed, unless the reader has already.
func (c *client) fail(ex *exchange, fault *framing.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ex.over = true
	if ex.fault == nil && !c.aborted {
		ex.fault = fault
	}
}

// again sends a request once more if that is allowed and possible.
func (c *client) again(ex *exchange, fault *framing.Error) bool {
	c.mu.Lock()
	complete := ex.sent > 0 && ex.fault == nil && !c.aborted && int64(len(ex.copied)) == ex.length
	c.mu.Unlock()
	if !complete || ex.retries > 0 || fault.Fault != framing.Timeout && fault.Fault != framing.Unreachable {
		return false
	}
	call, n, err := c.f.openWith(int(ex.length), rpc.OpenOptions{First: ex.copied, Wake: c.wake}, c.gone)
	if err != nil {
		return false
	}
	c.mu.Lock()
	_ = ex.call.Close() // it returns nil
	ex.call, ex.sent = call, c.now()
	if c.aborted {
		_ = call.Close()
	}
	c.mu.Unlock()
	ex.retries++
	c.f.retries.Add(1)
	if n < len(ex.copied) {
		_, _ = call.Write(ex.copied[n:]) // Response returns the error
	}
	return true
}

// relay writes a response as it comes. An error says that no more than c.flushed
// tells was written of it.
func (c *client) relay(ex *exchange, length int) (keep bool, err error) {
	if c.out, err = c.encoder.Begin(c.out, int64(length), &ex.req); err != nil {
		c.encoder = c.f.rule.Framing.ResponseEncoder()
		return false, err
	}
	defer func() {
		if err != nil {
			c.encoder = c.f.rule.Framing.ResponseEncoder() // the old one is broken
			c.response.release()
		}
	}()
	ex.call.SetLowWater(lowWater)
	for {
		r, err := c.encoder.Scan(c.response.bytes())
		if err != nil {
			return false, err
		}
		if r.Refused != nil {
			return false, r.Refused
		}
		if r.Progress() {
			if !c.emit(r.Data) {
				return false, errStopped
			}
			c.response.advance(r.Advance)
			if r.End {
				c.out = c.encoder.End(c.out)
				return !r.Close, nil
			}
			continue
		}
		// What has arrived does not wait for what has not.
		if len(c.out) > 0 && ex.call.Buffered() == 0 && !c.flush() {
			return false, errStopped
		}
		n, err := ex.call.Read(c.response.room())
		c.response.fill(n)
		stamp(&c.clock.progress, c.now())
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return false, err
		}
	}
}

// emit writes p, at once or with what follows, and reports whether the connection
// takes it.
func (c *client) emit(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	if len(c.out)+len(p) > c.f.large.size {
		if !c.flush() {
			return false
		}
	}
	if len(p) >= directWrite {
		return c.flush() && c.put(p)
	}
	c.out = append(c.out, p...)
	return true
}

// flush writes what waits.
func (c *client) flush() bool {
	if len(c.out) == 0 {
		return true
	}
	ok := c.put(c.out)
	c.out = c.out[:0]
	return ok
}

// put writes to the connection.
func (c *client) put(p []byte) bool {
	c.flushed = true
	stamp(&c.clock.writeSince, c.now())
	n, err := c.conn.Write(p)
	c.clock.writeSince.Store(0)
	c.f.bytesOut.Add(uint64(n))
	if err != nil {
		c.abort()
	}
	return err == nil
}

// releaseOut gives the buffer of answers back, which must be empty or of no use.
func (c *client) releaseOut() {
	if cap(c.out) == c.f.large.size {
		c.f.large.put(c.out)
	}
	c.out = nil
}
