package udp

import (
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func bytesOf(p *byte, n int) []byte { return unsafe.Slice(p, n) }

func TestLayoutMatchesTheKernel(t *testing.T) {
	if got, want := cmsgHeader, unix.CmsgLen(0); got != want {
		t.Errorf("header of %d bytes, want %d", got, want)
	}
	for _, c := range []struct{ got, want int }{
		{spaceInfo4, unix.CmsgSpace(unix.SizeofInet4Pktinfo)},
		{spaceInfo6, unix.CmsgSpace(unix.SizeofInet6Pktinfo)},
		{spaceUint16, unix.CmsgSpace(2)},
		{spaceInt, unix.CmsgSpace(4)},
	} {
		if c.got != c.want {
			t.Errorf("space of %d bytes, want %d", c.got, c.want)
		}
	}
	if got, want := unsafe.Sizeof(mmsghdr{}), unsafe.Sizeof(unix.Msghdr{})+unsafe.Sizeof(uintptr(0)); got != want {
		t.Errorf("mmsghdr of %d bytes, want %d", got, want)
	}
}

func TestNamesRoundTrip(t *testing.T) {
	var zones zoneTable
	for _, c := range []struct {
		addr string
		v6   bool
	}{
		{"192.0.2.1:443", false}, {"192.0.2.1:443", true}, {"[2001:db8::1]:1", true}, {"[fe80::1%lo]:65535", true},
	} {
		var b [nameLen6]byte
		for i := range b {
			b[i] = 0xff // what an earlier message left
		}
		want := netip.MustParseAddrPort(c.addr)
		n := putName(&b, want, c.v6, &zones)
		got, ok := parseName(&b, n, &zones)
		if !ok || got != want {
			t.Errorf("%s over IPv6 socket %v: came back as %v", c.addr, c.v6, got)
		}
		for short := range n {
			if _, ok := parseName(&b, short, &zones); ok && short < nameLen4 {
				t.Errorf("%s: address of %d bytes taken", c.addr, short)
			}
		}
	}
	var b [nameLen6]byte
	if putName(&b, netip.MustParseAddrPort("[::1]:1"), false, &zones) != 0 {
		t.Error("IPv6 address in an IPv4 socket address")
	}
	// A mapped address is an IPv4 address to an IPv4 socket.
	if putName(&b, netip.MustParseAddrPort("[::ffff:192.0.2.1]:1"), false, &zones) != nameLen4 {
		t.Error("mapped address refused")
	}
}

func TestControlRoundTrip(t *testing.T) {
	var zones zoneTable
	for _, addr := range []string{"192.0.2.1", "2001:db8::1", "fe80::1%lo"} {
		for _, v6 := range []bool{false, true} {
			want := netip.MustParseAddr(addr)
			var c sendControl
			b := c.bytes()
			for i := range b {
				b[i] = 0xff
			}
			n := putSource(b, want, v6, &zones)
			if !v6 && want.Is6() {
				if n != 0 {
					t.Errorf("%s taken on an IPv4 socket", addr)
				}
				continue
			}
			n += putSegment(b[n:], 1400)
			for short := range n { // no truncation may be read past its end
				parseControl(b[:short:short], &zones)
			}
			if got, segment := parseControl(b[:n], &zones); got != want || segment != 0 {
				t.Errorf("%s over IPv6 socket %v: came back as %v, segment %d", addr, v6, got, segment)
			}
		}
	}
}

func FuzzParseControl(f *testing.F) {
	var c sendControl
	n := putSource(c.bytes(), netip.MustParseAddr("2001:db8::1"), true, new(zoneTable))
	f.Add(append([]byte(nil), c.bytes()[:n]...))
	f.Fuzz(func(_ *testing.T, in []byte) {
		var c recvControl
		parseControl(c.bytes()[:copy(c.bytes(), in)], new(zoneTable))
	})
}
