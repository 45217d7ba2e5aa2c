package udp

import (
	"net/netip"
	"testing"
	"unsafe"

	"github.com/tougw/tougw/internal/mmsg"
)

func bytesOf(p *byte, n int) []byte { return unsafe.Slice(p, n) }

func TestControlRoundTrip(t *testing.T) {
	var zones mmsg.Zones
	for _, addr := range []string{"192.0.2.1", "2001:db8::1", "fe80::1%lo"} {
		for _, v6 := range []bool{false, true} {
			want := netip.MustParseAddr(addr)
			var c sendControl
			b := c.bytes()
			for i := range b {
				b[i] = 0xff
			}
			n := mmsg.PutSource(b, want, v6, &zones)
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
	n := mmsg.PutSource(c.bytes(), netip.MustParseAddr("2001:db8::1"), true, new(mmsg.Zones))
	f.Add(append([]byte(nil), c.bytes()[:n]...))
	f.Fuzz(func(_ *testing.T, in []byte) {
		var c recvControl
		parseControl(c.bytes()[:copy(c.bytes(), in)], new(mmsg.Zones))
	})
}
