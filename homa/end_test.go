package homa

import (
	"errors"
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

func TestUnreachable(t *testing.T) {
	for _, c := range []struct {
		name string
		port uint16
		err  error
		want int // events
	}{
		{"port", 4000, ErrPortUnreachable, 2},
		{"other port", 5000, ErrPortUnreachable, 0},
		{"client port", 0x8000, ErrPortUnreachable, 1},
		{"protocol", 0, ErrProtocolUnreachable, 3},
		{"host", 0, ErrHostUnreachable, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{})
			s.call(10)
			s.call(10)
			s.serve(200, 10, 10)
			s.from(1, data(300, 10, 0, 10))
			s.events()
			s.sent()
			s.e.Unreachable(s.now, netipAddr("::ffff:10.0.0.2"), c.port, c.err)
			got := s.events()
			if len(got) != c.want {
				t.Fatalf("%d events, want %d", len(got), c.want)
			}
			for _, event := range got {
				if event.Kind != Failed || !errors.Is(event.Err, c.err) || !errors.Is(event.Err, ErrUnreachable) {
					t.Fatalf("%v: %v", event.Kind, event.Err)
				}
			}
			s.wantSent("")
			if st := s.e.Stats(); st.ServerInService != 1 {
				t.Fatal("another peer's RPC is gone")
			}
		})
	}
	for _, err := range []error{ErrTimeout, ErrAborted, ErrPortUnreachable} {
		if errors.Is(err, ErrHostUnreachable) || err != ErrPortUnreachable && errors.Is(err, ErrUnreachable) {
			t.Errorf("%v is taken for another", err)
		}
	}
}

func TestAbortCall(t *testing.T) {
	mine := errors.New("no longer needed")
	for _, c := range []struct {
		name  string
		state func(s *scripted)
	}{
		{"before anything is sent", func(*scripted) {}},
		{"sending", func(s *scripted) { s.sent() }},
		{"with retransmissions waiting", func(s *scripted) { s.sent(); s.receive(resend(101, 0, -1)) }},
		{"receiving", func(s *scripted) { s.sent(); s.receive(data(101, 500_000, 1000, 2000)) }},
		{"complete", func(s *scripted) { s.sent(); s.receive(data(101, 10, 0, 10)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{})
			r := s.call(100_000)
			c.state(s)
			s.events()
			r.Abort(s.now, mine)
			r.Abort(s.now, nil)
			if r.Err() != mine {
				t.Fatal(r.Err())
			}
			if _, err := r.Read(s.now, make([]byte, 1)); err != mine {
				t.Fatalf("Read: %v", err)
			}
			s.wantEvents()
			s.wantSent("")
			s.receive(needAck(101)) // the server may forget it too
			if got := summary(s.sent()); got[:7] != "ACK(100" {
				t.Fatal(got)
			}
			s.receive(resend(101, 0, -1))
			s.wantSent("RPC_UNKNOWN")
			s.wantIdle()
		})
	}
}

func TestAbortServed(t *testing.T) {
	for _, c := range []struct {
		name  string
		state func(s *scripted) *RPC
	}{
		{"receiving", func(s *scripted) *RPC {
			s.receive(data(200, 100_000, 0, 1000))
			return s.events()[0].RPC
		}},
		{"in service", func(s *scripted) *RPC {
			s.receive(data(200, 10, 0, 10))
			return s.events()[0].RPC
		}},
		{"sending", func(s *scripted) *RPC { return s.serve(200, 10, 100_000) }},
		{"waiting for memory", func(s *scripted) *RPC {
			s.e.send.reserved += s.e.send.limit
			s.receive(data(200, 10, 0, 10))
			r := s.events()[0].RPC
			if err := r.Reply(s.now, 10); err != nil {
				s.Fatal(err)
			}
			s.e.send.reserved -= s.e.send.limit
			return r
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{})
			r := c.state(s)
			s.sent()
			r.Abort(s.now, nil)
			if r.Err() != ErrAborted || r.State() != Dead {
				t.Fatal(r.Err(), r.State())
			}
			s.tick(50)
			s.wantEvents()
			s.wantSent("")
			s.wantIdle()
		})
	}
}

// TestPeerDiesHalfWay: whatever was going on with a peer that says no more, nothing
// is left after bounded time.
func TestPeerDiesHalfWay(t *testing.T) {
	s := newScripted(t, Config{})
	for range 20 {
		s.call(100_000)
		r := s.call(50)
		s.sent()
		s.receive(data(r.ID()|1, 100_000, 1000, 2000)) // response begun
		s.receive(grant(r.ID()-2|1, 70_000, 1))
	}
	for id := uint64(1000); id < 1100; id += 10 {
		s.receive(data(id, 100_000, 0, 1000))
		s.receive(data(id+2, 100_000, 0, 0))
		s.serve2(id+4, 100_000)
		s.serve2(id+6, 10)
	}
	s.sent()
	for range 11_000 {
		s.tick(1)
		s.sent()
	}
	s.wantIdle()
}

// serve2 serves a short request among others.
func (s *scripted) serve2(id uint64, response int) {
	s.Helper()
	s.receive(data(id, 10, 0, 10))
	for _, event := range s.events() {
		if event.RPC.ID() == id+1 && event.Kind == Complete {
			if err := event.RPC.Reply(s.now, response); err != nil {
				s.Fatal(err)
			}
			s.write(event.RPC, pattern(response, 1))
		}
	}
}

// TestUnserved: requests over the bounds are not taken, their clients are told BUSY
// and, once there is room, to send them again.
func TestUnserved(t *testing.T) {
	for name, config := range map[string]Config{
		"in all":   {MaxServed: 2, MaxServedPerPeer: 2},
		"per peer": {MaxServedPerPeer: 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScripted(t, config)
			s.receive(data(200, 10, 0, 10))
			s.receive(data(202, 10, 0, 10))
			r := s.wantEvents(Request, Complete, Request, Complete)[0].RPC
			s.receive(data(204, 10, 0, 10))
			s.wantEvents()
			s.wantSent("BUSY")
			s.receive(resend(204, 0, -1))
			s.wantSent("BUSY")
			s.receive(resend(202, 0, -1))
			s.wantSent("BUSY")
			if st := s.e.Stats(); st.DropBusy != 1 {
				t.Fatalf("%+v", st)
			}
			r.Abort(s.now, nil)
			s.receive(resend(204, 0, -1))
			s.wantSent("RPC_UNKNOWN")
			s.receive(data(204, 10, 0, 10))
			s.wantEvents(Request, Complete)
		})
	}
	t.Run("peers", func(t *testing.T) {
		s := newScripted(t, Config{MaxPeers: 2, TombstoneLife: -1})
		s.from(1, data(200, 10, 0, 10))
		s.from(2, data(200, 10, 0, 10))
		r := s.wantEvents(Request, Complete, Request, Complete)[0].RPC
		s.from(3, data(200, 10, 0, 10))
		s.wantEvents()
		r.Abort(s.now, nil)
		s.from(3, data(200, 10, 0, 10)) // in place of the idle one
		s.wantEvents(Request, Complete)
		if st := s.e.Stats(); st.Peers != 2 {
			t.Fatalf("%d peers", st.Peers)
		}
	})
}

func TestVirtual(t *testing.T) {
	const length = 100_000_000
	config := Config{Virtual: true, MaxMessage: length, ReceiveMemory: 1 << 10, SendMemory: 1 << 10}
	var e [2]*Engine
	for i := range e {
		var err error
		if e[i], err = New(config); err != nil {
			t.Fatal(err)
		}
	}
	if err := e[1].Listen(4000); err != nil {
		t.Fatal(err)
	}
	r, err := e[0].Call(ms, CallOptions{To: server, Length: length})
	if err != nil {
		t.Fatal(err)
	}
	addr := []netipAddress{clientAddr, serverAddr}
	done := false
	var bytes int
	for again := true; again; {
		again = false
		for i := range e {
			for {
				out, ok := e[i].Transmit(ms, nil)
				if !ok {
					break
				}
				again = true
				if out.Type == wire.Data && len(out.Packet) != 56 {
					t.Fatalf("DATA of %d bytes", len(out.Packet))
				}
				bytes += out.DataLength
				e[1-i].ReceiveVirtual(ms, addr[i], out.Packet, out.DataLength)
			}
			for {
				event, ok := e[i].Event()
				if !ok {
					break
				}
				switch {
				case event.Kind == Complete && i == 1:
					if err := event.RPC.Reply(ms, 100); err != nil {
						t.Fatal(err)
					}
					again = true
				case event.Kind == Complete:
					done = event.RPC == r
				}
			}
		}
	}
	if !done || bytes != length+100 {
		t.Fatalf("done %v after %d bytes", done, bytes)
	}
	if st := e[0].Stats(); st.HeldReceive+st.HeldSend+st.ReservedReceive+st.ReservedSend != 0 || st.Unread != 0 {
		t.Fatalf("%+v", st)
	}
}

// TestVirtualMixed: the wrong way of receiving for a configuration does no harm.
func TestVirtualMixed(t *testing.T) {
	for _, virtual := range []bool{false, true} {
		s := newScripted(t, Config{Virtual: virtual})
		k := data(200, 100, 0, 100)
		k.SrcPort, k.DstPort = 0x8000, 4000
		b := wire.Main.Append(nil, &k)
		if virtual {
			s.e.Receive(s.now, s.peer, b)
		} else {
			s.e.ReceiveVirtual(s.now, s.peer, b, 50)
		}
		r := s.wantEvents(Request, Complete)[0].RPC
		if want := len(k.Data); !virtual && len(readAll(t, r, s.now)) != want {
			t.Fatal("bytes are missing")
		}
		r.Abort(s.now, nil)
		s.wantIdle()
	}
}
