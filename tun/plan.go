package tun

import (
	"errors"
	"net/netip"
	"slices"
)

// Numbers of ours. A device takes a slot, and with it a run of rule priorities
// and, with the same numbers, of routing tables. They lie behind the rules that
// other software numbers explicitly (most below 10000) and before those of the
// kernel for the tables main and default (32766 and 32767).
const (
	firstPriority = 10000
	slots         = 64
	// slotSize leaves room for two rules for each length of an IPv6 prefix.
	slotSize = 2 * 129

	// protocol marks routes and rules as ours, as RTPROT_* in the kernel's uapi
	// linux/rtnetlink.h; it is not given to anybody there.
	protocol = 84

	tableMain = 254 // RT_TABLE_MAIN
)

// rule is a policy rule for one family.
type rule struct {
	IPv6     bool
	Priority int
	Table    int
	// Suppress is the prefix length up to which the answer of Table does not
	// count, -1 for none.
	Suppress int
	// NotMark is the fwmark of packets that the rule does not apply to, 0 for
	// none.
	NotMark uint32
}

// route is a route of Table to Dst through the device.
type route struct {
	Dst   netip.Prefix
	Table int
}

// planRoutes gives the rules and routes that capture the prefixes ps
// (normalized), as the package comment describes, in the order in which they
// are to be added.
func planRoutes(ps []netip.Prefix, slot int, mark uint32) (rules []rule, routes []route) {
	base := firstPriority + slot*slotSize
	for _, ipv6 := range []bool{false, true} {
		var lengths []int
		full := 32
		if ipv6 {
			full = 128
		}
		for _, p := range ps {
			if p.Addr().Is6() == ipv6 {
				lengths = append(lengths, p.Bits())
			}
		}
		slices.SortFunc(lengths, func(a, b int) int { return b - a })
		lengths = slices.Compact(lengths)
		for i, n := range lengths {
			table := base + 2*i + 1
			// The main table is asked first, so that a table of ours is never
			// consulted without it; nothing is longer than a host route.
			if n < full {
				rules = append(rules, rule{IPv6: ipv6, Priority: table - 1, Table: tableMain, Suppress: n})
			}
			rules = append(rules, rule{IPv6: ipv6, Priority: table, Table: table, Suppress: -1, NotMark: mark})
			for _, p := range ps {
				if p.Addr().Is6() == ipv6 && p.Bits() == n {
					routes = append(routes, route{Dst: p, Table: table})
				}
			}
		}
	}
	return rules, routes
}

// freeSlot gives the first slot of which no rule has a priority or a table.
func freeSlot(present []rule) (int, error) {
	var taken [slots]bool
	mark := func(n int) {
		if n -= firstPriority; n >= 0 && n/slotSize < slots {
			taken[n/slotSize] = true
		}
	}
	for _, r := range present {
		mark(r.Priority)
		mark(r.Table)
	}
	for i, t := range taken {
		if !t {
			return i, nil
		}
	}
	return 0, errors.New("tun: all ranges of rule priorities are taken")
}
