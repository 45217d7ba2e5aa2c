package mmsg

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of control messages with their headers, padded; unix.CmsgSpace is not a
// constant expression.
const (
	wordSize   = int(unsafe.Sizeof(uintptr(0)))
	CmsgHeader = (unix.SizeofCmsghdr + wordSize - 1) &^ (wordSize - 1)
	SpaceInfo4 = CmsgHeader + (unix.SizeofInet4Pktinfo+wordSize-1)&^(wordSize-1)
	SpaceInfo6 = CmsgHeader + (unix.SizeofInet6Pktinfo+wordSize-1)&^(wordSize-1)
	SpaceInt   = CmsgHeader + wordSize // of anything up to an int32
)

// PutCmsg writes a header for size bytes of data at b, which must be aligned as
// struct cmsghdr and have room, and returns the data, zeroed with its padding.
func PutCmsg(b []byte, level, typ int32, size int) []byte {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, typ
	h.SetLen(CmsgHeader + size)
	d := b[CmsgHeader:][:(size+wordSize-1)&^(wordSize-1)]
	clear(d)
	return d
}

// NextCmsg takes the first control message off b, which must be aligned as
// struct cmsghdr. It reports false at the end and at a malformed message; data
// aliases b.
func NextCmsg(b []byte) (level, typ int32, data, rest []byte, ok bool) {
	if len(b) < CmsgHeader {
		return 0, 0, nil, nil, false
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	n := int(h.Len)
	if n < CmsgHeader || n > len(b) {
		return 0, 0, nil, nil, false
	}
	return h.Level, h.Type, b[CmsgHeader:n], b[min((n+wordSize-1)&^(wordSize-1), len(b)):], true
}

// PutSource writes the control message that makes the kernel send from local
// and returns its length, or 0 when the socket's family has no such address. v6
// says that the socket's family is AF_INET6.
func PutSource(b []byte, local netip.Addr, v6 bool, zones *Zones) int {
	if !v6 {
		local = local.Unmap()
		if !local.Is4() {
			return 0
		}
		// struct in_pktinfo: interface index, source address, unused.
		d := PutCmsg(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		a := local.As4()
		copy(d[4:], a[:])
		return SpaceInfo4
	}
	// struct in6_pktinfo: source address, interface index. For IPv4 over an IPv6
	// socket Linux takes the same message with a mapped address.
	d := PutCmsg(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	a := local.As16()
	copy(d, a[:])
	if z := local.Zone(); z != "" {
		binary.NativeEndian.PutUint32(d[16:], zones.Index(z))
	}
	return SpaceInfo6
}

// ParseSource reads the local address from a received control message (IP_PKTINFO
// or IPV6_PKTINFO). It reports false for any other message.
func ParseSource(level, typ int32, data []byte, zones *Zones) (netip.Addr, bool) {
	switch {
	case level == unix.IPPROTO_IP && typ == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		// The second address is the destination in the header; the first is the one
		// of ours to answer from, which differs for a broadcast.
		return netip.AddrFrom4([4]byte(data[4:8])), true
	case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		local := netip.AddrFrom16([16]byte(data[:16])).Unmap()
		if local.IsLinkLocalUnicast() && local.Is6() {
			local = local.WithZone(zones.Name(binary.NativeEndian.Uint32(data[16:])))
		}
		return local, true
	}
	return netip.Addr{}, false
}
