package homa

import (
	"bytes"
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

func TestClientShortCall(t *testing.T) {
	s := newScripted(t, Config{})
	r := s.call(100)
	s.wantSent("DATA[0:100]")
	s.receive(data(101, 50, 0, 50))
	s.wantEvents(Complete)
	if got := readAll(t, r, s.now); !bytes.Equal(got, pattern(50, 100)) {
		t.Fatalf("read %x", got)
	}
	s.wantSent("")
	s.receive(wire.Packet{Type: wire.NeedAck, SenderID: 101})
	s.wantSent("ACK(100,100)")
	s.wantIdle()
}

func TestServerShortCall(t *testing.T) {
	s := newScripted(t, Config{})
	s.receive(data(200, 100, 0, 100))
	r := s.wantEvents(Request, Complete)[0].RPC
	if got := readAll(t, r, s.now); !bytes.Equal(got, pattern(100, 200)) {
		t.Fatalf("read %x", got)
	}
	if err := r.Reply(s.now, 70); err != nil {
		t.Fatal(err)
	}
	s.write(r, pattern(70, 7))
	s.wantSent("DATA[0:70]")
	s.receive(wire.Packet{Type: wire.Ack, SenderID: 200})
	s.wantEvents(Acked)
	s.wantIdle()
}

// TestLongCall moves messages that need grants between two engines without loss.
func TestLongCall(t *testing.T) {
	for _, length := range []int{1, 1424, 1425, 40_000, 40_001, 100_000, 1_000_000} {
		for _, config := range []Config{{}, {ReceiveWindow: 50_000}, {NoUnscheduled: true}, {GrantWindow: 10_000}, {Peer: PeerConfig{Version: wire.Linux61, VersionSet: true}}} {
			p := newPair(t, config, config, 1)
			p.call(length, length)
			p.run(100 * ms)
			if p.completed != 1 || p.stats(0).BytesResent+p.stats(1).BytesResent != 0 {
				t.Fatalf("%d bytes, %+v: completed %d, resent %d and %d bytes", length, config, p.completed, p.stats(0).BytesResent, p.stats(1).BytesResent)
			}
			p.finish()
		}
	}
}
