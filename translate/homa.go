package translate

import (
	"context"
	"net/netip"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/rpc"
)

// Dialer opens RPCs. [Over] makes one of a Homa node.
type Dialer interface {
	// Open begins an RPC whose request is length bytes long, and returns how many
	// bytes of OpenOptions.First it took. Via is the Dialer's to set.
	Open(ctx context.Context, to netip.AddrPort, length int, o rpc.OpenOptions) (Call, int, error)
}

// Call is an RPC on the side of its client, with the contract of [rpc.Call].
type Call interface {
	// Write supplies the next bytes of the request, waiting where it must.
	Write(p []byte) (int, error)
	// Response waits for the response to begin and returns its length in bytes.
	Response() (int, error)
	// Read returns the next bytes of the response; io.EOF after the last.
	Read(p []byte) (int, error)
	// Buffered is how many bytes Read would give without waiting, at most.
	Buffered() int
	// SetLowWater lets Read wait for n bytes, for some milliseconds at most. It comes
	// after Response.
	SetLowWater(n int)
	// Close ends the call. It may be called at any time, more than once.
	Close() error
	// Ready reports whether Response would return at once.
	Ready() bool
	// ID is the RPC's id, an even number.
	ID() uint64
	// Stats returns the RPC's trace.
	Stats() homa.RPCStats
}

var _ Call = (*rpc.Call)(nil)

// Over returns the Dialer of a Homa node.
func Over(n *rpc.Node) Dialer { return nodeDialer{n} }

type nodeDialer struct{ node *rpc.Node }

// Open implements Dialer.
func (d nodeDialer) Open(ctx context.Context, to netip.AddrPort, length int, o rpc.OpenOptions) (Call, int, error) {
	c, n, err := d.node.OpenWith(ctx, to, length, o)
	if err != nil {
		return nil, 0, err
	}
	return c, n, nil
}
