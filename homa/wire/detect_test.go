package wire

import "testing"

// asModule gives a packet the fields that the module sets for hijack mode.
func asModule(b []byte, dataOffset byte) []byte {
	b[offDataOffset], b[offFlags] = dataOffset, hijackFlags
	b[offUrgent], b[offUrgent+1] = hijackUrgent>>8, hijackUrgent&0xff
	return b
}

func TestDetect(t *testing.T) {
	packet := func(v Version, p Packet) []byte { return v.Append(nil, &p) }
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	stripped := func(b []byte) []byte { b[offDataOffset] = 0x50; return b }
	none := VersionSet()
	notStripped := VersionSet(Main, Linux610)
	for _, c := range []struct {
		name     string
		protocol uint8
		bytes    []byte
		want     Versions
	}{
		{"protocol 253", 253, packet(Linux61, Packet{Type: Data}), VersionSet(Linux61)},
		{"another protocol", 17, packet(Main, Packet{Type: Data}), none},
		{"hijack", 6, asModule(packet(Main, Packet{Type: NeedAck}), 0x50), VersionSet(Main, Linux610, Linux61)},
		{"no header", 146, packet(Main, Packet{Type: Busy})[:27], none},
		{"unknown type", 146, packet(Main, Packet{Type: 0x19}), none},
		{"user space", 146, packet(Main, Packet{Type: Data}), notStripped},
		{"module's data", 146, asModule(packet(Main, Packet{Type: Data, Incoming: 1}), 0xe0), notStripped},
		{"no unscheduled bytes, no flags", 146, stripped(packet(Stripped, Packet{Type: Data})), VersionSet(Stripped)},
		{"unscheduled bytes, no flags", 146, stripped(packet(Main, Packet{Type: Data, Incoming: 1})), none},
		{"control packet, no flags", 146, stripped(packet(Stripped, Packet{Type: Busy})), VersionSet(Stripped)},
		{"control packet of main", 146, asModule(packet(Main, Packet{Type: Busy}), 0x50), notStripped},
		{"control packet without data offset", 146, asModule(packet(Main, Packet{Type: Busy}), 0), VersionSet(Linux610)},
		{"stale data offset, hijack", 6, asModule(packet(Linux61, Packet{Type: Busy}), 0x33), VersionSet(Linux610, Linux61)},
		{"ack of 80", 6, asModule(packet(Main, Packet{Type: Ack}), 0x50), notStripped},
		{"ack of 90", 6, asModule(packet(Linux61, Packet{Type: Ack}), 0x50), VersionSet(Linux61)},
		{"ack of 79", 146, cut(packet(Main, Packet{Type: Ack})), none},
		{"grant of 33", 146, asModule(cut(packet(Main, Packet{Type: Grant})), 0x50), VersionSet(Main)},
		{"grant of 34", 146, asModule(packet(Linux610, Packet{Type: Grant}), 0x50), VersionSet(Linux610)},
		{"grant of 34 from user space", 146, packet(Main, Packet{Type: Grant}), notStripped},
		{"grant without flags", 146, stripped(packet(Main, Packet{Type: Grant})), none},
		{"cutoffs", 146, asModule(packet(Main, Packet{Type: Cutoffs}), 0x50), notStripped},
		{"resend of 36", 146, stripped(cut(packet(Stripped, Packet{Type: Resend, RangeLength: 9}))), VersionSet(Stripped)},
		{"resend of 37, no flags", 146, stripped(packet(Stripped, Packet{Type: Resend, RangeLength: 9})), none},
		{"resend of a range", 146, asModule(packet(Main, Packet{Type: Resend, RangeLength: 9}), 0x50), notStripped},
		{"resend of all", 146, asModule(packet(Main, Packet{Type: Resend, RangeLength: -1}), 0x50), VersionSet(Main)},
		{"resend of the first 100", 146, asModule(packet(Main, Packet{Type: Resend, RangeLength: 100}), 0x50), VersionSet(Linux610)},
		{"resend of nothing", 146, asModule(packet(Main, Packet{Type: Resend, Offset: 7}), 0x50), VersionSet(Linux610)},
		{"resend of the first 100 from user space", 146, packet(Main, Packet{Type: Resend, RangeLength: 100}), notStripped},
	} {
		if got := Detect(c.protocol, c.bytes); got != c.want {
			t.Errorf("%s: %04b, want %04b", c.name, got, c.want)
		}
	}
}

func TestVersionsOnly(t *testing.T) {
	for _, v := range allVersions {
		if got, ok := VersionSet(v).Only(); !ok || got != v {
			t.Errorf("only %v: %v, %v", v, got, ok)
		}
		if !AllVersions.Has(v) {
			t.Errorf("%v is not in the set of all", v)
		}
	}
	for _, s := range []Versions{0, AllVersions, VersionSet(Main, Linux61)} {
		if v, ok := s.Only(); ok {
			t.Errorf("%04b has only %v", s, v)
		}
	}
}

// TestKnows: the stripped form takes neither grants nor what belongs to priorities.
func TestKnows(t *testing.T) {
	for _, v := range allVersions {
		for typ := Type(0); typ < 0xff; typ++ {
			want := typ >= Data && typ <= Ack
			if v == Stripped && (typ == Grant || typ == Cutoffs || typ == Freeze) {
				want = false
			}
			if got := v.Knows(typ); got != want {
				t.Errorf("%v knows %v: %v", v, typ, got)
			}
		}
	}
}
