package policy

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// ownFor is how long the list of this host's addresses is believed: a new
// address is closed at the latest so long after it appeared. Reading the list
// takes tens of microseconds, too much for each flow.
const ownFor = time.Second

// Class is why an address is closed.
type Class uint8

// The classes.
const (
	// Open: it is not closed.
	Open Class = iota
	// Own: an address of an interface of this host.
	Own
	// Loopback: 127.0.0.0/8, ::1.
	Loopback
	// LinkLocal: 169.254.0.0/16, fe80::/10.
	LinkLocal
	// Multicast: 224.0.0.0/4, ff00::/8, and the broadcast address.
	Multicast
	// Unspecified: 0.0.0.0/8, ::. Linux connects both to itself.
	Unspecified
	// Metadata: where clouds tell a machine its secrets.
	Metadata

	numClasses
)

var classNames = [numClasses]string{"open", "own", "loopback", "link-local", "multicast", "unspecified", "metadata"}

// String returns the class as a word.
func (c Class) String() string {
	if c < numClasses {
		return classNames[c]
	}
	return "unknown"
}

// metadata are the addresses outside link-local that clouds are known to use.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("fd00:ec2::/32"),      // Amazon: metadata, DNS, time, pod identity
	netip.MustParsePrefix("fd20:ce::254/128"),   // Google
	netip.MustParsePrefix("fd00:42::42/128"),    // Scaleway
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure
	netip.MustParsePrefix("192.0.0.192/32"),     // Oracle
}

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	broadcast   = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// carriers are prefixes whose addresses carry an IPv4 address, and at which
// bytes.
var carriers = []struct {
	prefix netip.Prefix
	at     [4]uint8
}{
	{netip.MustParsePrefix("64:ff9b::/96"), [4]uint8{12, 13, 14, 15}},    // NAT64, RFC 6052
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]uint8{12, 13, 14, 15}},  // NAT64 local use, RFC 8215, cut as /96
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]uint8{6, 7, 9, 10}},     // the same as /48
	{netip.MustParsePrefix("2002::/16"), [4]uint8{2, 3, 4, 5}},           // 6to4, RFC 3056
	{netip.MustParsePrefix("::/96"), [4]uint8{12, 13, 14, 15}},           // IPv4-compatible, RFC 4291
	{netip.MustParsePrefix("::ffff:0:0:0/96"), [4]uint8{12, 13, 14, 15}}, // IPv4-translated, RFC 2765
}

// Guard tells which addresses are closed unless a rule opens them.
type Guard struct {
	list func() ([]netip.Addr, error)

	mu  sync.Mutex // held while the list is read
	own atomic.Pointer[ownAddrs]
}

// ownAddrs is the list of this host's addresses. It does not change.
type ownAddrs struct {
	set map[netip.Addr]struct{}
	// known is false while the list could not be read even once: then any
	// address may be ours.
	known bool
	until time.Time
}

// NewGuard returns a Guard that asks list for the addresses of this host, at
// most once a second; nil means those of all interfaces. While list fails its
// last answer holds; before the first answer every address counts as Own.
func NewGuard(list func() ([]netip.Addr, error)) *Guard {
	if list == nil {
		list = interfaceAddrs
	}
	return &Guard{list: list}
}

// Class returns why addr is closed, or Open.
func (g *Guard) Class(addr netip.Addr) Class {
	addr = addr.Unmap().WithZone("")
	if c := fixedClass(addr); c != Open {
		return c
	}
	own := g.current()
	if own.has(addr) {
		return Own
	}
	if !addr.Is6() {
		return Open
	}
	b := addr.As16()
	for i := range carriers {
		c := &carriers[i]
		if !c.prefix.Contains(addr) {
			continue
		}
		v4 := netip.AddrFrom4([4]byte{b[c.at[0]], b[c.at[1]], b[c.at[2]], b[c.at[3]]})
		// A translator does not carry 0.0.0.0/8, and the unused bits of one cut
		// look like it under the other.
		if class := fixedClass(v4); class != Open && class != Unspecified {
			return class
		}
		if own.has(v4) {
			return Own
		}
	}
	return Open
}

func (o *ownAddrs) has(addr netip.Addr) bool {
	_, ok := o.set[addr]
	return ok || !o.known
}

func fixedClass(addr netip.Addr) Class {
	switch {
	case addr.IsUnspecified(), thisNetwork.Contains(addr):
		return Unspecified
	case addr.IsLoopback():
		return Loopback
	case addr.IsLinkLocalUnicast():
		return LinkLocal
	case addr.IsMulticast(), addr == broadcast:
		return Multicast
	}
	for _, p := range metadata {
		if p.Contains(addr) {
			return Metadata
		}
	}
	return Open
}

func (g *Guard) current() *ownAddrs {
	if o := g.own.Load(); o != nil && time.Now().Before(o.until) {
		return o
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.own.Load()
	if old != nil && time.Now().Before(old.until) {
		return old // somebody else was faster
	}
	o := &ownAddrs{known: true}
	if addrs, err := g.list(); err == nil {
		o.set = make(map[netip.Addr]struct{}, len(addrs))
		for _, a := range addrs {
			o.set[a.Unmap().WithZone("")] = struct{}{}
		}
	} else if old != nil {
		o.set, o.known = old.set, old.known
	} else {
		o.known = false
	}
	o.until = time.Now().Add(ownFor)
	g.own.Store(o)
	return o
}

func interfaceAddrs() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, 0, len(list))
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs, nil
}
