package simnet

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultReorderDelay is the value of Link.ReorderDelay when that is zero.
	DefaultReorderDelay = 5 * time.Millisecond
	// DefaultRateQueue is the value of Link.Queue in bytes when that is zero:
	// about a hundred full packets, as small routers have.
	DefaultRateQueue = 150_000
)

// Sizes of the headers before the payload, in bytes.
const (
	overhead4 = 20 + 8
	overhead6 = 40 + 8
)

// Link holds the properties of one direction between two hosts. The zero value
// delivers everything at once. Probabilities are between 0 and 1 and apply to
// each datagram by itself.
type Link struct {
	// Loss is the probability that a datagram vanishes, after it has taken its
	// share of Rate.
	Loss float64
	// Duplicate is the probability that a datagram arrives twice.
	Duplicate float64
	// Corrupt is the probability that one bit of the payload flips.
	Corrupt float64
	// Reorder is the probability that a datagram is held back, for a random
	// time up to ReorderDelay (zero: DefaultReorderDelay), while later ones
	// pass.
	Reorder      float64
	ReorderDelay time.Duration
	// Delay is the time from one end to the other. Jitter is the bound of a
	// random addition to it; it does not change the order of datagrams, only
	// Reorder does.
	Delay, Jitter time.Duration
	// MTU is the largest IP packet in bytes, with headers of 28 (IPv4) or 48
	// (IPv6); larger ones are dropped without a word. Zero is no limit.
	MTU int
	// Rate is in bits of IP packets per second; zero is no limit. Queue is how
	// many bytes may wait for it (zero: DefaultRateQueue); a packet that would
	// exceed it is dropped.
	Rate  int64
	Queue int
	// Blackhole swallows everything.
	Blackhole bool
}

// SetDefault sets the properties of all directions that have none of their
// own.
func (n *Net) SetDefault(l Link) { n.link.Store(&l) }

// SetLink sets the properties of the direction between two hosts, named by the
// addresses that their sockets are bound to. Datagrams on their way keep what
// they were sent with.
func (n *Net) SetLink(from, to netip.Addr, l Link) {
	n.direction(hosts{from.Unmap(), to.Unmap()}).own.Store(&l)
}

// SetBoth sets the properties of both directions between two hosts.
func (n *Net) SetBoth(a, b netip.Addr, l Link) {
	n.SetLink(a, b, l)
	n.SetLink(b, a, l)
}

// Update changes the properties of a direction from what they are. It calls
// change at least once, and again if someone else changed them meanwhile.
func (n *Net) Update(from, to netip.Addr, change func(*Link)) {
	d := n.direction(hosts{from.Unmap(), to.Unmap()})
	for {
		old := d.own.Load()
		l := *d.link()
		change(&l)
		if d.own.CompareAndSwap(old, &l) {
			return
		}
	}
}

// Link returns the properties of a direction.
func (n *Net) Link(from, to netip.Addr) Link {
	return *n.direction(hosts{from.Unmap(), to.Unmap()}).link()
}

// direction is the state of a path in one direction.
type direction struct {
	net *Net
	own atomic.Pointer[Link] // nil: Net.link
	counters

	// mu also keeps datagrams of several senders in one order, from the dice to
	// the receiver's queue.
	mu   sync.Mutex
	dice *rand.Rand
	busy time.Duration // when what was accepted so far has left, by Rate
	last time.Duration // latest arrival, of datagrams in order
	// flying counts datagrams in order that the scheduler holds. As long as
	// there are any, none may take the short way past them.
	flying atomic.Int64
}

func newDirection(n *Net, h hosts) *direction {
	return &direction{net: n, dice: rand.New(rand.NewPCG(uint64(n.cfg.Seed), h.hash()))}
}

// hash is the same in each run (FNV-1a), unlike that of maphash.
func (h hosts) hash() uint64 {
	sum := uint64(14695981039346656037)
	for _, a := range []netip.Addr{h.from, h.to} {
		for _, b := range a.As16() {
			sum = (sum ^ uint64(b)) * 1099511628211
		}
	}
	return sum
}

func (d *direction) link() *Link {
	if l := d.own.Load(); l != nil {
		return l
	}
	return d.net.link.Load()
}

// chance throws the dice only for what can happen, so that a path with one
// fault has the same faults whatever is added to this package.
func (d *direction) chance(p float64) bool { return p > 0 && d.dice.Float64() < p }

// upTo is a random time above zero and not above limit.
func (d *direction) upTo(limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	return 1 + time.Duration(d.dice.Int64N(int64(limit)))
}

// send takes b and brings it to dst, now or later.
func (d *direction) send(b *buffer, src, dst netip.AddrPort) {
	l := d.link()
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Since(d.net.start)
	size := len(b.payload) + overhead4
	if dst.Addr().Is6() {
		size = len(b.payload) + overhead6
	}
	at, drop := d.admit(l, now, size)
	if drop != nil {
		drop.Add(1)
		b.release()
		return
	}
	if len(b.payload) > 0 && d.chance(l.Corrupt) {
		bit := d.dice.IntN(len(b.payload) * 8)
		b.payload[bit/8] ^= 1 << (bit % 8)
		d.corrupted.Add(1)
	}
	var twin *buffer
	if d.chance(l.Duplicate) {
		d.duplicated.Add(1)
		twin = newBuffer(b.payload)
	}
	at += max(0, l.Delay) + d.upTo(l.Jitter)
	ordered := true
	if d.chance(l.Reorder) {
		d.reordered.Add(1)
		ordered = false
		limit := l.ReorderDelay
		if limit <= 0 {
			limit = DefaultReorderDelay
		}
		at = max(at, d.last) + d.upTo(limit)
	} else {
		at = max(at, d.last)
		d.last = at
	}
	d.carry(b, src, dst, now, at, ordered)
	if twin != nil {
		d.carry(twin, src, dst, now, at, ordered)
	}
}

// admit decides whether a packet of size bytes passes and when it has left, or
// returns the counter of what stopped it.
func (d *direction) admit(l *Link, now time.Duration, size int) (left time.Duration, drop *atomic.Uint64) {
	if l.Blackhole {
		return 0, &d.blackholed
	}
	if l.MTU > 0 && size > l.MTU {
		return 0, &d.tooBig
	}
	left = now
	if l.Rate > 0 {
		queue := l.Queue
		if queue <= 0 {
			queue = DefaultRateQueue
		}
		free := max(d.busy, now)
		// In floating point: bytes waiting times the rate may exceed 63 bits.
		waiting := (free - now).Seconds() * float64(l.Rate) / 8
		if free > now && waiting+float64(size) > float64(queue) {
			return 0, &d.queueFull
		}
		d.busy = free + time.Duration(float64(size)*8/float64(l.Rate)*float64(time.Second))
		left = d.busy
	}
	if d.chance(l.Loss) {
		return 0, &d.lost
	}
	return left, nil
}

// carry takes b and delivers it at the time at.
func (d *direction) carry(b *buffer, src, dst netip.AddrPort, now, at time.Duration, ordered bool) {
	if at <= now && d.flying.Load() == 0 {
		d.net.deliver(b, src, dst, &d.counters)
		return
	}
	if ordered {
		d.flying.Add(1)
	}
	d.net.sched.add(flight{at: at, buf: b, src: src, dst: dst, dir: d, ordered: ordered})
}
