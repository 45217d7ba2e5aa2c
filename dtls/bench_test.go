package dtls

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/udp"
)

// nullSocket takes batches and gives none.
type nullSocket struct {
	closed chan struct{}
	bytes  int
}

func (s *nullSocket) ReadBatch([]udp.Message) (int, error) { <-s.closed; return 0, net.ErrClosed }
func (s *nullSocket) WriteBatch(ms []udp.Message) (int, error) {
	for _, m := range ms {
		s.bytes += m.N
	}
	return len(ms), nil
}
func (s *nullSocket) LocalAddr() netip.AddrPort { return netip.MustParseAddrPort(serverAddr) }
func (s *nullSocket) Close() error              { return nil }

// countEvents counts without allocating.
type countEvents struct{ records, bytes int }

func (c *countEvents) NewReceiver() Receiver      { return c }
func (c *countEvents) Established(*Association)   {}
func (c *countEvents) Closed(*Association, error) {}
func (c *countEvents) Flush()                     {}
func (c *countEvents) Receive(_ *Association, rs [][]byte) {
	for _, r := range rs {
		c.records++
		c.bytes += len(r)
	}
}

// bed is a worker with one association whose sealing side is at hand, without
// goroutines.
type bed struct {
	w    *worker
	a    *Association
	peer protector // what the peer seals with
	ev   *countEvents
	sock *nullSocket
	next uint64
}

func newBed(t testing.TB, s Suite, cid bool) *bed {
	t.Helper()
	ev := &countEvents{}
	e, err := New(Config{}, ev)
	check(t, err)
	sock := &nullSocket{closed: make(chan struct{})}
	w, err := e.enter(sock, false)
	check(t, err)
	t.Cleanup(func() { e.leave(w) })
	w.rcv = ev
	remote := netip.MustParseAddrPort(clientAddr)
	h := newHandshake(w, tuple{remote: remote}, false)
	t.Cleanup(func() { h.cancel(nil) })
	b := &bed{w: w, ev: ev, sock: sock, next: firstNumber}
	var id []byte
	if cid {
		h.cid = e.cids.add(0, h)
		id = h.cidBytes()
	}
	b.peer = *keyed(t, s, id)
	b.a = &Association{w: w, suite: s, limits: suites[s].limits, since: time.Now(), done: make(chan struct{}), localCID: h.cid}
	b.a.sealing, b.a.opening = b.peer, b.peer
	b.a.number.Store(firstNumber)
	b.a.paths.current.Store(&path{h.from, w})
	b.a.mu.Lock()
	if !w.establish(b.a, h) {
		t.Fatal("not established")
	}
	b.a.mu.Unlock()
	return b
}

// sealed gives n new records of the peer with size bytes of plaintext.
func (b *bed) sealed(n, size int) []byte {
	var sc scratch
	one := b.peer.head() + size + b.peer.tail()
	out := make([]byte, n*one)
	for i := range n {
		b.peer.seal(&sc, typeApplicationData, b.next, out[i*one:], size)
		b.next++
	}
	return out
}

var benchSuites = []Suite{ECDHEECDSAWithAES128GCM, ECDHEECDSAWithAES256GCM, ECDHEECDSAWithChaCha20}

// TestNoAllocations asserts that the packet path allocates nothing per record.
func TestNoAllocations(t *testing.T) {
	const batch, size = 44, 1400
	for _, s := range benchSuites {
		for _, cid := range []bool{false, true} {
			b := newBed(t, s, cid)
			head, tail := b.a.Overhead()
			one := head + size + tail
			buf := make([]byte, batch*one)
			if n := testing.AllocsPerRun(200, func() {
				if _, err := b.a.Seal(buf, size); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%v, cid %v: Seal allocates %v times", s, cid, n)
			}
			if n := testing.AllocsPerRun(200, func() {
				if err := b.a.Send(buf, one); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%v, cid %v: Send allocates %v times", s, cid, n)
			}
			const runs = 100
			in := make([][]byte, runs+2)
			for i := range in {
				in[i] = b.sealed(batch, size)
			}
			i := 0
			receive := func() {
				m := udp.Message{Buf: in[i], N: len(in[i]), Segment: one, Addr: netip.MustParseAddrPort(clientAddr)}
				i++
				b.w.message(&m)
				b.w.hand()
			}
			receive() // the run's slice grows
			if n := testing.AllocsPerRun(runs, receive); n != 0 {
				t.Errorf("%v, cid %v: receiving allocates %v times for %d records", s, cid, n, batch)
			}
			if b.ev.records != (runs+2)*batch || b.ev.bytes != b.ev.records*size {
				t.Errorf("%v, cid %v: %d records, %d bytes", s, cid, b.ev.records, b.ev.bytes)
			}
			b.ev.records, b.ev.bytes = 0, 0
			replay := slices.Clone(in[0])
			if n := testing.AllocsPerRun(runs, func() {
				m := udp.Message{Buf: replay, N: len(replay), Segment: one, Addr: netip.MustParseAddrPort(clientAddr)}
				b.w.message(&m)
				b.w.hand()
			}); n != 0 || b.ev.records != 0 {
				t.Errorf("%v, cid %v: replays allocate %v times, %d delivered", s, cid, n, b.ev.records)
			}
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, s := range benchSuites {
		for _, n := range []int{64, 1400} {
			b.Run(s.String()+"/"+sizeName(n), func(b *testing.B) {
				d := newBed(b, s, true)
				head, tail := d.a.Overhead()
				buf := make([]byte, head+n+tail)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := d.a.Seal(buf, n); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, s := range benchSuites {
		for _, n := range []int{64, 1400} {
			b.Run(s.String()+"/"+sizeName(n), func(b *testing.B) {
				d := newBed(b, s, true)
				rec := d.sealed(1, n)
				buf := make([]byte, len(rec))
				h, _, _ := parseHeader(rec)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					copy(buf, rec)
					d.a.window = window{}
					if _, _, _, drop := d.a.open(h, buf); drop != numDrops {
						b.Fatal(drop)
					}
				}
			})
		}
	}
}

// BenchmarkReceive is a whole batch of segmentation offload from the socket's
// buffer to the receiver.
func BenchmarkReceive(b *testing.B) {
	for _, cid := range []bool{false, true} {
		b.Run("cid="+map[bool]string{false: "no", true: "yes"}[cid], func(b *testing.B) {
			const batch, size = 44, 1400
			d := newBed(b, ECDHEECDSAWithAES128GCM, cid)
			in := d.sealed(batch, size)
			buf := make([]byte, len(in))
			m := udp.Message{Buf: buf, N: len(buf), Segment: len(in) / batch, Addr: netip.MustParseAddrPort(clientAddr)}
			b.SetBytes(batch * size)
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, in)
				d.a.window = window{}
				d.w.message(&m)
				d.w.hand()
			}
			if d.ev.bytes == 0 {
				b.Fatal("nothing received")
			}
		})
	}
}

func sizeName(n int) string {
	if n == 64 {
		return "64B"
	}
	return "1400B"
}
