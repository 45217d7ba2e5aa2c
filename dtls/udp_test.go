package dtls

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/udp"
)

// orderedEvents checks that numbered records of one size arrive complete and in
// order, without allocating, and signals the end of each run.
type orderedEvents struct {
	recorder *recorder
	next     atomic.Uint64
	wrong    atomic.Uint64
	size     int
	each     uint64 // records of a run
	arrived  chan struct{}
}

func (e *orderedEvents) NewReceiver() Receiver            { return e }
func (e *orderedEvents) Established(a *Association)       { e.recorder.Established(a) }
func (e *orderedEvents) Closed(a *Association, err error) { e.recorder.Closed(a, err) }
func (e *orderedEvents) Flush()                           {}
func (e *orderedEvents) Receive(_ *Association, rs [][]byte) {
	for _, r := range rs {
		n := e.next.Load()
		if len(r) != e.size || binary.BigEndian.Uint64(r) != n {
			e.wrong.Add(1)
		}
		e.next.Store(n + 1)
		if (n+1)%e.each == 0 {
			e.arrived <- struct{}{}
		}
	}
}

// udpBed is two endpoints with an association over real sockets.
type udpBed struct {
	a            *Association
	sender, rcvr *udp.Conn
	ev           *orderedEvents
	buf          []byte
	one, head    int
	sent         uint64
}

const (
	udpRun    = 44 // records of a run: what fits 64 KiB
	udpRecord = 1400
	udpWindow = 2 // runs on their way: what any receive buffer holds
)

func newUDPBed(t testing.TB, sender, receiver udp.Config) *udpBed {
	t.Helper()
	ca := newAuthority(t)
	cfg := Config{Roots: ca.pool, ConnectionID: true, Certificate: ca.issue(t, "edge", false, nil)}
	ev := &orderedEvents{recorder: newRecorder(t), size: udpRecord, each: udpRun, arrived: make(chan struct{}, udpWindow)}
	server, err := New(cfg, ev)
	check(t, err)
	cfg.Certificate = ca.issue(t, "laptop-7", false, nil)
	client, err := New(cfg, newRecorder(t))
	check(t, err)
	listen := func(c udp.Config) *udp.Conn {
		c.Bind = netip.MustParseAddrPort("127.0.0.1:0")
		c.RecvBuffer, c.SendBuffer = 1<<20, 1<<20
		s, err := udp.Listen(c)
		check(t, err)
		return s
	}
	b := &udpBed{sender: listen(sender), rcvr: listen(receiver), ev: ev}
	done := make(chan error, 1)
	go func() { done <- server.Serve(context.Background(), b.rcvr) }()
	t.Cleanup(func() {
		check(t, client.Close())
		check(t, server.Close())
		check(t, <-done)
	})
	b.a, err = client.Dial(context.Background(), b.sender, b.rcvr.LocalAddr(), DialParams{ServerName: "edge"})
	check(t, err)
	eventually(t, "association", func() bool { return ev.recorder.count() == 1 })
	head, tail := b.a.Overhead()
	b.head, b.one = head, head+udpRecord+tail
	b.buf = make([]byte, udpRun*b.one)
	return b
}

// send seals and sends one run.
func (b *udpBed) send(t testing.TB) {
	for i := range udpRun {
		r := b.buf[i*b.one : (i+1)*b.one]
		binary.BigEndian.PutUint64(r[b.head:], b.sent)
		b.sent++
		if _, err := b.a.Seal(r, udpRecord); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.a.Send(b.buf, b.one); err != nil {
		t.Fatal(err)
	}
}

// await waits until a run has arrived.
func (b *udpBed) await() { <-b.ev.arrived }

// watch fails the test when it takes longer than any run may.
func (b *udpBed) watch(t testing.TB) {
	w := time.AfterFunc(20*time.Second, func() {
		panic(fmt.Sprintf("%d records sent, %d received: %+v", b.sent, b.ev.next.Load(), b.rcvr.Stats()))
	})
	t.Cleanup(func() { w.Stop() })
}

// TestUDP sends runs over the loopback with the offloads on, off and mixed:
// nothing is lost or out of order, and the whole path, to the socket and from
// it, allocates nothing.
func TestUDP(t *testing.T) {
	for _, gso := range []bool{true, false} {
		for _, gro := range []bool{true, false} {
			t.Run(fmt.Sprintf("gso=%v/gro=%v", gso, gro), func(t *testing.T) {
				b := newUDPBed(t, udp.Config{NoGSO: !gso}, udp.Config{NoGRO: !gro})
				b.watch(t)
				const runs = 200
				for i := range runs {
					if i >= udpWindow {
						b.await()
					}
					b.send(t)
				}
				for range udpWindow {
					b.await()
				}
				most := 0.0
				if raceEnabled {
					most = udpRun / 2 // a sync.Pool then drops a quarter of what it gets
				}
				if n := testing.AllocsPerRun(100, func() {
					b.send(t)
					b.await()
				}); n > most {
					t.Errorf("a run of %d records allocates %v times", udpRun, n)
				}
				if n := b.ev.wrong.Load(); n != 0 || b.ev.next.Load() != b.sent {
					t.Errorf("%d records sent, %d received, %d of them not in order", b.sent, b.ev.next.Load(), n)
				}
				s, r := b.sender.Stats(), b.rcvr.Stats()
				if used := s.SendRuns > 0; used != b.sender.Capabilities().GSO {
					t.Errorf("runs sent: %v; %+v", used, b.sender.Capabilities())
				}
				if used := r.RecvRuns > 0; gso && used != b.rcvr.Capabilities().GRO {
					t.Errorf("runs received: %v; %+v", used, b.rcvr.Capabilities())
				}
			})
		}
	}
}

// BenchmarkUDP is the whole path of a run: seal, send, receive, open.
func BenchmarkUDP(b *testing.B) {
	for _, on := range []bool{true, false} {
		b.Run(fmt.Sprintf("offloads=%v", on), func(b *testing.B) {
			d := newUDPBed(b, udp.Config{NoGSO: !on}, udp.Config{NoGRO: !on})
			b.SetBytes(udpRun * udpRecord)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if n++; n > udpWindow {
					d.await()
				}
				d.send(b)
			}
			for range min(n, udpWindow) {
				d.await()
			}
			if d.ev.wrong.Load() != 0 {
				b.Error("records lost or out of order")
			}
		})
	}
}
