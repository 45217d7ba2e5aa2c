package replay

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/wire"
)

// sent is a packet that the engine sent.
type sent struct {
	at       time.Duration
	priority uint8
	level    uint8 // of the last GRANT for the message
	asked    bool  // it left when NEED_ACK had come
	matched  bool  // it has its counterpart in the recording
	homa     wire.Packet
}

// player replays a scene to an engine.
type player struct {
	*scene
	*testing.T
	e *homa.Engine

	now   time.Duration // the engine's clock
	shift time.Duration // by which it is ahead of the recording's

	idle    bool // the device has nothing else to do
	out     []sent
	rpcs    map[uint64]*homa.RPC // by the client's id
	got     map[uint64][]byte    // what the application received
	ended   map[uint64]homa.Event
	begun   int // calls that the client began
	primed  bool
	clocks  map[uint64]*clock // by the client's id
	unknown int               // packets to ports that are not served
	granted map[uint64]int    // by the engine, for the message of the id as it stands in its packets
	left    map[uint64]int    // how far the engine sent the message of the id
	levels  map[uint64]uint8  // of the last GRANT that arrived, for the message of the id
	wanted  map[uint64][]bool // that the peer asked for again
	diffs   []difference
}

func newPlayer(t *testing.T, s *scene) *player {
	p := &player{
		scene: s, T: t, rpcs: map[uint64]*homa.RPC{}, got: map[uint64][]byte{}, ended: map[uint64]homa.Event{},
		granted: map[uint64]int{}, levels: map[uint64]uint8{}, clocks: map[uint64]*clock{}, left: map[uint64]int{}, wanted: map[uint64][]bool{},
	}
	config := homa.Config{
		Peer:          homa.PeerConfig{Version: s.version, VersionSet: true},
		Tick:          tick,
		SendAhead:     wire.MaxMessageLength,
		OnUnknownPort: func(netip.Addr, []byte) { p.unknown++ },
	}
	if s.role == client && len(s.calls) > 0 {
		config.FirstID = s.calls[0].id
	}
	if s.version == wire.Linux61 { // its own parameters
		config.GrantWindow, config.FIFOGrantFraction = 10_000, -1
	}
	if s.is("buffer_stall") {
		config.ReceiveMemory, config.PeerReceiveMemory = 2_000_000, 2_000_000
	}
	var err error
	if p.e, err = homa.New(config); err != nil {
		t.Fatal(err)
	}
	if s.role == server && !s.is("no_port") {
		if err := p.e.Listen(s.calls[0].to.Port()); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *player) instant() homa.Instant { return homa.Instant(time.Second + p.now) }

// play runs the whole capture, and some ticks more for what ends by itself.
func (p *player) play() {
	last := 0 // packet of data that the recorded host sent
	for i := range p.events {
		if ev := &p.events[i]; ev.own && ev.homa.Type == wire.Data {
			last = i
		}
	}
	for i := range p.events {
		ev := &p.events[i]
		for p.role == client && p.begun < len(p.calls) && p.calls[p.begun].at <= ev.at {
			p.advance(p.calls[p.begun].at + p.shift)
			p.call(p.calls[p.begun])
		}
		if timed := ev.own && (ev.homa.Type == wire.Resend || ev.homa.Type == wire.NeedAck); !timed {
			p.advance(ev.at + p.shift)
		}
		switch {
		case ev.own:
			p.expect(ev)
		case !ev.lost:
			p.deliver(ev)
		}
		if i >= last {
			p.idle = true
			p.pull(true)
		}
	}
	if p.is("dead_server", "no_homa_host") {
		p.advance(p.now + 10*tick)
	}
}

// advance lets time pass, with all timers.
func (p *player) advance(to time.Duration) {
	for {
		at, ok := p.e.Deadline()
		due := time.Duration(at) - time.Second
		if !ok || due > to {
			break
		}
		p.now = max(p.now, due)
		p.e.Advance(p.instant())
		p.pull(false)
	}
	p.now = max(p.now, to)
}

// pull takes what the engine sends: control packets, up to one DATA packet or all
// of them. The device of the recorded host was slow; so must this one be, as
// timers begin with the last byte that is sent.
func (p *player) pull(all bool) {
	all = all || p.idle
	for {
		o, ok := p.e.Transmit(p.instant(), nil)
		if !ok {
			break
		}
		var k wire.Packet
		if err := p.version.Decode(&k, o.Packet); err != nil {
			p.Fatalf("the engine sent %x: %v", o.Packet, err)
		}
		if o.To != p.peer {
			p.Errorf("%s to %v", describe(&k), o.To)
		}
		p.checkTimed(&k)
		p.out = append(p.out, sent{at: p.now, priority: o.Priority, level: p.levels[k.SenderID], asked: p.clocks[k.SenderID&^1].needAck == p.now, homa: k})
		if k.Type == wire.Grant {
			p.granted[k.SenderID] = max(p.granted[k.SenderID], int(k.Offset))
		}
		if k.Type == wire.Data {
			p.left[k.SenderID] = max(p.left[k.SenderID], int(k.Offset)+len(k.Data))
		}
		if k.Type == wire.Data && !all {
			break
		}
	}
	p.serve()
}

// serve handles the engine's events.
func (p *player) serve() {
	for {
		ev, ok := p.e.Event()
		if !ok {
			return
		}
		id := ev.RPC.ID() &^ 1
		switch ev.Kind {
		case homa.Request:
			if p.rpcs[id] != nil {
				p.Errorf("request of %d comes a second time", id)
			}
			p.rpcs[id] = ev.RPC
		case homa.Complete:
			if p.role == client {
				p.read(ev.RPC)
			}
			p.ended[id] = ev
		case homa.Acked, homa.Failed:
			p.ended[id] = ev
		}
	}
}

func (p *player) read(r *homa.RPC) {
	b := make([]byte, r.ReceiveLength())
	n, err := r.Read(p.instant(), b)
	if err != nil || n != len(b) {
		p.Errorf("read %d of %d bytes: %v", n, len(b), err)
	}
	p.got[r.ID()&^1] = b
}

func (p *player) write(r *homa.RPC, b []byte) {
	if n, err := r.Write(p.instant(), b); err != nil || n != len(b) {
		p.Errorf("wrote %d of %d bytes: %v", n, len(b), err)
	}
}

func (p *player) call(c *call) {
	r, err := p.e.Call(p.instant(), homa.CallOptions{To: c.to, From: c.port, Length: len(c.request.content)})
	if err != nil {
		p.Fatal(err)
	}
	if r.ID() != c.id {
		p.Fatalf("call has id %d, want %d", r.ID(), c.id)
	}
	p.rpcs[c.id] = r
	p.begun++
	p.prime()
	p.write(r, c.request.content)
}

// prime tells the engine the cutoffs that the recorded host knew from before.
func (p *player) prime() {
	if p.primed {
		return
	}
	p.primed = true
	for _, ev := range p.events {
		if !ev.own && ev.homa.Type == wire.Cutoffs {
			return
		}
		if ev.own && ev.homa.Type == wire.Data {
			if v := ev.homa.CutoffVersion; v != 0 {
				p.e.Receive(p.instant(), p.peer, p.version.Append(nil, &wire.Packet{
					Type: wire.Cutoffs, SenderID: ev.homa.SenderID ^ 1, SrcPort: ev.homa.DstPort, DstPort: ev.homa.SrcPort,
					Cutoffs: [wire.NumPriorities]uint32{0, 0, 0, 0, 1_000_000, 15_000, 2800, 200}, CutoffVersion: v,
				}))
			}
			return
		}
	}
}

// deliver lets a packet of the other host arrive.
func (p *player) deliver(ev *event) {
	k := &ev.homa
	if ev.icmp {
		p.deliverICMP(ev.raw)
		return
	}
	if r := p.rpcs[k.SenderID&^1]; r != nil && r.State() == homa.Sending {
		p.noteWanted(r, k)
		if k.Type == wire.Grant {
			p.levels[r.ID()] = k.Priority
		}
	}
	if c := p.clocks[k.SenderID&^1]; c != nil {
		if k.Type == wire.NeedAck {
			c.needAck = p.now
		}
		if k.Type == wire.Data || k.Type == wire.Grant || k.Type == wire.Busy {
			c.silent = p.now
		}
	}
	p.e.Receive(p.instant(), p.peer, ev.raw)
	if p.role == server && k.Type == wire.Data {
		p.prime()
	}
	switch k.Type {
	case wire.Grant, wire.Busy, wire.Cutoffs, wire.RPCUnknown:
		p.serve() // only data may follow, when the device takes it
	default:
		p.pull(false)
	}
}

// noteWanted collects what is to be sent again: of what was asked for, what left
// before.
func (p *player) noteWanted(r *homa.RPC, k *wire.Packet) {
	id := r.ID()
	start, end := 0, p.left[id]
	switch {
	case k.Type == wire.Resend && k.RangeLength >= 0:
		start, end = int(k.Offset), min(int(k.Offset)+int(k.RangeLength), end)
	case k.Type == wire.Resend, k.Type == wire.Grant && k.ResendAll, k.Type == wire.RPCUnknown:
	default:
		return
	}
	if p.wanted[id] == nil {
		p.wanted[id] = make([]bool, r.SendLength())
	}
	for i := start; i < end; i++ {
		p.wanted[id][i] = true
	}
}

// deliverICMP tells the engine what the owner of its socket would: Linux61 does
// not understand that IPv6 hosts do not know the protocol, so nothing is told.
func (p *player) deliverICMP(b []byte) {
	const header, ports = 8, 2
	quoted := b[header:]
	size, kind := 20, [2]byte{b[0], b[1]}
	if p.IP == 6 {
		size = 40
	}
	port := binary.BigEndian.Uint16(quoted[size+ports:])
	switch {
	case p.IP == 4 && kind == [2]byte{3, 3}, p.IP == 6 && kind == [2]byte{1, 4}:
		p.e.Unreachable(p.instant(), p.peer, port, homa.ErrPortUnreachable)
	case p.IP == 4 && kind == [2]byte{3, 2}, p.IP == 6 && kind == [2]byte{4, 1} && p.version != wire.Linux61:
		p.e.Unreachable(p.instant(), p.peer, 0, homa.ErrProtocolUnreachable)
	case p.IP == 6 && kind == [2]byte{4, 1}:
	default:
		p.Fatalf("ICMP %v", kind)
	}
	p.serve()
}

// expect compares what the recorded host sent with what the engine sends.
func (p *player) expect(ev *event) {
	k := &ev.homa
	switch {
	case ev.icmp:
		if p.unknown > 0 {
			p.unknown--
			return
		}
		p.differ(missing, k, "ICMP port unreachable")
	case k.Type == wire.Data:
		p.expectData(k)
	case k.Type == wire.Grant:
		p.expectGrant(k)
	case k.Type == wire.Resend, k.Type == wire.NeedAck:
		p.expectTimed(ev)
	case k.Type != 0:
		if !p.match(k, 0, 0) {
			p.differ(missing, k, "")
		}
	}
}

// expectData lets the device take a packet of data, and the application reply.
func (p *player) expectData(k *wire.Packet) {
	id := k.SenderID &^ 1
	if r := p.rpcs[id]; p.role == server && r != nil && r.State() == homa.InService {
		p.read(r)
		content := p.find(id).response.content
		if err := r.Reply(p.instant(), len(content)); err != nil {
			p.Error(err)
		}
		p.write(r, content)
	} else if p.role == server && (r == nil || r.State() == homa.Receiving) {
		p.Errorf("the recorded host answered %d, to the engine the request is not complete", id)
	}
	if k.Retransmit {
		p.pull(false)
		return
	}
	// The device may have taken packets already, and in netem captures the recorded
	// host sent some that are not there.
	for before := -1; p.left[k.SenderID] < int(k.Offset)+len(k.Data) && len(p.out) > before; {
		before = len(p.out)
		p.pull(false)
	}
}

func (p *player) find(id uint64) *call {
	for _, c := range p.calls {
		if c.id == id {
			return c
		}
	}
	return nil
}

// expectGrant: the sender may go on at least as far.
func (p *player) expectGrant(k *wire.Packet) {
	r := p.rpcs[k.SenderID&^1]
	if r == nil || r.State() != homa.Receiving {
		return // it is complete already
	}
	if short := int(k.Offset) - p.granted[k.SenderID]; short > 0 {
		p.differ(behind, k, "").amount = short
	}
}

// wantEnd is how a call must end to which no response was recorded; nil: not yet.
func (p *player) wantEnd() error {
	switch {
	case p.is("dead_server"), p.is("no_homa_host") && p.version == wire.Linux61 && p.IP == 6:
		return homa.ErrTimeout
	case p.is("no_homa_host"):
		return homa.ErrProtocolUnreachable
	case p.is("no_port"):
		return homa.ErrPortUnreachable
	}
	return nil
}
