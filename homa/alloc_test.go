package homa

import (
	"testing"
)

// loop is two engines back to back, without faults, delays or checks, and with
// buffers that are used again.
type loop struct {
	e    [2]*Engine
	now  Instant
	body []byte
	read []byte
	out  []byte
}

func newLoop(t testing.TB, config Config) *loop {
	l := &loop{body: pattern(1_000_000, 1), read: make([]byte, 64<<10), out: make([]byte, 0, 2048), now: ms}
	for i := range l.e {
		var err error
		if l.e[i], err = New(config); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.e[1].Listen(4000); err != nil {
		t.Fatal(err)
	}
	return l
}

// run moves packets and events until nothing moves, and returns how many packets
// did. The server answers with answer bytes.
func (l *loop) run(t testing.TB, answer int) (packets, completed int) {
	for again := true; again; {
		again = false
		for i, e := range l.e {
			from := clientAddr
			if i == 1 {
				from = serverAddr
			}
			for {
				out, ok := e.Transmit(l.now, l.out[:0])
				if !ok {
					break
				}
				again = true
				packets++
				l.e[1-i].Receive(l.now, from, out.Packet)
			}
			for {
				event, ok := e.Event()
				if !ok {
					break
				}
				again = true
				r := event.RPC
				switch event.Kind {
				case Readable:
					l.drain(r)
				case Complete:
					l.drain(r)
					if i == 0 {
						completed++
						break
					}
					if err := r.Reply(l.now, answer); err != nil {
						t.Fatal(err)
					}
					l.write(t, r)
				case Writable:
					l.write(t, r)
				case Failed:
					t.Fatal(event.Err)
				}
			}
		}
	}
	return packets, completed
}

func (l *loop) drain(r *RPC) {
	for {
		if n, _ := r.Read(l.now, l.read); n == 0 {
			return
		}
	}
}

func (l *loop) write(t testing.TB, r *RPC) {
	if _, err := r.Write(l.now, l.body[:r.Unwritten()]); err != nil {
		t.Fatal(err)
	}
}

func (l *loop) call(t testing.TB, length int) *RPC {
	r, err := l.e[0].Call(l.now, CallOptions{To: server, Length: length})
	if err != nil {
		t.Fatal(err)
	}
	l.write(t, r)
	return r
}

// TestAllocations checks that packets cost nothing: an RPC of 700 packets each way
// allocates no more than one of two, but for the lists of its chunks.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, c := range []struct {
		length int
		most   float64
	}{{100, 2}, {1_000_000, 6}} {
		l := newLoop(t, Config{TombstoneLife: -1})
		packets := 0
		once := func() {
			l.call(t, c.length)
			n, completed := l.run(t, c.length)
			packets = n
			if completed != 1 {
				t.Fatal("the call did not complete")
			}
			l.now += 10 * ms
			for _, e := range l.e {
				e.Advance(l.now) // the server asks for an acknowledgement
			}
			l.run(t, c.length)
		}
		for range 20 {
			once()
		}
		if got := testing.AllocsPerRun(50, once); got > c.most {
			t.Errorf("an RPC of %d bytes and %d packets allocates %v times, at most %v", c.length, packets, got, c.most)
		}
	}
}

func benchmarkCall(b *testing.B, length int, config Config) {
	l := newLoop(b, config)
	b.ReportAllocs()
	b.SetBytes(2 * int64(length))
	packets := 0
	for b.Loop() {
		l.call(b, length)
		n, _ := l.run(b, length)
		packets += n
		l.now += 10_000
		for _, e := range l.e {
			e.Advance(l.now)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets), "ns/packet")
}

func BenchmarkCall100(b *testing.B) { benchmarkCall(b, 100, Config{}) }
func BenchmarkCall10k(b *testing.B) { benchmarkCall(b, 10_000, Config{}) }
func BenchmarkCall1MB(b *testing.B) { benchmarkCall(b, 1_000_000, Config{}) }
func BenchmarkPaced1k(b *testing.B) { benchmarkCall(b, 1000, Config{LinkRate: 100_000_000_000}) }
func BenchmarkWindow(b *testing.B)  { benchmarkCall(b, 1_000_000, Config{ReceiveWindow: 100_000}) }

// BenchmarkOutstanding measures a call while 10,000 others wait for responses.
func BenchmarkOutstanding(b *testing.B) {
	l := newLoop(b, Config{})
	for range 10_000 {
		l.call(b, 100)
		for {
			if _, ok := l.e[0].Transmit(l.now, l.out[:0]); !ok {
				break
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		l.call(b, 100)
		l.run(b, 100)
	}
}
