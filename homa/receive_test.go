package homa

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

// TestReassembly: packets of one message in all kinds of order, with overlaps.
func TestReassembly(t *testing.T) {
	for _, c := range []struct {
		name     string
		arrivals [][2]int
	}{
		{"in order", [][2]int{{0, 1000}, {1000, 2000}, {2000, 3000}}},
		{"reversed", [][2]int{{2000, 3000}, {1000, 2000}, {0, 1000}}},
		{"duplicates", [][2]int{{0, 1000}, {0, 1000}, {1000, 2000}, {0, 1000}, {1000, 2000}, {2000, 3000}}},
		{"overlaps the end", [][2]int{{0, 1000}, {500, 2000}, {1999, 3000}}},
		{"overlaps a gap's start", [][2]int{{0, 1000}, {2000, 3000}, {500, 1500}, {1500, 2000}}},
		{"overlaps a gap's end", [][2]int{{0, 1000}, {2000, 3000}, {1500, 2500}, {1000, 1500}}},
		{"covers a gap", [][2]int{{0, 1000}, {2000, 3000}, {500, 2500}}},
		{"covers everything", [][2]int{{500, 600}, {1000, 1100}, {2900, 2950}, {0, 3000}}},
		{"splits a gap", [][2]int{{2900, 3000}, {1000, 1100}, {0, 1000}, {1100, 2900}}},
		{"empty first", [][2]int{{0, 0}, {0, 3000}}},
		{"empty at the end", [][2]int{{3000, 3000}, {0, 3000}}},
		{"one by one", func() (all [][2]int) {
			for i := range 3000 {
				j := i * 7 % 3000
				all = append(all, [2]int{j, j + 1})
			}
			return all
		}()},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{})
			for _, a := range c.arrivals {
				s.receive(data(200, 3000, a[0], a[1]))
			}
			r := s.events()[0].RPC
			if r.State() != InService {
				t.Fatalf("%v after all bytes, %d gaps", r.State(), len(r.in.gaps))
			}
			if got := readAll(t, r, s.now); !bytes.Equal(got, pattern(3000, 200)) {
				t.Fatal("other bytes than were sent")
			}
			if _, err := r.Read(s.now, make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Fatalf("Read at the end: %v", err)
			}
			r.Abort(s.now, nil)
			s.sent()
			s.wantIdle()
		})
	}
}

// TestFirstBytesStay: what came first is not changed by what overlaps it.
func TestFirstBytesStay(t *testing.T) {
	s := newScripted(t, Config{})
	s.receive(data(200, 3000, 0, 1000))
	s.receive(data(200, 3000, 2000, 3000))
	lie := data(200, 3000, 500, 2500)
	lie.Data = make([]byte, 2000)
	s.receive(lie)
	want := bytes.Clone(pattern(3000, 200))
	clear(want[1000:2000])
	if got := readAll(t, s.events()[0].RPC, s.now); !bytes.Equal(got, want) {
		t.Fatal("bytes were overwritten")
	}
}

// TestInbound compares the reassembly with a table of bytes.
func TestInbound(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		length := 1 + r.IntN(400)
		m := inbound{length: length, granted: length, window: length}
		have := make([]bool, length)
		count := 0
		for range 100 {
			start := r.IntN(length)
			n := r.IntN(min(length-start, 60) + 1)
			fresh := 0
			for i := start; i < start+n; i++ {
				if !have[i] {
					have[i] = true
					fresh++
				}
			}
			outcome := m.add(start, n, nil, maxGaps)
			count += fresh
			if (outcome == acceptedNew) != (fresh > 0) || m.received != count {
				t.Fatalf("add [%d:%d): %v, %d bytes, want %d", start, start+n, outcome, m.received, count)
			}
			inOrder := 0
			for inOrder < length && have[inOrder] {
				inOrder++
			}
			if m.inOrder() != inOrder {
				t.Fatalf("in order %d, want %d", m.inOrder(), inOrder)
			}
			for at := 0; ; {
				s, ok := m.missing(at)
				for !ok && at < length || ok && at < s.start {
					if !have[at] {
						t.Fatalf("byte %d is missing, missing says %v %v", at, s, ok)
					}
					at++
				}
				if !ok {
					break
				}
				for ; at < s.end; at++ {
					if have[at] {
						t.Fatalf("byte %d is here, missing says %v", at, s)
					}
				}
			}
		}
	}
}

// TestGapsBounded: a peer that sends every other byte fills no memory with gaps.
func TestGapsBounded(t *testing.T) {
	s := newScripted(t, Config{})
	for i := 1; i < 3*maxGaps; i++ {
		s.receive(data(200, 100_000, 2*i, 2*i+1))
	}
	r := s.events()[0].RPC
	if n := len(r.in.gaps); n > maxGaps {
		t.Fatalf("%d gaps", n)
	}
	if st := s.e.Stats(); st.DropGaps == 0 {
		t.Fatal("not counted")
	}
	s.receive(data(200, 100_000, 0, 60_000))
	for at := 60_000; at < 100_000; at += 10_000 {
		s.receive(data(200, 100_000, at, at+10_000))
	}
	if r.State() != InService {
		t.Fatal("the message cannot become complete")
	}
}

// TestBadData: DATA that cannot be is dropped and counted.
func TestBadData(t *testing.T) {
	good := data(200, 3000, 0, 1000)
	for _, c := range []struct {
		name   string
		change func(*wire.Packet)
		count  func(Stats) uint64
	}{
		{"length 0", func(k *wire.Packet) { k.Length = 0 }, func(s Stats) uint64 { return s.DropMalformed }},
		{"length above the limit", func(k *wire.Packet) { k.Length = 1_000_001 }, func(s Stats) uint64 { return s.DropMalformed }},
		{"largest length", func(k *wire.Packet) { k.Length = 1<<32 - 1 }, func(s Stats) uint64 { return s.DropMalformed }},
		{"offset beyond", func(k *wire.Packet) { k.Offset = 3001 }, func(s Stats) uint64 { return s.DropMalformed }},
		{"end beyond", func(k *wire.Packet) { k.Offset = 2001 }, func(s Stats) uint64 { return s.DropMalformed }},
		{"offset that wraps", func(k *wire.Packet) { k.Offset = 1<<32 - 500 }, func(s Stats) uint64 { return s.DropMalformed }},
		{"id 0", func(k *wire.Packet) { k.SenderID = 0 }, func(s Stats) uint64 { return s.DropMalformed }},
		{"id 1", func(k *wire.Packet) { k.SenderID = 1 }, func(s Stats) uint64 { return s.DropMalformed }},
		{"of a server", func(k *wire.Packet) { k.SenderID = 201 }, func(s Stats) uint64 { return s.DropUnknown }},
		{"port not served", func(k *wire.Packet) { k.DstPort = 4001 }, func(s Stats) uint64 { return s.DropPort }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{})
			k := good
			k.SrcPort, k.DstPort = 0x8000, 4000
			c.change(&k)
			s.receive(k)
			if c.count(s.e.Stats()) != 1 {
				t.Fatalf("%+v", s.e.Stats())
			}
			s.wantSent("")
			s.wantEvents()
			s.wantIdle()
		})
	}
	for _, c := range []struct {
		name   string
		change func(*wire.Packet)
	}{
		{"another length", func(k *wire.Packet) { k.Length = 2999 }},
		{"another source port", func(k *wire.Packet) { k.SrcPort = 0x8001 }},
		{"another destination port", func(k *wire.Packet) { k.DstPort = 4001 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, Config{})
			s.receive(good)
			k := data(200, 3000, 1000, 2000)
			k.SrcPort, k.DstPort = 0x8000, 4000
			c.change(&k)
			s.receive(k)
			if st := s.e.Stats(); st.DropMismatch != 1 || st.BytesReceived != 1000 {
				t.Fatalf("%+v", st)
			}
		})
	}
	t.Run("too long a response", func(t *testing.T) {
		s := newScripted(t, Config{})
		r := s.call(1)
		k := data(101, 10, 0, 10)
		k.Length = 1_000_001
		s.receive(k)
		if r.State() != Sending {
			t.Fatal(r.State())
		}
	})
}

func TestShortPackets(t *testing.T) {
	s := newScripted(t, Config{})
	s.call(1000)
	s.sent()
	for _, k := range []wire.Packet{data(101, 500, 0, 500), grant(101, 1, 1), resend(101, 0, -1), needAck(101), {Type: wire.Ack, SenderID: 200}} {
		full := wire.Main.Append(nil, &k)
		for n := range len(full) {
			if k.Type == wire.Data && n >= 56 || k.Type == wire.Resend && n >= 36 || k.Type == wire.Grant && n == 33 {
				break
			}
			s.e.Receive(s.now, serverAddr, full[:n])
		}
	}
	s.wantSent("")
	s.wantEvents()
	if st := s.e.Stats(); st.DropMalformed == 0 || st.Received != [numTypes]uint64{} {
		t.Fatalf("%+v", st)
	}
}

func TestFreezeIsIgnored(t *testing.T) {
	s := newScripted(t, Config{})
	s.receive(wire.Packet{Type: wire.Freeze, SrcPort: 7})
	s.wantSent("")
	if st := s.e.Stats(); st.DropMalformed+st.DropUnknown+st.DropPort != 0 {
		t.Fatalf("%+v", st)
	}
}

// TestStrangers: packets of another address with the id of an RPC do nothing to it.
func TestStrangers(t *testing.T) {
	s := newScripted(t, Config{})
	r := s.call(10)
	served := s.serve(200, 10, 10)
	s.sent()
	s.peer = netipAddr("10.0.0.9")
	for _, kind := range []wire.Type{wire.Data, wire.Grant, wire.Busy, wire.RPCUnknown, wire.Ack, wire.Cutoffs} {
		k := wire.Packet{Type: kind, SenderID: 101, Length: 5, Data: nil}
		s.receive(k)
		if k.SenderID = 200; kind != wire.Data {
			s.receive(k)
		}
	}
	s.wantSent("")
	s.wantEvents()
	if r.State() != Sending || served.State() != Sending {
		t.Fatal(r.State(), served.State())
	}
	if st := s.e.Stats(); st.Peers != 1 {
		t.Fatalf("%d peers", st.Peers)
	}
	// A stranger may have the same id for its own request.
	s.receive(data(200, 10, 0, 10))
	s.wantEvents(Request, Complete)
}

func TestUnknownPort(t *testing.T) {
	var got int
	s := newScripted(t, Config{OnUnknownPort: func(_ netipAddress, packet []byte) { got += len(packet) }})
	k := data(200, 10, 0, 10)
	k.SrcPort, k.DstPort = 0x8000, 4001
	s.receive(k)
	if got != 66 {
		t.Fatalf("told of %d bytes", got)
	}
	if err := s.e.Listen(4001); err != nil {
		t.Fatal(err)
	}
	if err := s.e.Listen(4001); !errors.Is(err, ErrAddress) {
		t.Fatalf("second Listen: %v", err)
	}
	s.receive(k)
	r := s.wantEvents(Request, Complete)[0].RPC
	s.e.Unlisten(4001)
	if err := r.Reply(s.now, 1); err != nil || got != 66 {
		t.Fatal(err, got)
	}
}

func TestStateErrors(t *testing.T) {
	s := newScripted(t, Config{})
	r := s.call(1)
	if err := r.Reply(s.now, 1); !errors.Is(err, ErrState) {
		t.Errorf("Reply of a client: %v", err)
	}
	s.receive(data(200, 20, 0, 10))
	served := s.wantEvents(Request, Readable)[0].RPC
	if err := served.Reply(s.now, 1); !errors.Is(err, ErrState) {
		t.Errorf("Reply before the request is complete: %v", err)
	}
	if _, err := served.Write(s.now, nil); !errors.Is(err, ErrState) {
		t.Errorf("Write before Reply: %v", err)
	}
	s.receive(data(200, 20, 10, 20))
	for _, n := range []int{0, -1, 1_000_001} {
		if err := served.Reply(s.now, n); !errors.Is(err, ErrTooLong) {
			t.Errorf("Reply of %d bytes: %v", n, err)
		}
	}
	if err := served.Reply(s.now, 1); err != nil {
		t.Error(err)
	}
	if _, err := served.Read(s.now, make([]byte, 1)); !errors.Is(err, ErrState) {
		t.Errorf("Read after Reply: %v", err)
	}
	s.receive(data(101, 5, 0, 5))
	if _, err := r.Write(s.now, nil); !errors.Is(err, ErrState) {
		t.Errorf("Write after the response: %v", err)
	}
}

// TestLowWater makes Readable wait for enough, for the end, or for some ticks.
func TestLowWater(t *testing.T) {
	s := newScripted(t, Config{FIFOGrantFraction: -1, ReceiveWindow: 100_000})
	const length = 40_000
	s.receive(data(200, length, 0, 1000))
	r := s.wantEvents(Request, Readable)[0].RPC
	if !r.LowWater() || r.Discard(s.now, length) != 1000 {
		t.Error("without a mark, 1000 bytes are not enough")
	}
	r.SetLowWater(10_000)
	s.receive(data(200, length, 1000, 10_999))
	s.wantEvents()
	if r.LowWater() {
		t.Error("9999 bytes are enough for 10,000")
	}
	s.receive(data(200, length, 10_999, 11_000))
	s.wantEvents(Readable)
	if !r.LowWater() || r.Discard(s.now, length) != 10_000 {
		t.Error("10,000 bytes are not enough")
	}
	// Behind a gap nothing can be read.
	s.receive(data(200, length, 12_000, 30_000))
	s.wantEvents()
	s.receive(data(200, length, 11_000, 12_000))
	s.wantEvents(Readable)
	r.Discard(s.now, length)

	// Little is told of when nothing follows, before its sender is asked for more.
	s.receive(data(200, length, 30_000, 31_000))
	s.wantEvents()
	s.tick(lowWaterTicks - 1)
	s.wantEvents()
	s.tick(1)
	s.wantEvents(Readable)
	if !r.LowWater() || r.Discard(s.now, length) != 1000 {
		t.Error("what was told of cannot be read")
	}
	s.tick(lowWaterTicks)
	s.wantEvents()

	s.receive(data(200, length, 31_000, 32_000))
	if r.LowWater() {
		t.Error("1000 bytes are enough again")
	}
	r.SetLowWater(1000)
	if !r.LowWater() {
		t.Error("a lower mark does not count")
	}
	r.SetLowWater(1 << 20)
	s.receive(data(200, length, 32_000, length))
	s.wantEvents(Complete)
	if !r.LowWater() || len(readAll(t, r, s.now)) != 9000 {
		t.Error("the end is not enough")
	}
}

// TestLowWaterBelowWindow does not wait for more than a part of what may come.
func TestLowWaterBelowWindow(t *testing.T) {
	s := newScripted(t, Config{FIFOGrantFraction: -1, ReceiveWindow: 40_000})
	s.receive(data(200, 100_000, 0, 1000))
	r := s.wantEvents(Request, Readable)[0].RPC
	r.SetLowWater(1 << 20)
	s.receive(data(200, 100_000, 1000, 9999))
	s.wantEvents()
	s.receive(data(200, 100_000, 9999, 10_000))
	s.wantEvents(Readable)
}
