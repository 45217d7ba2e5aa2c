package wire

import (
	"errors"
	"fmt"
)

// Type is the kind of a packet.
type Type uint8

// Types, with the direction in which they travel.
const (
	Data       Type = 0x10 // message sender to receiver
	Grant      Type = 0x11 // message receiver to sender
	Resend     Type = 0x12 // message receiver to sender
	RPCUnknown Type = 0x13 // either
	Busy       Type = 0x14 // message sender to receiver
	Cutoffs    Type = 0x15 // message receiver to sender
	Freeze     Type = 0x16 // for debugging; to be ignored
	NeedAck    Type = 0x17 // server to client
	Ack        Type = 0x18 // client to server
)

var typeNames = [...]string{"DATA", "GRANT", "RESEND", "RPC_UNKNOWN", "BUSY", "CUTOFFS", "FREEZE", "NEED_ACK", "ACK"}

// String returns the module's name of the type.
func (t Type) String() string {
	if t >= Data && t <= Ack {
		return typeNames[t-Data]
	}
	return fmt.Sprintf("type %#02x", uint8(t))
}

const (
	// MaxAcks is the number of entries in an ACK packet.
	MaxAcks = 5
	// NumPriorities is the number of priority levels; the highest is 7.
	NumPriorities = 8
	// ResendAllLength as RangeLength asks for everything that was sent.
	ResendAllLength = -1
	// MaxMessageLength is the longest message in bytes that the module takes. The
	// codec does not enforce it.
	MaxMessageLength = 1_000_000
)

// AckEntry names an RPC that the server may forget. A ClientID of 0 names none.
type AckEntry struct {
	ClientID   uint64 // as the client sees it: even
	ClientPort uint16 // Linux61 only; otherwise 0
	ServerPort uint16
}

// Packet is one packet. Which fields count depends on Type; Decode sets the
// others to zero and Append ignores them.
type Packet struct {
	SrcPort, DstPort uint16 // Homa's, all types
	Type             Type
	SenderID         uint64 // as the sender sees it: even, the sender is the client

	// Data: Length is that of the message, Incoming what the sender will send
	// without further grants, Offset where Data belongs, all in bytes. For Grant,
	// Offset is the first byte that may not be sent yet; for Resend it is the
	// first byte wanted.
	Length, Incoming, Offset uint32
	Ack                      AckEntry // Data
	// CutoffVersion is, in Data, the version of the cutoffs that the sender holds
	// from this receiver, and in Cutoffs, the version of those in the packet.
	CutoffVersion uint16
	Retransmit    bool   // Data: sent because of a Resend
	Data          []byte // Data: aliases the input of Decode

	RangeLength int32 // Resend: bytes wanted, or ResendAllLength
	Priority    uint8 // Grant, Resend: for the data asked for, 0 to 7 (highest)
	ResendAll   bool  // Grant of Linux61 and Linux610: send again from 0

	// Cutoffs: entry i is the longest message in bytes that may use priority i
	// when unscheduled; entry 0 counts as unlimited.
	Cutoffs [NumPriorities]uint32

	// Ack: the first NumAcks entries of Acks count, besides SenderID.
	Acks    [MaxAcks]AckEntry
	NumAcks int
}

// Errors of Decode; match them with errors.Is.
var (
	// ErrTooShort: the packet ends before the fields of its type.
	ErrTooShort = errors.New("packet too short")
	// ErrLeftover: a DATA packet that ends before seg.offset. Network cards that
	// segment Homa as if it were TCP emit these 52 bytes after data that fills the
	// last segment. It also is ErrTooShort.
	ErrLeftover = fmt.Errorf("homa/wire: DATA ends before seg.offset, leftover of segmentation: %w", ErrTooShort)
	// ErrType: the type is none of this package.
	ErrType = errors.New("homa/wire: unknown packet type")
	// ErrNumAcks: num_acks of an ACK exceeds its five entries.
	ErrNumAcks = errors.New("homa/wire: ACK: num_acks above 5")
	// ErrPriority: the priority of a GRANT or RESEND exceeds 7.
	ErrPriority = errors.New("homa/wire: priority above 7")
)
