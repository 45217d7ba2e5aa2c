package gue

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
)

// dirty returns n bytes that are not zero.
func dirty(n int) []byte { return bytes.Repeat([]byte{0xdb}, n) }

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// randomHeader returns a header that profile p can carry.
func randomHeader(r *rand.Rand, p Profile) Header {
	for {
		h := Header{
			Control:    r.IntN(2) == 0,
			ProtoCtype: Protocol(r.Uint32()),
			Has:        Fields(r.Uint32()) & p.Fields(),
		}
		if p == ProfileLinux && h.Has&FieldRemoteChecksum != 0 {
			h.Has |= FieldPrivate
			h.PrivateFlags = linuxRemoteChecksum
		}
		fill := func(n int) []byte {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			return b
		}
		set := func(f Fields, fn func()) {
			if h.Has&f != 0 {
				fn()
			}
		}
		set(FieldGroup, func() { h.Group = r.Uint32() })
		set(FieldSecurity, func() { h.Security = fill(int(securityLen[1+r.IntN(4)])) })
		set(FieldFragment, func() {
			h.Fragment = Fragment{Offset: uint16(r.Uint32N(1 << 13)), More: r.IntN(2) == 0, OrigProto: Protocol(r.Uint32()), ID: r.Uint64N(1 << 40)}
		})
		set(FieldTransform, func() {
			h.Transform = Transform{Type: uint8(r.Uint32()), ProtoCtype: Protocol(r.Uint32()), Info: uint16(r.Uint32())}
		})
		set(FieldRemoteChecksum, func() {
			h.RemoteChecksum = RemoteChecksum{Start: uint16(r.Uint32()), Offset: uint16(r.Uint32())}
		})
		set(FieldChecksum, func() { h.Checksum = Checksum{Value: uint16(r.Uint32()), Coverage: uint16(r.Uint32())} })
		set(FieldNATChecksum, func() { h.NATChecksum.Value = uint16(r.Uint32()) })
		set(FieldAltChecksum, func() { h.AltChecksum = AltChecksum{Coverage: uint16(r.Uint32()), CRC: r.Uint32()} })
		set(FieldSource, func() { h.Source = r.Uint64() })
		set(FieldDestination, func() { h.Destination = r.Uint64() })
		set(FieldAddresses, func() { h.Addresses = fill(int(addressesLen[1+r.IntN(3)])) })
		if h.Len() <= MaxLen {
			return h
		}
	}
}

var profiles = []Profile{0, ProfileTougw, ProfileTouDrawn, ProfileLinux}

// TestHeaderRoundTrip encodes random headers into one dirty buffer and decodes
// them into one dirty struct.
func TestHeaderRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, MaxLen+8)
	got := randomHeader(r, ProfileTougw)
	for range 5000 {
		p := profiles[r.IntN(len(profiles))]
		h := randomHeader(r, p)
		copy(buf, dirty(len(buf)))
		n, err := h.Encode(p, buf)
		if err != nil {
			t.Fatalf("%v: %+v: %v", p, h, err)
		}
		if n != h.Len() {
			t.Fatalf("wrote %d, Len %d", n, h.Len())
		}
		if !bytes.Equal(buf[n:], dirty(len(buf)-n)) {
			t.Fatalf("wrote behind %d bytes", n)
		}
		k, drop := got.Decode(p, buf[:n+3])
		if drop != DropNone || k != n || !equalHeaders(&got, &h) {
			t.Fatalf("%v: decoded %d bytes, %v: %+v, want %d bytes: %+v", p, k, drop, got, n, h)
		}
		if len(got.Surplus) != 0 {
			t.Fatalf("surplus %x", got.Surplus)
		}
		for i := range n {
			if _, err := h.Encode(p, buf[:i]); !errors.Is(err, io.ErrShortBuffer) {
				t.Fatalf("encode into %d of %d bytes: %v", i, n, err)
			}
		}
	}
}

// TestHeaderWritesEveryByte encodes over zeros and over ones: a byte that
// differs was not written.
func TestHeaderWritesEveryByte(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		h := randomHeader(r, ProfileTougw)
		a, b := make([]byte, MaxLen), dirty(MaxLen)
		n, _ := h.Encode(ProfileTougw, a)
		h.Encode(ProfileTougw, b)
		if !bytes.Equal(a[:n], b[:n]) {
			t.Fatalf("%x and %x", a[:n], b[:n])
		}
	}
}

// TestHeaderTruncated cuts every header everywhere.
func TestHeaderTruncated(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	buf := make([]byte, MaxLen)
	var got, zero Header
	for range 300 {
		p := profiles[r.IntN(len(profiles))]
		h := randomHeader(r, p)
		n, _ := h.Encode(p, buf)
		for i := range n {
			want := DropHlen
			switch {
			case i == 0:
				want = DropEmpty
			case i < BaseLen:
				want = DropShort
			}
			got = h // dirty
			if k, drop := got.Decode(p, buf[:i]); drop != want || k != 0 {
				t.Fatalf("%d of %d bytes: %d, %v, want %v", i, n, k, drop, want)
			}
			if !equalHeaders(&got, &zero) {
				t.Fatalf("dropped, but %+v", got)
			}
		}
		// the same with Hlen made to fit: now the fields do not
		for words := range (n - BaseLen) / 4 {
			cut := bytes.Clone(buf[:BaseLen+4*words])
			cut[0] = cut[0]&^hlenMask | byte(words)
			if _, drop := got.Decode(p, cut); drop != DropFields {
				t.Fatalf("Hlen %d of %x: %v", words, buf[:n], drop)
			}
		}
	}
}

func TestHeaderSurplus(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 500 {
		h := randomHeader(r, ProfileTougw)
		b := dirty(MaxLen + 1)
		n, _ := h.Encode(ProfileTougw, b)
		extra := 4 * r.IntN((MaxLen-n)/4+1)
		b[0] += byte(extra / 4)
		var got Header
		k, drop := got.Decode(ProfileTougw, b)
		if drop != DropNone || k != n+extra || !bytes.Equal(got.Surplus, dirty(extra)) {
			t.Fatalf("%d bytes, %v, surplus %x; want %d of %d", k, drop, got.Surplus, extra, n+extra)
		}
	}
}

func TestHeaderEncodeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		p Profile
		h Header
	}{
		"group in linux":        {ProfileLinux, Header{Has: FieldGroup}},
		"group in tou-drawn":    {ProfileTouDrawn, Header{Has: FieldGroup}},
		"source in base":        {0, Header{Has: FieldSource}},
		"private in tougw":      {ProfileTougw, Header{Has: FieldPrivate}},
		"unknown field":         {ProfileTougw, Header{Has: 1 << 15}},
		"cookie of 9":           {ProfileTougw, Header{Has: FieldSecurity, Security: make([]byte, 9)}},
		"no cookie":             {ProfileTougw, Header{Has: FieldSecurity}},
		"addresses of 16":       {ProfileTougw, Header{Has: FieldAddresses, Addresses: make([]byte, 16)}},
		"offset of 14 bits":     {ProfileTougw, Header{Has: FieldFragment, Fragment: Fragment{Offset: 1 << 13}}},
		"id of 41 bits":         {ProfileTougw, Header{Has: FieldFragment, Fragment: Fragment{ID: 1 << 40}}},
		"too long":              {ProfileTougw, Header{Has: tougwFields, Security: make([]byte, 40), Addresses: make([]byte, 100)}},
		"unknown private flag":  {ProfileLinux, Header{Has: FieldPrivate, PrivateFlags: 1}},
		"remcsum, no flag word": {ProfileLinux, Header{Has: FieldRemoteChecksum}},
	} {
		if _, err := c.h.Encode(c.p, make([]byte, 256)); !errors.Is(err, ErrHeader) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFlagsByProfile decodes every value of the flags in every profile, and
// wants each profile's unknown flags refused whatever else is set.
func TestFlagsByProfile(t *testing.T) {
	unknown := map[Profile]uint16{
		0:               0xffff,
		ProfileTougw:    0x0003,
		ProfileTouDrawn: 0xfc7f,
		ProfileLinux:    0xfffe,
	}
	b := make([]byte, MaxLen)
	b[0] = hlenMask
	var h Header
	for _, p := range profiles {
		for f := range 1 << 16 {
			b[2], b[3] = byte(f>>8), byte(f)
			_, drop := h.Decode(p, b)
			want := DropNone
			sec := f >> 12 & 7
			switch {
			case uint16(f)&unknown[p] != 0:
				want = DropFlag
			case p == ProfileTougw && sec > 4:
				want = DropReserved
			case p == ProfileTougw && h.Len() > MaxLen:
				t.Fatalf("flags %#04x decoded to %d bytes", f, h.Len())
			}
			if p == ProfileTougw && want == DropNone && drop == DropFields {
				continue // more fields than fit 128 bytes, see TestHeaderTruncated
			}
			if drop != want {
				t.Fatalf("%v: flags %#04x: %v, want %v", p, f, drop, want)
			}
		}
	}
}

// TestDTLSIsNotGUE backs the sharing of one port: no record of DTLS 1.0 or 1.2
// is a valid header in any profile.
func TestDTLSIsNotGUE(t *testing.T) {
	var h Header
	b := make([]byte, 200)
	for kind := byte(20); kind <= 25; kind++ {
		for _, minor := range []byte{0xff, 0xfd} {
			for epoch := range 4 {
				b[0], b[1], b[2], b[3], b[4] = kind, 0xfe, minor, 0, byte(epoch)
				for _, p := range profiles {
					if _, drop := h.Decode(p, b); drop == DropNone {
						t.Errorf("%v takes record %x for GUE", p, b[:5])
					}
				}
			}
		}
	}
}

func TestDropNames(t *testing.T) {
	seen := make(map[string]Drop)
	for d := Drop(0); d < NumDrops; d++ {
		s := d.String()
		if other, ok := seen[s]; ok || s == "" || s == "invalid" {
			t.Errorf("drop %d is %q, like %d", d, s, other)
		}
		seen[s] = d
	}
	if s := Drop(NumDrops).String(); s != "invalid" {
		t.Errorf("beyond the last: %q", s)
	}
}

func TestProfileNames(t *testing.T) {
	for p, want := range map[Profile]string{0: "base", ProfileTougw: "tougw", ProfileTouDrawn: "tou-drawn", ProfileLinux: "linux", 9: "base"} {
		if p.String() != want {
			t.Errorf("profile %d is %q, want %q", p, p, want)
		}
	}
}

func TestIsControl(t *testing.T) {
	for b, want := range map[string]bool{"": false, "00": false, "20": true, "3f": true, "1f": false, "60": false, "a0": false} {
		if got := IsControl(unhex(b)); got != want {
			t.Errorf("IsControl(%s) = %t", b, got)
		}
	}
}
