package rpc_test

import (
	"context"
	"io"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
)

// TestReaderPauses: the side that sends is patient for as long as the application of
// the other one does not read, or writes nothing itself.
func TestReaderPauses(t *testing.T) {
	const pause = 15 * time.Second
	config := rpc.Config{Engine: homa.Config{ReceiveWindow: 64 << 10}}
	nothing := func() {}
	wait := func() { time.Sleep(pause) }
	for _, c := range []struct {
		name                                                   string
		readRequest, writeResponse, writeRequest, readResponse func()
	}{
		{"request not read", wait, nothing, nothing, nothing},
		{"response not written", nothing, wait, nothing, nothing},
		{"request not written", nothing, nothing, wait, nothing},
		{"response not read", nothing, nothing, nothing, wait},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, node := pair(t, &carrier.Network{}, config)
				listen(t, node, rpc.ServeConfig{OnError: func(_ netip.AddrPort, err error) { t.Error("server:", err) }},
					func(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
						c.readRequest()
						if _, err := req.ReadAll(); err != nil {
							return err
						}
						if err := w.SetLength(rpc.MaxMessage); err != nil {
							return err
						}
						return writeHalves(w, c.writeResponse)
					})
				call, err := client.Open(t.Context(), server, rpc.MaxMessage)
				if err != nil {
					t.Fatal(err)
				}
				defer call.Close()
				if err := writeHalves(call, c.writeRequest); err != nil {
					t.Fatal("request:", err)
				}
				if _, err := call.Response(); err != nil {
					t.Fatal(err)
				}
				c.readResponse()
				if n, err := io.Copy(io.Discard, call); err != nil || n != rpc.MaxMessage {
					t.Fatalf("response: %d bytes, %v", n, err)
				}
				if s := client.Stats(); s.Timeouts > 0 {
					t.Errorf("%d time-outs", s.Timeouts)
				}
			})
		})
	}
}

// writeHalves writes a message of the most bytes, with something in the middle.
func writeHalves(w io.Writer, between func()) error {
	m := message(rpc.MaxMessage)
	if _, err := w.Write(m[:len(m)/2]); err != nil {
		return err
	}
	between()
	_, err := w.Write(m[len(m)/2:])
	return err
}

// TestOutageAfterResponse: a response that is on its way outlives an outage shorter than
// the configured time-out, whether the client has granted all of it or not.
func TestOutageAfterResponse(t *testing.T) {
	const timeout = 20_000 // ticks
	config := rpc.Config{Engine: homa.Config{Peer: homa.PeerConfig{TimeoutTicks: timeout}}}
	for _, length := range []int{100, 500_000} {
		synctest.Test(t, func(t *testing.T) {
			var down atomic.Bool
			network := &carrier.Network{Fate: func(netip.Addr, netip.Addr, []byte) int {
				if down.Load() {
					return 0
				}
				return 1
			}}
			client, node := pair(t, network, config)
			listen(t, node, rpc.ServeConfig{}, func(_ context.Context, _ *rpc.Request, w *rpc.ResponseWriter) error {
				down.Store(true)
				time.AfterFunc(timeout*9/10*time.Millisecond, func() { down.Store(false) })
				_, err := w.Write(message(length))
				return err
			})
			response, err := client.Call(t.Context(), server, message(10))
			if err != nil || len(response) != length {
				t.Errorf("%d bytes came back, %v", len(response), err)
			}
		})
	}
}
