package tcpip

import (
	_ "unsafe" // for go:linkname

	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// handleConnected is gVisor's work on the segments that are queued at a
// connected endpoint. A goroutine of the stack calls it after it was woken for
// them. Nothing exported does the same in the caller's goroutine, and waking
// another one for each segment, on another processor as a rule, costs more than
// the work itself: a quarter of the processor time of a small message. The
// version of gVisor is pinned, a name that is gone fails the build, and
// TestInline fails when the work is left to the stack's goroutines again.
//
//go:linkname handleConnected gvisor.dev/gvisor/pkg/tcpip/transport/tcp.handleConnected
func handleConnected(ep *tcp.Endpoint)

// queuer is the part of gVisor's TCP that takes a parsed segment for an
// endpoint. It is exported by a type that is not.
type queuer interface {
	QueuePacket(stack.TransportEndpoint, stack.TransportEndpointID, *stack.PacketBuffer)
}

// inliner gives segments to endpoints past the layers that would have to find
// out what is known already, and has them worked on at once, in the calling
// goroutine.
type inliner struct {
	stack *stack.Stack
	tcp   queuer
}

func newInliner(s *stack.Stack) inliner {
	q, _ := s.TransportProtocolInstance(tcp.ProtocolNumber).(queuer)
	return inliner{s, q}
}

// deliver gives pkt to the endpoint that id names, if that is connected and
// nobody is at work on it; false leaves pkt to the stack's own way in. pkt has
// a network header of hlen and a TCP header of tlen bytes, both valid, and its
// checksum needs no look; it stays the caller's. No lock of an endpoint may be held.
func (in inliner) deliver(proto gtcpip.NetworkProtocolNumber, id stack.TransportEndpointID, pkt *stack.PacketBuffer, hlen, tlen int) bool {
	// Options and extension headers are the network layer's to judge.
	if in.tcp == nil || hlen != header.IPv4MinimumSize && proto == header.IPv4ProtocolNumber || hlen != header.IPv6MinimumSize && proto == header.IPv6ProtocolNumber {
		return false
	}
	ep, ok := in.stack.FindTransportEndpoint(proto, tcp.ProtocolNumber, id, nicID).(*tcp.Endpoint)
	if !ok || !connected(ep) {
		return false
	}
	// Whoever holds the lock wakes the stack's goroutine for what was queued
	// meanwhile; to wait here would keep up other flows.
	if !ep.TryLock() {
		return false
	}
	ep.ResumeWork() // unlocks: LockUser wants to do more than lock
	pkt.NetworkProtocolNumber, pkt.TransportProtocolNumber = proto, tcp.ProtocolNumber
	pkt.RXChecksumValidated = true
	pkt.NICID = nicID
	pkt.NetworkHeader().Consume(hlen)
	pkt.TransportHeader().Consume(tlen)
	// An endpoint in use by LockUser is not queued for the stack's goroutine.
	// The mark outlives ResumeWork, which only unlocks, so that the segments
	// are ours; who locks in between and finds them wakes the goroutine after
	// all. UnlockUser takes the mark away, and wakes it for what is left.
	ep.LockUser()
	in.tcp.QueuePacket(ep, id, pkt)
	ep.ResumeWork()
	handleConnected(ep)
	ep.LockUser()
	ep.UnlockUser()
	return true
}

// connected reports whether ep is in a state that handleConnected is for.
func connected(ep *tcp.Endpoint) bool {
	switch tcp.EndpointState(ep.State()) {
	case tcp.StateEstablished, tcp.StateFinWait1, tcp.StateFinWait2, tcp.StateCloseWait, tcp.StateLastAck, tcp.StateClosing:
		return true
	}
	return false
}
