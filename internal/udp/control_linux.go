package udp

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of control messages with their headers, padded; CmsgSpace is not a
// constant expression.
const (
	wordSize    = int(unsafe.Sizeof(uintptr(0)))
	cmsgHeader  = (unix.SizeofCmsghdr + wordSize - 1) &^ (wordSize - 1)
	spaceInfo4  = cmsgHeader + (unix.SizeofInet4Pktinfo+wordSize-1)&^(wordSize-1)
	spaceInfo6  = cmsgHeader + (unix.SizeofInet6Pktinfo+wordSize-1)&^(wordSize-1)
	spaceUint16 = cmsgHeader + wordSize
	spaceInt    = cmsgHeader + wordSize

	// sendControlSize and recvControlSize hold all messages we send or asked
	// for, and the larger of the two kinds of packet information.
	sendControlSize = spaceInfo6 + spaceUint16
	recvControlSize = spaceInfo6 + spaceInt
)

// The words give control buffers the alignment of struct cmsghdr.
type (
	sendControl [(sendControlSize + 7) / 8]uint64
	recvControl [(recvControlSize + 7) / 8]uint64
)

func (c *sendControl) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), sendControlSize)
}

func (c *recvControl) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), recvControlSize)
}

// putCmsg writes a header for size bytes of data at b and returns the data,
// zeroed with its padding.
func putCmsg(b []byte, level, typ int32, size int) []byte {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, typ
	h.SetLen(cmsgHeader + size)
	d := b[cmsgHeader:][:(size+wordSize-1)&^(wordSize-1)]
	clear(d)
	return d
}

// putSource writes the control message that makes the kernel send from local
// and returns its length, or 0 when the socket's family has no such address.
func putSource(b []byte, local netip.Addr, v6 bool, zones *zoneTable) int {
	if !v6 {
		local = local.Unmap()
		if !local.Is4() {
			return 0
		}
		// struct in_pktinfo: interface index, source address, unused.
		d := putCmsg(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		a := local.As4()
		copy(d[4:], a[:])
		return spaceInfo4
	}
	// struct in6_pktinfo: source address, interface index. For IPv4 over an IPv6
	// socket Linux takes the same message with a mapped address.
	d := putCmsg(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	a := local.As16()
	copy(d, a[:])
	if z := local.Zone(); z != "" {
		binary.NativeEndian.PutUint32(d[16:], zones.index(z))
	}
	return spaceInfo6
}

// putSegment writes the control message that asks for datagrams of size bytes
// and returns its length.
func putSegment(b []byte, size int) int {
	binary.NativeEndian.PutUint16(putCmsg(b, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2), uint16(size))
	return spaceUint16
}

// parseControl reads the local address and the segment size (zero when absent)
// from received control messages.
func parseControl(b []byte, zones *zoneTable) (local netip.Addr, segment int) {
	for len(b) >= cmsgHeader {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < cmsgHeader || n > len(b) {
			break
		}
		d := b[cmsgHeader:n]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(d) >= unix.SizeofInet4Pktinfo:
			// The second address is the destination in the header; the first is
			// the one of ours to answer from, which differs for a broadcast.
			local = netip.AddrFrom4([4]byte(d[4:8]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(d) >= unix.SizeofInet6Pktinfo:
			local = netip.AddrFrom16([16]byte(d[:16])).Unmap()
			if local.IsLinkLocalUnicast() && local.Is6() {
				local = local.WithZone(zones.name(binary.NativeEndian.Uint32(d[16:])))
			}
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(d) >= 4:
			segment = int(binary.NativeEndian.Uint32(d))
		}
		b = b[min((n+wordSize-1)&^(wordSize-1), len(b)):]
	}
	return local, segment
}
