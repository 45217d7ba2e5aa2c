package tcpip

import (
	"encoding/binary"
	"net/netip"

	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/tougw/tougw/internal/packet"
)

// unread gives how many bytes wait for Read.
func unread(s *Stream) int {
	n, _ := s.ep.GetSockOptInt(gtcpip.ReceiveQueueSizeOption)
	return n
}

// ip4 makes an IPv4 packet.
func ip4(src, dst netip.Addr, proto byte, payload []byte) []byte {
	p := make([]byte, 20, 20+len(payload))
	p[0], p[8], p[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(p[2:], uint16(20+len(payload)))
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.AsSlice())
	fixIP4(p)
	return append(p, payload...)
}

func fixIP4(p []byte) {
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^checksum.Checksum(p[:20], 0))
}

// ip6 makes an IPv6 packet.
func ip6(src, dst netip.Addr, proto byte, payload []byte) []byte {
	p := make([]byte, 40, 40+len(payload))
	p[0], p[6], p[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	return append(p, payload...)
}

// tcp4 makes a TCP segment in an IPv4 packet.
func tcp4(src, dst netip.AddrPort, flags uint8, seq uint32, payload []byte) []byte {
	seg := tcpSegment(src, dst, flags, seq, payload)
	return ip4(src.Addr(), dst.Addr(), packet.ProtoTCP, seg)
}

// tcp6 makes a TCP segment in an IPv6 packet.
func tcp6(src, dst netip.AddrPort, flags uint8, seq uint32, payload []byte) []byte {
	seg := tcpSegment(src, dst, flags, seq, payload)
	return ip6(src.Addr(), dst.Addr(), packet.ProtoTCP, seg)
}

func tcpSegment(src, dst netip.AddrPort, flags uint8, seq uint32, payload []byte) []byte {
	h := make([]byte, 20, 20+len(payload))
	binary.BigEndian.PutUint16(h, src.Port())
	binary.BigEndian.PutUint16(h[2:], dst.Port())
	binary.BigEndian.PutUint32(h[4:], seq)
	h[12], h[13] = 0x50, flags
	binary.BigEndian.PutUint16(h[14:], 65535)
	h = append(h, payload...)
	sum := checksum.Checksum(src.Addr().AsSlice(), uint16(packet.ProtoTCP))
	sum = checksum.Checksum(dst.Addr().AsSlice(), sum)
	sum = checksum.Combine(sum, uint16(len(h)))
	binary.BigEndian.PutUint16(h[16:], ^checksum.Checksum(h, sum))
	return h
}
