package rpc

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// relayBuffer is what a relay holds of a message beside what the engines do.
const relayBuffer = 16 << 10

// Opener begins a call of length bytes to a server, as Node.Open does.
type Opener func(ctx context.Context, to netip.AddrPort, length int) (*Call, error)

// Relayed is what became of a request that was passed on. What did not happen is
// zero.
type Relayed struct {
	// Call is the call to the server, for its ID and Stats: it is closed.
	Call *Call
	// Opened is when the call began, Sent when all of the request was handed on to it,
	// Answered when the response began.
	Opened, Sent, Answered time.Time
	// Response is the length of the response in bytes.
	Response int
}

// Relay answers a request with what the server at its Target answers to it. Bytes
// pass as they come, and each side waits for the other. A request without a
// target is ErrAddress. The request is sent once. What Relay returns beside an error
// tells how far it came.
func Relay(ctx context.Context, req *Request, w *ResponseWriter, open Opener) (r Relayed, err error) {
	to, err := req.Target()
	if err != nil {
		return r, err
	}
	if !to.Addr().IsValid() {
		return r, fmt.Errorf("%w: the request names no server", ErrAddress)
	}
	call, err := open(ctx, to, req.Len())
	if err != nil {
		return r, err
	}
	defer call.Close()
	r.Call, r.Opened = call, time.Now()
	req.SetLowWater(relayBuffer / 2)
	buffer := make([]byte, min(relayBuffer, req.Len()))
	for {
		k, err := req.Read(buffer)
		if err == io.EOF {
			break
		}
		if err != nil {
			return r, err
		}
		if _, err := call.Write(buffer[:k]); err != nil {
			return r, err
		}
	}
	r.Sent = time.Now()
	if r.Response, err = call.Response(); err != nil {
		return r, err
	}
	r.Answered = time.Now()
	if err := w.SetLength(r.Response); err != nil {
		return r, err
	}
	if len(buffer) < min(relayBuffer, r.Response) {
		buffer = make([]byte, min(relayBuffer, r.Response))
	}
	call.SetLowWater(relayBuffer / 2)
	// Neither has methods that would take the copying over.
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{call}, buffer)
	return r, err
}
