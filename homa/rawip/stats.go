package rawip

import "sync/atomic"

// Stats counts what went through a Conn since Open. Bytes are Homa packets,
// without IP headers.
type Stats struct {
	RecvPackets uint64
	RecvBytes   uint64
	RecvCalls   uint64 // recvmmsg calls that returned something

	SendPackets uint64
	SendBytes   uint64
	SendCalls   uint64 // sendmmsg calls, also those that sent nothing

	// Drops on receipt, in packets.
	RecvDropOverflow   uint64 // by the kernel: receive buffer full
	RecvDropTruncated  uint64 // larger than carrier.MaxPacket, or no valid source
	RecvDropFragmented uint64 // arrived in fragments
	RecvDropForeign    uint64 // to an address that is not in Config.Local

	// Drops on sending, in packets.
	SendDropTooBig  uint64 // above the MTU of the route
	SendDropNoBufs  uint64 // queue of the device full: taken for a loss on the path
	SendDropWait    uint64 // no room in the send buffer within Config.SendWait
	SendDropDenied  uint64 // by the firewall of this host
	SendDropNoRoute uint64 // no route, no such source address, device down
	SendDropFamily  uint64 // to an address of a family that is not open
	SendWaits       uint64 // times that a sender waited for room

	// LinkPriorityDenied counts the times that a value of Config.LinkPriority was
	// refused; packets left with another.
	LinkPriorityDenied uint64

	// ICMP errors received about packets of ours.
	PortUnreachable, ProtocolUnreachable, HostUnreachable, TooBig uint64
	// ICMPIgnored are those of other kinds.
	ICMPIgnored uint64

	// Refusals are ICMP errors sent, RefusalsSuppressed those that the rate limit,
	// the kernel or another process that serves the port held back.
	Refusals, RefusalsSuppressed uint64
}

// counters is the live form of Stats.
type counters struct {
	recvPackets, recvBytes, recvCalls                      atomic.Uint64
	recvDropTruncated, recvDropFragmented, recvDropForeign atomic.Uint64
	portUnreachable, protocolUnreachable, hostUnreachable  atomic.Uint64
	tooBig, icmpIgnored                                    atomic.Uint64

	_ [64]byte // receivers and senders count on different cache lines

	sendPackets, sendBytes, sendCalls                           atomic.Uint64
	sendDropTooBig, sendDropNoBufs, sendDropWait                atomic.Uint64
	sendDropDenied, sendDropNoRoute, sendDropFamily             atomic.Uint64
	sendWaits, refusals, refusalsSuppressed, linkPriorityDenied atomic.Uint64
}

func (c *counters) snapshot() Stats {
	return Stats{
		RecvPackets:         c.recvPackets.Load(),
		RecvBytes:           c.recvBytes.Load(),
		RecvCalls:           c.recvCalls.Load(),
		SendPackets:         c.sendPackets.Load(),
		SendBytes:           c.sendBytes.Load(),
		SendCalls:           c.sendCalls.Load(),
		RecvDropTruncated:   c.recvDropTruncated.Load(),
		RecvDropFragmented:  c.recvDropFragmented.Load(),
		RecvDropForeign:     c.recvDropForeign.Load(),
		SendDropTooBig:      c.sendDropTooBig.Load(),
		SendDropNoBufs:      c.sendDropNoBufs.Load(),
		SendDropWait:        c.sendDropWait.Load(),
		SendDropDenied:      c.sendDropDenied.Load(),
		SendDropNoRoute:     c.sendDropNoRoute.Load(),
		SendDropFamily:      c.sendDropFamily.Load(),
		SendWaits:           c.sendWaits.Load(),
		LinkPriorityDenied:  c.linkPriorityDenied.Load(),
		PortUnreachable:     c.portUnreachable.Load(),
		ProtocolUnreachable: c.protocolUnreachable.Load(),
		HostUnreachable:     c.hostUnreachable.Load(),
		TooBig:              c.tooBig.Load(),
		ICMPIgnored:         c.icmpIgnored.Load(),
		Refusals:            c.refusals.Load(),
		RefusalsSuppressed:  c.refusalsSuppressed.Load(),
	}
}
