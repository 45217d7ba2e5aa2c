package mmsg

import (
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestLayoutMatchesTheKernel(t *testing.T) {
	if got, want := CmsgHeader, unix.CmsgLen(0); got != want {
		t.Errorf("header of %d bytes, want %d", got, want)
	}
	for _, c := range []struct{ got, want int }{
		{SpaceInfo4, unix.CmsgSpace(unix.SizeofInet4Pktinfo)},
		{SpaceInfo6, unix.CmsgSpace(unix.SizeofInet6Pktinfo)},
		{SpaceInt, unix.CmsgSpace(2)},
		{SpaceInt, unix.CmsgSpace(4)},
	} {
		if c.got != c.want {
			t.Errorf("space of %d bytes, want %d", c.got, c.want)
		}
	}
	if got, want := unsafe.Sizeof(Header{}), unsafe.Sizeof(unix.Msghdr{})+unsafe.Sizeof(uintptr(0)); got != want {
		t.Errorf("Header of %d bytes, want %d", got, want)
	}
}

func TestNamesRoundTrip(t *testing.T) {
	var zones Zones
	for _, c := range []struct {
		addr string
		v6   bool
	}{
		{"192.0.2.1:443", false}, {"192.0.2.1:443", true}, {"[2001:db8::1]:1", true}, {"[fe80::1%lo]:65535", true},
	} {
		var b [NameLen6]byte
		for i := range b {
			b[i] = 0xff // what an earlier message left
		}
		want := netip.MustParseAddrPort(c.addr)
		n := PutName(&b, want, c.v6, &zones)
		got, ok := ParseName(&b, n, &zones)
		if !ok || got != want {
			t.Errorf("%s over IPv6 socket %v: came back as %v", c.addr, c.v6, got)
		}
		for short := range n {
			if _, ok := ParseName(&b, short, &zones); ok && short < NameLen4 {
				t.Errorf("%s: address of %d bytes taken", c.addr, short)
			}
		}
	}
	var b [NameLen6]byte
	if PutName(&b, netip.MustParseAddrPort("[::1]:1"), false, &zones) != 0 {
		t.Error("IPv6 address in an IPv4 socket address")
	}
	// A mapped address is an IPv4 address to an IPv4 socket.
	if PutName(&b, netip.MustParseAddrPort("[::ffff:192.0.2.1]:1"), false, &zones) != NameLen4 {
		t.Error("mapped address refused")
	}
}
