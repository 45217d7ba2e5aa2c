package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Action is what a rule does with a flow.
type Action uint8

// The actions.
const (
	// Reject refuses the flow as administratively prohibited.
	Reject Action = iota
	// TCP connects to the destination by the TCP of this host.
	TCP
	// Homa hands the flow to a translation.
	Homa
	// Direct connects from this host, around the tunnel.
	Direct
	// Tunnel sends a captured flow to Rule.Target.
	Tunnel

	numActions
)

var actionNames = [numActions]string{"reject", "tcp", "homa", "direct", "tunnel"}

// String returns the action as it is written in a rule.
func (a Action) String() string {
	if a < numActions {
		return actionNames[a]
	}
	return "unknown"
}

// Ports is a range of ports, both ends included.
type Ports struct{ First, Last uint16 }

// Rule is one line of a table.
type Rule struct {
	// Peer is a pattern for the names that a peer has proved, in accept tables
	// only: '*' stands for any run of characters, '?' for any single one, and
	// case does not count.
	Peer string
	// Dst are the destinations it is for; empty for all. An IPv4-mapped prefix
	// counts as the IPv4 prefix.
	Dst []netip.Prefix
	// Ports are the destination ports it is for; empty for all.
	Ports []Ports
	// Action is what happens.
	Action Action
	// Target is the peer that Tunnel sends the flow to.
	Target string
}

// Verdict is a decision and its reason.
type Verdict struct {
	Action Action
	// Target is that of the rule.
	Target string
	// Rule is the index of the rule that matched, -1 for none.
	Rule int
	// Closed says why a rule that covers the address was passed over. Open if
	// none was.
	Closed Class
}

// String explains the verdict in a few words, for logs.
func (v Verdict) String() string {
	by := "no rule matches"
	if v.Rule >= 0 {
		by = fmt.Sprintf("rule %d", v.Rule+1)
	}
	if v.Closed != Open {
		by += fmt.Sprintf("; a %s address has to be listed literally", v.Closed)
	}
	return fmt.Sprintf("%v (%s)", v.Action, by)
}

// Table is a list of rules. It does not change.
type Table struct {
	rules    []Rule
	fallback Action
	guard    *Guard // nil: no address is closed
}

// NewAccept makes a table for the flows that peers open: what no rule lets pass
// is rejected, and so is what guard closes unless a rule lists it literally.
// The actions are Reject, TCP and Homa; each rule needs a Peer. It copies rules.
func NewAccept(rules []Rule, guard *Guard) (*Table, error) {
	if guard == nil {
		return nil, errors.New("policy: accept rules without a guard")
	}
	for i, r := range rules {
		if r.Peer == "" {
			return nil, fmt.Errorf("policy: accept rule %d: no peer", i+1)
		}
		if r.Action != Reject && r.Action != TCP && r.Action != Homa {
			return nil, fmt.Errorf("policy: accept rule %d: action %v", i+1, r.Action)
		}
	}
	return newTable(rules, Reject, guard)
}

// NewCapture makes a table for captured flows; fallback is what happens to
// those that no rule matches. The actions are Reject, Direct and Tunnel, the
// last not as a fallback; no rule has a Peer. It copies rules.
func NewCapture(rules []Rule, fallback Action) (*Table, error) {
	if fallback != Reject && fallback != Direct {
		return nil, fmt.Errorf("policy: fallback action %v", fallback)
	}
	for i, r := range rules {
		if r.Peer != "" {
			return nil, fmt.Errorf("policy: rule %d: pattern for peers", i+1)
		}
		if r.Action != Reject && r.Action != Direct && r.Action != Tunnel {
			return nil, fmt.Errorf("policy: rule %d: action %v", i+1, r.Action)
		}
		if (r.Action == Tunnel) != (r.Target != "") {
			return nil, fmt.Errorf("policy: rule %d: action %v with target %q", i+1, r.Action, r.Target)
		}
	}
	return newTable(rules, fallback, nil)
}

func newTable(rules []Rule, fallback Action, guard *Guard) (*Table, error) {
	t := &Table{rules: slices.Clone(rules), fallback: fallback, guard: guard}
	for i := range t.rules {
		r := &t.rules[i]
		r.Peer = strings.ToLower(r.Peer)
		r.Ports = slices.Clone(r.Ports)
		r.Dst = slices.Clone(r.Dst)
		for j, p := range r.Dst {
			if !p.IsValid() {
				return nil, fmt.Errorf("policy: rule %d: bad prefix", i+1)
			}
			r.Dst[j] = unmap(p)
		}
		for _, p := range r.Ports {
			if p.First > p.Last {
				return nil, fmt.Errorf("policy: rule %d: ports %d-%d", i+1, p.First, p.Last)
			}
		}
	}
	return t, nil
}

// unmap turns an IPv4-mapped prefix into the IPv4 prefix.
func unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

// Decide says what happens to a flow to dst, an address and never a name.
// names are those that the peer has proved; nil for a captured flow. It borrows
// names.
func (t *Table) Decide(names []string, dst netip.AddrPort) Verdict {
	addr := dst.Addr().Unmap().WithZone("")
	if !addr.IsValid() {
		return Verdict{Action: Reject, Rule: -1}
	}
	class, known := Open, t.guard == nil
	for i := range t.rules {
		r := &t.rules[i]
		if !r.matchPorts(dst.Port()) || !r.matchDst(addr) || !r.matchPeer(names) {
			continue
		}
		if r.Action != Reject && !r.literal(addr) {
			if !known {
				class, known = t.guard.Class(addr), true
			}
			if class != Open {
				continue
			}
		}
		v := Verdict{Action: r.Action, Target: r.Target, Rule: i}
		if r.Action == Reject {
			v.Closed = class
		}
		return v
	}
	return Verdict{Action: t.fallback, Rule: -1, Closed: class}
}

func (r *Rule) matchPorts(port uint16) bool {
	if len(r.Ports) == 0 {
		return true
	}
	for _, p := range r.Ports {
		if p.First <= port && port <= p.Last {
			return true
		}
	}
	return false
}

func (r *Rule) matchDst(addr netip.Addr) bool {
	if len(r.Dst) == 0 {
		return true
	}
	for _, p := range r.Dst {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func (r *Rule) matchPeer(names []string) bool {
	if r.Peer == "" {
		return true
	}
	for _, name := range names {
		if matchName(r.Peer, name) {
			return true
		}
	}
	return false
}

// literal reports whether the rule lists addr by itself.
func (r *Rule) literal(addr netip.Addr) bool {
	for _, p := range r.Dst {
		if p.IsSingleIP() && p.Addr() == addr {
			return true
		}
	}
	return false
}

// matchName reports whether pattern, in lower case, covers name.
func matchName(pattern, name string) bool {
	// When a character does not fit, the last '*' takes one more.
	p, n := 0, 0
	star, from := -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == lower(name[n])):
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
