package dtls

import (
	"net/netip"
	"slices"
	"sync"
)

// caps bounds the handshakes that peers have begun and not completed, in all
// and for each source.
type caps struct {
	mu        sync.Mutex
	total     int
	source    map[netip.Prefix]int
	max       int
	maxSource int
}

func (c *caps) init(most, source int) {
	c.source = map[netip.Prefix]int{}
	c.max, c.maxSource = most, source
}

// sourceOf is what one host can easily use all addresses of: an IPv4 address,
// or an IPv6 /64.
func sourceOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a = a.Unmap(); a.Is4() {
		bits = 32
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // the zero Addr: all such share one entry
	}
	return p
}

// take counts a handshake, or says which bound forbids it.
func (c *caps) take(a netip.Addr) (Drop, bool) {
	p := sourceOf(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.total >= c.max:
		return DropHalfOpenTotal, false
	case c.source[p] >= c.maxSource:
		return DropHalfOpenSource, false
	}
	c.total++
	c.source[p]++
	return 0, true
}

// release uncounts a handshake.
func (c *caps) release(a netip.Addr) {
	p := sourceOf(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.source[p]--; c.source[p] <= 0 {
		delete(c.source, p)
	}
}

func (c *caps) now() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

// identities bounds the accepted associations of each identity.
type identities struct {
	mu     sync.Mutex
	assocs map[string][]*Association // in the order in which they were established
	max    int
}

func (t *identities) init(most int) {
	t.assocs = map[string][]*Association{}
	t.max = most
}

// key tells identities apart: a PSK proves another name than a certificate.
func (i Identity) key() string { return i.Kind.String() + " " + i.String() }

// add notes an association and gives the oldest of its identity, which is
// forgotten, if there are too many.
func (t *identities) add(a *Association) (oldest *Association) {
	k := a.identity.key()
	t.mu.Lock()
	defer t.mu.Unlock()
	as := append(t.assocs[k], a)
	if len(as) > t.max {
		oldest = as[0]
		as = slices.Delete(as, 0, 1)
	}
	t.assocs[k] = as
	return oldest
}

// remove forgets an association, if it is known.
func (t *identities) remove(a *Association) {
	k := a.identity.key()
	t.mu.Lock()
	defer t.mu.Unlock()
	as := t.assocs[k]
	i := slices.Index(as, a)
	if i < 0 {
		return
	}
	if as = slices.Delete(as, i, i+1); len(as) == 0 {
		delete(t.assocs, k)
		return
	}
	t.assocs[k] = as
}
