package rawip_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/rawip"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/homa/wire"
	"github.com/tougw/tougw/internal/testnet"
)

const port = 4000

var servers = map[string]netip.AddrPort{
	"IPv4": netip.AddrPortFrom(testnet.ServerAddr, port),
	"IPv6": netip.AddrPortFrom(testnet.ServerAddr6, port),
}

// patient is the configuration of tests that share a slow machine with others: a
// tenth of a second without the CPU is no dead peer.
var patient = rpc.Config{Engine: homa.Config{Peer: homa.PeerConfig{TimeoutTicks: 10_000, ResendInterval: 20}}}

func newNode(t *testing.T, ns *testnet.Namespace, config rpc.Config) (*rpc.Node, *rawip.Conn) {
	t.Helper()
	var conn *rawip.Conn
	err := ns.Do(func() (err error) {
		conn, err = rawip.Open(rawip.Config{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := rpc.NewNode(conn, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, conn
}

// pair is a client and a server that echoes, with routers between them.
func pair(t *testing.T, config rpc.Config) (*testnet.Net, *rpc.Node, *rawip.Conn) {
	t.Helper()
	testnet.Require(t)
	n, err := testnet.New(testnet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := n.RoutePlain(); err != nil {
		t.Fatal(err)
	}
	client, conn := newNode(t, n.Sites[0].App, config)
	server, _ := newNode(t, n.Server, config)
	_, err = server.Listen(port, rpc.HandlerFunc(func(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
		if err := copyAll(w, req); err != nil {
			return err
		}
		return nil
	}), rpc.ServeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return n, client, conn
}

func copyAll(w *rpc.ResponseWriter, req *rpc.Request) error {
	_, err := io.Copy(w, req)
	return err
}

func message(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + n)
	}
	return b
}

// call echoes n bytes within the patience of a test.
func call(client *rpc.Node, to netip.AddrPort, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	request := message(n)
	response, err := client.Call(ctx, to, request)
	if err == nil && !bytes.Equal(response, request) {
		err = errors.New("another message came back")
	}
	return err
}

// TestNodes exchanges messages of all sizes, without and with loss.
func TestNodes(t *testing.T) {
	n, client, conn := pair(t, patient)
	sizes := []int{1, 100, 1404, 1424, 1425, 10_000, 40_000, 40_001, 100_000, 500_000, rpc.MaxMessage}
	for _, loss := range []float64{0, 0.03} {
		if err := n.Internet.Drop(loss, "meta l4proto 146"); err != nil {
			t.Fatal(err)
		}
		for family, to := range servers {
			for _, size := range sizes {
				if err := call(client, to, size); err != nil {
					t.Errorf("%s, loss %v, %d bytes: %v", family, loss, size, err)
				}
			}
		}
		if resent := client.Stats().BytesResent; loss > 0 && resent == 0 {
			t.Error("nothing was lost")
		}
	}
	if st := conn.Stats(); st.SendDropTooBig+st.ProtocolUnreachable+st.PortUnreachable != 0 {
		t.Errorf("%+v", st)
	}
}

// TestManyCalls has calls of both families under way at once.
func TestManyCalls(t *testing.T) {
	_, client, _ := pair(t, patient)
	var wg sync.WaitGroup
	for _, to := range servers {
		for i := range 100 {
			wg.Go(func() {
				for range 5 {
					if err := call(client, to, 1+i*50); err != nil {
						t.Errorf("call %d of %s: %v", i, to, err)
					}
				}
			})
		}
	}
	wg.Wait()
}

// TestErrors fails calls by ICMP: at once, and long before the time-out.
func TestErrors(t *testing.T) {
	_, client, _ := pair(t, patient)
	for _, c := range []struct {
		name string
		to   string
		want error
	}{
		{"port, IPv4", "198.51.100.2:4001", rpc.ErrRefused},
		{"port, IPv6", "[2001:db8:3::2]:4001", rpc.ErrRefused},
		{"protocol, IPv4", "203.0.113.7:4000", rpc.ErrNotHoma},
		{"protocol, IPv6", "[2001:db8:2::7]:4000", rpc.ErrNotHoma},
		{"host, IPv4", "10.99.0.1:4000", rpc.ErrUnreachable},
		{"host, IPv6", "[2001:db8:99::1]:4000", rpc.ErrUnreachable},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_, err := client.Call(ctx, netip.MustParseAddrPort(c.to), message(100))
		cancel()
		if !errors.Is(err, c.want) || errors.Is(err, rpc.ErrTimeout) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	st := client.Stats()
	if st.Timeouts != 0 {
		t.Errorf("%+v", st)
	}
}

// TestSilentHost has nobody who answers, not even with an error.
func TestSilentHost(t *testing.T) {
	n, client, _ := pair(t, rpc.Config{})
	if err := n.Internet.Drop(1, "meta l4proto 146"); err != nil {
		t.Fatal(err)
	}
	for _, to := range servers {
		if err := call(client, to, 100); !errors.Is(err, rpc.ErrTimeout) || errors.Is(err, rpc.ErrUnreachable) {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// TestMTUFallsMidway lowers the MTU of a router while a message crosses it.
func TestMTUFallsMidway(t *testing.T) {
	n, client, conn := pair(t, patient)
	// Both ends, since a veth drops what its other end would not send.
	setMTU := func(mtu int) {
		if err := errors.Join(n.Internet.SetMTU("gw0", mtu), n.Gateway.SetMTU("wan0", mtu)); err != nil {
			t.Fatal(err)
		}
	}
	for family, to := range servers {
		setMTU(1500)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		request := message(rpc.MaxMessage)
		c, err := client.Open(ctx, to, len(request))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for at := 0; at < len(request); at += 100_000 {
			if at == 500_000 {
				setMTU(1300)
			}
			if _, err := c.Write(request[at : at+100_000]); err != nil {
				t.Fatalf("%s: after %d bytes: %v", family, at, err)
			}
		}
		response, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(response, request) {
			t.Errorf("%s: %d bytes came back, %v", family, len(response), err)
		}
	}
	if st := conn.Stats(); st.TooBig == 0 {
		t.Errorf("no router minded: %+v", st)
	}
}

// TestRouteIsAway takes the route to the server away while messages are under way.
func TestRouteIsAway(t *testing.T) {
	config := patient
	config.Engine.SendAhead = rpc.MaxMessage // so that Write never waits
	n, client, conn := pair(t, config)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	app := n.Sites[0].App
	for family, to := range servers {
		request := message(rpc.MaxMessage)
		c, err := client.Open(ctx, to, len(request))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(request[:500_000]); err != nil {
			t.Fatal(err)
		}
		before := conn.Stats().SendDropNoRoute
		away := "-" + family[len(family)-1:] // of IPv4 or IPv6
		route, err := app.Run(ctx, "ip", away, "route", "show", "default")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := app.Run(ctx, "ip", away, "route", "del", "default"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(request[500_000:]); err != nil {
			t.Fatalf("%s: %v", family, err)
		}
		for conn.Stats().SendDropNoRoute < before+10 {
			time.Sleep(time.Millisecond)
		}
		if err := call(client, to, 10); !errors.Is(err, rpc.ErrUnreachable) {
			t.Errorf("%s: a new call: %v", family, err)
		}
		if _, err := app.Run(ctx, "ip", append([]string{away, "route", "add"}, strings.Fields(route)...)...); err != nil {
			t.Fatal(err)
		}
		response, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(response, request) {
			t.Errorf("%s: %d bytes came back, %v", family, len(response), err)
		}
	}
}

// TestTwoProcessesOnOneHost: what is for one is not answered by the other, though
// the sockets of both get every packet.
func TestTwoProcessesOnOneHost(t *testing.T) {
	n, client, _ := pair(t, patient)
	idle, _ := newNode(t, n.Server, patient)         // beside the server
	caller, _ := newNode(t, n.Sites[0].App, patient) // beside the client
	if _, err := idle.Listen(port, rpc.HandlerFunc(func(context.Context, *rpc.Request, *rpc.ResponseWriter) error { return nil }), rpc.ServeConfig{}); !errors.Is(err, rpc.ErrAddress) {
		t.Errorf("a port that another process serves: %v", err)
	}
	var wg sync.WaitGroup
	for _, from := range []*rpc.Node{client, caller} {
		for range 4 {
			wg.Go(func() {
				for _, size := range []int{100, 200_000} {
					if err := call(from, servers["IPv4"], size); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	for name, node := range map[string]*rpc.Node{"beside the server": idle, "client": client, "beside the client": caller} {
		s := node.Stats()
		if s.DropForeign+s.DropUnknown == 0 {
			t.Errorf("%s: got nothing of the other's", name)
		}
		if sent := s.Sent[wire.RPCUnknown-wire.Data]; sent != 0 || s.DropPort != 0 {
			t.Errorf("%s: answered %d times for the other, refused %d packets", name, sent, s.DropPort)
		}
	}
}
