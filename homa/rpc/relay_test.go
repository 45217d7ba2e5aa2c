package rpc_test

import (
	"bytes"
	"context"
	"errors"
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

var gatewayAddr = netip.MustParseAddr("fd00::1")

// relayed is a client that reaches servers of a fabric through a gateway.
type relayed struct {
	client, server *rpc.Node
	refused        atomic.Int32
}

func newRelayed(t *testing.T, loss func(from, to netip.Addr, data []byte) int) *relayed {
	t.Helper()
	tunnel := &carrier.Network{Gateways: true, Fate: loss}
	fabric := &carrier.Network{Fate: loss}
	r := &relayed{
		client: newNode(t, tunnel, netip.MustParseAddr("fd00::2"), rpc.Config{}),
		server: newNode(t, fabric, serverAddr, rpc.Config{}),
	}
	inside := newNode(t, fabric, clientAddr, rpc.Config{})
	outside := newNode(t, tunnel, gatewayAddr, rpc.Config{Engine: homa.Config{AnyPort: true}})
	_, err := outside.Listen(0, rpc.HandlerFunc(func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
		_, err := rpc.Relay(ctx, req, w, inside.Open)
		return err
	}), rpc.ServeConfig{OnError: func(netip.AddrPort, error) { r.refused.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// call sends a request through the gateway.
func (r *relayed) call(ctx context.Context, to netip.AddrPort, request []byte) ([]byte, error) {
	c, n, err := r.client.OpenWith(ctx, to, len(request), rpc.OpenOptions{Via: gatewayAddr, First: request})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Write(request[n:]); err != nil {
		return nil, err
	}
	return io.ReadAll(c)
}

func TestRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelayed(t, nil)
		listen(t, r.server, rpc.ServeConfig{}, echo)
		for _, size := range []int{1, 1424, 100_000, rpc.MaxMessage} {
			request := message(size)
			if got, err := r.call(t.Context(), server, request); err != nil || !bytes.Equal(got, request) {
				t.Fatalf("%d bytes: %d came back, %v", size, len(got), err)
			}
		}
	})
}

// TestRelayWithLoss loses the packets that name the target, and others.
func TestRelayWithLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		r := newRelayed(t, func(_, _ netip.Addr, data []byte) int {
			if n.Add(1)%5 == 1 {
				return 0
			}
			return 1
		})
		listen(t, r.server, rpc.ServeConfig{}, echo)
		for range 20 {
			request := message(30_000)
			if got, err := r.call(t.Context(), server, request); err != nil || !bytes.Equal(got, request) {
				t.Fatalf("%d bytes came back, %v", len(got), err)
			}
		}
	})
}

// TestRelayTellsWhy: a client of a gateway learns at once why its call failed.
func TestRelayTellsWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelayed(t, nil)
		start := time.Now()
		if _, err := r.call(t.Context(), server, message(10)); !errors.Is(err, rpc.ErrRefused) {
			t.Errorf("nobody serves the port: %v", err)
		}
		if _, err := r.call(t.Context(), netip.MustParseAddrPort("10.0.0.99:1"), message(10)); !errors.Is(err, rpc.ErrUnreachable) {
			t.Errorf("no such host: %v", err)
		}
		if d := time.Since(start); d > 10*time.Millisecond {
			t.Errorf("took %v", d)
		}
		if n := r.refused.Load(); n != 2 {
			t.Errorf("%d calls refused", n)
		}
		// A call that names no target.
		c, err := r.client.Open(t.Context(), netip.AddrPortFrom(gatewayAddr, 7), 1)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Response(); !errors.Is(err, rpc.ErrAddress) {
			t.Errorf("no target: %v", err)
		}
	})
}

// TestOnlyTheGatewayRefuses: a host that was not called cannot end a call.
func TestOnlyTheGatewayRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &carrier.Network{Gateways: true}
		client, node := pair(t, network, rpc.Config{})
		release := make(chan struct{})
		ids := make(chan uint64, 1)
		listen(t, node, rpc.ServeConfig{}, func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
			ids <- req.ID()
			<-release
			return echo(ctx, req, w)
		})
		stranger, err := network.Attach(netip.MustParseAddr("10.0.0.66"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			stranger.RefuseCall(clientAddr, <-ids, rpc.ErrRefused)
			synctest.Wait()
			close(release)
		}()
		if got, err := client.Call(t.Context(), server, message(9)); err != nil || !bytes.Equal(got, message(9)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}
