package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// TestTranslateViaAPeer: the two halves of a translation are at two gateways, with
// Homa in the tunnel between them. The server is a Homa host behind the second, and
// a rule of the second itself:
//
//	curl ── TCP ── client ── Homa in the tunnel ── gateway ── Homa ── far ── nginx
//	                                                  └────── TCP ─────────── nginx
func TestTranslateViaAPeer(t *testing.T) {
	t.Parallel()
	door := netip.MustParseAddr("10.1.0.1") // the client gateway, as its application sees it
	web := netip.AddrPortFrom(testnet.ServerAddr, lab.HTTPPort)
	rule := func(name string, port int, homa string) string {
		return fmt.Sprintf("  - {name: %s, from: {tcp: \"%v:%d\"}, to: {homa: \"%s\", via: gateway}, framing: {type: http1}}\n", name, door, port, homa)
	}
	behind, itself := netip.AddrPortFrom(testnet.ServerAddr, 4000), netip.AddrPortFrom(testnet.GatewayAddr, 4100)
	w := newWorld(t, options{
		client: func(c *lab.Config) {
			c.More = append(c.More, "translate:\n"+rule("behind", 7000, behind.String())+rule("itself", 7001, itself.String())+
				rule("closed", 7002, fmt.Sprintf("%v:4001", testnet.ServerAddr)))
		},
		gateway: func(c *lab.Config) {
			c.Accept = []string{fmt.Sprintf("{peer: \"client*\", dst: [\"%v/32\"], ports: [\"4000\"], action: homa}", behind.Addr()),
				fmt.Sprintf("{peer: \"client*\", dst: [\"%v/32\"], ports: [\"4100\"], action: homa}", itself.Addr())}
			c.More = append(c.More, fmt.Sprintf("translate: [{name: own, from: {homa: \":4100\"}, to: {tcp: \"%v\"}, framing: {type: http1}}]", web))
		},
	})
	w.must(w.Nginx(w.ctx))
	w.start(w.Server, lab.Config{Name: "far", Identity: "{cert: gateway.crt, key: gateway.key, ca: ca.crt}", More: []string{
		fmt.Sprintf("translate: [{name: nginx, from: {homa: \":4000\"}, to: {tcp: \"%v\"}, framing: {type: http1}}]", web)}})
	want := w.file("page", content(1, 700_000))
	for _, port := range []uint16{7000, 7001} {
		for range 3 {
			w.curl("-o", w.Path("got"), fmt.Sprintf("http://%v/page", netip.AddrPortFrom(door, port)))
			if got := w.sumFile("got"); got != want {
				t.Errorf("port %d: got %s, want %s", port, got, want)
			}
		}
	}
	// What accept does not open is answered with an error of the protocol.
	out, err := w.app().Run(w.ctx, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", fmt.Sprintf("http://%v/page", netip.AddrPortFrom(door, 7002)))
	if err != nil || strings.TrimSpace(out) != "502" {
		t.Errorf("closed: %v, %q", err, out)
	}
}
