package tcpip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// sum completes the checksum of a segment.
func sum(b []byte) []byte {
	b[16], b[17] = 0, 0
	binary.BigEndian.PutUint16(b[16:], ^checksum.Checksum(b, 0))
	return b
}

// acceptTo gives an OnFlow that accepts and hands the stream to c.
func acceptTo(t testing.TB, c chan *Stream) func(*Pending) {
	return func(p *Pending) {
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		s, err := p.Accept(ctx)
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		c <- s
	}
}

// connect opens session id from w.a to w.b.
func (w *wire) connect(t testing.TB, id uint64, accepted chan *Stream) (a, b *blocking) {
	t.Helper()
	s, err := w.a.Dial(testContext(t), id, 40000, 443)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	d := <-accepted
	return block(t, s), block(t, d)
}

func TestTunnelCarriesBothWays(t *testing.T) {
	for _, c := range []*wire{
		{size: 1300},
		{size: 1300, loss: 0.001},
		{size: 1300, reorder: 0.01},
		{size: 500, loss: 0.001, reorder: 0.01},
		{size: 65535},
	} {
		t.Run(fmt.Sprintf("size=%d,loss=%v,reorder=%v", c.size, c.loss, c.reorder), func(t *testing.T) {
			t.Parallel() // most of the time goes into TIME_WAIT
			accepted := make(chan *Stream, 1)
			w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(t, accepted)}, c)
			a, b := w.connect(t, 77, accepted)
			if a.Session() != 77 || a.Local().Addr() != SessionLocal(77) || a.Remote().Port() != 443 {
				t.Errorf("session %d from %s to %s", a.Session(), a.Local(), a.Remote())
			}
			n := 2 << 20
			transfer(t, a, b, n)
			transfer(t, b, a, n)
			// Both at once, then an orderly end.
			var wg sync.WaitGroup
			wg.Go(func() { transfer(t, a, b, n) })
			wg.Go(func() { transfer(t, b, a, n) })
			wg.Wait()
			a.CloseWrite()
			if _, err := b.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read after FIN gave %v", err)
			}
			transfer(t, b, a, 1<<20)
			b.CloseWrite()
			if _, err := a.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read after FIN gave %v", err)
			}
			a.Close()
			b.Close()
			eventually(t, "end of both endpoints", func() bool {
				return w.a.Stats().Ended == 1 && w.b.Stats().Ended == 1
			})
			for _, st := range []TunnelStats{w.a.Stats(), w.b.Stats()} {
				if st.DropChecksum+st.DropMalformed+st.DropNotTCP+st.DropPast != 0 {
					t.Errorf("drops: %+v", st)
				}
			}
		})
	}
}

func TestTunnelRefused(t *testing.T) {
	for _, reason := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.EACCES} {
		w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: func(p *Pending) { p.Refuse(reason) }}, &wire{})
		if _, err := w.a.Dial(testContext(t), 1, 1, 2); err != syscall.ECONNREFUSED {
			t.Errorf("%v: dial gave %v", reason, err)
		}
	}
	t.Run("nobody there", func(t *testing.T) {
		w := newWire(t, TunnelConfig{}, TunnelConfig{}, &wire{})
		if _, err := w.a.Dial(testContext(t), 1, 1, 2); err != syscall.ECONNREFUSED {
			t.Errorf("dial gave %v", err)
		}
	})
	t.Run("silence", func(t *testing.T) {
		w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: func(*Pending) {}}, &wire{})
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if _, err := w.a.Dial(ctx, 1, 1, 2); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial gave %v", err)
		}
	})
	t.Run("reason by Abort", func(t *testing.T) {
		var w *wire
		w = newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: func(*Pending) { w.a.Abort(9, syscall.ENETUNREACH) }}, &wire{})
		if _, err := w.a.Dial(testContext(t), 9, 1, 2); err != syscall.ENETUNREACH {
			t.Errorf("dial gave %v", err)
		}
		if n := len(w.a.stack.RegisteredEndpoints()); n != 0 {
			t.Errorf("%d endpoints left", n)
		}
	})
	t.Run("not admitted", func(t *testing.T) {
		w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: func(*Pending) {}, Admit: func(uint64) bool { return false }}, &wire{})
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if _, err := w.a.Dial(ctx, 1, 1, 2); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial gave %v", err)
		}
		if st := w.b.Stats(); st.DropNotAdmitted != 1 || st.Offered != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestOutstandingCountsTheFIN(t *testing.T) {
	accepted := make(chan *Stream, 1)
	w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(t, accepted)}, &wire{delay: 20 * time.Millisecond})
	a, b := w.connect(t, 1, accepted)
	for _, s := range []*blocking{a, b} { // by FIN-WAIT-1 and by LAST-ACK
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n := s.Outstanding(); n != 1 {
			t.Errorf("%d bytes outstanding while the FIN is on its way", n)
		}
		eventually(t, "acknowledgement of the FIN", func() bool { return s.Outstanding() == 0 })
	}
	a.Close()
	b.Close()
}

func TestTunnelIdsAreUsedOnce(t *testing.T) {
	accepted := make(chan *Stream, 1)
	w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(t, accepted)}, &wire{})
	a, _ := w.connect(t, 5, accepted)
	if _, err := w.a.Dial(testContext(t), 5, 1, 2); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("id in use: dial gave %v", err)
	}
	a.Reset()
	if _, err := w.a.Dial(testContext(t), 5, 1, 2); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("id used before: dial gave %v", err)
	}
}

// TestTunnelSYNRunsOneHandler repeats a SYN in every state that a session has.
func TestTunnelSYNRunsOneHandler(t *testing.T) {
	var handlers atomic.Int32
	release := make(chan struct{})
	verdict := make(chan error, 1)
	tun, err := NewTunnel(TunnelConfig{OnFlow: func(p *Pending) {
		handlers.Add(1)
		<-release
		p.Refuse(syscall.ETIMEDOUT)
		_, err := p.Accept(context.Background())
		verdict <- err
	}}, releaseAll)
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	in := tun.NewInjector()
	syn := segment(FlagSYN, 100, 0, nil, nil)
	for range 10 {
		in.Inject(42, syn)
	}
	in.Flush()
	eventually(t, "a handler", func() bool { return handlers.Load() == 1 })
	for range 10 {
		in.Inject(42, syn)
	}
	in.Flush()
	close(release)
	if err := <-verdict; err != syscall.ETIMEDOUT {
		t.Errorf("Accept after Refuse gave %v", err)
	}
	eventually(t, "settlement", func() bool { return tun.Stats().Unopened == 1 })
	for range 10 {
		in.Inject(42, syn)
	}
	in.Flush()
	if st := tun.Stats(); handlers.Load() != 1 || st.Offered != 1 || st.DropPast != 10 {
		t.Errorf("%d handlers, %+v", handlers.Load(), st)
	}
}

func releaseAll(segs []*Segment) {
	for _, s := range segs {
		s.Release()
	}
}

// TestResetIsNeverAnOrderlyEnd has a reset meet a Read and a Write that run.
func TestResetIsNeverAnOrderlyEnd(t *testing.T) {
	accepted := make(chan *Stream, 1)
	w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(t, accepted)}, &wire{})
	for id := range uint64(100) {
		a, b := w.connect(t, id, accepted)
		var wg sync.WaitGroup
		for _, try := range []func() error{
			func() error { _, err := b.Stream.Read(make([]byte, 1)); return err },
			func() error { _, err := b.Stream.Write(make([]byte, 1)); return err },
			func() error { return b.Err() },
		} {
			wg.Go(func() {
				for deadline := time.Now().Add(testTimeout); time.Now().Before(deadline); {
					if err := try(); err != nil && err != syscall.EAGAIN {
						if err != syscall.ECONNRESET {
							t.Errorf("session %d: %v", id, err)
						}
						return
					}
				}
				t.Error("no end")
			})
		}
		a.Reset()
		wg.Wait()
		b.Close()
	}
}

func TestTunnelPendingCap(t *testing.T) {
	tun, err := NewTunnel(TunnelConfig{MaxPending: 2, OnFlow: func(p *Pending) { <-p.Done() }}, releaseAll)
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	in := tun.NewInjector()
	for id := range uint64(5) {
		in.Inject(id, segment(FlagSYN, 1, 0, nil, nil))
	}
	in.Flush()
	if st := tun.Stats(); st.Offered != 2 || st.DropPending != 3 {
		t.Errorf("%+v", st)
	}
}

func TestTunnelReset(t *testing.T) {
	accepted := make(chan *Stream, 1)
	w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(t, accepted)}, &wire{})
	t.Run("Reset", func(t *testing.T) {
		a, b := w.connect(t, 1, accepted)
		a.Write([]byte("last words"))
		eventually(t, "delivery", func() bool { return a.Outstanding() == 0 })
		a.Reset()
		eventually(t, "hang-up", b.hup.Load)
		buf := make([]byte, 100)
		if n, err := b.Read(buf); string(buf[:n]) != "last words" || err != nil {
			t.Errorf("read gave %q, %v", buf[:n], err)
		}
		if _, err := b.Read(buf); err != syscall.ECONNRESET {
			t.Errorf("read gave %v", err)
		}
		if _, err := a.Stream.Read(buf); err != net.ErrClosed {
			t.Errorf("own read gave %v", err)
		}
		b.Close()
	})
	t.Run("Abort", func(t *testing.T) {
		a, b := w.connect(t, 2, accepted)
		w.a.Abort(2, syscall.EHOSTUNREACH)
		if _, err := a.Read(make([]byte, 1)); err != syscall.EHOSTUNREACH {
			t.Errorf("read gave %v", err)
		}
		if _, err := a.Write(make([]byte, 1)); err != syscall.EHOSTUNREACH {
			t.Errorf("write gave %v", err)
		}
		if _, err := b.Read(make([]byte, 1)); err != syscall.ECONNRESET {
			t.Errorf("peer's read gave %v", err)
		}
		a.Close()
		b.Close()
	})
	t.Run("stray segment", func(t *testing.T) {
		// A session that the other side does not know is answered by RST
		// under its own id.
		out := make(chan *Segment, 8)
		tun, err := NewTunnel(TunnelConfig{}, func(segs []*Segment) {
			for _, s := range segs {
				out <- s
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer tun.Close()
		in := tun.NewInjector()
		in.Inject(0xabc, segment(FlagACK, 5, 9, nil, []byte("data")))
		in.Flush()
		s := <-out
		defer s.Release()
		buf := make([]byte, 100)
		n := s.Cut(buf, true)
		if s.Session() != 0xabc || s.Flags()&FlagRST == 0 || binary.BigEndian.Uint32(buf[4:]) != 9 || checksum.Checksum(buf[:n], 0) != 0xffff {
			t.Errorf("answer to session %#x: % x", s.Session(), buf[:n])
		}
	})
}

// TestTunnelAbsorbs: for a reader that never reads, a pair of tunnel stacks
// takes in no more than the initial buffers, so that the whole path stays
// below 1 MiB.
func TestTunnelAbsorbs(t *testing.T) {
	accepted := make(chan *Stream, 1)
	w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(t, accepted)}, &wire{})
	a, b := w.connect(t, 1, accepted)
	defer b.Close()
	defer a.Reset()
	buf := make([]byte, 32<<10)
	n := 0
	for idle := 0; idle < 20; {
		k, err := a.Stream.Write(buf)
		n += k
		if err != nil && err != syscall.EAGAIN {
			t.Fatal(err)
		}
		if k > 0 {
			idle = 0
			continue
		}
		idle++
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("absorbed %d bytes", n)
	if n > 200<<10 {
		t.Errorf("absorbed %d bytes", n)
	}
}

// TestBuffersGrow: once growAfter bytes have moved to a reader, buffers grow,
// not before.
func TestBuffersGrow(t *testing.T) {
	accepted := make(chan *Stream, 1)
	w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(t, accepted)}, &wire{})
	a, b := w.connect(t, 1, accepted)
	transfer(t, a, b, growAfter-1)
	if s, r := a.Info().SendBuffer, b.Info().RecvBuffer; s != defaultTunnelSend || r != defaultTunnelRecv {
		t.Errorf("buffers %d and %d before enough has moved", s, r)
	}
	transfer(t, a, b, 32<<20)
	s, r := a.Info().SendBuffer, b.Info().RecvBuffer
	t.Logf("send buffer %d, receive buffer %d", s, r)
	if s <= defaultTunnelSend || r <= defaultTunnelRecv || s > defaultTunnelMax || r > defaultTunnelMax {
		t.Errorf("buffers %d and %d after 32 MiB", s, r)
	}
	if s := b.Info().SendBuffer; s != defaultTunnelSend {
		t.Errorf("send buffer of the idle direction %d", s)
	}
	b.SetBuffers(0, 1<<20)
	if s := b.Info().SendBuffer; s != 1<<20 {
		t.Errorf("send buffer %d after SetBuffers", s)
	}
}

func TestTunnelKeepaliveTimesOut(t *testing.T) {
	accepted := make(chan *Stream, 1)
	w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(t, accepted)}, &wire{})
	a, b := w.connect(t, 1, accepted)
	b.ep.Abort() // the RST is lost below
	eventually(t, "hang-up", a.hup.Load)
	if a.Err() != syscall.ECONNRESET {
		t.Errorf("error %v", a.Err())
	}
	c, d := w.connect(t, 2, accepted)
	c.SetKeepalive(20*time.Millisecond, 10*time.Millisecond, 2)
	w.mu.Lock()
	clear(w.toB) // from now on nothing reaches the other side
	w.mu.Unlock()
	if _, err := c.Read(make([]byte, 1)); err != syscall.ETIMEDOUT {
		t.Errorf("read gave %v", err)
	}
	c.Close()
	d.Reset()
}

// TestTunnelManyFlows opens and closes 2000 flows, 200 at a time, and looks for
// what is left of them.
func TestTunnelManyFlows(t *testing.T) {
	accepted := make(chan *Stream, 200)
	w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(t, accepted)}, &wire{})
	var servers sync.WaitGroup
	servers.Go(func() {
		for range 2000 {
			b := block(t, <-accepted)
			servers.Go(func() {
				io.Copy(b, b)
				b.CloseWrite()
				b.Close()
			})
		}
	})
	id := atomic.Uint64{}
	var clients sync.WaitGroup
	for range 200 {
		clients.Go(func() {
			for range 10 {
				s, err := w.a.Dial(testContext(t), id.Add(1), 40000, 443)
				if err != nil {
					t.Errorf("dial: %v", err)
					return
				}
				a := block(t, s)
				transfer(t, a, a, 20_000)
				a.CloseWrite()
				if _, err := a.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("read gave %v", err)
				}
				a.Close()
			}
		})
	}
	clients.Wait()
	servers.Wait()
	for _, tun := range []*Tunnel{w.a, w.b} {
		eventually(t, "end of all endpoints", func() bool {
			st := tun.Stats()
			return st.Ended == 2000 && st.Opened == 2000 && len(tun.stack.RegisteredEndpoints()) == 0 && len(tun.stack.CleanupEndpoints()) == 0
		})
		tun.mu.Lock()
		if len(tun.live) != 0 || tun.pending != 0 {
			t.Errorf("%d sessions and %d pending left", len(tun.live), tun.pending)
		}
		tun.mu.Unlock()
	}
}

func TestTunnelClose(t *testing.T) {
	accepted := make(chan *Stream, 1)
	w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: func(p *Pending) {
		if p.Src().Port() == 1 {
			<-p.Done()
			return
		}
		acceptTo(t, accepted)(p)
	}}, &wire{})
	a, b := w.connect(t, 1, accepted)
	dialed := make(chan error, 1)
	go func() {
		_, err := w.a.Dial(context.Background(), 99, 1, 2)
		dialed <- err
	}()
	eventually(t, "dial", func() bool { return w.a.Stats().Opened == 2 })
	for range 2 {
		if err := w.a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-dialed; err == nil {
		t.Error("dial survived Close")
	}
	if _, err := a.Read(make([]byte, 1)); err != syscall.ECONNABORTED {
		t.Errorf("read after Close gave %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); err != syscall.ECONNRESET {
		t.Errorf("peer's read gave %v", err)
	}
	if _, err := w.a.Dial(context.Background(), 100, 1, 2); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial after Close gave %v", err)
	}
	a.Close()
	b.Close()
}

func TestTunnelConfigIsChecked(t *testing.T) {
	for _, c := range []TunnelConfig{{MTU: 1279}, {MTU: 65536}, {MaxSegment: 65375}, {MaxSegment: 100}, {MaxRTO: time.Millisecond}} {
		if _, err := NewTunnel(c, releaseAll); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
