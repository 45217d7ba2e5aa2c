package homa

import (
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

// TestWithhold: while nothing is granted because nobody reads, the server hears so now
// and then, and not when all is granted and missing.
func TestWithhold(t *testing.T) {
	s := newScripted(t, Config{ReceiveWindow: 50_000})
	r := s.call(1)
	s.sent()
	s.receive(data(101, 500_000, 0, 1000))
	at := 1000
	fill := func() { // what was granted comes
		for at < r.in.granted {
			end := min(at+1000, r.in.granted)
			s.receive(data(101, 500_000, at, end))
			at = end
		}
		s.sent()
	}
	busy := func(ticks int) (n int) {
		for range ticks {
			s.tick(1)
			for _, k := range s.sent() {
				if k.Type != wire.Busy {
					t.Fatalf("sent %s", summary([]wire.Packet{k}))
				}
				n++
			}
		}
		return n
	}
	fill()
	s.wantEvents(Readable)
	if n := busy(10 * withholdTicks); n < 8 || n > 10 {
		t.Fatalf("%d BUSY, want 10 at most", n)
	}
	for range 8 { // a reader that is slow and goes on
		r.Discard(s.now, 30_000)
		fill()
		if n := busy(100); n > 1 {
			t.Fatalf("%d BUSY", n)
		}
	}
	r.Discard(s.now, 30_000)
	s.sent()
	s.tick(99)
	for _, k := range s.sent() {
		if k.Type != wire.Resend && k.Type != wire.Grant {
			t.Fatalf("sent %v while data is missing", k.Type)
		}
	}
	s.wantEvents(Readable)
}

// TestWithholdNoMemory: a server that has sent all of a response that finds no room asks
// for its acknowledgement in vain; it is told that its client is there.
func TestWithholdNoMemory(t *testing.T) {
	s := newScripted(t, Config{})
	r := s.call(1)
	s.sent()
	s.e.receive.reserved += s.e.receive.limit
	s.receive(data(101, 5000, 0, 1000))
	for range 3 {
		s.receive(needAck(101))
		s.receive(needAck(101)) // it comes each tick
		s.wantSent("BUSY")
		s.tick(5)
	}
	s.e.receive.reserved -= s.e.receive.limit
	s.e.receive.wake(&r.peer.receive)
	s.wantSent("RESEND(0,-1)")
	s.receive(data(101, 5000, 0, 5000))
	readAll(t, r, s.now)
}

// TestWithholdBeyondWindow: the same for a response whose rest is beyond the window.
func TestWithholdBeyondWindow(t *testing.T) {
	s := newScripted(t, Config{ReceiveWindow: 20_000})
	r := s.call(1)
	s.sent()
	for at := 0; at < 40_000; at += 1000 {
		s.receive(data(101, 40_000, at, at+1000))
	}
	s.receive(needAck(101))
	s.wantSent("BUSY")
	r.Discard(s.now, 20_000)
	s.wantSent("RESEND(20000,20000)")
}

// TestWithheldServer: a client that says BUSY keeps its response, and is not asked
// for the acknowledgement more often than before.
func TestWithheldServer(t *testing.T) {
	s := newScripted(t, Config{})
	a, b := s.serve(200, 1, 100_000), s.serve(202, 1, 10)
	s.sent()
	needAcks := 0
	for tick := range 30_000 {
		s.tick(1)
		if tick%400 == 0 {
			s.receive(wire.Packet{Type: wire.Busy, SenderID: 200})
			s.receive(wire.Packet{Type: wire.Busy, SenderID: 202})
		}
		for _, k := range s.sent() {
			if k.Type != wire.NeedAck {
				t.Fatalf("sent %s", summary([]wire.Packet{k}))
			}
			needAcks++
		}
	}
	if a.State() != Sending || b.State() != Sending || needAcks > 30_000/needAckInterval+20 {
		t.Fatalf("%v, %v, asked %d times", a.Err(), b.Err(), needAcks)
	}
}
