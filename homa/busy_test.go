package homa

import (
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

// busyLink has a server that receives a message of a peer on a link of 50 Mbit/s,
// while another message of it waits in the queue of a switch. It counts what is
// asked for in so many ticks.
func busyLink(t *testing.T, ticks int) (s *scripted, resends int) {
	s = newScripted(t, Config{GrantRate: 50_000_000})
	s.receive(data(202, 1_000_000, 0, 1000))
	s.receive(data(200, 1_000_000, 0, 1000))
	sent := 1000
	for range ticks {
		// 4 full packets take a tick on the link.
		for range 4 {
			k := data(200, 1_000_000, sent, sent+1424)
			sent += 1424
			s.receive(k)
		}
		s.tick(1)
		for _, k := range s.sent() {
			if k.Type == wire.Resend && k.SenderID == 203 {
				resends++
			}
		}
	}
	return s, resends
}

// TestBusyLink: a message that is silent while the link brings another one is not
// asked for as on an idle link: it would come twice, at the highest priority.
func TestBusyLink(t *testing.T) {
	if s, n := busyLink(t, 60); n > 0 || s.e.Stats().Timeouts > 0 {
		t.Fatalf("%d RESENDs in 60 ticks of a busy link", n)
	}
	if s, n := busyLink(t, 165); n != 2 || s.e.Stats().Timeouts > 0 {
		t.Fatalf("%d RESENDs in 165 ticks of a busy link, %d time-outs", n, s.e.Stats().Timeouts)
	}
}

// TestBusyLinkEnds: silence counts again when the link is idle.
func TestBusyLinkEnds(t *testing.T) {
	s, _ := busyLink(t, 30)
	s.tick(110)
	if n := s.e.Stats().Timeouts; n != 2 {
		t.Fatalf("%d time-outs", n)
	}
	s.sent()
	s.events()
}

// TestBusyLinkLost: a peer that is gone is noticed though others keep the link busy.
func TestBusyLinkLost(t *testing.T) {
	s := newScripted(t, Config{GrantRate: 10_000_000})
	r := s.call(10)
	s.sent()
	for tick := 0; s.e.Stats().Timeouts == 0; tick++ {
		if tick > 1700 {
			t.Fatal("no time-out")
		}
		for range 4 { // more than the link can bring
			s.e.Receive(s.now, netipAddr("10.0.0.7"), wire.Main.Append(nil, &wire.Packet{
				Type: wire.Data, SenderID: 300, SrcPort: 0x8000, DstPort: 4000, Length: 2000, Incoming: 2000,
				Data: make([]byte, 1424),
			}))
		}
		s.tick(1)
		s.sent0()
	}
	if r.Err() != ErrTimeout {
		t.Fatal(r.Err())
	}
}

// sent0 drops what leaves, to any peer.
func (s *scripted) sent0() {
	for {
		if _, ok := s.e.Transmit(s.now, nil); !ok {
			return
		}
	}
}
