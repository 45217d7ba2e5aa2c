package bridge

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tougw/tougw/internal/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scene is a flow between two scripted ends, in fake time.
type scene struct {
	*testing.T
	b     *Bridge
	f     *Flow
	a, o  *fake
	mu    sync.Mutex
	ended []FlowInfo
}

func (s *scene) ends() []FlowInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// play runs script in fake time, on a fresh flow whose first events are
// over, and checks at the end that nothing is left of it.
func play(t *testing.T, cfg Config, script func(s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{T: t, a: newFake(t, "A"), o: newFake(t, "B")}
		cfg.OnEnd = func(i FlowInfo) {
			s.mu.Lock()
			s.ended = append(s.ended, i)
			s.mu.Unlock()
		}
		s.b = New(cfg)
		var err error
		if s.f, err = s.b.Join(s.a, s.o, Meta{Peer: "edge"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		script(s)
		synctest.Wait()
		if len(s.ends()) == 0 {
			t.Errorf("flow has not ended: %+v", s.b.Flows(0))
			s.f.Abort()
		}
		if len(s.ends()) > 1 {
			t.Errorf("flow ended %d times", len(s.ends()))
		}
		for i := range s.f.pump {
			if p := &s.f.pump[i]; p.held != nil || p.state.Load() != dead {
				t.Errorf("pump %d: state %d, buffer %v", i, p.state.Load(), p.held)
			}
		}
		if n := s.b.Len(); n != 0 {
			t.Errorf("%d flows left", n)
		}
		if err := s.b.Close(t.Context()); err != nil { // and with it its goroutines
			t.Error(err)
		}
	})
}

func (s *scene) wantEnd(c Cause) {
	s.Helper()
	synctest.Wait()
	if len(s.ends()) != 1 || s.ends()[0].Cause != c {
		s.Errorf("ended %+v, want %v", s.ends(), c)
	}
}

func (s *scene) wantOpen() {
	s.Helper()
	synctest.Wait()
	if len(s.ends()) != 0 {
		s.Fatalf("flow has ended: %+v", s.ends())
	}
}

func TestHalfCloseIsPassedOnAndLasts(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.a.says("request")
		s.a.sendsFIN()
		synctest.Wait()
		s.o.wantGot("request")
		s.o.want("fin")
		s.a.want("")
		if st := s.b.Flows(0)[0].State; st != StateHalfClosedA {
			s.Errorf("state %v", st)
		}
		time.Sleep(1000 * time.Hour)
		s.wantOpen()
		s.o.says("answer")
		synctest.Wait()
		s.a.wantGot("answer")
		s.a.want("")
		time.Sleep(time.Hour)
		s.o.says(", at last")
		s.o.sendsFIN()
		synctest.Wait()
		s.a.wantGot("answer, at last")
		s.a.want("closed")
		s.o.want("closed")
		s.wantEnd(Finished)
		if i := s.ends()[0]; i.BytesUp != 7 || i.BytesDown != 15 || i.State != StateEnded {
			s.Errorf("%+v", i)
		}
	})
}

func TestServerFINFirst(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.o.sendsFIN()
		synctest.Wait()
		s.a.want("fin")
		if st := s.b.Flows(0)[0].State; st != StateHalfClosedB {
			s.Errorf("state %v", st)
		}
		time.Sleep(8 * time.Second)
		big := strings.Repeat("upload ", 1<<17)
		s.a.says(big)
		s.a.sendsFIN()
		synctest.Wait()
		s.o.wantGot(big)
		s.o.want("closed")
		s.wantEnd(Finished)
	})
}

func TestFINWaitsForStalledData(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		big := strings.Repeat("x", 300<<10)
		s.o.takes(100 << 10)
		s.a.says(big)
		s.a.sendsFIN()
		s.o.sendsFIN()
		time.Sleep(time.Hour)
		s.wantOpen()
		s.o.want("")
		if n := len(s.o.got()); n != 100<<10 {
			s.Errorf("%d bytes written", n)
		}
		if i := s.b.Flows(0)[0]; !i.StalledUp || i.StalledDown {
			s.Errorf("%+v", i)
		}
		s.o.takes(1)
		synctest.Wait()
		s.o.takes(-1)
		synctest.Wait()
		s.o.wantGot(big)
		s.o.want("closed")
		s.wantEnd(Finished)
	})
}

func TestStalledDirectionHoldsOneBuffer(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.o.takes(0)
		s.a.says(strings.Repeat("x", 1<<20))
		synctest.Wait()
		s.a.mu.Lock()
		left := len(s.a.in)
		s.a.mu.Unlock()
		if taken := 1<<20 - left; taken > 64<<10 {
			s.Errorf("%d bytes taken for a reader that does not read", taken)
		}
		// The other direction goes on.
		s.o.says("hello")
		synctest.Wait()
		s.a.wantGot("hello")
		s.f.Abort()
		s.wantEnd(Aborted)
	})
}

func TestResetDeliversWhatCameBefore(t *testing.T) {
	for _, c := range []struct {
		name  string
		side  func(s *scene) (from, to *fake)
		cause Cause
	}{
		{"A", func(s *scene) (*fake, *fake) { return s.a, s.o }, ResetByA},
		{"B", func(s *scene) (*fake, *fake) { return s.o, s.a }, ResetByB},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, Config{}, func(s *scene) {
				from, to := c.side(s)
				big := strings.Repeat("last words ", 20000)
				to.acks(false)
				from.mu.Lock() // data and reset before the bridge looks
				from.in = append(from.in, big...)
				from.mu.Unlock()
				from.fails(syscall.ECONNRESET)
				synctest.Wait()
				to.wantGot(big)
				to.want("")
				if st := s.b.Flows(0)[0].State; st != StateResetting {
					s.Errorf("state %v", st)
				}
				time.Sleep(time.Second)
				to.want("") // nothing is acknowledged
				to.acks(true)
				time.Sleep(lingerLast)
				synctest.Wait()
				to.want("reset")
				from.want("reset") // releases it
				s.wantEnd(c.cause)
			})
		})
	}
}

func TestResetWithNothingOutstandingIsImmediate(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.a.fails(syscall.ECONNRESET)
		synctest.Wait()
		s.o.want("reset")
		s.wantEnd(ResetByA)
		if s.o.released != 0 {
			s.Errorf("reset after %v", s.o.released)
		}
	})
}

func TestResetLingerIsBounded(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.a.acks(false)
		s.o.says("never acknowledged")
		synctest.Wait()
		s.o.fails(syscall.ECONNRESET)
		time.Sleep(DefaultResetLinger - time.Millisecond)
		s.wantOpen()
		time.Sleep(2 * lingerLast)
		s.a.want("reset")
		s.wantEnd(ResetByB)
	})
}

func TestResetLingerGoesOnWithProgress(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.a.acks(false)
		s.o.says(strings.Repeat("x", 1000))
		synctest.Wait()
		s.o.fails(syscall.ECONNRESET)
		for range 19 { // 57 s
			time.Sleep(3 * time.Second)
			s.wantOpen()
			s.a.ack(10)
		}
		time.Sleep(4 * time.Second)
		s.a.want("reset")
		s.wantEnd(ResetByB)
	})
}

func TestResetIsNoticedWhileStalled(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.a.takes(0)
		s.o.says(strings.Repeat("x", 200<<10))
		synctest.Wait()
		s.o.fails(syscall.ECONNRESET)
		synctest.Wait()
		if st := s.b.Flows(0)[0].State; st != StateResetting {
			s.Errorf("state %v", st)
		}
		s.a.takes(-1)
		synctest.Wait()
		s.a.wantGot(strings.Repeat("x", 200<<10))
		s.a.want("reset")
		s.wantEnd(ResetByB)
	})
}

func TestResetOfStalledReaderIsPassedOn(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.a.takes(0)
		s.o.says(strings.Repeat("x", 200<<10))
		synctest.Wait()
		s.a.fails(syscall.ECONNRESET)
		synctest.Wait()
		s.o.want("reset")
		s.wantEnd(ResetByA)
	})
}

func TestBothStalledAndReset(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.a.takes(0)
		s.o.takes(0)
		s.a.says(strings.Repeat("x", 200<<10))
		s.o.says(strings.Repeat("x", 200<<10))
		synctest.Wait()
		s.a.fails(syscall.ECONNRESET)
		synctest.Wait()
		s.wantOpen() // B may still take what A had sent
		time.Sleep(DefaultResetLinger + lingerLast)
		synctest.Wait()
		s.o.want("reset")
		s.wantEnd(ResetByA)
	})
}

func TestResetAfterFIN(t *testing.T) {
	// The server has sent everything, closed, and answers an upload with RST: the
	// client gets data, FIN, then RST, as without us.
	play(t, Config{}, func(s *scene) {
		s.o.says("all of it")
		s.o.sendsFIN()
		synctest.Wait()
		s.a.want("fin")
		s.o.fails(syscall.ECONNRESET)
		synctest.Wait()
		s.a.wantGot("all of it")
		s.a.want("fin reset")
		s.wantEnd(ResetByB)
	})
}

func TestFailureLearntByWriting(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.o.mu.Lock()
		s.o.failure = syscall.ECONNRESET // without an event
		s.o.in = []byte("last words")
		s.o.inEnd = syscall.ECONNRESET
		s.o.mu.Unlock()
		s.a.says("x")
		synctest.Wait()
		s.a.wantGot("last words")
		s.a.want("reset")
		s.wantEnd(ResetByB)
		if err := s.ends()[0].ErrB; err != syscall.ECONNRESET {
			s.Errorf("ErrB %v", err)
		}
	})
}

func TestTimedOutEndResetsTheOther(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.o.fails(syscall.ETIMEDOUT)
		synctest.Wait()
		s.a.want("reset")
		s.wantEnd(Failed)
		if i := s.ends()[0]; i.ErrB != syscall.ETIMEDOUT || i.ErrA != nil {
			s.Errorf("%+v", i)
		}
	})
}

func TestBothEndsFail(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.a.acks(false)
		s.o.says("x")
		synctest.Wait()
		s.o.fails(syscall.ECONNRESET)
		synctest.Wait()
		s.wantOpen()
		s.a.fails(syscall.ECONNRESET)
		s.wantEnd(BothFailed)
	})
}

func TestIdleTimeout(t *testing.T) {
	play(t, Config{IdleTimeout: time.Minute}, func(s *scene) {
		time.Sleep(50 * time.Second)
		s.a.says("x")
		time.Sleep(59 * time.Second)
		s.wantOpen()
		s.o.says("y") // either direction counts
		time.Sleep(59 * time.Second)
		s.wantOpen()
		s.a.sendsFIN() // no byte
		time.Sleep(2 * time.Second)
		s.wantEnd(Idle)
		s.a.want("reset")
		s.o.want("fin reset")
	})
}

func TestEventsThatCannotHelpStartNothing(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.a.says("x")
		synctest.Wait()
		s.a.mu.Lock()
		before := s.a.reads
		s.a.mu.Unlock()
		for range 10 {
			s.o.tell(false, true, false) // nobody waits for room
			synctest.Wait()
		}
		s.a.mu.Lock()
		if s.a.reads != before {
			s.Errorf("%d reads for nothing", s.a.reads-before)
		}
		s.a.mu.Unlock()
		s.f.Abort()
		s.f.Abort()
	})
}

func TestBuffersGrowWithProof(t *testing.T) {
	play(t, Config{BufferMax: 4 << 20, GrowAfter: 1 << 20}, func(s *scene) {
		s.o.says(strings.Repeat("x", 1<<20-1))
		synctest.Wait()
		if s.a.send != nil || s.o.recv != nil {
			s.Errorf("grown early: %v %v", s.a.send, s.o.recv)
		}
		for range 16 {
			s.o.says(strings.Repeat("x", 1<<20))
			synctest.Wait()
		}
		if n := len(s.a.send); n < 3 || s.a.send[n-1] != 4<<20 || s.o.recv[n-1] != 4<<20 || s.a.send[0] < 1<<20 || s.a.send[0] > 1<<20+64<<10 {
			s.Errorf("grown to %v, %v", s.a.send, s.o.recv)
		}
		if s.a.recv != nil || s.o.send != nil {
			s.Errorf("the other direction has grown: %v, %v", s.a.recv, s.o.send)
		}
		s.f.Abort()
	})
}

func TestKeepaliveIsSet(t *testing.T) {
	k := Keepalive{Idle: time.Minute, Interval: time.Second, Count: 3}
	play(t, Config{Keepalive: k}, func(s *scene) {
		want := [3]int64{int64(time.Minute), int64(time.Second), 3}
		if s.a.keep != want || s.o.keep != want {
			s.Errorf("%v %v", s.a.keep, s.o.keep)
		}
		s.f.Abort()
	})
}

func TestTableIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{MaxFlows: 2})
		join := func() (*fake, *fake, error) {
			a, o := newFake(t, "A"), newFake(t, "B")
			_, err := b.Join(a, o, Meta{Dst: netip.MustParseAddrPort("192.0.2.1:80")})
			synctest.Wait()
			return a, o, err
		}
		a1, o1, _ := join()
		_, _, err := join()
		if err != nil || !b.Full() || b.Len() != 2 {
			t.Fatal(err, b.Full(), b.Len())
		}
		a3, o3, err := join()
		if err != ErrFull {
			t.Fatal(err)
		}
		a3.want("reset")
		o3.want("reset")
		if fs := b.Flows(1); len(fs) != 1 || fs[0].ID != 1 {
			t.Errorf("%+v", fs)
		}
		if fs := b.Flows(9); len(fs) != 2 || fs[1].ID != 2 || fs[1].Dst.Port() != 80 || fs[1].State.String() != "open" {
			t.Errorf("%+v", fs)
		}
		a1.says("12345")
		o1.says("123")
		synctest.Wait()
		a1.sendsFIN()
		o1.sendsFIN()
		synctest.Wait()
		if b.Full() {
			t.Error("full after a flow has ended")
		}
		if n := b.Abort(func(id uint64, m *Meta) bool { return m.Peer == "x" }); n != 0 {
			t.Errorf("%d aborted", n)
		}
		if n := b.Abort(func(id uint64, m *Meta) bool { return id == 2 }); n != 1 {
			t.Errorf("%d aborted", n)
		}
		synctest.Wait()
		st := b.Stats()
		if st.Opened != 2 || st.Rejected != 1 || st.Ended[Finished] != 1 || st.Ended[Aborted] != 1 || st.BytesUp != 5 || st.BytesDown != 3 {
			t.Errorf("%+v", st)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, _, err := join(); err != ErrClosed {
			t.Error(err)
		}
	})
}

func TestCloseDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{})
		a, o := newFake(t, "A"), newFake(t, "B")
		if _, err := b.Join(a, o, Meta{}); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Minute)
			o.says("rest")
			o.sendsFIN()
			a.sendsFIN()
		}()
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
		a.wantGot("rest")
		a.want("closed")
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Both ends have sent FIN, and one of them takes its time with the last bytes:
// the flow counts as long as they are on their way, and draining waits for them.
func TestFinishedFlowLastsUntilAllIsAcknowledged(t *testing.T) {
	play(t, Config{IdleTimeout: time.Hour}, func(s *scene) {
		s.a.acks(false)
		s.a.sendsFIN()
		s.o.says("answer")
		s.o.sendsFIN()
		closed := make(chan error)
		go func() { closed <- s.b.Close(s.Context()) }()
		for range len("answer") {
			time.Sleep(40 * time.Minute)
			s.a.ack(1)
			s.wantOpen()
		}
		if st := s.b.Flows(0)[0].State; st != StateClosing {
			s.Errorf("state %v", st)
		}
		s.a.ack(1) // FIN
		if err := <-closed; err != nil {
			s.Error(err)
		}
		s.wantEnd(Finished)
		s.a.want("closed")
		s.o.want("closed")
	})
}

// What nobody acknowledges any more is not waited for.
func TestFinishedFlowEndsWithItsEnds(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.a.acks(false)
		s.o.acks(false)
		s.a.sendsFIN()
		s.o.says("answer")
		s.o.sendsFIN()
		s.wantOpen()
		s.a.fails(syscall.ETIMEDOUT)
		s.wantOpen()
		s.o.ack(1)
		time.Sleep(time.Second)
		s.wantEnd(Finished)
		s.o.want("closed")
	})
}

func TestCloseResetsWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{})
		a, o := newFake(t, "A"), newFake(t, "B")
		o.takes(0)
		if _, err := b.Join(a, o, Meta{}); err != nil {
			t.Fatal(err)
		}
		a.says("x")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		a.want("reset")
		o.want("reset")
		if b.Len() != 0 {
			t.Error("flows left")
		}
	})
}

func TestNamesOfCausesAndStates(t *testing.T) {
	seen := map[string]bool{}
	for c := Cause(0); c < numCauses; c++ {
		seen[c.String()] = true
	}
	for s := State(0); s < numStates; s++ {
		seen["state "+s.String()] = true
	}
	if len(seen) != int(numCauses)+int(numStates) || numCauses.String() != "unknown" || numStates.String() != "unknown" {
		t.Errorf("%v", seen)
	}
}

// TestReadsWhatTheSinkWants: a sink that says how much it wants at once is not
// given a full buffer and a rest.
func TestReadsWhatTheSinkWants(t *testing.T) {
	b := New(Config{BufferMax: 1 << 20, GrowAfter: 100})
	a, o := &fake{}, &fake{writeSize: 1000}
	f := newFlow(b, a, o, Meta{})
	up, down := &f.pump[0], &f.pump[1]
	if up.readMax != startRead {
		t.Errorf("reads %d bytes before the buffers grow, want %d", up.readMax, startRead)
	}
	up.bytes.Store(200)
	up.growBuffers(a, o)
	down.bytes.Store(200)
	down.growBuffers(o, a)
	if up.readMax != 1000 || down.readMax != packet.Size {
		t.Errorf("reads %d bytes up and %d down, want 1000 and %d", up.readMax, down.readMax, packet.Size)
	}
}
