package homa

import (
	"net/netip"

	"github.com/tougw/tougw/homa/wire"
)

// peer is what is known of a host that there are RPCs with, or were lately.
type peer struct {
	addr   netip.Addr
	config PeerConfig

	rpcs      *RPC            // first of those that are not over, called there or served
	served    map[uint64]*RPC // by id as the server sees it; tombstone: served before
	numServed int
	refs      int // RPCs that point here, and tombstones

	acks       []wire.AckEntry // that the peer has not been told yet
	ackPackets int             // ACK packets that wait to tell it, of ackedByPacket each

	// What the peer told: its cutoffs for unscheduled data, their version.
	cutoffs       [wire.NumPriorities]uint32
	cutoffVersion uint16
	haveCutoffs   bool
	cutoffsSent   Instant // when it was told ours
	cutoffsEver   bool    // it was

	// See asking.go.
	asking                int
	firstAsker, lastAsker *RPC
	inAskers              bool
	heard                 int64 // tick of its last packet

	receive, send peerMemory

	waiting heap[*RPC] // to be granted
	active  int        // being granted
	pos     int32      // in granter.waiting

	versions wire.Versions // that it can be of; 0: not to be detected
	looked   int           // DATA packets of a message seen by detect
	against  int           // packets in a row that speak against versions

	idlePrev, idleNext *peer
	idleSince          Instant
	idle               bool
}

// A tombstone stands in peer.served for an RPC that was served before; tombstoneHit
// is one to whose RPC a client has sent data again.
var tombstone, tombstoneHit = &RPC{state: Dead}, &RPC{state: Dead}

func isTombstone(r *RPC) bool { return r == tombstone || r == tombstoneHit }

func (p *peer) position(heapID) *int32 { return &p.pos }

// link puts r among the RPCs with the peer, unlink takes it out.
func (p *peer) link(r *RPC) {
	if r.peerNext = p.rpcs; r.peerNext != nil {
		r.peerNext.peerPrev = r
	}
	p.rpcs = r
}

func (p *peer) unlink(r *RPC) {
	if r.peerPrev != nil {
		r.peerPrev.peerNext = r.peerNext
	} else {
		p.rpcs = r.peerNext
	}
	if r.peerNext != nil {
		r.peerNext.peerPrev = r.peerPrev
	}
	r.peerNext, r.peerPrev = nil, nil
}

// unscheduledPriority is the level for unscheduled data of a message.
func (p *peer) unscheduledPriority(length int) uint8 {
	if !p.haveCutoffs {
		return wire.NumPriorities - 2
	}
	for i := wire.NumPriorities - 1; i > 0; i-- {
		if uint32(length) <= p.cutoffs[i] {
			return uint8(i)
		}
	}
	return 0
}

// lookup returns the peer, nil if it has no state.
func (e *Engine) lookup(addr netip.Addr) *peer {
	if e.last != nil && e.last.addr == addr {
		return e.last
	}
	p := e.peers[addr]
	if p != nil {
		e.last = p
	}
	return p
}

// fixedVersion reports whether packets of the address do not decide its version.
func (e *Engine) fixedVersion(addr netip.Addr) bool {
	return e.configured[addr].VersionSet || e.config.Peer.VersionSet
}

// peerConfig is the configuration for an address, complete; version is what the peer
// seems to speak.
func (e *Engine) peerConfig(addr netip.Addr, version wire.Version) PeerConfig {
	c := e.config.Peer
	if own, ok := e.configured[addr]; ok {
		c = own.over(c)
	}
	if !e.fixedVersion(addr) {
		c.Version = version
	}
	if c.MaxData == 0 {
		c.MaxData = 1404
		if addr.Is4() {
			c.MaxData = 1424
		}
	}
	if c.Unscheduled == 0 {
		c.Unscheduled = 40_000
		switch c.Version {
		case wire.Linux61:
			c.Unscheduled = 10_000
		case wire.Stripped:
			c.Unscheduled = maxLength
		}
	}
	if e.config.NoUnscheduled {
		c.Unscheduled = 0
	}
	return c
}

// obtain returns the peer and makes it if need be; nil if there are too many.
func (e *Engine) obtain(addr netip.Addr) *peer {
	if p := e.lookup(addr); p != nil {
		return p
	}
	if len(e.peers) >= e.config.MaxPeers {
		if e.idle.idleNext == &e.idle {
			return nil
		}
		e.forget(e.idle.idleNext)
	}
	p := &peer{addr: addr, config: e.peerConfig(addr, e.config.Peer.Version), served: make(map[uint64]*RPC), versions: wire.AllVersions, heard: e.tick}
	if e.fixedVersion(addr) {
		p.versions = 0
	}
	p.waiting.id, p.receive.waiting.id, p.send.waiting.id = heapGrant, heapReceive, heapTransmit
	e.peers[addr] = p
	e.last = p
	e.addIdle(p)
	return p
}

const (
	// detectPackets is how many DATA packets since the last new request of a peer are
	// looked at for its version; control packets, which are fewer and tell more,
	// all are.
	detectPackets = 8
	// maxAgainst is how many packets in a row must contradict all before them to
	// be believed: the host has another kernel now, or the first were forged.
	maxAgainst = 4
)

// detect learns the version of a peer from the packet that is received, which
// belongs to an RPC with it: others can be anybody's.
func (e *Engine) detect(p *peer, t wire.Type) {
	if p.versions == 0 {
		return
	}
	if t == wire.Data {
		if p.looked >= detectPackets {
			return
		}
		p.looked++
	}
	mine := p.config.Version
	told := wire.Detect(mine.IPProtocol(), e.packet)
	seen := p.versions & told
	switch {
	case told == 0:
		return // damaged
	case seen != 0:
		p.against = 0
	case p.against+1 < maxAgainst:
		p.against++
		return
	default:
		p.against, seen = 0, told
	}
	p.versions = seen
	if !seen.Has(mine) {
		for v := wire.Main; v <= wire.Linux61; v++ {
			if seen.Has(v) {
				p.config = e.peerConfig(p.addr, v)
				break
			}
		}
	}
}

// ref counts a user of p, unref one less: a peer without users is idle.
func (e *Engine) ref(p *peer) {
	p.refs++
	if p.idle {
		p.idle = false
		p.idlePrev.idleNext, p.idleNext.idlePrev = p.idleNext, p.idlePrev
		p.idlePrev, p.idleNext = nil, nil
	}
}

func (e *Engine) unref(p *peer) {
	p.refs--
	if p.refs == 0 {
		e.addIdle(p)
	}
}

func (e *Engine) addIdle(p *peer) {
	p.idle, p.idleSince = true, e.now
	p.idlePrev, p.idleNext = e.idle.idlePrev, &e.idle
	p.idlePrev.idleNext, e.idle.idlePrev = p, p
}

// forget drops an idle peer.
func (e *Engine) forget(p *peer) {
	p.idlePrev.idleNext, p.idleNext.idlePrev = p.idleNext, p.idlePrev
	delete(e.peers, p.addr)
	if e.last == p {
		e.last = nil
	}
}

const (
	// ackedByPacket is how many RPCs an ACK names: one in its header and a list.
	ackedByPacket = 1 + wire.MaxAcks
	// maxAcks bounds the RPCs of a peer that are to be acknowledged. Servers ask for
	// those beyond.
	maxAcks = 64 * ackedByPacket
)

// addAck notes that the server may forget r. Data to it takes a few of these along;
// what is more goes in packets of its own, which are filled when they leave: many
// responses may come at a time.
func (e *Engine) addAck(r *RPC) {
	p := r.peer
	if len(p.acks) == maxAcks {
		return
	}
	p.acks = append(p.acks, wire.AckEntry{ClientID: r.id, ClientPort: r.local, ServerPort: r.remote})
	if len(p.acks) > p.ackPackets*ackedByPacket+wire.MaxAcks {
		e.pushAck(p)
	}
}

// pushAck queues an ACK for what is noted at a peer.
func (e *Engine) pushAck(p *peer) {
	if e.pushRaw(rawControl{kind: wire.Ack, peer: p, to: p.addr}) {
		p.ackPackets++
	}
}

// FlushAcks queues ACKs for each peer that has not been told yet of responses that
// are here. There is no need for it while the engine runs: acknowledgements go along
// with data, and servers ask for them. It is for an owner that is about to stop.
func (e *Engine) FlushAcks(now Instant) {
	e.touch(now)
	for _, p := range e.peers {
		for before := -1; p.ackPackets*ackedByPacket < len(p.acks) && before < p.ackPackets; {
			before = p.ackPackets
			e.pushAck(p)
		}
	}
}

// takeAck returns one of the noted RPCs, to go along with data.
func (p *peer) takeAck() (a wire.AckEntry) {
	if last := len(p.acks) - 1; last >= 0 {
		a = p.acks[last]
		p.acks = p.acks[:last]
	}
	return a
}

// grave names an RPC that was served before and whose client has not said that it is
// done with it.
type grave struct {
	client netip.Addr
	id     uint64 // as the server sees it
}

// buriedGrave is a grave in the order of their ends.
type buriedGrave struct {
	grave
	ends Instant
}

// remains is what is remembered in a grave: a client that has started anew, as Linux
// hosts do with their ids, hardly asks for the same.
type remains struct {
	port   uint16
	length uint32
	hit    bool // the client has sent data again
}

// bury leaves a tombstone for a served RPC: a short-lived one if its client said that
// it is done with it. Any other client may come back after whatever kept it silent,
// be that long, and repeat the request from its beginning.
func (e *Engine) bury(r *RPC) {
	if e.config.TombstoneLife < 0 {
		delete(r.peer.served, r.id)
		return
	}
	if r.err != nil && r.err != ErrAbandoned {
		delete(r.peer.served, r.id)
		if e.graveEnds.len() >= e.config.MaxTombstones {
			e.stats.TombstonesLost++
			delete(e.graves, e.graveEnds.pop().grave)
		}
		g := grave{r.peer.addr, r.id}
		e.graves[g] = remains{port: r.remote, length: uint32(r.in.length)}
		e.graveEnds.push(buriedGrave{g, e.now.Add(e.config.UnackedLife)})
		return
	}
	if e.tombstones.len() >= e.config.MaxTombstones {
		e.stats.TombstonesLost++
		e.unbury(e.tombstones.pop())
	}
	r.peer.served[r.id] = tombstone
	e.ref(r.peer)
	e.tombstones.push(buried{r.peer, r.id, e.now.Add(e.config.TombstoneLife)})
}

// inGrave reports whether a packet that fits no RPC is for one with a grave. Such
// a grave does not hold its peer in memory.
func (e *Engine) inGrave(g grave, k *wire.Packet) bool {
	if len(e.graves) == 0 {
		return false
	}
	r, ok := e.graves[g]
	if !ok || r.port != k.SrcPort || k.Type == wire.Data && r.length != k.Length {
		return false
	}
	if k.Type == wire.Data {
		r.hit = true
		e.graves[g] = r
	}
	return true
}

// buried is a tombstone in the order of their ends.
type buried struct {
	peer *peer
	id   uint64
	ends Instant
}

func (e *Engine) unbury(b buried) {
	delete(b.peer.served, b.id)
	e.unref(b.peer)
}

// sweep forgets tombstones whose life is over and peers that were idle too long.
func (e *Engine) sweep() {
	for e.tombstones.len() > 0 && e.tombstones.front().ends <= e.now {
		b := e.tombstones.pop()
		if b.peer.served[b.id] == tombstone {
			e.unbury(b)
			continue
		}
		// The client, whose time-out may be longer than this life, still tries.
		b.peer.served[b.id] = tombstone
		b.ends = e.now.Add(e.config.TombstoneLife)
		e.tombstones.push(b)
	}
	for e.graveEnds.len() > 0 && e.graveEnds.front().ends <= e.now {
		b := e.graveEnds.pop()
		if r := e.graves[b.grave]; r.hit {
			r.hit = false
			e.graves[b.grave] = r
			b.ends = e.now.Add(e.config.UnackedLife)
			e.graveEnds.push(b)
			continue
		}
		delete(e.graves, b.grave)
	}
	for p := e.idle.idleNext; p != &e.idle && p.idleSince.Add(e.config.PeerIdle) <= e.now; p = e.idle.idleNext {
		e.forget(p)
	}
}

// sweepAt is when sweep should run next: rarely enough that it finds many to forget.
func (e *Engine) sweepAt() (at Instant, ok bool) {
	if e.tombstones.len() > 0 {
		at, ok = e.tombstones.front().ends.Add(e.config.TombstoneLife/4), true
	}
	if e.graveEnds.len() > 0 {
		if t := e.graveEnds.front().ends.Add(e.config.UnackedLife / 4); !ok || t < at {
			at, ok = t, true
		}
	}
	if p := e.idle.idleNext; p != &e.idle {
		if t := p.idleSince.Add(e.config.PeerIdle + e.config.PeerIdle/8); !ok || t < at {
			at, ok = t, true
		}
	}
	return at, ok
}
