package translate

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
)

// TestPausedRequest has a client that pauses in the middle of a request for so long
// that the server's gateway gives it up, of which it hears nothing, and then goes on:
// the server must not get the same request again.
func TestPausedRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cut atomic.Bool
		network := &carrier.Network{Fate: func(_, _ netip.Addr, _ []byte) int {
			if cut.Load() {
				return 0
			}
			return 1
		}}
		f := newFabric(t, network, homa.Config{Peer: homa.PeerConfig{TimeoutTicks: 100}})
		var mu sync.Mutex
		var seen []int64 // bytes on each connection to the server
		rule := framingOf(t, prefixConfig)
		r, err := NewReverse(rule, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1")}, func(context.Context, netip.AddrPort) (net.Conn, error) {
			near, far := net.Pipe()
			mu.Lock()
			defer mu.Unlock()
			i := len(seen)
			seen = append(seen, 0)
			go func() {
				n, _ := io.Copy(io.Discard, far)
				mu.Lock()
				defer mu.Unlock()
				seen[i] = n
				far.Close()
			}()
			return near, nil
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		server, err := f.server.Listen(homaPort, r, rpc.ServeConfig{})
		if err != nil {
			t.Fatal(err)
		}
		fw, err := NewForward(rule, serverHost, Over(f.client), nil)
		if err != nil {
			t.Fatal(err)
		}
		conn, accepted := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() { fw.ServeConn(context.Background(), accepted, Meta{}) })
		message := prefixed(text(900_000))
		if _, err := conn.Write(message[:400_000]); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cut.Store(true)
		time.Sleep(5 * time.Second)
		cut.Store(false)
		wg.Go(func() {
			_, _ = conn.Write(message[400_000:]) // it may be reset
		})
		time.Sleep(5 * time.Second)
		conn.Close()
		wg.Wait()
		r.Close()
		server.Close()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(seen) != 1 || seen[0] == 0 || seen[0] >= int64(len(message)) {
			t.Errorf("the server got a request of %d bytes as %d", len(message), seen)
		}
	})
}
