package policy

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func own(ss ...string) *Guard {
	var addrs []netip.Addr
	for _, s := range ss {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return NewGuard(func() ([]netip.Addr, error) { return addrs, nil })
}

func mustAccept(t testing.TB, g *Guard, rules ...Rule) *Table {
	t.Helper()
	table, err := NewAccept(rules, g)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestAcceptFirstMatchWins(t *testing.T) {
	table := mustAccept(t, own("10.0.0.1", "2001:db8::1"),
		Rule{Peer: "laptop-*", Dst: prefixes("10.9.0.0/16"), Action: Reject},
		Rule{Peer: "laptop-*", Dst: prefixes("10.0.0.0/8", "2001:db8::/32"), Ports: []Ports{{1, 1023}, {8080, 8080}}, Action: TCP},
		Rule{Peer: "edge-?", Dst: prefixes("10.1.0.5/32"), Ports: []Ports{{4000, 4000}}, Action: Homa},
		Rule{Peer: "admin", Action: TCP},
		Rule{Peer: "root", Dst: prefixes("10.0.0.1/32", "127.0.0.1/32", "::1/128", "169.254.169.254/32"), Action: TCP},
	)
	for _, c := range []struct {
		names  string
		dst    string
		action Action
		rule   int
		closed Class
	}{
		{"laptop-7", "10.8.0.1:80", TCP, 1, Open},
		{"LAPTOP-7", "10.8.0.1:80", TCP, 1, Open},
		{"other laptop-7", "10.8.0.1:80", TCP, 1, Open},
		{"laptop-7", "10.8.0.1:8080", TCP, 1, Open},
		{"laptop-7", "10.8.0.1:8081", Reject, -1, Open},
		{"laptop-7", "10.9.0.1:80", Reject, 0, Open},
		{"laptop-7", "[2001:db8::5]:80", TCP, 1, Open},
		{"laptop-7", "[2001:db9::5]:80", Reject, -1, Open},
		{"laptop-7", "[::ffff:10.8.0.1]:80", TCP, 1, Open},
		{"laptop-7", "[::ffff:10.9.0.1]:80", Reject, 0, Open},
		{"desktop-7", "10.8.0.1:80", Reject, -1, Open},
		{"", "10.8.0.1:80", Reject, -1, Open},
		{"edge-1", "10.1.0.5:4000", Homa, 2, Open},
		{"edge-12", "10.1.0.5:4000", Reject, -1, Open},
		{"edge-1", "10.1.0.6:4000", Reject, -1, Open},
		// Closed unless listed literally.
		{"laptop-7", "10.0.0.1:80", Reject, -1, Own},
		{"laptop-7", "[::ffff:10.0.0.1]:80", Reject, -1, Own},
		{"laptop-7", "[2001:db8::1]:80", Reject, -1, Own},
		{"admin", "8.8.8.8:53", TCP, 3, Open},
		{"admin", "127.0.0.1:22", Reject, -1, Loopback},
		{"admin", "127.9.9.9:22", Reject, -1, Loopback},
		{"admin", "[::1]:22", Reject, -1, Loopback},
		{"admin", "[::ffff:127.0.0.1]:22", Reject, -1, Loopback},
		{"admin", "0.0.0.0:22", Reject, -1, Unspecified},
		{"admin", "[::]:22", Reject, -1, Unspecified},
		{"admin", "169.254.169.254:80", Reject, -1, LinkLocal},
		{"admin", "[fe80::1%eth0]:80", Reject, -1, LinkLocal},
		{"admin", "[fd00:ec2::254]:80", Reject, -1, Metadata},
		{"admin", "100.100.100.200:80", Reject, -1, Metadata},
		{"admin", "100.100.100.201:80", TCP, 3, Open},
		{"admin", "224.0.0.1:80", Reject, -1, Multicast},
		{"admin", "255.255.255.255:80", Reject, -1, Multicast},
		{"admin", "[ff02::1]:80", Reject, -1, Multicast},
		{"root", "10.0.0.1:22", TCP, 4, Open},
		{"root", "127.0.0.1:22", TCP, 4, Open},
		{"root", "[::ffff:127.0.0.1]:22", TCP, 4, Open},
		{"root", "127.0.0.2:22", Reject, -1, Open},
		{"root", "[::1]:22", TCP, 4, Open},
		{"root", "169.254.169.254:80", TCP, 4, Open},
		// A wide rule before a literal one does not hide it.
		{"laptop-1 root", "10.0.0.1:80", TCP, 4, Open},
		{"admin root", "127.0.0.1:80", TCP, 4, Open},
		// IPv4 addresses inside others.
		{"admin", "[64:ff9b::127.0.0.1]:80", Reject, -1, Loopback},
		{"admin", "[64:ff9b::a9fe:a9fe]:80", Reject, -1, LinkLocal},
		{"admin", "[64:ff9b::10.0.0.1]:80", Reject, -1, Own},
		{"admin", "[64:ff9b::8.8.8.8]:80", TCP, 3, Open},
		{"admin", "[64:ff9b:1::127.0.0.1]:80", Reject, -1, Loopback},
		{"admin", "[64:ff9b:1:a9fe:a9:fe00::]:80", Reject, -1, LinkLocal},
		{"admin", "[2002:7f00:1::1]:80", Reject, -1, Loopback},
		{"admin", "[::127.0.0.1]:80", Reject, -1, Loopback},
		{"admin", "[::ffff:0:127.0.0.1]:80", Reject, -1, Loopback},
		{"root", "[64:ff9b::127.0.0.1]:80", Reject, -1, Open},
	} {
		v := table.Decide(strings.Fields(c.names), netip.MustParseAddrPort(c.dst))
		want := Verdict{Action: c.action, Rule: c.rule, Closed: c.closed}
		if v != want {
			t.Errorf("%q to %s: got %+v, want %+v", c.names, c.dst, v, want)
		}
	}
	if v := table.Decide([]string{"admin"}, netip.AddrPort{}); v.Action != Reject {
		t.Errorf("no address: got %v", v)
	}
}

func TestRejectMatchesClosedAddresses(t *testing.T) {
	table := mustAccept(t, own(),
		Rule{Peer: "*", Dst: prefixes("127.0.0.0/8"), Action: Reject},
		Rule{Peer: "*", Dst: prefixes("127.0.0.1/32"), Action: TCP},
	)
	if v := table.Decide([]string{"p"}, netip.MustParseAddrPort("127.0.0.1:80")); v.Action != Reject || v.Rule != 0 {
		t.Errorf("got %v", v)
	}
}

func TestMappedPrefixIsIPv4(t *testing.T) {
	table := mustAccept(t, own(),
		Rule{Peer: "*", Dst: prefixes("::ffff:10.0.0.0/104"), Action: TCP},
		Rule{Peer: "*", Dst: prefixes("::ffff:127.0.0.1/128"), Action: TCP},
		Rule{Peer: "six", Dst: prefixes("::/0"), Action: TCP},
	)
	for dst, want := range map[string]int{"10.1.2.3:1": 0, "11.0.0.1:1": -1, "127.0.0.1:1": 1, "[2001:db8::1]:1": 2, "8.8.8.8:1": -1} {
		if v := table.Decide([]string{"six"}, netip.MustParseAddrPort(dst)); v.Rule != want {
			t.Errorf("%s: got %v, want rule %d", dst, v, want)
		}
	}
}

func TestCapture(t *testing.T) {
	table, err := NewCapture([]Rule{
		{Dst: prefixes("192.0.2.0/24"), Action: Direct},
		{Ports: []Ports{{25, 25}}, Action: Reject},
		{Dst: prefixes("198.51.100.0/24", "127.0.0.0/8"), Action: Tunnel, Target: "edge"},
		{Dst: prefixes("2001:db8::/32"), Action: Tunnel, Target: "six"},
	}, Reject)
	if err != nil {
		t.Fatal(err)
	}
	for dst, want := range map[string]Verdict{
		"192.0.2.9:25":      {Action: Direct, Rule: 0},
		"198.51.100.9:25":   {Action: Reject, Rule: 1},
		"198.51.100.9:26":   {Action: Tunnel, Target: "edge", Rule: 2},
		"127.0.0.1:26":      {Action: Tunnel, Target: "edge", Rule: 2},
		"[2001:db8::1]:443": {Action: Tunnel, Target: "six", Rule: 3},
		"203.0.113.1:443":   {Action: Reject, Rule: -1},
	} {
		if v := table.Decide(nil, netip.MustParseAddrPort(dst)); v != want {
			t.Errorf("%s: got %+v, want %+v", dst, v, want)
		}
	}
}

func TestBadTables(t *testing.T) {
	g := own()
	for name, rules := range map[string][]Rule{
		"no peer":        {{Action: TCP}},
		"capture action": {{Peer: "*", Action: Tunnel, Target: "x"}},
		"zero prefix":    {{Peer: "*", Action: TCP, Dst: []netip.Prefix{{}}}},
		"port range":     {{Peer: "*", Action: TCP, Ports: []Ports{{2, 1}}}},
	} {
		if _, err := NewAccept(rules, g); err == nil {
			t.Errorf("accept, %s: no error", name)
		}
	}
	if _, err := NewAccept(nil, nil); err == nil {
		t.Error("accept without guard: no error")
	}
	for name, rules := range map[string][]Rule{
		"peer":          {{Peer: "*", Action: Direct}},
		"accept action": {{Action: TCP}},
		"no target":     {{Action: Tunnel}},
		"target":        {{Action: Direct, Target: "x"}},
	} {
		if _, err := NewCapture(rules, Reject); err == nil {
			t.Errorf("capture, %s: no error", name)
		}
	}
	if _, err := NewCapture(nil, Tunnel); err == nil {
		t.Error("capture falling back to tunnel: no error")
	}
}

func TestMatchName(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true}, {"*", "a.b", true}, {"a", "A", true}, {"a", "ab", false}, {"a?", "ab", true}, {"a?", "a", false},
		{"*b", "aab", true}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "axxbyy", false}, {"**", "x", true}, {"", "", true}, {"", "x", false},
		{"*.example.com", "example.com", false}, {"*.example.com", "a.b.example.com", true},
	} {
		if got := matchName(c.pattern, c.name); got != c.want {
			t.Errorf("matchName(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

// naiveMatch is matchName by its definition.
func naiveMatch(pattern, name string) bool {
	if pattern == "" {
		return name == ""
	}
	if pattern[0] == '*' {
		return naiveMatch(pattern[1:], name) || name != "" && naiveMatch(pattern, name[1:])
	}
	return name != "" && (pattern[0] == '?' || pattern[0] == lower(name[0])) && naiveMatch(pattern[1:], name[1:])
}

func TestMatchNameAgainstDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*?]{0,8}`).Draw(t, "pattern")
		name := rapid.StringMatching(`[abAB]{0,10}`).Draw(t, "name")
		if got, want := matchName(pattern, name), naiveMatch(pattern, name); got != want {
			t.Fatalf("matchName(%q, %q) = %v, want %v", pattern, name, got, want)
		}
	})
}

// naiveDecide is Decide for accept tables, written down from design.md: bits are
// compared one by one and nothing is remembered between rules.
func naiveDecide(rules []Rule, ownAddrs []netip.Addr, names []string, dst netip.AddrPort) (Action, int) {
	addr := dst.Addr()
	if addr.Is4In6() {
		b := addr.As16()
		addr = netip.AddrFrom4([4]byte(b[12:]))
	}
	closed := addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified()
	for _, o := range ownAddrs {
		closed = closed || o == addr
	}
	for i, r := range rules {
		covered, listed := len(r.Dst) == 0, false
		for _, p := range r.Dst {
			if p.Addr().BitLen() != addr.BitLen() {
				continue
			}
			pb, ab := p.Addr().AsSlice(), addr.AsSlice()
			same := true
			for bit := range p.Bits() {
				if (pb[bit/8]^ab[bit/8])>>(7-bit%8)&1 != 0 {
					same = false
				}
			}
			covered = covered || same
			listed = listed || same && p.Bits() == addr.BitLen()
		}
		port := len(r.Ports) == 0
		for _, p := range r.Ports {
			port = port || dst.Port() >= p.First && dst.Port() <= p.Last
		}
		peer := false
		for _, n := range names {
			peer = peer || naiveMatch(r.Peer, n)
		}
		if covered && port && peer && (r.Action == Reject || !closed || listed) {
			return r.Action, i
		}
	}
	return Reject, -1
}

func TestDecideAgainstDefinition(t *testing.T) {
	// Few addresses, so that rules and destinations meet.
	addr := rapid.Custom(func(t *rapid.T) netip.Addr {
		return netip.MustParseAddr(rapid.SampledFrom([]string{
			"10.0.0.1", "10.0.0.2", "10.0.1.1", "127.0.0.1", "127.0.0.2", "169.254.1.1", "224.0.0.1", "11.0.0.1",
			"2001:db8::1", "2001:db8::2", "2001:db9::1", "::1", "fe80::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:11.0.0.1",
		}).Draw(t, "addr"))
	})
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		a := addr.Draw(t, "base").Unmap()
		return netip.PrefixFrom(a, rapid.OneOf(rapid.Just(a.BitLen()), rapid.IntRange(0, a.BitLen())).Draw(t, "bits")).Masked()
	})
	port := rapid.Uint16Range(0, 5)
	rule := rapid.Custom(func(t *rapid.T) Rule {
		r := Rule{
			Peer:   rapid.StringMatching(`[ab*]{1,3}`).Draw(t, "peer"),
			Dst:    rapid.SliceOfN(prefix, 0, 3).Draw(t, "dst"),
			Action: rapid.SampledFrom([]Action{Reject, TCP, Homa}).Draw(t, "action"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "ranges") {
			a, b := port.Draw(t, "port"), port.Draw(t, "port")
			r.Ports = append(r.Ports, Ports{min(a, b), max(a, b)})
		}
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(rule, 0, 5).Draw(t, "rules")
		ownAddrs := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")}
		table, err := NewAccept(rules, NewGuard(func() ([]netip.Addr, error) { return ownAddrs, nil }))
		if err != nil {
			t.Fatal(err)
		}
		names := rapid.SliceOfN(rapid.StringMatching(`[ab]{0,3}`), 0, 2).Draw(t, "names")
		dst := netip.AddrPortFrom(addr.Draw(t, "to"), port.Draw(t, "to port"))
		v := table.Decide(names, dst)
		action, i := naiveDecide(rules, ownAddrs, names, dst)
		if v.Action != action || v.Rule != i {
			t.Fatalf("%v to %v: got %v (rule %d), want %v (rule %d)", names, dst, v.Action, v.Rule, action, i)
		}
	})
}

func TestDecideDoesNotAllocate(t *testing.T) {
	table := mustAccept(t, own("10.0.0.1"),
		Rule{Peer: "laptop-*", Dst: prefixes("10.0.0.0/8"), Action: TCP},
		Rule{Peer: "*", Dst: prefixes("0.0.0.0/0", "::/0"), Action: TCP})
	names := []string{"other", "laptop-9"}
	dst, closed := netip.MustParseAddrPort("10.1.1.1:80"), netip.MustParseAddrPort("[64:ff9b::127.0.0.1]:80")
	table.Decide(names, dst) // reads the list of addresses
	if n := testing.AllocsPerRun(100, func() {
		table.Decide(names, dst)
		table.Decide(names, closed)
	}); n > 0 {
		t.Errorf("%v allocations for two decisions", n)
	}
}

func TestVerdictString(t *testing.T) {
	for want, v := range map[string]Verdict{
		"tcp (rule 1)": {Action: TCP, Rule: 0},
		"reject (no rule matches; a loopback address has to be listed literally)": {Rule: -1, Closed: Loopback},
		"unknown (rule 3)": {Action: 99, Rule: 2},
	} {
		if got := v.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func FuzzDecide(f *testing.F) {
	table := mustAccept(f, own("10.0.0.1"),
		Rule{Peer: "a*", Dst: prefixes("10.0.0.0/8", "2001:db8::/32"), Action: TCP},
		Rule{Peer: "*", Action: TCP})
	f.Add("abc", []byte{10, 0, 0, 1}, uint16(80))
	f.Add("b", netip.MustParseAddr("64:ff9b::7f00:1").AsSlice(), uint16(0))
	f.Fuzz(func(t *testing.T, name string, b []byte, port uint16) {
		addr, _ := netip.AddrFromSlice(b)
		v := table.Decide([]string{name}, netip.AddrPortFrom(addr, port))
		if v.Action == TCP && (!addr.IsValid() || addr.Unmap().IsLoopback() || addr.Unmap() == netip.MustParseAddr("10.0.0.1")) {
			t.Fatalf("%q may reach %v", name, addr)
		}
	})
}
