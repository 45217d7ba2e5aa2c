package tcpip

import (
	"encoding/binary"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/tougw/tougw/internal/packet"
)

const (
	icmpHeader = 8

	// How long an ICMP error may be, with its IP header: RFC 1812 section
	// 4.3.2.3 for IPv4, RFC 4443 section 2.4 (c) for IPv6.
	icmp4Max = 576
	icmp6Max = 1280

	icmpTTL = 64
)

// unreachable gives type and code of the ICMP error that means reason
// (RFC 792 and RFC 1812 section 5.2.7.1; RFC 4443 section 3.1).
func unreachable(version byte, reason syscall.Errno) (typ, code byte) {
	if version == 4 {
		switch reason {
		case syscall.ENETUNREACH:
			return 3, 0
		case syscall.EACCES:
			return 3, 13
		}
		return 3, 1
	}
	switch reason {
	case syscall.ENETUNREACH:
		return 1, 0
	case syscall.EACCES:
		return 1, 1
	}
	return 1, 3
}

// appendUnreachable appends to b the packet that tells the sender of quote, an
// IPv4 or IPv6 packet or the beginning of one, that it could not be delivered.
// It comes from the address that could not be reached: whoever sent quote routes
// that address here, so no filter of source addresses stops it.
func appendUnreachable(b, quote []byte, reason syscall.Errno) []byte {
	if quote[0]>>4 == 4 {
		return appendUnreachable4(b, quote, reason)
	}
	return appendUnreachable6(b, quote, reason)
}

func appendUnreachable4(b, quote []byte, reason syscall.Errno) []byte {
	quote = quote[:min(len(quote), icmp4Max-header.IPv4MinimumSize-icmpHeader)]
	start := len(b)
	b = append(b, make([]byte, header.IPv4MinimumSize+icmpHeader)...)
	b = append(b, quote...)
	p := b[start:]
	p[0] = 0x45
	p[1] = 0xc0 // precedence of control traffic (RFC 1812 section 4.3.2.5)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[8], p[9] = icmpTTL, packet.ProtoICMP
	copy(p[12:16], quote[16:20])
	copy(p[16:20], quote[12:16])
	binary.BigEndian.PutUint16(p[10:], ^checksum.Checksum(p[:header.IPv4MinimumSize], 0))

	icmp := p[header.IPv4MinimumSize:]
	icmp[0], icmp[1] = unreachable(4, reason)
	binary.BigEndian.PutUint16(icmp[2:], ^checksum.Checksum(icmp, 0))
	return b
}

func appendUnreachable6(b, quote []byte, reason syscall.Errno) []byte {
	quote = quote[:min(len(quote), icmp6Max-header.IPv6MinimumSize-icmpHeader)]
	start := len(b)
	b = append(b, make([]byte, header.IPv6MinimumSize+icmpHeader)...)
	b = append(b, quote...)
	p := b[start:]
	p[0] = 6 << 4
	binary.BigEndian.PutUint16(p[4:], uint16(icmpHeader+len(quote)))
	p[6], p[7] = packet.ProtoICMPv6, icmpTTL
	copy(p[8:24], quote[24:40])
	copy(p[24:40], quote[8:24])

	icmp := p[header.IPv6MinimumSize:]
	icmp[0], icmp[1] = unreachable(6, reason)
	// Pseudo-header: addresses, length, next header (RFC 8200 section 8.1).
	sum := checksum.Checksum(p[8:40], uint16(packet.ProtoICMPv6))
	sum = checksum.Combine(sum, uint16(len(icmp)))
	binary.BigEndian.PutUint16(icmp[2:], ^checksum.Checksum(icmp, sum))
	return b
}

// sendUnreachable writes the ICMP error for quote to queue q.
func (e *Edge) sendUnreachable(q int, quote []byte, reason syscall.Errno) {
	var room [icmp6Max]byte
	p := appendUnreachable(room[:0], quote, reason)
	if e.send(q, packet.Out{Parts: [][]byte{p}}) {
		e.stats.icmpSent.Add(1)
	}
}

// prohibit answers a captured packet that we do not carry, unless an answer is
// out of place (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)) or there were
// too many.
func (e *Edge) prohibit(q int, p []byte) {
	switch {
	case !mayAnswer(p):
		e.stats.icmpWithheld.Add(1)
	case !e.icmp.Allow():
		e.stats.icmpLimited.Add(1)
	default:
		e.sendUnreachable(q, p, syscall.EACCES)
	}
}

// mayAnswer reports whether an ICMP error may be sent for p: not for an ICMP
// error, a later fragment, a packet to more than one host or one from no
// single host. p has a complete IP header.
func mayAnswer(p []byte) bool {
	t, ok := packet.ParseTuple(p)
	if !ok {
		return false
	}
	src, dst := t.Src.Addr(), t.Dst.Addr()
	if dst.IsMulticast() || dst.IsUnspecified() || src.IsMulticast() || src.IsUnspecified() || src.IsLoopback() {
		return false
	}
	if src.Is4() {
		broadcast := [4]byte{255, 255, 255, 255}
		if dst.As4() == broadcast || src.As4() == broadcast {
			return false
		}
		hlen := int(p[0]&0x0f) * 4
		if binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
			return false
		}
		return t.Proto != packet.ProtoICMP || len(p) > hlen && !isICMP4Error(p[hlen])
	}
	off, first := skip6(p)
	if !first {
		return false
	}
	return t.Proto != packet.ProtoICMPv6 || len(p) > off && p[off] >= 128 // 0…127 are errors
}

// isICMP4Error reports whether an ICMPv4 type is one of the errors.
func isICMP4Error(typ byte) bool {
	switch typ {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}

// skip6 gives where the upper-layer header of an IPv6 packet begins, and
// whether the packet is whole or a first fragment. packet.ParseTuple accepted
// the packet.
func skip6(p []byte) (off int, first bool) {
	next, off := p[6], header.IPv6MinimumSize
	for {
		switch next {
		case 0, 43, 60: // hop-by-hop, routing, destination options
			next, off = p[off], off+8+int(p[off+1])*8
		case 44: // fragment
			if binary.BigEndian.Uint16(p[off+2:])&0xfff8 != 0 {
				return off + 8, false
			}
			next, off = p[off], off+8
		case 51: // authentication header
			next, off = p[off], off+(int(p[off+1])+2)*4
		default:
			return off, true
		}
	}
}
