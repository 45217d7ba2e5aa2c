package tcpip

import (
	"slices"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// acker is an ackHold whose output is recorded.
type acker struct {
	*ackHold[uint64, *Segment]
	mu  sync.Mutex
	got []*Segment
}

func newAcker(t *testing.T) *acker {
	a := &acker{}
	a.ackHold = newAckHold[uint64](func(segs []*Segment) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.got = append(a.got, segs...)
	})
	t.Cleanup(a.close)
	return a
}

// message is a segment that came, as an Injector reports it.
func (a *acker) message(id uint64, n int, flags uint8) {
	if a.expects(n, flags) {
		a.received(id)
	}
}

func (a *acker) flushed() []*Segment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got)
}

// bare is a segment of an empty packet.
func bare(id uint64, flags uint8, hlen, left int) *Segment {
	s := segmentPool.New().(*Segment)
	s.pkt = stack.NewPacketBuffer(stack.PacketBufferOptions{})
	s.session, s.hlen, s.left = id, hlen, left
	s.hdr[tcpFlagsOffset] = flags
	return s
}

func TestAcknowledgementWaitsForData(t *testing.T) {
	a := newAcker(t)
	ack, reply := bare(1, FlagACK, 32, 0), bare(1, FlagACK|FlagPSH, 32, 100)
	a.message(1, 100, FlagACK|FlagPSH)
	if left := a.pass([]*Segment{ack}); len(left) != 0 {
		t.Fatal("the acknowledgement of a small message left at once")
	}
	other := bare(2, FlagACK, 32, 0)
	if left := a.pass([]*Segment{other, reply}); len(left) != 2 || left[0] != other || left[1] != reply {
		t.Fatalf("%d segments left, want another session's and the reply", len(left))
	}
	time.Sleep(3 * holdAck)
	if got := a.flushed(); len(got) != 0 {
		t.Errorf("%d acknowledgements left although the reply carried them", len(got))
	}
	// The next acknowledgement has no message before it.
	if left := a.pass([]*Segment{bare(1, FlagACK, 32, 0)}); len(left) != 1 {
		t.Error("an acknowledgement was held without a reason")
	}
}

func TestAcknowledgementLeavesByItself(t *testing.T) {
	a := newAcker(t)
	a.message(1, 100, FlagACK|FlagPSH)
	ack := bare(1, FlagACK, 32, 0)
	a.pass([]*Segment{ack})
	for deadline := time.Now().Add(5 * time.Second); len(a.flushed()) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the acknowledgement was never sent")
		}
		time.Sleep(time.Millisecond)
	}
	if got := a.flushed(); len(got) != 1 || got[0] != ack {
		t.Errorf("%d segments left", len(got))
	}
	if a.busy.Load() {
		t.Error("still busy")
	}
}

func TestWhatIsNotHeld(t *testing.T) {
	push := FlagACK | FlagPSH
	for _, c := range []struct {
		name  string
		n     int
		flags uint8
		seg   *Segment
	}{
		{"after a large message", smallData + 1, push, bare(1, FlagACK, 32, 0)},
		{"after data without PSH", 100, FlagACK, bare(1, FlagACK, 32, 0)},
		{"with SACK", 100, push, bare(1, FlagACK, 44, 0)},
		{"FIN", 100, push, bare(1, FlagACK|FlagFIN, 32, 0)},
		{"RST", 100, push, bare(1, FlagACK|FlagRST, 20, 0)},
		{"data", 100, push, bare(1, push, 32, 1)},
	} {
		a := newAcker(t)
		a.message(1, c.n, c.flags)
		if left := a.pass([]*Segment{c.seg}); len(left) != 1 {
			t.Errorf("%s: held", c.name)
		}
	}
	// The second message in a row is acknowledged at once, and for both.
	a := newAcker(t)
	for range 2 {
		a.message(1, 100, push)
	}
	first, second := bare(1, FlagACK, 32, 0), bare(1, FlagACK, 32, 0)
	if left := a.pass([]*Segment{first, second}); len(left) != 1 || left[0] != second {
		t.Errorf("of two acknowledgements %d left", len(left))
	}
}

func TestHeldAcknowledgementsAreBounded(t *testing.T) {
	a := newAcker(t)
	a.timer.Stop()
	for id := range uint64(maxHeld + 10) {
		a.message(id, 1, FlagACK|FlagPSH)
	}
	if n := len(a.state); n != maxHeld {
		t.Errorf("%d sessions, want %d", n, maxHeld)
	}
	a.close()
	a.message(1, 1, FlagACK|FlagPSH)
	if a.busy.Load() || len(a.state) != 0 {
		t.Error("held after close")
	}
}
