package tcptest

import (
	"gvisor.dev/gvisor/pkg/buffer"
	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tougw/tougw/internal/packet"
)

// hostLink is the link endpoint of a Host.
type hostLink struct{ h *Host }

var (
	_ stack.LinkEndpoint = hostLink{}
	_ stack.GSOEndpoint  = hostLink{}
)

// deliver gives a packet that the Edge wrote to the host's stack.
func (h *Host) deliver(b []byte) {
	if h.cfg.Tap != nil {
		h.cfg.Tap(b)
	}
	h.noteICMP(b)
	proto := header.IPv4ProtocolNumber
	if b[0]>>4 == 6 {
		proto = header.IPv6ProtocolNumber
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	defer pkt.DecRef()
	if d := h.disp.Load(); d != nil {
		(*d).DeliverNetworkPacket(proto, pkt)
	}
}

// noteICMP reports b if it is an ICMP error.
func (h *Host) noteICMP(b []byte) {
	t, ok := packet.ParseTuple(b)
	if !ok {
		return
	}
	off := 40
	if t.Src.Addr().Is4() {
		off = int(b[0]&0xf) * 4
	}
	var isError bool
	switch t.Proto {
	case packet.ProtoICMP:
		isError = b[off] == 3 || b[off] == 11 || b[off] == 12
	case packet.ProtoICMPv6:
		isError = b[off] < 128
	}
	if !isError {
		return
	}
	select {
	case h.icmp <- ICMPError{Src: t.Src.Addr(), Dst: t.Dst.Addr(), Type: b[off], Code: b[off+1], Quote: append([]byte(nil), b[off+8:]...)}:
	default:
	}
}

// WritePackets implements stack.LinkWriter.
func (l hostLink) WritePackets(pkts stack.PacketBufferList) (int, gtcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		var o packet.Offload
		if g := &pkt.GSOOptions; g.Type != stack.GSONone && g.NeedsCsum {
			o = packet.Offload{Flags: packet.NeedsCsum, HdrLen: uint16(pkt.HeaderSize()), CsumStart: g.L3HdrLen, CsumOffset: g.CsumOffset}
			if pkt.Data().Size() > int(g.MSS) {
				o.GSOSize, o.GSOType = g.MSS, packet.GSOTCPv4
				if g.Type == stack.GSOTCPv6 {
					o.GSOType = packet.GSOTCPv6
				}
			}
		}
		v := pkt.ToView()
		l.h.dev.put(pkt.Hash, queued{o, append([]byte(nil), v.AsSlice()...)})
		v.Release()
	}
	return pkts.Len(), nil
}

// Attach implements stack.NetworkLinkEndpoint.
func (l hostLink) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.h.disp.Store(nil)
		return
	}
	l.h.disp.Store(&d)
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (l hostLink) IsAttached() bool { return l.h.disp.Load() != nil }

// SupportedGSO implements stack.GSOEndpoint.
func (l hostLink) SupportedGSO() stack.SupportedGSO {
	if l.h.cfg.TSO {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}

// GSOMaxSize implements stack.GSOEndpoint.
func (l hostLink) GSOMaxSize() uint32 { return 65535 }

// MTU implements stack.NetworkLinkEndpoint.
func (l hostLink) MTU() uint32 { return uint32(l.h.cfg.MTU) }

// SetMTU implements stack.NetworkLinkEndpoint.
func (hostLink) SetMTU(uint32) {}

// MaxHeaderLength implements stack.NetworkLinkEndpoint.
func (hostLink) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements stack.NetworkLinkEndpoint.
func (hostLink) LinkAddress() gtcpip.LinkAddress { return "" }

// SetLinkAddress implements stack.NetworkLinkEndpoint.
func (hostLink) SetLinkAddress(gtcpip.LinkAddress) {}

// Capabilities implements stack.NetworkLinkEndpoint: none, so the host verifies
// every checksum.
func (hostLink) Capabilities() stack.LinkEndpointCapabilities { return 0 }

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (hostLink) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements stack.NetworkLinkEndpoint.
func (hostLink) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (hostLink) ParseHeader(*stack.PacketBuffer) bool { return true }

// Wait implements stack.NetworkLinkEndpoint.
func (hostLink) Wait() {}

// Close implements stack.NetworkLinkEndpoint.
func (hostLink) Close() {}

// SetOnCloseAction implements stack.NetworkLinkEndpoint.
func (hostLink) SetOnCloseAction(func()) {}
