package tcpip

import (
	"encoding/binary"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tougw/tougw/internal/packet"
)

// txQueue is what writing to one queue of the device needs.
type txQueue struct {
	mu    sync.Mutex
	outs  []packet.Out
	parts [][]byte
	one   [1]packet.Out
}

// edgeFlow names a flow of an Edge by what its headers have.
type edgeFlow struct {
	local, remote [16]byte // an IPv4 address in the first four
	ports         uint32
}

// edgePacket is a packet on its way to the device.
type edgePacket struct{ *stack.PacketBuffer }

// flow implements holdable.
func (p edgePacket) flow() edgeFlow {
	ip, th := p.NetworkHeader().Slice(), p.TransportHeader().Slice()
	if len(th) < header.TCPMinimumSize {
		return edgeFlow{}
	}
	f := edgeFlow{ports: binary.BigEndian.Uint32(th)}
	if p.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		copy(f.local[:], ip[12:16])
		copy(f.remote[:], ip[16:20])
	} else {
		copy(f.local[:], ip[8:24])
		copy(f.remote[:], ip[24:40])
	}
	return f
}

// bareAck implements holdable.
func (p edgePacket) bareAck() bool {
	th := p.TransportHeader().Slice()
	return p.Data().Size() == 0 && len(th) >= header.TCPMinimumSize && len(th) <= bareAckLen && th[tcpFlagsOffset] == FlagACK
}

// Release implements holdable.
func (p edgePacket) Release() { p.DecRef() }

// write gives packets of the stack to the device, but for acknowledgements that
// can wait.
func (e *Edge) write(pkts stack.PacketBufferList) int {
	list := pkts.AsSlice()
	if !e.acks.busy.Load() {
		e.writeNow(list)
		return len(list)
	}
	var few [4]edgePacket
	ps := few[:0]
	for _, pkt := range list {
		pkt.IncRef()
		ps = append(ps, edgePacket{pkt})
	}
	for _, p := range e.acks.pass(ps) {
		e.writeNow([]*stack.PacketBuffer{p.PacketBuffer})
		p.Release()
	}
	return len(list)
}

// writeNow gives packets to the device. They come from one endpoint and so go to
// one queue, in order.
func (e *Edge) writeNow(list []*stack.PacketBuffer) {
	q := int(list[0].Hash % uint32(len(e.tx)))
	tx := &e.tx[q]
	tx.mu.Lock()
	defer tx.mu.Unlock()
	outs, parts := tx.outs[:0], tx.parts[:0]
	bytes := 0
	for _, pkt := range list {
		from := len(parts)
		views, skip := pkt.AsViewList()
		for v := views.Front(); v != nil; v = v.Next() {
			b := v.AsSlice()
			if skip >= len(b) {
				skip -= len(b)
				continue
			}
			parts = append(parts, b[skip:])
			skip = 0
		}
		bytes += pkt.Size()
		outs = append(outs, packet.Out{Offload: offload(pkt), Parts: parts[from:len(parts):len(parts)]})
	}
	n, err := e.dev.Write(q, outs)
	if err != nil {
		e.stats.dropWrite.Add(uint64(len(outs) - n))
	}
	e.stats.packetsOut.Add(uint64(n))
	e.stats.bytesOut.Add(uint64(bytes))
	clear(outs)
	clear(parts)
	tx.outs, tx.parts = outs, parts
}

// send gives one packet that is complete to queue q of the device.
func (e *Edge) send(q int, p packet.Out) bool {
	tx := &e.tx[q]
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.one[0] = p
	n, err := e.dev.Write(q, tx.one[:])
	tx.one[0] = packet.Out{}
	if err != nil || n == 0 {
		e.stats.dropWrite.Add(1)
		return false
	}
	e.stats.packetsOut.Add(1)
	return true
}

// offload describes what is left to do on a packet of the stack.
func offload(pkt *stack.PacketBuffer) packet.Offload {
	g := &pkt.GSOOptions
	if g.Type == stack.GSONone || !g.NeedsCsum {
		return packet.Offload{}
	}
	o := packet.Offload{
		Flags:      packet.NeedsCsum,
		HdrLen:     uint16(pkt.HeaderSize()),
		CsumStart:  g.L3HdrLen,
		CsumOffset: g.CsumOffset,
	}
	if pkt.Data().Size() > int(g.MSS) {
		o.GSOSize = g.MSS
		o.GSOType = packet.GSOTCPv4
		if g.Type == stack.GSOTCPv6 {
			o.GSOType = packet.GSOTCPv6
		}
	}
	return o
}
