package tun

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/tougw/tougw/internal/packet"
)

func TestDecodeVnet(t *testing.T) {
	src, dst := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2")
	seg := tcp(src, dst, 1, 1, 0x10, make([]byte, 12), make([]byte, 3000))
	good := packet.Offload{Flags: packet.NeedsCsum, GSOType: packet.GSOTCPv4, HdrLen: 3052, GSOSize: 1000, CsumStart: 20, CsumOffset: 16}
	change := func(f func(o *packet.Offload)) packet.Offload {
		o := good
		f(&o)
		return o
	}
	for _, c := range []struct {
		name string
		hdr  packet.Offload
		pkt  []byte
		want packet.Offload
		ok   bool
	}{
		{"kernel's hdr_len covers the whole packet", good, seg, change(func(o *packet.Offload) { o.HdrLen = 52 }), true},
		{"CWR", change(func(o *packet.Offload) { o.GSOType |= packet.GSOECN }), seg, change(func(o *packet.Offload) { o.HdrLen = 52; o.GSOType |= packet.GSOECN }), true},
		{"complete packet", packet.Offload{}, seg, packet.Offload{}, true},
		{"fields without meaning", packet.Offload{Flags: packet.DataValid | 0x80, HdrLen: 1, GSOSize: 2, CsumStart: 3, CsumOffset: 4}, seg, packet.Offload{Flags: packet.DataValid}, true},
		{"open checksum only", packet.Offload{Flags: packet.NeedsCsum, CsumStart: 20, CsumOffset: 16}, seg[:52], packet.Offload{Flags: packet.NeedsCsum, CsumStart: 20, CsumOffset: 16}, true},
		{"checksum behind the end", packet.Offload{Flags: packet.NeedsCsum, CsumStart: 20, CsumOffset: 16}, seg[:37], packet.Offload{}, false},
		{"offsets that overflow 16 bits", packet.Offload{Flags: packet.NeedsCsum, CsumStart: 0xffff, CsumOffset: 0xffff}, seg, packet.Offload{}, false},
		{"segments with a closed checksum", change(func(o *packet.Offload) { o.Flags = 0 }), seg, packet.Offload{}, false},
		{"segments of no size", change(func(o *packet.Offload) { o.GSOSize = 0 }), seg, packet.Offload{}, false},
		{"TCP header cut", good, seg[:51], packet.Offload{}, false},
		{"UDP segments", change(func(o *packet.Offload) { o.GSOType = packet.GSOUDPL4 }), seg, packet.Offload{}, false},
		{"UDP fragments", change(func(o *packet.Offload) { o.GSOType = packet.GSOUDP }), seg, packet.Offload{}, false},
		{"CWR without a type", packet.Offload{GSOType: packet.GSOECN}, seg, packet.Offload{}, false},
		{"nothing", packet.Offload{}, nil, packet.Offload{}, false},
	} {
		var b [vnetHdrLen]byte
		encodeVnet(&b, &c.hdr)
		got := packet.Offload{Flags: 0xff, HdrLen: 9, CsumStart: 9} // dirty
		if ok := decodeVnet(&got, &b, c.pkt); ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", c.name, got, ok, c.want, c.ok)
		}
	}
	small := append([]byte(nil), seg...)
	small[20+tcpOffset] = 4 << 4
	var b [vnetHdrLen]byte
	encodeVnet(&b, &good)
	if decodeVnet(new(packet.Offload), &b, small) {
		t.Error("a TCP header of 16 bytes was accepted")
	}
}

// FuzzDecodeVnet: what is accepted may be indexed without further checks.
func FuzzDecodeVnet(f *testing.F) {
	f.Add([]byte{1, 1, 0, 0, 0xe8, 3, 20, 0, 16, 0}, make([]byte, 60))
	f.Fuzz(func(t *testing.T, hdr, pkt []byte) {
		var b [vnetHdrLen]byte
		copy(b[:], hdr)
		var o packet.Offload
		if !decodeVnet(&o, &b, pkt) {
			return
		}
		if o.Flags&packet.NeedsCsum != 0 {
			_ = pkt[int(o.CsumStart)+int(o.CsumOffset)+1]
		}
		if o.GSOType != packet.GSONone && (o.GSOSize == 0 || int(o.HdrLen) > len(pkt) || o.HdrLen < o.CsumStart+tcpMinHdr) {
			t.Errorf("accepted %+v for %d bytes", o, len(pkt))
		}
	})
}

// TestChecksum compares with the definition of RFC 1071, at every length
// around the word sizes.
func TestChecksum(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := range 70 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		var want uint32
		for i, c := range b {
			if i%2 == 0 {
				want += uint32(c) << 8
			} else {
				want += uint32(c)
			}
			want = want>>16 + want&0xffff
		}
		if got := fold(sum32(b)); uint32(got) != want {
			t.Errorf("%d bytes: %#x, want %#x", n, got, want)
		}
	}
	full := make([]byte, packet.Size)
	for i := range full {
		full[i] = 0xff
	}
	if got := fold(sum32(full)); got != 0xffff {
		t.Errorf("64 KiB of ones: %#x", got)
	}
}

func TestCompleteChecksum(t *testing.T) {
	src, dst := netip.MustParseAddrPort("[fd00::1]:1"), netip.MustParseAddrPort("[fd00::2]:2")
	open := udp(src, dst, []byte("some payload"), true)
	want := udp(src, dst, []byte("some payload"), false)
	o := packet.Offload{Flags: packet.NeedsCsum, CsumStart: 40, CsumOffset: 6}
	if !completeChecksum(open, &o) || string(open) != string(want) {
		t.Errorf("got %x, want %x", open, want)
	}
	// A payload that makes the sum 0xffff: zero would say that there is none.
	zero := udp(src, dst, []byte{0, 0}, true)
	binary.BigEndian.PutUint16(zero[48:], ^fold(sum32(zero[40:])))
	if !completeChecksum(zero, &o) || binary.BigEndian.Uint16(zero[46:]) != 0xffff {
		t.Errorf("checksum is %#x", zero[46:48])
	}
	for n := range 48 {
		if completeChecksum(make([]byte, n), &o) {
			t.Errorf("completed in %d bytes", n)
		}
	}
}
