package dtls

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// helloRecord records a real ClientHello of a world's client.
func helloRecord(t *testing.T, w *world) []byte {
	t.Helper()
	got := make(chan []byte, 1)
	w.net.setFilter(func(_, _ netip.AddrPort, b []byte) bool {
		select {
		case got <- append([]byte(nil), b...):
		default:
		}
		return false
	})
	w.client.cfg.HandshakeTimeout = 50 * time.Millisecond
	if _, err := w.connect(clientAddr); err == nil {
		t.Fatal("connected")
	}
	w.client.cfg.HandshakeTimeout = 30 * time.Second
	w.net.setFilter(nil)
	return <-got
}

// withRandom is a ClientHello of another client.
func withRandom(hello []byte, n int) []byte {
	b := append([]byte(nil), hello...)
	binary.BigEndian.PutUint64(b[headerLen+helloRandom:], uint64(n))
	return b
}

// TestHelloFlood begins many handshakes that are never continued: they are
// bounded for each source and in all, what is above is dropped and counted, and
// all memory and goroutines come back.
func TestHelloFlood(t *testing.T) {
	const perSource, total = 8, 100
	w := newWorld(t, func(w *world) {
		w.serverConfig.MaxHalfOpen, w.serverConfig.MaxHalfOpenPerSource = total, perSource
		w.serverConfig.HelloTimeout = 300 * time.Millisecond
	})
	hello := helloRecord(t, w)
	var in, out atomic.Int64
	w.net.setFilter(func(from, _ netip.AddrPort, b []byte) bool {
		out.Add(int64(len(b)))
		if f := flightOf(b); f != "verify request" {
			t.Errorf("answered an unverified source with %s", f)
		}
		return true
	})
	goroutines := runtime.NumGoroutine()
	peak := 0
	n := 0
	push := func(addr string) {
		n++
		in.Add(int64(len(hello)))
		w.serverSock.push(netip.MustParseAddrPort(addr), withRandom(hello, n))
	}
	for i := range 50 { // one host, many ports
		push(fmt.Sprintf("203.0.113.5:%d", 1000+i))
	}
	eventually(t, "drops of one IPv4 address", func() bool { return w.server.Stats().Drops[DropHalfOpenSource] == 50-perSource })
	for i := range 50 { // one /64, many addresses
		push(fmt.Sprintf("[2001:db8:1:2::%x]:1000", i))
	}
	eventually(t, "drops of one /64", func() bool { return w.server.Stats().Drops[DropHalfOpenSource] == 2*(50-perSource) })
	for i := range 1000 { // many hosts
		push(fmt.Sprintf("10.%d.%d.1:1000", i/256, i%256))
	}
	eventually(t, "drops of the total", func() bool {
		st := w.server.Stats()
		peak = max(peak, st.HalfOpen)
		return st.Drops[DropHalfOpenTotal]+st.Drops[DropHalfOpenSource]+st.HandshakesStarted == uint64(n)
	})
	if peak > total {
		t.Errorf("%d half-open handshakes, bound is %d", peak, total)
	}
	// A real client gets in once the flood's handshakes have expired.
	eventually(t, "expiry", func() bool { return w.server.Stats().HalfOpen == 0 })
	st := w.server.Stats()
	if st.Failures[FailHello] != st.HandshakesStarted {
		t.Errorf("%d of %d handshakes expired", st.Failures[FailHello], st.HandshakesStarted)
	}
	if out.Load() == 0 || out.Load() > in.Load() {
		t.Errorf("%d bytes answered to %d", out.Load(), in.Load())
	}
	w.net.setFilter(nil)
	eventually(t, "goroutines", func() bool { return runtime.NumGoroutine() <= goroutines })
	if n := len(w.server.caps.source); n != 0 {
		t.Errorf("%d sources remembered", n)
	}
	for wk := range w.server.workers {
		if len(wk.routes) != 0 {
			t.Errorf("%d routes remembered", len(wk.routes))
		}
	}
	if used := len(w.server.cids.slots) - 1 - len(w.server.cids.free); used > 0 {
		t.Errorf("%d connection IDs in use", used)
	}
	c, s := w.pair()
	w.alive(c, s)
}

// TestMaxAssociations refuses clients above the bound until one leaves.
func TestMaxAssociations(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.serverConfig.MaxAssociations = 2
		w.clientConfig.HandshakeTimeout = 200 * time.Millisecond
	})
	var as []*Association
	for i := range 2 {
		a, err := w.connect(fmt.Sprintf("198.51.100.7:%d", 5000+i))
		check(t, err)
		as = append(as, a)
	}
	eventually(t, "two associations", func() bool { return w.server.Stats().Associations == 2 })
	if _, err := w.connect("198.51.100.7:5002"); err == nil {
		t.Error("third association")
	}
	if n := w.server.Stats().Drops[DropAssociations]; n == 0 {
		t.Error("not counted")
	}
	check(t, as[0].Close(nil))
	eventually(t, "room", func() bool { return w.server.Stats().Associations == 1 })
	_, err := w.connect("198.51.100.7:5003")
	check(t, err)
}

// TestMaxPerIdentity connects clients of two identities that never close, as one
// that loses power does: the newest always get in, the oldest of the same
// identity ends.
func TestMaxPerIdentity(t *testing.T) {
	w := newWorld(t, func(w *world) { w.serverConfig.MaxPerIdentity = 3 })
	other, err := w.client.Dial(context.Background(), w.net.socket("198.51.100.8:1"), w.serverSock.addr, DialParams{PSK: &PreShared{"laptop", testPSK}})
	check(t, err)
	eventually(t, "association of the other identity", func() bool { return w.serverEvents.count() == 1 })
	otherServer := w.serverEvents.last()
	var cs, ss []*Association
	for i := range 5 {
		c, err := w.connect(fmt.Sprintf("198.51.100.7:%d", 5000+i))
		check(t, err)
		eventually(t, "association", func() bool { return w.serverEvents.count() == i+2 })
		cs, ss = append(cs, c), append(ss, w.serverEvents.last())
	}
	for i := range 5 {
		if i < 2 {
			eventually(t, "end of the oldest", func() bool {
				return errors.Is(w.serverEvents.reason(ss[i]), ErrSuperseded) && errors.Is(w.clientEvents.reason(cs[i]), ErrClosedByPeer)
			})
			continue
		}
		w.alive(cs[i], ss[i])
	}
	w.alive(other, otherServer)
	// One that closes makes room: nobody has to go.
	check(t, cs[3].Close(nil))
	eventually(t, "end", func() bool { return w.server.Stats().Associations == 3 })
	c, err := w.connect("198.51.100.7:5100")
	check(t, err)
	eventually(t, "association", func() bool { return w.serverEvents.count() == 7 })
	w.alive(c, w.serverEvents.last())
	w.alive(cs[2], ss[2])
	if st := w.server.Stats(); st.AssociationsSuperseded != 2 || st.AssociationsClosed != 3 {
		t.Errorf("%+v", st)
	}
	check(t, w.client.Close())
	eventually(t, "end of all", func() bool { return w.server.Stats().Associations == 0 })
	if n := len(w.server.idents.assocs); n != 0 {
		t.Errorf("%d identities left", n)
	}
}

// TestManyAssociations connects 50 clients at once, exchanges data and ends
// them, twice.
func TestManyAssociations(t *testing.T) {
	w := newWorld(t, func(w *world) { w.serverConfig.MaxHalfOpenPerSource = 100 })
	w.serverEvents.echo = true
	goroutines := runtime.NumGoroutine()
	for round := range 2 {
		var wg sync.WaitGroup
		var failed atomic.Int32
		for i := range 50 {
			wg.Go(func() {
				a, err := w.connect(fmt.Sprintf("198.51.100.7:%d", 5000+100*round+i))
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					failed.Add(1)
					return
				}
				for j := range 20 {
					if err := sendRecord(a, fmt.Appendf(nil, "%d/%d", i, j)); err != nil {
						t.Error(err)
					}
				}
				eventually(t, "echo", func() bool { return len(w.clientEvents.received(a)) == 20 })
				for j, b := range w.clientEvents.received(a) {
					if string(b) != fmt.Sprintf("%d/%d", i, j) {
						t.Errorf("client %d got %q", i, b)
					}
				}
				check(t, a.Close(nil))
				<-a.Done()
			})
		}
		wg.Wait()
		eventually(t, "end", func() bool { return w.server.Stats().Associations == 0 && runtime.NumGoroutine() <= goroutines })
	}
	if st := w.server.Stats(); st.HandshakesCompleted != 100 || st.AssociationsClosed != 100 {
		t.Errorf("%+v", st)
	}
	if used := len(w.server.cids.slots) - 1 - len(w.server.cids.free); used != 0 {
		t.Errorf("%d connection IDs in use", used)
	}
}

// TestLimits reaches each limit of a key.
func TestLimits(t *testing.T) {
	t.Run("records", func(t *testing.T) {
		w := newWorld(t, func(w *world) { w.clientConfig.Limits.Records = 10 })
		c, s := w.pair()
		for range 10 {
			check(t, sendRecord(c, []byte("x")))
		}
		if err := sendRecord(c, []byte("x")); !errors.Is(err, ErrExhausted) {
			t.Errorf("eleventh record: %v", err)
		}
		// It still receives, and says good-bye.
		check(t, sendRecord(s, []byte("y")))
		eventually(t, "data", func() bool { return len(w.clientEvents.received(c)) == 1 })
		check(t, c.Close(nil))
		eventually(t, "close_notify", func() bool { return errors.Is(w.serverEvents.reason(s), ErrClosedByPeer) })
	})
	t.Run("bytes", func(t *testing.T) {
		w := newWorld(t, func(w *world) { w.clientConfig.Limits.Bytes = 10000 })
		c, _ := w.pair()
		sent := 0
		for {
			err := sendRecord(c, make([]byte, 1000))
			if errors.Is(err, ErrExhausted) {
				break
			}
			check(t, err)
			sent++
		}
		if sent != 9 { // of 1046 bytes each
			t.Errorf("%d records", sent)
		}
	})
	t.Run("last number", func(t *testing.T) {
		w := newWorld(t, nil)
		c, s := w.pair()
		c.number.Store(maxRecords + firstNumber - 1)
		check(t, sendRecord(c, []byte("last")))
		if err := sendRecord(c, []byte("x")); !errors.Is(err, ErrExhausted) {
			t.Errorf("record beyond the last number: %v", err)
		}
		eventually(t, "data", func() bool { return len(w.serverEvents.received(s)) == 1 })
		w.net.setFilter(func(_, _ netip.AddrPort, b []byte) bool {
			t.Errorf("sent %x", b)
			return false
		})
		c.number.Store(hardLimit)
		check(t, c.Close(nil))
		<-c.Done()
		w.net.setFilter(nil)
	})
	t.Run("forgeries", func(t *testing.T) {
		w := newWorld(t, func(w *world) { w.serverConfig.Limits.OpenFailures = 5 })
		c, s := w.pair()
		for i := range 5 {
			if s.Err() != nil {
				t.Errorf("ended after %d: %v", i, s.Err())
			}
			w.serverSock.push(netip.MustParseAddrPort(clientAddr), cidRecord(1, 900, s.localCID, make([]byte, 60)))
			eventually(t, "count", func() bool { return w.server.Stats().Drops[DropOpenFailed] == uint64(i+1) })
		}
		eventually(t, "end", func() bool {
			return errors.Is(w.serverEvents.reason(s), ErrForgery) && errors.Is(w.clientEvents.reason(c), ErrClosedByPeer)
		})
	})
}
