package tunnel

import "net/netip"

// Path is a pair of addresses between which records of an association travel.
// It is another name for an unnamed type, so that the package of the
// association can name it as well.
type Path = struct {
	// Remote is the peer's address, Local that of this side.
	Remote, Local netip.AddrPort
}

const (
	// maxProbes is how often a candidate is asked, once a tick.
	maxProbes = 6
	// maxCandidates bounds the candidates of a link.
	maxCandidates = 2
)

// candidate is a path on which the peer was heard and which is not believed yet.
type candidate struct {
	path  Path
	token uint64 // what the peer has to answer, by this path
	tries int
}

// Candidate tells the link that an authenticated record with the newest number
// came by another path than the association's. The path is asked with a token
// that nobody but the peer can read, and believed when the answer comes by it
// (RFC 9146 section 6). It does not block.
func (l *Link) Candidate(p Path) {
	if l.inst.Load() == nil || l.retired.Load() != 0 {
		return
	}
	l.pathMu.Lock()
	for _, c := range l.candidates {
		if c.path == p {
			l.pathMu.Unlock()
			return // being asked
		}
	}
	if len(l.candidates) == maxCandidates {
		l.candidates = append(l.candidates[:0], l.candidates[1:]...)
	}
	c := &candidate{path: p, token: randomUint64(), tries: 1}
	l.candidates = append(l.candidates, c)
	l.pathMu.Unlock()
	l.controlVia(&control{typ: ctlPathProbe, token: c.token}, p)
}

// askAgain repeats the probes of candidates, and forgets those that were asked
// often enough.
func (l *Link) askAgain() {
	l.pathMu.Lock()
	var ask []candidate
	left := l.candidates[:0]
	for _, c := range l.candidates {
		if c.tries < maxProbes {
			c.tries++
			left = append(left, c)
			ask = append(ask, *c)
		}
	}
	clear(l.candidates[len(left):])
	l.candidates = left
	l.pathMu.Unlock()
	for _, c := range ask {
		l.controlVia(&control{typ: ctlPathProbe, token: c.token}, c.path)
	}
}

// answerProbe answers a probe by the way it came. Called while a record of the
// association is delivered.
func (l *Link) answerProbe(token uint64) {
	l.controlVia(&control{typ: ctlPathReply, token: token}, l.secure.Arrived())
}

// gotPathReply moves the association to the path by which the right answer
// came. Called while a record of the association is delivered.
func (l *Link) gotPathReply(token uint64) {
	p := l.secure.Arrived()
	l.pathMu.Lock()
	known := false
	for _, c := range l.candidates {
		known = known || c.token == token && c.path == p
	}
	l.pathMu.Unlock()
	if !known || !l.secure.Validate(p) {
		l.node.counters.drops.count(DropPathReply)
		return
	}
	l.pathMu.Lock()
	clear(l.candidates)
	l.candidates = nil
	l.pathMu.Unlock()
	l.fitPath()
	l.node.counters.pathMoves.Add(1)
	l.node.log.Info("peer moved", "peer", l.identity.Name(), "remote", p.Remote)
}
