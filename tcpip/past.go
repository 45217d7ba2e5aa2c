package tcpip

import "time"

const (
	// pastFor is how long a closed session id is remembered at least: longer
	// than the 63 s during which TCP repeats a SYN (RFC 6298, six times).
	pastFor = 70 * time.Second
	// pastMax bounds the ids of one generation, some 16 MB for both. At more
	// than 3700 flows per second they are remembered for less than pastFor.
	pastMax = 1 << 18
)

// pastSet remembers session ids that are over, so that a late copy of their SYN
// opens nothing. It keeps two generations and forgets the older one.
type pastSet struct {
	now, before map[uint64]struct{}
	since       time.Time
}

func (p *pastSet) add(id uint64) {
	if t := time.Now(); p.now == nil || len(p.now) >= pastMax || t.Sub(p.since) >= pastFor {
		p.before, p.now, p.since = p.now, make(map[uint64]struct{}), t
	}
	p.now[id] = struct{}{}
}

func (p *pastSet) has(id uint64) bool {
	if _, ok := p.now[id]; ok {
		return true
	}
	_, ok := p.before[id]
	return ok
}
