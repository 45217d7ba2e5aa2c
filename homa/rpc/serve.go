package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
)

// DefaultConcurrency is how many handlers of a Server run at a time unless
// ServeConfig says otherwise. Our choice: handlers that wait for something else
// are cheap, and their number must end somewhere.
const DefaultConcurrency = 1024

// Handler answers requests.
type Handler interface {
	// ServeRPC answers req by writing to w. It is called when the first bytes of a
	// request are here. ctx ends when the Server ends, when ServeRPC has returned, or
	// when it shows that the client is gone: it says nothing while its request or its
	// response is under way, says that it has forgotten the call, or ICMP says that it
	// is not there. From the end of the request until the response begins nothing is
	// expected of a client, as with Linux hosts: one that is gone, or has given up,
	// does not end ctx then, so a handler that may work for long bounds its time
	// itself. With an error, or without a response, the
	// client gets none: its call ends with a time-out. Req and w are of no use after
	// it has returned.
	ServeRPC(ctx context.Context, req *Request, w *ResponseWriter) error
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(ctx context.Context, req *Request, w *ResponseWriter) error

// ServeRPC calls f.
func (f HandlerFunc) ServeRPC(ctx context.Context, req *Request, w *ResponseWriter) error {
	return f(ctx, req, w)
}

// ServeConfig is the configuration of a Server. The zero value is good.
type ServeConfig struct {
	// Concurrency is how many handlers run at a time; other requests wait, up to
	// Config.Engine.MaxServed. Zero means DefaultConcurrency.
	Concurrency int
	// OnError, if set, is called with the errors that handlers return, those of
	// clients that gave up included.
	OnError func(client netip.AddrPort, err error)
}

// Server answers the requests to one port of a Node.
type Server struct {
	node    *Node
	port    uint16
	handler Handler
	config  ServeConfig
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	// With node.mu:
	closed  bool
	release func() // of the port; may be nil
	running int    // workers that run a handler
	idle    int    // those that wait for a request at hand
	waiting []*stream
	gone    int // of waiting, those that no client waits for
	hand    chan *stream
}

// maxIdleWorkers bounds the goroutines that wait for the next request. A goroutine
// that has run a handler has the stack for it.
const maxIdleWorkers = 128

// Serve answers the requests to a port until ctx ends or the node is closed,
// waits for its handlers, and returns why. A port that is served already, or 0,
// is ErrAddress.
func (n *Node) Serve(ctx context.Context, port uint16, handler Handler) error {
	s, err := n.Listen(port, handler, ServeConfig{})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-n.done:
		err = n.closedError()
	}
	s.Close()
	return err
}

// Listen answers the requests to a port in the background, from when it returns
// until Server.Close or the end of the node. With homa.Config.AnyPort, port 0
// stands for all that are not served otherwise. A nil handler is an error.
func (n *Node) Listen(port uint16, handler Handler, config ServeConfig) (*Server, error) {
	if f, ok := handler.(HandlerFunc); handler == nil || ok && f == nil {
		return nil, fmt.Errorf("homa: port %d: the handler is nil", port)
	}
	if config.Concurrency <= 0 {
		config.Concurrency = DefaultConcurrency
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, n.closedError()
	}
	if port == 0 && n.config.Engine.AnyPort {
		if n.servers[0] != nil {
			return nil, ErrAddress
		}
	} else if err := n.engine.Listen(port); err != nil {
		return nil, err
	}
	s := &Server{node: n, port: port, handler: handler, config: config, hand: make(chan *stream, maxIdleWorkers)}
	if ports, ok := n.carrier.(carrier.Ports); ok && port != 0 {
		var err error
		if s.release, err = ports.Claim(port); err != nil {
			n.engine.Unlisten(port)
			return nil, fmt.Errorf("%w: %w", ErrAddress, err)
		}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	n.servers[port] = s
	// The end of the node must end handlers.
	n.wg.Go(func() {
		select {
		case <-n.done:
			s.Close()
		case <-s.ctx.Done():
		}
	})
	return s, nil
}

// Close stops answering: contexts of handlers end, requests that wait are
// dropped, and new ones refused. It waits for the handlers.
func (s *Server) Close() {
	n := s.node
	n.mu.Lock()
	if !s.closed {
		s.closed = true
		n.engine.Unlisten(s.port)
		delete(n.servers, s.port)
		if s.release != nil {
			s.release()
		}
		now := n.now()
		for _, w := range s.waiting {
			w.rpc.Abort(now, homa.ErrAborted)
		}
		s.waiting, s.gone = nil, 0
		s.cancel()
		close(s.hand)
		n.wakeSender() // others may have been granted what these held
	}
	n.mu.Unlock()
	s.wg.Wait()
}

// request starts, or queues, the handler of a new request. It needs mu.
func (n *Node) request(now homa.Instant, r *homa.RPC) {
	s := n.servers[r.Port()]
	if s == nil {
		s = n.servers[0]
	}
	if s == nil || n.closed {
		r.Abort(now, homa.ErrAborted)
		return
	}
	n.tune(r.Peer().Addr())
	st := newStream(n)
	st.rpc = r
	st.target, _ = r.Value().(netip.Addr)
	r.SetValue(st)
	if s.running == s.config.Concurrency {
		st.waits = s
		s.waiting = append(s.waiting, st)
		return
	}
	s.running++
	if s.idle > 0 {
		s.idle--
		s.hand <- st // which has room for all that are idle
		return
	}
	s.wg.Go(func() { s.work(st) })
}

// abandoned drops requests that wait and have lost their client when they are more
// than half: a client can make and abandon any number. It needs mu.
func (s *Server) abandoned() {
	if s.gone++; s.gone > 16 && s.gone > len(s.waiting)/2 {
		s.waiting = slices.DeleteFunc(s.waiting, func(st *stream) bool { return st.over })
		s.gone = 0
	}
}

// work runs handlers until no request waits and enough workers are idle, or the
// server is closed.
func (s *Server) work(st *stream) {
	for ; st != nil; st = s.next() {
		s.handle(st)
	}
}

// next waits for a request, or ends the worker.
func (s *Server) next() *stream {
	s.node.mu.Lock()
	for len(s.waiting) > 0 {
		st := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		st.waits = nil
		if !st.over {
			s.node.mu.Unlock()
			return st
		}
		s.gone--
	}
	s.waiting = nil
	s.running--
	end := s.closed || s.idle == maxIdleWorkers
	if !end {
		s.idle++
	}
	s.node.mu.Unlock()
	if end {
		return nil
	}
	return <-s.hand // nil when it is closed
}

// handle answers one request.
func (s *Server) handle(st *stream) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	n := s.node
	n.mu.Lock()
	st.cancel = cancel
	if st.over {
		cancel(st.err)
	}
	req := &Request{s: st, ctx: ctx, client: st.rpc.Peer(), port: st.rpc.Port(), id: st.rpc.ID() ^ 1, length: st.rpc.ReceiveLength()}
	n.mu.Unlock()
	w := &ResponseWriter{s: st, ctx: ctx}
	err := s.handler.ServeRPC(ctx, req, w)
	if err == nil {
		err = w.finish()
	}
	if err != nil {
		if c, ok := n.carrier.(carrier.Refuser); ok && !errors.Is(err, ErrAbandoned) {
			c.RefuseCall(req.client.Addr(), req.id, err)
		}
		_ = st.abort(err) // reported below
		if s.config.OnError != nil {
			s.config.OnError(req.client, err)
		}
	}
	n.mu.Lock()
	st.cancel = nil
	st.rpc.SetValue(nil)
	n.mu.Unlock()
	cancel(nil)
}

// Request is what a client sent. It is for one goroutine at a time.
type Request struct {
	s      *stream
	ctx    context.Context
	client netip.AddrPort
	port   uint16
	id     uint64 // as the client has it
	length int
	read   int
}

// Client is the address and Homa port of the client.
func (r *Request) Client() netip.AddrPort { return r.client }

// Target waits for the first byte of the request, and returns the server that the
// client wants it to be passed on to: the address that came with that byte, which
// is zero if the client means this node, and the port that was called.
func (r *Request) Target() (netip.AddrPort, error) {
	var to netip.AddrPort
	err := r.s.await(r.ctx, func() bool {
		to = netip.AddrPortFrom(r.s.target, r.port)
		return r.s.target.IsValid() || r.read > 0 || r.s.rpc.Buffered() > 0
	})
	return to, err
}

// Len is the length of the request in bytes.
func (r *Request) Len() int { return r.length }

// Read returns the next bytes of the request, waiting for at least one; io.EOF
// after the last. A request that is not read holds back the client.
func (r *Request) Read(p []byte) (int, error) {
	k, err := r.s.readSome(r.ctx, p)
	r.read += k
	return k, err
}

// SetLowWater is the same as Call.SetLowWater, to be called after Target.
func (r *Request) SetLowWater(n int) { r.s.setLowWater(n) }

// ReadAll returns all of the request that was not read yet.
func (r *Request) ReadAll() ([]byte, error) {
	b := make([]byte, r.length-r.read)
	k, err := io.ReadFull(r, b)
	return b[:k], err
}

// ResponseWriter is where a handler puts its response. It is for one goroutine at
// a time.
type ResponseWriter struct {
	s      *stream
	ctx    context.Context
	begun  bool
	buffer []byte
}

// SetLength says how long the response is, in bytes, so that Write need not keep
// it until the handler returns. It waits until the request is complete; what was
// not read of it is dropped. It must come before the first Write.
func (w *ResponseWriter) SetLength(length int) error {
	if w.begun || len(w.buffer) > 0 {
		return fmt.Errorf("%w: SetLength of a response that has begun", homa.ErrState)
	}
	return w.begin(length)
}

// Write supplies the next bytes of the response. After SetLength it sends them,
// and waits while they are far ahead of what the client grants; more than the
// length are ErrTooLong. Without SetLength it keeps them.
func (w *ResponseWriter) Write(p []byte) (int, error) {
	if w.begun {
		return w.s.write(w.ctx, p)
	}
	if most := w.s.node.maxMessage(); len(w.buffer)+len(p) > most {
		return 0, fmt.Errorf("%w: response of %d bytes, at most %d", ErrTooLong, len(w.buffer)+len(p), most)
	}
	w.buffer = append(w.buffer, p...)
	return len(p), nil
}

// begin makes the engine's response.
func (w *ResponseWriter) begin(length int) error {
	n := w.s.node
	if err := w.s.skipRequest(w.ctx); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := w.s.state(); err != nil {
		return err
	}
	if err := w.s.rpc.Reply(n.now(), length); err != nil {
		return err
	}
	w.begun = true
	return nil
}

// finish sends a response that was kept, and checks that one was made.
func (w *ResponseWriter) finish() error {
	if !w.begun {
		if len(w.buffer) == 0 {
			return ErrNoResponse
		}
		if err := w.begin(len(w.buffer)); err != nil {
			return err
		}
		_, err := w.s.write(w.ctx, w.buffer)
		return err
	}
	n := w.s.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if missing := w.s.rpc.Unwritten(); missing > 0 && w.s.err == nil {
		return fmt.Errorf("homa: response is %d bytes shorter than SetLength said", missing)
	}
	return nil
}

// skipRequest drops what comes of the request until it is complete.
func (s *stream) skipRequest(ctx context.Context) error {
	n := s.node
	for {
		n.mu.Lock()
		err, complete := s.state(), s.complete
		var b *batch
		if err == nil && !complete {
			now := n.now()
			s.rpc.Discard(now, s.rpc.Buffered())
			b = n.settle(now)
		}
		n.mu.Unlock()
		n.dispatch(b)
		if err != nil || complete {
			return err
		}
		if err := s.wait(ctx, s.wake); err != nil {
			return s.abort(err)
		}
	}
}
