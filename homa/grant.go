package homa

import "github.com/tougw/tougw/homa/wire"

// granter decides who may send to us. Messages that are longer than their
// unscheduled bytes are managed until they are granted whole: up to MaxOvercommit
// of them are active, in the order of granting, the others wait in the heaps of
// their peers. An active message is granted up to a window beyond what has
// arrived of it, as far as MaxIncoming allows in all.
type granter struct {
	e        *Engine
	active   []*RPC
	waiting  heap[*peer]
	numWait  int
	byAge    heap[*RPC] // managed messages that FIFO grants may go to
	incoming int64      // bytes granted and not received, of grantable messages

	fifoInterval int64 // nanoseconds, 0: no FIFO grants
	fifoAt       Instant
}

func (g *granter) init(e *Engine) {
	g.e = e
	g.waiting.id, g.byAge.id = heapPeers, heapGrantAge
	g.active = make([]*RPC, 0, e.config.MaxOvercommit)
	c := &e.config
	if c.FIFOGrantFraction > 0 {
		rate := max(c.GrantRate*int64(c.FIFOGrantFraction)/1000, 1)
		g.fifoInterval = max(int64(float64(c.FIFOGrantIncrement)*8e9/float64(rate)), 1)
	}
}

// key orders messages for granting: fewest missing bytes first, then the oldest.
func (g *granter) key(r *RPC) int64 {
	if g.e.config.GrantFIFO {
		return 0
	}
	return int64(r.in.length - r.in.received)
}

func (g *granter) outranks(a, b *RPC) bool {
	x, y := g.key(a), g.key(b)
	return x < y || x == y && a.in.birth < b.in.birth
}

// window is how far an active message is granted beyond what came, with n active.
func (g *granter) window(n int) int {
	if w := g.e.config.GrantWindow; w > 0 {
		return w
	}
	return max(g.e.config.MaxIncoming/(n+1), 1)
}

// step is by how much r is granted more at least. Neither its sender nor its reader
// may run dry meanwhile.
func (g *granter) step(r *RPC, window int) int {
	step := min(g.e.config.GrantStep, window/2, r.in.length-r.in.granted)
	if r.in.window < r.in.length {
		step = min(step, r.in.window/4)
	}
	return max(step, 1)
}

// begin takes a message that has just become known and is admitted.
func (g *granter) begin(r *RPC) {
	if r.peer.config.Version == wire.Stripped || r.in.granted >= r.in.length {
		return
	}
	r.in.grantable = true
	g.account(r)
	g.manage(r)
}

// account brings the message's part of incoming up to date.
func (g *granter) account(r *RPC) {
	now := 0
	if r.in.grantable {
		now = max(r.in.granted-r.in.received, 0)
	}
	g.incoming += int64(now - r.in.incoming)
	r.in.incoming = now
}

// arrived follows the arrival of data.
func (g *granter) arrived(r *RPC) {
	if !r.in.grantable {
		return
	}
	if r.in.complete() {
		g.finish(r)
		return
	}
	g.account(r)
	switch {
	case !r.in.managed:
		if !r.in.parked && r.in.granted < r.in.length {
			g.manage(r)
		}
	case r.in.slot >= 0:
		g.raise(r)
	default:
		g.enqueue(r)
		g.promote(r)
	}
	if r.in.managed {
		g.age(r)
	}
	g.issue()
}

// finish ends granting for a message, whatever its state.
func (g *granter) finish(r *RPC) {
	if !r.in.grantable {
		return
	}
	g.unmanage(r)
	r.in.grantable = false
	g.account(r)
	g.issue()
}

// manage makes a message active or lets it wait.
func (g *granter) manage(r *RPC) {
	if r.in.managed || !r.in.grantable || r.in.granted >= r.in.length {
		return
	}
	r.in.managed = true
	g.age(r)
	if !g.place(r) {
		g.enqueue(r)
	}
}

// place makes r active if there is room or if it may displace another.
func (g *granter) place(r *RPC) bool {
	if len(g.active) == cap(g.active) {
		victim := g.victim(r)
		if victim == nil {
			return false
		}
		g.deactivate(victim)
		g.enqueue(victim)
	}
	r.peer.active++
	g.active = append(g.active, r)
	r.in.slot = len(g.active) - 1
	g.raise(r)
	if r.peer.waiting.len() > 0 {
		g.adjust(r.peer)
	}
	return true
}

// victim is the active message to give way to r: of the peers with most active
// messages the lowest in rank; nil if r ought to wait.
func (g *granter) victim(r *RPC) *RPC {
	var victim *RPC
	most := 0
	for _, a := range g.active {
		n := a.peer.active
		if a.peer == r.peer {
			n++
		}
		if n >= most { // later ones rank lower
			victim, most = a, n
		}
	}
	if most > r.peer.active+1 || g.outranks(r, victim) {
		return victim
	}
	return nil
}

// raise moves an active message forward to its rank.
func (g *granter) raise(r *RPC) {
	i := r.in.slot
	for i > 0 && g.outranks(r, g.active[i-1]) {
		g.active[i] = g.active[i-1]
		g.active[i].in.slot = i
		i--
	}
	g.active[i] = r
	r.in.slot = i
}

func (g *granter) deactivate(r *RPC) {
	r.peer.active--
	copy(g.active[r.in.slot:], g.active[r.in.slot+1:])
	last := len(g.active) - 1
	g.active[last] = nil
	g.active = g.active[:last]
	for i := r.in.slot; i < last; i++ {
		g.active[i].in.slot = i
	}
	r.in.slot = -1
	if r.peer.waiting.len() > 0 {
		g.adjust(r.peer)
	}
}

// enqueue puts a message, or moves it, where it waits to become active.
func (g *granter) enqueue(r *RPC) {
	if !r.peer.waiting.has(r) {
		g.numWait++
	}
	r.peer.waiting.set(r, g.key(r), r.in.birth)
	g.adjust(r.peer)
}

func (g *granter) dequeue(r *RPC) {
	if r.peer.waiting.has(r) {
		g.numWait--
		r.peer.waiting.remove(r)
		g.adjust(r.peer)
	}
}

// adjust puts a peer where it belongs among those with waiting messages: fewest
// active messages first, then by the rank of its first one.
func (g *granter) adjust(p *peer) {
	if p.waiting.len() == 0 {
		g.waiting.remove(p)
		return
	}
	first := p.waiting.items[0]
	g.waiting.set(p, int64(p.active)<<40+first.key, first.tie)
}

// promote makes a waiting message active that has risen in rank, if it may.
func (g *granter) promote(r *RPC) {
	if r.peer.waiting.top() == r && g.place(r) {
		g.dequeue(r)
	}
}

// refill fills free places with waiting messages.
func (g *granter) refill() {
	for len(g.active) < cap(g.active) && g.waiting.len() > 0 {
		r := g.waiting.top().waiting.top()
		g.dequeue(r)
		g.place(r)
	}
}

// unmanage takes a message out; it gets no grants until it is managed again.
// Bytes that it was granted and that did not come no longer count.
func (g *granter) unmanage(r *RPC) {
	if !r.in.managed {
		return
	}
	r.in.managed = false
	g.byAge.remove(r)
	if r.in.slot >= 0 {
		g.deactivate(r)
		g.refill()
	} else {
		g.dequeue(r)
	}
	g.incoming -= int64(r.in.incoming)
	r.in.incoming = 0
}

// stall lets others be granted while the sender of a message says nothing.
func (g *granter) stall(r *RPC) {
	if !r.in.grantable {
		return
	}
	g.unmanage(r)
	g.incoming -= int64(r.in.incoming)
	r.in.incoming = 0
	g.issue()
}

// issue gives out what may be granted, in the order of rank.
func (g *granter) issue() {
	for again := true; again; {
		again = false
		for i := 0; i < len(g.active); i++ {
			room := int64(g.e.config.MaxIncoming) - g.incoming
			if room <= 0 {
				break
			}
			r := g.active[i]
			window := g.window(len(g.active))
			end := min(r.in.received+window, r.in.grantLimit())
			if end-r.in.granted >= g.step(r, window) {
				// The sender may be ahead of its grant: what came needs none.
				g.grant(r, min(max(r.in.granted, r.in.received)+int(room), end), g.priority(i))
			}
			if r.in.granted >= r.in.length || r.in.grantLimit()-r.in.granted < g.step(r, window) {
				// Nothing more to grant, or not before its reader goes on.
				r.in.parked = r.in.granted < r.in.length
				g.retire(r)
				again = true
				break
			}
		}
	}
	if g.fifoInterval > 0 && g.byAge.len() > 0 && g.e.now >= g.fifoAt {
		g.fifo()
	}
}

// retire takes a message out whose granted bytes still count.
func (g *granter) retire(r *RPC) {
	incoming := r.in.incoming
	g.unmanage(r)
	r.in.incoming = incoming
	g.incoming += int64(incoming)
}

func (g *granter) grant(r *RPC, end int, priority uint8) {
	if r.in.satisfied() {
		r.heard = g.e.tick // silence counts from here
	}
	r.in.granted = end
	g.account(r)
	r.grantPriority = priority
	g.e.queueControl(r, controlGrant)
}

// priority is the level for data of the active message of that rank: as few
// levels as there are messages, the lowest ones, so that a newcomer preempts.
func (g *granter) priority(rank int) uint8 {
	top := g.e.config.MaxScheduled
	level := top - rank
	if spare := top + 1 - len(g.active); spare > 0 {
		level -= spare
	}
	return uint8(max(level, 0))
}

// age makes a managed message eligible for FIFO grants.
func (g *granter) age(r *RPC) {
	if g.fifoInterval > 0 && !g.byAge.has(r) && r.in.granted < r.in.length {
		g.byAge.set(r, 0, r.in.birth)
	}
}

// fifo grants to the oldest message, so that long ones are not starved. One that
// does not respond to such grants is passed over until data of it comes.
func (g *granter) fifo() {
	e := g.e
	g.fifoAt = e.now + Instant(g.fifoInterval)
	increment := e.config.FIFOGrantIncrement
	for g.byAge.len() > 0 {
		r := g.byAge.top()
		end := min(r.in.granted+increment, r.in.grantLimit())
		if r.in.incoming >= g.window(len(g.active))+2*increment || end <= r.in.granted {
			g.byAge.remove(r)
			continue
		}
		g.grant(r, end, wire.NumPriorities-2)
		if end == r.in.length {
			g.retire(r)
		}
		return
	}
}
