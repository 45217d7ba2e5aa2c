package simnet

import (
	"net/netip"
	"sync/atomic"
)

// Stats counts datagrams. As long as nothing moves,
//
//	Sent + Duplicated + Injected = Delivered + all drops + InFlight
//
// and Delivered = read + TooShort + what waits in sockets.
type Stats struct {
	Sent       uint64 // by sockets
	SentBytes  uint64 // payload of these
	Injected   uint64
	Delivered  uint64 // put into a socket's queue
	InFlight   uint64 // delayed, at this moment
	Duplicated uint64
	Reordered  uint64
	Corrupted  uint64

	// Drops, by reason.
	Lost       uint64 // Link.Loss
	Blackholed uint64 // Link.Blackhole
	TooBig     uint64 // Link.MTU
	QueueFull  uint64 // Link.Queue
	Tapped     uint64 // the tap said no
	NoSocket   uint64 // nobody at the address when it arrived, or Net closed
	Overflow   uint64 // the socket's queue was full

	// TooShort counts datagrams that did not fit the reader's buffer.
	TooShort uint64
}

type counters struct {
	sent, sentBytes, injected, delivered atomic.Uint64
	duplicated, reordered, corrupted     atomic.Uint64
	lost, blackholed, tooBig, queueFull  atomic.Uint64
	tapped, noSocket, overflow, tooShort atomic.Uint64
}

func (c *counters) addTo(s *Stats) {
	s.Sent += c.sent.Load()
	s.SentBytes += c.sentBytes.Load()
	s.Injected += c.injected.Load()
	s.Delivered += c.delivered.Load()
	s.Duplicated += c.duplicated.Load()
	s.Reordered += c.reordered.Load()
	s.Corrupted += c.corrupted.Load()
	s.Lost += c.lost.Load()
	s.Blackholed += c.blackholed.Load()
	s.TooBig += c.tooBig.Load()
	s.QueueFull += c.queueFull.Load()
	s.Tapped += c.tapped.Load()
	s.NoSocket += c.noSocket.Load()
	s.Overflow += c.overflow.Load()
	s.TooShort += c.tooShort.Load()
}

// Stats returns the sum over all directions and of what was injected.
func (n *Net) Stats() Stats {
	var s Stats
	s.InFlight = n.sched.inFlight(func(*direction) bool { return true })
	n.loose.addTo(&s)
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, d := range n.dirs {
		d.addTo(&s)
	}
	return s
}

// LinkStats returns the counters of the direction between two hosts. Injected
// datagrams and TooShort are counted in Net.Stats only.
func (n *Net) LinkStats(from, to netip.Addr) Stats {
	d := n.direction(hosts{from.Unmap(), to.Unmap()})
	s := Stats{InFlight: n.sched.inFlight(func(x *direction) bool { return x == d })}
	d.addTo(&s)
	return s
}
