package tcpip

import (
	"encoding/binary"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Offsets in a TCP header (RFC 9293 section 3.1), in bytes.
const (
	tcpSeqOffset   = 4
	tcpFlagsOffset = 13
	tcpCsumOffset  = 16

	tcpHeaderMax = 60
	bareAckLen   = 32 // with timestamps (RFC 7323 appendix A)
)

// TCP flags as Segment.Flags gives them (RFC 9293 section 3.1).
const (
	FlagFIN uint8 = 1 << iota
	FlagSYN
	FlagRST
	FlagPSH
	FlagACK
	FlagURG
	FlagECE
	FlagCWR
)

// Segment is a TCP segment on its way out of a Tunnel. It may be larger than
// what the path carries: Cut gives it out in pieces. It borrows its payload
// from the stack until Release. It is not safe for concurrent use.
type Segment struct {
	pkt     *stack.PacketBuffer
	session uint64
	hdr     [tcpHeaderMax]byte
	hlen    int
	left    int // payload bytes still to cut
	seq     uint32
	started bool // something was cut

	payload [][]byte // what is left of the payload, at payload[next:]
	next    int
}

var segmentPool = sync.Pool{New: func() any { return new(Segment) }}

// newSegment makes a Segment of an outgoing packet, whose payload it borrows
// by a reference. It gives nil for what is not TCP over IPv6.
func newSegment(pkt *stack.PacketBuffer) *Segment {
	ip, th := pkt.NetworkHeader().Slice(), pkt.TransportHeader().Slice()
	if pkt.TransportProtocolNumber != header.TCPProtocolNumber || len(ip) < header.IPv6MinimumSize || len(th) < header.TCPMinimumSize {
		return nil
	}
	s := segmentPool.Get().(*Segment)
	s.pkt = pkt.IncRef()
	s.session = binary.BigEndian.Uint64(ip[16:]) // low half of the source address
	s.hlen = copy(s.hdr[:], th)
	s.hdr[tcpCsumOffset], s.hdr[tcpCsumOffset+1] = 0, 0
	s.seq = binary.BigEndian.Uint32(th[tcpSeqOffset:])
	s.left, s.started, s.next = 0, false, 0
	s.payload = s.payload[:0]
	views, skip := pkt.AsViewList()
	skip += pkt.HeaderSize()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		s.payload = append(s.payload, b[skip:])
		s.left += len(b) - skip
		skip = 0
	}
	return s
}

// Session gives the session id that this side drew.
func (s *Segment) Session() uint64 { return s.session }

// Flags gives the TCP flags of the whole segment, FlagFIN to FlagCWR.
func (s *Segment) Flags() uint8 { return s.hdr[tcpFlagsOffset] }

// HeaderLen gives the length of the TCP header in bytes, 20 to 60. Each piece
// that Cut gives has one.
func (s *Segment) HeaderLen() int { return s.hlen }

// Len gives the number of bytes still to cut, with one header; zero when all
// was cut. A segment with Len at most n leaves in one Cut into n bytes.
func (s *Segment) Len() int {
	if s.started && s.left == 0 {
		return 0
	}
	return s.hlen + s.left
}

// Cut writes the next piece to dst, which it borrows: a complete TCP segment of
// at most len(dst) bytes with its sequence number, with FIN and PSH on the last
// piece only and CWR on the first only. With sum it has a checksum over header
// and data without a pseudo-header, which is never zero; without, zero. It gives
// the length of the piece: zero when all was cut, or when dst has no room for a
// header and one byte of the payload that is left.
func (s *Segment) Cut(dst []byte, sum bool) int {
	n := min(s.left, len(dst)-s.hlen)
	if n < 0 || n == 0 && (s.left > 0 || s.started) {
		return 0
	}
	dst = dst[:s.hlen+n]
	copy(dst, s.hdr[:s.hlen])
	binary.BigEndian.PutUint32(dst[tcpSeqOffset:], s.seq)
	flags := s.hdr[tcpFlagsOffset]
	if n < s.left {
		flags &^= FlagFIN | FlagPSH
	}
	if s.started {
		flags &^= FlagCWR
	}
	dst[tcpFlagsOffset] = flags
	s.take(dst[s.hlen:])
	s.seq += uint32(n)
	s.left -= n
	s.started = true
	if sum {
		c := ^checksum.Checksum(dst, 0)
		if c == 0 {
			c = 0xffff // the same number in one's complement, and zero says that there is none
		}
		binary.BigEndian.PutUint16(dst[tcpCsumOffset:], c)
	}
	return len(dst)
}

// take moves payload to dst and fills it.
func (s *Segment) take(dst []byte) {
	for len(dst) > 0 {
		n := copy(dst, s.payload[s.next])
		dst = dst[n:]
		if n == len(s.payload[s.next]) {
			s.next++
		} else {
			s.payload[s.next] = s.payload[s.next][n:]
		}
	}
}

// Release gives the segment back; it must not be used afterwards.
func (s *Segment) Release() {
	s.pkt.DecRef()
	s.pkt = nil
	clear(s.payload)
	segmentPool.Put(s)
}

// flow implements holdable.
func (s *Segment) flow() uint64 { return s.session }

// bareAck implements holdable.
func (s *Segment) bareAck() bool {
	return s.left == 0 && !s.started && s.Flags() == FlagACK && s.hlen <= bareAckLen
}
