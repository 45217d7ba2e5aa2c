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
		time.Sleep(foreignLife)
		if a.Foreign(4000) || !b.Foreign(4000) || b.Foreign(4001) {
			t.Error("foreign to its owner, or not to the other")
		}
		release()
		time.Sleep(foreignLife)
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

func TestForeignPortsAreBounded(t *testing.T) {
	a, _ := claimants(t)
	for port := range uint16(maxForeign + 10) {
		a.Foreign(port)
	}
	if n := len(a.ports.asked); n > maxForeign {
		t.Errorf("%d ports remembered", n)
	}
}
