package packet

import (
	"net/netip"
	"testing"
)

func TestReleaseTwicePanics(t *testing.T) {
	b := Get()
	b.Release()
	defer func() {
		if recover() == nil {
			t.Fatal("second release did not panic")
		}
	}()
	b.Release()
}

func TestParseTuple(t *testing.T) {
	v4 := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x04, 0xd2, 0, 53, 0, 8, 0, 0}
	frag := append([]byte(nil), v4...)
	frag[7] = 8
	v6 := make([]byte, 40+8+8+4)
	v6[0], v6[6] = 0x60, 60
	copy(v6[8:], netip.MustParseAddr("2001:db8::1").AsSlice())
	copy(v6[24:], netip.MustParseAddr("2001:db8::2").AsSlice())
	v6[40] = 44 // destination options, then fragment
	v6[48] = ProtoTCP
	v6[56], v6[57], v6[58], v6[59] = 0x1f, 0x90, 0, 80
	for _, c := range []struct {
		name string
		in   []byte
		want Tuple
		ok   bool
	}{
		{"udp over IPv4", v4, Tuple{ProtoUDP, netip.MustParseAddrPort("10.0.0.1:1234"), netip.MustParseAddrPort("10.0.0.2:53")}, true},
		{"later fragment has no ports", frag, Tuple{ProtoUDP, netip.MustParseAddrPort("10.0.0.1:0"), netip.MustParseAddrPort("10.0.0.2:0")}, true},
		{"IPv6 with extension headers", v6, Tuple{ProtoTCP, netip.MustParseAddrPort("[2001:db8::1]:8080"), netip.MustParseAddrPort("[2001:db8::2]:80")}, true},
		{"version 5", append([]byte{0x55}, v4[1:]...), Tuple{}, false},
		{"header length below five words", append([]byte{0x44}, v4[1:]...), Tuple{}, false},
	} {
		if got, ok := ParseTuple(c.in); got != c.want || ok != c.ok {
			t.Errorf("%s: got %v %v, want %v %v", c.name, got, ok, c.want, c.ok)
		}
	}
	for n := range v6 {
		if _, ok := ParseTuple(v6[:n]); ok {
			t.Errorf("IPv6 packet cut to %d of %d bytes was accepted", n, len(v6))
		}
	}
	for n := range v4[:24] {
		if _, ok := ParseTuple(v4[:n]); ok {
			t.Errorf("IPv4 packet cut to %d bytes was accepted", n)
		}
	}
}

func FuzzParseTuple(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x04, 0xd2, 0, 53, 0, 8, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) { ParseTuple(b) })
}
