package gue

import "encoding/binary"

// Lengths of IP headers without options (RFC 791, RFC 8200).
const (
	minIPv4Len = 20
	ipv6Len    = 40
)

// trimIP checks that b is an IP packet of the version that proto names, whole
// by the lengths of its header, and cuts off what lies behind its end. Its
// other fields are for whoever receives the packet.
func trimIP(proto Protocol, b []byte) ([]byte, Drop) {
	if proto == ProtoIPv4 {
		if len(b) < minIPv4Len || b[0]>>4 != 4 {
			return nil, DropInner
		}
		hlen, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
		if hlen < minIPv4Len || total < hlen || total > len(b) {
			return nil, DropInner
		}
		return b[:total], DropNone
	}
	if len(b) < ipv6Len || b[0]>>4 != 6 {
		return nil, DropInner
	}
	total := ipv6Len + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return nil, DropInner
	}
	return b[:total], DropNone
}

// InnerChecksum says which checksum TCP and UDP have when GUE carries them
// without an IP header, and the outer addresses are theirs.
type InnerChecksum uint8

// The forms of the inner checksum. The drafts differ: gue-09 §5.4.1 makes the
// ordinary pseudo-header follow, tou-01 §2.2 leaves the addresses out.
const (
	// InnerUnchecked: it is verified later, or by something better.
	InnerUnchecked InnerChecksum = iota
	// InnerTOU: TCP has the checksum of SetTCPChecksum; UDP is not verified.
	InnerTOU
	// InnerPseudo: TCP and UDP have the ordinary checksum with the outer
	// addresses. UDP may have none over IPv4.
	InnerPseudo
)

// verify checks form and checksum of the segment that GUE carries directly; the
// NAT checksum, if there is one, corrects the inner checksum first.
func (c InnerChecksum) verify(out *Outer, proto Protocol, seg []byte, nat *NATChecksum) Drop {
	switch proto {
	case ProtoTCP:
		if len(seg) < minTCPLen || int(seg[12]>>4)*4 < minTCPLen || int(seg[12]>>4)*4 > len(seg) {
			return DropInner
		}
	case ProtoUDP:
		if len(seg) < udpLen || int(binary.BigEndian.Uint16(seg[4:])) != len(seg) {
			return DropInner
		}
	default:
		return DropNone
	}
	if c == InnerTOU {
		if proto == ProtoTCP && !VerifyTCPChecksum(seg) {
			return DropInnerChecksum
		}
		return DropNone
	}
	if nat != nil {
		correctNAT(nat.Value, out, proto, seg)
	}
	if c == InnerUnchecked {
		return DropNone
	}
	if proto == ProtoUDP && binary.BigEndian.Uint16(seg[udpChecksumOffset:]) == 0 {
		if out.Src.Addr().Unmap().Is4() {
			return DropNone
		}
		return DropInnerChecksum
	}
	if transportSum(out, proto, seg) != 0xffff {
		return DropInnerChecksum
	}
	return DropNone
}
