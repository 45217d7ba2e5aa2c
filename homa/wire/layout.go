package wire

// Sizes in bytes and field offsets, the same in all versions unless named.
//
//	 0        4        8          12       16       20              28
//	+--------+--------+----------+--------+--------+---------------+
//	|sport   |sequence|- - - type|doff    |checksum|sender_id      | ...
//	|dport   |        |          |flags   |urgent  |               |
//	|        |        |          |window  |        |               |
//	+--------+--------+----------+--------+--------+---------------+
//
// The first 20 bytes overlay a TCP header, so that network cards segment the
// packet and hijack mode can send it as TCP.
const (
	offSrcPort    = 0
	offDstPort    = 2
	offSequence   = 4
	offUnusedAck  = 8
	offType       = 11
	offDataOffset = 12
	offFlags      = 13
	offWindow     = 14
	offChecksum   = 16
	offUrgent     = 18
	offSenderID   = 20
	commonSize    = 28

	offLength    = 28
	offIncoming  = 32
	offDataAck   = 36
	offSegOffset = 52
	dataSize     = 56

	offGrantOffset   = 28
	offGrantPriority = 32
	offResendAll     = 33
	grantSize        = 33 // Main
	grantSizeAll     = 34 // Linux61, Linux610: with resend_all

	offResendOffset   = 28
	offResendLength   = 32
	offResendPriority = 36
	resendSizeShort   = 36 // Stripped: without priority
	resendSize        = 37

	offCutoffs       = 28
	offCutoffVersion = 60
	cutoffsSize      = 62

	offNumAcks = 28
	offAcks    = 30
)

// noOffset in seg.offset means that sequence is the offset of the data.
const noOffset = 0xffffffff

// What Linux writes into the fields that overlay TCP, in all versions but
// Stripped, for hijack mode's sake.
const (
	hijackFlags  = 0x06 // SYN and RST
	hijackUrgent = 0xb97d
)

// ackEntrySize is the size of an entry in DATA and ACK packets.
func (v Version) ackEntrySize() int {
	if v == Linux61 {
		return 12
	}
	return 10
}

// minSize is the size below which a packet of type t is refused. It is that of
// the version's own packets, except that the last byte of a RESEND and a GRANT
// may be missing, since versions differ in just that.
func (v Version) minSize(t Type) int {
	switch t {
	case Data:
		return dataSize
	case Grant:
		return grantSize
	case Resend:
		return resendSizeShort
	case Cutoffs:
		return cutoffsSize
	case Ack:
		return offAcks + MaxAcks*v.ackEntrySize()
	}
	return commonSize
}

// hasResendAll reports whether the version's GRANT ends with resend_all.
func (v Version) hasResendAll() bool { return v == Linux61 || v == Linux610 }
