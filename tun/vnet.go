package tun

import (
	"encoding/binary"

	"github.com/tougw/tougw/internal/packet"
)

// vnetHdrLen is the length of struct virtio_net_hdr, the kernel's default of
// TUNSETVNETHDRSZ. Its fields have the byte order of the host:
//
//	 0       1        2        4         6           8            10
//	+-------+--------+--------+---------+-----------+------------+
//	| flags | gso    | hdr    | gso     | csum      | csum       |
//	|       | type   | len    | size    | start     | offset     |
//	+-------+--------+--------+---------+-----------+------------+
const vnetHdrLen = 10

// tcpMinHdr and tcpOffset locate the data offset of a TCP header (RFC 9293
// section 3.1).
const (
	tcpMinHdr = 20
	tcpOffset = 12
)

func encodeVnet(b *[vnetHdrLen]byte, o *packet.Offload) {
	b[0], b[1] = o.Flags, o.GSOType
	binary.NativeEndian.PutUint16(b[2:], o.HdrLen)
	binary.NativeEndian.PutUint16(b[4:], o.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], o.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], o.CsumOffset)
}

// decodeVnet sets all fields of o from b, the header of the packet pkt. It
// reports false when they do not fit the packet or are of a kind that was not
// asked for with TUNSETOFFLOAD.
func decodeVnet(o *packet.Offload, b *[vnetHdrLen]byte, pkt []byte) bool {
	*o = packet.Offload{
		Flags:      b[0] & (packet.NeedsCsum | packet.DataValid),
		GSOType:    b[1],
		GSOSize:    binary.NativeEndian.Uint16(b[4:]),
		CsumStart:  binary.NativeEndian.Uint16(b[6:]),
		CsumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
	open := o.Flags&packet.NeedsCsum != 0
	if !open {
		o.CsumStart, o.CsumOffset = 0, 0
	} else if int(o.CsumStart)+int(o.CsumOffset)+2 > len(pkt) {
		return false
	}
	switch o.GSOType {
	case packet.GSONone:
		o.GSOSize = 0
		return len(pkt) > 0
	case packet.GSOTCPv4, packet.GSOTCPv6, packet.GSOTCPv4 | packet.GSOECN, packet.GSOTCPv6 | packet.GSOECN:
	default:
		return false
	}
	// The kernel's hdr_len only hints at how much of the packet is in one
	// piece, which may be all of it. The headers' length follows from where
	// TCP begins, and that is csum_start: segments always have open checksums.
	tcp := int(o.CsumStart)
	if !open || o.GSOSize == 0 || len(pkt) < tcp+tcpMinHdr {
		return false
	}
	n := int(pkt[tcp+tcpOffset]>>4) * 4
	if n < tcpMinHdr || len(pkt) < tcp+n {
		return false
	}
	o.HdrLen = uint16(tcp + n)
	return true
}
