package homa

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// faults say what the network of a pair does to a packet, in per cent.
type faults struct {
	loss, duplicate, corrupt, late int
	delay, jitter                  Instant // one way
}

// flying is a packet on its way.
type flying struct {
	at     Instant
	order  int
	to     int
	packet []byte
}

// pair is a client and a server with a network in between. Both sides stream: they
// read as bytes come and write as room comes. The server echoes what it got,
// stretched or cut to the length that the request's value asks for.
type pair struct {
	testing.TB
	now     Instant
	e       [2]*Engine
	addr    [2]netip.Addr
	rand    *rand.Rand
	faults  faults
	flight  []flying
	order   int
	service Instant // time between request and response
	due     []replyDue

	calls     map[*RPC]*callState
	served    map[*RPC]*callState
	executed  map[uint64]int // by client id
	answers   map[uint64]int // length of the response by client id
	completed int
	failed    int
	peakHeld  [2]int64
	lazy      bool        // read only after Complete
	check     bool        // contents
	foreign   func(Event) // takes events of RPCs with others than the two
}

type replyDue struct {
	at Instant
	r  *RPC
}

// callState is one side of an RPC: what it received, and what it has to send.
type callState struct {
	received []byte
	send     []byte
	want     []byte
	complete bool
}

func newPair(t testing.TB, client, server Config, seed uint64) *pair {
	t.Helper()
	p := &pair{
		TB: t, now: ms, addr: [2]netip.Addr{clientAddr, serverAddr}, rand: rand.New(rand.NewPCG(seed, 7)),
		calls: make(map[*RPC]*callState), served: make(map[*RPC]*callState),
		executed: make(map[uint64]int), answers: make(map[uint64]int), check: true,
		faults: faults{delay: 20_000},
	}
	if client.FirstID == 0 {
		client.FirstID = 2
	}
	for i, config := range []Config{client, server} {
		var err error
		if p.e[i], err = New(config); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.e[1].Listen(4000); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pair) stats(i int) Stats { return p.e[i].Stats() }

// call begins a call; the response is to have the given length.
func (p *pair) call(request, response int) *RPC {
	p.Helper()
	r, err := p.e[0].Call(p.now, CallOptions{To: server, Length: request})
	if err != nil {
		p.Fatal(err)
	}
	p.answers[r.ID()] = response
	state := &callState{send: pattern(request, r.ID()), want: pattern(response, r.ID()+1)}
	p.calls[r] = state
	p.write(r, state)
	p.drain()
	return r
}

func (p *pair) write(r *RPC, state *callState) {
	for len(state.send) > 0 && r.State() == Sending {
		n, err := r.Write(p.now, state.send)
		if err != nil {
			p.Fatalf("Write: %v", err)
		}
		state.send = state.send[n:]
		if n == 0 {
			return
		}
	}
}

func (p *pair) read(r *RPC, state *callState) {
	buf := make([]byte, 1+p.rand.IntN(50_000))
	for {
		n, err := r.Read(p.now, buf)
		state.received = append(state.received, buf[:n]...)
		if n == 0 || err != nil {
			return
		}
	}
}

// drain moves packets and events of both engines.
func (p *pair) drain() {
	for again := true; again; {
		again = false
		for i, e := range p.e {
			for {
				out, ok := e.Transmit(p.now, nil)
				if !ok {
					break
				}
				again = true
				if out.To == p.addr[1-i] {
					p.transmit(1-i, out.Packet)
				}
			}
			for {
				event, ok := e.Event()
				if !ok {
					break
				}
				again = true
				if event.RPC.Peer().Addr() != p.addr[1-i] {
					p.foreign(event)
					continue
				}
				p.handle(i, event)
			}
			s := e.Stats()
			p.peakHeld[i] = max(p.peakHeld[i], s.HeldReceive+s.HeldSend)
			c := &e.config
			if s.HeldReceive > s.ReservedReceive || s.HeldSend > s.ReservedSend ||
				s.ReservedReceive > c.ReceiveMemory || s.ReservedSend > c.SendMemory {
				p.Fatalf("memory: %+v", s)
			}
		}
	}
}

func (p *pair) transmit(to int, packet []byte) {
	f := p.faults
	if p.rand.IntN(100) < f.loss {
		return
	}
	copies := 1
	if p.rand.IntN(100) < f.duplicate {
		copies = 2
	}
	for range copies {
		b := slices.Clone(packet)
		if p.rand.IntN(100) < f.corrupt {
			switch p.rand.IntN(3) {
			case 0:
				b = b[:p.rand.IntN(len(b))]
			case 1:
				b[p.rand.IntN(min(len(b), 64))] ^= 1 << p.rand.IntN(8)
			default:
				for range 4 {
					b[p.rand.IntN(min(len(b), 64))] = byte(p.rand.Uint32())
				}
			}
		}
		at := p.now + f.delay
		if f.jitter > 0 {
			at += Instant(p.rand.Int64N(int64(f.jitter)))
		}
		if p.rand.IntN(100) < f.late {
			at += Instant(p.rand.IntN(30)) * ms
		}
		p.order++
		p.flight = append(p.flight, flying{at, p.order, to, b})
		for i := len(p.flight) - 1; i > 0 && p.flight[i].at < p.flight[i-1].at; i-- {
			p.flight[i], p.flight[i-1] = p.flight[i-1], p.flight[i]
		}
	}
}

func (p *pair) handle(i int, event Event) {
	r := event.RPC
	states := p.calls
	if i == 1 {
		states = p.served
	}
	state := states[r]
	if event.Kind == Request {
		state = &callState{}
		states[r] = state
	}
	if state == nil {
		p.Fatalf("%v of an unknown RPC %d", event.Kind, r.ID())
	}
	switch event.Kind {
	case Readable:
		if !p.lazy {
			p.read(r, state)
		}
	case Complete:
		p.read(r, state)
		if state.complete {
			p.Fatalf("RPC %d is complete twice", r.ID())
		}
		state.complete = true
		if i == 0 {
			p.completed++
			if p.check && !bytes.Equal(state.received, state.want) {
				p.Fatalf("response %d: %d bytes differ from the %d sent", r.ID(), len(state.received), len(state.want))
			}
			delete(states, r)
			return
		}
		p.executed[r.ID()-1]++
		if p.check && !bytes.Equal(state.received, pattern(len(state.received), r.ID()-1)) {
			p.Fatalf("request %d differs from what was sent", r.ID())
		}
		p.due = append(p.due, replyDue{p.now + p.service, r})
	case Writable:
		p.write(r, state)
	case Failed:
		if i == 0 {
			p.failed++
		}
		if event.Err == nil || r.Err() != event.Err {
			p.Fatalf("Failed with %v, Err %v", event.Err, r.Err())
		}
		delete(states, r)
	case Acked:
		delete(states, r)
	}
}

// step goes on to the next instant at which anything happens.
func (p *pair) step() bool {
	next := Instant(1 << 62)
	for _, e := range p.e {
		if at, ok := e.Deadline(); ok {
			next = min(next, at)
		}
	}
	if len(p.flight) > 0 {
		next = min(next, p.flight[0].at)
	}
	if len(p.due) > 0 { // in order: the time of service is the same for all
		next = min(next, p.due[0].at)
	}
	if next == 1<<62 {
		return false
	}
	p.now = max(p.now, next)
	for len(p.flight) > 0 && p.flight[0].at <= p.now {
		f := p.flight[0]
		p.flight = p.flight[1:]
		p.e[f.to].Receive(p.now, p.addr[1-f.to], f.packet)
	}
	for len(p.due) > 0 && p.due[0].at <= p.now {
		r := p.due[0].r
		p.due = p.due[1:]
		p.reply(r)
	}
	for _, e := range p.e {
		e.Advance(p.now)
	}
	p.drain()
	return true
}

func (p *pair) reply(r *RPC) {
	length := p.answers[r.ID()-1]
	if length == 0 { // an id made by corruption
		length = 1
	}
	if r.State() == Dead {
		return
	}
	if err := r.Reply(p.now, length); err != nil {
		p.Fatalf("Reply: %v", err)
	}
	state := p.served[r]
	state.send = pattern(length, r.ID())
	p.write(r, state)
}

// run goes on for a while.
func (p *pair) run(d Instant) {
	for end := p.now + d; p.now < end; {
		if !p.step() {
			return
		}
	}
}

// finish runs until nothing is left, which has to happen in bounded time.
func (p *pair) finish() {
	p.Helper()
	for end := p.now + Instant(time.Minute); !p.atRest(); p.step() {
		if p.now > end {
			p.Fatalf("not at rest after a minute: %+v\n%+v", p.stats(0), p.stats(1))
		}
	}
	for end := p.now + Instant(20*time.Minute); p.now < end && p.step(); {
	}
	for _, e := range p.e {
		wantIdle(p, e)
		wantGone(p, e)
	}
	if len(p.calls)+len(p.served) != 0 {
		p.Fatalf("%d calls and %d served RPCs without an end", len(p.calls), len(p.served))
	}
}

// atRest reports that no RPC is left.
func (p *pair) atRest() bool {
	for _, e := range p.e {
		s := e.Stats()
		if s.ClientOutgoing+s.ClientIncoming+s.ServerIncoming+s.ServerInService+s.ServerOutgoing+s.Unread > 0 {
			return false
		}
	}
	return true
}
