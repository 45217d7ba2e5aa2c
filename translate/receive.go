package translate

import (
	"time"

	"github.com/tougw/tougw/framing"
)

// receive reads responses until x has its own.
func (x *exec) receive(c *serverConn) error {
	keyed := x.r.traits.Keyed
	var other []byte // with a keyed framing, a response to another request
	mine := true
	for {
		var req *framing.Request
		if !keyed {
			of := x.meta()
			req = &of
		}
		r, err := c.scanner.Scan(c.in.bytes(), c.eof, req)
		if err != nil {
			return badResponse(err)
		}
		if !r.Progress() {
			if c.eof {
				return errHungUp
			}
			if err := c.read(); err != nil {
				return err
			}
			continue
		}
		if keyed {
			mine = r.Key == x.req.Key
		}
		switch {
		case r.Unsolicited:
		case !mine:
			if other = append(other, r.Data...); r.End {
				c.hand(r.Key, other)
				other = nil
			}
		case r.Begin || x.answered > 0:
			if err := x.pass(c, &r); err != nil {
				return err
			}
		}
		c.in.advance(r.Advance)
		if mine && r.Close {
			c.retire()
		}
		if mine && r.End && !r.Unsolicited {
			return nil
		}
	}
}

// pass hands a part of the response on.
func (x *exec) pass(c *serverConn, r *framing.Result) error {
	if x.answered == 0 {
		x.answered = x.now()
	}
	if r.Refused != nil {
		return badResponse(r.Refused)
	}
	if r.End {
		x.cut(c)
	}
	// A server may answer while it reads, and wait for the rest of the request: what
	// comes of the answer is kept meanwhile.
	feeds := x.feeds()
	if !feeds {
		c.expected.Store(1) // each further byte is
	}
	if x.gone != nil {
		return nil // the client: it is read to get at the next one
	}
	var err error
	switch {
	case r.Length < 0 || feeds && !x.begun || x.waitsForEnd(r):
		if !x.held.add(r.Data) {
			return errBuffered
		}
	case !x.begun:
		err = x.start(r.Length)
		if err == nil && len(r.Data) > 0 {
			_, err = x.w.Write(r.Data)
		}
	case len(r.Data) > 0:
		_, err = x.w.Write(r.Data)
	}
	if err != nil {
		x.gone = err
		if !r.End && !x.r.traits.Pipelined {
			return err
		}
	}
	return nil
}

// wholeResponse is up to how many bytes a response begins only when it has ended, if
// a failure before that is to be told. Our choice: a server writes so much at once as
// a rule.
const wholeResponse = 32 << 10

// waitsForEnd reports whether more has to come of a response before it may begin.
func (x *exec) waitsForEnd(r *framing.Result) bool {
	return x.r.rule.AnswerFailures && !x.begun && !r.End && r.Length <= wholeResponse
}

// feeds reports whether the request is still being sent.
func (x *exec) feeds() bool {
	if x.feeding == nil {
		return false
	}
	select {
	case <-x.feeding:
		return false
	default:
		return true
	}
}

// cut follows the end of the response: what is left of the request is not for the
// server, and if there was any, nothing else may follow on this connection.
func (x *exec) cut(c *serverConn) {
	if x.feeding == nil {
		return
	}
	if x.feeds() {
		x.early.Store(true)
		_ = c.conn.SetWriteDeadline(past) // if it fails, so does writing
		<-x.feeding
		_ = c.conn.SetWriteDeadline(time.Time{})
	}
	if x.short {
		c.retire()
	}
}

// start begins the response, whose length is known now, with what was held of it.
func (x *exec) start(length int64) error {
	if x.feeding != nil {
		<-x.feeding // two must not wait for one request
	}
	x.begun, x.answer = true, length
	if err := x.w.SetLength(int(length)); err != nil {
		return err
	}
	if len(x.held.buf) == 0 {
		return nil
	}
	_, err := x.w.Write(x.held.buf)
	x.held.release()
	return err
}

// finish hands a whole response on.
func (x *exec) finish(message []byte) error {
	x.answered = x.now()
	err := x.start(int64(len(message)))
	if err == nil {
		_, err = x.w.Write(message)
	}
	x.gone = err
	return nil
}

// stream begins to send a request while it arrives. Nobody else is on the
// connection.
func (x *exec) stream(c *serverConn) {
	c.expected.Store(0)
	c.enqueue(x)
	x.started = x.now()
	x.feeding = make(chan struct{})
	go func() {
		defer close(x.feeding)
		if err := x.feed(c); err != nil {
			c.fail(err) // half a request must not look like one
		}
	}()
}

// feed writes the request as it arrives. When the server has stopped reading, the
// rest is dropped: it may have answered.
func (x *exec) feed(c *serverConn) error {
	// What is streamed is large, and each small read would be a small packet.
	in := window{large: x.r.large, buf: x.r.large.get(), borrowed: true}
	defer in.release()
	x.rpc.SetLowWater(lowWater)
	out, err := x.encoder.Begin(nil, int64(x.rpc.Len()), nil)
	if err != nil {
		return err
	}
	refused := false // by the server
	put := func(p []byte) {
		if len(p) == 0 {
			return
		}
		if refused || x.early.Load() {
			x.short = true
			return
		}
		if _, err := c.put(p); err != nil {
			refused, x.short = true, true
		}
	}
	put(out)
	for {
		res, err := x.encoder.Scan(in.bytes())
		if err == nil && res.Refused != nil {
			err = res.Refused
		}
		if err != nil {
			x.encoder = nil // it is broken
			return err
		}
		if res.Progress() {
			x.setMeta(res.Request)
			put(res.Data)
			in.advance(res.Advance)
			if res.End {
				break
			}
			continue
		}
		in.filled = true // which keeps the large buffer
		n, err := x.rpc.Read(in.room())
		in.fill(n)
		if n == 0 && err != nil {
			x.encoder = nil // it is in the middle of a message, which nobody may go on with
			return err
		}
	}
	put(x.encoder.End(nil))
	x.sent.Store(int64(max(time.Nanosecond, x.now())))
	if !x.meta().Blocks {
		c.expected.Store(c.r.now())
	}
	return nil
}
