package gue

import (
	"testing"
	"time"
)

// noAllocs wants f to allocate nothing once it has run a few times.
func noAllocs(t *testing.T, what string, f func()) {
	t.Helper()
	for range 10 {
		f()
	}
	if n := testing.AllocsPerRun(200, f); n != 0 {
		t.Errorf("%s: %v allocations", what, n)
	}
}

func TestNoAllocations(t *testing.T) {
	var addrs [IPv6AddrsLen]byte
	ends := SessionAddrs{Src: outer6.Src.Addr(), Dst: outer6.Dst.Addr()}
	buf := make([]byte, MaxLen)
	noAllocs(t, "session", func() {
		var local [IPv6AddrsLen]byte // a caller's own array must not escape
		n, _ := ends.Encode(local[:])
		s := Session{Proto: ProtoTCP, Has: FieldSource | FieldAddresses, Source: 1, Addresses: local[:n]}
		k, err := s.Encode(buf)
		if err != nil {
			t.Fatal(err)
		}
		var got Session
		if _, drop := got.Decode(buf[:k]); drop != DropNone {
			t.Fatal(drop)
		}
		var a SessionAddrs
		if _, drop := a.Decode(got.Addresses); drop != DropNone || a != ends {
			t.Fatal(drop)
		}
		s = Session{Proto: ProtoTCP, Has: FieldDestination, Destination: 2}
		k, _ = s.Encode(buf)
		got.Decode(buf[:k])
		s.Has |= FieldSource
		k, _ = s.Encode(buf)
		got.Decode(buf[:k])
	})
	ends.Encode(addrs[:])
	noAllocs(t, "session drop", func() {
		var s Session
		if _, drop := s.Decode(buf[:3]); drop != DropShort {
			t.Fatal(drop)
		}
	})
	noAllocs(t, "experiment", func() {
		var e Experiment
		n, _ := Experiment{ExID: ExIDTougw}.Encode(buf)
		if _, drop := e.Decode(buf[:n]); drop != DropNone {
			t.Fatal(drop)
		}
	})
	out := make([]byte, MaxLen)
	noAllocs(t, "header", func() {
		h := Header{Has: tougwFields, Security: buf[:8], Addresses: addrs[:]}
		n, err := h.Encode(ProfileTougw, out)
		if err != nil {
			t.Fatal(err)
		}
		if _, drop := h.Decode(ProfileTougw, out[:n]); drop != DropNone {
			t.Fatal(drop)
		}
	})
	seg := counting(1400)
	noAllocs(t, "checksum", func() {
		SetTCPChecksum(seg)
		VerifyTCPChecksum(seg)
	})
}

func TestNoAllocationsSendReceive(t *testing.T) {
	s, err := NewSender(SenderConfig{Profile: ProfileTougw, Key: &vectorKey, Cover: 0xffff})
	if err != nil {
		t.Fatal(err)
	}
	cfg := strict()
	cfg.Keys, cfg.Transform = []HMACKey{vectorKey}, dtlsStub{}
	r, err := NewReceiver(cfg)
	if err != nil {
		t.Fatal(err)
	}
	packet := ipv4Packet(3000)
	buf := make([]byte, MaxLen+len(packet))
	id, now := uint64(0), epoch
	noAllocs(t, "everything", func() {
		id++
		now = now.Add(time.Millisecond)
		f, err := NewFragmenter(false, ProtoIPv4, id, len(packet), 1000)
		if err != nil {
			t.Fatal(err)
		}
		var m Message
		for {
			h := Header{Has: FieldGroup | FieldChecksum | FieldNATChecksum | FieldAltChecksum}
			start, end, ok := f.Next(&h)
			if !ok {
				break
			}
			h.SetTransform(200, 0)
			n := s.HeaderLen(&h)
			copy(buf[n:], packet[start:end])
			if _, err := s.Seal(&outer6, &h, buf[:n+end-start]); err != nil {
				t.Fatal(err)
			}
			if drop := r.Receive(now, &outer6, buf[:n+end-start], &m); drop != DropNone {
				t.Fatal(drop)
			}
		}
		if len(m.Payload) != len(packet) {
			t.Fatalf("%d bytes", len(m.Payload))
		}
	})
	for _, v := range loadVectors(t) {
		b, out := v.bytes(t), v.outer()
		if v.Name == "ext-frag-1of2" {
			continue // held ones keep memory, above they do not
		}
		var m Message
		noAllocs(t, v.Name, func() { r.Receive(now, out, b, &m) })
	}
}
