package homa

import "github.com/tougw/tougw/homa/wire"

// takeCutoffs handles CUTOFFS: how the peer wants unscheduled data to be sent.
func (e *Engine) takeCutoffs(p *peer, k *wire.Packet) {
	if p == nil {
		e.stats.DropUnknown++
		return
	}
	p.cutoffs, p.cutoffVersion, p.haveCutoffs = k.Cutoffs, k.CutoffVersion, true
}

// takeGrant handles GRANT for the message that r sends.
func (e *Engine) takeGrant(r *RPC, k *wire.Packet) {
	e.hear(r, k.Type)
	m := &r.out
	if r.state != Sending {
		return
	}
	r.stats.GrantsReceived++
	m.priority = k.Priority
	if k.ResendAll {
		m.resend(0, m.sent)
		m.resendPriority = wire.NumPriorities - 1
	}
	m.granted = max(m.granted, int(min(k.Offset, uint32(m.length))))
	e.wantMore(r)
	e.updateSend(r)
}

// takeResend answers RESEND: with what was sent of the range, or with BUSY.
func (e *Engine) takeResend(r *RPC, k *wire.Packet) {
	r.stats.ResendsReceived++
	e.hear(r, k.Type)
	m := &r.out
	if r.state != Sending {
		if !r.client {
			e.queueControl(r, controlBusy)
		}
		return // as client: the response has begun, the request is there
	}
	start, end := int(k.Offset), m.sent
	if start >= m.length || k.RangeLength < wire.ResendAllLength {
		// BUSY would keep a receiver waiting that has another length in mind.
		e.stats.DropMalformed++
		return
	}
	if k.RangeLength == 0 {
		e.queueControl(r, controlBusy) // it only asks whether this side is there
		return
	}
	if k.RangeLength != wire.ResendAllLength {
		end = min(start+int(k.RangeLength), m.length)
	}
	m.resend(start, min(end, m.sent))
	m.resendPriority = k.Priority
	if end > m.granted {
		m.granted = end // the grant was lost
		e.wantMore(r)
	}
	if start >= m.sent {
		m.announce = m.announce || m.granted == 0 // the announcement was lost
		e.queueControl(r, controlBusy)
		m.urgent = max(m.urgent, end)
	}
	e.updateSend(r)
}

// takeUnknownCall handles RPC_UNKNOWN of a server: it has nothing of the request.
func (e *Engine) takeUnknownCall(r *RPC) {
	if r.state != Sending || r.restarted == e.tick {
		return
	}
	r.restarted = e.tick
	r.out.announce = r.out.announce || r.out.granted == 0
	r.out.resend(0, r.out.sent)
	r.out.resendPriority = r.peer.unscheduledPriority(r.out.length)
	e.updateSend(r)
}

// takeAcks handles ACK: the client needs neither its RPC nor those in the list.
func (e *Engine) takeAcks(p *peer, k *wire.Packet) {
	e.acked(p, k.SenderID^1)
	for _, a := range k.Acks[:k.NumAcks] {
		e.takeAck(p, a)
	}
}

func (e *Engine) takeAck(p *peer, a wire.AckEntry) {
	if a.ClientID != 0 && a.ClientID%2 == 0 {
		e.acked(p, a.ClientID^1)
	}
}

func (e *Engine) acked(p *peer, id uint64) {
	r := p.served[id]
	if r == nil || isTombstone(r) {
		return
	}
	if r.state != Sending {
		e.fail(r, ErrAbandoned)
		return
	}
	e.stats.Acked++
	e.end(r)
	e.pushEvent(r, Acked, nil)
}

// offerCutoffs tells the sender of data our cutoffs if it uses others.
func (e *Engine) offerCutoffs(r *RPC, k *wire.Packet) {
	p := r.peer
	if k.CutoffVersion == e.config.CutoffVersion || !p.config.Version.Knows(wire.Cutoffs) || e.config.NoPriorities {
		return
	}
	if p.cutoffsEver && e.now < p.cutoffsSent.Add(e.config.CutoffInterval) {
		return
	}
	p.cutoffsEver, p.cutoffsSent = true, e.now
	// Not as control of the RPC, which may be over before this leaves.
	e.pushRaw(rawControl{kind: wire.Cutoffs, peer: p, to: p.addr, source: r.local, destination: r.remote, id: r.id})
}
