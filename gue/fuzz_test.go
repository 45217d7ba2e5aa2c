package gue

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

// seed adds the payloads of the vectors.
func seed(f *testing.F, add func([]byte)) {
	for _, v := range loadVectors(f) {
		add(v.bytes(f))
	}
	add(unhex("020600100123456789abcdef"))
	add(unhex("0406003000000000000000010000000000000002"))
	add(unhex("0406002400000000000000010a4d0007c0000201"))
}

// FuzzHeader wants what is decoded in any profile to encode to the same bytes,
// but for surplus space and reserved fields.
func FuzzHeader(f *testing.F) {
	seed(f, func(b []byte) {
		for p := range profiles {
			f.Add(uint8(p), b)
		}
	})
	f.Fuzz(func(t *testing.T, p uint8, b []byte) {
		profile := profiles[int(p)%len(profiles)]
		var h Header
		n, drop := h.Decode(profile, b)
		if drop != DropNone {
			if n != 0 || !equalHeaders(&h, &Header{}) {
				t.Fatalf("%v: %d bytes, %+v", drop, n, h)
			}
			return
		}
		if n > len(b) || n != h.Len()+len(h.Surplus) || h.Has&^profile.Fields() != 0 {
			t.Fatalf("%d bytes, Len %d, surplus %d, fields %#x", n, h.Len(), len(h.Surplus), h.Has)
		}
		out := dirty(MaxLen)
		reserved := h.Fragment.Reserved != 0
		k, err := h.Encode(profile, out)
		if err != nil {
			t.Fatal(err)
		}
		var again Header
		if _, drop := again.Decode(profile, out[:k]); drop != DropNone {
			t.Fatal(drop)
		}
		h.Surplus, h.NATChecksum.Reserved, h.AltChecksum.Reserved, h.Fragment.Reserved = nil, 0, 0, 0
		if !equalHeaders(&h, &again) {
			t.Fatalf("%+v, then %+v", h, again)
		}
		if n == k && !reserved && h.Has&(FieldNATChecksum|FieldAltChecksum) == 0 && !bytes.Equal(out[:k], b[:n]) {
			t.Fatalf("%x, then %x", b[:n], out[:k])
		}
	})
}

// FuzzSession wants Session and Header to agree about every input.
func FuzzSession(f *testing.F) {
	seed(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		s := Session{Proto: 9, Has: FieldSource, Source: 3, Destination: 4, Addresses: b}
		n, drop := s.Decode(b)
		var h Header
		k, want := h.Decode(ProfileTougw, b)
		if want == DropNone {
			switch {
			case h.Control:
				want = DropControl
			case h.Has&^sessionFields != 0:
				want = DropExtension
			}
		}
		if (drop == DropNone) != (want == DropNone) {
			t.Fatalf("%v, header: %v", drop, want)
		}
		if drop != DropNone {
			if n != 0 || !equalSessions(&s, &Session{}) {
				t.Fatalf("dropped, but %d bytes, %+v", n, s)
			}
			return
		}
		same := Session{Proto: h.ProtoCtype, Has: h.Has, Source: h.Source, Destination: h.Destination, Addresses: h.Addresses}
		if n != k || !equalSessions(&s, &same) {
			t.Fatalf("%d bytes %+v, header %d bytes %+v", n, s, k, h)
		}
		out := dirty(MaxSessionLen)
		if m, err := s.Encode(out); err != nil || m != s.Len() || m > n || !bytes.Equal(out[4:m], b[4:m]) {
			t.Fatalf("encoded %x, %v", out[:m], err)
		}
	})
}

// FuzzSessionAddrs wants one encoding for all that decodes.
func FuzzSessionAddrs(f *testing.F) {
	for _, h := range []string{"", "0a4d0007c0000201", "20010db800000000000000000000000720010db8000000000000000000000001"} {
		f.Add(unhex(h))
	}
	name := SessionAddrs{Src: outer4.Src.Addr(), Name: "kv.example"}
	b := make([]byte, NameAddrsLen)
	name.Encode(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var a SessionAddrs
		n, drop := a.Decode(b)
		if drop != DropNone {
			if n != 0 || a != (SessionAddrs{}) {
				t.Fatalf("%v, but %d, %+v", drop, n, a)
			}
			return
		}
		out := dirty(NameAddrsLen)
		k, err := a.Encode(out)
		if err != nil || k != n {
			t.Fatalf("%d, %v: %+v", k, err, a)
		}
		if n == NameAddrsLen && !a.Src.Is4() && a.Src.Is4In6() {
			t.Fatalf("mapped source %v", a.Src)
		}
		if !bytes.Equal(out[:k], b) {
			t.Fatalf("%x, then %x", b, out[:k])
		}
	})
}

// FuzzExperiment wants no message outside the input.
func FuzzExperiment(f *testing.F) {
	seed(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Experiment
		n, drop := e.Decode(b)
		if drop != DropNone {
			if n != 0 || e.ExID != 0 {
				t.Fatalf("%v, but %d, %#x", drop, n, e.ExID)
			}
			return
		}
		if n < ExperimentLen || n > len(b) || !IsControl(b) || e.ExID != binary.BigEndian.Uint32(b[n-4:]) {
			t.Fatalf("%d of %d bytes, %#x", n, len(b), e.ExID)
		}
	})
}

// FuzzReceiver throws datagrams at receivers that agreed on nothing, in every
// profile.
func FuzzReceiver(f *testing.F) {
	for _, v := range loadVectors(f) {
		o := v.outer()
		f.Add(uint8(1), o.Src.Addr().Is4(), o.TOS, uint8(o.Checksum), v.bytes(f))
		f.Add(uint8(3), o.Src.Addr().Is4(), o.TOS, uint8(o.Checksum), v.bytes(f))
	}
	f.Fuzz(func(t *testing.T, p uint8, v4 bool, tos, sum uint8, b []byte) {
		r, err := NewReceiver(ReceiverConfig{
			Profile:                  profiles[int(p)%len(profiles)],
			Protocols:                []Protocol{ProtoIPv4, ProtoIPv6, ProtoTCP, ProtoUDP, ProtoGRE, 0},
			ExIDs:                    []uint32{ExIDTougw},
			UnverifiedRemoteChecksum: tos&4 != 0,
			Transform:                dtlsStub{},
			LooseTransformProto:      tos&8 != 0,
			Reassembly:               &ReassemblerConfig{},
			InnerChecksum:            InnerChecksum(tos >> 4 % 3),
		})
		if err != nil {
			t.Fatal(err)
		}
		out := outer6
		if v4 {
			out = outer4
		}
		out.TOS, out.Checksum = tos, ChecksumState(sum%3)
		var m Message
		drop := r.Receive(epoch, &out, b, &m)
		switch {
		case drop != DropNone:
			if m.Payload != nil || m.Held || m.Has != 0 {
				t.Fatalf("%v, but %+v", drop, m)
			}
		case out.Checksum == ChecksumBad:
			t.Fatal("bad checksum delivered")
		case m.Held:
			if m.Payload != nil || r.Reassembler().Pending() != 1 {
				t.Fatalf("held, but %+v", m)
			}
		case m.Control:
			if m.ExID != ExIDTougw {
				t.Fatalf("%+v", m)
			}
		case m.Proto == ProtoIPv4:
			if len(m.Payload) < 20 || m.Payload[0]>>4 != 4 || int(binary.BigEndian.Uint16(m.Payload[2:])) != len(m.Payload) {
				t.Fatalf("IPv4 packet %x", m.Payload)
			}
		case len(m.Payload) == 0:
			t.Fatalf("nothing delivered: %+v", m)
		}
	})
}

// FuzzReassembler reads a script of fragments and compares with a model that
// remembers every byte. The first two bytes of each entry are the packet and
// the flags, then follow offset, length and a step of the clock.
func FuzzReassembler(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 0, 0, 0, 2, 2, 0})
	f.Add([]byte{0, 1, 2, 1, 0, 0, 0, 3, 1, 0, 0, 1, 0, 2, 0})
	f.Add([]byte{1, 1, 0, 9, 0, 1, 1, 9, 9, 0, 2, 0, 255, 1, 70, 1, 0, 18, 3, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		cfg := ReassemblerConfig{MaxPacket: 2040, MaxPackets: 3, MaxBytes: 6000}
		r, err := NewReassembler(cfg)
		if err != nil {
			t.Fatal(err)
		}
		type model struct {
			data  [2048]byte // zero where nothing is held
			held  int
			total int
			began time.Time
		}
		models := make(map[uint64]*model)
		now := epoch
		fill := byte(0)
		for ; len(script) >= 5; script = script[5:] {
			now = now.Add(time.Duration(script[4]) * time.Second)
			for id, m := range models {
				if now.Sub(m.began) >= DefaultReassemblyTimeout {
					delete(models, id)
				}
			}
			id, more, start, n := uint64(script[0]%5), script[1]&1 != 0, int(script[2])*8, int(script[3])
			if more {
				n *= 8
			}
			if fill++; fill == 0 {
				fill = 1
			}
			data := bytes.Repeat([]byte{fill}, n)
			p := &Piece{Key: key(id), ProtoCtype: ProtoIPv4, Fragment: Fragment{Offset: uint16(script[2]), More: more}, Data: data}
			if start > 0 {
				p.ProtoCtype = ProtoNone
			}
			p.Fragment.OrigProto = ProtoIPv4
			got, _, drop := r.Add(now, p)
			if drop != DropNone {
				if got != nil {
					t.Fatalf("%v, but %d bytes", drop, len(got))
				}
				continue
			}
			if n == 0 || start+n > cfg.MaxPacket {
				t.Fatalf("took %d bytes at %d", n, start)
			}
			if start == 0 && !more {
				if !bytes.Equal(got, data) {
					t.Fatal("whole packet changed")
				}
				continue
			}
			m := models[id]
			if m == nil {
				m = &model{began: now}
				models[id] = m
			}
			for i := range n {
				if m.data[start+i] != 0 {
					t.Fatalf("overlap at %d", start+i)
				}
				m.data[start+i] = fill
			}
			m.held += n
			if !more {
				m.total = start + n
			}
			whole := m.total != 0 && m.held == m.total
			if whole != (got != nil) {
				t.Fatalf("complete %t, %d bytes given", whole, len(got))
			}
			if !whole {
				continue
			}
			if len(got) != m.total {
				t.Fatalf("%d bytes, want %d", len(got), m.total)
			}
			if !bytes.Equal(got, m.data[:m.total]) {
				t.Fatalf("%x, want %x", got, m.data[:m.total])
			}
			delete(models, id)
		}
		if r.Pending() != len(models) || r.Pending() > cfg.MaxPackets || r.bytes > cfg.MaxBytes {
			t.Fatalf("%d pending, want %d; %d bytes", r.Pending(), len(models), r.bytes)
		}
		r.Expire(now.Add(DefaultReassemblyTimeout))
		if r.Pending() != 0 || r.oldest != nil || r.newest != nil {
			t.Fatal("packets left after their time")
		}
	})
}
