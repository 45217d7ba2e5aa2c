package homa

import (
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

// asked counts the RESENDs that leave now by id.
func (s *scripted) asked(ids map[uint64]int) (n int) {
	for _, k := range s.sent() {
		if k.Type == wire.Resend {
			ids[k.SenderID]++
			n++
		}
	}
	return n
}

// TestAskInTurn: of many calls that wait, two ask at a time; all have their turn, and
// none fails while the server says that it is busy.
func TestAskInTurn(t *testing.T) {
	s := newScripted(t, Config{})
	const calls = 50
	for range calls {
		s.call(10)
	}
	s.sent()
	ids := make(map[uint64]int)
	for range 500 {
		s.tick(1)
		before := make(map[uint64]int)
		if n := s.asked(before); n > 2 {
			t.Fatalf("%d RESENDs in a tick", n)
		}
		for id := range before {
			ids[id]++
			s.receive(wire.Packet{Type: wire.Busy, SenderID: id | 1})
		}
	}
	s.wantEvents()
	if len(ids) != calls {
		t.Fatalf("%d of %d calls asked", len(ids), calls)
	}
	for id, n := range ids {
		if n < 500*2/calls/2 {
			t.Fatalf("call %d asked %d times", id, n)
		}
	}
}

// TestAskUnanswered: a RESEND without an answer keeps others waiting for a while only.
func TestAskUnanswered(t *testing.T) {
	s := newScripted(t, Config{})
	for range 6 {
		s.call(10)
	}
	s.sent()
	ids := make(map[uint64]int)
	for range 90 {
		s.tick(1)
		s.asked(ids)
		s.receive(wire.Packet{Type: wire.Cutoffs, SenderID: 101}) // it lives, but does not answer
	}
	if len(ids) != 6 {
		t.Fatalf("calls asked: %v", ids)
	}
}

// TestAskThroughStall: what a call has waited while its host answered others does
// not count when the host stalls.
func TestAskThroughStall(t *testing.T) {
	s := newScripted(t, Config{})
	for range 400 {
		s.call(10)
	}
	s.sent()
	for tick := range 60 + 55 { // the time-out is 100
		s.tick(1)
		ids := make(map[uint64]int)
		s.asked(ids)
		for id := range ids {
			if tick < 60 {
				s.receive(wire.Packet{Type: wire.Busy, SenderID: id | 1})
			}
		}
	}
	s.wantEvents()
}

// TestAskDeadHost: calls that wait for their turn fail with the others.
func TestAskDeadHost(t *testing.T) {
	s := newScripted(t, Config{})
	const calls = 20
	for range calls {
		s.call(10)
	}
	s.sent()
	ids := make(map[uint64]int)
	for range 99 {
		s.tick(1)
		s.asked(ids)
	}
	s.wantEvents()
	s.tick(1)
	if got := s.events(); len(got) != calls || got[0].Err != ErrTimeout {
		t.Fatalf("%d calls failed", len(got))
	}
	s.wantIdle()
}

// TestAskAfterEnd: a call that ends gives its turn away, and so does one in the queue.
func TestAskAfterEnd(t *testing.T) {
	s := newScripted(t, Config{})
	var calls []*RPC
	for range 5 {
		calls = append(calls, s.call(10))
	}
	s.sent()
	ids := make(map[uint64]int)
	s.tick(5)
	s.asked(ids)
	for _, r := range calls {
		if ids[r.ID()] > 0 || len(ids) == 2 {
			r.Abort(s.now, nil)
			ids[0]++ // enough of them
		}
	}
	s.tick(20)
	s.sent()
	for _, r := range calls {
		r.Abort(s.now, nil)
	}
	if p := s.e.lookup(serverAddr); p.asking != 0 || p.firstAsker != nil {
		t.Fatal("places or waiting calls are left")
	}
	s.tick(1)
	s.wantIdle()
}

// TestAskBesideTimers: those that wait for their turn get it though timers of others
// fire at each tick.
func TestAskBesideTimers(t *testing.T) {
	s := newScripted(t, Config{})
	const messages = 30
	for id := uint64(2); id <= 2*messages; id += 2 {
		for off := 0; off < 40_000; off += 1000 {
			k := data(id, 1_000_000, off, off+1000)
			k.Incoming = 40_000
			s.receive(k)
		}
		s.tick(1)
		s.sent()
	}
	ids := make(map[uint64]int)
	for range 6000 {
		s.tick(1)
		step := make(map[uint64]int)
		s.asked(step)
		for id := range step {
			ids[id]++
		}
		s.receive(wire.Packet{Type: wire.Cutoffs, SenderID: 1000}) // the host lives
	}
	if n := s.e.Stats().ServerIncoming; n > 0 {
		t.Errorf("%d requests live on whose client says nothing of them; asked: %v", n, ids)
	}
}

// TestAskHeardInTurn: what a call waits for its turn after its host said something to
// it does not count either, and it asks when the turn comes. The host takes so long
// to answer that the turn takes longer than the time-out.
func TestAskHeardInTurn(t *testing.T) {
	s := newScripted(t, Config{})
	const calls = 60
	for range calls {
		s.call(10)
	}
	s.sent()
	var answers [8][]uint64 // by tick
	ids := make(map[uint64]int)
	for tick := range 1000 {
		s.tick(1)
		now := &answers[tick%len(answers)]
		for _, id := range *now {
			s.receive(wire.Packet{Type: wire.Busy, SenderID: id | 1})
		}
		*now = nil
		asked := make(map[uint64]int)
		s.asked(asked)
		for id := range asked {
			ids[id]++
			*now = append(*now, id)
		}
		if tick == 6 {
			for id := uint64(100); id < 100+2*calls; id += 2 {
				s.receive(wire.Packet{Type: wire.Busy, SenderID: id | 1})
			}
		}
		s.wantEvents()
	}
	if len(ids) != calls {
		t.Fatalf("%d of %d calls asked", len(ids), calls)
	}
}

// TestLossWithManyCalls: calls to a server that is some ticks away do not fail for the
// loss of packets, however many there are.
func TestLossWithManyCalls(t *testing.T) {
	p := newPair(t, Config{}, Config{}, 3)
	p.faults = faults{loss: 2, delay: 3 * ms}
	begun := 0
	for p.now < 400*ms {
		for begun-p.completed-p.failed < 50 {
			p.call(100_000, 100)
			begun++
		}
		p.step()
	}
	p.finish()
	if p.failed > 0 {
		t.Fatalf("%d of %d calls failed", p.failed, begun)
	}
}
