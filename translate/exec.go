package translate

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa/rpc"
)

// exec is the execution of one RPC at a TCP server, by the goroutine of its handler.
// Times count from base.
type exec struct {
	r    *Reverse
	ctx  context.Context
	rpc  *rpc.Request
	w    *rpc.ResponseWriter
	base time.Time

	applicant
	turn    chan struct{} // has a token when the turn, or what was handed over, may have come
	encoder *framing.Encoder
	small   []byte // for requests that fit
	borrow  []byte // a large buffer, or nil
	taken   int64  // of the budget
	wire    []byte // what the server is sent; nil for a request that is streamed
	handed  []byte // the response, when somebody else has read it

	reqMu sync.Mutex
	req   framing.Request
	known bool         // req is
	sent  atomic.Int64 // when all of the request was written; 0: not yet

	server           netip.AddrPort
	tries            int
	answer           int64
	held             collector
	begun            bool // SetLength was called
	gone             error
	arrived, started time.Duration
	answered         time.Duration
	feeding          chan struct{} // closed when a streamed request is over; nil for others
	early            atomic.Bool   // the whole response came before its end
	short            bool          // the server was not sent all of the request; set before feeding is closed
}

func (r *Reverse) begin(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) *exec {
	x, ok := r.spare.Get().(*exec)
	if !ok {
		x = &exec{r: r, turn: make(chan struct{}, 1), small: make([]byte, 0, smallBuffer)}
		x.woken = make(chan struct{}, 1)
		x.held.budget = &r.buffered
	}
	if x.encoder == nil {
		x.encoder = r.rule.Framing.RequestEncoder()
	}
	x.ctx, x.rpc, x.w, x.base = ctx, req, w, time.Now()
	return x
}

// release makes x ready for another RPC.
func (x *exec) release() {
	x.held.release()
	x.giveBack()
	select {
	case <-x.turn:
	default:
	}
	*x = exec{
		r: x.r, turn: x.turn, small: x.small[:0], encoder: x.encoder, held: x.held,
		applicant: applicant{woken: x.woken},
	}
	x.r.spare.Put(x)
}

func (x *exec) giveBack() {
	if x.borrow != nil {
		x.r.large.put(x.borrow)
		x.borrow = nil
	}
	if x.taken > 0 {
		x.r.buffered.give(x.taken)
		x.taken = 0
	}
}

func (x *exec) now() time.Duration { return time.Since(x.base) }

func (x *exec) sentAt() time.Duration { return time.Duration(x.sent.Load()) }

func (x *exec) signal() {
	select {
	case x.turn <- struct{}{}:
	default:
	}
}

// meta is what is known of the request.
func (x *exec) meta() framing.Request {
	x.reqMu.Lock()
	defer x.reqMu.Unlock()
	return x.req
}

func (x *exec) setMeta(req *framing.Request) {
	if req != nil {
		x.reqMu.Lock()
		x.req, x.known = *req, true
		x.reqMu.Unlock()
	}
}

// serve answers the RPC, or returns why not.
func (x *exec) serve() error {
	if err := x.prepare(); err != nil {
		return err
	}
	if x.req.Local {
		if x.req.Reply == "" {
			return &framing.Error{Fault: framing.Unsupported, Reason: x.req.Name + " has no answer"}
		}
		_, err := io.WriteString(x.w, x.req.Reply)
		return err
	}
	for {
		x.tries++
		again, err := x.try()
		if err == nil || !again {
			return err
		}
		x.r.retries.Add(1)
		x.handed = nil
	}
}

// explain answers a request that has failed with err in the words of its protocol, and
// reports whether it has: not if something of the response is on its way.
func (x *exec) explain(err error) bool {
	var fault *framing.Error
	if !x.r.rule.AnswerFailures || x.begun || x.ctx.Err() != nil || errors.Is(err, errClosed) || !errors.As(err, &fault) {
		return false
	}
	var req *framing.Request
	if x.known {
		req = &x.req
	}
	message := x.r.rule.Framing.Failure(fault, req)
	if len(message) == 0 || x.w.SetLength(len(message)) != nil {
		return false
	}
	x.begun, x.answer = true, int64(len(message))
	_, err = x.w.Write(message)
	return err == nil
}

// prepare reads a request that fits a buffer, and makes of it what goes on the wire.
func (x *exec) prepare() error {
	x.need = need{client: x.rpc.Client(), alone: true}
	n := x.rpc.Len()
	switch {
	case n <= smallBuffer:
	case n <= x.r.large.size && x.r.buffered.take(int64(x.r.large.size)):
		x.taken = int64(x.r.large.size)
		x.borrow = x.r.large.get()
	default:
		return nil // it is streamed
	}
	buf := x.small[:0]
	if x.borrow != nil {
		buf = x.borrow[:0]
	}
	if cap(buf) < n {
		buf = make([]byte, 0, n)
	}
	buf = buf[:n]
	x.rpc.SetLowWater(n)
	if _, err := io.ReadFull(x.rpc, buf); err != nil {
		return err
	}
	x.arrived = x.now()
	wire, err := x.encode(buf)
	if err != nil {
		x.encoder = nil // it may be broken
		return err
	}
	x.wire = wire
	x.need = need{client: x.rpc.Client(), key: x.req.Key, alone: x.req.Blocks}
	return nil
}

// encode makes a whole request what the server is sent, which may be the same bytes.
func (x *exec) encode(message []byte) ([]byte, error) {
	out, err := x.encoder.Begin(nil, int64(len(message)), nil)
	if err != nil {
		return nil, err
	}
	var same []byte // one piece of data with nothing before it
	for rest := message; ; {
		res, err := x.encoder.Scan(rest)
		if err != nil {
			return nil, err
		}
		if res.Refused != nil {
			return nil, res.Refused
		}
		x.setMeta(res.Request)
		rest = rest[res.Advance:]
		switch {
		case len(res.Data) == 0:
		case len(out) == 0 && same == nil:
			same = res.Data
		default:
			out = append(append(out, same...), res.Data...)
			same = nil
		}
		if res.End {
			break
		}
	}
	if same != nil {
		if suffix := x.encoder.End(nil); len(suffix) > 0 {
			return append(append(make([]byte, 0, len(same)+len(suffix)), same...), suffix...), nil
		}
		return same, nil
	}
	return x.encoder.End(out), nil
}

// try sends the request and hands its response on. Again says that it may be tried
// once more.
func (x *exec) try() (again bool, err error) {
	c, fresh, err := x.r.acquire(x.ctx, &x.applicant)
	if err != nil {
		x.server = tried(err)
		return false, err
	}
	x.server = c.server.addr
	key := x.need.key
	written, err := 0, error(nil)
	if x.wire == nil {
		x.stream(c)
	} else {
		written, err = x.send(c)
	}
	if err == nil {
		err = x.await(c)
	}
	c.dequeue(x)
	if err != nil {
		c.fail(err) // before feeding is waited for, which may be waiting for the server
	}
	if x.feeding != nil {
		<-x.feeding
	}
	x.r.mu.Lock()
	x.r.leave(c, key)
	x.r.mu.Unlock()
	if err == nil {
		return false, x.gone
	}
	if x.wire == nil || x.answered > 0 || x.ctx.Err() != nil || err == errLateTCP || err == errClosed {
		return false, err
	}
	if written == 0 && !fresh {
		return x.tries < 3, err // the server has seen nothing of it
	}
	return x.r.rule.Retry && x.req.Safe && x.tries < 2, err
}

// send writes a whole request.
func (x *exec) send(c *serverConn) (written int, err error) {
	c.write.Lock()
	defer c.write.Unlock()
	c.enqueue(x)
	if err := c.err(); err != nil {
		return 0, err
	}
	if x.started == 0 {
		x.started = x.now()
	}
	if written, err = c.put(x.wire); err != nil {
		return written, err
	}
	x.sent.Store(int64(x.now()))
	if x.req.Blocks {
		c.expected.Store(0)
	} else {
		c.expected.Store(1) // since the reader waits
	}
	return written, nil
}

// await waits for x's turn and reads the response.
func (x *exec) await(c *serverConn) error {
	done := x.ctx.Done()
	for {
		select {
		case <-x.turn:
		case <-done:
			// Others may be behind: the response has to be read all the same.
			done = nil
			continue
		}
		if message := c.handed(x); message != nil {
			return x.finish(message)
		}
		if err := c.err(); err != nil {
			return err
		}
		if c.first(x) {
			return x.receive(c)
		}
	}
}
