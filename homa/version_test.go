package homa

import (
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

// asModule is the packet with the fields that a kernel of the version fills in and
// this package does not.
func asModule(v wire.Version, k wire.Packet) []byte {
	k.SrcPort, k.DstPort = 0x8000, 4000
	b := v.Append(nil, &k)
	switch {
	case v == wire.Stripped:
		b[12] = 0xe0
	default:
		b[12], b[13], b[18], b[19] = 0x50, 0x06, 0xb9, 0x7d
		if k.Type == wire.Data {
			b[12] = 0xe0
		}
		if k.Type != wire.Data && v == wire.Linux610 {
			b[12] = 0
		}
	}
	return b
}

// TestDetectVersion: a peer whose packets tell another version than the default one
// is treated accordingly, unless its version is set.
func TestDetectVersion(t *testing.T) {
	ungranted := data(200, 100_000, 0, 1000)
	ungranted.Incoming = 0
	for _, c := range []struct {
		name   string
		packet []byte
		set    bool
		want   wire.Version
	}{
		{"stripped", asModule(wire.Stripped, ungranted), false, wire.Stripped},
		{"stripped, but set", asModule(wire.Stripped, ungranted), true, wire.Main},
		{"main", asModule(wire.Main, data(200, 100_000, 0, 1000)), false, wire.Main},
		{"6.10", asModule(wire.Linux610, wire.Packet{Type: wire.Busy, SenderID: 200}), false, wire.Linux610},
		{"unknown", wire.Main.Append(nil, &wire.Packet{Type: wire.Busy, SenderID: 200, SrcPort: 0x8000, DstPort: 4000}), false, wire.Main},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{})
			if c.set {
				if err := s.e.SetPeer(serverAddr, PeerConfig{Version: wire.Main, VersionSet: true}); err != nil {
					t.Fatal(err)
				}
			}
			s.e.Receive(s.now, serverAddr, c.packet)
			if c.packet[11] != byte(wire.Data) { // only requests make a peer
				s.receive(data(200, 100_000, 0, 1000))
				s.e.Receive(s.now, serverAddr, c.packet)
			}
			if got := s.e.lookup(serverAddr).config.Version; got != c.want {
				t.Fatalf("peer is %v, want %v", got, c.want)
			}
			if grants := len(s.granting()); (grants == 0) != (c.want == wire.Stripped) {
				t.Fatalf("%d GRANTs to a peer of version %v", grants, c.want)
			}
		})
	}
}

// TestVersionContradiction: a packet that speaks against all others changes nothing.
func TestVersionContradiction(t *testing.T) {
	s := newScripted(t, Config{})
	s.e.Receive(s.now, serverAddr, asModule(wire.Main, data(200, 100_000, 0, 1000)))
	s.e.Receive(s.now, serverAddr, asModule(wire.Stripped, wire.Packet{Type: wire.Busy, SenderID: 200}))
	if got := s.e.lookup(serverAddr).config.Version; got != wire.Main {
		t.Fatalf("peer is %v", got)
	}
}

// TestVersionSpoofed: packets that are of no RPC do not tell a peer's version, and
// what a few others told wrongly is put right by those that follow.
func TestVersionSpoofed(t *testing.T) {
	busy := func(v wire.Version, id uint64) []byte {
		return asModule(v, wire.Packet{Type: wire.Busy, SenderID: id})
	}
	s := newScripted(t, Config{})
	s.e.Receive(s.now, serverAddr, asModule(wire.Main, data(200, 100_000, 0, 1000)))
	for id := range uint64(100) {
		s.e.Receive(s.now, serverAddr, busy(wire.Linux610, 1000+2*id))
	}
	if got := s.e.lookup(serverAddr).config.Version; got != wire.Main {
		t.Fatalf("peer is %v", got)
	}
	// Or the first packet is not the peer's.
	s = newScripted(t, Config{})
	ungranted := data(200, 100_000, 0, 1000)
	ungranted.Incoming = 0
	s.e.Receive(s.now, serverAddr, asModule(wire.Stripped, ungranted))
	if got := s.e.lookup(serverAddr).config.Version; got != wire.Stripped {
		t.Fatalf("peer is %v", got)
	}
	for id := range uint64(5) {
		s.e.Receive(s.now, serverAddr, asModule(wire.Main, data(202+2*id, 100_000, 0, 1000)))
	}
	if got := s.e.lookup(serverAddr).config.Version; got != wire.Main {
		t.Fatalf("peer is %v after five requests of another version", got)
	}
	if len(s.granting()) == 0 {
		t.Fatal("no GRANT")
	}
}
