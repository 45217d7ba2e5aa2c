package translate

import (
	"context"
	"net"
	"net/netip"
)

// Meta says who a TCP client is.
type Meta struct {
	// Client is its address for records. The zero value means that of the
	// connection.
	Client netip.AddrPort
	// Peer is the tunnel peer whose flow it is; empty for none.
	Peer string
}

// Forward serves TCP clients from a Homa server. Its methods are safe for
// concurrent use.
type Forward struct {
	rule Rule
}

// NewForward returns a Forward to the Homa server. A tracer may be shared, and nil.
// The error names what is wrong with the rule.
func NewForward(rule Rule, to netip.AddrPort, dial Dialer, tracer *Tracer) (*Forward, error) {
	rule, err := rule.complete()
	if err != nil {
		return nil, err
	}
	return &Forward{rule: rule}, nil
}

// Serve accepts clients until ctx ends or the listener fails, closes the listener,
// resets the clients that are left, and returns why after all have ended. It does
// not accept more than Limits.Conns.
func (f *Forward) Serve(ctx context.Context, l net.Listener) error { return nil }

// ServeConn serves one client, which may be a kernel connection or any other that
// can be half-closed (CloseWrite), and returns when the connection is closed, which
// it has done. The end of ctx resets it. A reset is Close after SetLinger(0), or
// Reset() if the connection has that.
func (f *Forward) ServeConn(ctx context.Context, conn net.Conn, meta Meta) {}

// Stats returns the counters.
func (f *Forward) Stats() Stats { return Stats{} }
