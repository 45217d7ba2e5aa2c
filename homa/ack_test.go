package homa

import (
	"fmt"
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

func needAck(id uint64) wire.Packet { return wire.Packet{Type: wire.NeedAck, SenderID: id} }

// finishCall gets a response of one byte for a call of one byte.
func (s *scripted) finishCall() *RPC {
	r := s.call(1)
	s.sent()
	s.receive(data(r.ID()|1, 1, 0, 1))
	readAll(s.T, r, s.now)
	s.events()
	return r
}

// TestAckGoesAlong: what is to be acknowledged goes along with data to the same peer,
// one in each new packet, not in retransmissions.
func TestAckGoesAlong(t *testing.T) {
	s := newScripted(t, Config{Peer: PeerConfig{MaxData: 1000}})
	for range 4 {
		s.finishCall() // each carries the acknowledgement of the one before
	}
	r := s.call(2500)
	packets := s.sent()
	if packets[0].Ack != (wire.AckEntry{ClientID: 106, ServerPort: 4000}) {
		t.Fatalf("ack %+v", packets[0].Ack)
	}
	for _, k := range packets[1:] {
		if k.Ack.ClientID != 0 {
			t.Fatalf("ack %+v repeated", k.Ack)
		}
	}
	s.receive(data(r.ID()|1, 1, 0, 1))
	readAll(t, r, s.now)
	r = s.call(10)
	s.sent()
	s.receive(data(103, 1, 0, 1)) // of a finished RPC: nothing
	s.receive(resend(r.ID()|1, 0, -1))
	if k := s.sent()[0]; !k.Retransmit || k.Ack.ClientID != 0 {
		t.Fatalf("retransmission %+v", k)
	}
}

// TestAckOverflow: when a sixth acknowledgement comes, an ACK takes all six.
func TestAckOverflow(t *testing.T) {
	s := newScripted(t, Config{})
	var calls []*RPC
	for range 7 {
		calls = append(calls, s.call(1))
	}
	s.sent()
	for i, r := range calls {
		s.receive(data(r.ID()|1, 1, 0, 1))
		want := ""
		if i == 5 {
			want = "ACK(110,100,102,104,106,108)"
		}
		s.wantSent(want)
		readAll(t, r, s.now)
	}
	s.receive(needAck(101)) // the one left goes along
	s.wantSent("ACK(100,112)")
	s.receive(needAck(101))
	s.wantSent("ACK(100)")
}

// TestAckBurst: many responses in one batch are acknowledged by full packets, which
// leave none out, not by a packet each.
func TestAckBurst(t *testing.T) {
	s := newScripted(t, Config{})
	var calls []*RPC
	for range 300 {
		calls = append(calls, s.call(1))
	}
	s.sent()
	want := make(map[uint64]bool)
	packets := 0
	acked := func() {
		for _, k := range s.sent() {
			packets++
			for _, id := range append([]uint64{k.SenderID}, k.Acks[0].ClientID, k.Acks[1].ClientID, k.Acks[2].ClientID, k.Acks[3].ClientID, k.Acks[4].ClientID) {
				if id != 0 && !want[id] {
					t.Fatalf("%d acknowledged twice, or too early", id)
				}
				delete(want, id)
			}
		}
	}
	for i, r := range calls {
		want[r.ID()] = true
		s.receive(data(r.ID()|1, 1, 0, 1))
		readAll(t, r, s.now)
		if i%64 == 63 {
			acked()
		}
	}
	s.e.FlushAcks(s.now)
	acked()
	if len(want) != 0 || packets > 300/6+5 {
		t.Fatalf("%d packets, %d RPCs not acknowledged", packets, len(want))
	}
	s.events()
}

func TestFlushAcks(t *testing.T) {
	s := newScripted(t, Config{})
	a, b := s.call(1), s.call(1)
	s.sent()
	for _, r := range []*RPC{a, b} {
		s.receive(data(r.ID()|1, 1, 0, 1))
		readAll(t, r, s.now)
	}
	s.e.FlushAcks(s.now)
	packets := s.sent()
	if summary(packets) != "ACK(102,100)" || packets[0].SrcPort != 0x8000 || packets[0].DstPort != 4000 {
		t.Fatalf("sent %+v", packets)
	}
	s.e.FlushAcks(s.now)
	s.wantSent("")
}

func TestNeedAck(t *testing.T) {
	t.Run("unknown", func(t *testing.T) {
		s := newScripted(t, Config{})
		s.receive(needAck(77))
		packets := s.sent()
		if summary(packets) != "ACK(76)" || packets[0].SrcPort != 0x8000 || packets[0].DstPort != 4000 {
			t.Fatalf("sent %+v", packets)
		}
		if s.e.Stats().Peers != 0 {
			t.Fatal("a stranger has state")
		}
	})
	t.Run("nothing came", func(t *testing.T) {
		s := newScripted(t, Config{})
		s.call(1)
		s.sent()
		s.receive(needAck(101))
		s.wantSent("RESEND(0,-1)")
	})
	t.Run("incomplete", func(t *testing.T) {
		s := newScripted(t, Config{})
		s.call(1)
		s.sent()
		s.receive(data(101, 5000, 1000, 2000))
		s.receive(needAck(101))
		s.receive(needAck(101))
		s.wantSent("RESEND(0,1000) RESEND(2000,3000)")
	})
	t.Run("complete, not read", func(t *testing.T) {
		s := newScripted(t, Config{})
		r := s.call(1)
		s.sent()
		s.receive(data(101, 10, 0, 10))
		s.receive(needAck(101))
		s.wantSent("ACK(100,100)")
		if got := readAll(t, r, s.now); len(got) != 10 {
			t.Fatalf("%d bytes are left to read", len(got))
		}
	})
	t.Run("to a server", func(t *testing.T) {
		s := newScripted(t, Config{})
		r := s.serve(200, 1, 1)
		s.sent()
		s.receive(needAck(200))
		s.wantSent("")
		if r.State() != Sending {
			t.Fatal(r.State())
		}
	})
}

// TestAskForAck: NEED_ACK from the third tick after the response, each tick at first,
// then rarely; and not for ever.
func TestAskForAck(t *testing.T) {
	s := newScripted(t, Config{})
	s.serve(200, 1, 1)
	s.wantSent("DATA[0:1]")
	var at []int
	for tick := 1; tick <= 500; tick++ {
		s.tick(1)
		for range s.sent() {
			at = append(at, tick)
		}
		if len(s.events()) > 0 {
			at = append(at, -tick)
		}
	}
	want := "[3 4 5 6 7 8 9 10 11 12 13 15 19 27 43 75 139 203 267 331 395 459 -500]"
	if fmt.Sprint(at) != want {
		t.Fatalf("asked at ticks %v, want %s", at, want)
	}
	s.wantIdle()
}

// TestAskedClientLives: a client that asks for the response again is waited for.
func TestAskedClientLives(t *testing.T) {
	s := newScripted(t, Config{})
	r := s.serve(200, 1, 1)
	for range 30 {
		s.tick(50)
		s.receive(resend(200, 0, -1))
	}
	s.sent()
	if r.State() != Sending {
		t.Fatal(r.State())
	}
	s.tick(2)
	s.wantSent("")
	s.tick(1)
	s.wantSent("NEED_ACK")
}

func TestAcksEndRPCs(t *testing.T) {
	s := newScripted(t, Config{})
	for id := uint64(200); id <= 212; id += 2 {
		s.serve(id, 1, 1)
	}
	s.sent()
	ack := wire.Packet{Type: wire.Ack, SenderID: 200, NumAcks: 3}
	ack.Acks = [5]wire.AckEntry{{ClientID: 202, ServerPort: 4000}, {ClientID: 204, ServerPort: 99}, {ClientID: 999}}
	s.receive(ack)
	s.wantEvents(Acked, Acked, Acked)
	along := data(300, 1000, 0, 10)
	along.Ack = wire.AckEntry{ClientID: 206, ServerPort: 4000}
	s.receive(along)
	s.receive(along)
	s.wantEvents(Request, Readable, Acked)
	reply := data(101, 1, 0, 1) // in a response to a call
	s.call(1)
	reply.Ack = wire.AckEntry{ClientID: 208, ServerPort: 4000}
	s.receive(reply)
	s.wantEvents(Complete, Acked)
	if st := s.e.Stats(); st.ServerOutgoing != 2 || st.Acked != 5 {
		t.Fatalf("%+v", st)
	}
	// Acknowledgements of another host, of odd and of zero ids do nothing.
	s.peer = netipAddr("10.0.0.9")
	s.receive(wire.Packet{Type: wire.Ack, SenderID: 210, NumAcks: 1, Acks: [5]wire.AckEntry{{ClientID: 212}}})
	s.peer = serverAddr
	s.receive(wire.Packet{Type: wire.Ack, SenderID: 998, NumAcks: 2, Acks: [5]wire.AckEntry{{ClientID: 211}, {}}})
	s.wantEvents()
}

// TestAckBeforeResponse: the client has forgotten an RPC that is being served.
func TestAckBeforeResponse(t *testing.T) {
	s := newScripted(t, Config{})
	s.receive(data(200, 10, 0, 10))
	r := s.wantEvents(Request, Complete)[0].RPC
	s.receive(wire.Packet{Type: wire.Ack, SenderID: 200})
	if got := s.wantEvents(Failed); got[0].Err != ErrAbandoned {
		t.Fatal(got[0].Err)
	}
	if err := r.Reply(s.now, 1); err != ErrAbandoned {
		t.Fatalf("Reply: %v", err)
	}
	s.wantIdle()
}

func TestVersion61Acks(t *testing.T) {
	s := newScripted(t, Config{Peer: PeerConfig{Version: wire.Linux61, VersionSet: true}})
	s.v = wire.Linux61
	s.finishCall()
	s.sent()
	s.call(1)
	if k := s.sent()[0]; k.Ack != (wire.AckEntry{ClientID: 100, ClientPort: 0x8000, ServerPort: 4000}) {
		t.Fatalf("ack %+v", k.Ack)
	}
}

// TestTombstones: a late duplicate of a request is not executed again.
func TestTombstones(t *testing.T) {
	s := newScripted(t, Config{})
	request := data(200, 10, 0, 10)
	s.serve(200, 10, 10)
	s.sent()
	s.receive(request) // before the acknowledgement
	s.wantEvents()
	s.receive(wire.Packet{Type: wire.Ack, SenderID: 200})
	s.wantEvents(Acked)
	s.receive(request)
	s.wantEvents()
	s.wantSent("")
	s.receive(resend(200, 0, -1))
	s.wantSent("RPC_UNKNOWN")
	if st := s.e.Stats(); st.DropTombstone != 1 || st.Tombstones != 1 {
		t.Fatalf("%+v", st)
	}
	s.tick(1300) // life, and the time that they may be swept late
	if st := s.e.Stats(); st.Tombstones != 1 {
		t.Fatalf("%d tombstones although the request came again", st.Tombstones)
	}
	s.receive(request)
	s.wantEvents()
	s.tick(2600)
	if st := s.e.Stats(); st.Tombstones != 0 {
		t.Fatalf("%d tombstones after their life", st.Tombstones)
	}
	s.receive(request)
	s.wantEvents(Request, Complete)
}

func TestTombstonesBounded(t *testing.T) {
	s := newScripted(t, Config{MaxTombstones: 10})
	for id := uint64(200); id < 300; id += 2 {
		s.serve(id, 1, 1)
		s.receive(wire.Packet{Type: wire.Ack, SenderID: id})
		s.events()
	}
	s.sent()
	if st := s.e.Stats(); st.Tombstones != 10 || st.TombstonesLost != 40 {
		t.Fatalf("%+v", st)
	}
	s.wantIdle()
}

// TestTombstoneOfRefused: a request that the owner refused is not offered again.
func TestTombstoneOfRefused(t *testing.T) {
	s := newScripted(t, Config{})
	s.receive(data(200, 10, 0, 10))
	s.events()[0].RPC.Abort(s.now, nil)
	s.receive(data(200, 10, 0, 10))
	s.receive(resend(200, 0, -1))
	s.wantEvents()
	s.wantSent("RPC_UNKNOWN")
	s.tick(1300) // the request came again, so that it lives twice as long
	s.wantIdle()
}

// TestTombstoneOfUnacked: a client that was silent for so long that it was given up
// does not get its request executed again when it goes on.
func TestTombstoneOfUnacked(t *testing.T) {
	const pause = 60_000
	for name, end := range map[string]func(s *scripted){
		"in the middle of its request": func(s *scripted) {
			s.receive(data(200, 50_000, 0, 1000))
			s.wantEvents(Request, Readable)
			s.tick(pause)
			s.wantEvents(Failed)
		},
		"before it was answered": func(s *scripted) {
			s.receive(data(200, 50_000, 0, 1000))
			s.events()[0].RPC.Abort(s.now, nil)
			s.tick(pause)
		},
		"behind its request": func(s *scripted) {
			s.serve(200, 50_000, 10)
			s.sent()
			s.tick(pause)
			s.wantEvents(Failed)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScripted(t, Config{})
			end(s)
			s.sent()
			for range 2 {
				s.receive(data(200, 50_000, 1000, 1000))
				s.receive(resend(200, 0, -1))
				s.receive(data(200, 50_000, 0, 1000))
				s.wantEvents()
				s.wantSent("RPC_UNKNOWN")
				s.tick(pause)
			}
			if st := s.e.Stats(); st.Tombstones != 1 || st.DropTombstone != 4 {
				t.Errorf("%+v", st)
			}
			// A host that has started again uses the same ids.
			s.receive(data(200, 10, 0, 10))
			s.wantEvents(Request, Complete)
			s.receive(wire.Packet{Type: wire.RPCUnknown, SenderID: 200})
			s.wantEvents(Failed)
			s.wantIdle()
		})
	}
}

// TestTombstonesOfUnackedBounded: the oldest go first.
func TestTombstonesOfUnackedBounded(t *testing.T) {
	s := newScripted(t, Config{MaxTombstones: 10})
	for id := uint64(200); id < 300; id += 2 {
		s.receive(data(id, 10, 0, 10))
		s.events()[0].RPC.Abort(s.now, nil)
	}
	if st := s.e.Stats(); st.Tombstones != 10 || st.TombstonesLost != 40 {
		t.Fatalf("%+v", st)
	}
	s.receive(data(298, 10, 0, 10))
	s.wantEvents()
	s.receive(data(200, 10, 0, 10))
	s.wantEvents(Request, Complete)
	s.receive(wire.Packet{Type: wire.RPCUnknown, SenderID: 200})
	s.events()
	s.wantIdle()
}
