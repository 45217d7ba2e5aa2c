package wire

import "encoding/binary"

// Ignored is what a packet holds besides the fields of Packet: all that a
// receiver ignores. Together they are the packet, byte by byte.
type Ignored struct {
	// Sequence as it stands in the packet. In DATA it counts only if the
	// packet has no seg.offset of its own.
	Sequence uint32
	// NoSegOffset: seg.offset of DATA is -1, so that Sequence is the offset.
	NoSegOffset bool
	// Fields of the TCP header that Homa leaves unused or fills for the sake of
	// segmentation and hijack mode.
	TCPAck           [3]byte // upper bytes; the lowest is the packet type
	DataOffset       uint8   // the upper four bits count words
	Flags            uint8
	Window, Checksum uint16
	Urgent           uint16
	// Bool is the byte behind Retransmit or ResendAll, of which receivers only
	// ask whether it is 0.
	Bool uint8
	// Reserved are the bytes between retransmit and seg.offset of DATA: three,
	// in Linux61 one.
	Reserved [3]byte
	// Short: the last byte of RESEND (priority) or GRANT (resend_all) is absent.
	Short bool
	// Trailing is what follows a control packet; it aliases the input.
	Trailing []byte
}

// DecodeExact does what Decode does, and keeps in x what Decode ignores. Entries
// of an ACK from NumAcks on are in p.Acks.
func (v Version) DecodeExact(p *Packet, x *Ignored, b []byte) error {
	*x = Ignored{}
	if err := v.Decode(p, b); err != nil {
		return err
	}
	x.Sequence = binary.BigEndian.Uint32(b[offSequence:])
	copy(x.TCPAck[:], b[offUnusedAck:])
	x.DataOffset = b[offDataOffset]
	x.Flags = b[offFlags]
	x.Window = binary.BigEndian.Uint16(b[offWindow:])
	x.Checksum = binary.BigEndian.Uint16(b[offChecksum:])
	x.Urgent = binary.BigEndian.Uint16(b[offUrgent:])
	switch p.Type {
	case Data:
		x.NoSegOffset = binary.BigEndian.Uint32(b[offSegOffset:]) == noOffset
		at := v.offRetransmit()
		x.Bool = b[at]
		copy(x.Reserved[:], b[at+1:offSegOffset])
		return nil // all that follows is data
	case Grant:
		if x.Short = v.hasResendAll() && len(b) == grantSize; v.hasResendAll() && !x.Short {
			x.Bool = b[offResendAll]
		}
	case Resend:
		x.Short = len(b) == resendSizeShort
	}
	x.Trailing = b[v.exactSize(p.Type, x.Short):]
	return nil
}

// AppendExact is the inverse of DecodeExact: it appends p as it arrived, with
// what x keeps. A field of p that was changed in between shows in the result.
func (v Version) AppendExact(b []byte, p *Packet, x *Ignored) []byte {
	b, h := grow(b, p, v.exactSize(p.Type, x.Short))
	putCommon(h, p)
	binary.BigEndian.PutUint32(h[offSequence:], x.Sequence)
	copy(h[offUnusedAck:offType], x.TCPAck[:])
	h[offDataOffset] = x.DataOffset
	h[offFlags] = x.Flags
	binary.BigEndian.PutUint16(h[offWindow:], x.Window)
	binary.BigEndian.PutUint16(h[offChecksum:], x.Checksum)
	binary.BigEndian.PutUint16(h[offUrgent:], x.Urgent)
	switch p.Type {
	case Data:
		v.putData(h, p)
		if x.NoSegOffset {
			binary.BigEndian.PutUint32(h[offSequence:], p.Offset)
			binary.BigEndian.PutUint32(h[offSegOffset:], noOffset)
		} else {
			binary.BigEndian.PutUint32(h[offSegOffset:], p.Offset)
		}
		at := v.offRetransmit()
		if p.Retransmit && x.Bool != 0 {
			h[at] = x.Bool
		}
		copy(h[at+1:offSegOffset], x.Reserved[:])
		return append(b, p.Data...)
	case Ack:
		v.putAcks(h, p, MaxAcks)
	default:
		v.putControl(h, p)
		if p.Type == Grant && p.ResendAll && x.Bool != 0 {
			h[offResendAll] = x.Bool
		}
	}
	return append(b, x.Trailing...)
}

// exactSize is the size of a header whose fields all stand in Packet; short is
// Ignored.Short.
func (v Version) exactSize(t Type, short bool) int {
	n := v.minSize(t)
	if !short && (t == Resend || t == Grant && v.hasResendAll()) {
		n++
	}
	return n
}

func (v Version) offRetransmit() int { return offDataAck + v.ackEntrySize() + 2 }
