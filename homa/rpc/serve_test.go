package rpc

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/wire"
)

// TestWaitingIsBounded: requests that wait for a handler, and that their client
// gives up, are not kept.
func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &carrier.Network{}
		client, err := network.Attach(netip.MustParseAddr("10.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		addr := netip.MustParseAddr("10.0.0.2")
		port, err := network.Attach(addr)
		if err != nil {
			t.Fatal(err)
		}
		node, err := NewNode(port, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer node.Close()
		block := func(ctx context.Context, _ *Request, _ *ResponseWriter) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		server, err := node.Listen(4000, HandlerFunc(block), ServeConfig{Concurrency: 1})
		if err != nil {
			t.Fatal(err)
		}
		send := func(k wire.Packet) {
			k.SrcPort, k.DstPort = 0x8000, 4000
			if err := client.Send([]carrier.Packet{{Addr: addr, Data: wire.Main.Append(nil, &k)}}); err != nil {
				t.Fatal(err)
			}
		}
		for id := uint64(2); id <= 4000; id += 2 {
			send(wire.Packet{Type: wire.Data, SenderID: id, Length: 1, Incoming: 1, Data: []byte{1}})
			if id > 20 {
				send(wire.Packet{Type: wire.Ack, SenderID: id}) // it needs no answer
			}
			synctest.Wait()
		}
		node.mu.Lock()
		waiting := len(server.waiting)
		node.mu.Unlock()
		if waiting < 9 || waiting > 100 {
			t.Errorf("%d requests wait, of which 9 have a client", waiting)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestWorkersAreReused: handlers run on goroutines that ran others before, and all
// of them end with the server.
func TestWorkersAreReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &carrier.Network{}
		var nodes [2]*Node
		for i, a := range []string{"10.0.0.1", "10.0.0.2"} {
			port, err := network.Attach(netip.MustParseAddr(a))
			if err != nil {
				t.Fatal(err)
			}
			if nodes[i], err = NewNode(port, Config{}); err != nil {
				t.Fatal(err)
			}
			defer nodes[i].Close()
		}
		var runs atomic.Int64
		server, err := nodes[1].Listen(4000, HandlerFunc(func(_ context.Context, _ *Request, w *ResponseWriter) error {
			runs.Add(1)
			_, err := w.Write([]byte{1})
			return err
		}), ServeConfig{Concurrency: 2})
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if _, err := nodes[0].Call(t.Context(), netip.MustParseAddrPort("10.0.0.2:4000"), []byte{1}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			nodes[1].mu.Lock()
			if server.idle != 1 || server.running != 0 {
				t.Errorf("%d workers idle, %d running", server.idle, server.running)
			}
			nodes[1].mu.Unlock()
		}
		server.Close()
		if n := runs.Load(); n != 10 {
			t.Errorf("%d requests were executed", n)
		}
	})
}
