package gue

import (
	"encoding/binary"
	"fmt"
)

// Limits of the fragmentation field (extensions-06 §5.3, §5.5).
const (
	// FragmentUnit is the unit of the fragment offset in bytes.
	FragmentUnit = 8
	// MaxPacket is the largest packet that fragments can make, in bytes.
	MaxPacket = 65535

	maxFragmentOffset = 1<<13 - 1
	maxFragmentID     = 1<<40 - 1
)

// Fragment is the fragmentation field (extensions-06 §5.3):
//
//	+-------------------------+---+-+---------------+---------------+
//	|     Fragment offset     |Res|M|  Orig-proto   |               |
//	+-------------------------+---+-+---------------+               +
//	|                        Identification                         |
//	+---------------------------------------------------------------+
type Fragment struct {
	// Offset counts units of FragmentUnit bytes (13 bits).
	Offset uint16
	// Reserved is the two reserved bits: sent as zero, else dropped.
	Reserved uint8
	// More says that this is not the last fragment.
	More bool
	// OrigProto is the protocol or control type of the whole packet.
	OrigProto Protocol
	// ID is the packet's identification (40 bits).
	ID uint64
}

func (f *Fragment) encodable() bool {
	return f.Offset <= maxFragmentOffset && f.ID <= maxFragmentID
}

// put writes the field to b[:8].
func (f *Fragment) put(b []byte) {
	v := uint64(f.Offset)<<51 | uint64(f.OrigProto)<<40 | f.ID
	if f.More {
		v |= 1 << 48
	}
	binary.BigEndian.PutUint64(b, v)
}

// get reads the field from b[:8].
func (f *Fragment) get(b []byte) {
	v := binary.BigEndian.Uint64(b)
	*f = Fragment{
		Offset:    uint16(v >> 51),
		Reserved:  uint8(v>>49) & 3,
		More:      v>>48&1 != 0,
		OrigProto: Protocol(v >> 40),
		ID:        v & maxFragmentID,
	}
}

// Fragmenter cuts one packet into fragments (extensions-06 §5.4). All
// fragments of a packet go out with the same addresses and ports.
type Fragmenter struct {
	control bool
	proto   Protocol
	id      uint64
	length  int
	size    int
	at      int
}

// NewFragmenter prepares to cut a packet of length bytes, at most MaxPacket,
// into fragments of at most size bytes of payload, at least FragmentUnit. The
// low 40 bits of id identify the packet and must not return for 60 s with the
// same ends, ports, control bit, group and protocol. A transform that makes
// the payload grow must be allowed for in size. The error is ErrHeader.
func NewFragmenter(control bool, proto Protocol, id uint64, length, size int) (Fragmenter, error) {
	if length < 1 || length > MaxPacket {
		return Fragmenter{}, fmt.Errorf("%w: packet of %d bytes, not 1 to %d, to fragment", ErrHeader, length, MaxPacket)
	}
	if size < FragmentUnit {
		return Fragmenter{}, fmt.Errorf("%w: fragments of %d bytes, less than %d", ErrHeader, size, FragmentUnit)
	}
	return Fragmenter{control: control, proto: proto, id: id & maxFragmentID, length: length, size: size &^ (FragmentUnit - 1)}, nil
}

// Next sets the control bit, protocol and fragmentation field of h for the
// next fragment, and returns which bytes of the packet it holds. It reports
// false when none are left. The first fragment keeps the protocol, the others
// have one that must not be parsed (extensions-06 §5.3).
func (f *Fragmenter) Next(h *Header) (start, end int, ok bool) {
	if f.at >= f.length {
		return 0, 0, false
	}
	start = f.at
	end = min(start+f.size, f.length)
	f.at = end
	h.Control = f.control
	h.ProtoCtype = f.proto
	if start > 0 {
		h.ProtoCtype = none(f.control)
	}
	h.Has |= FieldFragment
	h.Fragment = Fragment{Offset: uint16(start / FragmentUnit), More: end < f.length, OrigProto: f.proto, ID: f.id}
	return start, end, true
}
