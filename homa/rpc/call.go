package rpc

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/tougw/tougw/homa"
)

// Call sends request to a server and returns its response, which is the caller's.
// It borrows request. The error wraps one of this package's, the context's, or
// net.ErrClosed, and names the server.
func (n *Node) Call(ctx context.Context, to netip.AddrPort, request []byte) ([]byte, error) {
	response, err := n.call(ctx, to, request)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", to, err)
	}
	return response, nil
}

func (n *Node) call(ctx context.Context, to netip.AddrPort, request []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	s := newStream(n)
	s.unary, s.request = true, request
	b, _, err := s.begin(to, len(request), nil)
	if err != nil {
		return nil, err
	}
	n.dispatch(b)
	for {
		if err := s.wait(ctx, s.wake); err != nil {
			return nil, s.abort(err)
		}
		n.mu.Lock()
		complete, err := s.complete && s.read == len(s.response), s.err
		n.mu.Unlock()
		if complete || err != nil {
			return s.response, err
		}
	}
}

// begin makes the engine's RPC, and returns what is to be sent and how much of first
// the engine took; all of it if the call is unary.
func (s *stream) begin(to netip.AddrPort, length int, first []byte) (b *batch, written int, err error) {
	n := s.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, 0, n.closedError()
	}
	now := n.now()
	if to.IsValid() {
		n.tune(to.Addr().Unmap())
	}
	if s.rpc, err = n.engine.Call(now, homa.CallOptions{To: to, Length: length, Value: s}); err != nil {
		return nil, 0, err
	}
	switch {
	case s.unary:
		s.put(now)
	case len(first) > 0:
		if written, err = s.rpc.Write(now, first); err != nil {
			s.rpc.Abort(now, err)
			return nil, written, err
		}
	}
	return n.settle(now), written, nil
}

// Call is an RPC whose messages are streams, on the client's side. Its methods
// are for one goroutine at a time, except that one may Write while another uses
// Response and Read, and except Close.
type Call struct {
	s    *stream
	ctx  context.Context
	to   netip.AddrPort
	stop func() bool
}

var _ io.ReadWriteCloser = (*Call)(nil)

// Open begins a call whose request is length bytes long. Write supplies them;
// then Response and Read give the response. Close must be called. The end of ctx
// fails the call at any time.
func (n *Node) Open(ctx context.Context, to netip.AddrPort, length int) (*Call, error) {
	c, _, err := n.OpenWith(ctx, to, length, OpenOptions{})
	return c, err
}

// OpenOptions is what is particular about a call. The zero value is nothing.
type OpenOptions struct {
	// Via is the address of a gateway, as the carrier knows it, if the server is
	// behind one.
	Via netip.Addr
	// First is the beginning of the request, which leaves with the call: a call to
	// Write less. It is borrowed.
	First []byte
	// Wake is a channel with room for one token, which it gets when Response or Read
	// may have something new to tell. They take tokens from it, after they have looked,
	// so one goroutine may own several calls with the same channel, and also be woken
	// by others. Nil means one of the call's own.
	Wake chan struct{}
}

// OpenWith is Open with options. It returns how many bytes of First were taken; the
// rest is for Write.
func (n *Node) OpenWith(ctx context.Context, to netip.AddrPort, length int, o OpenOptions) (c *Call, written int, err error) {
	if ctx.Err() != nil {
		return nil, 0, wrapCall(to, context.Cause(ctx))
	}
	s := newStream(n)
	if o.Wake != nil {
		s.wake = o.Wake
	}
	at := to
	if o.Via.IsValid() {
		s.target, at = to.Addr(), netip.AddrPortFrom(o.Via, to.Port())
	}
	b, written, err := s.begin(at, length, o.First)
	if err != nil {
		return nil, 0, wrapCall(to, err)
	}
	n.dispatch(b)
	c = &Call{s: s, ctx: ctx, to: to, stop: never}
	if ctx.Done() != nil {
		c.stop = context.AfterFunc(ctx, func() { _ = s.abort(context.Cause(ctx)) }) // calls return it
	}
	return c, written, nil
}

// never stops nothing: the context does not end.
func never() bool { return true }

// wrap names the server in an error, but not in io.EOF.
func (c *Call) wrap(n int, err error) (int, error) { return n, wrapCall(c.to, err) }

// Write supplies the next bytes of the request. It waits while the request is
// far ahead of what the server grants. More bytes than Open was told are
// ErrTooLong, and any when the response is there ErrState.
func (c *Call) Write(p []byte) (int, error) { return c.wrap(c.s.write(c.ctx, p)) }

// Response waits for the first bytes of the response and returns its length in
// bytes.
func (c *Call) Response() (int, error) {
	length := 0
	err := c.s.await(c.ctx, func() bool {
		length = c.s.rpc.ReceiveLength()
		return length > 0
	})
	return c.wrap(length, err)
}

// Read returns the next bytes of the response, waiting for at least one; io.EOF
// after the last. A response that is not read holds back the server.
func (c *Call) Read(p []byte) (int, error) { return c.wrap(c.s.readSome(c.ctx, p)) }

// Buffered gives how many bytes Read would give without waiting, at most.
func (c *Call) Buffered() int {
	c.s.node.mu.Lock()
	defer c.s.node.mu.Unlock()
	if !c.s.rpc.LowWater() {
		return 0
	}
	return c.s.rpc.Buffered()
}

// SetLowWater lets Read wait until n bytes, or the rest of the response, are here, but
// for no longer than 5 ticks of the engine (homa.RPC.SetLowWater). It is for a reader
// that hands on what it reads, which costs as much for a little as for a lot, and is
// to be called after Response, which would wait too.
func (c *Call) SetLowWater(n int) { c.s.setLowWater(n) }

// Close ends the call; what was not read is dropped. Calls that wait fail with
// ErrAborted. It returns nil.
func (c *Call) Close() error {
	c.stop()
	_ = c.s.abort(homa.ErrAborted) // what others see; there is nothing to report
	return nil
}
