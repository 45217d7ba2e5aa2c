package tunnel

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/tougw/tougw/gue"
)

// share is how many times the sessions that are left free an identity may hold.
// A limit that shrinks with what is free needs no number of peers to be divided
// by, and leaves a place for the next one: k greedy identities get
// share/(1+k*share) of all each.
const share = 8

// sourceKey finds the session of a repeated SYN: by the peer's instance and
// the peer's own id.
type sourceKey struct {
	inst *instance
	id   uint64
}

// Open makes a session for a flow from src to dst through the peer of that
// name: a dialled peer, or a name that a connected peer has proven. It waits
// for an association until ctx ends. The session's id is given to the stack
// for a connect, and must be given back by Release.
//
// Errors: ErrNoPeer when the name is not connected in time, ErrOverload at the
// limit of sessions, ErrDraining when this side or the peer is stopping.
func (n *Node) Open(ctx context.Context, peer string, src, dst netip.AddrPort) (uint64, error) {
	ends := gue.SessionAddrs{Src: src.Addr(), Dst: dst.Addr()}
	if ends.Len() == 0 {
		return 0, fmt.Errorf("tunnel: flow from %v to %v: %w", src, dst, syscall.EAFNOSUPPORT)
	}
	for {
		inst, err := n.waitInstance(ctx, peer)
		if err != nil {
			return 0, err
		}
		if id, err := n.openWith(inst, src, dst); id != 0 || err != nil {
			return id, err
		}
	}
}

// openWith makes a session with inst. It gives 0 and no error when the
// instance has gone meanwhile.
func (n *Node) openWith(inst *instance, src, dst netip.AddrPort) (uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed || n.draining:
		return 0, ErrDraining
	case n.live >= n.cfg.MaxSessions:
		return 0, ErrOverload
	case inst.gone:
		return 0, nil
	}
	s := n.newSession(inst)
	s.initiator, s.src, s.dst = true, src, dst
	return s.id, nil
}

// newSession draws an id and enters the session. Node.mu is held.
func (n *Node) newSession(inst *instance) *session {
	s := &session{inst: inst, opened: time.Now()}
	for {
		s.id = randomUint64()
		if _, taken := n.sessions[s.id]; s.id != 0 && !taken {
			break
		}
	}
	s.lastUse.Store(n.now())
	n.sessions[s.id] = s
	n.live++
	inst.sessions.Add(1)
	n.counters.sessionsOpened.Add(1)
	return s
}

// waitInstance finds the connected instance of a peer's name.
func (n *Node) waitInstance(ctx context.Context, name string) (*instance, error) {
	for {
		n.mu.RLock()
		inst := n.find(name)
		changed := n.changed
		closed := n.closed
		n.mu.RUnlock()
		if closed {
			return nil, ErrDraining
		}
		if inst != nil {
			if l := inst.link.Load(); l != nil {
				if l.draining.Load() {
					return nil, ErrDraining
				}
				return inst, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ErrNoPeer
		}
	}
}

// find picks the instance that carries for name: the dialled peer of that
// name, else the newest association of an identity that has it. The name of a
// dialled peer is ours, so while that one is away nobody who has proven the
// same name stands in for it. Node.mu is held for reading.
func (n *Node) find(name string) *instance {
	for _, p := range n.peers {
		if p.cfg.Name == name {
			return p.inst.Load()
		}
	}
	var best *instance
	var since time.Time
	for _, inst := range n.instances {
		l := inst.link.Load()
		if l != nil && inst.peer == nil && inst.identity.Has(name) && l.since.After(since) {
			best, since = inst, l.since
		}
	}
	return best
}

// Session returns what is known of the session with the own id.
func (n *Node) Session(id uint64) (SessionInfo, bool) {
	if s := n.session(id); s != nil {
		return s.info(), true
	}
	return SessionInfo{}, false
}

func (n *Node) session(id uint64) *session {
	n.mu.RLock()
	s := n.sessions[id]
	n.mu.RUnlock()
	return s
}

// SessionCount returns the number of sessions, closing ones included.
func (n *Node) SessionCount() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.sessions)
}

// Established marks a session as connected at both ends.
func (n *Node) Established(id uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sessions[id]
	if s == nil || s.getState() != opening {
		return
	}
	s.state.Store(uint32(open))
	if !s.initiator {
		s.inst.account.opening--
	}
}

// Release ends a session whose flow has ended here, however it ended. The ids
// stay mapped for late segments for a while. It is idempotent.
func (n *Node) Release(id uint64) { n.close(id, closing, refusedUnspecified) }

// Refuse ends a session that a peer opened, and tells it why: reason is
// compared with the errno values of a failed connect and with this package's
// errors. The reason is told again when the SYN is repeated.
func (n *Node) Refuse(id uint64, reason error) {
	r := refusalOf(reason)
	if s := n.close(id, refused, r); s != nil {
		n.tellRefused(s, r)
	}
}

func (n *Node) tellRefused(s *session, r refusal) {
	if l := s.inst.link.Load(); l != nil {
		l.control(&control{typ: ctlRefused, session: s.remote.Load(), reason: r})
	}
}

// close ends a session and returns it, or nil when it had ended before.
func (n *Node) close(id uint64, to sessionState, r refusal) *session {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sessions[id]
	if s == nil || !s.alive() {
		return nil
	}
	n.uncount(s)
	s.reason.Store(uint32(r))
	s.state.Store(uint32(to)) // after the reason: whoever sees refused reads it
	s.closedAt = n.now()
	n.tombs.push(s)
	if n.tombs.len() > max(n.cfg.MaxSessions, minTombstones) {
		n.forget(n.tombs.pop())
	}
	return s
}

// answer notes the peer's id for a session that this side opened, and reports
// whether it is the first.
func (n *Node) answer(s *session, remote uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !s.remote.CompareAndSwap(0, remote) {
		return false // another receive goroutine was first
	}
	if n.sessions[s.id] == s {
		n.byRemote[sourceKey{s.inst, remote}] = s
	}
	return true
}

// uncount takes a session that ends out of the limits. Node.mu is held.
func (n *Node) uncount(s *session) {
	n.live--
	n.counters.sessionsClosed.Add(1)
	if s.initiator {
		return
	}
	s.inst.account.held--
	if s.getState() == opening {
		s.inst.account.opening--
	}
}

// forget removes a session from the tables, where it may be no more. Node.mu is
// held.
func (n *Node) forget(s *session) {
	if n.sessions[s.id] != s {
		return
	}
	delete(n.sessions, s.id)
	if key := (sourceKey{s.inst, s.remote.Load()}); !s.initiator {
		delete(n.bySource, key)
	} else if n.byRemote[key] == s {
		delete(n.byRemote, key)
	}
	s.inst.sessions.Add(-1)
	if s.alive() {
		n.uncount(s)
	}
}

// expire frees tombstones, and the sessions of instances that stayed away.
func (n *Node) expire(now int64) {
	n.mu.Lock()
	for s := n.tombs.front(); s != nil && time.Duration(now-s.closedAt) > tombstone; s = n.tombs.front() {
		n.tombs.pop()
		if time.Duration(now-s.lastUse.Load()) <= tombstone && n.sessions[s.id] == s {
			s.closedAt = now // it is still in use
			n.tombs.push(s)
			continue
		}
		n.forget(s)
	}
	var away []*instance
	for _, inst := range n.instances {
		if len(inst.links) == 0 && (inst.sessions.Load() == 0 || time.Since(inst.detached) > n.cfg.SessionGrace) {
			away = append(away, inst)
		}
	}
	ids := n.remove(away...)
	n.mu.Unlock()
	n.abort(ids, syscall.ECONNRESET)
}

// abandon ends sessions that peers began to open and that nobody works on.
func (n *Node) abandon(now int64) {
	var ids []uint64
	n.mu.RLock()
	for id, s := range n.sessions {
		if !s.initiator && s.getState() == opening && time.Duration(now-s.lastUse.Load()) > openingIdle {
			ids = append(ids, id)
		}
	}
	n.mu.RUnlock()
	for _, id := range ids {
		n.Release(id)
	}
	n.abort(ids, syscall.ETIMEDOUT)
}

// abort has the stack reset what it has of the sessions.
func (n *Node) abort(ids []uint64, reason error) {
	for _, id := range ids {
		n.cfg.Stack.Abort(id, reason)
	}
}

// fifo is a queue of sessions.
type fifo struct {
	items []*session
	head  int // items[:head] are taken
}

func (q *fifo) len() int { return len(q.items) - q.head }

func (q *fifo) push(s *session) {
	if q.head > len(q.items)/2 { // at least half is free: move at a constant cost
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, s)
}

// front returns the oldest session, nil when there is none.
func (q *fifo) front() *session {
	if q.len() == 0 {
		return nil
	}
	return q.items[q.head]
}

// pop takes the oldest session, which there must be.
func (q *fifo) pop() *session {
	s := q.items[q.head]
	q.items[q.head] = nil
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return s
}
