package gue

import "encoding/binary"

// ECN is a codepoint of explicit congestion notification (RFC 3168 §5).
type ECN uint8

// The codepoints.
const (
	NotECT ECN = 0
	ECT1   ECN = 1
	ECT0   ECN = 2
	CE     ECN = 3

	ecnMask = 3
)

// CombineECN returns the codepoint of a decapsulated packet (RFC 6040 §4.2),
// and false if the packet must be dropped: its transport does not understand
// that congestion was met. An outer header copies the inner codepoint.
func CombineECN(outer, inner ECN) (ECN, bool) {
	switch {
	case outer == CE:
		return CE, inner != NotECT
	case outer == ECT1 && inner == ECT0:
		return ECT1, true
	}
	return inner, true
}

// combinePacket applies CombineECN to the IP packet p, whose header is whole.
func combinePacket(outer ECN, p []byte) Drop {
	v4 := p[0]>>4 == 4
	inner := ECN(p[1] >> 4 & ecnMask) // low bits of the IPv6 traffic class
	if v4 {
		inner = ECN(p[1] & ecnMask)
	}
	e, ok := CombineECN(outer, inner)
	if !ok {
		return DropECN
	}
	if e == inner {
		return DropNone
	}
	if !v4 {
		p[1] = p[1]&^(ecnMask<<4) | byte(e)<<4
		return DropNone
	}
	was := binary.BigEndian.Uint16(p)
	p[1] = p[1]&^ecnMask | byte(e)
	// RFC 1624, equation 3
	c := ^binary.BigEndian.Uint16(p[10:])
	c = ^add16(add16(c, ^was), binary.BigEndian.Uint16(p))
	binary.BigEndian.PutUint16(p[10:], c)
	return DropNone
}
