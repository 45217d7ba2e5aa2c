package homa

import (
	"errors"
	"testing"
	"time"

	"github.com/tougw/tougw/homa/wire"
)

func grant(id uint64, offset int, priority uint8) wire.Packet {
	return wire.Packet{Type: wire.Grant, SenderID: id, Offset: uint32(offset), Priority: priority}
}

func TestPacketBoundaries(t *testing.T) {
	for _, c := range []struct {
		name                string
		length, unscheduled int
		maxData             int
		want                string
	}{
		{"one byte", 1, 10_000, 1424, "DATA[0:1]"},
		{"exactly a packet", 1424, 10_000, 1424, "DATA[0:1424]"},
		{"a byte more", 1425, 10_000, 1424, "DATA[0:1424] DATA[1424:1425]"},
		{"up to the unscheduled limit", 10_000, 3000, 1424, "DATA[0:1424] DATA[1424:2848] DATA[2848:3000]"},
		{"limit at a packet's end", 10_000, 2848, 1424, "DATA[0:1424] DATA[1424:2848]"},
		{"limit is the length", 2000, 2000, 1424, "DATA[0:1424] DATA[1424:2000]"},
		{"small packets", 200, 150, 64, "DATA[0:64] DATA[64:128] DATA[128:150]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{Peer: PeerConfig{Unscheduled: c.unscheduled, MaxData: c.maxData}})
			s.call(c.length)
			s.wantSent(c.want)
		})
	}
}

func TestDefaultPacketSizes(t *testing.T) {
	for _, c := range []struct {
		peer string
		want int
	}{{"10.0.0.2", 1424}, {"fd00::2", 1404}, {"::ffff:10.0.0.2", 1424}} {
		s := newScripted(t, Config{})
		s.peer = netipAddr(c.peer)
		s.call(5000)
		s.peer = s.peer.Unmap()
		if k := s.sent()[0]; len(k.Data) != c.want {
			t.Errorf("%s: packet of %d bytes, want %d", c.peer, len(k.Data), c.want)
		}
	}
}

func TestDataFields(t *testing.T) {
	s := newScripted(t, Config{})
	r := s.call(50_000)
	packets := s.sent()
	for i, k := range packets {
		if k.SrcPort != 0x8000 || k.DstPort != 4000 || k.SenderID != r.ID() || k.Length != 50_000 ||
			k.Incoming != 40_000 || k.Retransmit || int(k.Offset) != i*1424 {
			t.Fatalf("packet %d: %+v", i, k)
		}
		if string(k.Data) != string(pattern(50_000, r.ID())[k.Offset:int(k.Offset)+len(k.Data)]) {
			t.Fatalf("packet %d has other bytes", i)
		}
	}
}

func TestGrants(t *testing.T) {
	for _, c := range []struct {
		name   string
		grants []int
		want   string
	}{
		{"none", nil, ""},
		{"stale", []int{50}, ""},
		{"equal", []int{100}, ""},
		{"a byte gives a packet", []int{101}, "DATA[100:1100]"},
		{"more", []int{2100}, "DATA[100:1100] DATA[1100:2100]"},
		{"reordered", []int{2100, 1100}, "DATA[100:1100] DATA[1100:2100]"},
		{"the end", []int{2500}, "DATA[100:1100] DATA[1100:2100] DATA[2100:2500]"},
		{"beyond the end", []int{1 << 31}, "DATA[100:1100] DATA[1100:2100] DATA[2100:2500]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{Peer: PeerConfig{Unscheduled: 100, MaxData: 1000}})
			r := s.call(2500)
			s.wantSent("DATA[0:100]")
			for _, g := range c.grants {
				s.receive(grant(r.ID()|1, g, 2))
			}
			s.wantSent(c.want)
		})
	}
}

func TestGrantForResponse(t *testing.T) {
	s := newScripted(t, Config{Peer: PeerConfig{Unscheduled: 100, MaxData: 1000}})
	r := s.serve(200, 10, 1500)
	s.wantSent("DATA[0:100]")
	s.receive(grant(200, 1500, 1))
	s.wantSent("DATA[100:1100] DATA[1100:1500]")
	if st := r.Stats(); st.GrantsReceived != 1 || st.ScheduledPriority != 1 {
		t.Fatalf("stats %+v", st)
	}
}

// serve receives a request of n bytes and replies with a response.
func (s *scripted) serve(id uint64, n, response int) *RPC {
	s.Helper()
	s.receive(data(id, n, 0, n))
	r := s.wantEvents(Request, Complete)[0].RPC
	if err := r.Reply(s.now, response); err != nil {
		s.Fatal(err)
	}
	s.write(r, pattern(response, r.ID()))
	return r
}

func (s *scripted) priorities() (list []uint8) {
	for {
		out, ok := s.e.Transmit(s.now, nil)
		if !ok {
			return list
		}
		list = append(list, out.Priority)
	}
}

func TestPriorities(t *testing.T) {
	cutoffs := wire.Packet{Type: wire.Cutoffs, SenderID: 101, Cutoffs: [8]uint32{7, 0, 0, 0, 1_000_000, 15_000, 2800, 200}, CutoffVersion: 9}
	for _, c := range []struct {
		name    string
		length  int
		cutoffs bool
		none    bool
		want    uint8
	}{
		{"before cutoffs", 100, false, false, 6},
		{"shortest", 200, true, false, 7},
		{"short", 201, true, false, 6},
		{"middle", 2801, true, false, 5},
		{"long", 15_001, true, false, 4},
		{"switched off", 100, true, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{NoPriorities: c.none})
			s.call(1)
			s.sent()
			if c.cutoffs {
				s.receive(cutoffs)
			}
			s.call(c.length)
			if got := s.priorities()[0]; got != c.want {
				t.Errorf("priority %d, want %d", got, c.want)
			}
		})
	}
	t.Run("longest", func(t *testing.T) {
		s := newScripted(t, Config{MaxMessage: 2_000_000})
		s.call(1)
		s.sent()
		s.receive(cutoffs)
		r := s.call(200_000)
		packets := s.priorities()
		if packets[0] != 4 {
			t.Errorf("unscheduled priority %d", packets[0])
		}
		s.receive(grant(r.ID()|1, 60_000, 2))
		if got := s.priorities()[0]; got != 2 {
			t.Errorf("scheduled priority %d, want 2", got)
		}
		s.call(250_000)
		if k := s.sent()[0]; k.CutoffVersion != 9 {
			t.Errorf("cutoff version %d is not echoed", k.CutoffVersion)
		}
	})
	t.Run("control", func(t *testing.T) {
		s := newScripted(t, Config{})
		s.receive(wire.Packet{Type: wire.NeedAck, SenderID: 7})
		if got := s.priorities(); len(got) != 1 || got[0] != 7 {
			t.Errorf("ACK at %v, want 7", got)
		}
	})
	t.Run("retransmission", func(t *testing.T) {
		s := newScripted(t, Config{})
		r := s.call(100)
		s.sent()
		s.receive(wire.Packet{Type: wire.Resend, SenderID: r.ID() | 1, RangeLength: -1, Priority: 3})
		if got := s.priorities(); len(got) != 1 || got[0] != 3 {
			t.Errorf("retransmission at %v, want 3", got)
		}
	})
}

func TestCutoffsToldOnce(t *testing.T) {
	s := newScripted(t, Config{})
	stale := data(200, 5000, 0, 1000)
	stale.CutoffVersion = 0
	s.receive(stale)
	packets := s.sent()
	if summary(packets) != "CUTOFFS" || packets[0].CutoffVersion != 1 || packets[0].Cutoffs != [8]uint32{0, 0, 0, 0, 1_000_000, 15_000, 2800, 200} {
		t.Fatalf("sent %s %+v", summary(packets), packets)
	}
	s.receive(stale)
	s.wantSent("")
	s.now += 4 * ms
	s.receive(stale)
	s.wantSent("CUTOFFS")
	s.now += 4 * ms
	s.receive(data(200, 5000, 1000, 2000))
	s.wantSent("")
}

func TestCutoffsAfterShortResponse(t *testing.T) {
	s := newScripted(t, Config{})
	s.call(1)
	s.sent()
	response := data(101, 1, 0, 1)
	response.CutoffVersion = 0
	s.receive(response)
	s.wantSent("CUTOFFS")
}

// TestSendOrder: of several messages the one with the fewest bytes left leaves
// first, a new shorter one preempts, and SendFIFO sends in the order of calls.
func TestSendOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		fifo bool
		want []uint64
	}{
		{"srpt", false, []uint64{100, 102, 104, 104, 100, 100}},
		{"fifo", true, []uint64{100, 100, 100, 102, 104, 104}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{SendFIFO: c.fifo, SendFIFOFraction: -1, Peer: PeerConfig{MaxData: 1000}})
			var got []uint64
			one := func() {
				out, ok := s.e.Transmit(s.now, nil)
				if !ok {
					t.Fatal("nothing to send")
				}
				got = append(got, out.RPC.ID())
			}
			s.call(3000)
			one()
			s.call(500)
			s.call(1500)
			for range 5 {
				one()
			}
			for i := range c.want {
				if got[i] != c.want[i] {
					t.Fatalf("order %v, want %v", got, c.want)
				}
			}
		})
	}
}

func TestSendFIFOShare(t *testing.T) {
	s := newScripted(t, Config{SendFIFOFraction: 100, Peer: PeerConfig{MaxData: 1000, Unscheduled: 1_000_000}})
	old := s.call(500_000)
	n, total := 0, 0
	for i := 0; i < 100; i++ {
		s.call(10_000)
		for range 10 {
			out, _ := s.e.Transmit(s.now, nil)
			if total++; out.RPC == old {
				n++
			}
		}
	}
	if n < total*8/100 || n > total*12/100 {
		t.Fatalf("the oldest message had %d of %d packets, want a tenth", n, total)
	}
}

func TestPacer(t *testing.T) {
	// 1000 bytes of data take 8 µs at 1.1 Gbit/s or so; a backlog of 10 µs is allowed.
	s := newScripted(t, Config{LinkRate: 1_000_000_000, MaxBacklog: 10 * time.Microsecond, DeferMin: 100, LinkOverhead: 44, Peer: PeerConfig{MaxData: 900}})
	s.call(9000)
	s.wantSent("DATA[0:900] DATA[900:1800]") // 16 µs
	at, ok := s.e.Deadline()
	if !ok || at != s.now+6000 {
		t.Fatalf("deadline %v after now, %v", at-s.now, ok)
	}
	s.now = at - 1
	s.wantSent("")
	s.now = at
	s.wantSent("DATA[1800:2700]")
	s.call(100)
	s.wantSent("DATA[0:100]") // short enough to pass
	s.receive(wire.Packet{Type: wire.NeedAck, SenderID: 7})
	s.wantSent("ACK(6)") // control always passes
}

// TestPacerWakesRarely has room for more than a packet when it says so.
func TestPacerWakesRarely(t *testing.T) {
	s := newScripted(t, Config{
		LinkRate: 1_000_000_000, MaxBacklog: 40 * time.Microsecond, MinBacklog: 10 * time.Microsecond, DeferMin: 100, LinkOverhead: 44,
		Peer: PeerConfig{MaxData: 900}, // 8 µs a packet
	})
	s.call(9000)
	if n := len(s.sent()); n != 6 { // 48 µs
		t.Fatalf("%d packets at first", n)
	}
	at, ok := s.e.Room()
	if !ok || at != s.now+38_000 {
		t.Fatalf("room %v after now, %v", at-s.now, ok)
	}
	if deadline, ok := s.e.Deadline(); !ok || deadline != at {
		t.Fatalf("deadline %v, room %v", deadline, at)
	}
	s.now += 8000
	s.wantSent("DATA[5400:6300]") // who comes before takes what there is
	s.now = at + 8000
	if n := len(s.sent()); n != 3 {
		t.Fatalf("%d packets when there is room", n)
	}
	if _, err := New(Config{LinkRate: 1_000_000, MaxBacklog: time.Microsecond, MinBacklog: time.Millisecond}); err == nil {
		t.Error("MinBacklog above MaxBacklog was taken")
	}
}

func TestWriteInPieces(t *testing.T) {
	s := newScripted(t, Config{Peer: PeerConfig{MaxData: 1000, Unscheduled: 3000}, SendAhead: 2000})
	r, err := s.e.Call(s.now, CallOptions{To: server, Length: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	body := pattern(10_000, r.ID())
	s.wantSent("")
	s.write(r, body[:900])
	s.wantSent("") // a packet is not full yet
	s.write(r, body[900:1900])
	s.wantSent("DATA[0:1000]")
	if n, err := r.Write(s.now, body[1900:]); n != 3100 || err != nil {
		t.Fatalf("Write %d, %v; may be 2000 ahead of 3000", n, err)
	}
	s.wantSent("DATA[1000:2000] DATA[2000:3000]")
	s.wantEvents()
	s.receive(grant(r.ID()|1, 10_000, 0))
	s.wantEvents(Writable)
	if r.Unwritten() != 5000 {
		t.Fatalf("unwritten %d", r.Unwritten())
	}
	s.write(r, body[5000:])
	s.wantSent("DATA[3000:4000] DATA[4000:5000] DATA[5000:6000] DATA[6000:7000] DATA[7000:8000] DATA[8000:9000] DATA[9000:10000]")
	if _, err := r.Write(s.now, body[:1]); !errors.Is(err, ErrTooLong) {
		t.Fatalf("Write beyond the end: %v", err)
	}
}

// TestWriteSlowly: a receiver that asks for bytes which are not written yet is kept
// waiting, and gets at once what there is.
func TestWriteSlowly(t *testing.T) {
	s := newScripted(t, Config{Peer: PeerConfig{MaxData: 1000}})
	r, err := s.e.Call(s.now, CallOptions{To: server, Length: 3000})
	if err != nil {
		t.Fatal(err)
	}
	body := pattern(3000, r.ID())
	s.write(r, body[:1300])
	s.wantSent("DATA[0:1000]")
	s.receive(wire.Packet{Type: wire.Resend, SenderID: r.ID() | 1, Offset: 1000, RangeLength: 2000})
	s.wantSent("BUSY DATA[1000:1300]")
	s.tick(200) // the ball is in this side's court: no time-out
	s.wantSent("")
	s.write(r, body[1300:])
	s.wantSent("DATA[1300:2300] DATA[2300:3000]")
	s.wantEvents()
}

func TestNoUnscheduled(t *testing.T) {
	s := newScripted(t, Config{NoUnscheduled: true})
	r := s.call(1000)
	s.wantSent("DATA[0:0]")
	s.receive(wire.Packet{Type: wire.RPCUnknown, SenderID: r.ID() | 1}) // it was lost
	s.wantSent("DATA[0:0]r")
	s.receive(resend(r.ID()|1, 0, -1))
	s.wantSent("BUSY DATA[0:0]r")
	s.receive(grant(r.ID()|1, 1000, 0))
	s.wantSent("DATA[0:1000]")
}

func TestStrippedPeerGetsAllAtOnce(t *testing.T) {
	s := newScripted(t, Config{Peer: PeerConfig{Version: wire.Stripped, VersionSet: true}})
	s.call(100_000)
	if n := len(s.sent()); n != 71 {
		t.Fatalf("%d packets of a message of 71", n)
	}
}

func TestCallErrors(t *testing.T) {
	s := newScripted(t, Config{MaxCalls: 2, MaxPeers: 1})
	for _, c := range []struct {
		options CallOptions
		want    error
	}{
		{CallOptions{To: server, Length: 0}, ErrTooLong},
		{CallOptions{To: server, Length: 1_000_001}, ErrTooLong},
		{CallOptions{Length: 1}, ErrAddress},
		{CallOptions{To: addrPort("10.0.0.2:0"), Length: 1}, ErrAddress},
		{CallOptions{To: addrPort("0.0.0.0:1"), Length: 1}, ErrAddress},
		{CallOptions{To: addrPort("224.0.0.1:1"), Length: 1}, ErrAddress},
	} {
		if _, err := s.e.Call(s.now, c.options); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.options, err, c.want)
		}
	}
	s.call(1)
	if _, err := s.e.Call(s.now, CallOptions{To: addrPort("10.0.0.3:1"), Length: 1}); !errors.Is(err, ErrBusy) {
		t.Errorf("one peer too many: %v", err)
	}
	s.call(1)
	if _, err := s.e.Call(s.now, CallOptions{To: server, Length: 1}); !errors.Is(err, ErrBusy) {
		t.Errorf("one call too many: %v", err)
	}
}

func TestIDs(t *testing.T) {
	s := newScripted(t, Config{FirstID: 1000})
	if a, b := s.call(1), s.call(1); a.ID() != 1000 || b.ID() != 1002 {
		t.Fatalf("ids %d, %d", a.ID(), b.ID())
	}
	seen := make(map[uint64]bool)
	for range 100 {
		e, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		if e.nextID%2 != 0 || e.nextID < 1<<32 || seen[e.nextID] {
			t.Fatalf("first id %d", e.nextID)
		}
		seen[e.nextID] = true
	}
}
