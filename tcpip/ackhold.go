package tcpip

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// holdAck is how long an acknowledgement waits for data to carry it. RFC
	// 9293 section 3.8.6.3 allows 500 ms; this is far below the 200 ms after which
	// a sender would repeat, and covers a server's answer on a busy host.
	holdAck = 5 * time.Millisecond
	// smallData is up to how many bytes in a row count as a message that is
	// answered. Whoever sends more is waiting for acknowledgements.
	smallData = 1024
	// maxHeld bounds the sessions that are looked at; of others acknowledgements
	// leave at once.
	maxHeld = 4096
)

// ackHold keeps back acknowledgements. gVisor answers whatever it receives at
// once; of a request and its reply that makes two more datagrams, each as dear
// as the message. After a small message with PSH the next acknowledgement that
// carries nothing else is held, until something else of the session leaves and
// makes it needless, or holdAck is over. A second message is acknowledged at
// once (every other segment, as the RFC wants).
type ackHold struct {
	out func([]*Segment)

	busy atomic.Bool // state is not empty

	mu     sync.Mutex
	state  map[uint64]*Segment // nil: the next acknowledgement may be held
	timer  *time.Timer
	closed bool
}

func newAckHold(out func([]*Segment)) *ackHold {
	h := &ackHold{out: out, state: map[uint64]*Segment{}}
	h.timer = time.AfterFunc(time.Hour, h.flush)
	h.timer.Stop()
	return h
}

// received notes that data of n bytes with these flags came for session id.
func (h *ackHold) received(id uint64, n int, flags uint8) {
	if n > smallData || flags&FlagPSH == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.state[id]; known || h.closed || len(h.state) >= maxHeld {
		return
	}
	if len(h.state) == 0 {
		h.timer.Reset(holdAck)
		h.busy.Store(true)
	}
	h.state[id] = nil
}

// pass takes from segs what is held and gives the rest, in the same array.
func (h *ackHold) pass(segs []*Segment) []*Segment {
	if !h.busy.Load() {
		return segs
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	left := segs[:0]
	for _, s := range segs {
		held, expected := h.state[s.session]
		switch {
		case !expected:
			left = append(left, s)
		case held == nil && s.bareAck():
			h.state[s.session] = s
		default:
			// What leaves acknowledges as much: the stack made it later.
			if held != nil {
				held.Release()
			}
			delete(h.state, s.session)
			left = append(left, s)
		}
	}
	clear(segs[len(left):])
	return left
}

// flush lets everything go.
func (h *ackHold) flush() {
	h.mu.Lock()
	segs := make([]*Segment, 0, len(h.state))
	for _, s := range h.state {
		if s != nil {
			segs = append(segs, s)
		}
	}
	clear(h.state)
	h.busy.Store(false)
	closed := h.closed
	h.mu.Unlock()
	if closed {
		for _, s := range segs {
			s.Release()
		}
		return
	}
	if len(segs) > 0 {
		h.out(segs)
	}
}

// close releases what is held and holds no more.
func (h *ackHold) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.timer.Stop()
	h.flush()
}

// bareAck reports whether the segment only acknowledges: no data, no flag but
// ACK, and no option but timestamps, so no SACK.
func (s *Segment) bareAck() bool {
	return s.left == 0 && !s.started && s.Flags() == FlagACK && s.hlen <= 32
}
