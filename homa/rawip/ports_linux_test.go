package rawip

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/tougw/tougw/homa/carrier"
)

// claimants are two processes on one host, as far as claims go. The scope is this
// test's own.
func claimants(t *testing.T, local ...netip.Addr) (a, b *Conn) {
	t.Helper()
	a, b = &Conn{ports: newPorts(200, local)}, &Conn{ports: newPorts(200, local)}
	for _, c := range []*Conn{a, b} {
		for i := range c.ports.scopes {
			c.ports.scopes[i] += fmt.Sprintf("/%s/%d", t.Name(), time.Now().UnixNano()/int64(time.Hour))
		}
		t.Cleanup(c.ports.close)
	}
	return a, b
}

func TestPortsAreClaimed(t *testing.T) {
	for _, local := range [][]netip.Addr{nil, {netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}} {
		a, b := claimants(t, local...)
		if a.Foreign(4000) || b.Foreign(4000) {
			t.Error("foreign before it is claimed")
		}
		release, err := a.Claim(4000)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Claim(4000); !errors.Is(err, carrier.ErrClaimed) {
			t.Errorf("claimed twice: %v", err)
		}
		if _, err := a.Claim(4000); !errors.Is(err, carrier.ErrClaimed) {
			t.Errorf("claimed twice by one: %v", err)
		}
		if a.Foreign(4000) || !b.Foreign(4000) || b.Foreign(4001) {
			t.Error("foreign to its owner, or not to the other")
		}
		release()
		if b.Foreign(4000) {
			t.Error("foreign after its release")
		}
		if release, err = b.Claim(4000); err != nil {
			t.Error(err)
		} else {
			release()
		}
	}
}

// TestForeignPortsAreAsked: what was said of a port before does not hide a server that
// has begun since, nor one that has ended, on any port.
func TestForeignPortsAreAsked(t *testing.T) {
	a, b := claimants(t)
	for port := range uint16(50) {
		for range 3 {
			if a.Foreign(4000 + port) {
				t.Fatal("foreign before it is claimed")
			}
			release, err := b.Claim(4000 + port)
			if err != nil {
				t.Fatal(err)
			}
			if !a.Foreign(4000 + port) {
				t.Fatal("not foreign though it is claimed")
			}
			release()
		}
	}
}
