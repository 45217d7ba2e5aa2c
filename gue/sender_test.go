package gue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// xorTransform is a private transform: it turns bits over and adds a trailer.
type xorTransform struct{}

func (xorTransform) apply(p []byte) []byte {
	out := make([]byte, len(p)+3)
	for i, c := range p {
		out[i] = c ^ 0x5a
	}
	return out
}

func (xorTransform) Reverse(t Transform, p []byte) ([]byte, bool) {
	if t.Type != 200 || t.Info != 7 || len(p) < 3 {
		return nil, false
	}
	p = p[:len(p)-3]
	for i := range p {
		p[i] ^= 0x5a
	}
	return p, true
}

func ipv4Packet(n int) []byte {
	p := counting(n)
	copy(p, unhex("4500000000004000400600000a0a00010a0a0002"))
	binary.BigEndian.PutUint16(p[2:], uint16(n))
	binary.BigEndian.PutUint16(p[10:], 0)
	binary.BigEndian.PutUint16(p[10:], ^naiveSum(p[:20]))
	return p
}

// TestSendReceiveEverything sends packets with every extension at once, in the
// order of extensions-06 §11.1, and receives them in that of §11.2.
func TestSendReceiveEverything(t *testing.T) {
	for _, sec := range []SenderConfig{
		{Profile: ProfileTougw, Key: &vectorKey, Cover: 0xffff},
		{Profile: ProfileTougw, Key: &vectorKey},
		{Profile: ProfileTougw, Cookie: unhex("0102030405060708")},
	} {
		for _, base := range []Outer{outer4, outer6} {
			out := base
			s, err := NewSender(sec)
			if err != nil {
				t.Fatal(err)
			}
			cfg := strict()
			cfg.Transform = xorTransform{}
			cfg.Cookies, cfg.Keys = [][]byte{unhex("0102030405060708")}, []HMACKey{vectorKey}
			cfg.Require = tougwFields &^ (FieldRemoteChecksum | FieldAddresses)
			r, err := NewReceiver(cfg)
			if err != nil {
				t.Fatal(err)
			}
			packet := ipv4Packet(3000)
			f, err := NewFragmenter(false, ProtoIPv4, 0xffffffffff, len(packet), 1001)
			if err != nil {
				t.Fatal(err)
			}
			var m Message
			held := 0
			for {
				h := Header{
					Has:    FieldGroup | FieldChecksum | FieldAltChecksum | FieldNATChecksum | FieldSource | FieldDestination,
					Group:  42,
					Source: 1, Destination: 2,
				}
				start, end, ok := f.Next(&h)
				if !ok {
					break
				}
				h.SetTransform(200, 7)
				payload := xorTransform{}.apply(packet[start:end])
				h.Checksum.Coverage = uint16(len(payload))
				h.AltChecksum.Coverage = uint16(len(payload)) - 2
				b := append(dirty(s.HeaderLen(&h)), payload...)
				n, err := s.Seal(&out, &h, b)
				if err != nil || n != s.HeaderLen(&h) || !bytes.Equal(b[n:], payload) {
					t.Fatalf("%d bytes, %v", n, err)
				}
				checkTamper(t, cfg, &out, b, end == len(packet))
				if drop := r.Receive(epoch, &out, b, &m); drop != DropNone {
					t.Fatal(drop)
				}
				if m.Held {
					held++
				}
			}
			if held != 2 || m.Held || !bytes.Equal(m.Payload, packet) {
				t.Fatalf("%d held, then %d bytes", held, len(m.Payload))
			}
			if m.Proto != ProtoIPv4 || m.Group != 42 || m.Source != 1 || m.Destination != 2 {
				t.Errorf("%+v", m)
			}
		}
	}
}

// checkTamper wants each changed byte of header and payload noticed: K covers
// everything.
func checkTamper(t *testing.T, cfg ReceiverConfig, out *Outer, b []byte, all bool) {
	t.Helper()
	r, err := NewReceiver(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var m Message
	step := 97
	if all {
		step = 1
	}
	for i := 0; i < len(b); i += step {
		c := bytes.Clone(b)
		c[i] ^= 0x10
		if drop := r.Receive(epoch, out, c, &m); drop == DropNone {
			t.Fatalf("byte %d of %d changed, and delivered", i, len(b))
		}
	}
	o := *out
	o.Src = outer4.Dst
	if drop := r.Receive(epoch, &o, bytes.Clone(b), &m); drop != DropChecksum {
		t.Errorf("another source: %v", drop)
	}
}

// TestHMACCovers looks at what the HMAC alone protects.
func TestHMACCovers(t *testing.T) {
	s, err := NewSender(SenderConfig{Profile: ProfileTougw, Key: &vectorKey, Cover: 24})
	if err != nil {
		t.Fatal(err)
	}
	cfg := strict()
	cfg.Keys = []HMACKey{vectorKey}
	r, err := NewReceiver(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := Header{ProtoCtype: ProtoIPv4, Has: FieldGroup, Group: 1}
	b := append(make([]byte, s.HeaderLen(&h)), ipv4Packet(40)...)
	n, err := s.Seal(&outer4, &h, b)
	if err != nil {
		t.Fatal(err)
	}
	var m Message
	if drop := r.Receive(epoch, &outer4, bytes.Clone(b), &m); drop != DropNone {
		t.Fatal(drop)
	}
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 1
		drop := r.Receive(epoch, &outer4, c, &m)
		if (drop == DropNone) != (i >= n+24) {
			t.Errorf("byte %d changed: %v", i, drop)
		}
	}
	moved := outer4
	moved.Src = outer6.Src
	if drop := r.Receive(epoch, &moved, bytes.Clone(b), &m); drop != DropSecurity {
		t.Errorf("other address: %v", drop)
	}
}

// TestSenderMatchesVectors wants the values of vectors that another program
// made.
func TestSenderMatchesVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		var cfg SenderConfig
		cfg.Profile = ProfileTougw
		switch v.Name {
		case "ext-hmac":
			cfg.Key, cfg.Cover = &vectorKey, 8
		case "ext-group-cookie":
			cfg.Cookie = unhex("deadbeefcafef00d")
		case "ext-csum", "ext-csum-cover", "ext-altcsum", "ext-altcsum-cover", "ext-remcsum", "ext-frag-2of2":
		default:
			continue
		}
		s, err := NewSender(cfg)
		if err != nil {
			t.Fatal(err)
		}
		want := v.bytes(t)
		var h Header
		n, drop := h.Decode(ProfileTougw, want)
		if drop != DropNone {
			t.Fatal(drop)
		}
		b := append(dirty(n), want[n:]...)
		if k, err := s.Seal(v.outer(), &h, b); err != nil || k != n || !bytes.Equal(b, want) {
			t.Errorf("%s: %x, %v, want %x", v.Name, b, err, want)
		}
	}
	// the NAT checksum's vector
	o := outer4
	o.Src = addrPort([]byte{198, 51, 100, 7}, 50000)
	if c := AddressChecksum(&o); c != 0x13c2 {
		t.Errorf("NAT checksum %#x, want 0x13c2", c)
	}
}

// TestNATChecksum sends through an address translator.
func TestNATChecksum(t *testing.T) {
	s, err := NewSender(SenderConfig{Profile: ProfileTougw})
	if err != nil {
		t.Fatal(err)
	}
	for _, proto := range []Protocol{ProtoTCP, ProtoUDP} {
		for _, form := range []InnerChecksum{InnerPseudo, InnerUnchecked} {
			for _, with := range []bool{true, false} {
				before, after := outer6, outer4
				seg := counting(33)
				if proto == ProtoTCP {
					seg[12] = 5 << 4
				} else {
					binary.BigEndian.PutUint16(seg[4:], uint16(len(seg)))
				}
				o := map[Protocol]int{ProtoTCP: tcpChecksumOffset, ProtoUDP: udpChecksumOffset}[proto]
				binary.BigEndian.PutUint16(seg[o:], 0)
				binary.BigEndian.PutUint16(seg[o:], ^transportSum(&before, proto, seg))
				h := Header{ProtoCtype: proto}
				if with {
					h.Has = FieldNATChecksum
				}
				b := append(make([]byte, h.Len()), seg...)
				if _, err := s.Seal(&before, &h, b); err != nil {
					t.Fatal(err)
				}
				cfg := strict()
				cfg.Protocols, cfg.InnerChecksum = []Protocol{proto}, form
				r, _ := NewReceiver(cfg)
				var m Message
				drop := r.Receive(epoch, &after, b, &m)
				want := DropNone
				if !with && form == InnerPseudo {
					want = DropInnerChecksum
				}
				if drop != want {
					t.Errorf("protocol %d, form %d, N %t: %v, want %v", proto, form, with, drop, want)
				}
				if with && transportSum(&after, proto, m.Payload) != 0xffff {
					t.Errorf("protocol %d, form %d: not corrected", proto, form)
				}
			}
		}
	}
}

func TestSealRefuses(t *testing.T) {
	s, _ := NewSender(SenderConfig{Profile: ProfileTougw})
	for name, h := range map[string]Header{
		"K coverage":  {Has: FieldChecksum, Checksum: Checksum{Coverage: 21}},
		"A coverage":  {Has: FieldAltChecksum, AltChecksum: AltChecksum{Coverage: 21}},
		"R start":     {Has: FieldRemoteChecksum, RemoteChecksum: RemoteChecksum{Start: 21}},
		"R offset":    {Has: FieldRemoteChecksum, RemoteChecksum: RemoteChecksum{Offset: 19}},
		"no security": {Has: FieldSecurity, Security: make([]byte, 8)},
		"private":     {Has: FieldPrivate},
	} {
		b := make([]byte, h.Len()+20)
		if _, err := s.Seal(&outer4, &h, b); !errors.Is(err, ErrHeader) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Seal(&outer4, &h, b[:3]); err == nil {
			t.Errorf("%s: fits three bytes", name)
		}
	}
	h := Header{Has: FieldGroup}
	if _, err := s.Seal(&outer4, &h, make([]byte, 7)); !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("short buffer: %v", err)
	}
}

func TestConfigRefused(t *testing.T) {
	key := &HMACKey{1, []byte("k")}
	for _, c := range []SenderConfig{
		{Profile: ProfileTougw, Cookie: make([]byte, 8), Key: key},
		{Profile: ProfileTougw, Cookie: make([]byte, 7)},
		{Profile: ProfileTougw, Key: &HMACKey{}},
		{Profile: ProfileLinux, Key: key},
		{Profile: ProfileTouDrawn, Cookie: make([]byte, 8)},
	} {
		if _, err := NewSender(c); err == nil {
			t.Errorf("sender %+v accepted", c)
		}
	}
	for _, c := range []ReceiverConfig{
		{Profile: ProfileTougw, Protocols: []Protocol{ProtoNone}},
		{Profile: ProfileTougw, Cookies: [][]byte{{1}}},
		{Profile: ProfileTougw, Keys: []HMACKey{{1, nil}}},
		{Profile: ProfileTougw, Keys: []HMACKey{*key, *key}},
		{Profile: ProfileLinux, Keys: []HMACKey{*key}},
		{Profile: ProfileTouDrawn, Require: FieldGroup},
		{Profile: ProfileTougw, Reassembly: &ReassemblerConfig{MaxBytes: 1}},
	} {
		if _, err := NewReceiver(c); err == nil {
			t.Errorf("receiver %+v accepted", c)
		}
	}
}

// TestReceiveTruncated cuts every vector everywhere: nothing may panic, and a
// cut IP packet or header is never delivered.
func TestReceiveTruncated(t *testing.T) {
	for _, p := range profiles {
		cfg := ReceiverConfig{Profile: p, Protocols: []Protocol{ProtoIPv4, ProtoIPv6}, Transform: dtlsStub{}, Reassembly: &ReassemblerConfig{}}
		r, err := NewReceiver(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range loadVectors(t) {
			for n := range len(v.bytes(t)) {
				var m Message
				drop := r.Receive(epoch, v.outer(), v.bytes(t)[:n], &m)
				if drop == DropNone && !m.Held && m.Has&(FieldFragment|FieldTransform) == 0 {
					t.Errorf("%v: %d bytes of %s delivered %x", p, n, v.Name, m.Payload)
				}
			}
		}
	}
}

// TestReceiveReused wants the outcome of each vector to be independent of those
// that went before through the same receiver and message.
func TestReceiveReused(t *testing.T) {
	rnd := rand.New(rand.NewPCG(31, 32))
	vectors := loadVectors(t)
	cfg := strict()
	cfg.Reassembly = nil
	shared, err := NewReceiver(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var m Message
	for range 2000 {
		v := &vectors[rnd.IntN(len(vectors))]
		fresh, _ := NewReceiver(cfg)
		var want Message
		wantDrop := fresh.Receive(epoch, v.outer(), v.bytes(t), &want)
		drop := shared.Receive(epoch, v.outer(), v.bytes(t), &m)
		if drop != wantDrop || m.Proto != want.Proto || m.Has != want.Has || m.Group != want.Group ||
			m.Held != want.Held || m.Control != want.Control || !bytes.Equal(m.Payload, want.Payload) {
			t.Fatalf("%s: %v %+v, want %v %+v", v.Name, drop, m, wantDrop, want)
		}
	}
}

// TestZeroChecksum tries a zero outer UDP checksum with each shelter that the
// drafts give it.
func TestZeroChecksum(t *testing.T) {
	packet := ipv4Packet(40)
	s, err := NewSender(SenderConfig{Profile: ProfileTougw})
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReceiver(strict())
	if err != nil {
		t.Fatal(err)
	}
	out := outer6
	out.Checksum = ChecksumZero
	var m Message
	if drop := r.Receive(epoch, &out, bytes.Clone(packet), &m); drop != DropZeroChecksum {
		t.Errorf("variant 1 over IPv6: %v", drop)
	}
	for _, c := range []struct {
		has  Fields
		want Drop
	}{
		{0, DropZeroChecksum},
		{FieldChecksum, DropNone},
		{FieldAltChecksum, DropZeroChecksum},
		{FieldChecksum | FieldNATChecksum, DropUnverified},
		{FieldChecksum | FieldRemoteChecksum, DropUnverified},
	} {
		h := Header{ProtoCtype: ProtoIPv4, Has: c.has}
		b := append(make([]byte, h.Len()), packet...)
		if _, err := s.Seal(&out, &h, b); err != nil {
			t.Fatal(err)
		}
		if drop := r.Receive(epoch, &out, b, &m); drop != c.want {
			t.Errorf("fields %#x: %v, want %v", c.has, drop, c.want)
		}
	}
}
