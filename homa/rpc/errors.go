package rpc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
)

// Errors of calls; match them with errors.Is. A call whose context ends fails
// with the context's error, and after Close with net.ErrClosed.
var (
	// ErrTimeout: the peer was silent too long. A handler that fails is silence to
	// its client.
	ErrTimeout = homa.ErrTimeout
	// ErrUnreachable: the network reports that the peer cannot be reached, or this host
	// could not send the first packet of the call. (Later it is loss.) It also covers
	// ErrRefused and ErrNotHoma.
	ErrUnreachable = homa.ErrUnreachable
	// ErrRefused: the host is there and nobody serves the port.
	ErrRefused = homa.ErrPortUnreachable
	// ErrNotHoma: the host is there and does not know Homa.
	ErrNotHoma = homa.ErrProtocolUnreachable
	// ErrAborted: this side gave up.
	ErrAborted = homa.ErrAborted
	// ErrAbandoned: the client forgot the call before it had the response. Only
	// servers see it.
	ErrAbandoned = homa.ErrAbandoned
	// ErrTooLong: a message of no or too many bytes.
	ErrTooLong = homa.ErrTooLong
	// ErrBusy: as many calls or peers as the configuration allows.
	ErrBusy = homa.ErrBusy
	// ErrMemory: no room for the message within the bounds of the configuration.
	ErrMemory = homa.ErrMemory
	// ErrAddress: an address or port that cannot be called or served.
	ErrAddress = homa.ErrAddress
	// ErrState: the RPC is past what was asked of it, as a Write after its response
	// has begun, or a SetLength after the first Write.
	ErrState = homa.ErrState
	// ErrNoResponse: a handler returned without writing a response.
	ErrNoResponse = errors.New("homa: handler wrote no response")
)

// errClosed is net.ErrClosed for errors.Is.
var errClosed = fmt.Errorf("homa: node: %w", net.ErrClosed)

// unreachable is what calls fail with because of a trouble.
func unreachable(p *carrier.Packet) error {
	err := homa.ErrHostUnreachable
	switch p.Trouble {
	case carrier.PortUnreachable:
		return homa.ErrPortUnreachable
	case carrier.ProtocolUnreachable:
		err = homa.ErrProtocolUnreachable
	}
	if p.Err == nil {
		return err
	}
	return fmt.Errorf("%w: %w", err, p.Err)
}

// refusedCall is the error of a call that a gateway refuses.
func refusedCall(p *carrier.Packet) error {
	if p.Err == nil {
		return homa.ErrAborted
	}
	return p.Err
}

// wrapCall names the server in an error, but not in io.EOF, which readers compare.
func wrapCall(to netip.AddrPort, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return fmt.Errorf("call %s: %w", to, err)
}
