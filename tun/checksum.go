package tun

import (
	"encoding/binary"

	"github.com/tougw/tougw/internal/packet"
)

// completeChecksum finishes the open checksum (RFC 1071) of pkt, whose field holds the
// folded sum of the pseudo-header, in place. It reports false, with pkt
// unchanged, when the field lies outside of pkt.
func completeChecksum(pkt []byte, o *packet.Offload) bool {
	start, field := int(o.CsumStart), int(o.CsumStart)+int(o.CsumOffset)
	if field+2 > len(pkt) {
		return false
	}
	sum := ^fold(sum32(pkt[start:]))
	if sum == 0 {
		// The same number in ones' complement. In UDP a plain zero would say
		// that there is no checksum (RFC 768), and TCP does not mind.
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(pkt[field:], sum)
	return true
}

// sum32 adds b as big-endian words; the carries of at most 64 KiB cannot
// overflow it.
func sum32(b []byte) (sum uint64) {
	for len(b) >= 4 {
		sum += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		sum += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return sum
}

// fold reduces a sum of 16- and 32-bit words to 16 bits with end-around carry.
func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
