package rpc_test

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/homa/wire"
)

// TestCloseTellsManyServers: a node that ends tells every server that it has its
// response, more of them than fit a batch.
func TestCloseTellsManyServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var acks atomic.Int64
		network := &carrier.Network{Fate: func(_, _ netip.Addr, data []byte) int {
			if wire.Type(data[11]) == wire.Ack {
				acks.Add(1)
			}
			return 1
		}}
		port, err := network.Attach(clientAddr)
		if err != nil {
			t.Fatal(err)
		}
		client, err := rpc.NewNode(port, rpc.Config{})
		if err != nil {
			t.Fatal(err)
		}
		const servers = 3 * carrier.MaxBatch
		for i := range servers {
			addr := netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})
			listen(t, newNode(t, network, addr, rpc.Config{}), rpc.ServeConfig{}, echo)
			if _, err := client.Call(t.Context(), netip.AddrPortFrom(addr, server.Port()), []byte{1}); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if n := acks.Load(); n != servers {
			t.Errorf("%d of %d servers got an ACK", n, servers)
		}
	})
}
