package wire

import (
	"encoding/binary"
	"fmt"
)

// errShort holds the error for each type, made once so that Decode allocates
// nothing for bad input either.
var errShort = func() (e [len(typeNames)]error) {
	for i, name := range typeNames {
		e[i] = fmt.Errorf("homa/wire: %s: %w", name, ErrTooShort)
	}
	return e
}()

var errShortHeader = fmt.Errorf("homa/wire: common header: %w", ErrTooShort)

// Decode reads the packet in b, all of an IP payload, into p. It overwrites the
// whole of p; p.Data aliases b. It allocates nothing.
//
// As the module does, it ignores bytes behind a control packet and whatever
// overlays unused fields of TCP. It is more tolerant in one place: the last byte
// of RESEND (priority; 7 if absent) and GRANT (resend_all) may be missing in any
// version. Decode looks at the form alone: whether lengths, offsets, ids and
// ports make sense is for the caller to judge, and Offset plus len(Data) may
// exceed Length.
//
// Errors match ErrTooShort, ErrLeftover, ErrType, ErrNumAcks or ErrPriority; p
// is then of no use.
func (v Version) Decode(p *Packet, b []byte) error {
	*p = Packet{}
	if len(b) < commonSize {
		return errShortHeader
	}
	t := Type(b[offType])
	if t < Data || t > Ack {
		return ErrType
	}
	if len(b) < v.minSize(t) {
		if t == Data && len(b) >= offSegOffset {
			return ErrLeftover
		}
		return errShort[t-Data]
	}
	p.SrcPort = binary.BigEndian.Uint16(b[offSrcPort:])
	p.DstPort = binary.BigEndian.Uint16(b[offDstPort:])
	p.Type = t
	p.SenderID = binary.BigEndian.Uint64(b[offSenderID:])

	switch t {
	case Data:
		v.decodeData(p, b)
	case Grant:
		p.Offset = binary.BigEndian.Uint32(b[offGrantOffset:])
		p.Priority = b[offGrantPriority]
		p.ResendAll = v.hasResendAll() && len(b) >= grantSizeAll && b[offResendAll] != 0
	case Resend:
		p.Offset = binary.BigEndian.Uint32(b[offResendOffset:])
		p.RangeLength = int32(binary.BigEndian.Uint32(b[offResendLength:]))
		p.Priority = NumPriorities - 1
		if len(b) >= resendSize {
			p.Priority = b[offResendPriority]
		}
	case Cutoffs:
		for i := range p.Cutoffs {
			p.Cutoffs[i] = binary.BigEndian.Uint32(b[offCutoffs+4*i:])
		}
		p.CutoffVersion = binary.BigEndian.Uint16(b[offCutoffVersion:])
	case Ack:
		p.NumAcks = int(binary.BigEndian.Uint16(b[offNumAcks:]))
		if p.NumAcks > MaxAcks {
			return ErrNumAcks
		}
		for i := range p.Acks {
			p.Acks[i] = v.decodeAck(b[offAcks+i*v.ackEntrySize():])
		}
	}
	if p.Priority >= NumPriorities {
		return ErrPriority
	}
	return nil
}

func (v Version) decodeData(p *Packet, b []byte) {
	p.Length = binary.BigEndian.Uint32(b[offLength:])
	p.Incoming = binary.BigEndian.Uint32(b[offIncoming:])
	p.Ack = v.decodeAck(b[offDataAck:])
	rest := b[offDataAck+v.ackEntrySize():]
	p.CutoffVersion = binary.BigEndian.Uint16(rest)
	p.Retransmit = rest[2] != 0
	// Sequence is wrong wherever a kernel or network card segmented a larger
	// frame, so it counts only where seg.offset says nothing.
	p.Offset = binary.BigEndian.Uint32(b[offSegOffset:])
	if p.Offset == noOffset {
		p.Offset = binary.BigEndian.Uint32(b[offSequence:])
	}
	p.Data = b[dataSize:]
}

func (v Version) decodeAck(b []byte) (a AckEntry) {
	a.ClientID = binary.BigEndian.Uint64(b)
	if v == Linux61 {
		a.ClientPort = binary.BigEndian.Uint16(b[8:])
		a.ServerPort = binary.BigEndian.Uint16(b[10:])
	} else {
		a.ServerPort = binary.BigEndian.Uint16(b[8:])
	}
	return a
}
