package homa

import (
	"time"

	"github.com/tougw/tougw/homa/wire"
)

// numTypes is the number of packet types.
const numTypes = int(wire.Ack-wire.Data) + 1

// Stats are the counters of an Engine since New, and its levels now.
type Stats struct {
	// Received and Sent count packets by type, wire.Data first.
	Received, Sent [numTypes]uint64
	// BytesReceived are bytes of messages stored, BytesSent those sent for the first
	// time, BytesResent again.
	BytesReceived, BytesSent, BytesResent uint64

	// Packets that had no effect, by reason.
	DropMalformed  uint64 // too short, impossible fields, id 0
	DropUnknown    uint64 // for an RPC that does not exist
	DropPort       uint64 // request to a port that is not served
	DropForeign    uint64 // of another process of this host
	DropMismatch   uint64 // ports, length or direction differ from those of the RPC
	DropDuplicate  uint64 // data that is already here
	DropTombstone  uint64 // data for an RPC that was served before
	DropNoMemory   uint64 // data of a message that is not admitted
	DropWindow     uint64 // data beyond the receive window
	DropGaps       uint64 // data that would make too many gaps
	DropBusy       uint64 // request over MaxServed, MaxServedPerPeer or MaxPeers
	DropTransmit   uint64 // own control packets over the bound on those waiting
	Tombstones     int    // remembered now
	TombstonesLost uint64 // forgotten before their life was over

	// RPCs begun and how they ended.
	Called, Completed, CallsFailed uint64
	Served, Acked, ServedFailed    uint64
	Timeouts                       uint64 // among those that failed

	// RPCs now, by state.
	ClientOutgoing, ClientIncoming                  int
	ServerIncoming, ServerInService, ServerOutgoing int
	WaitingReceive, WaitingSend                     int // for memory
	Unread                                          int // complete responses not read yet
	Peers                                           int

	// Memory now, in bytes: what chunks hold, and what is promised to messages.
	HeldReceive, HeldSend         int64
	ReservedReceive, ReservedSend int64
	// Granting: messages that are being granted, that wait for grants, and bytes
	// granted and not received.
	GrantActive, GrantWaiting int
	Incoming                  int64
}

// RPCStats is the trace of one RPC.
type RPCStats struct {
	GrantsSent, GrantsReceived   uint32
	ResendsSent, ResendsReceived uint32
	BusySent, BusyReceived       uint32
	NeedAcks                     uint32 // sent or received
	PacketsSent, PacketsReceived uint32 // DATA
	BytesResent                  uint64
	// UnscheduledPriority and ScheduledPriority are the levels last used for data of
	// the message that this side sends.
	UnscheduledPriority, ScheduledPriority uint8
	// Begun is when the RPC was called or its first packet came; Sent when the last
	// byte of this side's message left for the first time; Received when the last
	// byte of the other message came. Zero: not yet.
	Begun, Sent, Received Instant
}

// Elapsed is the time from Begun to Received.
func (s RPCStats) Elapsed() time.Duration { return s.Received.Sub(s.Begun) }
