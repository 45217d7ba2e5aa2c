package wire

import (
	"encoding/binary"
	"slices"
)

// Append appends p to b in the form that peers of every version with v's layout
// accept, and returns the extended slice. Where b has the capacity nothing is
// allocated.
//
// A DATA packet holds its true offset both as sequence and as seg.offset. RESEND
// has 37 bytes and GRANT 34, also for versions whose own are shorter. Fields that
// overlay TCP and entries of an ACK from NumAcks on are 0. The caller answers for
// the values: NumAcks up to MaxAcks, Priority below NumPriorities, a type of this
// package, and one that v knows. NumAcks above MaxAcks panics.
func (v Version) Append(b []byte, p *Packet) []byte {
	b, h := grow(b, p, canonicalSize(v, p.Type))
	putCommon(h, p)
	switch p.Type {
	case Data:
		binary.BigEndian.PutUint32(h[offSequence:], p.Offset)
		v.putData(h, p)
		binary.BigEndian.PutUint32(h[offSegOffset:], p.Offset)
		b = append(b, p.Data...)
	case Ack:
		v.putAcks(h, p, p.NumAcks)
	default:
		v.putControl(h, p)
	}
	return b
}

func canonicalSize(v Version, t Type) int {
	switch t {
	case Grant:
		return grantSizeAll
	case Resend:
		return resendSize
	}
	return v.minSize(t)
}

// grow extends b by a zeroed header of size bytes and returns both, with room
// for the data of p.
func grow(b []byte, p *Packet, size int) (all, header []byte) {
	n := len(b)
	b = slices.Grow(b, size+len(p.Data))[:n+size]
	h := b[n:]
	clear(h)
	return b, h
}

func putCommon(h []byte, p *Packet) {
	binary.BigEndian.PutUint16(h[offSrcPort:], p.SrcPort)
	binary.BigEndian.PutUint16(h[offDstPort:], p.DstPort)
	h[offType] = byte(p.Type)
	binary.BigEndian.PutUint64(h[offSenderID:], p.SenderID)
}

// putData writes the fields of a DATA header but for its two offsets.
func (v Version) putData(h []byte, p *Packet) {
	binary.BigEndian.PutUint32(h[offLength:], p.Length)
	binary.BigEndian.PutUint32(h[offIncoming:], p.Incoming)
	v.putAck(h[offDataAck:], p.Ack)
	rest := h[offDataAck+v.ackEntrySize():]
	binary.BigEndian.PutUint16(rest, p.CutoffVersion)
	if p.Retransmit {
		rest[2] = 1
	}
}

// putControl writes the fields of GRANT, RESEND and CUTOFFS as far as h reaches;
// the other types that come here have none.
func (v Version) putControl(h []byte, p *Packet) {
	switch p.Type {
	case Grant:
		binary.BigEndian.PutUint32(h[offGrantOffset:], p.Offset)
		h[offGrantPriority] = p.Priority
		if p.ResendAll && v.hasResendAll() && len(h) >= grantSizeAll {
			h[offResendAll] = 1
		}
	case Resend:
		binary.BigEndian.PutUint32(h[offResendOffset:], p.Offset)
		binary.BigEndian.PutUint32(h[offResendLength:], uint32(p.RangeLength))
		if len(h) >= resendSize {
			h[offResendPriority] = p.Priority
		}
	case Cutoffs:
		for i, c := range p.Cutoffs {
			binary.BigEndian.PutUint32(h[offCutoffs+4*i:], c)
		}
		binary.BigEndian.PutUint16(h[offCutoffVersion:], p.CutoffVersion)
	}
}

// putAcks writes the first n entries, and the number that counts.
func (v Version) putAcks(h []byte, p *Packet, n int) {
	binary.BigEndian.PutUint16(h[offNumAcks:], uint16(p.NumAcks))
	for i, a := range p.Acks[:n] {
		v.putAck(h[offAcks+i*v.ackEntrySize():], a)
	}
}

func (v Version) putAck(h []byte, a AckEntry) {
	binary.BigEndian.PutUint64(h, a.ClientID)
	if v == Linux61 {
		binary.BigEndian.PutUint16(h[8:], a.ClientPort)
		binary.BigEndian.PutUint16(h[10:], a.ServerPort)
	} else {
		binary.BigEndian.PutUint16(h[8:], a.ServerPort)
	}
}
