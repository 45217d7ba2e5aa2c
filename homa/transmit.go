package homa

import (
	"net/netip"
	"time"

	"github.com/tougw/tougw/homa/wire"
)

// Outgoing is a packet to send.
type Outgoing struct {
	// To is the peer's address; an IPv4 address is plain, not mapped into IPv6.
	To netip.Addr
	// Priority is the level at which switches should serve it: 0 to 7, the highest.
	Priority uint8
	// Packet is the buffer given to Transmit with the Homa packet appended, from its
	// common header on. It is the caller's.
	Packet []byte
	// Type is the packet's, and DataLength the number of message bytes in it.
	Type       wire.Type
	DataLength int
	// Version is the peer's; it decides the IP protocol number.
	Version wire.Version
	// RPC is the one it belongs to, nil if none. First: it holds byte 0 of a request.
	RPC   *RPC
	First bool
}

// maxRaw bounds control packets that wait and belong to no RPC.
const maxRaw = 4096

// rawControl is a control packet that belongs to no RPC, or may outlive it.
type rawControl struct {
	kind                wire.Type
	to                  netip.Addr
	peer                *peer // nil: one without state
	version             wire.Version
	source, destination uint16
	id                  uint64 // 0: an ACK for what is noted at the peer
}

// controlItem is an RPC with control packets to send, or a rawControl.
type controlItem struct {
	rpc *RPC
	raw rawControl
}

func (e *Engine) queueControl(r *RPC, c control) {
	r.controls |= c
	if !r.queued {
		r.queued = true
		e.controls.push(controlItem{rpc: r})
	}
}

// queueResend asks for what is missing of the message that r receives.
func (e *Engine) queueResend(r *RPC) {
	r.asked = e.tick
	if r.controls&controlResend == 0 {
		r.in.round.begin(r.in.received)
		e.queueControl(r, controlResend)
	}
}

// pushRaw queues a control packet, if there are not too many.
func (e *Engine) pushRaw(raw rawControl) bool {
	if e.numRaw >= maxRaw {
		e.stats.DropTransmit++
		return false
	}
	if raw.peer != nil {
		raw.version = raw.peer.config.Version
	}
	e.numRaw++
	e.controls.push(controlItem{raw: raw})
	return true
}

// beginSend starts r's message.
func (e *Engine) beginSend(r *RPC, length int) {
	m := &r.out
	e.birth++
	m.length, m.birth = length, e.birth
	m.unscheduled = min(length, r.peer.config.Unscheduled)
	m.granted = m.unscheduled
	m.announce = m.unscheduled == 0
	if e.config.Virtual {
		m.written = length
		m.memory.admitted = true
	} else {
		m.memory.bytes = shareOf(length)
		m.content.init(&e.chunks, &e.send.held, length)
	}
	e.updateSend(r)
}

// updateSend puts r among those with data to send, or takes it out, or moves it.
func (e *Engine) updateSend(r *RPC) {
	m := &r.out
	if r.state != Sending || m.resendBytes == 0 && !m.ready(r.peer.config.MaxData) {
		e.sendable.remove(r)
		e.sendableByAge.remove(r)
		return
	}
	key := int64(0)
	if !e.config.SendFIFO {
		key = int64(m.left())
	}
	e.sendable.set(r, key, m.birth)
	if e.config.SendFIFOFraction > 0 && !e.sendableByAge.has(r) {
		e.sendableByAge.set(r, 0, m.birth)
	}
}

// Transmit appends the next packet that may leave to buf and describes it, or
// returns false. Control packets come first, then data: the message with the
// fewest bytes left first, save for the share of the oldest.
func (e *Engine) Transmit(now Instant, buf []byte) (Outgoing, bool) {
	e.touch(now)
	for e.controls.len() > 0 {
		item := e.controls.front()
		if item.rpc == nil {
			e.numRaw--
			raw := e.controls.pop().raw
			if out, ok := e.transmitRaw(&raw, buf); ok {
				return out, true
			}
			continue
		}
		r := item.rpc
		if out, ok := e.transmitControl(r, buf); ok {
			return out, true
		}
		e.controls.pop()
		r.queued = false
	}
	if e.sendable.len() == 0 {
		return Outgoing{}, false
	}
	if e.config.LinkRate > 0 && e.linkIdle > e.now.Add(e.config.MaxBacklog) &&
		e.sendable.top().out.left() > e.config.DeferMin {
		return Outgoing{}, false
	}
	return e.transmitData(e.chooseData(), buf), true
}

// chooseData picks the message to send from: the oldest one for its share.
func (e *Engine) chooseData() *RPC {
	r := e.sendable.top()
	if e.sendableByAge.len() > 0 && e.fifoCredit > 0 {
		if oldest := e.sendableByAge.top(); oldest != r {
			r = oldest
			e.fifoCredit -= 1000 * r.peer.config.MaxData
		}
	}
	return r
}

// finishPacket counts the packet and the time it takes on the link.
func (e *Engine) finishPacket(out Outgoing, before int) Outgoing {
	e.stats.Sent[out.Type-wire.Data]++
	if e.config.NoPriorities {
		out.Priority = 0
	}
	if e.config.LinkRate > 0 {
		size := len(out.Packet) - before
		if e.config.Virtual {
			size += out.DataLength
		}
		e.linkIdle = max(e.linkIdle, e.now).Add(e.linkTime(size, e.config.LinkRate))
	}
	return out
}

// linkTime is how long a Homa packet of size bytes takes on a link of a rate.
func (e *Engine) linkTime(size int, rate int64) time.Duration {
	return time.Duration(float64(size+e.config.LinkOverhead) * 8e9 / float64(rate))
}

func (e *Engine) transmitData(r *RPC, buf []byte) Outgoing {
	m, p := &r.out, r.peer
	k := &e.out
	*k = wire.Packet{
		SrcPort: r.local, DstPort: r.remote, Type: wire.Data, SenderID: r.id,
		Length: uint32(m.length), Incoming: uint32(m.unscheduled), CutoffVersion: p.cutoffVersion,
	}
	var s span
	var priority uint8
	if len(m.resends) > 0 {
		var end int
		s, end = m.nextResend(p.config.MaxData)
		k.Retransmit, k.Incoming, priority = true, uint32(end), m.resendPriority
		e.stats.BytesResent += uint64(s.end - s.start)
		r.stats.BytesResent += uint64(s.end - s.start)
	} else {
		k.Retransmit = m.announce && m.announced
		s = e.nextNew(r)
		k.Ack = p.takeAck()
		if s.start < m.unscheduled || m.unscheduled == 0 && s.start == s.end {
			priority = p.unscheduledPriority(m.length)
			r.stats.UnscheduledPriority = priority
		} else {
			priority = m.priority
			r.stats.ScheduledPriority = priority
		}
		e.stats.BytesSent += uint64(s.end - s.start)
		e.creditFIFO(s.end - s.start)
	}
	k.Offset = uint32(s.start)
	before := len(buf)
	buf = p.config.Version.Append(buf, k)
	if !e.config.Virtual {
		buf = m.content.appendTo(buf, s.start, s.end-s.start)
	}
	r.stats.PacketsSent++
	if !k.Retransmit || !r.client {
		r.heard = e.tick
	}
	e.afterData(r)
	return e.finishPacket(Outgoing{
		To: p.addr, Priority: priority, Packet: buf, Type: wire.Data, DataLength: s.end - s.start,
		Version: p.config.Version, RPC: r, First: r.client && s.start == 0,
	}, before)
}

// nextNew takes the next range to be sent for the first time.
func (e *Engine) nextNew(r *RPC) span {
	m := &r.out
	if m.announce {
		m.announce, m.announced = false, true
		return span{}
	}
	s := span{m.sent, m.packetEnd(r.peer.config.MaxData)}
	m.sent = s.end
	return s
}

// creditFIFO lets the oldest message have its share of what is sent.
func (e *Engine) creditFIFO(n int) {
	if share := e.config.SendFIFOFraction; share > 0 && e.fifoCredit < 100_000_000 {
		if e.fifoCredit += n * share; e.sendable.len() < 2 {
			e.fifoCredit = min(e.fifoCredit, 0)
		}
	}
}

// afterData follows the sending of data of r.
func (e *Engine) afterData(r *RPC) {
	m := &r.out
	if m.sent == m.length && m.resendBytes == 0 {
		if r.stats.Sent == 0 {
			r.stats.Sent = e.now
		}
		if !r.client && r.needAckAt == 0 {
			e.schedule(r, e.tick+1)
		}
	}
	e.wantMore(r)
	e.updateSend(r)
}

// wantMore tells the owner that Write takes bytes again, when half of what it may
// be ahead is free.
func (e *Engine) wantMore(r *RPC) {
	m := &r.out
	if m.short && m.memory.admitted && m.granted+e.config.SendAhead/2 >= m.written {
		m.short = false
		e.pushEvent(r, Writable, nil)
	}
}

// transmitRaw appends a control packet that belongs to no RPC, unless there is no
// need for it any more.
func (e *Engine) transmitRaw(raw *rawControl, buf []byte) (Outgoing, bool) {
	k := &e.out
	*k = wire.Packet{SrcPort: raw.source, DstPort: raw.destination, Type: raw.kind, SenderID: raw.id}
	switch p := raw.peer; {
	case raw.kind == wire.Cutoffs:
		k.Cutoffs, k.CutoffVersion = e.config.Cutoffs, e.config.CutoffVersion
	case raw.kind == wire.Ack && p != nil:
		if raw.id == 0 {
			p.ackPackets--
			a := p.takeAck()
			if a.ClientID == 0 {
				return Outgoing{}, false // data took all of them along
			}
			k.SrcPort, k.DstPort, k.SenderID = a.ClientPort, a.ServerPort, a.ClientID
		}
		k.NumAcks = min(len(p.acks), wire.MaxAcks)
		rest := len(p.acks) - k.NumAcks
		copy(k.Acks[:], p.acks[rest:])
		p.acks = p.acks[:rest]
	}
	before := len(buf)
	return e.finishPacket(Outgoing{
		To: raw.to, Priority: wire.NumPriorities - 1, Packet: raw.version.Append(buf, k),
		Type: raw.kind, Version: raw.version,
	}, before), true
}

// transmitControl appends the next control packet of r, if there is one left.
func (e *Engine) transmitControl(r *RPC, buf []byte) (Outgoing, bool) {
	if r.state == Dead || r.state == Finished {
		return Outgoing{}, false
	}
	k := &e.out
	*k = wire.Packet{SrcPort: r.local, DstPort: r.remote, SenderID: r.id}
	for r.controls != 0 {
		next := r.controls & -r.controls
		if next != controlResend {
			r.controls &^= next
		}
		if !e.fillControl(r, next, k) {
			continue
		}
		before := len(buf)
		return e.finishPacket(Outgoing{
			To: r.peer.addr, Priority: wire.NumPriorities - 1, Type: k.Type, RPC: r,
			Packet: r.peer.config.Version.Append(buf, k), Version: r.peer.config.Version,
		}, before), true
	}
	return Outgoing{}, false
}

// fillControl completes the packet, or returns false if there is no need for it
// any more.
func (e *Engine) fillControl(r *RPC, c control, k *wire.Packet) bool {
	switch c {
	case controlBusy:
		k.Type = wire.Busy
		r.stats.BusySent++
	case controlNeedAck:
		k.Type = wire.NeedAck
	case controlGrant:
		if r.state != Receiving || r.in.complete() {
			return false
		}
		k.Type, k.Offset, k.Priority = wire.Grant, uint32(r.in.granted), r.grantPriority
		r.stats.GrantsSent++
	case controlRestart:
		k.Type, k.RangeLength, k.Priority = wire.Resend, wire.ResendAllLength, wire.NumPriorities-2
		r.stats.ResendsSent++
	case controlResend:
		return e.fillResend(r, k)
	}
	return true
}

// fillResend asks for the next missing range; the request stays until there is none.
func (e *Engine) fillResend(r *RPC, k *wire.Packet) bool {
	k.Type, k.Priority = wire.Resend, wire.NumPriorities-1
	switch {
	case r.state == Sending && r.client:
		// Nothing of the response is here.
		r.controls &^= controlResend
		k.RangeLength = wire.ResendAllLength
		if v := r.peer.config.Version; v == wire.Linux61 || v == wire.Linux610 {
			k.RangeLength = 100
		}
	case r.state == Receiving:
		s, ok := r.in.missing(r.in.round.from)
		if !ok {
			r.controls &^= controlResend
			return false
		}
		if r.in.round.left == 0 {
			r.controls &^= controlResend
			if r.in.granted > r.in.unscheduled {
				// A lost GRANT shows in the end of the range asked for, which this
				// round does not reach.
				r.controls |= controlGrant
			}
			return false
		}
		s = r.in.round.take(s)
		k.Offset, k.RangeLength = uint32(s.start), int32(s.end-s.start)
	default:
		r.controls &^= controlResend
		return false
	}
	r.stats.ResendsSent++
	return true
}
