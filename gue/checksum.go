package gue

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum (RFC 1071) is summed over eight bytes at a time in
// little-endian order: the one's complement sum is the same in every byte
// order but for a swap of the result, and loads need no swap this way.

// sum adds b to the one's complement sum acc. All but the last of several
// parts must have an even length; an odd one counts as padded with a zero.
func sum(acc uint64, b []byte) uint64 {
	var c uint64
	for len(b) >= 32 {
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:]), c)
		b = b[32:]
	}
	for len(b) >= 8 {
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b), c)
		b = b[8:]
	}
	if len(b) > 0 {
		var tail [8]byte
		copy(tail[:], b)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(tail[:]), c)
	}
	acc, c = bits.Add64(acc, c, 0)
	return acc + c
}

// fold returns the 16-bit one's complement sum, not complemented, of acc.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return bits.ReverseBytes16(uint16(acc))
}

// add16 is one's complement addition.
func add16(a, b uint16) uint16 {
	s := uint32(a) + uint32(b)
	return uint16(s>>16 + s&0xffff)
}

// tcpChecksumOffset is where the checksum lies in a TCP header, minTCPLen the
// length of one without options (RFC 9293 §3.1).
const (
	tcpChecksumOffset = 16
	minTCPLen         = 20
	udpChecksumOffset = 6
	udpLen            = 8
)

// SetTCPChecksum computes the TCP checksum of a TOU session and stores it in
// seg, a TCP header with its data. It covers just these: the addresses are
// left out of the pseudo-header (tou-01 §2.2), so that no NAT can break it,
// and we read that as no pseudo-header at all. It reports false, and does
// nothing, for a segment shorter than a TCP header.
func SetTCPChecksum(seg []byte) bool {
	if len(seg) < minTCPLen {
		return false
	}
	binary.BigEndian.PutUint16(seg[tcpChecksumOffset:], 0)
	binary.BigEndian.PutUint16(seg[tcpChecksumOffset:], ^fold(sum(0, seg)))
	return true
}

// VerifyTCPChecksum reports whether the checksum that SetTCPChecksum stores is
// right. It borrows seg.
func VerifyTCPChecksum(seg []byte) bool {
	return len(seg) >= minTCPLen && fold(sum(0, seg)) == 0xffff
}

// AddressChecksum is the value of the NAT checksum address field for the
// addresses of out: their Internet checksum, complemented as RFC 1071 does.
// The draft leaves that open.
func AddressChecksum(out *Outer) uint16 {
	return ^addressSum(out)
}

func addressSum(out *Outer) uint16 {
	var b [32]byte
	return fold(sum(0, b[:out.putAddrs(&b)]))
}

// gueSum is the sum that the GUE checksum complements: pseudo-header of
// addresses and ports, then the header, then the covered payload
// (extensions-06 §8.3).
func gueSum(out *Outer, header, covered []byte) uint16 {
	var b [36]byte
	n := out.putAddrs((*[32]byte)(b[:]))
	binary.BigEndian.PutUint16(b[n:], out.Src.Port())
	binary.BigEndian.PutUint16(b[n+2:], out.Dst.Port())
	return fold(sum(sum(sum(0, b[:n+4]), header), covered))
}

// transportSum is the sum over an ordinary pseudo-header with the outer
// addresses (RFC 9293 §3.1, RFC 8200 §8.1) and a segment.
func transportSum(out *Outer, proto Protocol, seg []byte) uint16 {
	var b [40]byte
	n := out.putAddrs((*[32]byte)(b[:]))
	binary.BigEndian.PutUint32(b[n:], uint32(len(seg)))
	b[n+7] = byte(proto)
	return fold(sum(sum(0, b[:n+8]), seg))
}

// completeRemote computes the inner checksum that the sender left to us:
// payload[Offset:] holds the sum of the pseudo-header, and the checksum covers
// everything from Start to the end (extensions-06 §7.2.2).
func completeRemote(r RemoteChecksum, payload []byte) Drop {
	start, offset := int(r.Start), int(r.Offset)
	if start > len(payload) || offset > len(payload)-2 {
		return DropRemoteChecksum
	}
	binary.BigEndian.PutUint16(payload[offset:], ^fold(sum(0, payload[start:])))
	return DropNone
}

// correctNAT replaces the addresses that the sender's pseudo-header had, whose
// checksum is nac, by those that arrived, in the checksum of a TCP segment or
// UDP datagram (extensions-06 §9.2.2, with the sign of its pseudo-code).
func correctNAT(nac uint16, out *Outer, proto Protocol, seg []byte) {
	o := tcpChecksumOffset
	if proto == ProtoUDP {
		o = udpChecksumOffset
	}
	old := binary.BigEndian.Uint16(seg[o:])
	if proto == ProtoUDP && old == 0 { // the sender computed none
		return
	}
	// The sum of the old addresses is ^nac; to subtract it is to add nac.
	v := ^add16(add16(^old, nac), addressSum(out))
	if proto == ProtoUDP && v == 0 {
		v = 0xffff
	}
	binary.BigEndian.PutUint16(seg[o:], v)
}
