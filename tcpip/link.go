package tcpip

import (
	"sync/atomic"

	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// link is the link endpoint of both stacks: no link header, no addresses, no
// goroutine. What leaves the stack goes to write; what arrives is handed to
// deliver.
type link struct {
	mtu   uint32
	caps  stack.LinkEndpointCapabilities
	gso   uint32 // GSOMaxSize; 0: no segmentation offload
	write func(stack.PacketBufferList) int
	// inline is set once the stack exists, before it gets any packet.
	inline inliner

	dispatcher atomic.Pointer[stack.NetworkDispatcher]
}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)

// deliver hands the packet, a TCP segment with network and TCP headers of hlen
// and tlen bytes, to the stack and takes it. What the segment leads to has
// happened when it returns, unless the endpoint is in use or not connected.
func (l *link) deliver(proto gtcpip.NetworkProtocolNumber, id stack.TransportEndpointID, pkt *stack.PacketBuffer, hlen, tlen int) {
	if !l.inline.deliver(proto, id, pkt, hlen, tlen) {
		if d := l.dispatcher.Load(); d != nil {
			(*d).DeliverNetworkPacket(proto, pkt)
		}
	}
	pkt.DecRef()
}

// WritePackets implements stack.LinkWriter. The stack keeps its reference to
// each packet and holds the endpoint's lock.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, gtcpip.Error) {
	return l.write(pkts), nil
}

// Attach implements stack.NetworkLinkEndpoint.
func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (l *link) IsAttached() bool { return l.dispatcher.Load() != nil }

// SupportedGSO implements stack.GSOEndpoint.
func (l *link) SupportedGSO() stack.SupportedGSO {
	if l.gso == 0 {
		return stack.GSONotSupported
	}
	return stack.HostGSOSupported
}

// GSOMaxSize implements stack.GSOEndpoint.
func (l *link) GSOMaxSize() uint32 { return l.gso }

// MTU implements stack.NetworkLinkEndpoint.
func (l *link) MTU() uint32 { return l.mtu }

// SetMTU implements stack.NetworkLinkEndpoint; the MTU is fixed.
func (l *link) SetMTU(uint32) {}

// MaxHeaderLength implements stack.NetworkLinkEndpoint.
func (l *link) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements stack.NetworkLinkEndpoint.
func (l *link) LinkAddress() gtcpip.LinkAddress { return "" }

// SetLinkAddress implements stack.NetworkLinkEndpoint.
func (l *link) SetLinkAddress(gtcpip.LinkAddress) {}

// Capabilities implements stack.NetworkLinkEndpoint.
func (l *link) Capabilities() stack.LinkEndpointCapabilities { return l.caps }

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements stack.NetworkLinkEndpoint.
func (l *link) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (l *link) ParseHeader(*stack.PacketBuffer) bool { return true }

// Wait implements stack.NetworkLinkEndpoint.
func (l *link) Wait() {}

// Close implements stack.NetworkLinkEndpoint.
func (l *link) Close() {}

// SetOnCloseAction implements stack.NetworkLinkEndpoint.
func (l *link) SetOnCloseAction(func()) {}
