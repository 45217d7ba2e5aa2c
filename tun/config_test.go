package tun

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestConfigRefusals(t *testing.T) {
	for want, c := range map[string]Config{
		`"" does not have 1 to 15 bytes`:                 {},
		`"sixteen-bytes-xx" does not have 1 to 15 bytes`: {Name: "sixteen-bytes-xx"},
		`"tun%d" has a character that is not allowed`:    {Name: "tun%d"},
		`"../x" has a character that is not allowed`:     {Name: "../x"},
		`"a b" has a character that is not allowed`:      {Name: "a b"},
		`"tün" has a character that is not allowed`:      {Name: "tün"},
		`".." is reserved`:                               {Name: ".."},
		`"all" is reserved`:                              {Name: "all"},
		`unknown backend "tap"`:                          {Name: "tou0", Backend: "tap"},
		`MTU 575 is outside 576 to 65535`:                {Name: "tou0", MTU: 575},
		`MTU 65536 is outside 576 to 65535`:              {Name: "tou0", MTU: 65536},
		`-1 queues are outside 0 to 64`:                  {Name: "tou0", Queues: -1},
		`65 queues are outside 0 to 64`:                  {Name: "tou0", Queues: 65},
		`4097 routes are more than 4096`:                 {Name: "tou0", Routes: make([]netip.Prefix, 4097)},
		`invalid Prefix is not an IPv4 or IPv6 prefix`:   {Name: "tou0", Routes: make([]netip.Prefix, 1)},
		`::ffff:10.0.0.0/104 is not an IPv4 or IPv6`:     {Name: "tou0", Routes: prefixes("::ffff:10.0.0.0/104")},
		`fd00::1/64 needs an MTU of 1280 or more`:        {Name: "tou0", MTU: 1279, Addresses: prefixes("fd00::1/64")},
		`an endpoint has no address`:                     {Name: "tou0", Endpoints: make([]netip.Addr, 1)},
	} {
		c.RunDir = t.TempDir()
		_, err := Open(c)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
		emptyDir(t, c.RunDir)
	}
}

func TestConfigDefaults(t *testing.T) {
	in := Config{Name: "tou0", Routes: prefixes("10.1.2.3/8", "2001:db8::/32", "10.0.0.0/8", "192.0.2.0/24")}
	c, err := in.complete()
	if err != nil {
		t.Fatal(err)
	}
	if c.Backend != BackendAuto || c.Mark != DefaultMark || c.RunDir != DefaultRunDir || c.Queues < 1 || c.Queues > defaultQueues || c.Logger == nil {
		t.Errorf("defaults %+v", c)
	}
	if want := prefixes("10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"); !slices.Equal(c.Routes, want) {
		t.Errorf("routes %v, want %v", c.Routes, want)
	}
	if in.Routes[0] != netip.MustParsePrefix("10.1.2.3/8") {
		t.Error("the caller's routes were changed")
	}
}

func TestBackendChoice(t *testing.T) {
	fail := func(err error) backend { return func(*netlink.Handle, Config) (*opened, error) { return nil, err } }
	works := func(b Backend) backend {
		return func(*netlink.Handle, Config) (*opened, error) { return &opened{caps: Capabilities{Backend: b}}, nil }
	}
	noVnet, noDevice := errors.New("tun: netlink backend: the TUN driver has no IFF_VNET_HDR"), unix.ENODEV
	for _, c := range []struct {
		name         string
		ask, want    Backend
		viaNetlink   backend
		fallback     string
		waterMissing bool
		err          error
	}{
		{name: "auto", ask: BackendAuto, want: BackendNetlink, viaNetlink: works(BackendNetlink)},
		{name: "fallback", ask: BackendAuto, want: BackendWater, viaNetlink: fail(noVnet), fallback: "netlink backend: the TUN driver has no IFF_VNET_HDR"},
		{name: "neither", ask: BackendAuto, viaNetlink: fail(noVnet), waterMissing: true, err: noDevice},
		{name: "netlink only", ask: BackendNetlink, viaNetlink: fail(noVnet), err: noVnet},
		{name: "water", ask: BackendWater, want: BackendWater, viaNetlink: works(BackendNetlink)},
	} {
		viaWater := works(BackendWater)
		if c.waterMissing {
			viaWater = fail(noDevice)
		}
		o, err := openBackend(nil, Config{Backend: c.ask}, c.viaNetlink, viaWater)
		if !errors.Is(err, c.err) || err == nil && (o.caps != Capabilities{Backend: c.want, Fallback: c.fallback}) {
			t.Errorf("%s: %+v, %v", c.name, o, err)
		}
	}
}
