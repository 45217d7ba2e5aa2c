package bridge

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestAnyOrderOfEvents lets both programs do what they like in any order, with
// or without giving the bridge time in between, and checks what each sees.
func TestAnyOrderOfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { rapid.Check(noDeadline{t}, anyOrder) })
}

// noDeadline hides the deadline of a test, which must not be asked for in fake
// time.
type noDeadline struct{ rapid.TB }

func anyOrder(t *rapid.T) {
	ended := make(chan FlowInfo, 2)
	b := New(Config{OnEnd: func(i FlowInfo) { ended <- i }})
	defer func() { // however this ends, the goroutines of b do
		now, cancel := context.WithCancel(context.Background())
		cancel()
		_ = b.Close(now) // an error says that a flow was left, which is checked below
	}()
	end := [2]*fake{newFake(t, "A"), newFake(t, "B")}
	f, err := b.Join(end[0], end[1], Meta{})
	if err != nil {
		t.Fatal(err)
	}
	var said [2]strings.Builder
	var fin, failed [2]bool
	for range rapid.IntRange(0, 14).Draw(t, "events") {
		i := rapid.IntRange(0, 1).Draw(t, "end")
		s := end[i]
		switch rapid.SampledFrom([]string{"say", "say much", "fin", "reset", "take none", "take some", "take all", "hold acks", "ack", "wait"}).Draw(t, "event") {
		case "say":
			if !fin[i] && !failed[i] {
				said[i].WriteString("hello ")
				s.says("hello ")
			}
		case "say much":
			if !fin[i] && !failed[i] {
				p := strings.Repeat(rapid.StringN(1, 1, 1).Draw(t, "what"), 150<<10)
				said[i].WriteString(p)
				s.says(p)
			}
		case "fin":
			if !fin[i] && !failed[i] {
				fin[i] = true
				s.sendsFIN()
			}
		case "reset":
			if !failed[i] {
				failed[i] = true
				s.fails(syscall.ECONNRESET)
			}
		case "take none":
			s.takes(0)
		case "take some":
			s.takes(rapid.IntRange(1, 200<<10).Draw(t, "bytes"))
		case "take all":
			s.takes(-1)
		case "hold acks":
			s.acks(false)
		case "ack":
			s.acks(true)
		case "wait":
			synctest.Wait()
		}
	}
	for _, s := range end {
		s.takes(-1)
		s.acks(true)
	}
	time.Sleep(2 * lingerLast) // nothing keeps a reset waiting any more
	synctest.Wait()

	over := failed[0] || failed[1] || fin[0] && fin[1]
	if got := len(ended); over && got != 1 || !over && got != 0 {
		t.Fatalf("ended %d times, fin %v, failed %v", got, fin, failed)
	}
	for i, src := range end {
		dst := end[1-i]
		got, sent := dst.got(), said[i].String()
		if !strings.HasPrefix(sent, got) {
			t.Fatalf("%s got what %s has not sent", dst.name, src.name)
		}
		dstFIN, closed, reset := dst.state()
		if dstFIN && !fin[i] {
			t.Errorf("%s got a FIN that %s has not sent", dst.name, src.name)
		}
		if dstFIN && got != sent {
			t.Errorf("%s got FIN after %d of %d bytes", dst.name, len(got), len(sent))
		}
		if !failed[1-i] && got != sent {
			t.Errorf("%s got %d of %d bytes (%s failed: %v)", dst.name, len(got), len(sent), src.name, failed[i])
		}
		if !failed[0] && !failed[1] {
			if fin[i] != dstFIN || reset {
				t.Errorf("%s: fin %v, %s sent FIN %v; reset %v", dst.name, dstFIN, src.name, fin[i], reset)
			}
		}
		if over && closed == reset {
			t.Errorf("%s: closed %v, reset %v", dst.name, closed, reset)
		}
		if over && closed && !(fin[0] && fin[1]) {
			t.Errorf("%s: closed without both FINs", dst.name)
		}
	}
	f.Abort()
	<-ended
	for i := range f.pump {
		if p := &f.pump[i]; p.held != nil || p.state.Load() != dead {
			t.Errorf("pump %d: state %d, buffer %v", i, p.state.Load(), p.held)
		}
	}
	if b.Len() != 0 {
		t.Errorf("%d flows left", b.Len())
	}
}

// TestNoEventIsLost runs both programs in parallel with the bridge, in small
// steps, so that events come at any moment of a pump's life.
func TestNoEventIsLost(t *testing.T) {
	for seed := range uint64(20) {
		done := make(chan FlowInfo, 1)
		b := New(Config{OnEnd: func(i FlowInfo) { done <- i }})
		t.Cleanup(func() { _ = b.Close(context.Background()) })
		a, o := newFake(t, "A"), newFake(t, "B")
		a.chunk, o.chunk = 1000, 50
		a.takes(0)
		o.takes(0)
		if _, err := b.Join(a, o, Meta{}); err != nil {
			t.Fatal(err)
		}
		const steps = 300
		var wg sync.WaitGroup
		for i, s := range []*fake{a, o} {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, uint64(i)))
				for range steps {
					s.says(strings.Repeat("x", 1+rnd.IntN(200)))
				}
				s.sendsFIN()
			})
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, 2+uint64(i)))
				for range steps {
					s.takes(rnd.IntN(200))
				}
				s.takes(-1)
			})
		}
		wg.Wait()
		select {
		case i := <-done:
			if i.Cause != Finished {
				t.Errorf("%+v", i)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("flow hangs: %+v", b.Flows(0))
		}
		a.want("closed")
		o.want("closed")
	}
}

// TestAbortAtAnyMoment ends flows from outside while they move.
func TestAbortAtAnyMoment(t *testing.T) {
	for seed := range uint64(50) {
		done := make(chan FlowInfo, 2)
		b := New(Config{OnEnd: func(i FlowInfo) { done <- i }, IdleTimeout: time.Hour})
		a, o := newFake(t, "A"), newFake(t, "B")
		f, err := b.Join(a, o, Meta{})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i, s := range []*fake{a, o} {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, uint64(i)))
				for range 50 {
					s.says("some bytes")
					s.takes(rnd.IntN(30))
				}
				if rnd.IntN(2) == 0 {
					s.fails(syscall.ECONNRESET)
				}
			})
		}
		wg.Go(f.Abort)
		wg.Go(f.Abort)
		wg.Wait()
		if err := b.Close(t.Context()); err != nil { // waits for OnEnd
			t.Error(err)
		}
		if len(done) != 1 || b.Len() != 0 {
			t.Errorf("ended %d times, %d flows left", len(done), b.Len())
		}
		a.want("reset")
		o.want("reset")
	}
}

// TestMovingDoesNotAllocate counts a whole event: goroutine, buffer, bytes.
func TestMovingDoesNotAllocate(t *testing.T) {
	b := New(Config{})
	a, o := &wire{c: make(chan int, 1)}, &wire{c: make(chan int, 1)}
	f, err := b.Join(a, o, Meta{})
	if err != nil {
		t.Fatal(err)
	}
	event := func() {
		a.n.Store(1000)
		a.notify(true, false, false)
		if n := <-o.c; n != 1000 {
			t.Errorf("%d bytes", n)
		}
	}
	event()
	// A collection may empty the pool of buffers once.
	if n := testing.AllocsPerRun(1000, event); n >= 1 {
		t.Errorf("%v allocations an event", n)
	}
	f.Abort()
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// wire is a stream for measuring: it has n bytes to read and tells c how many
// are written to it.
type wire struct {
	n      atomic.Int64
	c      chan int
	mu     sync.Mutex
	notify func(readable, writable, failed bool)
}

func (w *wire) Read(p []byte) (int, error) {
	if n := int(w.n.Swap(0)); n > 0 {
		return n, nil
	}
	return 0, syscall.EAGAIN
}

func (w *wire) Write(p []byte) (int, error) {
	w.c <- len(p)
	return len(p), nil
}

func (w *wire) SetNotify(fn func(readable, writable, failed bool)) {
	w.mu.Lock()
	w.notify = fn
	w.mu.Unlock()
}

func (w *wire) CloseWrite() error                      { return nil }
func (w *wire) Reset()                                 {}
func (w *wire) Close() error                           { return nil }
func (w *wire) Err() error                             { return nil }
func (w *wire) Outstanding() int                       { return 0 }
func (w *wire) SetBuffers(int, int)                    {}
func (w *wire) WriteSize() int                         { return 0 }
func (w *wire) SetKeepalive(_, _ time.Duration, _ int) {}
