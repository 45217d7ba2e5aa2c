package e2e

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// state of a namespace, for comparing.
func (w *world) state(ns *testnet.Namespace) string {
	w.t.Helper()
	s, err := ns.State(w.ctx)
	w.must(err)
	return s
}

// sameState compares two states line by line.
func (w *world) sameState(when, before, after string) {
	w.t.Helper()
	if before == after {
		return
	}
	had := map[string]int{}
	for line := range strings.Lines(before) {
		had[line]++
	}
	for line := range strings.Lines(after) {
		if had[line]--; had[line] < 0 {
			w.t.Errorf("%s: new on the host: %s", when, line)
		}
	}
	for line, n := range had {
		if n > 0 {
			w.t.Errorf("%s: gone from the host: %s", when, line)
		}
	}
}

// everything sends all traffic of the client's host into the tunnel.
func everything(c *lab.Config) { c.TUN.Routes = []string{"default"} }

// TestHostIsLeftAsFound: whatever a daemon sets up on its host is gone when it
// has ended, and what a killed one left is gone after the next.
func TestHostIsLeftAsFound(t *testing.T) {
	for name, change := range map[string]func(*lab.Config){
		"prefixes": func(*lab.Config) {},
		"default":  everything,
		"water":    func(c *lab.Config) { c.TUN.More = "backend: water" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{idle: true})
			w.gateway = w.start(w.Gateway, lab.GatewayConfig())
			server := w.serve(testnet.ServerAddr, echo)
			host := w.Sites[0].Gateway
			before := w.state(host)

			config := lab.ClientConfig("client")
			change(&config)
			w.client = w.start(host, config)
			w.up(w.client)
			w.must(w.ask(w.app(), server))
			if w.state(host) == before {
				t.Error("the state does not show a running daemon")
			}
			w.must(w.client.Stop())
			w.sameState("stopped", before, w.state(host))

			w.must(w.client.Restart(w.ctx))
			w.up(w.client)
			w.client.Kill9()
			w.must(w.client.Restart(w.ctx))
			w.up(w.client)
			w.must(w.ask(w.app(), server))
			w.must(w.client.Stop())
			w.sameState("killed, started and stopped", before, w.state(host))
		})
	}
}

// TestBadConfigurationTouchesNothing: an error in the file ends the start
// before anything on the host is changed.
func TestBadConfigurationTouchesNothing(t *testing.T) {
	w := newWorld(t, options{idle: true})
	host := w.Sites[0].Gateway
	before := w.state(host)
	file, err := w.WriteFile("bad.yaml", strings.Replace(lab.ClientConfig("client").String(), "action: tunnel", "action: tunel", 1))
	w.must(err)
	out, err := host.Run(w.within(10*time.Second), w.Binary, "run", "-c", file)
	if err == nil || !strings.Contains(err.Error(), "bad.yaml:") || !strings.Contains(err.Error(), "tunel") {
		t.Errorf("run: %v, %s; want the place and the value", err, out)
	}
	w.sameState("refused", before, w.state(host))
}

// TestDefaultRoute: with everything in the tunnel, the tunnel itself is not.
func TestDefaultRoute(t *testing.T) {
	for name, net := range map[string]testnet.Options{"gateway for others": {}, "one host": {AppOnGateway: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{net: net, client: everything})
			for _, addr := range []netip.Addr{testnet.ServerAddr, testnet.ServerAddr6} {
				w.must(w.transfer(w.serve(addr, echo), 1<<20))
			}
			// The only way out that is not the tunnel is the tunnel's own.
			s, err := w.client.Status(w.ctx)
			w.must(err)
			if len(s.Peers) != 1 || s.Peers[0].State != "up" {
				t.Errorf("peers: %+v", s.Peers)
			}
		})
	}
}

// TestLoopIsRefused: the device's own network has the gateway in it, so that
// the way to the gateway would be through the tunnel to it.
func TestLoopIsRefused(t *testing.T) {
	w := newWorld(t, options{idle: true})
	host := w.Sites[0].Gateway
	before := w.state(host)
	config := lab.ClientConfig("client")
	config.TUN.Addresses = []string{"203.0.113.9/24"}
	file, err := w.WriteFile("client.yaml", config.String())
	w.must(err)
	_, err = host.Run(w.within(10*time.Second), w.Binary, "run", "-c", file)
	if err == nil || !strings.Contains(err.Error(), "loop") || !strings.Contains(err.Error(), "203.0.113.7") {
		t.Errorf("run: %v, want that it would loop and why", err)
	}
	w.sameState("refused", before, w.state(host))
}

// TestNotTCP: what is captured and cannot be carried is answered.
func TestNotTCP(t *testing.T) {
	w := newWorld(t, options{})
	for _, c := range []struct {
		addr netip.Addr
		ping string // what ping says to an answer of "prohibited"
		udp  error
	}{
		{testnet.ServerAddr, "Packet filtered", syscall.EHOSTUNREACH},
		{testnet.ServerAddr6, "prohibited", syscall.EACCES},
	} {
		out, err := w.app().Run(w.within(10*time.Second), "ping", "-n", "-c", "1", "-W", "3", c.addr.String())
		if err == nil || !strings.Contains(out, c.ping) {
			t.Errorf("ping %v: %v, %q; want %q", c.addr, err, out, c.ping)
		}
		conn, err := w.app().Dial(w.ctx, "udp", netip.AddrPortFrom(c.addr, 53).String())
		w.must(err)
		defer conn.Close()
		_, err = conn.Write([]byte("question"))
		w.must(err)
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, c.udp) {
			t.Errorf("UDP to %v: %v, want %v", c.addr, err, c.udp)
		}
	}
	for _, reason := range []string{"icmp", "udp"} {
		if n, err := w.client.Drops(w.ctx, reason); err != nil || n < 2 {
			t.Errorf("%d drops counted for %s, %v; want 2", n, reason, err)
		}
	}
}

// TestRules: the first rule that matches a captured flow decides.
func TestRules(t *testing.T) {
	direct := netip.MustParseAddr("198.51.100.200")
	w := newWorld(t, options{client: func(c *lab.Config) {
		c.Rules = []string{
			`{dst: ["198.51.100.200/32"], ports: ["1024-65535"], action: direct}`,
			`{ports: [25, "6000-6010"], action: reject}`,
			`{dst: ["198.51.100.0/24"], action: tunnel, peer: gateway}`,
		}
	}})
	// The Internet knows the way to the server, for those who do not want the
	// tunnel.
	w.must(errors.Join(w.RoutePlain(), w.Server.AddAddress("eth0", netip.PrefixFrom(direct, 24))))

	source := make(chan netip.Addr, 1)
	tell := func(c *net.TCPConn) {
		source <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
		echo(c)
	}
	for _, c := range []struct {
		name string
		addr netip.Addr
		want netip.Addr
	}{
		{"tunnel", testnet.ServerAddr, netip.MustParseAddr("198.51.100.1")},
		{"direct", direct, w.Sites[0].Addr},
	} {
		w.must(w.ask(w.app(), w.serve(c.addr, tell)))
		if got := <-source; got != c.want {
			t.Errorf("%s: the server sees %v, want %v", c.name, got, c.want)
		}
	}
	for _, to := range []string{"198.51.100.2:25", "198.51.100.200:25", "198.51.100.2:6005", "[2001:db8:3::2]:80"} {
		ctx, cancel := context.WithTimeout(w.ctx, 3*time.Second)
		_, err := w.app().Dial(ctx, "tcp", to)
		cancel()
		// As by a packet filter: ICMP "prohibited".
		if !unreachable(err) && !errors.Is(err, syscall.EACCES) {
			t.Errorf("%s, rejected: %v", to, err)
		}
	}
}

// TestWater: the portable device carries the same traffic.
func TestWater(t *testing.T) {
	w := newWorld(t, options{client: func(c *lab.Config) { c.TUN.More = "backend: water" }, bulk: true})
	s, err := w.client.Status(w.ctx)
	w.must(err)
	if s.Tun == nil || s.Tun.Backend != "water" {
		t.Fatalf("the device is %+v", s.Tun)
	}
	for _, addr := range []netip.Addr{testnet.ServerAddr, testnet.ServerAddr6} {
		w.must(w.transfer(w.serve(addr, echo), 20<<20))
	}
}

// TestMixedOffloads: two ends that differ in what their kernels take for them carry
// the same traffic.
func TestMixedOffloads(t *testing.T) {
	off := func(c *lab.Config) { c.More = append(c.More, "associations: {offload: off}") }
	plain := func(c *lab.Config) {
		off(c)
		c.TUN.More = "backend: water"
	}
	for name, o := range map[string]options{
		"client without, device too": {client: plain, bulk: true},
		"gateway without":            {gateway: off, bulk: true},
		"both without":               {client: plain, gateway: off, bulk: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, o)
			for end, d := range map[*lab.Daemon]bool{w.client: o.client != nil, w.gateway: o.gateway != nil} {
				s, err := end.Status(w.ctx)
				w.must(err)
				for _, sock := range s.Sockets {
					if sock.GSO == d || sock.GRO == d {
						t.Errorf("socket %+v, turned off: %v", sock, d)
					}
				}
			}
			w.must(w.transfer(w.serve(testnet.ServerAddr, echo), 20<<20))
		})
	}
}
