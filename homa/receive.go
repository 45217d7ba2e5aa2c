package homa

import (
	"net/netip"

	"github.com/tougw/tougw/homa/wire"
)

// Receive takes a packet from the peer at from: the payload of an IP packet of
// the peer's protocol number. The packet is borrowed. Whatever is wrong with it
// is counted in Stats and has no other effect.
func (e *Engine) Receive(now Instant, from netip.Addr, packet []byte) {
	e.take(now, from, packet, -1)
}

// ReceiveVirtual is Receive for Config.Virtual: packet is as Transmit gave it,
// and dataLength is Outgoing.DataLength.
func (e *Engine) ReceiveVirtual(now Instant, from netip.Addr, packet []byte, dataLength int) {
	e.take(now, from, packet, max(dataLength, 0))
}

func (e *Engine) take(now Instant, from netip.Addr, packet []byte, length int) {
	e.touch(now)
	from = from.Unmap()
	p := e.lookup(from)
	version := e.config.Peer.Version
	if p != nil {
		version = p.config.Version
	} else if len(e.configured) > 0 {
		version = e.peerConfig(from, version).Version
	}
	k := &e.in
	if version.Decode(k, packet) != nil {
		e.stats.DropMalformed++
		return
	}
	e.stats.Received[k.Type-wire.Data]++
	e.packet = packet
	if p != nil {
		p.heard = e.tick
	}
	defer e.giveBack()
	if k.Type == wire.Freeze {
		return
	}
	if k.SenderID < 2 {
		e.stats.DropMalformed++
		return
	}
	if length < 0 || !e.config.Virtual {
		length = len(k.Data)
	}
	dataBytes := len(k.Data)
	if e.config.Virtual {
		k.Data = nil
	}
	if k.Type == wire.Data {
		e.busy += e.linkTime(len(packet)-dataBytes+length, e.config.GrantRate)
	}
	switch {
	case k.Type == wire.Cutoffs:
		e.takeCutoffs(p, k)
	case k.SenderID%2 == 1:
		e.takeAsClient(p, from, version, k, length)
	default:
		e.takeAsServer(p, from, version, k, length)
	}
}

// giveBack forgets the packet that Receive borrowed.
func (e *Engine) giveBack() { e.packet, e.in.Data = nil, nil }

// takeAsClient handles packets of a server.
func (e *Engine) takeAsClient(p *peer, from netip.Addr, version wire.Version, k *wire.Packet, length int) {
	id := k.SenderID ^ 1
	r := e.calls[id]
	if r != nil && r.peer != p {
		r = nil // a stranger's
	}
	if r != nil && (r.local != k.DstPort || r.remote != k.SrcPort) {
		e.stats.DropMismatch++
		return
	}
	if k.Type == wire.Data && k.Ack.ClientID != 0 && p != nil {
		defer e.takeAck(p, k.Ack)
	}
	if r == nil {
		if (k.Type == wire.NeedAck || k.Type == wire.Resend) && e.foreign(k.DstPort) {
			return
		}
		answer := rawControl{peer: p, to: from, version: version, source: k.DstPort, destination: k.SrcPort, id: id}
		switch k.Type {
		case wire.NeedAck:
			answer.kind = wire.Ack
			e.pushRaw(answer)
		case wire.Resend:
			answer.kind = wire.RPCUnknown
			e.pushRaw(answer)
		default:
			e.stats.DropUnknown++
		}
		return
	}
	e.detect(p, k.Type)
	e.leavePlace(r)
	switch k.Type {
	case wire.Data:
		e.takeResponse(r, k, length)
	case wire.Grant:
		e.takeGrant(r, k)
	case wire.Resend:
		e.takeResend(r, k)
	case wire.RPCUnknown:
		e.takeUnknownCall(r)
	case wire.Busy:
		r.stats.BusyReceived++
		e.hear(r, k.Type)
	case wire.NeedAck:
		r.stats.NeedAcks++
		// It comes each tick: one RESEND is enough until data comes or it is time again.
		waits := r.asked > 0 && e.tick < r.asked+int64(r.peer.config.ResendInterval)
		switch {
		case waits:
		case r.state == Receiving && (!r.in.memory.admitted || r.in.satisfied()):
			r.asked = e.tick // there is no room for what is missing
			e.queueControl(r, controlBusy)
		default:
			e.queueResend(r)
		}
	default: // ACK is for servers
		e.stats.DropMismatch++
	}
}

// takeAsServer handles packets of a client.
func (e *Engine) takeAsServer(p *peer, from netip.Addr, version wire.Version, k *wire.Packet, length int) {
	id := k.SenderID ^ 1
	var r *RPC
	if p != nil {
		r = p.served[id]
	}
	repeated := r == nil && e.inGrave(grave{from, id}, k)
	if r == nil || isTombstone(r) {
		if _, ok := e.ports[k.DstPort]; !ok && !e.config.AnyPort {
			if e.foreign(k.DstPort) {
				return
			}
			e.stats.DropPort++
			if e.config.OnUnknownPort != nil {
				e.config.OnUnknownPort(from, e.packet)
			}
			return
		}
	} else if r.local != k.DstPort || r.remote != k.SrcPort {
		e.stats.DropMismatch++
		return
	}
	if p != nil {
		// After the packet itself, which may be for one of the RPCs named.
		switch k.Type {
		case wire.Data:
			defer e.takeAck(p, k.Ack)
		case wire.Ack:
			e.takeAcks(p, k)
			return
		}
	}
	if r == nil && k.Type == wire.Data && !repeated {
		e.takeNewRequest(from, version, k, length)
		return
	}
	if r == nil || isTombstone(r) {
		switch {
		case k.Type == wire.Resend:
			answer := rawControl{kind: wire.RPCUnknown, peer: p, to: from, version: version, source: k.DstPort, destination: k.SrcPort, id: id}
			if r == nil && !repeated && e.overloaded(p) {
				// Its request may have been dropped: let it ask until there is room.
				answer.kind = wire.Busy
			}
			e.pushRaw(answer)
		case k.Type == wire.Data:
			if !repeated {
				p.served[id] = tombstoneHit
			}
			e.stats.DropTombstone++
		default:
			e.stats.DropUnknown++
		}
		return
	}
	e.detect(p, k.Type)
	e.leavePlace(r)
	switch k.Type {
	case wire.Data:
		if r.state != Receiving {
			e.hear(r, k.Type)
			e.stats.DropDuplicate++
			return
		}
		e.takeData(r, k, length)
	case wire.Grant:
		e.takeGrant(r, k)
	case wire.Resend:
		e.takeResend(r, k)
	case wire.RPCUnknown:
		e.fail(r, ErrAbandoned)
	case wire.Busy:
		r.stats.BusyReceived++
		e.hear(r, k.Type)
	default: // NEED_ACK is for clients
		e.stats.DropMismatch++
	}
}

// foreign reports, and counts, that a packet is for another process.
func (e *Engine) foreign(port uint16) bool {
	if e.config.Foreign == nil || !e.config.Foreign(port) {
		return false
	}
	e.stats.DropForeign++
	return true
}

// overloaded reports whether no new request of the client is taken.
func (e *Engine) overloaded(p *peer) bool {
	if p == nil {
		return e.numServed >= e.config.MaxServed || len(e.peers) >= e.config.MaxPeers && e.idle.idleNext == &e.idle
	}
	return e.numServed >= e.config.MaxServed || p.numServed >= e.config.MaxServedPerPeer
}

// validData checks what every DATA packet must satisfy.
func (e *Engine) validData(k *wire.Packet, length int) bool {
	if k.Length < 1 || k.Length > uint32(e.config.MaxMessage) ||
		k.Offset > k.Length || uint32(length) > k.Length-k.Offset {
		e.stats.DropMalformed++
		return false
	}
	return true
}

func (e *Engine) takeNewRequest(from netip.Addr, version wire.Version, k *wire.Packet, length int) {
	if !e.validData(k, length) {
		return
	}
	p := e.lookup(from)
	if e.overloaded(p) {
		e.stats.DropBusy++
		if k.Offset == 0 {
			e.pushRaw(rawControl{kind: wire.Busy, peer: p, to: from, version: version, source: k.DstPort, destination: k.SrcPort, id: k.SenderID ^ 1})
		}
		return
	}
	if p = e.obtain(from); p == nil {
		e.stats.DropBusy++
		return
	}
	p.looked = 0
	e.detect(p, k.Type)
	r := &RPC{engine: e, peer: p, id: k.SenderID ^ 1, local: k.DstPort, remote: k.SrcPort}
	r.in.slot, r.stats.Begun = -1, e.now
	e.ref(p)
	p.served[r.id] = r
	p.link(r)
	p.numServed++
	e.numServed++
	e.stats.Served++
	e.setState(r, Receiving)
	e.listen(r)
	e.schedule(r, e.tick+int64(p.config.ResendTicks))
	e.expect(r, k)
	e.takeData(r, k, length)
}

// takeResponse handles DATA of a server.
func (e *Engine) takeResponse(r *RPC, k *wire.Packet, length int) {
	if r.state == Sending {
		if !e.validData(k, length) {
			return
		}
		// The server has the whole request.
		e.setState(r, Receiving)
		e.releaseSend(r)
		e.expect(r, k)
	}
	e.takeData(r, k, length)
}

// expect learns from the first packet what message is coming, and reserves memory.
func (e *Engine) expect(r *RPC, k *wire.Packet) {
	m := &r.in
	m.length = int(k.Length)
	m.unscheduled = min(m.length, int(min(k.Incoming, maxLength)))
	if r.peer.config.Version == wire.Stripped {
		m.unscheduled = m.length
	}
	m.granted = m.unscheduled
	e.birth++
	m.birth = e.birth
	if e.config.Virtual {
		m.window = m.length
		m.memory.admitted = true
		e.beginReceive(r)
		return
	}
	m.window = e.config.ReceiveWindow
	m.memory.bytes = e.config.receiveShare(m.length)
	if e.receive.reserve(r, &r.peer.receive, &m.memory, m.birth) {
		e.beginReceive(r)
	}
}

// beginReceive follows the admission of a message.
func (e *Engine) beginReceive(r *RPC) {
	if !e.config.Virtual {
		r.in.content.init(&e.chunks, &e.receive.held, r.in.length)
	}
	if !r.client {
		r.announced = true
		e.pushEvent(r, Request, nil)
	}
	e.grants.begin(r)
}

// takeData takes the data of a packet into the message that r receives.
func (e *Engine) takeData(r *RPC, k *wire.Packet, length int) {
	m := &r.in
	switch {
	case int(k.Length) != m.length:
		e.stats.DropMismatch++
		return
	case !e.validData(k, length):
		return
	}
	r.stats.PacketsReceived++
	r.asked = 0
	e.hear(r, k.Type)
	if !m.memory.admitted {
		e.stats.DropNoMemory++
		return
	}
	e.offerCutoffs(r, k)
	if granted := min(m.length, int(min(k.Incoming, maxLength))); granted > m.granted {
		m.granted = granted
	}
	if excess := int(k.Offset) + length - m.limit(); excess > 0 {
		m.dropped = true
		e.stats.DropWindow++
		if length -= excess; length <= 0 {
			return
		}
		if k.Data != nil {
			k.Data = k.Data[:length]
		}
	}
	before := m.received
	gaps, most := len(m.gaps), maxGaps
	if e.numGaps >= maxAllGaps {
		most = 0
	}
	outcome := m.add(int(k.Offset), length, k.Data, most)
	e.numGaps += len(m.gaps) - gaps
	e.stats.BytesReceived += uint64(m.received - before)
	if m.received == before {
		switch {
		case outcome == acceptedTooManyGaps:
			e.stats.DropGaps++
		case length > 0:
			e.stats.DropDuplicate++
		}
		e.grants.issue()
		return
	}
	e.grants.arrived(r)
	if m.complete() {
		e.completeMessage(r)
	} else if n := e.readable(r); n >= m.enough() || n > 0 && r.waits {
		e.announce(r) // at once too if it has no timer now
	} else if n > 0 {
		e.schedule(r, e.tick+lowWaterTicks)
	}
}

// lowWaterTicks is how long little that can be read waits for more. Our choice: on a
// link of 25 Mbit/s 16 KiB come in that time.
const lowWaterTicks = 5

// readable is how many bytes of the message that r receives can be read, 0 if none
// came since Readable.
func (e *Engine) readable(r *RPC) int {
	if m := &r.in; !e.config.Virtual && m.memory.admitted && m.inOrder() > m.announced {
		return m.inOrder() - m.read
	}
	return 0
}

// announce makes the event Readable.
func (e *Engine) announce(r *RPC) {
	r.in.announced = r.in.inOrder()
	e.pushEvent(r, Readable, nil)
}

func (e *Engine) completeMessage(r *RPC) {
	r.stats.Received = e.now
	if r.client {
		e.finishResponse(r)
		return
	}
	e.unschedule(r)
	e.setState(r, InService)
	e.pushEvent(r, Complete, nil)
}
