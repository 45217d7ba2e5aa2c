package homa

import (
	"math/bits"
	"time"

	"github.com/tougw/tougw/homa/wire"
)

// Timers count ticks, as the module's do. An RPC has one timer: its next tick at
// which something may be due. Packets that reset the silence of an RPC do not
// touch the timer; when it fires early, it is set again.

const (
	wheelSize = 256
	// lateTicks is how late the owner may be before the time no longer counts.
	lateTicks = 2
	// needAckBurst is how many NEED_ACK go out a tick apart, as the module's all
	// do, before the interval doubles each time, up to needAckInterval ticks.
	needAckBurst    = 10
	needAckInterval = 64
)

// wheel holds RPCs by the tick of their timers. A timer further away than the
// wheel reaches is put at its end and set again from there.
type wheel struct {
	slots [wheelSize]*RPC
	used  [wheelSize / 64]uint64
	count int
	// firing: a slot is being emptied, and may not be filled by timers that belong
	// there a whole turn later.
	firing bool
	due    int64 // no timer is earlier; valid if count > 0
}

func (w *wheel) insert(r *RPC, at int64) {
	r.timerAt = at
	slot := &w.slots[at%wheelSize]
	r.timerPrev, r.timerNext = nil, *slot
	if *slot != nil {
		(*slot).timerPrev = r
	}
	*slot = r
	w.used[at%wheelSize/64] |= 1 << (at % 64)
	if w.count == 0 || at < w.due {
		w.due = at
	}
	w.count++
}

func (w *wheel) remove(r *RPC) {
	at := r.timerAt
	if r.timerPrev != nil {
		r.timerPrev.timerNext = r.timerNext
	} else {
		w.slots[at%wheelSize] = r.timerNext
		if r.timerNext == nil {
			w.used[at%wheelSize/64] &^= 1 << (at % 64)
		}
	}
	if r.timerNext != nil {
		r.timerNext.timerPrev = r.timerPrev
	}
	r.timerAt, r.timerNext, r.timerPrev = 0, nil, nil
	w.count--
}

// next returns the tick of the earliest timer; count must not be 0.
func (w *wheel) next() int64 {
	start := w.due % wheelSize
	word := w.used[start/64] >> (start % 64) << (start % 64)
	for i := start / 64; ; i++ {
		if word != 0 {
			slot := i%int64(len(w.used))*64 + int64(bits.TrailingZeros64(word))
			w.due += (slot - start + wheelSize) % wheelSize
			return w.due
		}
		word = w.used[(i+1)%int64(len(w.used))]
	}
}

// tickAt is the tick that is running at now.
func (e *Engine) tickAt(now Instant) int64 {
	return int64(now.Sub(e.base)/e.config.Tick) + 1
}

// instantOf is the time of a tick.
func (e *Engine) instantOf(tick int64) Instant {
	return e.base.Add(time.Duration(tick-1) * e.config.Tick)
}

// touch sets the time. If the owner is late for a timer, the clock of the timers
// goes on from there: what peers sent meanwhile may still wait to be received.
func (e *Engine) touch(now Instant) {
	if !e.started {
		e.started, e.base = true, now
	}
	e.now = max(now, e.now)
	tick := e.tickAt(e.now)
	if e.wheel.count > 0 && tick > e.wheel.due+lateTicks {
		if due := e.wheel.next(); tick > due+lateTicks {
			e.base = e.base.Add(time.Duration(tick-due) * e.config.Tick)
			tick = due
		}
	}
	e.tick = max(tick, e.tick)
}

// schedule makes the timer of r fire at a tick at the latest.
func (e *Engine) schedule(r *RPC, at int64) {
	if e.wheel.count == 0 && !e.wheel.firing {
		e.fired = max(e.fired, e.tick)
	}
	at = max(at, e.fired+1)
	at = min(at, e.fired+wheelSize-1)
	if r.waits {
		return // asking.go arms it
	}
	if r.timerAt != 0 {
		if r.timerAt <= at {
			return
		}
		e.wheel.remove(r)
	}
	e.wheel.insert(r, at)
}

func (e *Engine) unschedule(r *RPC) {
	e.unwaitPlace(r)
	e.leavePlace(r)
	if r.timerAt != 0 {
		e.wheel.remove(r)
	}
}

// runTimers fires all timers up to the tick that is running.
func (e *Engine) runTimers() {
	for e.wheel.count > 0 {
		tick := e.wheel.next()
		if tick > e.tick {
			break
		}
		e.fired, e.wheel.firing = tick, true
		for e.wheel.slots[tick%wheelSize] != nil {
			r := e.wheel.slots[tick%wheelSize]
			e.wheel.remove(r)
			if next := e.fire(r, tick); next > 0 && r.state != Dead {
				e.schedule(r, next)
			}
		}
		e.wheel.firing = false
	}
	// Not by e.fired: others may have timers at every tick.
	if len(e.askers) > 0 && e.askersServed < e.tick {
		e.fired, e.askersServed = e.tick, e.tick
		e.serveAskers()
	}
	e.fired = max(e.fired, e.tick)
}

// listen makes the silence of an RPC begin now.
func (e *Engine) listen(r *RPC) {
	r.heard, r.credited, r.busy = e.tick, e.tick, e.busy
}

// idleShare is the part of the time, one in so many ticks, that counts as silence
// however busy the link is, so that a peer that is gone is noticed beside others
// that are not.
const idleShare = 16

// credit takes the time in which the link brought data of other messages for what
// it is: no silence. Data of this one may wait in the queue of a switch for all that
// has a higher priority, which on a slow link is longer than time-outs, and what is
// asked for again comes in addition, at the highest.
func (e *Engine) credit(r *RPC, tick int64) {
	passed := time.Duration(tick-r.credited) * e.config.Tick
	r.rest += min(e.busy-r.busy, passed-passed/idleShare)
	ticks := int64(r.rest / e.config.Tick)
	r.rest %= e.config.Tick
	r.heard = min(r.heard+ticks, tick)
	r.resendAt += ticks
	r.credited, r.busy = tick, e.busy
}

// owed reports whether the peer of r, which receives or is a client, ought to send
// something: else its silence does not count.
func (r *RPC) owed() bool {
	switch {
	case r.state == Sending:
		return r.out.sent >= r.out.granted
	case r.in.memory.admitted:
		return !r.in.satisfied()
	}
	return !r.client
}

// fire does what is due for r at a tick and returns when to look again, 0 for
// not at all.
func (e *Engine) fire(r *RPC, tick int64) int64 {
	e.credit(r, tick)
	switch {
	case r.state == Receiving, r.state == Sending && r.client:
		if e.readable(r) > 0 {
			e.announce(r) // little, but it has waited
		}
		if r.owed() {
			r.withheldAt = 0
		} else {
			r.heard = tick
			e.withhold(r, tick)
		}
	case r.state == Sending:
		return e.fireResponse(r, tick)
	default:
		return 0
	}
	c := &r.peer.config
	silent := tick - r.heard
	if silent >= int64(c.TimeoutTicks) {
		e.fail(r, ErrTimeout)
		return 0
	}
	if silent < int64(c.ResendTicks) {
		r.resendAt = r.heard + int64(c.ResendTicks)
	} else if tick >= r.resendAt {
		r.resendAt = tick + int64(c.ResendInterval)
		switch {
		case r.state == Receiving && !r.in.memory.admitted: // it would be dropped
		case e.mayAsk(r, tick):
			e.ask(r)
		case r.waits:
			return 0
		}
	}
	return min(r.resendAt, r.heard+int64(c.TimeoutTicks), tick+int64(c.ResendTicks))
}

// withholdTicks is how often the sender of a response is told that this side is
// there, at least: a quarter of the patience that it has by default.
const withholdTicks = defaultResponseTimeout / 4

// withhold tells a server now and then that its client is there though nothing can
// be granted, mostly because the application does not read. A client that waits for
// grants asks by itself.
func (e *Engine) withhold(r *RPC, tick int64) {
	switch {
	case !r.client || r.state != Receiving:
	case r.withheldAt == 0:
		r.withheldAt = tick
	case tick-r.withheldAt >= min(withholdTicks, int64(r.peer.config.ResponseTimeoutTicks)/4):
		r.withheldAt = tick
		e.queueControl(r, controlBusy) // unlike GRANT, all versions know it
	}
}

// fireResponse is fire for a server that sends a response.
func (e *Engine) fireResponse(r *RPC, tick int64) int64 {
	c, m := &r.peer.config, &r.out
	if m.sent < m.granted {
		r.heard = tick
		return tick + int64(c.ResendTicks)
	}
	patience := int64(c.ResponseTimeoutTicks)
	if m.sent == m.length {
		patience = int64(c.AckTimeoutTicks)
	}
	if tick-r.heard >= patience {
		e.fail(r, ErrTimeout)
		return 0
	}
	if m.sent < m.length {
		return r.heard + patience
	}
	if r.needAckAt == 0 {
		r.needAckAt = tick + int64(c.AckTicks)
	}
	if tick >= r.needAckAt {
		e.queueControl(r, controlNeedAck)
		r.stats.NeedAcks++
		interval := int64(1)
		if r.needAcks++; r.needAcks >= needAckBurst {
			interval = int64(1) << min(r.needAcks-needAckBurst, 30)
		}
		r.needAckAt = tick + min(interval, needAckInterval)
	}
	return min(r.needAckAt, r.heard+patience)
}

// hear notes that the peer of r is alive. A client that waits for its response, or
// for room for its request, is alive whatever it sends. After BUSY, which says that it
// can take nothing, it is not asked again soon.
func (e *Engine) hear(r *RPC, t wire.Type) {
	waits := !r.client && (r.state == Sending || !r.in.memory.admitted)
	if waits || t == wire.Data || t == wire.Grant || t == wire.Busy {
		r.heard = e.tick
	}
	if next := e.tick + 1 + int64(r.peer.config.AckTicks); !r.client && r.needAcks > 0 && t != wire.Busy {
		r.needAcks = 1
		if r.needAckAt > next {
			r.needAckAt = next
			e.schedule(r, next)
		}
	}
}
