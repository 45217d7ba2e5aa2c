package mmsg

import (
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// NameLen4 and NameLen6 are the sizes of socket addresses in bytes.
//
// Layout of struct sockaddr_in and sockaddr_in6: family (2, native order),
// port (2, network order), then an IPv4 address at 4, or flow label at 4, IPv6
// address at 8 and scope id at 24 (native order).
const (
	NameLen4 = unix.SizeofSockaddrInet4
	NameLen6 = unix.SizeofSockaddrInet6
)

// PutName writes addr as a socket address of the family of the socket into b
// and returns its length, or 0 when that family cannot hold it.
func PutName(b *[NameLen6]byte, addr netip.AddrPort, v6 bool, zones *Zones) uint32 {
	ip := addr.Addr()
	if !v6 {
		ip = ip.Unmap()
		if !ip.Is4() {
			return 0
		}
		binary.NativeEndian.PutUint16(b[:], unix.AF_INET)
		binary.BigEndian.PutUint16(b[2:], addr.Port())
		a := ip.As4()
		copy(b[4:8], a[:])
		clear(b[8:NameLen4])
		return NameLen4
	}
	if !ip.IsValid() {
		return 0
	}
	binary.NativeEndian.PutUint16(b[:], unix.AF_INET6)
	binary.BigEndian.PutUint16(b[2:], addr.Port())
	clear(b[4:8])
	a := ip.As16() // maps IPv4
	copy(b[8:24], a[:])
	scope := uint32(0)
	if z := ip.Zone(); z != "" {
		scope = zones.Index(z)
	}
	binary.NativeEndian.PutUint32(b[24:], scope)
	return NameLen6
}

// ParseName reads the socket address of n bytes in b; IPv4 comes out unmapped.
func ParseName(b *[NameLen6]byte, n uint32, zones *Zones) (netip.AddrPort, bool) {
	if n < NameLen4 {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch binary.NativeEndian.Uint16(b[:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port), true
	case unix.AF_INET6:
		if n < NameLen6 {
			return netip.AddrPort{}, false
		}
		ip := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
		if scope := binary.NativeEndian.Uint32(b[24:]); scope != 0 {
			ip = ip.WithZone(zones.Name(scope))
		}
		return netip.AddrPortFrom(ip, port), true
	}
	return netip.AddrPort{}, false
}

// maxZones bounds Zones; hosts with more interfaces that carry link-local
// traffic of ours see their names resolved anew each time.
const maxZones = 256

// Zones remembers names and indexes of interfaces, which package net reads
// from the kernel at each question. The zero value is ready. An interface that is renamed keeps its old
// name here. It is safe for concurrent use.
type Zones struct {
	mu  sync.Mutex // held by who replaces a map
	idx atomic.Pointer[map[string]uint32]
	nam atomic.Pointer[map[uint32]string]
}

// Index returns the interface index of zone, a name or a number, or 0 when there
// is no such interface.
func (t *Zones) Index(zone string) uint32 {
	if m := t.idx.Load(); m != nil {
		if i, ok := (*m)[zone]; ok {
			return i
		}
	}
	var i uint32
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		i = uint32(n)
	} else if ifi, err := net.InterfaceByName(zone); err == nil {
		i = uint32(ifi.Index)
	} else {
		return 0 // the kernel then refuses a link-local address with EINVAL
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	remember(&t.idx, zone, i)
	return i
}

// Name returns the name of the interface with index, or the number as text when
// there is none.
func (t *Zones) Name(index uint32) string {
	if m := t.nam.Load(); m != nil {
		if s, ok := (*m)[index]; ok {
			return s
		}
	}
	s := strconv.FormatUint(uint64(index), 10)
	if ifi, err := net.InterfaceByIndex(int(index)); err == nil {
		s = ifi.Name
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	remember(&t.nam, index, s)
	return s
}

func remember[K comparable, V any](p *atomic.Pointer[map[K]V], k K, v V) {
	m := map[K]V{}
	if old := p.Load(); old != nil {
		if len(*old) >= maxZones {
			return
		}
		m = maps.Clone(*old)
	}
	m[k] = v
	p.Store(&m)
}
