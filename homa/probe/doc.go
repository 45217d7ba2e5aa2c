// Package probe measures Homa servers: Ping calls one at a time, as ping does,
// and Bench keeps several calls outstanding. Both work with any server that
// answers. They know calls and time; who carries them is their Caller.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/tougw/tougw/homa/rpc"
)

// Caller makes calls; rpc.Node is one.
type Caller interface {
	// Call returns the response to a request. See rpc.Node.
	Call(ctx context.Context, to netip.AddrPort, request []byte) ([]byte, error)
}

// noAnswer is the reason that says least.
const noAnswer = "no answer"

// reason says in a few words why a call failed.
func reason(err error) string {
	var errno interface{ Timeout() bool }
	switch {
	case errors.Is(err, rpc.ErrTimeout):
		return noAnswer
	case errors.Is(err, rpc.ErrRefused):
		return "port unreachable: nobody serves it"
	case errors.Is(err, rpc.ErrNotHoma):
		return "protocol unreachable: the host does not know Homa"
	case errors.Is(err, rpc.ErrUnreachable) && errors.As(err, &errno):
		return fmt.Sprintf("host unreachable: %v", errno)
	case errors.Is(err, rpc.ErrUnreachable):
		return "host unreachable"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "not answered in time"
	}
	return err.Error()
}

// pattern fills a request with bytes that compression and zero pages cannot hide.
func pattern(b []byte) {
	for i := range b {
		b[i] = byte(i*131 + i>>8)
	}
}
