package simnet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tougw/tougw/internal/udp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	addrA = netip.MustParseAddrPort("192.0.2.1:1000")
	addrB = netip.MustParseAddrPort("198.51.100.1:443")
)

// pair makes a network with two sockets.
func pair(t testing.TB, cfg Config) (n *Net, a, b *Socket) {
	t.Helper()
	n = New(cfg)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, open(t, n, addrA), open(t, n, addrB)
}

func open(t testing.TB, n *Net, addr netip.AddrPort) *Socket {
	t.Helper()
	s, err := n.Socket(addr)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func send(t testing.TB, s *Socket, to netip.AddrPort, payload []byte) {
	t.Helper()
	if n, err := s.WriteBatch([]udp.Message{{Buf: payload, N: len(payload), Addr: to}}); n != 1 || err != nil {
		t.Fatalf("WriteBatch: %d, %v", n, err)
	}
}

// numbered sends count datagrams of size bytes that begin with their number.
func numbered(t testing.TB, s *Socket, to netip.AddrPort, count, size int) {
	t.Helper()
	b := make([]byte, size)
	for i := range count {
		binary.BigEndian.PutUint32(b, uint32(i))
		send(t, s, to, b)
	}
}

func newBatch(n int) []udp.Message {
	ms := make([]udp.Message, n)
	for i := range ms {
		ms[i].Buf = make([]byte, 1<<16)
	}
	return ms
}

// receive reads one datagram, which must come.
func receive(t testing.TB, s *Socket) ([]byte, netip.AddrPort) {
	t.Helper()
	ms := newBatch(1)
	if n, err := s.ReadBatch(ms); n != 1 || err != nil {
		t.Fatalf("ReadBatch: %d, %v", n, err)
	}
	return ms[0].Buf[:ms[0].N], ms[0].Addr
}

// drain reads what waits in the socket and returns the numbers.
func drain(t testing.TB, s *Socket) []uint32 {
	t.Helper()
	var out []uint32
	ms := newBatch(16)
	for {
		s.mu.Lock()
		queued := s.queued
		s.mu.Unlock()
		if queued == 0 {
			return out
		}
		n, err := s.ReadBatch(ms)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms[:n] {
			out = append(out, binary.BigEndian.Uint32(m.Buf))
		}
	}
}

// balance checks that no datagram was lost from the books.
func balance(t testing.TB, n *Net) Stats {
	t.Helper()
	s := n.Stats()
	in := s.Sent + s.Duplicated + s.Injected
	out := s.Delivered + s.InFlight + s.Lost + s.Blackholed + s.TooBig + s.QueueFull + s.Tapped + s.NoSocket + s.Overflow
	if in != out {
		t.Errorf("%d datagrams in and %d out: %+v", in, out, s)
	}
	return s
}

func TestCleanPath(t *testing.T) {
	n, a, b := pair(t, Config{})
	buf := []byte("0123456789")
	ms := []udp.Message{
		{Buf: buf, N: 10, Segment: 4, Addr: addrB, Local: addrA.Addr()},
		{Buf: buf, N: 0, Addr: addrB},
		{Buf: buf, N: 10, Segment: 10, Addr: addrB},
		{Buf: buf, N: 3, Segment: 7, Addr: netip.MustParseAddrPort("[::ffff:198.51.100.1]:443")},
	}
	if n, err := a.WriteBatch(ms); n != 4 || err != nil {
		t.Fatalf("WriteBatch: %d, %v", n, err)
	}
	for _, want := range []string{"0123", "4567", "89", "", "0123456789", "012"} {
		in := newBatch(1)
		if n, err := b.ReadBatch(in); n != 1 || err != nil {
			t.Fatalf("ReadBatch: %d, %v", n, err)
		}
		m := in[0]
		if string(m.Buf[:m.N]) != want || m.Segment != 0 || m.Addr != addrA || m.Local != addrB.Addr() {
			t.Errorf("got %q from %v at %v, segment %d; want %q", m.Buf[:m.N], m.Addr, m.Local, m.Segment, want)
		}
	}
	if s := balance(t, n); s.Sent != 6 || s.SentBytes != 23 || s.Delivered != 6 {
		t.Errorf("counted %+v", s)
	}
	if n.LinkStats(addrA.Addr(), addrB.Addr()).Sent != 6 || n.LinkStats(addrB.Addr(), addrA.Addr()).Sent != 0 {
		t.Error("counted in the wrong direction")
	}
}

func TestCoalesce(t *testing.T) {
	n, a, b := pair(t, Config{Coalesce: true})
	c := open(t, n, netip.MustParseAddrPort("192.0.2.3:1"))
	for _, x := range []struct {
		s *Socket
		n int
	}{{a, 5}, {a, 5}, {a, 2}, {a, 5}, {c, 5}, {c, 6}, {c, 0}, {c, 0}, {a, 9}} {
		send(t, x.s, addrB, bytes.Repeat([]byte{byte(x.n)}, x.n))
	}
	ms := newBatch(16)
	k, err := b.ReadBatch(ms)
	if err != nil {
		t.Fatal(err)
	}
	var got [][2]int
	for _, m := range ms[:k] {
		got = append(got, [2]int{m.N, m.Segment})
	}
	want := [][2]int{{12, 5}, {5, 0}, {5, 0}, {6, 0}, {0, 0}, {0, 0}, {9, 0}}
	if !slices.Equal(got, want) {
		t.Errorf("sizes and segments %v, want %v", got, want)
	}
	numbered(t, a, addrB, 2*udp.MaxSegments, 10)
	if k, err = b.ReadBatch(ms); k != 2 || err != nil || ms[0].N != 10*udp.MaxSegments {
		t.Errorf("%d runs of %d bytes, %v; want 2 of %d", k, ms[0].N, err, 10*udp.MaxSegments)
	}
}

func TestRebind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := pair(t, Config{})
		n.SetBoth(addrA.Addr(), addrB.Addr(), Link{Delay: 10 * time.Millisecond})
		moved := netip.MustParseAddrPort("203.0.113.9:7777")
		send(t, b, addrA, []byte("under way"))
		if err := n.Rebind(addrA, moved); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		send(t, a, addrB, []byte("hello"))
		if _, from := receive(t, b); from != moved {
			t.Errorf("from %v, want %v", from, moved)
		}
		if d := time.Since(start); d != 10*time.Millisecond {
			t.Errorf("after %v: the path must keep its properties", d)
		}
		send(t, b, addrA, []byte("to the old"))
		send(t, b, moved, []byte("to the new"))
		if p, _ := receive(t, a); string(p) != "to the new" {
			t.Errorf("received %q", p)
		}
		if s := balance(t, n); s.NoSocket != 2 {
			t.Errorf("%d without a socket, want 2", s.NoSocket)
		}
		if a.LocalAddr() != addrA || a.PublicAddr() != moved {
			t.Errorf("at %v and %v, want %v and %v", a.LocalAddr(), a.PublicAddr(), addrA, moved)
		}
		for _, c := range []struct{ old, new netip.AddrPort }{
			{addrA, addrA}, {moved, addrB}, {moved, netip.MustParseAddrPort("[::1]:1")}, {moved, netip.AddrPortFrom(moved.Addr(), 0)},
		} {
			if n.Rebind(c.old, c.new) == nil {
				t.Errorf("rebind of %v to %v went well", c.old, c.new)
			}
		}
		if err := n.Rebind(moved, addrA); err != nil {
			t.Errorf("back again: %v", err)
		}
		// A closed socket gives its address free, wherever it went.
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		open(t, n, addrA)
		open(t, n, moved)
	})
}

func TestTap(t *testing.T) {
	n, a, b := pair(t, Config{})
	var seen []string
	n.SetTap(func(src, dst netip.AddrPort, p []byte) bool {
		seen = append(seen, fmt.Sprintf("%v>%v %s", src, dst, p))
		p[0] ^= 0x20
		n.Link(src.Addr(), dst.Addr()) // must not lock up
		return p[0] != 'd'
	})
	buf := []byte("Keep")
	send(t, a, addrB, buf)
	send(t, a, addrB, []byte("Drop"))
	n.SetTap(nil)
	send(t, a, addrB, []byte("Untouched"))
	for _, want := range []string{"keep", "Untouched"} {
		if p, _ := receive(t, b); string(p) != want {
			t.Errorf("received %q, want %q", p, want)
		}
	}
	if string(buf) != "Keep" {
		t.Errorf("the sender's buffer became %q", buf)
	}
	if want := []string{"192.0.2.1:1000>198.51.100.1:443 Keep", "192.0.2.1:1000>198.51.100.1:443 Drop"}; !slices.Equal(seen, want) {
		t.Errorf("tap saw %q", seen)
	}
	if s := balance(t, n); s.Tapped != 1 {
		t.Errorf("%d dropped by the tap, want 1", s.Tapped)
	}
}

func TestRecordAndReplay(t *testing.T) {
	n, a, b := pair(t, Config{})
	send(t, a, addrB, []byte("before"))
	n.Record(2)
	for _, p := range []string{"one", "two", "three"} {
		send(t, a, addrB, []byte(p))
	}
	n.SetBoth(addrA.Addr(), addrB.Addr(), Link{Blackhole: true}) // must not stop what follows
	ds := n.Recorded()
	if k := n.Inject(ds...); k != 2 {
		t.Fatalf("%d of %d injected", k, len(ds))
	}
	forged := Datagram{Src: netip.MustParseAddrPort("203.0.113.66:6"), Dst: addrB, Payload: []byte("forged")}
	nowhere := Datagram{Src: addrA, Dst: netip.MustParseAddrPort("203.0.113.1:1")}
	if k := n.Inject(forged, nowhere); k != 1 {
		t.Fatalf("%d injected, want 1", k)
	}
	for i, want := range []string{"before", "one", "two", "three", "one", "two", "forged"} {
		from := addrA
		if i == 6 {
			from = forged.Src
		}
		if p, src := receive(t, b); string(p) != want || src != from {
			t.Errorf("received %q from %v, want %q from %v", p, src, want, from)
		}
	}
	n.Record(0)
	if len(n.Recorded()) != 0 || len(ds) != 2 {
		t.Error("Record did not forget, or took what was given")
	}
	if s := balance(t, n); s.Injected != 4 || s.NoSocket != 1 {
		t.Errorf("counted %d injected and %d without a socket", s.Injected, s.NoSocket)
	}
}

func TestQueueIsBounded(t *testing.T) {
	n, a, b := pair(t, Config{QueueDatagrams: 40})
	numbered(t, a, addrB, 50, 4)
	if got := drain(t, b); len(got) != 40 || got[39] != 39 {
		t.Errorf("arrived: %v", got)
	}
	numbered(t, a, addrB, 30, 4) // the ring goes round
	if got := drain(t, b); len(got) != 30 || got[29] != 29 {
		t.Errorf("arrived: %v", got)
	}
	if s := balance(t, n); s.Overflow != 10 {
		t.Errorf("%d dropped, want 10", s.Overflow)
	}
}

func TestShortBuffer(t *testing.T) {
	n, a, b := pair(t, Config{})
	send(t, a, addrB, make([]byte, 11))
	send(t, a, addrB, make([]byte, 10))
	ms := []udp.Message{{Buf: make([]byte, 10)}, {Buf: make([]byte, 10)}}
	if k, err := b.ReadBatch(ms); k != 2 || err != nil || ms[0].N != 0 || ms[1].N != 10 {
		t.Errorf("ReadBatch: %d, %v with %d and %d bytes; want 0 and 10", k, err, ms[0].N, ms[1].N)
	}
	if s := n.Stats(); s.TooShort != 1 {
		t.Errorf("counted %d, want 1", s.TooShort)
	}
}

func TestMalformedMessages(t *testing.T) {
	n, a, b := pair(t, Config{})
	good := udp.Message{Buf: []byte("good"), N: 4, Addr: addrB}
	for _, c := range []struct {
		name string
		f    func(*udp.Message)
		want error
	}{
		{"N beyond Buf", func(m *udp.Message) { m.N = 5 }, syscall.EINVAL},
		{"negative N", func(m *udp.Message) { m.N = -1 }, syscall.EINVAL},
		{"negative Segment", func(m *udp.Message) { m.Segment = -1 }, syscall.EINVAL},
		{"no address", func(m *udp.Message) { m.Addr = netip.AddrPort{} }, syscall.EAFNOSUPPORT},
		{"other family", func(m *udp.Message) { m.Addr = netip.MustParseAddrPort("[::1]:1") }, syscall.EAFNOSUPPORT},
		{"port zero", func(m *udp.Message) { m.Addr = netip.AddrPortFrom(addrB.Addr(), 0) }, syscall.EINVAL},
		{"other source", func(m *udp.Message) { m.Local = addrB.Addr() }, syscall.EINVAL},
		{"too large", func(m *udp.Message) { m.Buf = make([]byte, 65508); m.N = 65508 }, syscall.EMSGSIZE},
	} {
		bad := good
		c.f(&bad)
		if k, err := a.WriteBatch([]udp.Message{good, bad, good}); k != 1 || !errors.Is(err, c.want) {
			t.Errorf("%s: %d, %v; want 1, %v", c.name, k, err, c.want)
		}
		receive(t, b)
	}
	if s := balance(t, n); s.Sent != 8 {
		t.Errorf("%d sent, want 8", s.Sent)
	}
	if k, err := b.ReadBatch(nil); k != 0 || err != nil {
		t.Errorf("ReadBatch without messages: %d, %v", k, err)
	}
}

func TestSocketAddresses(t *testing.T) {
	n, a, _ := pair(t, Config{})
	for _, bad := range []netip.AddrPort{addrA, {}, netip.MustParseAddrPort("0.0.0.0:1"), netip.MustParseAddrPort("[::]:1")} {
		if _, err := n.Socket(bad); err == nil {
			t.Errorf("socket at %v opened", bad)
		}
	}
	x := open(t, n, netip.AddrPortFrom(addrA.Addr(), 0))
	y := open(t, n, netip.AddrPortFrom(addrA.Addr(), 0))
	if x.LocalAddr().Port() == 0 || x.LocalAddr() == y.LocalAddr() || x.LocalAddr().Addr() != addrA.Addr() {
		t.Errorf("free ports: %v and %v", x.LocalAddr(), y.LocalAddr())
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, n, addrA)
}

func TestClose(t *testing.T) {
	n, a, b := pair(t, Config{Link: Link{Delay: time.Hour}})
	send(t, a, addrB, []byte("never arrives"))
	done := make(chan error)
	for _, s := range []*Socket{a, b} {
		go func() {
			_, err := s.ReadBatch(newBatch(1))
			done <- err
		}()
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("reader of the closed socket: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("reader in the closed network: %v", err)
	}
	if err := errors.Join(n.Close(), a.Close()); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := b.WriteBatch([]udp.Message{{Addr: addrA}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writer in the closed network: %v", err)
	}
	if _, err := n.Socket(addrA); !errors.Is(err, net.ErrClosed) {
		t.Errorf("socket in the closed network: %v", err)
	}
	if n.Inject(Datagram{Src: addrA, Dst: addrB}) != 0 {
		t.Error("injected into the closed network")
	}
	balance(t, n)
}

// Senders, readers, changes of everything and Close at the same time; what
// comes of it is only that the books balance and nothing deadlocks.
func TestEverythingAtOnce(t *testing.T) {
	n, a, b := pair(t, Config{Seed: 9, QueueDatagrams: 64, Link: Link{
		Loss: 0.1, Duplicate: 0.1, Reorder: 0.1, Corrupt: 0.1, Delay: 100 * time.Microsecond, Jitter: 100 * time.Microsecond, Rate: 1e9,
	}})
	moved := netip.MustParseAddrPort("203.0.113.9:7777")
	var readers, writers sync.WaitGroup
	for _, s := range []*Socket{a, b} {
		readers.Go(func() {
			ms := newBatch(8)
			for {
				if _, err := s.ReadBatch(ms); err != nil {
					return
				}
			}
		})
	}
	buf := make([]byte, 4000)
	for range 2 {
		writers.Go(func() {
			for range 300 {
				_, _ = a.WriteBatch([]udp.Message{{Buf: buf, N: 4000, Segment: 1300, Addr: addrB}})
				_, _ = b.WriteBatch([]udp.Message{{Buf: buf, N: 100, Addr: addrA}, {Buf: buf, N: 100, Addr: moved}})
			}
		})
	}
	writers.Go(func() {
		for i := range 200 {
			n.Update(addrA.Addr(), addrB.Addr(), func(l *Link) { l.Blackhole = i%8 == 0; l.Delay = time.Duration(i%3) * 100 * time.Microsecond })
			if i%2 == 0 {
				_ = n.Rebind(addrA, moved)
			} else {
				_ = n.Rebind(moved, addrA)
			}
			n.SetTap(func(_, _ netip.AddrPort, p []byte) bool { p[0]++; return true })
			n.Record(10)
			n.Inject(n.Recorded()...)
			n.Stats()
		}
	})
	writers.Wait()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	readers.Wait()
	if s := balance(t, n); s.InFlight != 0 || s.Sent == 0 {
		t.Errorf("after Close: %+v", s)
	}
}

func TestNoAllocations(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Microsecond} {
		_, a, b := pair(t, Config{Link: Link{Delay: delay}})
		out := []udp.Message{{Buf: make([]byte, 14000), N: 14000, Segment: 1400, Addr: addrB}}
		in := newBatch(16)
		allocs := testing.AllocsPerRun(200, func() {
			if _, err := a.WriteBatch(out); err != nil {
				t.Fatal(err)
			}
			for left := 10; left > 0; {
				k, err := b.ReadBatch(in)
				if err != nil {
					t.Fatal(err)
				}
				left -= k
			}
		})
		if allocs > 0 && !raceEnabled { // sync.Pool forgets on purpose under the race detector
			t.Errorf("delay %v: %v allocations", delay, allocs)
		}
	}
}
