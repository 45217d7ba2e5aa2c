package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/pki"
	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// handshakes returns how many handshakes of a daemon ended with a result, as
// its metrics count them.
func handshakes(w *world, d *lab.Daemon, result string) float64 {
	w.t.Helper()
	m, err := d.Metrics(w.ctx)
	w.must(err)
	return m[fmt.Sprintf("tougw_dtls_handshakes_total{result=%q}", result)]
}

// TestStrangers: who cannot prove what it has to stays outside, and the side
// that refuses counts why.
func TestStrangers(t *testing.T) {
	for _, c := range []struct {
		name string
		// prepare makes the credentials, in the lab's folder.
		prepare         func(w *world)
		client, gateway func(*lab.Config)
		// Which side refuses, and how it counts that.
		byGateway bool
		reason    string
	}{
		{
			name:      "client of another authority",
			prepare:   otherAuthority("client"),
			client:    func(c *lab.Config) { c.Identity = "{cert: other/client.crt, key: other/client.key, ca: ca.crt}" },
			byGateway: true, reason: "unknown_ca",
		},
		{
			name:    "gateway of another authority",
			prepare: otherAuthority("gateway"),
			gateway: func(c *lab.Config) { c.Identity = "{cert: other/gateway.crt, key: other/gateway.key, ca: ca.crt}" },
			reason:  "unknown_ca",
		},
		{
			name:   "gateway of another name",
			client: func(c *lab.Config) { c.Peers[0].ServerName = "another" },
			reason: "name",
		},
		{
			name:    "another client as gateway",
			prepare: func(w *world) { w.must(w.Keygen(w.ctx, "client-2")) },
			gateway: func(c *lab.Config) { c.Identity = "{cert: client-2.crt, key: client-2.key, ca: ca.crt}" },
			reason:  "name",
		},
		{
			name:      "expired client",
			prepare:   expired("client"),
			client:    func(c *lab.Config) { c.Identity = "{cert: old/client.crt, key: old/client.key, ca: ca.crt}" },
			byGateway: true, reason: "expired",
		},
		{
			name:    "expired gateway",
			prepare: expired("gateway"),
			gateway: func(c *lab.Config) { c.Identity = "{cert: old/gateway.crt, key: old/gateway.key, ca: ca.crt}" },
			reason:  "expired",
		},
		{
			name: "wrong pre-shared key",
			prepare: func(w *world) {
				w.psk("client", "client.psk")
				w.psk("client", "psk/client.psk")
			},
			client:    func(c *lab.Config) { c.Identity = "{psk: {identity: client, key_file: client.psk}}" },
			gateway:   func(c *lab.Config) { c.Identity = "{psk_dir: psk}" },
			byGateway: true, reason: "key",
		},
		{
			name: "unknown pre-shared key",
			prepare: func(w *world) {
				w.psk("client", "client.psk")
				w.psk("client-2", "psk/client-2.psk")
			},
			client:    func(c *lab.Config) { c.Identity = "{psk: {identity: client, key_file: client.psk}}" },
			gateway:   func(c *lab.Config) { c.Identity = "{psk_dir: psk}" },
			byGateway: true, reason: "unknown_identity",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{idle: true})
			if c.prepare != nil {
				c.prepare(w)
			}
			gateway, client := lab.GatewayConfig(), lab.ClientConfig("client")
			if c.gateway != nil {
				c.gateway(&gateway)
			}
			if c.client != nil {
				c.client(&client)
			}
			w.gateway = w.start(w.Gateway, gateway)
			server := w.serve(testnet.ServerAddr, echo)
			w.client = w.start(w.Sites[0].Gateway, client)
			judge := w.client
			if c.byGateway {
				judge = w.gateway
			}
			// Twice: the first attempt is not the last.
			w.eventually(30*time.Second, func() error {
				if n := handshakes(w, judge, c.reason); n < 2 {
					return fmt.Errorf("%s counts %v handshakes refused for %q", judge.Name, n, c.reason)
				}
				return nil
			})
			for _, d := range []*lab.Daemon{w.client, w.gateway} {
				if n := handshakes(w, d, "completed"); n != 0 {
					t.Errorf("%s has completed %v handshakes", d.Name, n)
				}
				s, err := d.Status(w.ctx)
				w.must(err)
				for _, p := range s.Peers {
					if p.State == "up" {
						t.Errorf("%s: peer %s is up", d.Name, p.Name)
					}
				}
			}
			s, err := w.client.Status(w.ctx)
			w.must(err)
			if len(s.Peers) != 1 || s.Peers[0].Error == "" {
				t.Errorf("the client's status does not say what is wrong: %+v", s.Peers)
			}
			if err := w.ask(w.app(), server); err == nil {
				t.Error("a flow was carried")
			}
		})
	}
}

func otherAuthority(name string) func(*world) {
	return func(w *world) {
		_, err := w.Tougw(w.ctx, "keygen", "ca", "--out", "other")
		w.must(err)
		_, err = w.Tougw(w.ctx, "keygen", "identity", name, "--ca", "other", "--out", "other")
		w.must(err)
	}
}

// expired makes an identity of the right authority whose time is over.
func expired(name string) func(*world) {
	return func(w *world) {
		w.must(os.MkdirAll(w.Path("old"), 0o755))
		_, err := pki.Identity(name, w.Dir, w.Path("old"), pki.Validity{NotBefore: time.Now().Add(-48 * time.Hour), For: 24 * time.Hour})
		w.must(err)
	}
}

// psk makes a key for a name, in a file of the lab.
func (w *world) psk(name, file string) {
	w.t.Helper()
	dir, err := os.MkdirTemp(w.Dir, "psk-")
	w.must(err)
	_, err = w.Tougw(w.ctx, "keygen", "psk", name, "--out", dir)
	w.must(err)
	w.must(os.MkdirAll(w.Path("psk"), 0o755))
	w.must(os.Rename(dir+"/"+name+".psk", w.Path(file)))
}

// TestPSK: a key in place of a certificate, on the client alone.
func TestPSK(t *testing.T) {
	for _, gateway := range []string{"{psk_dir: psk}", "{cert: gateway.crt, key: gateway.key, ca: ca.crt, psk_dir: psk}"} {
		t.Run(gateway, func(t *testing.T) {
			w := newWorld(t, options{idle: true})
			w.psk("client", "client.psk")
			w.copyFile("client.psk", "psk/client.psk")
			g, c := lab.GatewayConfig(), lab.ClientConfig("client")
			g.Identity = gateway
			c.Identity = "{psk: {identity: client, key_file: client.psk}}"
			w.gateway, w.client = w.start(w.Gateway, g), w.start(w.Sites[0].Gateway, c)
			w.up(w.client)
			w.must(w.ask(w.app(), w.serve(testnet.ServerAddr, echo)))
			s, err := w.gateway.Status(w.ctx)
			w.must(err)
			if len(s.Peers) != 1 || s.Peers[0].Name != "client" {
				t.Errorf("the gateway's peers are %+v, want one that is called client", s.Peers)
			}
		})
	}
}

func (w *world) copyFile(from, to string) {
	w.t.Helper()
	b, err := os.ReadFile(w.Path(from))
	w.must(err)
	w.must(os.WriteFile(w.Path(to), b, 0o600))
}

// TestAccept: a peer that proved its name reaches what the rules open to this
// name, and nothing else.
func TestAccept(t *testing.T) {
	for _, c := range []struct {
		name   string
		accept []string
		open   bool
	}{
		{"no rule", nil, false},
		{"another name", []string{`{peer: "laptop-*", dst: ["198.51.100.0/24"], action: tcp}`}, false},
		{"another network", []string{`{peer: client, dst: ["198.51.101.0/24"], action: tcp}`}, false},
		{"another port", []string{`{peer: client, dst: ["198.51.100.0/24"], ports: ["1-79"], action: tcp}`}, false},
		{"rejected first", []string{`{peer: "c*", dst: ["198.51.100.2/32"], action: reject}`, `{peer: client, dst: ["198.51.100.0/24"], action: tcp}`}, false},
		{"accepted first", []string{`{peer: client, dst: ["198.51.100.2/32"], ports: [8080], action: tcp}`, `{peer: "*", dst: ["0.0.0.0/0"], action: reject}`}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, options{gateway: func(g *lab.Config) { g.Accept = c.accept }})
			err := w.ask(w.app(), w.serveAt(w.Server, netip.AddrPortFrom(testnet.ServerAddr, 8080), echo))
			switch {
			case c.open && err != nil:
				t.Error(err)
			case !c.open && !unreachable(err):
				// ICMP "communication administratively prohibited" is
				// EHOSTUNREACH to a Linux program.
				t.Errorf("%v, want that the host is unreachable", err)
			}
		})
	}
}

// TestGatewayItselfIsClosed: the addresses of the gateway itself are open to
// those rules only that list them one by one.
func TestGatewayItselfIsClosed(t *testing.T) {
	w := newWorld(t, options{gateway: func(c *lab.Config) {
		c.Accept = []string{
			`{peer: client, dst: ["198.51.100.1/32"], ports: [7], action: tcp}`,
			`{peer: client, dst: ["0.0.0.0/0", "::/0"], action: tcp}`,
		}
	}})
	for port, open := range map[uint16]bool{7: true, 8: false} {
		to := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), port)
		err := w.ask(w.app(), w.serveAt(w.Gateway, to, echo))
		if open && err != nil || !open && !unreachable(err) {
			t.Errorf("port %d: %v; open: %v", port, err, open)
		}
	}
	// What is behind the gateway is open as the second rule says.
	w.must(w.ask(w.app(), w.serve(testnet.ServerAddr6, echo)))
}
