package dtls

import (
	"net/netip"
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
