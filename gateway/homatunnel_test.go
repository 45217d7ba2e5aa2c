package gateway

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

	"github.com/tougw/tougw/gue"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/translate"
	"github.com/tougw/tougw/tunnel"
)

// wireEnd is one end of a tunnel in memory, with a delay each way.
type wireEnd struct {
	ref   tunnel.PeerRef // by which this end knows the other
	name  string         // what the other has proven
	delay time.Duration
	other *homaTunnel
	back  tunnel.PeerRef // by which the other knows this one
	gone  atomic.Bool
}

func (w *wireEnd) PeerRef(ctx context.Context, name string) (tunnel.PeerRef, error) {
	if name == w.name && !w.gone.Load() {
		return w.ref, nil
	}
	<-ctx.Done()
	return 0, tunnel.ErrNoPeer
}

func (w *wireEnd) PeerPath(ref tunnel.PeerRef) (tunnel.PeerPath, bool) {
	if ref != w.ref || w.gone.Load() {
		return tunnel.PeerPath{}, false
	}
	return tunnel.PeerPath{Identity: tunnel.Identity{Names: []string{w.name}}, RTT: 2 * w.delay, MaxPayload: 1300}, true
}

func (w *wireEnd) SendDatagrams(proto gue.Protocol, ds []tunnel.Datagram) {
	for i := range ds {
		d := &ds[i]
		switch {
		case d.Peer != w.ref || w.gone.Load():
			d.Failed = tunnel.DatagramNoPeer
		case len(d.Payload) > 1300:
			d.Failed = tunnel.DatagramTooLarge
		default:
			c := tunnel.Datagram{Peer: w.back, Target: d.Target, Payload: bytes.Clone(d.Payload)}
			time.AfterFunc(w.delay, func() { w.other.Datagram(&c) })
		}
	}
}

func (w *wireEnd) RefuseCall(ref tunnel.PeerRef, call uint64, reason error) {
	if ref == w.ref {
		time.AfterFunc(w.delay, func() { w.other.CallRefused(w.back, call, reason) })
	}
}

// homaScene is a client's gateway, a tunnel, a gateway, and a Homa server behind it.
type homaScene struct {
	near   *wireEnd
	via    homaVia
	server *rpc.Node
}

func newHomaScene(t *testing.T, delay time.Duration, allowed func(tunnel.Identity, netip.AddrPort) bool) *homaScene {
	t.Helper()
	node := func(c carrier.Carrier, config rpc.Config) *rpc.Node {
		n, err := rpc.NewNode(c, config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
		return n
	}
	fabric := &carrier.Network{}
	host := func(addr string) *rpc.Node {
		p, err := fabric.Attach(netip.MustParseAddr(addr))
		if err != nil {
			t.Fatal(err)
		}
		return node(p, rpc.Config{})
	}
	near, far := newHomaTunnel(), newHomaTunnel()
	s := &homaScene{
		near:   &wireEnd{ref: 7, name: "edge", delay: delay, other: far, back: 9},
		server: host("10.1.0.5"),
	}
	near.node, far.node = s.near, &wireEnd{ref: 9, name: "laptop", delay: delay, other: near, back: 7}
	s.via = homaVia{near, node(near, homaTunnelConfig()), "edge"}
	passes := translate.NewRelay("accept[0]", nil)
	relay := func(who tunnel.Identity, to netip.AddrPort) *translate.Relay {
		if allowed(who, to) {
			return passes
		}
		return nil
	}
	handler := &homaRelay{tunnel: far, node: node(far, homaTunnelConfig()), relay: relay, open: host("10.1.0.1").Open,
		local: func(to netip.AddrPort) rpc.Handler {
			if to == netip.MustParseAddrPort("10.1.0.1:4100") {
				return rpc.HandlerFunc(func(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
					b, err := req.ReadAll()
					if err != nil {
						return err
					}
					_, err = w.Write(bytes.ToUpper(b))
					return err
				})
			}
			return nil
		}}
	if _, err := handler.node.Listen(0, handler, rpc.ServeConfig{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *homaScene) call(ctx context.Context, to string, request []byte) ([]byte, error) {
	c, _, err := s.via.Open(ctx, netip.MustParseAddrPort(to), len(request), rpc.OpenOptions{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	return io.ReadAll(c)
}

func TestHomaThroughTheTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Farther than any Linux host's patience.
		s := newHomaScene(t, 150*time.Millisecond, func(who tunnel.Identity, to netip.AddrPort) bool {
			return who.Name() == "laptop" && to.Port() != 4999
		})
		slow := rpc.HandlerFunc(func(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
			b, err := req.ReadAll()
			if err != nil {
				return err
			}
			time.Sleep(5 * time.Second) // longer than any time-out: BUSY keeps the calls alive
			_, err = w.Write(b)
			return err
		})
		if _, err := s.server.Listen(4000, slow, rpc.ServeConfig{}); err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 10_000, 1_000_000} {
			request := bytes.Repeat([]byte{byte(size)}, size)
			got, err := s.call(t.Context(), "10.1.0.5:4000", request)
			if err != nil || !bytes.Equal(got, request) {
				t.Fatalf("%d bytes: %d came back, %v", size, len(got), err)
			}
		}
		if got, err := s.call(t.Context(), "10.1.0.1:4100", []byte("here")); err != nil || string(got) != "HERE" {
			t.Errorf("a rule of the gateway itself: %q, %v", got, err)
		}
		if sent := s.via.node.Stats().Sent; sent[0x12-0x10] > 60 {
			t.Errorf("%d RESENDs: the time-outs do not follow the round trip", sent[0x12-0x10])
		}
		for to, want := range map[string]error{
			"10.1.0.5:4999":          rpc.ErrUnreachable, // not allowed
			"10.1.0.5:4001":          rpc.ErrRefused,
			"10.1.0.77:4000":         rpc.ErrUnreachable,
			"[::ffff:10.1.0.5]:4999": rpc.ErrUnreachable,
		} {
			start := time.Now()
			if _, err := s.call(t.Context(), to, []byte("x")); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", to, err, want)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("%s failed after %v", to, d)
			}
		}
	})
}

func TestHomaWithoutThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newHomaScene(t, time.Millisecond, func(tunnel.Identity, netip.AddrPort) bool { return true })
		// The peer goes while a call is under way.
		block := rpc.HandlerFunc(func(ctx context.Context, _ *rpc.Request, _ *rpc.ResponseWriter) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if _, err := s.server.Listen(4000, block, rpc.ServeConfig{}); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { s.near.gone.Store(true) })
		start := time.Now()
		if _, err := s.call(t.Context(), "10.1.0.5:4000", []byte("x")); !errors.Is(err, rpc.ErrUnreachable) && !errors.Is(err, rpc.ErrTimeout) {
			t.Errorf("%v", err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("noticed after %v", d)
		}
		start = time.Now()
		if _, err := s.call(t.Context(), "10.1.0.5:4000", []byte("x")); !errors.Is(err, rpc.ErrUnreachable) || !errors.Is(err, tunnel.ErrNoPeer) {
			t.Errorf("%v", err)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("no peer noticed after %v", d)
		}
	})
}
