package config

import (
	"net/netip"
	"strings"
	"testing"
)

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"laptop-7", "laptop-7", true},
		{"laptop-7", "laptop-70", false},
		{"laptop-7", "alaptop-7", false},
		{"laptop-*", "laptop-", true},
		{"laptop-*", "laptop-7.example.com", true},
		{"laptop-*", "laptop", false},
		{"*", "a", true},
		{"*", "", false},
		{"**", "a", true},
		{"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false},
		{"a*b*c", "aXbYbZc", true},
		{"a*b*c", "aXcYb", false},
		{"edge-?", "edge-1", true},
		{"edge-?", "edge-", false},
		{"edge-?", "edge-12", false},
		{"?*", "a", true},
		{"*?", "", false},
		{"Laptop-*", "LAPTOP-7", true},
		{"a*a*a*a*a*a*a*a*b", strings.Repeat("a", 253), false},
	} {
		if got := pattern(t, c.pattern).Match(c.name); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.name, got)
		}
	}
	if (Pattern{}).Match("a") || (Pattern{}).Match("") {
		t.Error("the zero pattern matches")
	}
	for _, s := range []string{"", "a b", "a/b", "[a]", "é", strings.Repeat("a", 254)} {
		if p, err := ParsePattern(s); err == nil {
			t.Errorf("%q is the pattern %v", s, p)
		}
	}
}

func TestPortRange(t *testing.T) {
	for s, want := range map[string]PortRange{
		"1":       {1, 1},
		"65535":   {65535, 65535},
		"1-65535": {1, 65535},
		"80-80":   {80, 80},
	} {
		got, err := ParsePortRange(s)
		if err != nil || got != want {
			t.Errorf("%q is %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-", "0", "65536", "1-", "-1", "2-1", "1-2-3", "+1", " 1", "0x50", "1.0"} {
		if got, err := ParsePortRange(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
	r := PortRange{80, 90}
	if !r.Contains(80) || !r.Contains(90) || r.Contains(79) || r.Contains(91) {
		t.Error("the ends of a range are wrong")
	}
	if s := r.String() + " " + (PortRange{7, 7}).String(); s != "80-90 7" {
		t.Errorf("ranges print as %s", s)
	}
}

func TestRuleMatch(t *testing.T) {
	all := Rule{}
	web := Rule{Dst: prefixes("192.0.2.0/24", "2001:db8::/32"), Ports: []PortRange{{80, 90}, {443, 443}}}
	for _, c := range []struct {
		dst  string
		want bool
	}{
		{"192.0.2.1:80", true},
		{"192.0.2.1:443", true},
		{"192.0.2.1:91", false},
		{"192.0.3.1:80", false},
		{"[2001:db8::1]:80", true},
		{"[2001:db9::1]:80", false},
		{"[::ffff:192.0.2.1]:80", true},
		{"[2001:db8::1%eth0]:80", true},
	} {
		dst := netip.MustParseAddrPort(c.dst)
		if got := web.Match(dst); got != c.want {
			t.Errorf("%s: %v", c.dst, got)
		}
		if !all.Match(dst) {
			t.Errorf("%s is not in all", c.dst)
		}
	}
}

func TestAcceptMatch(t *testing.T) {
	a := Accept{Peer: pattern(t, "laptop-*"), Dst: prefixes("10.0.0.0/8", "127.0.0.1/32"), Ports: []PortRange{{80, 80}}}
	for _, c := range []struct {
		names string
		dst   string
		want  bool
	}{
		{"laptop-7", "10.1.2.3:80", true},
		{"laptop-7", "[::ffff:10.1.2.3]:80", true},
		{"laptop-7", "10.1.2.3:81", false},
		{"laptop-7", "11.1.2.3:80", false},
		{"edge", "10.1.2.3:80", false},
		{"edge laptop-7", "10.1.2.3:80", true},
		{"", "10.1.2.3:80", false},
	} {
		if got := a.Match(strings.Fields(c.names), netip.MustParseAddrPort(c.dst)); got != c.want {
			t.Errorf("%q to %s: %v", c.names, c.dst, got)
		}
	}
	for addr, want := range map[string]bool{"127.0.0.1": true, "::ffff:127.0.0.1": true, "10.0.0.0": false, "10.1.2.3": false} {
		if got := a.Literal(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Literal(%s) is %v", addr, got)
		}
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	a := Accept{Peer: pattern(t, "laptop-*"), Dst: prefixes("10.0.0.0/8")}
	names := []string{"laptop-7"}
	dst := netip.MustParseAddrPort("[::ffff:10.1.2.3]:80")
	if n := testing.AllocsPerRun(100, func() { a.Match(names, dst) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"peers", "peer", "rules", "ca"}
	for s, want := range map[string]string{
		"peesr":                     `; did you mean "peers"?`, // swapped
		"pers":                      `; did you mean "peers"?`, // left out
		"peeers":                    `; did you mean "peers"?`, // put in
		"pears":                     `; did you mean "peers"?`, // replaced
		"Rules":                     `; did you mean "rules"?`,
		"CA":                        `; did you mean "ca"?`,
		"xy":                        ``,
		"rulebook":                  ``,
		"":                          ``,
		strings.Repeat("peers", 20): ``,
	} {
		if got := didYouMean(s, known); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}
