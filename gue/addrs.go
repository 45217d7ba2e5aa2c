package gue

import (
	"fmt"
	"io"
	"net/netip"
)

// Lengths of the addresses extension in bytes, and of the name in it.
const (
	IPv4AddrsLen = 8
	IPv6AddrsLen = 32
	NameAddrsLen = 100
	// MaxNameLen is the length of the longest name that fits, in bytes.
	MaxNameLen = NameAddrsLen - nameOffset

	nameOffset = 17
	maxLabel   = 63 // RFC 1035 §2.3.4
)

// SessionAddrs is the addresses extension of the tougw profile: the real ends
// of a flow, carried by its SYN. It has three forms:
//
//	 8 bytes: IPv4 source (4), IPv4 destination (4)
//	32 bytes: IPv6 source (16), IPv6 destination (16)
//	100 bytes: source as IPv6 or IPv4-mapped IPv6 (16), name length (1), name (83, padded with zeros)
//
// An IPv4 address never travels as a mapped one in the form of 32 bytes, so
// that every pair of addresses has one encoding. The source is what the peer
// says and no basis of policy.
type SessionAddrs struct {
	// Src is the source, IPv4 or IPv6 without zone.
	Src netip.Addr
	// Dst is the destination, of the same family; invalid with a Name.
	Dst netip.Addr
	// Name is the destination as a host name of 1 to MaxNameLen letters,
	// digits, hyphens, underscores and dots; empty with a Dst. Labels have 1
	// to 63 characters; one dot at the end is allowed.
	Name string
}

// Len returns the length in bytes that Encode writes, or 0 if the addresses
// cannot be encoded.
func (a *SessionAddrs) Len() int {
	src, dst := a.Src.Unmap(), a.Dst.Unmap()
	switch {
	case !src.IsValid() || src.Zone() != "" || dst.Zone() != "":
		return 0
	case a.Name != "":
		if dst.IsValid() || !validName(a.Name) {
			return 0
		}
		return NameAddrsLen
	case src.Is4() && dst.Is4():
		return IPv4AddrsLen
	case src.Is6() && dst.Is6():
		return IPv6AddrsLen
	}
	return 0
}

// Encode writes the addresses to the start of b, which it borrows, and returns
// their length. IPv4-mapped IPv6 addresses are unmapped first. Its errors are
// io.ErrShortBuffer, and ErrHeader for mixed families, zones and bad names.
func (a *SessionAddrs) Encode(b []byte) (int, error) {
	n := a.Len()
	if n == 0 {
		return 0, fmt.Errorf("%w: addresses %v to %v, name %q", ErrHeader, a.Src, a.Dst, a.Name)
	}
	if len(b) < n {
		return 0, io.ErrShortBuffer
	}
	switch n {
	case IPv4AddrsLen:
		src, dst := a.Src.Unmap().As4(), a.Dst.Unmap().As4()
		copy(b, src[:])
		copy(b[4:], dst[:])
	case IPv6AddrsLen:
		src, dst := a.Src.As16(), a.Dst.As16()
		copy(b, src[:])
		copy(b[16:], dst[:])
	default:
		src := a.Src.As16()
		copy(b, src[:])
		b[16] = byte(len(a.Name))
		clear(b[nameOffset+copy(b[nameOffset:], a.Name) : n])
	}
	return n, nil
}

// Decode reads the addresses field b, whose length says which form it has; it
// borrows b and keeps nothing of it. It sets every field of a, to zero when it
// reports DropAddresses: another length, a mapped address where none belongs,
// a bad name, padding that is not zero. Only a name is allocated.
func (a *SessionAddrs) Decode(b []byte) (int, Drop) {
	*a = SessionAddrs{}
	switch len(b) {
	case IPv4AddrsLen:
		a.Src, a.Dst = netip.AddrFrom4([4]byte(b)), netip.AddrFrom4([4]byte(b[4:]))
	case IPv6AddrsLen:
		src, dst := netip.AddrFrom16([16]byte(b)), netip.AddrFrom16([16]byte(b[16:]))
		if src.Is4In6() || dst.Is4In6() {
			return 0, DropAddresses
		}
		a.Src, a.Dst = src, dst
	case NameAddrsLen:
		n := int(b[16])
		if n > MaxNameLen || !validName(b[nameOffset:nameOffset+n]) {
			return 0, DropAddresses
		}
		for _, c := range b[nameOffset+n:] {
			if c != 0 {
				return 0, DropAddresses
			}
		}
		a.Src = netip.AddrFrom16([16]byte(b)).Unmap()
		a.Name = string(b[nameOffset : nameOffset+n])
	default:
		return 0, DropAddresses
	}
	return len(b), DropNone
}

// validName reports whether s is a host name that the extension can carry.
func validName[T string | []byte](s T) bool {
	if len(s) < 1 || len(s) > MaxNameLen {
		return false
	}
	label := 0
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '.':
			if label == 0 {
				return false
			}
			label = 0
			continue
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
		case c == '-':
			if label == 0 { // would read as an option in a command line
				return false
			}
		default:
			return false
		}
		if label++; label > maxLabel {
			return false
		}
	}
	return true
}
