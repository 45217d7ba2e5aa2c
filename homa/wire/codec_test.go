package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

var allVersions = []Version{Main, Linux610, Stripped, Linux61}

// bits decodes hex digits between which blanks are free.
func bits(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// common is the header that the cases of TestAppend begin with; T is the type.
func common(typ, sequence string) string {
	return "8001 0fa0" + sequence + "000000" + typ + "0000 0000 0000 0000 0000000000000102"
}

// TestAppend gives the form of every type in bytes, and reads it back.
func TestAppend(t *testing.T) {
	head := Packet{SrcPort: 0x8001, DstPort: 4000, SenderID: 0x102}
	with := func(typ Type, set func(*Packet)) Packet {
		p := head
		p.Type = typ
		set(&p)
		return p
	}
	data := with(Data, func(p *Packet) {
		p.Length, p.Incoming, p.Offset = 100000, 40000, 1424
		p.Ack = AckEntry{ClientID: 0x100, ServerPort: 4001}
		p.CutoffVersion, p.Retransmit = 7, true
		p.Data = []byte{0xaa, 0xbb}
	})
	data61 := data
	data61.Ack.ClientPort = 0x8002
	acks := with(Ack, func(p *Packet) {
		p.NumAcks = 2
		p.Acks[0] = AckEntry{ClientID: 0xfe, ServerPort: 4000}
		p.Acks[1] = AckEntry{ClientID: 0x100, ServerPort: 4001}
	})
	acks61 := acks
	acks61.Acks[0].ClientPort, acks61.Acks[1].ClientPort = 0x8002, 0x8003
	grant := with(Grant, func(p *Packet) { p.Offset, p.Priority = 50000, 3 })
	grantAll := grant
	grantAll.ResendAll = true
	resend := with(Resend, func(p *Packet) { p.Offset, p.RangeLength, p.Priority = 1424, 2848, 6 })
	resendAll := with(Resend, func(p *Packet) { p.RangeLength, p.Priority = ResendAllLength, 7 })
	cutoffs := with(Cutoffs, func(p *Packet) {
		p.Cutoffs = [8]uint32{0, 0, 0, 0, 1000000, 15000, 2800, 200}
		p.CutoffVersion = 1
	})

	plain := []Version{Main, Linux610, Stripped}
	for _, c := range []struct {
		name     string
		versions []Version
		p        Packet
		want     string
	}{
		{"data", plain, data, common("10", "00000590") + "000186a0 00009c40 0000000000000100 0fa1 0007 01 000000 00000590 aabb"},
		{"data", []Version{Linux61}, data61, common("10", "00000590") + "000186a0 00009c40 0000000000000100 8002 0fa1 0007 01 00 00000590 aabb"},
		{"grant", allVersions, grant, common("11", "00000000") + "0000c350 03 00"},
		{"grant all", []Version{Linux610, Linux61}, grantAll, common("11", "00000000") + "0000c350 03 01"},
		{"resend", allVersions, resend, common("12", "00000000") + "00000590 00000b20 06"},
		{"resend all", allVersions, resendAll, common("12", "00000000") + "00000000 ffffffff 07"},
		{"unknown", allVersions, with(RPCUnknown, func(*Packet) {}), common("13", "00000000")},
		{"busy", allVersions, with(Busy, func(*Packet) {}), common("14", "00000000")},
		{"cutoffs", allVersions, cutoffs, common("15", "00000000") + strings.Repeat("00000000", 4) + "000f4240 00003a98 00000af0 000000c8 0001"},
		{"freeze", allVersions, with(Freeze, func(*Packet) {}), common("16", "00000000")},
		{"need ack", allVersions, with(NeedAck, func(*Packet) {}), common("17", "00000000")},
		{"ack", plain, acks, common("18", "00000000") + "0002 00000000000000fe 0fa0 0000000000000100 0fa1" + strings.Repeat("00", 30)},
		{"ack", []Version{Linux61}, acks61, common("18", "00000000") + "0002 00000000000000fe 8002 0fa0 0000000000000100 8003 0fa1" + strings.Repeat("00", 36)},
	} {
		for _, v := range c.versions {
			want := bits(t, c.want)
			got := v.Append([]byte("before"), &c.p)
			if !bytes.Equal(got, append([]byte("before"), want...)) {
				t.Errorf("%v %s:\n got %x\nwant %x", v, c.name, got[6:], want)
			}
			var p Packet
			p.Cutoffs[0], p.Priority, p.NumAcks = 9, 9, 9 // Decode must not leave them
			if err := v.Decode(&p, want); err != nil {
				t.Errorf("%v %s: %v", v, c.name, err)
			}
			if p.Type == Data && len(p.Data) > 0 && &p.Data[0] != &want[dataSize] {
				t.Errorf("%v %s: data copied", v, c.name)
			}
			if !reflect.DeepEqual(p, c.p) {
				t.Errorf("%v %s:\n got %+v\nwant %+v", v, c.name, p, c.p)
			}
		}
	}
}

// TestAppendWithinCapacity: stale bytes in the buffer do not show.
func TestAppendWithinCapacity(t *testing.T) {
	for _, v := range allVersions {
		for typ := Data; typ <= Ack; typ++ {
			p := Packet{Type: typ}
			dirty := bytes.Repeat([]byte{0xff}, 200)
			if got, want := v.Append(dirty[:0], &p), v.Append(nil, &p); !bytes.Equal(got, want) {
				t.Errorf("%v %v: %x, want %x", v, typ, got, want)
			}
		}
	}
}

// TestOffset: seg.offset says where data belongs, and sequence only where
// seg.offset is -1.
func TestOffset(t *testing.T) {
	for _, c := range []struct{ sequence, segOffset, want uint32 }{
		{1424, noOffset, 1424},
		{0, 1424, 1424},    // segmented by the kernel
		{2856, 2848, 2848}, // segmented by a network card
		{1424, 1424, 1424}, // retransmission
		{1424, 0, 0},
	} {
		for _, v := range allVersions {
			b := v.Append(nil, &Packet{Type: Data, Data: []byte{1}})
			copy(b[offSequence:], be32(c.sequence))
			copy(b[offSegOffset:], be32(c.segOffset))
			var p Packet
			if err := v.Decode(&p, b); err != nil || p.Offset != c.want {
				t.Errorf("%v %+v: offset %d, %v", v, c, p.Offset, err)
			}
		}
	}
}

func be32(n uint32) []byte { return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }

// TestTooShort cuts every type at every length.
func TestTooShort(t *testing.T) {
	for _, v := range allVersions {
		for typ := Data; typ <= Ack; typ++ {
			full := v.Append(nil, &Packet{Type: typ})
			least := map[Type]int{
				Data: 56, Grant: 33, Resend: 36, RPCUnknown: 28, Busy: 28, Cutoffs: 62, Freeze: 28, NeedAck: 28, Ack: 80,
			}[typ]
			if v == Linux61 && typ == Ack {
				least = 90
			}
			for n := range full {
				var p Packet
				err := v.Decode(&p, full[:n])
				if n >= least {
					if err != nil {
						t.Errorf("%v %v of %d bytes: %v", v, typ, n, err)
					}
					continue
				}
				if !errors.Is(err, ErrTooShort) {
					t.Errorf("%v %v of %d bytes: %v", v, typ, n, err)
				} else if n >= 28 && !strings.Contains(err.Error(), typ.String()) {
					t.Errorf("%v %v of %d bytes: the error does not name it: %v", v, typ, n, err)
				}
				if got, want := errors.Is(err, ErrLeftover), typ == Data && n >= 52; got != want {
					t.Errorf("%v %v of %d bytes: %v", v, typ, n, err)
				}
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, v := range allVersions {
		for _, c := range []struct {
			name string
			typ  Type
			at   int
			to   byte
			want error
		}{
			{"type below", NeedAck, offType, 0x0f, ErrType},
			{"type above", NeedAck, offType, 0x19, ErrType},
			{"acks", Ack, offNumAcks + 1, 6, ErrNumAcks},
			{"acks", Ack, offNumAcks, 1, ErrNumAcks},
			{"grant priority", Grant, offGrantPriority, 8, ErrPriority},
			{"resend priority", Resend, offResendPriority, 255, ErrPriority},
		} {
			b := v.Append(nil, &Packet{Type: c.typ})
			b[c.at] = c.to
			var p Packet
			if err := v.Decode(&p, b); !errors.Is(err, c.want) {
				t.Errorf("%v %s: %v, want %v", v, c.name, err, c.want)
			}
		}
	}
}

// TestShorterForms: what another version leaves out at the end is taken as its
// default, and what it has more is ignored.
func TestShorterForms(t *testing.T) {
	for _, v := range allVersions {
		var p Packet
		b := v.Append(nil, &Packet{Type: Resend, Offset: 3, RangeLength: 4, Priority: 2})
		if err := v.Decode(&p, b[:36]); err != nil || p.Priority != 7 || p.Offset != 3 || p.RangeLength != 4 {
			t.Errorf("%v RESEND of 36 bytes: %+v, %v", v, p, err)
		}
		b = v.Append(nil, &Packet{Type: Grant, Offset: 3, Priority: 2})
		b[33] = 1
		if err := v.Decode(&p, b); err != nil || p.ResendAll != (v == Linux61 || v == Linux610) {
			t.Errorf("%v GRANT with resend_all: %+v, %v", v, p, err)
		}
		if err := v.Decode(&p, b[:33]); err != nil || p.ResendAll || p.Offset != 3 || p.Priority != 2 {
			t.Errorf("%v GRANT of 33 bytes: %+v, %v", v, p, err)
		}
		for typ := Grant; typ <= Ack; typ++ {
			b := append(v.Append(nil, &Packet{Type: typ, SenderID: 5}), 1, 2, 3)
			if err := v.Decode(&p, b); err != nil || p.SenderID != 5 || p.Type != typ {
				t.Errorf("%v %v with trailing bytes: %v", v, typ, err)
			}
		}
	}
}

func TestVersionNames(t *testing.T) {
	for _, v := range allVersions {
		if got, err := ParseVersion(v.String()); err != nil || got != v {
			t.Errorf("%v: %v, %v", v, got, err)
		}
	}
	if v, err := ParseVersion("6.13"); err == nil {
		t.Errorf("6.13 read as %v", v)
	}
	if s := Version(9).String() + ", " + Type(1).String(); s != "version 9, type 0x01" {
		t.Error(s)
	}
}
