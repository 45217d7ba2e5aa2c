package simnet

import (
	"bytes"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tougw/tougw/internal/udp"
)

func TestChances(t *testing.T) {
	const total = 8000
	for _, c := range []struct {
		name  string
		link  Link
		count func(Stats) uint64
		p     float64
	}{
		{"loss", Link{Loss: 0.1}, func(s Stats) uint64 { return s.Lost }, 0.1},
		{"loss of all", Link{Loss: 1}, func(s Stats) uint64 { return s.Lost }, 1},
		{"duplicate", Link{Duplicate: 0.05}, func(s Stats) uint64 { return s.Duplicated }, 0.05},
		{"corrupt", Link{Corrupt: 0.5}, func(s Stats) uint64 { return s.Corrupted }, 0.5},
		{"reorder", Link{Reorder: 0.01}, func(s Stats) uint64 { return s.Reordered }, 0.01},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				run := func(seed int64) (Stats, []uint32) {
					n, a, b := pair(t, Config{Seed: seed, Link: c.link, QueueDatagrams: 2 * total})
					numbered(t, a, addrB, total, 100)
					time.Sleep(time.Second)
					s := balance(t, n)
					if s.InFlight != 0 {
						t.Errorf("%d datagrams still on their way", s.InFlight)
					}
					return s, drain(t, b)
				}
				s, got := run(1)
				// Five standard deviations of a binomial distribution.
				k, want, dev := float64(c.count(s)), c.p*total, 5*math.Sqrt(total*c.p*(1-c.p))
				if math.Abs(k-want) > dev {
					t.Errorf("happened to %v of %d, want %v±%v", k, total, want, dev)
				}
				if _, again := run(1); !slices.Equal(got, again) {
					t.Error("one seed gave two outcomes")
				}
				if c.p == 1 {
					return
				}
				if _, other := run(2); slices.Equal(got, other) && c.name != "corrupt" {
					t.Error("two seeds gave one outcome")
				}
			})
		})
	}
}

func TestCorruptFlipsOneBit(t *testing.T) {
	_, a, b := pair(t, Config{Link: Link{Corrupt: 1}})
	sent := make([]byte, 50)
	for range 100 {
		send(t, a, addrB, sent)
		got, _ := receive(t, b)
		bits := 0
		for _, x := range got {
			for ; x != 0; x &= x - 1 {
				bits++
			}
		}
		if bits != 1 || len(got) != len(sent) {
			t.Fatalf("%d bits flipped", bits)
		}
	}
	if !bytes.Equal(sent, make([]byte, 50)) {
		t.Error("the sender's buffer was changed")
	}
	send(t, a, addrB, nil) // nothing to flip
	receive(t, b)
}

func TestDuplicatesFollowEachOther(t *testing.T) {
	_, a, b := pair(t, Config{Link: Link{Duplicate: 1}})
	numbered(t, a, addrB, 3, 4)
	if got := drain(t, b); !slices.Equal(got, []uint32{0, 0, 1, 1, 2, 2}) {
		t.Errorf("arrived: %v", got)
	}
}

func TestReorderLetsLaterOnesPass(t *testing.T) {
	for _, delay := range []time.Duration{0, 50 * time.Millisecond} {
		t.Run(delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, a, b := pair(t, Config{Seed: 3, Link: Link{Reorder: 0.1, ReorderDelay: 3 * time.Millisecond, Delay: delay}})
				b4 := make([]byte, 4)
				for i := range 1000 {
					binary.BigEndian.PutUint32(b4, uint32(i))
					send(t, a, addrB, b4)
					time.Sleep(time.Millisecond)
				}
				time.Sleep(delay + 3*time.Millisecond)
				got := drain(t, b)
				if len(got) != 1000 {
					t.Fatalf("%d of 1000 arrived", len(got))
				}
				late, far := 0, 0
				for i, x := range got {
					if i > 0 && x < got[i-1] {
						late++
					}
					far = max(far, i-int(x))
				}
				if s := balance(t, n); late == 0 || late > int(s.Reordered) {
					t.Errorf("%d out of order, %d reordered", late, s.Reordered)
				}
				if far > 3 { // up to 3 ms at 1 ms each
					t.Errorf("a datagram was overtaken by %d others", far)
				}
			})
		})
	}
}

func TestDelayAndJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := pair(t, Config{Seed: 1})
		n.SetLink(addrA.Addr(), addrB.Addr(), Link{Delay: 30 * time.Millisecond})
		start := time.Now()
		send(t, a, addrB, []byte("there"))
		receive(t, b)
		if d := time.Since(start); d != 30*time.Millisecond {
			t.Errorf("there after %v, want 30ms", d)
		}
		start = time.Now()
		send(t, b, addrA, []byte("back"))
		receive(t, a)
		if d := time.Since(start); d != 0 {
			t.Errorf("back after %v, want at once", d)
		}

		n.SetLink(addrA.Addr(), addrB.Addr(), Link{Delay: 30 * time.Millisecond, Jitter: 10 * time.Millisecond})
		var least, most time.Duration = time.Hour, 0
		var wg sync.WaitGroup
		var sent [500]time.Time
		wg.Go(func() {
			b4 := make([]byte, 4)
			for i := range sent {
				binary.BigEndian.PutUint32(b4, uint32(i))
				sent[i] = time.Now()
				send(t, a, addrB, b4)
				time.Sleep(20 * time.Millisecond)
			}
		})
		for i := range sent {
			p, _ := receive(t, b)
			if k := binary.BigEndian.Uint32(p); k != uint32(i) {
				t.Fatalf("datagram %d came as number %d", k, i)
			}
			d := time.Since(sent[i])
			least, most = min(least, d), max(most, d)
		}
		wg.Wait()
		if least < 30*time.Millisecond || least > 31*time.Millisecond || most > 40*time.Millisecond || most < 39*time.Millisecond {
			t.Errorf("delays from %v to %v, want 30ms to 40ms", least, most)
		}

		// Jitter far above the distance of datagrams keeps their order, and so
		// does the end of all delay.
		numbered(t, a, addrB, 50, 4)
		n.SetLink(addrA.Addr(), addrB.Addr(), Link{})
		send(t, a, addrB, []byte{0, 0, 0, 50})
		for i := range 51 {
			p, _ := receive(t, b)
			if k := binary.BigEndian.Uint32(p); k != uint32(i) {
				t.Fatalf("datagram %d came as number %d", k, i)
			}
		}
		balance(t, n)
	})
}

func TestMTU(t *testing.T) {
	n, a4, b4 := pair(t, Config{Link: Link{MTU: 1280}})
	a6 := open(t, n, netip.MustParseAddrPort("[2001:db8::1]:1"))
	b6 := open(t, n, netip.MustParseAddrPort("[2001:db8::2]:1"))
	for _, c := range []struct {
		from, to *Socket
		fits     int
	}{{a4, b4, 1252}, {a6, b6, 1232}} {
		send(t, c.from, c.to.LocalAddr(), make([]byte, c.fits+1))
		send(t, c.from, c.to.LocalAddr(), make([]byte, c.fits))
		if p, _ := receive(t, c.to); len(p) != c.fits {
			t.Errorf("%d bytes passed, want %d", len(p), c.fits)
		}
		if s := n.LinkStats(c.from.LocalAddr().Addr(), c.to.LocalAddr().Addr()); s.TooBig != 1 {
			t.Errorf("counted %d too big, want 1", s.TooBig)
		}
	}
	balance(t, n)
}

func TestRateAndQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// 1000-byte packets at 8 Mbit/s: one a millisecond.
		n, a, b := pair(t, Config{Link: Link{Rate: 8_000_000, Queue: 10_000, Delay: 5 * time.Millisecond}})
		start := time.Now()
		numbered(t, a, addrB, 25, 1000-overhead4)
		for i := range 10 {
			p, _ := receive(t, b)
			if k := binary.BigEndian.Uint32(p); k != uint32(i) {
				t.Fatalf("datagram %d came as number %d", k, i)
			}
			if d, want := time.Since(start), time.Duration(i+1+5)*time.Millisecond; d != want {
				t.Errorf("datagram %d after %v, want %v", i, d, want)
			}
		}
		if s := balance(t, n); s.QueueFull != 15 || s.InFlight != 0 {
			t.Errorf("%d dropped and %d on their way, want 15 and 0", s.QueueFull, s.InFlight)
		}
		// A packet above the whole queue passes when nothing waits.
		time.Sleep(time.Second)
		send(t, a, addrB, make([]byte, 20_000))
		receive(t, b)
		// Within the rate nothing waits longer than its own time.
		for range 5 {
			time.Sleep(time.Millisecond)
			start = time.Now()
			send(t, a, addrB, make([]byte, 1000-overhead4))
			receive(t, b)
			if d := time.Since(start); d != 6*time.Millisecond {
				t.Errorf("after %v, want 6ms", d)
			}
		}
	})
}

func TestBlackholeIsOneWayAndSwitchable(t *testing.T) {
	n, a, b := pair(t, Config{})
	hole := func(on bool) {
		n.Update(addrA.Addr(), addrB.Addr(), func(l *Link) { l.Blackhole = on })
	}
	hole(true)
	send(t, a, addrB, []byte("lost"))
	send(t, b, addrA, []byte("not lost"))
	receive(t, a)
	hole(false)
	send(t, a, addrB, []byte("found"))
	if p, _ := receive(t, b); string(p) != "found" {
		t.Errorf("received %q", p)
	}
	if s := balance(t, n); s.Blackholed != 1 {
		t.Errorf("counted %d, want 1", s.Blackholed)
	}
	n.SetDefault(Link{Blackhole: true})
	if n.Link(addrA.Addr(), addrB.Addr()).Blackhole || !n.Link(addrB.Addr(), addrA.Addr()).Blackhole {
		t.Error("the default must rule directions without their own properties, and only these")
	}
}

func BenchmarkPath(b *testing.B) {
	for _, c := range []struct {
		name string
		link Link
	}{
		{"clean", Link{}},
		{"delay", Link{Delay: 100 * time.Microsecond}},
		{"all faults", Link{Delay: 100 * time.Microsecond, Jitter: 50 * time.Microsecond, Loss: 0.01, Duplicate: 0.01, Reorder: 0.01, Corrupt: 0.01}},
	} {
		b.Run(c.name, func(b *testing.B) {
			const size = 44 * 1400
			n, x, y := pair(b, Config{Seed: 1, Link: c.link})
			out := []udp.Message{{Buf: make([]byte, size), N: size, Segment: 1400, Addr: addrB}}
			done := make(chan struct{})
			go func() {
				defer close(done)
				in := newBatch(64)
				for {
					if _, err := y.ReadBatch(in); err != nil {
						return
					}
				}
			}()
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.WriteBatch(out); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			if err := n.Close(); err != nil {
				b.Fatal(err)
			}
			<-done
		})
	}
}
