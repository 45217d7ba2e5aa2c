package gateway

import (
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/tougw/tougw/config"
	"github.com/tougw/tougw/internal/udp"
)

// TestListeningTwiceIsRefused: also when both would share the address.
func TestListeningTwiceIsRefused(t *testing.T) {
	group, err := udp.ListenGroup(udp.Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")}, 2)
	if err != nil {
		t.Fatal(err)
	}
	addr := group[0].LocalAddr()
	if err := free(addr); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("an address that a group shares: %v", err)
	}
	for _, c := range group {
		c.Close()
	}
	if err := free(addr); err != nil {
		t.Errorf("an address that was given up: %v", err)
	}
}

// TestListenersAreSteered: by Connection ID, where the kernel can, and status says
// so, or why not.
func TestListenersAreSteered(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	probe, err := udp.Listen(udp.Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	addr := probe.LocalAddr()
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	g := &Gateway{cfg: &config.Config{Listen: []netip.AddrPort{addr}}}
	socks, err := g.openListeners()
	if err != nil {
		t.Fatal(err)
	}
	defer closeAllSockets(socks)
	status := g.socketStatus()
	if len(status) != 3 || len(socks) != 3 {
		t.Fatalf("%d sockets, %d in status", len(socks), len(status))
	}
	for i, s := range status {
		k := socks[i].(capabilities).Capabilities()
		if s.Role != "listen" || s.Address != addr.String() || s.Steering != k.Steering {
			t.Errorf("%+v", s)
		}
		if s.Steering == strings.Contains(s.Fallback, "not steered") {
			t.Errorf("steering %v, but %q", s.Steering, s.Fallback)
		}
		if n := socks[i].(*udp.Conn).Number(); n != i {
			t.Errorf("socket %d has number %d", i, n)
		}
	}
}
