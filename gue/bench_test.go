package gue

import "testing"

// sink keeps results alive.
var sink uint64

// benchSessions are the headers of a flow: SYN, SYN-ACK, and the rest.
func benchSessions() map[string]Session {
	addrs := make([]byte, IPv4AddrsLen)
	return map[string]Session{
		"D":           {Proto: ProtoTCP, Has: FieldDestination, Destination: 0x0123456789abcdef},
		"SD":          {Proto: ProtoTCP, Has: FieldSource | FieldDestination, Source: 1, Destination: 2},
		"S+addresses": {Proto: ProtoTCP, Has: FieldSource | FieldAddresses, Source: 1, Addresses: addrs},
	}
}

func BenchmarkSessionEncode(b *testing.B) {
	for name, s := range benchSessions() {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 1400)
			b.ReportAllocs()
			for b.Loop() {
				n, _ := s.Encode(buf)
				sink += uint64(n)
			}
		})
	}
}

func BenchmarkSessionDecode(b *testing.B) {
	for name, s := range benchSessions() {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 1400)
			s.Encode(buf)
			got := new(Session) // as in the tunnel: part of something larger
			b.ReportAllocs()
			for b.Loop() {
				n, drop := got.Decode(buf)
				sink += uint64(n) + uint64(drop) + got.Destination
			}
		})
	}
}

func BenchmarkHeader(b *testing.B) {
	h := Header{ProtoCtype: ProtoTCP, Has: FieldDestination, Destination: 1}
	buf := make([]byte, 1400)
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			n, _ := h.Encode(ProfileTougw, buf)
			sink += uint64(n)
		}
	})
	b.Run("decode", func(b *testing.B) {
		var got Header
		for b.Loop() {
			n, _ := got.Decode(ProfileTougw, buf)
			sink += uint64(n)
		}
	})
}

func BenchmarkTCPChecksum(b *testing.B) {
	seg := counting(1400)
	seg[12] = 5 << 4
	b.SetBytes(int64(len(seg)))
	for b.Loop() {
		SetTCPChecksum(seg)
	}
}

func BenchmarkReceive(b *testing.B) {
	for _, c := range []struct {
		name string
		cfg  SenderConfig
		has  Fields
	}{
		{"plain", SenderConfig{Profile: ProfileTougw}, 0},
		{"checksum", SenderConfig{Profile: ProfileTougw}, FieldChecksum},
		{"crc", SenderConfig{Profile: ProfileTougw}, FieldAltChecksum},
		{"hmac", SenderConfig{Profile: ProfileTougw, Key: &vectorKey, Cover: 0xffff}, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, err := NewSender(c.cfg)
			if err != nil {
				b.Fatal(err)
			}
			cfg := strict()
			if c.cfg.Key != nil {
				cfg.Keys = []HMACKey{*c.cfg.Key}
			}
			r, err := NewReceiver(cfg)
			if err != nil {
				b.Fatal(err)
			}
			packet := ipv4Packet(1400)
			h := Header{ProtoCtype: ProtoIPv4, Has: c.has,
				Checksum: Checksum{Coverage: 1400}, AltChecksum: AltChecksum{Coverage: 1400}}
			buf := append(make([]byte, s.HeaderLen(&h)), packet...)
			if _, err := s.Seal(&outer4, &h, buf); err != nil {
				b.Fatal(err)
			}
			var m Message
			b.SetBytes(int64(len(packet)))
			b.ReportAllocs()
			for b.Loop() {
				if drop := r.Receive(epoch, &outer4, buf, &m); drop != DropNone {
					b.Fatal(drop)
				}
			}
		})
	}
}
