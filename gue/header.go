package gue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// First byte of a header (gue-09 §3.1).
const (
	variantMask = 0xc0
	controlBit  = 0x20
	hlenMask    = 0x1f
)

// Header lengths in bytes (gue-09 §3.1).
const (
	// BaseLen is the length of a header without fields.
	BaseLen = 4
	// MaxLen is the length of the longest header: Hlen has five bits.
	MaxLen = BaseLen + 4*hlenMask
)

// ErrHeader says that a header cannot be put on the wire: a field that the
// profile does not have, a length that the format does not have, or more than
// MaxLen bytes.
var ErrHeader = errors.New("gue: header cannot be encoded")

// Header is a variant 0 header (gue-09 §3.1):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| 0 |C|   Hlen  |  Proto/ctype  |             Flags             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~              fields, in the order of their flags              ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                         surplus space                         ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// Decode checks form alone: the checks that an extension asks for need the
// outer packet and a policy, and belong to Receiver.
type Header struct {
	// Control is the C bit: a control message rather than data.
	Control bool
	// ProtoCtype is the protocol number of data, the type of control.
	ProtoCtype Protocol
	// Has says which of the fields below are present; those that are not are
	// zero after Decode and ignored by Encode.
	Has Fields

	// PrivateFlags is the linux profile's word of private flags. Encode sets
	// its remote checksum flag by FieldRemoteChecksum and refuses others.
	PrivateFlags uint32
	// Group is the group identifier (extensions-06 §3).
	Group uint32
	// Security is a cookie of 8, 16 or 32 bytes or an HMAC field of 40
	// (extensions-06 §4). It borrows from the decoded bytes.
	Security []byte
	// Fragment is the fragmentation field (extensions-06 §5.3).
	Fragment Fragment
	// Transform is the payload transform field (extensions-06 §6.1).
	Transform Transform
	// RemoteChecksum is the remote checksum offload field (extensions-06 §7.1).
	RemoteChecksum RemoteChecksum
	// Checksum is the GUE checksum field (extensions-06 §8.1).
	Checksum Checksum
	// NATChecksum is the NAT checksum address field (extensions-06 §9.1).
	NATChecksum NATChecksum
	// AltChecksum is the alternate checksum field (extensions-06 §10.1).
	AltChecksum AltChecksum
	// Source is the session identifier that the sender drew (tou-01 §3.1).
	Source uint64
	// Destination is the session identifier that the receiver drew.
	Destination uint64
	// Addresses is the addresses extension, 8, 32 or 100 bytes, to be read by
	// SessionAddrs.Decode. It borrows from the decoded bytes.
	Addresses []byte

	// Surplus is what lies between the last field and the end of the header:
	// reserved, skipped, covered by every integrity check (gue-09 §3.4). It
	// borrows from the decoded bytes. Encode sends none.
	Surplus []byte
}

// RemoteChecksum is the field of remote checksum offload (extensions-06 §7.1).
// Both values count bytes from the start of the payload.
type RemoteChecksum struct {
	// Start is where the bytes that the inner checksum covers begin.
	Start uint16
	// Offset is where the inner checksum lies.
	Offset uint16
}

// Checksum is the field of the GUE checksum (extensions-06 §8.1).
type Checksum struct {
	Value uint16
	// Coverage is the number of payload bytes covered.
	Coverage uint16
}

// NATChecksum is the field of the NAT checksum address (extensions-06 §9.1).
type NATChecksum struct {
	// Value is the Internet checksum of the outer addresses as sent, see
	// AddressChecksum.
	Value uint16
	// Reserved is sent as zero and ignored on receipt.
	Reserved uint16
}

// AltChecksum is the field of the alternate checksum (extensions-06 §10.1).
type AltChecksum struct {
	// Reserved is sent as zero and ignored on receipt.
	Reserved uint16
	// Coverage is the number of payload bytes covered.
	Coverage uint16
	CRC      uint32
}

// IsControl reports whether b starts like a variant 0 control message. It is
// false for an empty b.
func IsControl(b []byte) bool {
	return len(b) > 0 && b[0]&(variantMask|controlBit) == controlBit
}

// Len returns the length in bytes that Encode writes.
func (h *Header) Len() int {
	n := BaseLen
	for has := uint16(h.Has); has != 0; has &= has - 1 {
		if i := bits.TrailingZeros16(has); i < len(fieldLen) {
			n += fieldLen[i]
		}
	}
	if h.Has&FieldSecurity != 0 {
		n += len(h.Security)
	}
	if h.Has&FieldAddresses != 0 {
		n += len(h.Addresses)
	}
	return n
}

// Encode writes the header to the start of b, which it borrows, and returns
// its length. It writes every byte of Len, reserved ones as zero, and no
// others. Its errors are io.ErrShortBuffer and ErrHeader.
func (h *Header) Encode(p Profile, b []byte) (int, error) {
	if bad := h.Has &^ p.Fields(); bad != 0 {
		return 0, fmt.Errorf("%w: profile %v has no field of %#x", ErrHeader, p, uint16(bad))
	}
	var sec, addrs uint16
	if h.Has&FieldSecurity != 0 {
		if sec = indexLen(securityLen[:], len(h.Security)); sec == 0 {
			return 0, fmt.Errorf("%w: security field of %d bytes, not 8, 16, 32 or 40", ErrHeader, len(h.Security))
		}
	}
	if h.Has&FieldAddresses != 0 {
		if addrs = indexLen(addressesLen[:], len(h.Addresses)); addrs == 0 {
			return 0, fmt.Errorf("%w: addresses field of %d bytes, not 8, 32 or 100", ErrHeader, len(h.Addresses))
		}
	}
	if h.Has&FieldPrivate == 0 && p == ProfileLinux && h.Has != 0 {
		return 0, fmt.Errorf("%w: remote checksum without private flags", ErrHeader)
	}
	if h.Has&FieldPrivate != 0 && h.PrivateFlags&^linuxRemoteChecksum != 0 {
		return 0, fmt.Errorf("%w: private flags %#x", ErrHeader, h.PrivateFlags)
	}
	if h.Has&FieldFragment != 0 && !h.Fragment.encodable() {
		return 0, fmt.Errorf("%w: fragment offset %d or identification %#x", ErrHeader, h.Fragment.Offset, h.Fragment.ID)
	}
	n := h.Len()
	if n > MaxLen {
		return 0, fmt.Errorf("%w: %d bytes, more than %d", ErrHeader, n, MaxLen)
	}
	if len(b) < n {
		return 0, io.ErrShortBuffer
	}

	b[0] = byte(n-BaseLen) / 4
	if h.Control {
		b[0] |= controlBit
	}
	b[1] = byte(h.ProtoCtype)
	binary.BigEndian.PutUint16(b[2:], p.flags(h.Has, sec, addrs))
	h.encodeFields(b[BaseLen:n])
	return n, nil
}

// encodeFields writes the fields, which fill b.
func (h *Header) encodeFields(b []byte) {
	be := binary.BigEndian
	if h.Has&FieldPrivate != 0 {
		var w uint32
		if h.Has&FieldRemoteChecksum != 0 {
			w = linuxRemoteChecksum
		}
		be.PutUint32(b, w)
		b = b[4:]
	}
	if h.Has&FieldGroup != 0 {
		be.PutUint32(b, h.Group)
		b = b[4:]
	}
	if h.Has&FieldSecurity != 0 {
		b = b[copy(b, h.Security):]
	}
	if h.Has&FieldFragment != 0 {
		h.Fragment.put(b)
		b = b[8:]
	}
	if h.Has&FieldTransform != 0 {
		b[0], b[1] = h.Transform.Type, byte(h.Transform.ProtoCtype)
		be.PutUint16(b[2:], h.Transform.Info)
		b = b[4:]
	}
	if h.Has&FieldRemoteChecksum != 0 {
		be.PutUint16(b, h.RemoteChecksum.Start)
		be.PutUint16(b[2:], h.RemoteChecksum.Offset)
		b = b[4:]
	}
	if h.Has&FieldChecksum != 0 {
		be.PutUint16(b, h.Checksum.Value)
		be.PutUint16(b[2:], h.Checksum.Coverage)
		b = b[4:]
	}
	if h.Has&FieldNATChecksum != 0 {
		be.PutUint16(b, h.NATChecksum.Value)
		be.PutUint16(b[2:], 0)
		b = b[4:]
	}
	if h.Has&FieldAltChecksum != 0 {
		be.PutUint16(b, 0)
		be.PutUint16(b[2:], h.AltChecksum.Coverage)
		be.PutUint32(b[4:], h.AltChecksum.CRC)
		b = b[8:]
	}
	if h.Has&FieldSource != 0 {
		be.PutUint64(b, h.Source)
		b = b[8:]
	}
	if h.Has&FieldDestination != 0 {
		be.PutUint64(b, h.Destination)
		b = b[8:]
	}
	if h.Has&FieldAddresses != 0 {
		copy(b, h.Addresses)
	}
}

// indexLen returns which flag value stands for n bytes, or 0.
func indexLen(lens []int8, n int) uint16 {
	for i, l := range lens[1:] {
		if int(l) == n {
			return uint16(i + 1)
		}
	}
	return 0
}

// decodeBase checks variant and length of the header that b begins with and
// returns its length (gue-09 §5.4).
func decodeBase(b []byte) (int, Drop) {
	if len(b) == 0 {
		return 0, DropEmpty
	}
	if b[0]&variantMask != 0 {
		return 0, DropVariant
	}
	if len(b) < BaseLen {
		return 0, DropShort
	}
	n := BaseLen + 4*int(b[0]&hlenMask)
	if n > len(b) {
		return 0, DropHlen
	}
	return n, DropNone
}

// Decode reads the variant 0 header at the start of b, which it borrows for as
// long as the byte fields of h are used, and returns the header's length; the
// payload is the rest of b. It sets every field of h, to zero when it reports
// a reason to drop. It checks the form of the header: variant, length, flags
// that the profile knows, fields that fit (gue-09 §5.4).
func (h *Header) Decode(p Profile, b []byte) (int, Drop) {
	*h = Header{}
	n, drop := decodeBase(b)
	if drop != DropNone {
		return 0, drop
	}
	has, sec, addrs, drop := p.fields(binary.BigEndian.Uint16(b[2:]))
	if drop != DropNone {
		return 0, drop
	}
	f := b[BaseLen:n:n]
	var private uint32
	if has&FieldPrivate != 0 {
		if len(f) < 4 {
			return 0, DropFields
		}
		private = binary.BigEndian.Uint32(f)
		if private&^linuxRemoteChecksum != 0 {
			return 0, DropFlag
		}
		if private != 0 {
			has |= FieldRemoteChecksum
		}
	}
	need := sec + addrs
	for rest := uint16(has); rest != 0; rest &= rest - 1 {
		need += fieldLen[bits.TrailingZeros16(rest)]
	}
	if need > len(f) {
		return 0, DropFields
	}
	h.Control = b[0]&controlBit != 0
	h.ProtoCtype = Protocol(b[1])
	h.Has = has
	h.PrivateFlags = private
	h.decodeFields(f, sec, addrs)
	return n, DropNone
}

// decodeFields reads the fields named by h.Has from b, which is long enough.
func (h *Header) decodeFields(b []byte, sec, addrs int) {
	be := binary.BigEndian
	if h.Has&FieldPrivate != 0 {
		b = b[4:]
	}
	if h.Has&FieldGroup != 0 {
		h.Group = be.Uint32(b)
		b = b[4:]
	}
	if h.Has&FieldSecurity != 0 {
		h.Security, b = b[:sec:sec], b[sec:]
	}
	if h.Has&FieldFragment != 0 {
		h.Fragment.get(b)
		b = b[8:]
	}
	if h.Has&FieldTransform != 0 {
		h.Transform = Transform{Type: b[0], ProtoCtype: Protocol(b[1]), Info: be.Uint16(b[2:])}
		b = b[4:]
	}
	if h.Has&FieldRemoteChecksum != 0 {
		h.RemoteChecksum = RemoteChecksum{Start: be.Uint16(b), Offset: be.Uint16(b[2:])}
		b = b[4:]
	}
	if h.Has&FieldChecksum != 0 {
		h.Checksum = Checksum{Value: be.Uint16(b), Coverage: be.Uint16(b[2:])}
		b = b[4:]
	}
	if h.Has&FieldNATChecksum != 0 {
		h.NATChecksum = NATChecksum{Value: be.Uint16(b), Reserved: be.Uint16(b[2:])}
		b = b[4:]
	}
	if h.Has&FieldAltChecksum != 0 {
		h.AltChecksum = AltChecksum{Reserved: be.Uint16(b), Coverage: be.Uint16(b[2:]), CRC: be.Uint32(b[4:])}
		b = b[8:]
	}
	if h.Has&FieldSource != 0 {
		h.Source = be.Uint64(b)
		b = b[8:]
	}
	if h.Has&FieldDestination != 0 {
		h.Destination = be.Uint64(b)
		b = b[8:]
	}
	if h.Has&FieldAddresses != 0 {
		h.Addresses, b = b[:addrs:addrs], b[addrs:]
	}
	h.Surplus = b
}

// offset returns where field f begins in the encoded header. Fields precede it
// in the order of their bits, so only those with lower ones count.
func (h *Header) offset(f Fields) int {
	before := Header{Has: h.Has & (f - 1), Security: h.Security}
	return before.Len()
}
