package tcpip

import (
	"sync/atomic"

	"github.com/tougw/tougw/internal/packet"
)

// TunnelStats counts what a Tunnel did since it was made.
type TunnelStats struct {
	// SegmentsOut and BytesOut count what was given to out, before cutting;
	// SegmentsIn and BytesIn what was injected, before coalescing; Injected
	// the packets that reached the stack.
	SegmentsOut, BytesOut uint64
	SegmentsIn, BytesIn   uint64
	Injected              uint64
	// Offered counts the SYNs that became a Pending, Unopened those of which no
	// stream came. Opened counts streams (dialled ones when they begin to
	// dial), Ended those whose endpoint left the stack.
	Offered, Unopened uint64
	Opened, Ended     uint64
	// Retransmits and Timeouts are TCP's.
	Retransmits, Timeouts uint64
	// Drops by reason.
	DropMalformed   uint64 // no TCP header, or one that does not fit
	DropChecksum    uint64 // TCP checksum
	DropPast        uint64 // SYN of a session that is over
	DropPending     uint64 // SYN beyond MaxPending
	DropNotAdmitted uint64 // SYN that Admit refused
	DropNotTCP      uint64 // the stack wanted to send something else
}

type tunnelStats struct {
	segmentsOut, bytesOut, segmentsIn, bytesIn, injected                            atomic.Uint64
	offered, unopened, opened, ended                                                atomic.Uint64
	dropMalformed, dropChecksum, dropPast, dropPending, dropNotAdmitted, dropNotTCP atomic.Uint64
}

// Stats gives a snapshot. Its counters are read one by one.
func (t *Tunnel) Stats() TunnelStats {
	s, g := &t.stats, t.stack.Stats().TCP
	return TunnelStats{
		SegmentsOut: s.segmentsOut.Load(), BytesOut: s.bytesOut.Load(),
		SegmentsIn: s.segmentsIn.Load(), BytesIn: s.bytesIn.Load(),
		Injected: s.injected.Load(),
		Offered:  s.offered.Load(), Unopened: s.unopened.Load(),
		Opened: s.opened.Load(), Ended: s.ended.Load(),
		Retransmits: g.Retransmits.Value(), Timeouts: g.Timeouts.Value(),
		DropMalformed: s.dropMalformed.Load(), DropChecksum: s.dropChecksum.Load(),
		DropPast: s.dropPast.Load(), DropPending: s.dropPending.Load(),
		DropNotAdmitted: s.dropNotAdmitted.Load(), DropNotTCP: s.dropNotTCP.Load(),
	}
}

// EdgeStats counts what an Edge did since it was made.
type EdgeStats struct {
	// PacketsIn and BytesIn count what the device delivered, PacketsOut and
	// BytesOut what it took; a segment of 64 KiB is one packet.
	PacketsIn, BytesIn   uint64
	PacketsOut, BytesOut uint64
	// Offered counts the SYNs that became a Pending, Unopened those of which no
	// stream came. Opened counts streams, Ended those whose endpoint left the
	// stack.
	Offered, Unopened uint64
	Opened, Ended     uint64
	// UDP, ICMP and Other count captured packets that are not TCP; each was
	// answered by ICMP (ICMPSent, which includes the answers for refused
	// flows), or not because an answer is out of place (ICMPWithheld) or there
	// were too many (ICMPLimited).
	UDP, ICMP, Other                    uint64
	ICMPSent, ICMPWithheld, ICMPLimited uint64
	// Drops by reason.
	DropMalformed     uint64 // not an IP packet with a TCP header that fits
	DropChecksum      uint64 // IPv4 or TCP checksum
	DropFragment      uint64 // fragment of a TCP packet
	DropPending       uint64 // SYN beyond MaxPending
	DropPendingSource uint64 // SYN beyond MaxPendingPerSource
	DropWrite         uint64 // the device refused the packet
}

type edgeStats struct {
	packetsIn, bytesIn, packetsOut, bytesOut                                             atomic.Uint64
	offered, unopened, opened, ended                                                     atomic.Uint64
	udp, icmp, other, icmpSent, icmpWithheld, icmpLimited                                atomic.Uint64
	dropMalformed, dropChecksum, dropFragment, dropPending, dropPendingSource, dropWrite atomic.Uint64
}

// countOther counts a captured packet that is not TCP.
func (s *edgeStats) countOther(proto uint8) {
	switch proto {
	case packet.ProtoUDP:
		s.udp.Add(1)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		s.icmp.Add(1)
	default:
		s.other.Add(1)
	}
}

// Stats gives a snapshot. Its counters are read one by one.
func (e *Edge) Stats() EdgeStats {
	s := &e.stats
	return EdgeStats{
		PacketsIn: s.packetsIn.Load(), BytesIn: s.bytesIn.Load(),
		PacketsOut: s.packetsOut.Load(), BytesOut: s.bytesOut.Load(),
		Offered: s.offered.Load(), Unopened: s.unopened.Load(),
		Opened: s.opened.Load(), Ended: s.ended.Load(),
		UDP: s.udp.Load(), ICMP: s.icmp.Load(), Other: s.other.Load(),
		ICMPSent: s.icmpSent.Load(), ICMPWithheld: s.icmpWithheld.Load(), ICMPLimited: s.icmpLimited.Load(),
		DropMalformed: s.dropMalformed.Load(), DropChecksum: s.dropChecksum.Load(),
		DropFragment: s.dropFragment.Load(), DropPending: s.dropPending.Load(),
		DropPendingSource: s.dropPendingSource.Load(), DropWrite: s.dropWrite.Load(),
	}
}
