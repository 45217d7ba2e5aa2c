package rpc

import (
	"context"
	"fmt"
	"io"
	"net/netip"
)

// relayBuffer is what a relay holds of a message beside what the engines do.
const relayBuffer = 16 << 10

// Opener begins a call of length bytes to a server, as Node.Open does.
type Opener func(ctx context.Context, to netip.AddrPort, length int) (*Call, error)

// Relay answers a request with what the server at its Target answers to it. Bytes
// pass as they come, and each side waits for the other. A request without a
// target is ErrAddress. The request is sent once.
func Relay(ctx context.Context, req *Request, w *ResponseWriter, open Opener) error {
	to, err := req.Target()
	if err != nil {
		return err
	}
	if !to.Addr().IsValid() {
		return fmt.Errorf("%w: the request names no server", ErrAddress)
	}
	call, err := open(ctx, to, req.Len())
	if err != nil {
		return err
	}
	defer call.Close()
	buffer := make([]byte, min(relayBuffer, req.Len()))
	for {
		k, err := req.Read(buffer)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if _, err := call.Write(buffer[:k]); err != nil {
			return err
		}
	}
	length, err := call.Response()
	if err != nil {
		return err
	}
	if err := w.SetLength(length); err != nil {
		return err
	}
	if len(buffer) < min(relayBuffer, length) {
		buffer = make([]byte, min(relayBuffer, length))
	}
	// Neither has methods that would take the copying over.
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{call}, buffer)
	return err
}
