package tcpip

import (
	"sync/atomic"
	"testing"
	"time"
)

// readInStep is a Turn that reads a stream after each packet.
type readInStep struct {
	noTurn
	s    atomic.Pointer[Stream]
	read atomic.Int64
}

func (r *readInStep) Step() {
	if s := r.s.Load(); s != nil {
		n, _ := s.Read(make([]byte, 64))
		r.read.Add(int64(n))
	}
}

// TestInline shows that the data of a segment can be read as soon as it was
// delivered. Were it left to the stack's own goroutines, that would be too early
// as a rule, and no further packet would come to try again.
func TestInline(t *testing.T) {
	turn := &readInStep{}
	accepted := make(chan *Stream, 1)
	w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(t, accepted), Turn: turn}, &wire{})
	a, b := w.connect(t, 7, accepted)
	transfer(t, a, b, 1000) // the handshake is over on both sides
	transfer(t, b, a, 1000)
	time.Sleep(2 * holdAck)
	turn.s.Store(b.Stream)
	const messages = 100
	late := 0
	for i := range int64(messages) {
		if _, err := a.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Second); turn.read.Load() <= i; {
			if time.Now().After(deadline) {
				late++ // its lock was taken, or it came through a goroutine of the stack
				turn.Step()
				break
			}
			time.Sleep(50 * time.Microsecond)
		}
	}
	if late > messages/10 {
		t.Errorf("%d of %d messages were not worked on where they were delivered", late, messages)
	}
	turn.s.Store(nil)
}
