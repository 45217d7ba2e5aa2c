package rawip

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// maxPeers bounds what is remembered of peers, some 100 bytes each. Our choice:
	// far more than a node talks to at a time.
	maxPeers = 1 << 16
	// mtuLife is how long the MTU of a route is believed without asking again.
	// Only growth waits for it: a packet that no longer fits tells at once.
	mtuLife = 5 * time.Second
)

// peerState is what is remembered of a peer.
type peerState struct {
	local netip.Addr // the address of ours that it last wrote to
	mtu   int        // of the route; zero: unknown
	asked time.Time  // when mtu was found
}

// peers remembers peers by address. The zero value is ready; it is safe for
// concurrent use.
type peers struct {
	mu sync.RWMutex
	m  map[netip.Addr]peerState
}

func (p *peers) get(addr netip.Addr) peerState {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.m[addr]
}

// seen remembers that addr wrote to local.
func (p *peers) seen(addr, local netip.Addr) {
	p.mu.RLock()
	known := p.m[addr].local == local
	p.mu.RUnlock()
	if !known {
		p.update(addr, func(s *peerState) { s.local = local })
	}
}

func (p *peers) update(addr netip.Addr, change func(*peerState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.m[addr]
	if !ok && len(p.m) >= maxPeers {
		// Any will do: what is forgotten is found again.
		n := maxPeers / 8
		for a := range p.m {
			if delete(p.m, a); n == 0 {
				break
			}
			n--
		}
	}
	if p.m == nil {
		p.m = map[netip.Addr]peerState{}
	}
	change(&s)
	p.m[addr] = s
}

// forgetMTU makes the next question ask the kernel.
func (p *peers) forgetMTU(addr netip.Addr) {
	p.update(addr, func(s *peerState) { s.mtu = 0 })
}
