package rpc

import "github.com/tougw/tougw/homa"

// ID is the RPC's id, an even number that this node uses once.
func (c *Call) ID() uint64 { return c.s.rpc.ID() }

// Ready reports whether Response would return at once.
func (c *Call) Ready() bool {
	s := c.s
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	return s.rpc.ReceiveLength() > 0 || s.state() != nil
}

// Stats returns the RPC's trace. Its instants count from the start of the node.
func (c *Call) Stats() homa.RPCStats { return c.s.stats() }

// ID is the RPC's id as its client numbers it, an even number.
func (r *Request) ID() uint64 { return r.s.rpc.ID() &^ 1 }

// Stats returns the RPC's trace. Its instants count from the start of the node.
func (r *Request) Stats() homa.RPCStats { return r.s.stats() }

func (s *stream) stats() homa.RPCStats {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	return s.rpc.Stats()
}
