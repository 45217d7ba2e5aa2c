package tunnel

import (
	"sync"
	"time"
)

// A segment may come for a session that is unknown here although its sender
// still has it: the two sides had no association for longer than this one keeps
// sessions, or made room for others. Without a word the flow would hang until its
// transport gives up, so the peer is told, and resets it.

const (
	// unknownBurst and unknownEvery bound what one instance is told: that many at
	// once, and one more each time. A thousand a second cost about a thousandth of
	// a processor, and clear the flows of a large peer within a minute.
	unknownBurst = 256
	unknownEvery = time.Millisecond
	// unknownAgain is how long the same id is not told again: a run of segments
	// is answered once.
	unknownAgain = 200 * time.Millisecond
)

// toldUnknown bounds the answers to one instance.
type toldUnknown struct {
	mu   sync.Mutex
	at   int64  // tick at which all may be told again that is told at once
	last uint64 // the session of the last one
	when int64  // its tick; 0 none
}

// allow reports whether the instance may be told of session id now.
func (u *toldUnknown) allow(id uint64, now int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.when != 0 && u.last == id && time.Duration(now-u.when) < unknownAgain {
		return false
	}
	at := max(u.at, now) + int64(unknownEvery)
	if at > now+int64(unknownBurst*unknownEvery) {
		return false
	}
	u.at, u.last, u.when = at, id, now
	return true
}

// tellUnknown tells the peer that its segment found no session. A reset is not
// answered: it ended what there was.
func (l *Link) tellUnknown(inst *instance, id uint64, flags uint8) {
	if flags&tcpRST == 0 && inst.unknown.allow(id, l.node.now()) {
		l.control(&control{typ: ctlUnknown, session: id})
	}
}

// isUnknown resets a session of inst that the peer, whose id for it is remote,
// does not know any more.
func (n *Node) isUnknown(inst *instance, remote uint64) {
	key := sourceKey{inst, remote}
	n.mu.RLock()
	s := n.byRemote[key]
	if s == nil {
		s = n.bySource[key]
	}
	n.mu.RUnlock()
	switch {
	case s == nil:
		n.counters.drops.count(DropUnknownSession)
	case !s.alive():
		n.counters.drops.count(DropClosedSession)
	default:
		n.cfg.Stack.Abort(s.id, errUnknown)
	}
}
