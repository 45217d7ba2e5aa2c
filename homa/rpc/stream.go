package rpc

import (
	"context"
	"net/netip"

	"github.com/tougw/tougw/homa"
)

// stream is one side of an RPC as the node keeps it: what its owner waits for.
type stream struct {
	node *Node
	rpc  *homa.RPC // with mu
	// wake has a token when something may have changed since the owner looked.
	wake chan struct{}
	// room is the same for the goroutine that writes, which may be another.
	room chan struct{}

	// What follows needs mu.
	complete bool // all bytes of the other message are here
	over     bool // no event will follow
	err      error
	cancel   context.CancelCauseFunc // of a handler that runs
	waits    *Server                 // for a handler of this server

	// request is what a unary call still has to write; response is what it got.
	unary    bool
	request  []byte
	response []byte
	read     int

	// target is where a gateway takes the request, or where the client wants it.
	target netip.Addr
}

func newStream(n *Node) *stream {
	return &stream{node: n, wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// event takes note of an event. It needs mu.
func (s *stream) event(now homa.Instant, e homa.Event) {
	switch e.Kind {
	case homa.Readable:
		if s.unary {
			s.take(now)
			return
		}
	case homa.Writable:
		if s.unary {
			s.put(now)
			return
		}
	case homa.Complete:
		s.complete = true
		if s.unary {
			s.take(now)
		}
	case homa.Failed:
		s.err, s.over = e.Err, true
		if s.cancel != nil {
			s.cancel(e.Err)
		}
		if s.waits != nil {
			s.waits.abandoned()
		}
	case homa.Acked:
		s.over = true
	}
	s.signal()
}

func (s *stream) signal() {
	for _, c := range []chan struct{}{s.wake, s.room} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// put writes what the engine takes of a unary request.
func (s *stream) put(now homa.Instant) {
	k, err := s.rpc.Write(now, s.request)
	s.request = s.request[k:]
	if err != nil {
		s.request = nil // the response has begun, or Failed follows
	}
}

// take reads what is here of a unary response.
func (s *stream) take(now homa.Instant) {
	if s.response == nil {
		s.response = make([]byte, s.rpc.ReceiveLength())
	}
	k, _ := s.rpc.Read(now, s.response[s.read:]) // an error comes as an event
	s.read += k
}

// wait waits for an event, the end of ctx, or that of the node.
func (s *stream) wait(ctx context.Context, wake <-chan struct{}) error {
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.node.done:
		return s.node.closedError()
	}
}

// abort gives the RPC up unless it is over. What it returns is the first reason.
func (s *stream) abort(err error) error {
	n := s.node
	n.mu.Lock()
	now := n.now()
	err = s.fail(now, err)
	b := n.settle(now)
	n.mu.Unlock()
	n.dispatch(b)
	return err
}

// fail ends the RPC with err unless it has failed already, and returns the first
// reason. It needs mu.
func (s *stream) fail(now homa.Instant, err error) error {
	if s.err == nil {
		s.err = err
	}
	s.rpc.Abort(now, s.err)
	s.over = true
	s.request = nil
	s.signal()
	return s.err
}

// write hands p to the engine and waits where it must.
func (s *stream) write(ctx context.Context, p []byte) (written int, err error) {
	n := s.node
	for {
		n.mu.Lock()
		if err = s.state(); err == nil {
			now := n.now()
			var k int
			k, err = s.rpc.Write(now, p[written:])
			written += k
			b := n.settle(now)
			n.mu.Unlock()
			n.dispatch(b)
		} else {
			n.mu.Unlock()
		}
		if err != nil || written == len(p) {
			return written, err
		}
		if err := s.wait(ctx, s.room); err != nil {
			return written, s.abort(err)
		}
	}
}

// setLowWater is homa.RPC.SetLowWater.
func (s *stream) setLowWater(n int) {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	s.rpc.SetLowWater(n)
}

// readSome reads at least one byte, waiting where it must.
func (s *stream) readSome(ctx context.Context, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n := s.node
	for {
		n.mu.Lock()
		err := s.state()
		var k int
		if err == nil {
			now := n.now()
			if s.rpc.LowWater() || s.rpc.Buffered() == 0 {
				k, err = s.rpc.Read(now, p)
			}
			var b *batch
			if k > 0 {
				b = n.settle(now) // the window moved: grants may be due
			}
			n.mu.Unlock()
			n.dispatch(b)
		} else {
			n.mu.Unlock()
		}
		if k > 0 || err != nil {
			return k, err
		}
		if err := s.wait(ctx, s.wake); err != nil {
			return 0, s.abort(err)
		}
	}
}

// state is the error that the stream has. It needs mu.
func (s *stream) state() error {
	if s.err != nil {
		return s.err
	}
	if s.node.closed {
		return s.node.closedError()
	}
	return nil
}

// await waits until done, which is called with mu, returns true.
func (s *stream) await(ctx context.Context, done func() bool) error {
	n := s.node
	for {
		n.mu.Lock()
		err := s.state()
		ready := done()
		n.mu.Unlock()
		if ready || err != nil {
			return err
		}
		if err := s.wait(ctx, s.wake); err != nil {
			return s.abort(err)
		}
	}
}
