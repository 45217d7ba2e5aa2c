package tcpip

import (
	"sync"

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

// write gives packets of the stack to the device. They come from one endpoint
// and so go to one queue, in order.
func (e *Edge) write(pkts stack.PacketBufferList) int {
	list := pkts.AsSlice()
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
	return len(list)
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
