package homa

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

// small is a configuration in which two messages of up to 64 KiB have room.
func small() Config {
	return Config{
		MaxMessage: 64 << 10, ReceiveMemory: 128 << 10, PeerReceiveMemory: 128 << 10,
		SendMemory: 128 << 10, PeerSendMemory: 128 << 10, FIFOGrantFraction: -1,
	}
}

// TestReceiveWaitsForMemory: a message over the bound is not lost: its client is
// kept waiting, and everything is asked for when there is room.
func TestReceiveWaitsForMemory(t *testing.T) {
	s := newScripted(t, small())
	const length = 60_000
	s.receive(data(200, length, 0, 1000))
	s.receive(data(202, length, 0, 1000))
	first := s.wantEvents(Request, Readable, Request, Readable)[0].RPC
	s.sent()
	s.receive(data(204, length, 0, 1000))
	s.wantEvents()
	s.wantSent("")
	if st := s.e.Stats(); st.WaitingReceive != 1 || st.DropNoMemory != 1 {
		t.Fatalf("%+v", st)
	}
	for range 40 { // its client asks and lives
		s.now += 5 * ms
		s.e.Advance(s.now)
		s.receive(resend(200, 0, 0))
		s.receive(resend(202, 0, 0))
		s.receive(data(200, length, 0, 1))
		s.receive(data(202, length, 0, 1))
		s.receive(resend(204, 0, -1))
		found := false
		for _, k := range s.sent() {
			found = found || k.Type == wire.Busy && k.SenderID == 205
		}
		if !found {
			t.Fatal("the client was not told BUSY")
		}
	}
	first.Abort(s.now, nil)
	packets := s.sent()
	last := packets[len(packets)-1]
	if last.Type != wire.Resend || last.SenderID != 205 || last.Offset != 0 || last.RangeLength != -1 || last.Priority != 6 {
		t.Fatalf("sent %s %+v on admission", summary(packets), last)
	}
	s.receive(data(204, length, 0, 40_000))
	s.receive(data(204, length, 40_000, length))
	r := s.wantEvents(Request, Complete)[0].RPC
	if got := readAll(t, r, s.now); !bytes.Equal(got, pattern(length, 204)) {
		t.Fatal("other bytes than were sent")
	}
}

// TestWaitingClientDies: a message that waits for memory ends when its client is silent.
func TestWaitingClientDies(t *testing.T) {
	c := small()
	c.PeerReceiveMemory = 64 << 10
	s := newScripted(t, c)
	s.receive(data(200, 60_000, 0, 60_000))
	s.receive(data(202, 60_000, 0, 1000))
	s.receive(data(204, 100, 0, 100))
	if st := s.e.Stats(); st.WaitingReceive != 2 {
		t.Fatalf("%+v", st)
	}
	s.tick(101)
	s.wantSent("")
	if st := s.e.Stats(); st.WaitingReceive != 0 || st.ServerIncoming != 0 {
		t.Fatalf("%+v", st)
	}
	s.wantEvents(Request, Complete)
}

// TestPeerMemory: one peer at its bound does not keep another out.
func TestPeerMemory(t *testing.T) {
	c := small()
	c.PeerReceiveMemory = 64 << 10
	s := newScripted(t, c)
	s.from(1, data(200, 60_000, 0, 1000))
	s.from(1, data(202, 60_000, 0, 1000))
	s.from(2, data(204, 60_000, 0, 1000))
	s.wantEvents(Request, Readable, Request, Readable)
}

func TestShortestWaitsLeast(t *testing.T) {
	s := newScripted(t, small())
	s.receive(data(200, 60_000, 0, 10))
	s.receive(data(202, 60_000, 0, 10))
	r := s.events()[0].RPC
	for id, length := range map[uint64]int{204: 50_000, 206: 20_000, 208: 40_000} {
		s.receive(data(id, length, 0, 10))
	}
	s.sent()
	r.Abort(s.now, nil)
	packets := s.sent()
	if summary(packets) != "RESEND(0,-1)" || packets[0].SenderID != 207 {
		t.Fatalf("sent %s, %+v", summary(packets), packets)
	}
}

// TestMemory drives one bound with random reservations.
func TestMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var m memory
	got := make(map[*RPC]bool)
	m = memory{limit: 1000, peerLimit: 600, admitted: func(x *RPC) { got[x] = true }}
	m.waiting.id = heapReceive
	peers := []*peer{{}, {}, {}}
	for _, p := range peers {
		p.receive.waiting.id = heapReceive
	}
	var live []*RPC
	check := func() {
		var sum int64
		perPeer := make(map[*peer]int64)
		waiting := 0
		for _, x := range live {
			if x.in.memory.admitted != got[x] {
				t.Fatal("admission was not told")
			}
			if x.in.memory.admitted {
				sum += x.in.memory.bytes
				perPeer[x.peer] += x.in.memory.bytes
			} else {
				waiting++
			}
		}
		if sum != m.reserved || sum > m.limit || waiting != m.numWaiting {
			t.Fatalf("reserved %d (%d), waiting %d (%d)", m.reserved, sum, m.numWaiting, waiting)
		}
		for _, p := range peers {
			if perPeer[p] != p.receive.reserved || perPeer[p] > m.peerLimit {
				t.Fatalf("peer has %d (%d)", p.receive.reserved, perPeer[p])
			}
		}
		if sum == 0 && waiting > 0 {
			t.Fatal("messages wait while nothing is reserved")
		}
	}
	for i := range 20_000 {
		switch {
		case len(live) < 12 && r.IntN(2) == 0:
			x := &RPC{peer: peers[r.IntN(3)]}
			x.in.memory.bytes = 1 + r.Int64N(600)
			live = append(live, x)
			if m.reserve(x, &x.peer.receive, &x.in.memory, uint64(i)) {
				got[x] = true
			}
		case len(live) > 0 && r.IntN(3) == 0:
			x := live[r.IntN(len(live))]
			m.shrink(&x.peer.receive, &x.in.memory, 1+r.Int64N(600))
		case len(live) > 0:
			at := r.IntN(len(live))
			x := live[at]
			live = append(live[:at], live[at+1:]...)
			m.cancel(x, &x.peer.receive, &x.in.memory)
		}
		check()
	}
}

// TestCallRefused: a request that finds no room is refused, and taken later.
func TestCallRefused(t *testing.T) {
	s := newScripted(t, small())
	a := s.call(64 << 10)
	s.call(64 << 10)
	_, err := s.e.Call(s.now, CallOptions{To: server, Length: 1})
	if !errors.Is(err, ErrMemory) {
		t.Fatalf("a call over the bound: %v", err)
	}
	a.Abort(s.now, nil)
	s.call(64 << 10)
}

// TestResponseWaitsForMemory: a response that finds no room is written later.
func TestResponseWaitsForMemory(t *testing.T) {
	s := newScripted(t, small())
	a := s.call(64 << 10)
	s.call(64 << 10)
	s.sent()
	s.receive(data(200, 10, 0, 10))
	r := s.wantEvents(Request, Complete)[0].RPC
	if err := r.Reply(s.now, 1000); err != nil {
		t.Fatal(err)
	}
	body := pattern(1000, 1)
	if n, err := r.Write(s.now, body); n != 0 || err != nil {
		t.Fatalf("Write without memory: %d, %v", n, err)
	}
	s.receive(resend(200, 0, -1))
	s.wantSent("BUSY")
	a.Abort(s.now, nil)
	s.wantEvents(Writable)
	s.write(r, body)
	s.wantSent("DATA[0:1000]")
}

// TestUnreadStopsGrants: without a reader, no more than the window is held, and
// reading makes it go on.
func TestUnreadStopsGrants(t *testing.T) {
	c := Config{ReceiveWindow: 50_000, FIFOGrantFraction: -1}
	s := newScripted(t, c)
	const length = 400_000
	body := pattern(length, 200)
	at, granted := 0, 40_000
	var r *RPC
	var got []byte
	for round := 0; at < length; round++ {
		if round > 100 {
			t.Fatalf("stuck at %d, granted %d", at, granted)
		}
		for at < granted { // whole packets, as the module sends them
			end := min(at+1400, length)
			s.receive(data(200, length, at, end))
			at = end
		}
		if st := s.e.Stats(); st.HeldReceive > 50_000+2*chunkSize || st.HeldReceive > st.ReservedReceive || st.DropWindow > 0 {
			t.Fatalf("at %d: %+v", at, st)
		}
		for _, event := range s.events() {
			r = event.RPC
		}
		for _, k := range s.sent() {
			if k.Type != wire.Grant {
				t.Fatalf("sent %v at %d", k.Type, at)
			}
			granted = int(k.Offset)
		}
		if at >= granted {
			buf := make([]byte, 30_000)
			n, err := r.Read(s.now, buf)
			if err != nil || n == 0 && at < length {
				t.Fatalf("Read: %d, %v", n, err)
			}
			got = append(got, buf[:n]...)
			for _, k := range s.sent() {
				granted = int(k.Offset)
			}
		}
	}
	got = append(got, readAll(t, r, s.now)...)
	if !bytes.Equal(got, body) {
		t.Fatal("other bytes than were sent")
	}
	r.Abort(s.now, nil)
	s.sent()
	s.events()
	s.wantIdle()
}

// TestBeyondWindow: what a sender sends unasked beyond the window is dropped and
// asked for as soon as there is room.
func TestBeyondWindow(t *testing.T) {
	s := newScripted(t, Config{ReceiveWindow: 20_000})
	k := data(200, 60_000, 0, 30_000)
	k.Incoming = 60_000
	s.receive(k)
	r := s.wantEvents(Request, Readable)[0].RPC
	if r.Buffered() != 20_000 {
		t.Fatalf("%d bytes of a window of 20,000", r.Buffered())
	}
	s.tick(50)
	s.wantSent("")
	if n := r.Discard(s.now, 15_000); n != 15_000 {
		t.Fatal(n)
	}
	s.wantSent("RESEND(20000,15000)")
}

func TestConfigErrors(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"Tick":              func(c *Config) { c.Tick = 1 },
		"MaxMessage":        func(c *Config) { c.MaxMessage = -1 },
		"FirstID":           func(c *Config) { c.FirstID = 3 },
		"MaxOvercommit":     func(c *Config) { c.MaxOvercommit = 65 },
		"FIFOGrantFraction": func(c *Config) { c.FIFOGrantFraction = 501 },
		"ReceiveWindow":     func(c *Config) { c.ReceiveWindow = 1000 },
		"ReceiveMemory":     func(c *Config) { c.ReceiveMemory = 999_999; c.PeerReceiveMemory = 2 << 20 },
		"PeerReceiveMemory": func(c *Config) { c.PeerReceiveMemory = 999_999 },
		"PeerSendMemory":    func(c *Config) { c.PeerSendMemory = 999_999 },
		"MaxData":           func(c *Config) { c.Peer.MaxData = 63 },
		"ResendTicks":       func(c *Config) { c.Peer.ResendTicks = -1 },
		"Version":           func(c *Config) { c.Peer.Version = 9; c.Peer.VersionSet = true },
	} {
		var c Config
		change(&c)
		if _, err := New(c); err == nil || !bytes.Contains([]byte(err.Error()), []byte(name)) {
			t.Errorf("%s out of range: %v", name, err)
		}
	}
	s := newScripted(t, Config{})
	if err := s.e.SetPeer(serverAddr, PeerConfig{MaxData: 7}); err == nil {
		t.Error("SetPeer took MaxData 7")
	}
}
