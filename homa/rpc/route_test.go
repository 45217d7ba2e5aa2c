package rpc_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
)

// TestRouteIsAway: while a host cannot send, what is under way takes it as loss, on
// either side, and a new call fails at once.
func TestRouteIsAway(t *testing.T) {
	for _, host := range []netip.Addr{clientAddr, serverAddr} {
		synctest.Test(t, func(t *testing.T) {
			var away atomic.Bool
			network := &carrier.Network{Fate: func(from, _ netip.Addr, _ []byte) int {
				if from == host && away.Load() {
					return -1
				}
				return 1
			}}
			client, node := pair(t, network, rpc.Config{})
			flap := func() {
				away.Store(true)
				time.AfterFunc(50*time.Millisecond, func() { away.Store(false) })
			}
			listen(t, node, rpc.ServeConfig{OnError: func(_ netip.AddrPort, err error) { t.Error("server:", err) }},
				func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
					b, err := req.ReadAll()
					if err != nil {
						return err
					}
					flap()
					time.Sleep(20 * time.Millisecond)
					_, err = w.Write(b)
					return err
				})
			call, err := client.Open(t.Context(), server, rpc.MaxMessage)
			if err != nil {
				t.Fatal(err)
			}
			defer call.Close()
			if err := writeHalves(call, flap); err != nil {
				t.Fatal("request:", err)
			}
			if n, err := io.Copy(io.Discard, call); err != nil || n != rpc.MaxMessage {
				t.Fatalf("response: %d bytes, %v", n, err)
			}
			if host != clientAddr {
				return
			}
			away.Store(true)
			begun := time.Now()
			if _, err := client.Call(t.Context(), server, message(10)); !errors.Is(err, rpc.ErrUnreachable) || time.Since(begun) != 0 {
				t.Errorf("a new call: %v after %v", err, time.Since(begun))
			}
		})
	}
}
