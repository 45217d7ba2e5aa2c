package gateway

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

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
