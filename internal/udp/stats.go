package udp

import "sync/atomic"

// Stats counts what went through a Conn since Listen. Bytes are UDP payload.
type Stats struct {
	RecvDatagrams uint64 // datagrams received, each datagram of a run counted
	RecvBytes     uint64
	RecvCalls     uint64 // recvmmsg calls that returned something
	RecvRuns      uint64 // runs joined by the kernel (GRO)

	SendDatagrams uint64
	SendBytes     uint64
	SendCalls     uint64 // sendmmsg calls, also those that sent nothing
	SendRuns      uint64 // runs handed over whole (GSO)

	// Drops on receipt.
	RecvDropOverflow  uint64 // by the kernel: receive buffer full, or bad checksum
	RecvDropTruncated uint64 // larger than the buffer lent for it
	RecvErrors        uint64 // errors of earlier sends (ICMP) reported on receipt; ignored

	// Drops on sending, in messages.
	SendDropTooBig uint64 // EMSGSIZE
	SendDropNoBufs uint64 // ENOBUFS: taken for a loss on the path
	SendDropWait   uint64 // no room in the send buffer within Config.WriteWait
	SendDropOther  uint64 // any other error: no route, denied by the firewall, malformed
	SendWaits      uint64 // times that a writer waited for room

	// GSORefused counts runs that the kernel refused and that were then sent as
	// single datagrams.
	GSORefused uint64
}

// counters is the live form of Stats.
type counters struct {
	recvDatagrams, recvBytes, recvCalls, recvRuns atomic.Uint64
	recvDropTruncated, recvErrors                 atomic.Uint64

	_ [64]byte // the reader and the writers count on different cache lines

	sendDatagrams, sendBytes, sendCalls, sendRuns          atomic.Uint64
	sendDropTooBig, sendDropNoBufs                         atomic.Uint64
	sendDropWait, sendDropOther, sendWaits, sendGSORefused atomic.Uint64
}

func (c *counters) snapshot() Stats {
	return Stats{
		RecvDatagrams:     c.recvDatagrams.Load(),
		RecvBytes:         c.recvBytes.Load(),
		RecvCalls:         c.recvCalls.Load(),
		RecvRuns:          c.recvRuns.Load(),
		RecvDropTruncated: c.recvDropTruncated.Load(),
		RecvErrors:        c.recvErrors.Load(),
		SendDatagrams:     c.sendDatagrams.Load(),
		SendBytes:         c.sendBytes.Load(),
		SendCalls:         c.sendCalls.Load(),
		SendRuns:          c.sendRuns.Load(),
		SendDropTooBig:    c.sendDropTooBig.Load(),
		SendDropNoBufs:    c.sendDropNoBufs.Load(),
		SendDropWait:      c.sendDropWait.Load(),
		SendDropOther:     c.sendDropOther.Load(),
		SendWaits:         c.sendWaits.Load(),
		GSORefused:        c.sendGSORefused.Load(),
	}
}
