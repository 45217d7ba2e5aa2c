package tcpip

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tougw/tougw/tcpip/tcptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testTimeout = 30 * time.Second

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls a condition until it holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(testTimeout)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, testTimeout)
		}
		time.Sleep(time.Millisecond)
	}
}

// blocking gives a Stream blocking reads and writes.
type blocking struct {
	*Stream
	t        testing.TB
	rd, wr   chan struct{}
	hup      atomic.Bool
	deadline time.Time
}

func block(t testing.TB, s *Stream) *blocking {
	b := &blocking{Stream: s, t: t, rd: make(chan struct{}, 1), wr: make(chan struct{}, 1), deadline: time.Now().Add(testTimeout)}
	wake := func(c chan struct{}) {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	s.SetNotify(func(ev Ready) {
		if ev&Readable != 0 {
			wake(b.rd)
		}
		if ev&Writable != 0 {
			wake(b.wr)
		}
		if ev&Hup != 0 {
			b.hup.Store(true)
		}
	})
	return b
}

var errTest = errors.New("test time-out")

func (b *blocking) wait(c chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-time.After(time.Until(b.deadline)):
		return errTest
	}
}

func (b *blocking) Read(p []byte) (int, error) {
	for {
		n, err := b.Stream.Read(p)
		if err != syscall.EAGAIN {
			return n, err
		}
		if err := b.wait(b.rd); err != nil {
			return 0, err
		}
	}
}

func (b *blocking) Write(p []byte) (int, error) {
	done := 0
	for {
		n, err := b.Stream.Write(p[done:])
		done += n
		if err != syscall.EAGAIN {
			return done, err
		}
		if err := b.wait(b.wr); err != nil {
			return done, err
		}
	}
}

// rig is an edge with an application host in front of it.
type rig struct {
	t    testing.TB
	host *tcptest.Host
	dev  *tcptest.Device
	edge *Edge
	// flows gets each Pending; its handler waits until it is decided.
	flows chan *Pending
}

// newRig starts an edge. With flow nil, Pendings go to rig.flows.
func newRig(t testing.TB, cfg EdgeConfig, net tcptest.Config, flow func(*Pending)) *rig {
	t.Helper()
	r := &rig{t: t, flows: make(chan *Pending, 64)}
	r.dev, r.host = tcptest.NewPair(net)
	cfg.TSO = net.TSO
	cfg.OnFlow = flow
	if flow == nil {
		cfg.OnFlow = func(p *Pending) {
			r.flows <- p
			settledOrDone(p)
		}
	}
	var err error
	if r.edge, err = NewEdge(cfg, r.dev); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.edge.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		r.dev.Close()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		r.host.Close()
		if n := r.dev.Bad.Load(); n > 0 {
			t.Errorf("%d malformed packets, the first: %s", n, *r.dev.FirstBad.Load())
		}
	})
	return r
}

// settledOrDone waits until somebody decided p.
func settledOrDone(p *Pending) {
	for {
		p.mu.Lock()
		settled := p.state == pendingSettled
		p.mu.Unlock()
		if settled {
			return
		}
		select {
		case <-p.done:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// connect opens a connection through the edge and gives both ends.
func (r *rig) connect(dst string) (*tcptest.Conn, *blocking) {
	r.t.Helper()
	ctx := testContext(r.t)
	type result struct {
		s   *Stream
		err error
	}
	accepted := make(chan result, 1)
	go func() {
		s, err := (<-r.flows).Accept(ctx)
		accepted <- result{s, err}
	}()
	c, err := r.host.Dial(ctx, netip.MustParseAddrPort(dst))
	if err != nil {
		r.t.Fatalf("dial %s: %v", dst, err)
	}
	a := <-accepted
	if a.err != nil {
		r.t.Fatalf("accept: %v", a.err)
	}
	r.t.Cleanup(func() {
		c.Close()
		a.s.Reset()
	})
	c.SetDeadline(time.Now().Add(testTimeout))
	return c, block(r.t, a.s)
}

// transfer sends n random bytes from w to r and compares what arrives.
func transfer(t testing.TB, w io.Writer, r io.Reader, n int) {
	t.Helper()
	var wg sync.WaitGroup
	sent, got := sha256.New(), sha256.New()
	wg.Go(func() {
		src := rand.NewChaCha8([32]byte{1})
		buf := make([]byte, 100_000)
		for left := n; left > 0; {
			b := buf[:min(left, len(buf))]
			src.Read(b)
			sent.Write(b)
			if _, err := w.Write(b); err != nil {
				t.Errorf("write after %d of %d: %v", n-left, n, err)
				return
			}
			left -= len(b)
		}
	})
	if k, err := io.CopyN(got, r, int64(n)); err != nil {
		t.Errorf("read %d of %d: %v", k, n, err)
	}
	wg.Wait()
	if string(sent.Sum(nil)) != string(got.Sum(nil)) {
		t.Error("what arrived differs from what was sent")
	}
}
