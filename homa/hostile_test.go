package homa

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/tougw/tougw/homa/wire"
)

// nonsense draws a packet whose fields are mostly plausible, each now and then not.
func nonsense(r *rand.Rand, ids []uint64) wire.Packet {
	number := func() uint32 {
		switch r.IntN(6) {
		case 0:
			return r.Uint32()
		case 1:
			return 1<<31 - 2 + r.Uint32N(4)
		case 2:
			return uint32(r.IntN(3))
		}
		return r.Uint32N(100_000)
	}
	id := ids[r.IntN(len(ids))]
	if r.IntN(4) == 0 {
		id ^= 1
	}
	if r.IntN(20) == 0 {
		id = r.Uint64N(5)
	}
	k := wire.Packet{
		Type: wire.Data + wire.Type(r.IntN(numTypes)), SenderID: id, SrcPort: 4000, DstPort: 0x8000,
		Length: number(), Incoming: number(), Offset: number(), CutoffVersion: uint16(r.IntN(3)),
		Retransmit: r.IntN(2) == 0, Data: make([]byte, r.IntN(1424)), Priority: uint8(r.IntN(8)),
		RangeLength: int32(number()), ResendAll: r.IntN(2) == 0, NumAcks: r.IntN(6),
		Ack: wire.AckEntry{ClientID: ids[r.IntN(len(ids))], ServerPort: 4000},
	}
	if r.IntN(2) == 0 {
		k.Length = 50_000 // agree with itself for a while
	}
	if id%2 == 0 {
		k.SrcPort, k.DstPort = 0x8000, 4000
	}
	if r.IntN(20) == 0 {
		k.SrcPort = uint16(r.Uint32())
	}
	for i := range k.Acks {
		k.Acks[i] = wire.AckEntry{ClientID: ids[r.IntN(len(ids))], ServerPort: uint16(r.Uint32())}
	}
	for i := range k.Cutoffs {
		k.Cutoffs[i] = number()
	}
	return k
}

// TestNonsense: a peer that answers nonsense harms its own RPCs at most. RPCs with
// another peer go on beside it, and nothing is left in the end.
func TestNonsense(t *testing.T) {
	evil := netip.MustParseAddr("10.6.6.6")
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		c := chaosConfig(r)
		c.MaxServed, c.PeerReceiveMemory, c.PeerSendMemory = 0, c.PeerReceiveMemory/2, c.PeerSendMemory/2
		if c.ReceiveWindow == 0 {
			c.PeerReceiveMemory = max(c.PeerReceiveMemory, 250_000)
		}
		c.ReceiveMemory = 2*c.PeerReceiveMemory + 1<<20
		p := newPair(t, c, c, seed)
		e := p.e[1] // the victim: a server of the good client, and both to the evil one
		var ids []uint64
		for id := uint64(2); id < 60; id += 2 {
			ids = append(ids, id) // the ids of the good client among them
		}
		evilRPCs := make(map[*RPC]bool)
		good, ending := 0, false
		p.foreign = func(event Event) {
			x := event.RPC
			switch event.Kind {
			case Request:
				evilRPCs[x] = true
			case Failed, Acked:
				delete(evilRPCs, x)
			case Complete:
				if !x.Client() && !ending && r.IntN(2) == 0 {
					if err := x.Reply(p.now, 1+r.IntN(100_000)); err != nil {
						t.Fatal(err)
					}
					_, _ = x.Write(p.now, pattern(x.SendLength(), 1))
				}
			case Readable:
				if !ending && r.IntN(2) == 0 {
					x.Discard(p.now, 1<<20)
				}
			}
		}
		for range 300 {
			if r.IntN(20) == 0 {
				if x, err := e.Call(p.now, CallOptions{To: netip.AddrPortFrom(evil, 4000), Length: 1 + r.IntN(100_000)}); err == nil {
					_, _ = x.Write(p.now, pattern(x.SendLength(), 1)) // short where it has no room
					ids = append(ids, x.ID()|1)
					evilRPCs[x] = true
				}
			}
			if r.IntN(20) == 0 {
				p.call(lengthFor(r), lengthFor(r))
				good++
			}
			for range r.IntN(6) {
				k := nonsense(r, ids)
				b := wire.Main.Append(nil, &k)
				if r.IntN(10) == 0 {
					b = b[:r.IntN(len(b))]
				}
				e.Receive(p.now, evil, b)
			}
			p.drain()
			p.run(Instant(r.IntN(2)) * ms)
		}
		ending = true
		for end := p.now + Instant(time.Minute); !p.atRest(); {
			for x := range evilRPCs { // its owner loses patience
				x.Abort(p.now, nil)
				delete(evilRPCs, x)
			}
			if p.step(); p.now > end {
				t.Fatalf("seed %d: not at rest: %+v", seed, p.stats(1))
			}
		}
		if p.completed != good {
			t.Fatalf("seed %d: %d of %d calls of the good client completed", seed, p.completed, good)
		}
		p.finish()
	}
}

// FuzzReceive feeds arbitrary packets to an engine with RPCs in all states.
func FuzzReceive(f *testing.F) {
	for _, k := range []wire.Packet{data(101, 5000, 0, 100), data(200, 5000, 0, 1000), grant(103, 50_000, 1), resend(203, 0, -1),
		needAck(101), {Type: wire.Ack, SenderID: 202, NumAcks: 2}, {Type: wire.Busy, SenderID: 101}, {Type: wire.Cutoffs, SenderID: 101}, {Type: wire.RPCUnknown, SenderID: 101}} {
		k.SrcPort, k.DstPort = 4000, 0x8000
		if k.SenderID%2 == 0 {
			k.SrcPort, k.DstPort = 0x8000, 4000
		}
		f.Add(wire.Main.Append(nil, &k), uint8(0))
	}
	f.Fuzz(func(t *testing.T, packet []byte, version uint8) {
		s := newScripted(t, Config{ReceiveWindow: 20_000})
		s.call(100)
		s.call(100_000)
		s.serve(202, 10, 100_000)
		s.receive(data(204, 100_000, 5000, 6000))
		s.receive(data(206, 10, 0, 10))
		s.sent()
		if err := s.e.SetPeer(serverAddr, PeerConfig{Version: wire.Version(version % 4), VersionSet: true}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			s.e.Receive(s.now, serverAddr, packet)
			for {
				if _, ok := s.e.Transmit(s.now, nil); !ok {
					break
				}
			}
			s.tick(3)
		}
		rpcs := make(map[*RPC]bool)
		for _, event := range s.events() {
			rpcs[event.RPC] = true
		}
		for range 11_000 {
			if at, ok := s.e.Deadline(); ok && s.e.wheel.count+len(s.e.askers) > 0 {
				s.now = max(s.now, at)
			}
			s.e.Advance(s.now)
			for {
				if _, ok := s.e.Transmit(s.now, nil); !ok {
					break
				}
			}
			for _, event := range s.events() {
				rpcs[event.RPC] = true
			}
			for r := range rpcs { // what waits for its owner
				if r.State() == InService || r.State() == Finished || r.Buffered() > 0 {
					r.Abort(s.now, nil)
				}
			}
			if s.e.wheel.count+len(s.e.askers) == 0 {
				break
			}
		}
		wantIdle(t, s.e)
	})
}

// TestManyOutstanding: 10,000 calls that wait at the same time, some served, some not.
func TestManyOutstanding(t *testing.T) {
	const calls = 10_000
	p := newPair(t, Config{}, Config{}, 1)
	p.service = 40 * ms
	for i := range calls {
		length := 100
		if i%100 == 0 {
			length = 5000
		}
		p.call(length, length)
	}
	p.run(10 * ms)
	if st := p.stats(0); st.ClientOutgoing != calls || st.Called != calls {
		t.Fatalf("%+v", st)
	}
	if st := p.stats(1); st.ServerInService != calls {
		t.Fatalf("%+v", st)
	}
	p.finish()
	if p.completed != calls {
		t.Fatalf("%d completed", p.completed)
	}
}

// TestManyDead: 10,000 calls to a host that is gone fail on time and leave nothing.
func TestManyDead(t *testing.T) {
	s := newScripted(t, Config{})
	for range 10_000 {
		s.call(100)
		s.sent()
	}
	for range 100 {
		s.tick(1)
		s.sent()
	}
	if n := len(s.events()); n != 10_000 {
		t.Fatalf("%d calls failed", n)
	}
	s.wantIdle()
}

// TestIncast: many clients send long requests at the same time; the bounds hold,
// and all of them get through.
func TestIncast(t *testing.T) {
	const clients = 60
	const length = 120_000
	c := Config{ReceiveMemory: 1 << 20, PeerReceiveMemory: 1 << 20, MaxMessage: 200_000}
	s := newScripted(t, c)
	var hosts [clients]*Engine
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}) }
	for i := range hosts {
		var err error
		if hosts[i], err = New(c); err != nil {
			t.Fatal(err)
		}
		r, err := hosts[i].Call(s.now, CallOptions{To: server, Length: length})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := r.Write(s.now, pattern(length, r.ID())); n != length || err != nil {
			t.Fatal(n, err)
		}
	}
	done := 0
	var peak int64
	buf := make([]byte, 0, 2048)
	for round := 0; done < clients; round++ {
		if round > 3000 {
			t.Fatalf("%d of %d after %d rounds: %+v", done, clients, round, s.e.Stats())
		}
		for i, h := range hosts {
			// A packet of each in turn, as they share the server's link.
			if out, ok := h.Transmit(s.now, buf); ok {
				s.e.Receive(s.now, addr(i), out.Packet)
			}
		}
		for {
			out, ok := s.e.Transmit(s.now, buf)
			if !ok {
				break
			}
			hosts[out.To.As4()[3]].Receive(s.now, serverAddr, out.Packet)
		}
		for _, event := range s.events() {
			switch event.Kind {
			case Complete:
				if err := event.RPC.Reply(s.now, 1); err != nil {
					t.Fatal(err)
				}
				s.write(event.RPC, []byte{1})
			case Failed:
				t.Fatal(event.Err)
			}
		}
		for _, h := range hosts {
			for {
				event, ok := h.Event()
				if !ok {
					break
				}
				if event.Kind == Failed {
					t.Fatal(event.Err)
				}
				if event.Kind == Complete {
					readAll(t, event.RPC, s.now)
					done++
				}
			}
			h.Advance(s.now)
		}
		peak = max(peak, s.e.Stats().HeldReceive)
		s.now += ms / 10
		s.e.Advance(s.now)
	}
	if peak > 1<<20 {
		t.Fatalf("held %d bytes", peak)
	}
	if st := s.e.Stats(); st.DropNoMemory == 0 {
		t.Fatal("the bound was never reached: the test shows nothing")
	}
}
