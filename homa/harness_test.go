package homa

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tougw/tougw/homa/wire"
)

var (
	clientAddr = netip.MustParseAddr("10.0.0.1")
	serverAddr = netip.MustParseAddr("10.0.0.2")
	server     = netip.AddrPortFrom(serverAddr, 4000)
)

const ms = Instant(time.Millisecond)

// scripted drives one engine by hand: the test is its peer.
type scripted struct {
	*testing.T
	e    *Engine
	now  Instant
	peer netip.Addr
	v    wire.Version
}

func newScripted(t *testing.T, config Config) *scripted {
	t.Helper()
	if config.FirstID == 0 {
		config.FirstID = 100
	}
	e, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{T: t, e: e, peer: serverAddr, now: 10 * ms}
	if err := e.Listen(4000); err != nil {
		t.Fatal(err)
	}
	return s
}

// call begins a call and writes a request of n bytes.
func (s *scripted) call(n int) *RPC {
	s.Helper()
	r, err := s.e.Call(s.now, CallOptions{To: netip.AddrPortFrom(s.peer, 4000), Length: n})
	if err != nil {
		s.Fatal(err)
	}
	s.write(r, pattern(n, r.ID()))
	return r
}

func (s *scripted) write(r *RPC, b []byte) {
	s.Helper()
	if n, err := r.Write(s.now, b); err != nil || n != len(b) {
		s.Fatalf("Write of %d bytes: %d, %v", len(b), n, err)
	}
}

// sent returns all packets that leave now.
func (s *scripted) sent() (packets []wire.Packet) {
	s.Helper()
	for {
		out, ok := s.e.Transmit(s.now, nil)
		if !ok {
			return packets
		}
		var k wire.Packet
		if err := s.v.Decode(&k, out.Packet); err != nil {
			s.Fatalf("own packet %x: %v", out.Packet, err)
		}
		if out.To != s.peer {
			s.Fatalf("packet to %v, not %v", out.To, s.peer)
		}
		if k.Type == wire.Data && out.DataLength != len(k.Data) {
			s.Fatalf("DataLength is %d, packet has %d", out.DataLength, len(k.Data))
		}
		packets = append(packets, k)
	}
}

// summary writes packets in short: what a case compares.
func summary(packets []wire.Packet) string {
	var b bytes.Buffer
	for i, k := range packets {
		if i > 0 {
			b.WriteString(" ")
		}
		switch k.Type {
		case wire.Data:
			fmt.Fprintf(&b, "DATA[%d:%d]", k.Offset, int(k.Offset)+len(k.Data))
			if k.Retransmit {
				b.WriteString("r")
			}
		case wire.Grant:
			fmt.Fprintf(&b, "GRANT(%d,%d)", k.Offset, k.Priority)
		case wire.Resend:
			fmt.Fprintf(&b, "RESEND(%d,%d)", k.Offset, k.RangeLength)
		case wire.Ack:
			fmt.Fprintf(&b, "ACK(%d", k.SenderID)
			for _, a := range k.Acks[:k.NumAcks] {
				fmt.Fprintf(&b, ",%d", a.ClientID)
			}
			b.WriteString(")")
		default:
			b.WriteString(k.Type.String())
		}
	}
	return b.String()
}

func (s *scripted) wantSent(want string) {
	s.Helper()
	if got := summary(s.sent()); got != want {
		s.Fatalf("at %v sent\n %s\nwant\n %s", time.Duration(s.now), got, want)
	}
}

// receive feeds a packet from the peer; ports are filled in by role.
func (s *scripted) receive(k wire.Packet) {
	s.Helper()
	if k.SrcPort == 0 && k.DstPort == 0 {
		if k.SenderID%2 == 1 {
			k.SrcPort, k.DstPort = 4000, 0x8000
		} else {
			k.SrcPort, k.DstPort = 0x8000, 4000
		}
	}
	s.e.Receive(s.now, s.peer, s.v.Append(nil, &k))
}

// data is DATA of [start, end) of a message of length bytes, from the sender with
// the id; incoming is 40,000 at most.
func data(id uint64, length, start, end int) wire.Packet {
	return wire.Packet{
		Type: wire.Data, SenderID: id, Length: uint32(length), Incoming: uint32(min(length, 40_000)),
		Offset: uint32(start), Data: pattern(length, id&^1)[start:end], CutoffVersion: 1,
	}
}

var patterns sync.Map // of [2]uint64 to []byte

// pattern is n bytes that depend on the seed. They are shared: not to be changed.
func pattern(n int, seed uint64) []byte {
	key := [2]uint64{uint64(n), seed}
	if b, ok := patterns.Load(key); ok {
		return b.([]byte)
	}
	b := make([]byte, n)
	x := seed*0x9e3779b97f4a7c15 + 1
	for i := range b {
		if i%8 == 0 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		b[i] = byte(x >> (i % 8 * 8))
	}
	patterns.Store(key, b)
	return b
}

// events returns the kinds of all events that wait.
func (s *scripted) events() (kinds []Event) {
	for {
		event, ok := s.e.Event()
		if !ok {
			return kinds
		}
		kinds = append(kinds, event)
	}
}

func (s *scripted) wantEvents(kinds ...EventKind) []Event {
	s.Helper()
	got := s.events()
	var list []EventKind
	for _, event := range got {
		list = append(list, event.Kind)
	}
	if fmt.Sprint(list) != fmt.Sprint(kinds) {
		s.Fatalf("events %v, want %v", list, kinds)
	}
	return got
}

// tick lets n ticks pass, with Advance at each.
func (s *scripted) tick(n int) {
	for range n {
		s.now += ms
		s.e.Advance(s.now)
	}
}

// readAll reads what is there.
func readAll(t testing.TB, r *RPC, now Instant) []byte {
	t.Helper()
	var all []byte
	buf := make([]byte, 10_000)
	for {
		n, err := r.Read(now, buf)
		all = append(all, buf[:n]...)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return all
		}
	}
}

// wantIdle checks that nothing is left but peers and tombstones, and not those
// either after their life.
func (s *scripted) wantIdle() {
	s.Helper()
	wantIdle(s.T, s.e)
	for range 3 { // a tombstone keeps its peer, or lives twice as long
		s.now += Instant(13 * time.Minute)
		s.e.Advance(s.now)
	}
	wantGone(s.T, s.e)
}

func wantIdle(t testing.TB, e *Engine) {
	t.Helper()
	s := e.Stats()
	if s.ClientOutgoing+s.ClientIncoming+s.ServerIncoming+s.ServerInService+s.ServerOutgoing+s.Unread != 0 ||
		s.HeldReceive != 0 || s.HeldSend != 0 || s.ReservedReceive != 0 || s.ReservedSend != 0 ||
		s.WaitingReceive != 0 || s.WaitingSend != 0 || s.Incoming != 0 || s.GrantActive != 0 || s.GrantWaiting != 0 ||
		e.wheel.count != 0 || e.sendable.len() != 0 || e.sendableByAge.len() != 0 || e.grants.byAge.len() != 0 ||
		e.grants.waiting.len() != 0 || len(e.calls) != 0 || e.numServed != 0 || e.numGaps != 0 {
		t.Fatalf("state is left: %+v", s)
	}
}

func wantGone(t testing.TB, e *Engine) {
	t.Helper()
	if s := e.Stats(); s.Peers != 0 || s.Tombstones != 0 {
		t.Fatalf("%d peers and %d tombstones are left", s.Peers, s.Tombstones)
	}
	if at, ok := e.Deadline(); ok {
		t.Fatalf("an idle engine wants to be called at %v", at)
	}
}

type netipAddress = netip.Addr

func netipAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
