package packet

import (
	"encoding/binary"
	"net/netip"
)

// IP protocol numbers that the data path tells apart (IANA).
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	ProtoHoma   = 146
)

// Tuple is the 5-tuple of an IP packet. The ports are zero for protocols that
// have none, and for fragments other than the first.
type Tuple struct {
	Proto    uint8
	Src, Dst netip.AddrPort
}

// ParseTuple reads the 5-tuple of the IPv4 or IPv6 packet b, which it borrows.
// It skips the IPv6 extension headers of RFC 8200 (at most eight). It reports
// false for a packet that is too short for what its headers say or whose
// version is neither 4 nor 6.
func ParseTuple(b []byte) (Tuple, bool) {
	if len(b) < 20 {
		return Tuple{}, false
	}
	switch b[0] >> 4 {
	case 4:
		return parse4(b)
	case 6:
		return parse6(b)
	}
	return Tuple{}, false
}

func parse4(b []byte) (Tuple, bool) {
	hlen := int(b[0]&0x0f) * 4
	if hlen < 20 || len(b) < hlen {
		return Tuple{}, false
	}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	first := binary.BigEndian.Uint16(b[6:])&0x1fff == 0
	return withPorts(b[9], src, dst, b[hlen:], first)
}

func parse6(b []byte) (Tuple, bool) {
	if len(b) < 40 {
		return Tuple{}, false
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next, rest, first := b[6], b[40:], true
	for range 8 {
		var n int
		switch next {
		case 0, 43, 60: // hop-by-hop, routing, destination options
			if len(rest) < 8 {
				return Tuple{}, false
			}
			n = 8 + int(rest[1])*8
		case 44: // fragment
			if len(rest) < 8 {
				return Tuple{}, false
			}
			n = 8
			first = first && binary.BigEndian.Uint16(rest[2:])&0xfff8 == 0
		case 51: // authentication header, RFC 4302
			if len(rest) < 8 {
				return Tuple{}, false
			}
			n = (int(rest[1]) + 2) * 4
		default:
			return withPorts(next, src, dst, rest, first)
		}
		if len(rest) < n {
			return Tuple{}, false
		}
		next, rest = rest[0], rest[n:]
	}
	return Tuple{}, false
}

func withPorts(proto uint8, src, dst netip.Addr, l4 []byte, first bool) (Tuple, bool) {
	var sp, dp uint16
	if first && (proto == ProtoTCP || proto == ProtoUDP) {
		if len(l4) < 4 {
			return Tuple{}, false
		}
		sp, dp = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	}
	return Tuple{Proto: proto, Src: netip.AddrPortFrom(src, sp), Dst: netip.AddrPortFrom(dst, dp)}, true
}
