package gue

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

func TestSumAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 42))
	for range 5000 {
		b := make([]byte, r.IntN(200))
		for i := range b {
			b[i] = byte(r.Uint32())
			if r.IntN(3) == 0 {
				b[i] = 0xff
			}
		}
		if got, want := fold(sum(0, b)), naiveSum(b); got != want {
			t.Fatalf("%x: %#x, want %#x", b, got, want)
		}
		at := r.IntN(len(b)/2+1) * 2
		if got, want := fold(sum(sum(0, b[:at]), b[at:])), naiveSum(b); got != want {
			t.Fatalf("%x in two parts at %d: %#x, want %#x", b, at, got, want)
		}
	}
	// carries all the way
	for n := range 100 {
		b := make([]byte, n)
		for i := range b {
			b[i] = 0xff
		}
		if got, want := fold(sum(^uint64(0), b)), naiveSum(append([]byte{0xff, 0xff}, b...)); got != want {
			t.Fatalf("%d bytes of ones: %#x, want %#x", n, got, want)
		}
	}
}

func TestTCPChecksum(t *testing.T) {
	for n := minTCPLen; n < 100; n++ {
		seg := counting(n)
		if !SetTCPChecksum(seg) || !VerifyTCPChecksum(seg) || naiveSum(seg) != 0xffff {
			t.Fatalf("%d bytes: %x", n, seg)
		}
		seg[n-1] ^= 1
		if VerifyTCPChecksum(seg) {
			t.Fatalf("%d bytes: a changed byte goes through", n)
		}
	}
	if SetTCPChecksum(make([]byte, minTCPLen-1)) || VerifyTCPChecksum(make([]byte, minTCPLen-1)) {
		t.Error("a short segment has a checksum")
	}
	// the vector of the TOU draft's form
	seg := unhex("9c421b5f11223355000000005002721041d40000")
	if !VerifyTCPChecksum(seg) {
		t.Error("vector does not verify")
	}
	SetTCPChecksum(seg)
	if c := binary.BigEndian.Uint16(seg[16:]); c != 0x41d4 {
		t.Errorf("checksum %#x, want 0x41d4", c)
	}
}

// TestAltCRC checks padding and the published check value of CRC-32C.
func TestAltCRC(t *testing.T) {
	if c := altCRC([]byte("1234"), []byte("56789")); c != altCRC([]byte("12345678"), []byte{'9', 0, 0, 0}) {
		t.Errorf("padded to %#x", c)
	}
	if c := altCRC([]byte("12345678"), nil); c != 0x6087809a {
		t.Errorf("CRC-32C of 12345678 is %#x", c)
	}
}

func TestCombineECN(t *testing.T) {
	// RFC 6040 figure 4, by inner and outer codepoint; 9 is drop
	want := map[ECN]map[ECN]ECN{
		NotECT: {NotECT: NotECT, ECT0: NotECT, ECT1: NotECT, CE: 9},
		ECT0:   {NotECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
		ECT1:   {NotECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
		CE:     {NotECT: CE, ECT0: CE, ECT1: CE, CE: CE},
	}
	for in, row := range want {
		for out, w := range row {
			got, ok := CombineECN(out, in)
			if ok != (w != 9) || ok && got != w {
				t.Errorf("inner %d outer %d: %d, %t", in, out, got, ok)
			}
			for _, p := range [][]byte{ipv4Packet(40), append(unhex("600abcde"), make([]byte, 36)...)} {
				v4 := p[0]>>4 == 4
				if v4 {
					p[1] = 0xb8 | byte(in)
					binary.BigEndian.PutUint16(p[10:], 0)
					binary.BigEndian.PutUint16(p[10:], ^naiveSum(p[:20]))
				} else {
					p[1] = p[1]&0xcf | byte(in)<<4
				}
				before := append([]byte{}, p...)
				drop := combinePacket(out, p)
				if (drop == DropNone) != (w != 9) {
					t.Fatalf("inner %d outer %d: %v", in, out, drop)
				}
				if drop != DropNone {
					continue
				}
				if v4 {
					if p[1] != 0xb8|byte(w) || naiveSum(p[:20]) != 0xffff {
						t.Errorf("inner %d outer %d: %x", in, out, p[:20])
					}
				} else if before[1] = before[1]&0xcf | byte(w)<<4; string(before) != string(p) {
					t.Errorf("inner %d outer %d: %x, want %x", in, out, p, before)
				}
			}
		}
	}
}

func TestInnerForms(t *testing.T) {
	tcp := counting(40)
	tcp[12] = 5 << 4
	short := append([]byte{}, tcp...)
	short[12] = 11 << 4 // the header would be 44 bytes
	small := append([]byte{}, tcp...)
	small[12] = 4 << 4
	udp := counting(20)
	binary.BigEndian.PutUint16(udp[4:], 20)
	binary.BigEndian.PutUint16(udp[6:], 0)
	long := append([]byte{}, udp...)
	binary.BigEndian.PutUint16(long[4:], 21)
	for _, c := range []struct {
		what  string
		form  InnerChecksum
		out   *Outer
		proto Protocol
		seg   []byte
		want  Drop
	}{
		{"TCP unchecked", InnerUnchecked, &outer4, ProtoTCP, tcp, DropNone},
		{"TCP wrong", InnerPseudo, &outer4, ProtoTCP, tcp, DropInnerChecksum},
		{"TCP wrong for TOU", InnerTOU, &outer4, ProtoTCP, tcp, DropInnerChecksum},
		{"TCP header too long", InnerUnchecked, &outer4, ProtoTCP, short, DropInner},
		{"TCP header too small", InnerUnchecked, &outer4, ProtoTCP, small, DropInner},
		{"TCP cut", InnerUnchecked, &outer4, ProtoTCP, tcp[:19], DropInner},
		{"UDP without checksum, IPv4", InnerPseudo, &outer4, ProtoUDP, udp, DropNone},
		{"UDP without checksum, IPv6", InnerPseudo, &outer6, ProtoUDP, udp, DropInnerChecksum},
		{"UDP in TOU", InnerTOU, &outer6, ProtoUDP, udp, DropNone},
		{"UDP length", InnerUnchecked, &outer4, ProtoUDP, long, DropInner},
		{"UDP cut", InnerUnchecked, &outer4, ProtoUDP, udp[:7], DropInner},
		{"ICMP", InnerPseudo, &outer4, ProtoICMP, udp, DropNone},
	} {
		if got := c.form.verify(c.out, c.proto, c.seg, nil); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	// a UDP checksum that comes out as zero is sent as ones: the sum of the
	// addresses that arrived is taken away from a checksum that equals it
	zero := append([]byte{}, udp...)
	binary.BigEndian.PutUint16(zero[6:], addressSum(&outer4))
	correctNAT(0xffff, &outer4, ProtoUDP, zero)
	if got := binary.BigEndian.Uint16(zero[6:]); got != 0xffff {
		t.Errorf("checksum %#x, want ones", got)
	}
	// a UDP datagram without checksum stays without one behind NAT
	correctNAT(0x1234, &outer4, ProtoUDP, udp)
	if udp[6] != 0 || udp[7] != 0 {
		t.Error("checksum invented")
	}
}
