package policy

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestGuardSeesNewAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list, asked := []netip.Addr{netip.MustParseAddr("10.0.0.1")}, 0
		var fail error
		g := NewGuard(func() ([]netip.Addr, error) { asked++; return list, fail })
		first, second := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		want := func(a netip.Addr, want Class) {
			t.Helper()
			if got := g.Class(a); got != want {
				t.Errorf("%v: %v, want %v", a, got, want)
			}
		}
		want(first, Own)
		want(second, Open)
		list = append(list, netip.MustParseAddr("::ffff:10.0.0.2"))
		want(second, Open)
		if asked != 1 {
			t.Errorf("the list was read %d times within a second", asked)
		}
		time.Sleep(ownFor)
		want(second, Own)
		list, fail = nil, errors.New("no list")
		time.Sleep(ownFor)
		want(second, Own) // the last answer holds
		want(netip.MustParseAddr("10.0.0.3"), Open)
		fail = nil
		time.Sleep(ownFor)
		want(second, Open)
	})
}

func TestGuardWithoutListIsClosed(t *testing.T) {
	g := NewGuard(func() ([]netip.Addr, error) { return nil, errors.New("no list") })
	if got := g.Class(netip.MustParseAddr("8.8.8.8")); got != Own {
		t.Errorf("got %v", got)
	}
}

func TestGuardOfThisHost(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	g := NewGuard(nil)
	for _, a := range addrs {
		addr, _ := netip.AddrFromSlice(a.(*net.IPNet).IP)
		if got := g.Class(addr); got == Open {
			t.Errorf("%v is %v", addr, got)
		}
	}
	if got := g.Class(netip.MustParseAddr("192.0.2.77")); got != Open {
		t.Errorf("192.0.2.77 is %v", got)
	}
}

func TestNames(t *testing.T) {
	for a := Action(0); a <= numActions; a++ {
		if (a.String() == "unknown") != (a == numActions) {
			t.Errorf("action %d is %q", a, a)
		}
	}
	for c := Class(0); c <= numClasses; c++ {
		if (c.String() == "unknown") != (c == numClasses) {
			t.Errorf("class %d is %q", c, c)
		}
	}
}
