package config

import (
	"strings"
	"testing"
)

func TestPattern(t *testing.T) {
	for s, want := range map[string]string{
		"laptop-7":               "laptop-7",
		"Laptop-*":               "laptop-*",
		"*":                      "*",
		"edge-?.example":         "edge-?.example",
		strings.Repeat("a", 253): strings.Repeat("a", 253),
	} {
		if got, err := ParsePattern(s); err != nil || got.String() != want {
			t.Errorf("%q is %v, %v", s, got, err)
		}
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
	if s := (PortRange{80, 90}).String() + " " + (PortRange{7, 7}).String(); s != "80-90 7" {
		t.Errorf("ranges print as %s", s)
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
