package homa

import "net/netip"

// level is the counter of live RPCs in r's state.
func (e *Engine) level(r *RPC) *int {
	switch {
	case r.client && r.state == Sending:
		return &e.stats.ClientOutgoing
	case r.client && r.state == Receiving:
		return &e.stats.ClientIncoming
	case r.state == Receiving:
		return &e.stats.ServerIncoming
	case r.state == InService:
		return &e.stats.ServerInService
	case r.state == Sending:
		return &e.stats.ServerOutgoing
	}
	return nil
}

func (e *Engine) setState(r *RPC, s State) {
	if n := e.level(r); n != nil {
		*n--
	}
	r.state = s
	if n := e.level(r); n != nil {
		*n++
	}
}

// releaseSend lets go of the message that r sends.
func (e *Engine) releaseSend(r *RPC) {
	m := &r.out
	e.sendable.remove(r)
	e.sendableByAge.remove(r)
	m.clearResends()
	m.content.dropAll()
	if !e.config.Virtual {
		e.send.cancel(r, &r.peer.send, &m.memory)
	}
}

// releaseReceive lets go of the message that r receives.
func (e *Engine) releaseReceive(r *RPC) {
	m := &r.in
	e.grants.finish(r)
	m.content.dropAll()
	e.numGaps -= len(m.gaps)
	m.gaps = nil
	if !e.config.Virtual {
		e.receive.cancel(r, &r.peer.receive, &m.memory)
	}
	if r.state == Finished && r.inUnread {
		r.inUnread = false
		e.unread--
		e.unref(r.peer)
	}
}

// leave takes r out of the tables: packets for it find nothing any more.
func (e *Engine) leave(r *RPC) {
	p := r.peer
	e.unschedule(r)
	p.unlink(r)
	switch {
	case r.client:
		delete(e.calls, r.id)
		return
	case r.announced:
		e.bury(r)
	default:
		delete(p.served, r.id)
	}
	p.numServed--
	e.numServed--
}

// end makes r dead and releases everything.
func (e *Engine) end(r *RPC) {
	if r.err != nil {
		if r.client {
			e.stats.CallsFailed++
		} else if r.announced {
			e.stats.ServedFailed++
		}
	}
	e.leave(r)
	e.setState(r, Dead)
	e.releaseSend(r)
	e.releaseReceive(r)
	e.unref(r.peer)
}

// fail ends r and tells its owner, if that knows of it.
func (e *Engine) fail(r *RPC, err error) {
	if err == ErrTimeout {
		e.stats.Timeouts++
	}
	r.err = err
	e.end(r)
	if r.client || r.announced {
		e.pushEvent(r, Failed, err)
	}
}

// finishResponse follows the last byte of a response: the RPC is over for the
// protocol, and the server may forget it.
func (e *Engine) finishResponse(r *RPC) {
	e.stats.Completed++
	e.leave(r)
	e.setState(r, Finished)
	e.addAck(r)
	e.pushEvent(r, Complete, nil)
	if e.config.Virtual || r.in.read == r.in.length {
		e.unref(r.peer)
		return
	}
	r.inUnread = true
	e.unread++
}

// sendAdmitted follows the wait of a response for memory.
func (e *Engine) sendAdmitted(r *RPC) { e.wantMore(r) }

// receiveAdmitted follows the wait of a message for memory: what came of it
// meanwhile was dropped.
func (e *Engine) receiveAdmitted(r *RPC) {
	e.beginReceive(r)
	r.heard = e.tick
	e.queueControl(r, controlRestart)
}

// Unreachable takes the news that packets do not get through: it fails the
// calls to port of the peer and forgets RPCs served to that port; port 0 means
// all RPCs with the peer. err is the error of Failed, usually
// ErrPortUnreachable, ErrProtocolUnreachable or ErrHostUnreachable.
func (e *Engine) Unreachable(now Instant, peer netip.Addr, port uint16, err error) {
	e.touch(now)
	p := e.lookup(peer.Unmap())
	if p == nil {
		return
	}
	for r := p.rpcs; r != nil; {
		next := r.peerNext
		if port == 0 || port == r.remote {
			e.fail(r, err)
		}
		r = next
	}
}
