package tcpip

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/buffer"
	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// maxAggregates is how many sessions of one batch coalesce side by side.
	// Each costs a 64 KiB view for the life of the Injector once it was used.
	maxAggregates = 16
	// maxAggregate is the most payload of one injected packet: an IPv6 payload
	// length has 16 bits (RFC 8200 section 3).
	maxAggregate = 1<<16 - 1 - tcpHeaderMax
	// copyBelow is the payload up to which an injected packet gets a view of
	// its own size, so that little data does not pin a 64 KiB view.
	copyBelow = 32 << 10
)

// Injector is where received segments enter a Tunnel. It coalesces consecutive
// segments of a session into large ones, up to 16 sessions side by side, and
// keeps the order within each session. A checksum of zero says that there is
// none: what brought the segment protects it. An Injector belongs to one goroutine;
// several may feed the same Tunnel.
type Injector struct {
	t    *Tunnel
	ids  [maxAggregates]uint64 // apart from aggs: searched for each segment
	aggs [maxAggregates]aggregate
	open int // ids[:open] and aggs[:open] are in use, oldest first

	staged []staged // what Flush gives to the stack, in order
}

// staged is a segment on its way to the stack.
type staged struct {
	id   stack.TransportEndpointID
	pkt  *stack.PacketBuffer
	tlen int // of the TCP header
}

// aggregate is a segment that may still grow.
type aggregate struct {
	hdr  [tcpHeaderMax]byte
	hlen int
	next uint32       // sequence number that continues it
	n    int          // payload bytes
	view *buffer.View // of 64 KiB; payload is its first n bytes
}

// NewInjector gives an Injector for one receiving goroutine.
func (t *Tunnel) NewInjector() *Injector { return &Injector{t: t} }

// Inject takes in the segment (TCP header and payload), which it borrows, of
// session id, the id that this side drew. The segment reaches the stack at the
// next Flush. Malformed segments are counted and dropped.
func (i *Injector) Inject(id uint64, segment []byte) {
	st := &i.t.stats
	if len(segment) < header.TCPMinimumSize {
		st.dropMalformed.Add(1)
		return
	}
	hlen := int(segment[12]>>4) * 4
	if hlen < header.TCPMinimumSize || hlen > len(segment) || len(segment)-hlen > maxAggregate {
		st.dropMalformed.Add(1)
		return
	}
	if binary.BigEndian.Uint16(segment[tcpCsumOffset:]) != 0 && checksum.Checksum(segment, 0) != 0xffff {
		st.dropChecksum.Add(1)
		return
	}
	st.segmentsIn.Add(1)
	st.bytesIn.Add(uint64(len(segment)))

	k := i.find(id)
	hdr, payload := segment[:hlen], segment[hlen:]
	if flags := hdr[tcpFlagsOffset]; len(payload) == 0 || flags&^FlagPSH != FlagACK {
		if k >= 0 {
			i.flush(k)
		}
		i.stage(id, hdr, payload)
		return
	}
	if k >= 0 {
		if i.aggs[k].extend(hdr, payload) {
			return
		}
		i.flush(k)
	}
	if i.open == maxAggregates {
		i.flush(0)
	}
	i.ids[i.open] = id
	i.aggs[i.open].begin(hdr, payload)
	i.open++
}

// Flush hands everything to the stack, which works on it before Flush returns.
// It is to be called at the end of each batch that was received, without any
// lock that the functions of SetNotify, the Tunnel's out function or its Turn
// take.
func (i *Injector) Flush() {
	for k := range i.open {
		i.deliver(k)
	}
	i.open = 0
	if len(i.staged) == 0 {
		return
	}
	turn := i.t.cfg.Turn
	turn.Begin()
	for _, s := range i.staged {
		i.t.link.deliver(header.IPv6ProtocolNumber, s.id, s.pkt, header.IPv6MinimumSize, s.tlen)
		turn.Step()
	}
	turn.End()
	clear(i.staged)
	i.staged = i.staged[:0]
}

func (i *Injector) find(id uint64) int {
	for k, v := range i.ids[:i.open] {
		if v == id {
			return k
		}
	}
	return -1
}

// flush delivers aggregate k and closes the gap, keeping its view.
func (i *Injector) flush(k int) {
	i.deliver(k)
	spare := i.aggs[k].view
	copy(i.ids[k:i.open], i.ids[k+1:i.open])
	copy(i.aggs[k:i.open], i.aggs[k+1:i.open])
	i.open--
	i.aggs[i.open].view = spare
}

// deliver stages aggregate k.
func (i *Injector) deliver(k int) {
	a := &i.aggs[k]
	if i.t.acks.expects(a.n, a.hdr[tcpFlagsOffset]) {
		i.t.acks.received(i.ids[k])
	}
	if a.n <= copyBelow {
		i.stage(i.ids[k], a.hdr[:a.hlen], a.view.AsSlice()[:a.n])
		return
	}
	v := a.view
	a.view = nil
	v.CapLength(a.n)
	i.stageView(i.ids[k], a.hdr[:a.hlen], v)
}

// begin makes a the aggregate of one segment.
func (a *aggregate) begin(hdr, payload []byte) {
	if a.view == nil {
		a.view = buffer.NewViewSize(buffer.MaxChunkSize)
	}
	a.hlen = copy(a.hdr[:], hdr)
	a.n = copy(a.view.AsSlice(), payload)
	a.next = binary.BigEndian.Uint32(hdr[tcpSeqOffset:]) + uint32(a.n)
}

// extend appends a segment that continues a: next in sequence and with the same
// ports, acknowledgement, window, urgent pointer and options. The caller made
// sure that the flags of both are ACK, with or without PSH.
func (a *aggregate) extend(hdr, payload []byte) bool {
	if binary.BigEndian.Uint32(hdr[tcpSeqOffset:]) != a.next || len(hdr) != a.hlen ||
		a.n+len(payload) > maxAggregate || !sameHeader(a.hdr[:a.hlen], hdr) {
		return false
	}
	a.hdr[tcpFlagsOffset] |= hdr[tcpFlagsOffset]
	a.n += copy(a.view.AsSlice()[a.n:], payload)
	a.next += uint32(len(payload))
	return true
}

// sameHeader compares two TCP headers of the same length but for sequence
// number, flags and checksum.
func sameHeader(a, b []byte) bool {
	return string(a[:tcpSeqOffset]) == string(b[:tcpSeqOffset]) &&
		string(a[8:tcpFlagsOffset]) == string(b[8:tcpFlagsOffset]) &&
		string(a[14:tcpCsumOffset]) == string(b[14:tcpCsumOffset]) &&
		string(a[18:]) == string(b[18:])
}

// stage stages a segment whose header and payload it copies.
func (i *Injector) stage(id uint64, hdr, payload []byte) {
	var v *buffer.View
	if len(payload) > 0 {
		v = buffer.NewViewWithData(payload)
	}
	i.stageView(id, hdr, v)
}

// stageView stages a segment; it copies hdr and takes payload, nil if there
// is none. The headers get a view of their own: the stack makes a private copy
// of the whole chunk that headers lie in.
func (i *Injector) stageView(id uint64, hdr []byte, payload *buffer.View) {
	size := len(hdr) + payload.Size()
	v := buffer.NewViewSize(header.IPv6MinimumSize + len(hdr))
	b := v.AsSlice()
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(size))
	b[6] = uint8(header.TCPProtocolNumber)
	b[7] = 64 // hop limit
	binary.BigEndian.PutUint64(b[8:], remotePrefix)
	binary.BigEndian.PutUint64(b[16:], id)
	binary.BigEndian.PutUint64(b[24:], localPrefix)
	binary.BigEndian.PutUint64(b[32:], id)
	copy(b[header.IPv6MinimumSize:], hdr)

	buf := buffer.MakeWithView(v)
	if payload != nil {
		// Cannot fail: it only moves bytes between the two views.
		_ = buf.Append(payload)
	}
	i.t.stats.injected.Add(1)
	i.staged = append(i.staged, staged{
		id: stack.TransportEndpointID{
			LocalPort: binary.BigEndian.Uint16(hdr[2:]), LocalAddress: gtcpip.AddrFrom16Slice(b[24:40]),
			RemotePort: binary.BigEndian.Uint16(hdr), RemoteAddress: gtcpip.AddrFrom16Slice(b[8:24]),
		},
		pkt:  stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buf}),
		tlen: len(hdr),
	})
}
