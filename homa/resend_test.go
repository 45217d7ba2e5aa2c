package homa

import (
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

func resend(id uint64, offset, length int) wire.Packet {
	return wire.Packet{Type: wire.Resend, SenderID: id, Offset: uint32(offset), RangeLength: int32(length), Priority: 7}
}

// TestAnswerResend: exactly the range that was sent, and nothing else, is sent again.
func TestAnswerResend(t *testing.T) {
	for _, c := range []struct {
		name           string
		offset, length int
		want           string
	}{
		{"inside a packet", 200, 100, "DATA[200:300]r"},
		{"across packets", 900, 200, "DATA[900:1100]r"},
		{"longer than a packet", 500, 2100, "DATA[500:1500]r DATA[1500:2500]r DATA[2500:2600]r"},
		{"all", 0, -1, "DATA[0:1000]r DATA[1000:2000]r DATA[2000:3000]r"},
		{"all from the middle", 2500, -1, "DATA[2500:3000]r"},
		{"first 100, as linux 6.1 asks", 0, 100, "DATA[0:100]r"},
		{"into what was not granted", 2900, 1100, "DATA[2900:3000]r DATA[3000:4000]"},
		{"beyond the end", 2900, 100_000, "DATA[2900:3000]r DATA[3000:4000] DATA[4000:5000]"},
		{"nothing of it was sent", 3000, 500, "BUSY DATA[3000:4000]"},
		{"empty, as linux 6.1 asks whether there will be more", 100, 0, "BUSY"},
		{"empty, not sent", 3000, 0, "BUSY"},
		{"negative", 100, -2, ""},
		{"most negative", 0, -1 << 31, ""},
		{"offset behind the message", 5000, 10, ""},
		{"all from behind the message", 5000, -1, ""},
		{"offset far beyond the message", 1<<32 - 1, 10, ""},
		{"offset and length that wrap", 4000, 1<<31 - 1, "BUSY DATA[3000:4000] DATA[4000:5000]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{Peer: PeerConfig{MaxData: 1000, Unscheduled: 3000}})
			r := s.call(5000)
			s.wantSent("DATA[0:1000] DATA[1000:2000] DATA[2000:3000]")
			s.receive(resend(r.ID()|1, c.offset, c.length))
			packets := s.sent()
			if got := summary(packets); got != c.want {
				t.Fatalf("sent %s, want %s", got, c.want)
			}
			for _, k := range packets {
				if k.Type == wire.Data && string(k.Data) != string(pattern(5000, r.ID())[k.Offset:int(k.Offset)+len(k.Data)]) {
					t.Fatalf("DATA at %d has other bytes", k.Offset)
				}
				if k.Retransmit && c.length > 0 && int(k.Incoming) != min(c.offset+c.length, 3000) {
					t.Fatalf("incoming %d of a retransmission", k.Incoming)
				}
			}
		})
	}
}

func TestResendsMerge(t *testing.T) {
	s := newScripted(t, Config{Peer: PeerConfig{MaxData: 1000, Unscheduled: 10_000}})
	r := s.call(5000)
	s.sent()
	for _, c := range [][2]int{{4000, 100}, {0, 100}, {50, 100}, {2000, 10}, {2010, 10}, {0, 100}} {
		s.receive(resend(r.ID()|1, c[0], c[1]))
	}
	s.wantSent("DATA[0:150]r DATA[2000:2020]r DATA[4000:4100]r")
	for i := range 2 * maxResends {
		s.receive(resend(r.ID()|1, i*10, 1))
	}
	if n := len(s.sent()); n != maxResends {
		t.Fatalf("%d ranges wait, at most %d may", n, maxResends)
	}
}

func TestResendForUnknownRPC(t *testing.T) {
	s := newScripted(t, Config{})
	s.receive(resend(77, 0, -1)) // to the client
	s.receive(resend(76, 0, -1)) // to the server
	packets := s.sent()
	if summary(packets) != "RPC_UNKNOWN RPC_UNKNOWN" || packets[0].SenderID != 76 || packets[1].SenderID != 77 ||
		packets[0].SrcPort != 0x8000 || packets[0].DstPort != 4000 || packets[1].SrcPort != 4000 || packets[1].DstPort != 0x8000 {
		t.Fatalf("sent %+v", packets)
	}
	if st := s.e.Stats(); st.Peers != 0 {
		t.Fatal("a stranger has state")
	}
}

// TestBusyWhileInService: a server keeps its client waiting until the response begins.
func TestBusyWhileInService(t *testing.T) {
	s := newScripted(t, Config{})
	s.receive(data(200, 2000, 0, 1000))
	s.receive(resend(200, 0, -1))
	s.wantSent("BUSY")
	s.receive(data(200, 2000, 1000, 2000))
	r := s.events()[0].RPC
	s.tick(300)
	s.receive(resend(200, 0, -1))
	s.receive(resend(200, 0, -1))
	s.wantSent("BUSY")
	if err := r.Reply(s.now, 100); err != nil {
		t.Fatal(err)
	}
	s.receive(resend(200, 0, -1)) // nothing is written yet
	s.wantSent("BUSY")
	s.write(r, pattern(100, 1))
	s.wantSent("DATA[0:100]")
	s.receive(resend(200, 0, -1))
	s.wantSent("DATA[0:100]r")
}

func TestUnknownRestartsCall(t *testing.T) {
	unknown := wire.Packet{Type: wire.RPCUnknown, SenderID: 101}
	s := newScripted(t, Config{Peer: PeerConfig{MaxData: 1000, Unscheduled: 2000}})
	s.call(5000)
	s.sent()
	s.receive(unknown)
	s.wantSent("DATA[0:1000]r DATA[1000:2000]r")
	s.receive(unknown) // no storm
	s.wantSent("")
	s.tick(1)
	s.receive(unknown)
	s.wantSent("DATA[0:1000]r DATA[1000:2000]r")
	s.receive(data(101, 2000, 0, 1000))
	s.tick(1)
	s.receive(unknown) // the server must have had it
	s.wantSent("")
	s.receive(data(101, 2000, 1000, 2000))
	s.wantEvents(Complete)
}

func TestUnknownEndsServedRPC(t *testing.T) {
	unknown := wire.Packet{Type: wire.RPCUnknown, SenderID: 200}
	s := newScripted(t, Config{})
	s.serve(200, 10, 10)
	s.sent()
	s.receive(unknown)
	if got := s.wantEvents(Failed); got[0].Err != ErrAbandoned {
		t.Fatalf("failed with %v", got[0].Err)
	}
	s.wantIdle()
}

// TestAskForGaps: RESEND goes out for each gap and for what is missing at the end.
func TestAskForGaps(t *testing.T) {
	for _, c := range []struct {
		name     string
		arrivals [][2]int
		want     string
	}{
		{"end missing", [][2]int{{0, 1000}}, "RESEND(1000,9000)"},
		{"start missing", [][2]int{{9000, 10_000}}, "RESEND(0,9000)"},
		{"gap", [][2]int{{0, 1000}, {3000, 10_000}}, "RESEND(1000,2000)"},
		{"gaps", [][2]int{{1000, 2000}, {3000, 4000}, {5000, 9000}}, "RESEND(0,1000) RESEND(2000,1000) RESEND(4000,1000) RESEND(9000,1000)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{})
			for _, a := range c.arrivals {
				s.receive(data(200, 10_000, a[0], a[1]))
			}
			s.tick(4)
			s.wantSent("")
			s.tick(1)
			packets := s.sent()
			if got := summary(packets); got != c.want {
				t.Fatalf("sent %s, want %s", got, c.want)
			}
			if packets[0].Priority != 7 {
				t.Fatalf("asks for priority %d", packets[0].Priority)
			}
			s.tick(5)
			s.wantSent(c.want)
		})
	}
}

func TestAskOnlyForGranted(t *testing.T) {
	s := newScripted(t, Config{MaxIncoming: 1, FIFOGrantFraction: -1})
	s.receive(data(200, 500_000, 0, 1000))
	s.sent()
	s.tick(5)
	s.wantSent("RESEND(1000,20000)")
	s.receive(data(200, 500_000, 1000, 21_000))
	s.tick(5)
	s.wantSent("RESEND(21000,19000)")
}

// TestResendRounds: the first round asks for 20,000 bytes, gaps first, each next one
// for twice as much if all of them came, and a GRANT goes beside what is not asked for.
func TestResendRounds(t *testing.T) {
	s := newScripted(t, Config{GrantWindow: 300_000, FIFOGrantFraction: -1})
	const length = 900_000
	s.receive(data(200, length, 0, 1000))
	s.wantSent("GRANT(301000,0)")
	s.receive(data(200, length, 5000, 6000))
	s.sent()
	for _, want := range []string{"RESEND(1000,4000) RESEND(6000,16000)", "RESEND(1000,4000) RESEND(6000,16000)"} {
		s.tick(5)
		s.wantSent(want + " GRANT(302000,0)")
	}
	s.receive(data(200, length, 1000, 5000))
	s.receive(data(200, length, 6000, 22_000))
	s.sent()
	s.tick(5)
	s.wantSent("RESEND(22000,40000) GRANT(322000,0)")
	s.receive(data(200, length, 22_000, 62_000))
	s.sent()
	s.tick(5)
	s.wantSent("RESEND(62000,80000) GRANT(362000,0)")
	s.tick(5)
	s.wantSent("RESEND(62000,20000) GRANT(362000,0)")
}

// TestNeedAckAsksOnce: a server that asks each tick draws no RESEND each tick.
func TestNeedAckAsksOnce(t *testing.T) {
	s := newScripted(t, Config{})
	s.call(1)
	s.sent()
	asked := 0
	for range 12 {
		s.receive(needAck(101))
		asked += len(s.sent())
		s.tick(1)
		s.sent()
	}
	if asked != 1 { // the timer asks again
		t.Fatalf("%d RESENDs for 12 NEED_ACKs in 12 ticks", asked)
	}
}

func TestAskForResponse(t *testing.T) {
	for version, want := range map[wire.Version]string{
		wire.Main: "RESEND(0,-1)", wire.Stripped: "RESEND(0,-1)", wire.Linux610: "RESEND(0,100)", wire.Linux61: "RESEND(0,100)",
	} {
		s := newScripted(t, Config{Peer: PeerConfig{Version: version, VersionSet: true}})
		s.v = version
		s.call(10)
		s.sent()
		s.tick(5)
		s.wantSent(want)
	}
}

// TestStillInterested: a 6.1 host that has everything it was sent asks with a
// length of 0 whether there will be more, and wants to hear BUSY.
func TestStillInterested(t *testing.T) {
	s := newScripted(t, Config{Peer: PeerConfig{Unscheduled: 2000}})
	r := s.call(10_000)
	s.sent()
	for _, offset := range []uint32{0, 1000, 2000} {
		s.receive(resend(r.ID()|1, int(offset), 0))
		s.wantSent("BUSY")
	}
}
