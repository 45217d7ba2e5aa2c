package tun

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tougw/tougw/internal/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// via gives the device by which the kernel routes packets with the mark to a.
func via(t *testing.T, a string, mark uint32) string {
	t.Helper()
	rs, err := netlink.RouteGetWithOptions(netip.MustParseAddr(a).AsSlice(), &netlink.RouteGetOptions{Mark: mark})
	if err != nil {
		return err.Error()
	}
	l, err := netlink.LinkByIndex(rs[0].LinkIndex)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Name
}

// routed checks the ways of unmarked and of marked packets.
func routed(t *testing.T, want map[string]string) {
	t.Helper()
	for a, dev := range want {
		if got := via(t, a, 0); got != dev {
			t.Errorf("%s goes by %s, want %s", a, got, dev)
		}
		if got := via(t, a, DefaultMark); got == "tou0" {
			t.Errorf("%s with our mark enters the device", a)
		}
	}
}

func TestRoutes(t *testing.T) {
	for _, c := range []struct {
		name   string
		routes []netip.Prefix
		want   map[string]string
	}{
		{"one prefix", prefixes("198.51.100.0/24"), map[string]string{
			"198.51.100.9": "tou0", "198.51.101.9": "up0", "192.0.2.9": "up0", "127.0.0.1": "lo", "2001:db8:2::1": "up0",
		}},
		{"IPv6 prefix with bits beyond its length", prefixes("2001:db8:2::99/48"), map[string]string{
			"2001:db8:2::1": "tou0", "2001:db8:3::1": "up0", "198.51.100.9": "up0",
		}},
		{"default", DefaultRoutes(), map[string]string{
			"198.51.100.9": "tou0", "2001:db8:2::1": "tou0", "192.0.2.9": "up0", "2001:db8:1::9": "up0", "192.0.2.2": "lo", "::1": "lo",
		}},
		// What is longer wins, be it ours or the host's; equals are ours.
		{"longest prefix", prefixes("0.0.0.0/0", "203.0.0.0/8", "203.0.113.128/25", "192.0.2.0/24", "192.0.2.2/32", "203.0.113.9/32"), map[string]string{
			"198.51.100.9": "tou0", "203.0.1.1": "up0", "203.1.1.1": "tou0", "203.0.113.1": "up0", "203.0.113.200": "tou0",
			"203.0.113.9": "tou0", "192.0.2.9": "tou0", "192.0.2.2": "lo",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			namespace(t)
			uplink(t)
			up, err := netlink.LinkByName("up0")
			if err == nil {
				err = netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("203.0.0.0/16"))})
			}
			if err != nil {
				t.Fatal(err)
			}
			before, dir := hostState(t), t.TempDir()
			d := open(t, Config{Name: "tou0", RunDir: dir, Addresses: prefixes("10.77.0.7/32"), Routes: c.routes})
			routed(t, c.want)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			sameState(t, before)
			emptyDir(t, dir)
		})
	}
}

// TestMarkKeepsOut sends real packets of marked and unmarked sockets under a
// captured default route.
func TestMarkKeepsOut(t *testing.T) {
	namespace(t)
	up := uplink(t)
	d := open(t, Config{Name: "tou0", Mark: 0x77, Queues: 1, Routes: DefaultRoutes(), Addresses: prefixes("10.77.0.7/32", "fd77::7/128")})
	for _, c := range []struct{ src, dst netip.AddrPort }{
		{netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("203.0.113.7:443")},
		{netip.MustParseAddrPort("[::]:0"), netip.MustParseAddrPort("[2001:db8:9::7]:443")},
	} {
		plain, marked := socket(t, unix.SOCK_DGRAM, c.src, 0), socket(t, unix.SOCK_DGRAM, c.src, 0x77)
		send(t, plain, "app", c.dst)
		send(t, marked, "carrier", c.dst)
		for dev, want := range map[Device]string{d: "app", up: "carrier"} {
			p := readUntil(t, dev, to(c.dst))
			if _, l4 := transport(t, p.Buf[:p.N]); string(l4[8:]) != want {
				t.Errorf("%s reads %q, want %q", dev.Name(), l4[8:], want)
			}
		}
	}
}

// strict makes the uplink filter by reverse path as strictly as it can.
func strict(t *testing.T) {
	t.Helper()
	for path, v := range map[string]string{rpFilterAll: "0", "ipv4/conf/up0/rp_filter": "1", "ipv4/conf/default/rp_filter": "1"} {
		if err := writeSysctl(path, v); err != nil {
			t.Skipf("sysctls cannot be set here: %v", err)
		}
	}
}

// TestStrictReversePath runs a conversation of a marked socket with a peer
// whose address is captured, on a host with rp_filter = 1.
func TestStrictReversePath(t *testing.T) {
	for _, c := range []struct {
		name      string
		routes    []netip.Prefix
		endpoints []netip.Addr
		loosened  bool
	}{
		{"default", DefaultRoutes(), nil, true},
		{"endpoint captured", prefixes("203.0.113.0/24"), []netip.Addr{netip.MustParseAddr("203.0.113.7")}, true},
		{"endpoint not captured", prefixes("198.51.100.0/24"), []netip.Addr{netip.MustParseAddr("203.0.113.7")}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			namespace(t)
			up := uplink(t)
			strict(t)
			before := hostState(t)
			d := open(t, Config{Name: "tou0", Routes: c.routes, Endpoints: c.endpoints, Addresses: prefixes("10.77.0.7/32")})
			if v, err := readSysctl(rpFilterAll); (v == "2") != c.loosened {
				t.Errorf("rp_filter is %s, %v", v, err)
			}
			peer := netip.MustParseAddrPort("203.0.113.7:443")
			fd := socket(t, unix.SOCK_DGRAM, netip.MustParseAddrPort("192.0.2.2:0"), DefaultMark)
			send(t, fd, "hello", peer)
			p := readUntil(t, up, to(peer))
			tu, _ := transport(t, p.Buf[:p.N])
			write(t, up, udp(peer, tu.Src, []byte("answer"), false), packet.Offload{})
			if got := recv(t, fd); got != "answer" {
				t.Errorf("received %q", got)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			sameState(t, before)
		})
	}
}

// TestChangedSysctlStays: what somebody set while we ran is not overwritten.
func TestChangedSysctlStays(t *testing.T) {
	namespace(t)
	uplink(t)
	strict(t)
	d := open(t, Config{Name: "tou0", Routes: DefaultRoutes()})
	if v, err := readSysctl(rpFilterAll); v != "2" || err != nil {
		t.Fatalf("rp_filter is %s, %v", v, err)
	}
	if err := writeSysctl(rpFilterAll, "1"); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err := readSysctl(rpFilterAll); v != "1" || err != nil {
		t.Errorf("rp_filter is %s, %v", v, err)
	}
}

// TestAnySourceFromDevice: what the device delivers may come from addresses
// that the host reaches elsewhere, whatever the filter of new devices.
func TestAnySourceFromDevice(t *testing.T) {
	namespace(t)
	uplink(t)
	strict(t)
	d := open(t, Config{Name: "tou0", Addresses: prefixes("10.77.0.7/32", "fd77::7/128"), Routes: prefixes("198.51.100.0/24")})
	for _, c := range []struct{ local, src netip.AddrPort }{
		{netip.MustParseAddrPort("10.77.0.7:0"), netip.MustParseAddrPort("192.0.2.50:7")},
		{netip.MustParseAddrPort("[fd77::7]:0"), netip.MustParseAddrPort("[2001:db8:1::50]:7")},
	} {
		fd := socket(t, unix.SOCK_DGRAM, c.local, 0)
		write(t, d, udp(c.src, netip.AddrPortFrom(c.local.Addr(), localPort(t, fd)), []byte("in"), false), packet.Offload{})
		if got := recv(t, fd); got != "in" {
			t.Errorf("received %q", got)
		}
	}
}

func TestDeviceProperties(t *testing.T) {
	for _, b := range backends {
		namespace(t)
		d := open(t, captureAll(t.TempDir(), b))
		link, err := netlink.LinkByName("tou0")
		if err != nil {
			t.Fatal(err)
		}
		if a := link.Attrs(); a.MTU != d.MTU() || a.Flags&net.FlagUp == 0 || d.Name() != "tou0" {
			t.Errorf("%s has MTU %d and flags %v, device says %d", d.Name(), a.MTU, a.Flags, d.MTU())
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != "10.77.0.7/32" {
			t.Errorf("addresses %v, %v", addrs, err)
		}
		// A child that inherits a queue would keep the device alive.
		for _, f := range d.(*device).opened.files {
			if err := control(f, func(fd int) error {
				flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
				if flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("%s: a queue is inherited by children", b)
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestNameTakenMeanwhile: the device of somebody who was faster after we had
// looked is not joined as one more queue.
func TestNameTakenMeanwhile(t *testing.T) {
	namespace(t)
	persistent(t, "tou0")
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	c := captureAll(t.TempDir(), BackendNetlink)
	c.Queues = 2
	if o, err := openNetlink(h, c); err == nil {
		t.Error("joined it", o.close())
	}
}

func TestNothingLeaks(t *testing.T) {
	namespace(t)
	descriptors := func() int {
		es, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(es)
	}
	dir, before := t.TempDir(), 0
	for i := range 10 {
		d := open(t, captureAll(dir, backends[i%2]))
		bad := captureAll(dir, backends[i%2])
		bad.Name, bad.Endpoints = "tou1", []netip.Addr{bad.Addresses[0].Addr()}
		if _, err := Open(bad); err == nil {
			t.Fatal("a loop was accepted")
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if n := descriptors(); i == 1 {
			before = n
		} else if i > 1 && n != before {
			t.Fatalf("%d descriptors after %d rounds, %d after two", n, i+1, before)
		}
	}
}

func TestLoopIsRefused(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		name     string
		cfg      Config
		endpoint string
		route    string
	}{
		{
			name:     "network of the device's address",
			cfg:      Config{Addresses: prefixes("203.0.113.1/24"), Endpoints: []netip.Addr{addr("198.51.100.1"), addr("203.0.113.7")}},
			endpoint: "203.0.113.7", route: "route 203.0.113.0/24 of table main",
		},
		{
			name:     "IPv6",
			cfg:      Config{Addresses: prefixes("2001:db8:9::1/64"), Routes: DefaultRoutes(), Endpoints: []netip.Addr{addr("2001:db8:9::7")}},
			endpoint: "2001:db8:9::7", route: "route 2001:db8:9::/64 of table main",
		},
		{
			name:     "own address",
			cfg:      Config{Addresses: prefixes("203.0.113.7/32"), Endpoints: []netip.Addr{addr("::ffff:203.0.113.7")}},
			endpoint: "203.0.113.7", route: "its own address 203.0.113.7/32",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			namespace(t)
			uplink(t)
			before, dir := hostState(t), t.TempDir()
			c.cfg.Name, c.cfg.RunDir = "tou0", dir
			_, err := Open(c.cfg)
			loop, ok := errors.AsType[*LoopError](err)
			if !ok || loop.Device != "tou0" || loop.Endpoint != addr(c.endpoint) || loop.Route != c.route {
				t.Fatalf("error is %v", err)
			}
			if msg := err.Error(); !strings.Contains(msg, c.endpoint) || !strings.Contains(msg, c.route) {
				t.Errorf("message %q does not name endpoint and route", msg)
			}
			sameState(t, before)
			emptyDir(t, dir)
		})
	}
}

// TestCheckLoopWithoutMark: the rule lost its exception for our packets.
func TestCheckLoopWithoutMark(t *testing.T) {
	namespace(t)
	uplink(t)
	d := open(t, Config{Name: "tou0", Routes: DefaultRoutes()})
	r := rule{Priority: firstPriority + 1, Table: firstPriority + 1, Suppress: -1}
	if err := netlink.RuleAdd(netlinkRule(r)); err != nil {
		t.Fatal(err)
	}
	err := d.CheckLoop([]netip.Addr{netip.MustParseAddr("203.0.113.7")})
	if loop, ok := errors.AsType[*LoopError](err); !ok || loop.Route != "route 0.0.0.0/0 of table 10001" {
		t.Errorf("error is %v", err)
	}
	if err := netlink.RuleDel(netlinkRule(r)); err != nil {
		t.Fatal(err)
	}
}

// TestCheckLoopLater: a route that comes after Open.
func TestCheckLoopLater(t *testing.T) {
	namespace(t)
	uplink(t)
	d := open(t, Config{Name: "tou0", Routes: DefaultRoutes()})
	endpoints := []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8:9::7")}
	if err := d.CheckLoop(endpoints); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("tou0")
	if err == nil {
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("2001:db8:9::/48"))})
	}
	if err != nil {
		t.Fatal(err)
	}
	err = d.CheckLoop(endpoints)
	if loop, ok := errors.AsType[*LoopError](err); !ok || loop.Endpoint != endpoints[1] {
		t.Errorf("error is %v", err)
	}
	// No route at all is no loop.
	up, err := netlink.LinkByName("up0")
	if err == nil {
		err = netlink.LinkSetDown(up)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := d.CheckLoop(endpoints[:1]); err != nil {
		t.Error(err)
	}
}

func TestKilledRunIsCleanedUp(t *testing.T) {
	for _, b := range backends {
		t.Run(string(b), func(t *testing.T) {
			namespace(t)
			uplink(t)
			strict(t)
			before, dir := hostState(t), t.TempDir()
			cmd := startHelper(t, dir, b)
			routed(t, map[string]string{"203.0.113.7": "tou0", "2001:db8:9::7": "tou0", "192.0.2.9": "up0"})

			// A second live run is refused and disturbs nothing.
			_, err := Open(captureAll(dir, b))
			isErr(t, err, unix.EBUSY)
			if want := "in use by process "; !strings.Contains(err.Error(), want) {
				t.Errorf("message %q lacks %q", err, want)
			}
			routed(t, map[string]string{"203.0.113.7": "tou0", "192.0.2.9": "up0"})

			kill(t, cmd)
			rules, err := netlink.RuleList(netlink.FAMILY_ALL)
			if err != nil || len(rules) <= 5 {
				t.Fatalf("the killed run left nothing: %d rules, %v", len(rules), err)
			}
			if fi, err := os.Stat(journalOf(t, dir)); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("journal: %v, %v", fi, err)
			}

			// The next run, with another configuration, starts from the state before.
			d := open(t, Config{Name: "tou0", Backend: b, RunDir: dir, Routes: prefixes("198.51.100.0/24")})
			routed(t, map[string]string{"203.0.113.7": "up0", "198.51.100.7": "tou0"})
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			sameState(t, before)
			emptyDir(t, dir)
		})
	}
}

// journalOf gives the only journal in dir.
func journalOf(t *testing.T, dir string) string {
	t.Helper()
	m, err := filepath.Glob(dir + "/*.journal")
	if err != nil || len(m) != 1 {
		t.Fatalf("journals: %v, %v", m, err)
	}
	return m[0]
}

// TestSurvivingDevice: a device that outlived its run is removed by its alias,
// and only by it.
func TestSurvivingDevice(t *testing.T) {
	for _, ours := range []bool{true, false} {
		namespace(t)
		before, dir := hostState(t), t.TempDir()
		cmd := startHelper(t, dir, BackendNetlink)
		link, err := netlink.LinkByName("tou0")
		if err != nil {
			t.Fatal(err)
		}
		alias := link.Attrs().Alias
		if !strings.HasPrefix(alias, "tougw tou0 ") {
			t.Fatalf("alias %q", alias)
		}
		kill(t, cmd)
		stray := persistent(t, "tou0")
		if ours {
			if err := netlink.LinkSetAlias(stray, alias); err != nil {
				t.Fatal(err)
			}
		}
		d, err := Open(captureAll(dir, BackendAuto))
		if ours {
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			isErr(t, err, unix.EEXIST)
			if err := netlink.LinkDel(stray); err != nil {
				t.Fatalf("the foreign device is gone: %v", err)
			}
		}
		sameState(t, before)
		emptyDir(t, dir)
	}
}

// persistent makes a TUN device as somebody else might.
func persistent(t *testing.T, name string) netlink.Link {
	t.Helper()
	l := &netlink.Tuntap{LinkAttrs: netlink.NewLinkAttrs(), Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS | netlink.TUNTAP_VNET_HDR}
	l.Name = name
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestForeignDeviceIsRefused(t *testing.T) {
	for _, b := range []Backend{BackendNetlink, BackendWater, BackendAuto} {
		namespace(t)
		persistent(t, "tou0")
		before, dir := hostState(t), t.TempDir()
		_, err := Open(captureAll(dir, b))
		isErr(t, err, unix.EEXIST)
		if !strings.Contains(err.Error(), "tou0") {
			t.Errorf("message %q does not name the device", err)
		}
		sameState(t, before)
		emptyDir(t, dir)
	}
}

func TestDoubleOpenInOneProcess(t *testing.T) {
	namespace(t)
	dir := t.TempDir()
	d := open(t, captureAll(dir, BackendAuto))
	before := hostState(t)
	_, err := Open(captureAll(dir, BackendAuto))
	isErr(t, err, unix.EBUSY)
	sameState(t, before)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, captureAll(dir, BackendAuto))
}

// TestTwoDevices: each has its own rules and tables, in any order of closing.
func TestTwoDevices(t *testing.T) {
	namespace(t)
	uplink(t)
	before, dir := hostState(t), t.TempDir()
	one := open(t, Config{Name: "tou0", RunDir: dir, Routes: prefixes("198.51.100.0/24")})
	two := open(t, Config{Name: "tou1", RunDir: dir, Routes: prefixes("203.0.113.0/24")})
	routed(t, map[string]string{"198.51.100.1": "tou0", "203.0.113.1": "tou1"})
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	routed(t, map[string]string{"198.51.100.1": "up0", "203.0.113.1": "tou1"})
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	sameState(t, before)
	emptyDir(t, dir)
}

// TestSameNameInTwoNamespaces share a folder.
func TestSameNameInTwoNamespaces(t *testing.T) {
	dir := t.TempDir()
	namespace(t)
	one := open(t, captureAll(dir, BackendAuto))
	namespace(t)
	open(t, captureAll(dir, BackendAuto))
	// Closed from the other namespace's thread: it stays where it was made.
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	routed(t, map[string]string{"203.0.113.7": "tou0"})
}

func TestHostWithoutIPv6(t *testing.T) {
	namespace(t)
	if err := writeSysctl("ipv6/conf/all/disable_ipv6", "1"); err != nil {
		t.Skipf("sysctls cannot be set here: %v", err)
	}
	before, dir := hostState(t), t.TempDir()
	for _, c := range []Config{
		{Addresses: prefixes("fd77::7/128")},
		{Routes: prefixes("2001:db8::/32")},
	} {
		c.Name, c.RunDir = "tou0", dir
		if _, err := Open(c); err == nil || !strings.Contains(err.Error(), "no IPv6") {
			t.Errorf("error is %v", err)
		}
	}
	d := open(t, captureAll(dir, BackendAuto))
	if got := via(t, "203.0.113.7", 0); got != "tou0" {
		t.Errorf("IPv4 goes by %s", got)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	sameState(t, before)
}

func TestIPv6NeedsItsMTU(t *testing.T) {
	namespace(t)
	before, dir := hostState(t), t.TempDir()
	c := captureAll(dir, BackendAuto)
	c.MTU = 1279
	if _, err := Open(c); err == nil || !strings.Contains(err.Error(), "1280") {
		t.Errorf("error is %v", err)
	}
	sameState(t, before)
	c.Routes, c.MTU = prefixes("198.51.100.0/24"), 576
	d := open(t, c)
	link, err := netlink.LinkByName("tou0")
	if err != nil || link.Attrs().MTU != 576 || d.MTU() != 576 {
		t.Errorf("MTU is %d and %d, %v", link.Attrs().MTU, d.MTU(), err)
	}
}
