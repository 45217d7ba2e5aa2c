package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// TestOverlappingClients: applications with the same address and port, behind
// clients with the same device address, reach one server port at one time.
func TestOverlappingClients(t *testing.T) {
	const sites = 3
	w := newWorld(t, options{net: testnet.Options{Sites: sites}})
	server := w.serve(testnet.ServerAddr, echo)
	for i, site := range w.Sites[1:] {
		name := fmt.Sprintf("client-%d", i+1)
		w.must(w.Keygen(w.ctx, name))
		w.up(w.start(site.Gateway, lab.ClientConfig(name)))
	}
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: testnet.AppAddr.AsSlice(), Port: 40000}}
	conns := make([]*net.TCPConn, sites)
	for i, site := range w.Sites {
		ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
		c, err := site.App.DialWith(ctx, from, "tcp", server.String())
		cancel()
		w.must(err)
		defer c.Close()
		conns[i] = c.(*net.TCPConn)
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	// Each hears its own words, while all are open.
	for round := range 20 {
		for i, c := range conns {
			w.must(echoed(c, fmt.Sprintf("site %d, round %d", i, round)))
		}
	}
	flows, err := w.gateway.Flows(w.ctx)
	w.must(err)
	peers := map[string]bool{}
	for _, f := range flows {
		if f.Src != "10.1.0.2:40000" {
			t.Errorf("flow from %s, want 10.1.0.2:40000", f.Src)
		}
		peers[f.Peer] = true
	}
	if len(flows) != sites || len(peers) != sites {
		t.Errorf("%d flows of %d peers, want %d of each: %+v", len(flows), len(peers), sites, flows)
	}
}

// TestSiteToSite: a host behind the gateway opens flows to a host behind a
// client that dialled in, by the client's rules.
func TestSiteToSite(t *testing.T) {
	w := newWorld(t, options{
		gateway: func(c *lab.Config) {
			c.TUN = &lab.TUN{Name: "tou0", Addresses: []string{"10.77.0.254/32", "fd77::fe/128"},
				Routes: []string{testnet.AppPrefix.String(), testnet.AppPrefix6.String()}}
			c.Rules = []string{fmt.Sprintf("{dst: [%q, %q], action: tunnel, peer: client}", testnet.AppPrefix, testnet.AppPrefix6)}
		},
		client: func(c *lab.Config) {
			c.Accept = []string{fmt.Sprintf("{peer: gateway, dst: [\"%v/32\", \"%v/128\"], action: tcp}", testnet.AppAddr, testnet.AppAddr6)}
		},
	})
	for _, addr := range []netip.Addr{testnet.AppAddr, testnet.AppAddr6} {
		there := w.serveAt(w.app(), netip.AddrPortFrom(addr, 0), echo)
		w.must(w.ask(w.Server, there))
		_, err := w.dialFrom(w.Server, netip.AddrPortFrom(addr, 9), 5*time.Second)
		if !refused(err) {
			t.Errorf("a closed port of %v: %v", addr, err)
		}
	}
	// And the other way round at the same time.
	for _, addr := range []netip.Addr{testnet.ServerAddr, testnet.ServerAddr6} {
		w.must(w.ask(w.app(), w.serve(addr, echo)))
	}
	// The client opened one host, not its network.
	if _, err := w.dialFrom(w.Server, netip.MustParseAddrPort("10.1.0.1:9"), 5*time.Second); !unreachable(err) {
		t.Errorf("a host that no rule of the client opens: %v, want that it is unreachable", err)
	}
}
