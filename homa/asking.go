package homa

// A host that is slow to serve many RPCs must not be kept from it by all of them
// asking every few ticks, which is what the module does. (Against a slow host, 50
// calls at a time that all asked made two of three fail.) Of the RPCs with one
// peer only PeerConfig.ResendLimit have a RESEND unanswered at a time, each for a
// fifth of the time-out at most. The others wait their turn; places that became
// free are given out at the next tick. The time that an RPC waits does not count
// as silence, up to when the peer was last heard at all.

// silent reports that the peer has said nothing for half of its time-out.
func (p *peer) silent(tick int64) bool { return tick-p.heard >= int64(p.config.TimeoutTicks+1)/2 }

// mayAsk takes a place for r's RESEND, or lets r wait for one (r.waits), or neither
// if the peer says nothing.
func (e *Engine) mayAsk(r *RPC, tick int64) bool {
	p := r.peer
	if r.place && tick >= r.placeEnds && p.firstAsker != nil {
		e.leavePlace(r)
	}
	if r.place {
		return true
	}
	if p.asking < p.config.ResendLimit && p.firstAsker == nil {
		e.takePlace(r, tick)
		return true
	}
	if !p.silent(tick) {
		e.waitPlace(r, tick)
	}
	return false
}

func (e *Engine) takePlace(r *RPC, tick int64) {
	r.place, r.placeEnds = true, tick+int64(r.peer.config.TimeoutTicks)/5
	r.peer.asking++
}

// leavePlace follows an answer to r's RESEND, or r's end.
func (e *Engine) leavePlace(r *RPC) {
	if r.place {
		r.place = false
		r.peer.asking--
	}
}

// waitPlace puts r, whose timer is not armed, at the end of those that wait.
func (e *Engine) waitPlace(r *RPC, tick int64) {
	p := r.peer
	r.waits, r.waitSince = true, tick
	r.timerPrev, r.timerNext = p.lastAsker, nil
	if p.lastAsker != nil {
		p.lastAsker.timerNext = r
	} else {
		p.firstAsker = r
	}
	p.lastAsker = r
	if !p.inAskers {
		p.inAskers = true
		e.askers = append(e.askers, p)
	}
}

func (e *Engine) unwaitPlace(r *RPC) {
	if !r.waits {
		return
	}
	p := r.peer
	if r.timerPrev != nil {
		r.timerPrev.timerNext = r.timerNext
	} else {
		p.firstAsker = r.timerNext
	}
	if r.timerNext != nil {
		r.timerNext.timerPrev = r.timerPrev
	} else {
		p.lastAsker = r.timerPrev
	}
	r.waits, r.timerPrev, r.timerNext = false, nil, nil
}

// serveAskers gives out the places that are free, once a tick.
func (e *Engine) serveAskers() {
	kept := e.askers[:0]
	for _, p := range e.askers {
		silent := p.silent(e.tick)
		for p.firstAsker != nil && (silent || p.asking < p.config.ResendLimit) {
			e.serveAsker(p.firstAsker, silent)
		}
		if p.inAskers = p.firstAsker != nil; p.inAskers {
			kept = append(kept, p)
		}
	}
	clear(e.askers[len(kept):])
	e.askers = kept
}

// serveAsker ends the wait of r: it asks, unless its peer says nothing any more or
// has just said something to r.
func (e *Engine) serveAsker(r *RPC, silent bool) {
	since := max(r.waitSince, r.heard) // silence before does not count any more
	e.unwaitPlace(r)
	c := &r.peer.config
	late := e.tick-r.heard >= int64(c.ResendTicks)
	r.heard += max(min(e.tick, r.peer.heard)-since, 0)
	switch {
	case silent:
		r.resendAt = e.tick
	case late && r.owed() && (r.state == Sending || r.in.memory.admitted):
		r.credited, r.busy = e.tick, e.busy
		r.resendAt = e.tick + int64(c.ResendInterval)
		e.takePlace(r, e.tick)
		e.ask(r)
	}
	e.schedule(r, e.tick+int64(min(c.ResendTicks, c.ResendInterval)))
}

// ask sends a RESEND, and lets others be granted while the peer says nothing.
func (e *Engine) ask(r *RPC) {
	e.queueResend(r)
	e.grants.stall(r)
}
