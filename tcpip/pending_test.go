package tcpip

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

func TestPatience(t *testing.T) {
	// Linux: SYNs at 0, 1, 3, 7, 15, 31 and 63 s, the end at 127 s.
	for gap := time.Second; gap <= 32*time.Second; gap *= 2 {
		if p := patience(gap, minPatience); p < 2*gap+time.Second/2 || p > maxPatience {
			t.Errorf("after a gap of %v patience is %v", gap, p)
		}
	}
}

// undecided is a pendingHost without a stack.
type undecided struct{}

func (undecided) newStream(*Pending) *Stream          { return nil }
func (undecided) settle(*Pending, *Stream)            {}
func (undecided) refuse(*Pending, syscall.Errno) bool { return false }

// A Pending lives as long as its opener repeats the SYN.
func TestPendingLivesByRepetition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var key stack.TransportEndpointID
		key.LocalAddress, key.RemoteAddress = toStack(SessionLocal(1)), toStack(SessionRemote(1))
		p := newPending(undecided{}, nil, key, minPatience)
		ended := func() bool {
			synctest.Wait()
			select {
			case <-p.Done():
				return true
			default:
				return false
			}
		}
		for gap := time.Second; gap <= 64*time.Second; gap *= 2 {
			time.Sleep(gap)
			if ended() {
				t.Fatalf("ended before the SYN that comes %v after the one before", gap)
			}
			p.again()
		}
		time.Sleep(maxPatience - time.Second)
		if ended() {
			t.Error("ended before its time")
		}
		time.Sleep(time.Second)
		if !ended() {
			t.Error("outlives its opener")
		}
	})
}

// handover is a pendingHost in which something happens just before a stream
// takes the place of its Pending.
type handover struct {
	pendingHost
	before func()
}

func (h handover) settle(p *Pending, s *Stream) {
	h.before()
	h.pendingHost.settle(p, s)
}

func TestAbortReachesWhatIsBeingAccepted(t *testing.T) {
	errs := make(chan error, 1)
	var w *wire
	w = newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: func(p *Pending) {
		p.host = handover{p.host, func() { w.b.Abort(p.Session(), syscall.EHOSTUNREACH) }}
		s, err := p.Accept(testContext(t))
		if s != nil {
			s.Reset()
		}
		errs <- err
	}}, &wire{})
	s, err := w.a.Dial(testContext(t), 1, 40000, 443)
	if err := <-errs; err != syscall.EHOSTUNREACH {
		t.Errorf("Accept gave %v", err)
	}
	if err == syscall.ECONNRESET {
		return // the reset came before Dial looked at what had woken it
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	eventually(t, "the other end's reset", func() bool { return s.Err() == syscall.ECONNRESET })
}
