package tcpip

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/buffer"
	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/tougw/tougw/internal/packet"
)

// readBatch is how many packets one Read of the device may give. A device that
// has a packet per system call gives one; more only costs 64 KiB each.
const readBatch = 8

// receive is the reader of queue q: it reads into views of 64 KiB, and gives
// the stack each packet as a small view with its headers and one with the
// payload. It returns the error that ended reading.
func (e *Edge) receive(q int) error {
	var (
		ps    [readBatch]packet.In
		views [readBatch]*buffer.View
	)
	defer func() {
		for _, v := range views {
			if v != nil {
				v.Release()
			}
		}
	}()
	for {
		for i := range views {
			if views[i] == nil {
				views[i] = buffer.NewViewSize(packet.Size)
				ps[i].Buf = views[i].AsSlice()
			}
		}
		n, err := e.dev.Read(q, ps[:])
		e.cfg.Turn.Begin()
		for i := range ps[:n] {
			if e.input(q, &ps[i], views[i]) {
				views[i] = nil
			}
			e.cfg.Turn.Step()
		}
		e.cfg.Turn.End()
		if err != nil {
			return err
		}
	}
}

// input handles one captured packet, which lies in v. It reports whether it
// took v.
func (e *Edge) input(q int, in *packet.In, v *buffer.View) bool {
	p := in.Buf[:in.N]
	e.stats.packetsIn.Add(1)
	e.stats.bytesIn.Add(uint64(len(p)))
	if len(p) == 0 {
		e.stats.dropMalformed.Add(1)
		return false
	}
	var proto gtcpip.NetworkProtocolNumber
	var hlen, size int // of the IP header, of the packet
	switch p[0] >> 4 {
	case 4:
		if len(p) < header.IPv4MinimumSize {
			break
		}
		proto = header.IPv4ProtocolNumber
		hlen, size = int(p[0]&0x0f)*4, int(binary.BigEndian.Uint16(p[2:]))
		if hlen < header.IPv4MinimumSize || hlen > len(p) {
			break
		}
		if checksum.Checksum(p[:hlen], 0) != 0xffff {
			e.stats.dropChecksum.Add(1)
			return false
		}
	case 6:
		if len(p) < header.IPv6MinimumSize {
			break
		}
		proto = header.IPv6ProtocolNumber
		hlen, size = header.IPv6MinimumSize, header.IPv6MinimumSize+int(binary.BigEndian.Uint16(p[4:]))
	}
	if proto == 0 || hlen < header.IPv4MinimumSize || hlen > size || size > len(p) {
		e.stats.dropMalformed.Add(1)
		return false
	}
	return e.inputIP(q, proto, hlen, p[:size], in.Offload, v)
}

// inputIP handles a packet whose IP header, of hlen bytes, is in order.
func (e *Edge) inputIP(q int, proto gtcpip.NetworkProtocolNumber, hlen int, p []byte, off packet.Offload, v *buffer.View) bool {
	t, ok := packet.ParseTuple(p)
	if !ok {
		e.stats.dropMalformed.Add(1)
		return false
	}
	if t.Proto != packet.ProtoTCP {
		e.stats.countOther(t.Proto)
		e.prohibit(q, p)
		return false
	}
	l4 := hlen
	if proto == header.IPv6ProtocolNumber {
		l4, _ = skip6(p)
	}
	// TCP is not fragmented: our SYN-ACK names an MSS that fits the device.
	if fragmented(proto, hlen, p) {
		e.stats.dropFragment.Add(1)
		return false
	}
	if len(p)-l4 < header.TCPMinimumSize {
		e.stats.dropMalformed.Add(1)
		return false
	}
	hdrs := l4 + int(p[l4+12]>>4)*4
	if hdrs < l4+header.TCPMinimumSize || hdrs > len(p) {
		e.stats.dropMalformed.Add(1)
		return false
	}
	// The stack does not look at checksums of this device: the kernel made the
	// packet here, or verified it, if either flag is set.
	if off.Flags&(packet.NeedsCsum|packet.DataValid) == 0 && !tcpValid(proto, p, l4) {
		e.stats.dropChecksum.Add(1)
		return false
	}
	id := stack.TransportEndpointID{
		LocalPort: t.Dst.Port(), LocalAddress: toStack(t.Dst.Addr()),
		RemotePort: t.Src.Port(), RemoteAddress: toStack(t.Src.Addr()),
	}
	if p[l4+tcpFlagsOffset]&(FlagSYN|FlagACK|FlagRST|FlagFIN) == FlagSYN {
		e.endTimeWait(proto, id)
	}
	if e.acks.expects(len(p)-hdrs, p[l4+tcpFlagsOffset]) {
		e.acks.received(flowTo(&t))
	}
	h := buffer.NewViewWithData(p[:hdrs])
	payload, taken := p[hdrs:], false
	buf := buffer.MakeWithView(h)
	var body *buffer.View
	switch {
	case len(payload) > copyBelow:
		v.CapLength(len(p))
		v.TrimFront(hdrs)
		body, taken = v, true
	case len(payload) > 0:
		body = buffer.NewViewWithData(payload)
	}
	// Cannot fail: it only moves bytes between the two views.
	_ = buf.Append(body)
	e.link.deliver(proto, id, stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buf}), l4, hdrs-l4)
	return taken
}

// flowTo names the flow of a captured packet as packets to the device do.
func flowTo(t *packet.Tuple) edgeFlow {
	f := edgeFlow{ports: uint32(t.Dst.Port())<<16 | uint32(t.Src.Port())}
	if t.Dst.Addr().Is4() {
		local, remote := t.Dst.Addr().As4(), t.Src.Addr().As4()
		copy(f.local[:], local[:])
		copy(f.remote[:], remote[:])
		return f
	}
	f.local, f.remote = t.Dst.Addr().As16(), t.Src.Addr().As16()
	return f
}

// endTimeWait makes room for a SYN whose connection is in TIME-WAIT at our end. The
// application knows that its own end is over; gVisor would want a listener to
// hand the SYN to, and drop it (RFC 9293 section 3.6.1).
func (e *Edge) endTimeWait(proto gtcpip.NetworkProtocolNumber, key stack.TransportEndpointID) {
	ep, ok := e.stack.FindTransportEndpoint(proto, tcp.ProtocolNumber, key, nicID).(*tcp.Endpoint)
	if ok && tcp.EndpointState(ep.State()) == tcp.StateTimeWait {
		ep.Abort() // the RST acknowledges nothing that the SYN has sent, and is ignored
	}
}

// fragmented reports whether p is a fragment.
func fragmented(proto gtcpip.NetworkProtocolNumber, hlen int, p []byte) bool {
	if proto == header.IPv4ProtocolNumber {
		return binary.BigEndian.Uint16(p[6:])&0x3fff != 0 // more fragments, or an offset
	}
	next, off := p[6], hlen
	for {
		switch next {
		case 44:
			return binary.BigEndian.Uint16(p[off+2:])&0xfff9 != 0
		case 0, 43, 60:
			next, off = p[off], off+8+int(p[off+1])*8
		case 51:
			next, off = p[off], off+(int(p[off+1])+2)*4
		default:
			return false
		}
	}
}

// tcpValid verifies the TCP checksum of a whole packet whose TCP header is at
// l4.
func tcpValid(proto gtcpip.NetworkProtocolNumber, p []byte, l4 int) bool {
	addrs := p[12:20]
	if proto == header.IPv6ProtocolNumber {
		addrs = p[8:40]
	}
	sum := checksum.Checksum(addrs, uint16(packet.ProtoTCP))
	sum = checksum.Combine(sum, uint16(len(p)-l4))
	return checksum.Checksum(p[l4:], sum) == 0xffff
}
