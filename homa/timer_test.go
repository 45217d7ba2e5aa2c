package homa

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

// TestDeadServer: RESEND at ticks 5, 10 … 95, failure at tick 100.
func TestDeadServer(t *testing.T) {
	for _, length := range []int{100, 100_000} {
		s := newScripted(t, Config{})
		r := s.call(length)
		s.sent()
		for tick := 1; tick < 100; tick++ {
			s.tick(1)
			want := ""
			if tick%5 == 0 {
				want = "RESEND(0,-1)"
			}
			if got := summary(s.sent()); got != want {
				t.Fatalf("tick %d: sent %q, want %q", tick, got, want)
			}
			s.wantEvents()
		}
		s.tick(1)
		s.wantSent("")
		if got := s.wantEvents(Failed); !errors.Is(got[0].Err, ErrTimeout) || r.State() != Dead || r.Err() != ErrTimeout {
			t.Fatalf("%v, state %v", got[0].Err, r.State())
		}
		s.wantIdle()
	}
}

// TestSilence: which packets of the peer reset the silence of an RPC.
func TestSilence(t *testing.T) {
	for _, c := range []struct {
		name   string
		packet wire.Packet
		resets bool
	}{
		{"BUSY", wire.Packet{Type: wire.Busy}, true},
		{"GRANT", wire.Packet{Type: wire.Grant, Offset: 100}, true},
		{"stale GRANT", wire.Packet{Type: wire.Grant}, true},
		{"NEED_ACK", wire.Packet{Type: wire.NeedAck}, false},
		{"RESEND", wire.Packet{Type: wire.Resend, RangeLength: -1}, false},
		{"RPC_UNKNOWN", wire.Packet{Type: wire.RPCUnknown}, false},
		{"CUTOFFS", wire.Packet{Type: wire.Cutoffs}, false},
		{"impossible DATA", wire.Packet{Type: wire.Data, Length: 5, Offset: 6}, false},
		{"BUSY from another port", wire.Packet{Type: wire.Busy, SrcPort: 4001, DstPort: 0x8000}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{})
			r := s.call(100)
			s.sent()
			c.packet.SenderID = r.ID() | 1
			for range 60 {
				s.tick(3)
				s.receive(c.packet)
				s.sent()
			}
			if failed := r.State() == Dead; failed == c.resets {
				t.Fatalf("after 180 ticks the call is %v", r.State())
			}
		})
	}
}

func TestDataResetsSilence(t *testing.T) {
	s := newScripted(t, Config{})
	r := s.call(100)
	s.sent()
	for i := range 60 {
		s.receive(data(101, 10_000, i*10, i*10+10))
		s.tick(4)
		s.wantSent("")
	}
	if r.State() != Receiving {
		t.Fatal(r.State())
	}
	s.tick(100)
	s.sent()
	if e := s.events(); e[len(e)-1].Kind != Failed {
		t.Fatalf("events %v", e)
	}
	s.wantIdle()
}

// TestServerRequestTimeout: a client that dies half-way through its request.
func TestServerRequestTimeout(t *testing.T) {
	s := newScripted(t, Config{})
	s.receive(data(200, 100_000, 0, 1000))
	s.wantEvents(Request, Readable)
	s.tick(99)
	s.sent()
	s.wantEvents()
	s.tick(1)
	if got := s.wantEvents(Failed); got[0].Err != ErrTimeout {
		t.Fatal(got[0].Err)
	}
	s.wantSent("")
	s.wantIdle()
}

// TestNotSilent: times in which silence does not count.
func TestNotSilent(t *testing.T) {
	t.Run("in service", func(t *testing.T) {
		s := newScripted(t, Config{})
		s.receive(data(200, 10, 0, 10))
		r := s.events()[0].RPC
		s.tick(1000)
		s.wantSent("")
		if r.State() != InService {
			t.Fatal(r.State())
		}
	})
	t.Run("all granted bytes have come", func(t *testing.T) {
		s := newScripted(t, Config{ReceiveWindow: 50_000})
		for at := 0; at < 40_000; at += 1000 {
			s.receive(data(200, 500_000, at, at+1000))
		}
		granted := s.sent()
		end := int(granted[len(granted)-1].Offset)
		for at := 40_000; at < end; at += 1000 {
			s.receive(data(200, 500_000, at, min(at+1000, end)))
		}
		s.tick(1000)
		s.wantSent("")
		r := s.events()[0].RPC
		// Reading makes room; from then on silence counts.
		r.Discard(s.now, 30_000)
		if got := summary(s.sent()); got == "" {
			t.Fatal("no grant after reading")
		}
		s.tick(4)
		s.wantSent("")
		s.tick(1)
		if got := summary(s.sent()); got == "" {
			t.Fatal("no RESEND of what was granted")
		}
	})
}

// TestLateOwner: when the owner did not call for long, that is not the peer's silence.
func TestLateOwner(t *testing.T) {
	s := newScripted(t, Config{})
	r := s.call(100)
	s.sent()
	s.now += 500 * ms
	s.e.Advance(s.now)
	s.wantSent("RESEND(0,-1)")
	if r.State() != Sending {
		t.Fatal(r.State())
	}
	s.now += 500 * ms
	s.receive(wire.Packet{Type: wire.Busy, SenderID: 101})
	s.e.Advance(s.now)
	s.tick(95)
	if r.State() != Sending {
		t.Fatal(r.State())
	}
	s.tick(10)
	s.sent()
	s.wantEvents(Failed)
}

// TestDeadline: an owner that only calls at deadlines sees the same as one that
// calls at each tick.
func TestDeadline(t *testing.T) {
	s := newScripted(t, Config{TombstoneLife: -1})
	s.call(100)
	s.sent()
	start := s.now
	var got []string
	for range 100 {
		at, ok := s.e.Deadline()
		if !ok {
			break
		}
		s.now = at
		s.e.Advance(s.now)
		if sent := summary(s.sent()); sent != "" {
			got = append(got, fmt.Sprint(int(s.now-start)/int(ms)))
		}
		if len(s.events()) > 0 {
			got = append(got, fmt.Sprint("failed ", int(s.now-start)/int(ms)))
			break
		}
	}
	if len(got) != 20 || got[0] != "5" || got[18] != "95" || got[19] != "failed 100" {
		t.Fatalf("acted at %v", got)
	}
}

func TestPeerTimeouts(t *testing.T) {
	s := newScripted(t, Config{})
	if err := s.e.SetPeer(serverAddr, PeerConfig{ResendTicks: 300, ResendInterval: 400, TimeoutTicks: 1200}); err != nil {
		t.Fatal(err)
	}
	s.call(100)
	s.sent()
	var got []int
	for tick := 1; tick <= 1200; tick++ {
		s.tick(1)
		if len(s.sent()) > 0 {
			got = append(got, tick)
		}
		if len(s.events()) > 0 {
			got = append(got, -tick)
		}
	}
	if fmt.Sprint(got) != "[300 700 1100 -1200]" {
		t.Fatalf("acted at %v", got)
	}
}

// TestResponseNotGranted: a client that grants no more is given up in the end.
func TestResponseNotGranted(t *testing.T) {
	s := newScripted(t, Config{Peer: PeerConfig{ResponseTimeoutTicks: 3000}})
	s.serve(200, 10, 100_000)
	s.sent()
	s.tick(2900)
	s.wantSent("")
	s.receive(resend(200, 0, 10))
	s.wantSent("DATA[0:10]r")
	s.tick(2900)
	s.wantEvents()
	s.tick(110)
	if got := s.wantEvents(Failed); got[0].Err != ErrTimeout {
		t.Fatal(got[0].Err)
	}
	s.wantIdle()
}

// TestFarTimerFiresLate: an owner that is a tick late for the only timer, which is
// then set again beyond what the wheel reaches, gets out of Advance.
func TestFarTimerFiresLate(t *testing.T) {
	s := newScripted(t, Config{Peer: PeerConfig{ResponseTimeoutTicks: 3000}})
	s.serve(200, 10, 100_000)
	s.sent()
	for range 10 {
		at, ok := s.e.Deadline()
		if !ok {
			t.Fatal("no deadline")
		}
		s.now = max(s.now, at+ms)
		s.e.Advance(s.now)
		s.sent()
	}
}

// TestWheel compares the timer wheel with a list.
func TestWheel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	live := make(map[*RPC]int64)
	for range 20_000 {
		switch r.IntN(3) {
		case 0:
			x := &RPC{engine: e}
			at := e.tick + 1 + r.Int64N(250)
			e.schedule(x, at)
			live[x] = at
		case 1:
			for x := range live {
				e.unschedule(x)
				delete(live, x)
				break
			}
		default:
			e.tick += r.Int64N(20)
			for e.wheel.count > 0 && e.wheel.next() <= e.tick {
				tick := e.wheel.next()
				e.fired = tick
				for e.wheel.slots[tick%wheelSize] != nil {
					x := e.wheel.slots[tick%wheelSize]
					e.wheel.remove(x)
					if live[x] != tick {
						t.Fatalf("fired at %d, set for %d", tick, live[x])
					}
					delete(live, x)
				}
			}
			e.fired = max(e.fired, e.tick)
			for _, at := range live {
				if at <= e.tick {
					t.Fatalf("set for %d, not fired at %d", at, e.tick)
				}
			}
		}
		if len(live) != e.wheel.count {
			t.Fatalf("%d timers, wheel has %d", len(live), e.wheel.count)
		}
	}
}
