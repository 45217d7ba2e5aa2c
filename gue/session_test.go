package gue

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

func randomSession(r *rand.Rand) Session {
	s := Session{Proto: Protocol(r.Uint32()), Has: Fields(r.Uint32()) & sessionFields}
	if s.Has&FieldSource != 0 {
		s.Source = r.Uint64()
	}
	if s.Has&FieldDestination != 0 {
		s.Destination = r.Uint64()
	}
	if s.Has&FieldAddresses != 0 {
		s.Addresses = make([]byte, addressesLen[1+r.IntN(3)])
		for i := range s.Addresses {
			s.Addresses[i] = byte(r.Uint32())
		}
	}
	return s
}

func equalSessions(a, b *Session) bool {
	return a.Proto == b.Proto && a.Has == b.Has && a.Source == b.Source &&
		a.Destination == b.Destination && bytes.Equal(a.Addresses, b.Addresses)
}

// TestSessionRoundTrip also wants the bytes that Header would write.
func TestSessionRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	buf, ref := make([]byte, MaxSessionLen+8), make([]byte, MaxLen)
	got := randomSession(r)
	for range 3000 {
		s := randomSession(r)
		copy(buf, dirty(len(buf)))
		n, err := s.Encode(buf)
		if err != nil || n != s.Len() || !bytes.Equal(buf[n:], dirty(len(buf)-n)) {
			t.Fatalf("%+v: %d bytes, %v", s, n, err)
		}
		h := Header{ProtoCtype: s.Proto, Has: s.Has, Source: s.Source, Destination: s.Destination, Addresses: s.Addresses}
		k, err := h.Encode(ProfileTougw, ref)
		if err != nil || !bytes.Equal(ref[:k], buf[:n]) {
			t.Fatalf("%x, header wrote %x, %v", buf[:n], ref[:k], err)
		}
		for _, tail := range []int{0, 1, 8} { // the fast branches want bytes behind the header
			if k, drop := got.Decode(buf[:n+tail]); drop != DropNone || k != n || !equalSessions(&got, &s) {
				t.Fatalf("decoded %d, %v: %+v, want %+v", k, drop, got, s)
			}
		}
		for i := range n {
			got = s
			if k, drop := got.Decode(buf[:i]); drop == DropNone || k != 0 || !equalSessions(&got, &Session{}) {
				t.Fatalf("%d of %d bytes: %v, %+v", i, n, drop, got)
			}
			if _, err := s.Encode(buf[:i:i]); !errors.Is(err, io.ErrShortBuffer) {
				t.Fatalf("encode into %d of %d bytes: %v", i, n, err)
			}
			s.Encode(buf)
		}
	}
}

func TestSessionDecodeDrops(t *testing.T) {
	for in, want := range map[string]Drop{
		"":                                           DropEmpty,
		"020600":                                     DropShort,
		"4500001c":                                   DropVariant,
		"80060010":                                   DropVariant,
		"22060010" + "0000000000000001":              DropControl,
		"20ff0000544f5531":                           DropControl,
		"01060010" + "0000000000000001":              DropFields,
		"02060014" + "0000000000000001":              DropFields,
		"02060030" + "0000000000000001":              DropFields,
		"02060001" + "0000000000000001":              DropFlag,
		"02060002" + "0000000000000001":              DropFlag,
		"02065000" + "0000000000000001":              DropReserved,
		"02060040" + "0000000000000001":              DropExtension,
		"02061000" + "0000000000000001":              DropExtension,
		"03068010" + "00000000" + "0000000000000001": DropExtension,
		"03060010" + "0000000000000001":              DropHlen,
		"00060010":                                   DropFields,
	} {
		s := Session{Proto: 1, Has: FieldSource, Source: 1, Destination: 2, Addresses: []byte{1}}
		if n, drop := s.Decode(unhex(in)); drop != want || n != 0 || !equalSessions(&s, &Session{}) {
			t.Errorf("%s: %d, %v, want %v", in, n, drop, want)
		}
	}
	// surplus space is skipped
	var s Session
	if n, drop := s.Decode(unhex("03060010" + "0000000000000001" + "deadbeef" + "00")); n != 16 || drop != DropNone || s.Destination != 1 {
		t.Errorf("surplus: %d, %v, %+v", n, drop, s)
	}
	// no fields at all
	if n, drop := s.Decode(unhex("00060000")); n != 4 || drop != DropNone || s.Has != 0 || s.Destination != 0 {
		t.Errorf("no fields: %d, %v, %+v", n, drop, s)
	}
}

func TestSessionEncodeRefuses(t *testing.T) {
	for name, s := range map[string]Session{
		"group":        {Has: FieldGroup},
		"no addresses": {Has: FieldAddresses},
		"9 bytes":      {Has: FieldAddresses, Addresses: make([]byte, 9)},
	} {
		if _, err := s.Encode(make([]byte, 200)); !errors.Is(err, ErrHeader) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSessionWire pins the bytes of PROTOCOL.md.
func TestSessionWire(t *testing.T) {
	addr := func(a *SessionAddrs) []byte {
		b := dirty(NameAddrsLen)
		n, err := a.Encode(b)
		if err != nil {
			t.Fatal(err)
		}
		return b[:n]
	}
	v4 := SessionAddrs{Src: netip.MustParseAddr("10.77.0.7"), Dst: netip.MustParseAddr("192.0.2.1")}
	v6 := SessionAddrs{Src: netip.MustParseAddr("2001:db8::7"), Dst: netip.MustParseAddr("2001:db8::1")}
	name := SessionAddrs{Src: v4.Src, Name: "kv.example"}
	for _, c := range []struct {
		s    Session
		want string
	}{
		{Session{Proto: ProtoTCP, Has: FieldDestination, Destination: 0x0123456789abcdef}, "02060010" + "0123456789abcdef"},
		{Session{Proto: ProtoTCP, Has: FieldSource | FieldDestination, Source: 1, Destination: 2}, "04060030" + "0000000000000001" + "0000000000000002"},
		{Session{Proto: ProtoTCP, Has: FieldSource | FieldAddresses, Source: 1, Addresses: addr(&v4)}, "04060024" + "0000000000000001" + "0a4d0007" + "c0000201"},
		{Session{Proto: ProtoTCP, Has: FieldSource | FieldAddresses, Source: 1, Addresses: addr(&v6)}, "0a060028" + "0000000000000001" +
			"20010db8000000000000000000000007" + "20010db8000000000000000000000001"},
		{Session{Proto: ProtoTCP, Has: FieldSource | FieldAddresses, Source: 1, Addresses: addr(&name)}, "1b06002c" + "0000000000000001" +
			"00000000000000000000ffff0a4d0007" + "0a" + "6b762e6578616d706c65" + strings.Repeat("00", 73)},
	} {
		b := dirty(MaxSessionLen)
		n, err := c.s.Encode(b)
		if err != nil || !bytes.Equal(b[:n], unhex(c.want)) {
			t.Errorf("%x, %v, want %s", b[:n], err, c.want)
		}
	}
}

func TestSessionAddrsRoundTrip(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	got := SessionAddrs{Src: v6, Dst: v6, Name: "old"}
	for _, a := range []SessionAddrs{
		{Src: v4, Dst: netip.MustParseAddr("10.0.0.1")},
		{Src: v6, Dst: netip.MustParseAddr("::")},
		{Src: v4, Name: "a"},
		{Src: v6, Name: "kv-1.example_x.COM."},
		{Src: v6, Name: strings.Repeat("a", 63) + "." + strings.Repeat("b", 19)},
	} {
		b := dirty(NameAddrsLen + 4)
		n, err := a.Encode(b)
		if err != nil || n != a.Len() || !bytes.Equal(b[n:], dirty(len(b)-n)) {
			t.Fatalf("%+v: %d, %v", a, n, err)
		}
		if k, drop := got.Decode(b[:n]); k != n || drop != DropNone || got != a {
			t.Errorf("%d, %v: %+v, want %+v", k, drop, got, a)
		}
		for i := range n {
			if i == IPv4AddrsLen || i == IPv6AddrsLen {
				continue // another form
			}
			if _, drop := got.Decode(b[:i]); drop != DropAddresses || got != (SessionAddrs{}) {
				t.Errorf("%d of %d bytes: %v, %+v", i, n, drop, got)
			}
			if _, err := a.Encode(b[:i]); !errors.Is(err, io.ErrShortBuffer) {
				t.Errorf("encode into %d of %d bytes: %v", i, n, err)
			}
			a.Encode(b)
		}
	}
	// mapped addresses are unmapped on the way out
	mapped := SessionAddrs{Src: netip.MustParseAddr("::ffff:10.0.0.1"), Dst: v4}
	if n := mapped.Len(); n != IPv4AddrsLen {
		t.Errorf("mapped source: %d bytes", n)
	}
}

func TestSessionAddrsRefuses(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for what, a := range map[string]SessionAddrs{
		"nothing":        {},
		"no source":      {Dst: v4},
		"no destination": {Src: v4},
		"mixed":          {Src: v4, Dst: v6},
		"zone":           {Src: netip.MustParseAddr("fe80::1%eth0"), Dst: v6},
		"name and dst":   {Src: v4, Dst: v4, Name: "a"},
		"long name":      {Src: v4, Name: strings.Repeat("a.", 42)},
		"long label":     {Src: v4, Name: strings.Repeat("a", 64)},
		"space":          {Src: v4, Name: "a b"},
		"nul":            {Src: v4, Name: "a\x00"},
		"newline":        {Src: v4, Name: "a\n"},
		"utf-8":          {Src: v4, Name: "é"},
		"empty label":    {Src: v4, Name: "a..b"},
		"dot":            {Src: v4, Name: "."},
		"option":         {Src: v4, Name: "-a"},
	} {
		if _, err := a.Encode(make([]byte, NameAddrsLen)); !errors.Is(err, ErrHeader) {
			t.Errorf("%s: encode: %v", what, err)
		}
	}

	good := make([]byte, NameAddrsLen)
	ok := SessionAddrs{Src: v4, Name: "host"}
	ok.Encode(good)
	set := func(i int, c byte) []byte { b := bytes.Clone(good); b[i] = c; return b }
	mapped := make([]byte, IPv6AddrsLen)
	copy(mapped, unhex("00000000000000000000ffff7f000001"))
	for what, b := range map[string][]byte{
		"no bytes":           nil,
		"length 0":           set(16, 0),
		"length 84":          set(16, 84),
		"length 255":         set(16, 255),
		"length short":       set(16, 3), // the padding then has the last letter
		"length long":        set(16, 5), // the name then has a zero
		"padding":            set(99, 1),
		"character":          set(17, 0x07),
		"slash":              set(18, '/'),
		"high bit":           set(18, 0xe9),
		"mapped source":      mapped,
		"mapped destination": append(make([]byte, 16), mapped[:16]...),
		"9 bytes":            make([]byte, 9),
		"101 bytes":          make([]byte, 101),
	} {
		a := SessionAddrs{Src: v6, Dst: v6, Name: "old"}
		if n, drop := a.Decode(b); n != 0 || drop != DropAddresses || a != (SessionAddrs{}) {
			t.Errorf("%s: %d, %v, %+v", what, n, drop, a)
		}
	}
}

func TestExperiment(t *testing.T) {
	b := dirty(12)
	n, err := Experiment{ExID: ExIDTougw}.Encode(b)
	if err != nil || n != ExperimentLen || !bytes.Equal(b, append(unhex("20ff0000544f5531"), dirty(4)...)) {
		t.Fatalf("%x, %v", b, err)
	}
	for i := range n {
		if _, err := (Experiment{}).Encode(b[:i]); !errors.Is(err, io.ErrShortBuffer) {
			t.Errorf("encode into %d bytes: %v", i, err)
		}
	}
	e := Experiment{ExID: 1}
	for in, want := range map[string]struct {
		n int
		d Drop
	}{
		"20ff0000544f5531":                 {8, DropNone},
		"20ff0000544f5531aabb":             {8, DropNone},
		"22ff0000a5a5a5a5a5a5a5a5544f5531": {16, DropNone}, // surplus
		"":                                 {0, DropEmpty},
		"20":                               {0, DropShort},
		"20ff00":                           {0, DropShort},
		"20ff0000":                         {0, DropShort},
		"20ff0000544f55":                   {0, DropShort},
		"21ff0000":                         {0, DropHlen},
		"21ff0000544f5531":                 {0, DropShort},
		"22ff0010544f553100000000aabbccdd": {0, DropExtension},
		"00ff0000544f5531":                 {0, DropControl},
		"20010000544f5531":                 {0, DropControl},
		"20000000544f5531":                 {0, DropControl},
		"60ff0000544f5531":                 {0, DropVariant},
		"a0ff0000544f5531":                 {0, DropVariant},
	} {
		n, d := e.Decode(unhex(in))
		if n != want.n || d != want.d || (d == DropNone) != (e.ExID == ExIDTougw) || d != DropNone && e.ExID != 0 {
			t.Errorf("%s: %d, %v, %#x; want %+v", in, n, d, e.ExID, want)
		}
	}
}

func TestExperimentLen(t *testing.T) {
	if n := (Experiment{}).Len(); n != ExperimentLen {
		t.Errorf("Len %d, want %d", n, ExperimentLen)
	}
}
