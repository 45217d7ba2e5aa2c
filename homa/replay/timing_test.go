package replay

import (
	"time"

	"github.com/tougw/tougw/homa/wire"
)

const (
	// tick of the recorded hosts: 1 ms and the run time of their timer thread.
	tick = 1100 * time.Microsecond
	// tolerance is how far timed packets may be apart: a tick, since that is what the
	// unknown phase of the recorded host's timer makes.
	tolerance = tick
)

// match finds the counterpart of a packet among those that left since a time. If it
// is timed, the rest of the recording moves as the engine is off its due time.
func (p *player) match(k *wire.Packet, since, due time.Duration) bool {
	for i := range p.out {
		o := &p.out[i]
		if o.matched || o.at < since || o.homa.Type != k.Type || o.homa.SenderID != k.SenderID ||
			o.homa.SrcPort != k.SrcPort || o.homa.DstPort != k.DstPort {
			continue
		}
		if k.Type == wire.Resend && (o.homa.Offset != k.Offset || o.homa.RangeLength != k.RangeLength ||
			o.homa.Priority != k.Priority && p.version != wire.Stripped) {
			continue
		}
		if k.Type == wire.Cutoffs && (o.homa.Cutoffs != k.Cutoffs || o.homa.CutoffVersion != k.CutoffVersion) {
			continue
		}
		o.matched = true
		if (k.Type == wire.Resend || k.Type == wire.NeedAck) && !p.concurrent() {
			p.shift += o.at - due
		}
		return true
	}
	return false
}

// checkTimed: whatever the recorded host did, the engine asks only after the silence
// that the protocol names, or when it is asked itself.
func (p *player) checkTimed(k *wire.Packet) {
	c := p.clocks[k.SenderID&^1]
	if c == nil {
		c = new(clock)
		p.clocks[k.SenderID&^1] = c
	}
	// Ticks are counted when they begin: a silence of n takes more than n-1. NEED_ACK
	// is two whole ticks later, as the module begins to count at its next tick.
	switch k.Type {
	case wire.Data:
		if !k.Retransmit {
			c.silent, c.data = p.now, p.now
		}
	case wire.Resend:
		restart := k.RangeLength == wire.ResendAllLength && k.Priority == wire.NumPriorities-2
		again := c.asked == p.now && c.asked != 0 // one for each gap
		if p.now < max(c.silent, c.asked)+4*tick && !again && c.needAck != p.now && !restart {
			p.Errorf("%s at %v, last heard at %v, last asked at %v", describe(k), p.now, c.silent, c.asked)
		}
		if c.needAck != p.now { // otherwise the timer goes on as it was
			c.asked = p.now
		}
	case wire.NeedAck:
		if p.now < max(c.data+2*tick, c.asked+tick) {
			p.Errorf("%s at %v, data sent at %v, last asked at %v", describe(k), p.now, c.data, c.asked)
		}
		c.asked = p.now
	}
}

// clock is what the engine's timed packets for an RPC depend on.
type clock struct {
	silent  time.Duration // when DATA, GRANT or BUSY came, or own data left
	data    time.Duration // when own data left for the first time
	asked   time.Duration // by RESEND or NEED_ACK
	needAck time.Duration // when NEED_ACK came
}

// concurrent scenes have calls that do not wait for each other: what moves the
// recording for one would be wrong for the others.
func (s *scene) concurrent() bool {
	return s.is("buffer_stall", "concurrent", "ack_overflow")
}

// expectTimed waits for a packet that the engine sends on its own account. It is
// due some ticks after its cause. The recorded host may be later than that, if its
// emulation stalled; the engine may not be earlier.
func (p *player) expectTimed(ev *event) {
	due := ev.at + p.shift
	since := due - tolerance
	if cause, ticks := p.cause(ev); cause >= 0 {
		since = min(since, cause+p.shift+time.Duration(ticks)*tick-tolerance)
	}
	for {
		if p.match(&ev.homa, since, due) {
			return
		}
		at, ok := p.e.Deadline()
		next := time.Duration(at) - time.Second
		if !ok || next > due+tolerance {
			p.differ(missing, &ev.homa, "")
			return
		}
		p.advance(next)
	}
}

// cause is when the recorded host's silence began, or when it last asked, and how
// many ticks after that it asks; -1 if that was not recorded.
func (p *player) cause(ev *event) (at time.Duration, ticks int) {
	at = -1
	id := ev.homa.SenderID &^ 1
	for i := range p.events {
		e := &p.events[i]
		if e == ev {
			break
		}
		if e.icmp || e.lost && !e.own || e.homa.SenderID&^1 != id {
			continue
		}
		t := e.homa.Type
		switch {
		case e.own && t == ev.homa.Type:
			at, ticks = e.at, 5
			if t == wire.NeedAck {
				ticks = 1
			}
		case ev.homa.Type == wire.Resend && (e.own && t == wire.Data || !e.own && (t == wire.Data || t == wire.Busy || t == wire.Grant)):
			at, ticks = e.at, 5
		case ev.homa.Type == wire.NeedAck && e.own && t == wire.Data:
			at, ticks = e.at, 2
		case ev.homa.Type == wire.Resend && !e.own && t == wire.NeedAck && p.version != wire.Linux61:
			at, ticks = e.at, 0 // what is missing is asked for at once
		}
	}
	return at, ticks
}
