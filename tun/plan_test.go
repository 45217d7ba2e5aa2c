package tun

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestPlanRoutes(t *testing.T) {
	rules, routes := planRoutes(normalize(prefixes("0.0.0.0/0", "::/0", "10.0.0.0/8", "198.51.0.0/16", "203.0.113.0/24", "203.0.113.9/32", "192.0.2.0/24")), 1, 0x77)
	var got []string
	for _, r := range rules {
		got = append(got, fmt.Sprintf("v6=%v %d: table %d suppress %d not mark %#x", r.IPv6, r.Priority, r.Table, r.Suppress, r.NotMark))
	}
	for _, r := range routes {
		got = append(got, fmt.Sprintf("%v table %d", r.Dst, r.Table))
	}
	want := []string{
		"v6=false 10259: table 10259 suppress -1 not mark 0x77", // nothing in main is longer than 32
		"v6=false 10260: table 254 suppress 24 not mark 0x0",
		"v6=false 10261: table 10261 suppress -1 not mark 0x77",
		"v6=false 10262: table 254 suppress 16 not mark 0x0",
		"v6=false 10263: table 10263 suppress -1 not mark 0x77",
		"v6=false 10264: table 254 suppress 8 not mark 0x0",
		"v6=false 10265: table 10265 suppress -1 not mark 0x77",
		"v6=false 10266: table 254 suppress 0 not mark 0x0",
		"v6=false 10267: table 10267 suppress -1 not mark 0x77",
		"v6=true 10258: table 254 suppress 0 not mark 0x0",
		"v6=true 10259: table 10259 suppress -1 not mark 0x77",
		"203.0.113.9/32 table 10259",
		"192.0.2.0/24 table 10261",
		"203.0.113.0/24 table 10261",
		"198.51.0.0/16 table 10263",
		"10.0.0.0/8 table 10265",
		"0.0.0.0/0 table 10267",
		"::/0 table 10259",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestPlanFitsSlot: all lengths of both families stay within the slot, and the
// last slot before the kernel's own rules.
func TestPlanFitsSlot(t *testing.T) {
	var all []string
	for n := range 33 {
		all = append(all, fmt.Sprintf("0.0.0.0/%d", n))
	}
	for n := range 129 {
		all = append(all, fmt.Sprintf("::/%d", n))
	}
	rules, routes := planRoutes(normalize(prefixes(all...)), slots-1, 1)
	first := firstPriority + (slots-1)*slotSize
	for _, r := range rules {
		if r.Priority < first || r.Priority >= first+slotSize || r.Priority >= 32766 {
			t.Errorf("rule %d is outside its slot", r.Priority)
		}
	}
	if len(rules) != 2*(33+129)-2 || len(routes) != 33+129 {
		t.Errorf("%d rules, %d routes", len(rules), len(routes))
	}
}

func TestFreeSlot(t *testing.T) {
	present := []rule{{Priority: 0, Table: 255}, {Priority: 32766, Table: 254}, {Priority: firstPriority - 1}, {Priority: firstPriority + slots*slotSize}}
	for want := range slots {
		got, err := freeSlot(present)
		if err != nil || got != want {
			t.Fatalf("slot %d, %v; want %d", got, err, want)
		}
		// By its last priority, or by the table of a rule elsewhere.
		r := rule{Priority: firstPriority + want*slotSize + slotSize - 1}
		if want%2 == 1 {
			r = rule{Priority: 7, Table: firstPriority + want*slotSize}
		}
		present = append(present, r)
	}
	if _, err := freeSlot(present); err == nil {
		t.Error("found a slot where none is free")
	}
}
