package tcpip

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// holdAck is how long an acknowledgement waits for data to carry it, and up to
	// twice that. RFC 9293 section 3.8.6.3 allows 500 ms; Linux waits 40 ms. This is
	// far below the 200 ms after which a sender would repeat, and covers a server's
	// answer on a busy host.
	holdAck = 10 * time.Millisecond
	// smallData is up to how many bytes in a row count as a message that is
	// answered. Whoever sends more is waiting for acknowledgements.
	smallData = 1024
	// maxHeld bounds the flows that are looked at; of others acknowledgements
	// leave at once.
	maxHeld = 4096
)

// holdable is a packet on its way out of a stack.
type holdable[K comparable] interface {
	comparable
	// flow names the flow that it belongs to.
	flow() K
	// bareAck reports whether it only acknowledges: no data, no flag but ACK,
	// and no option but timestamps, so no SACK.
	bareAck() bool
	// Release ends its use.
	Release()
}

// ackHold keeps back acknowledgements. gVisor answers whatever it receives at
// once; of a request and its reply that makes two more packets, each as dear
// as the message. After a small message with PSH the next acknowledgement that
// carries nothing else is held, until something else of the flow leaves and
// makes it needless, or its time is over. A second message is acknowledged at
// once (every other segment, as the RFC wants).
type ackHold[K comparable, P holdable[K]] struct {
	out func([]P)

	busy atomic.Bool // state is not empty

	mu     sync.Mutex
	state  map[K]wait[P]
	turn   uint8 // counts the timer's runs
	timer  *time.Timer
	closed bool
}

// wait is a flow that an answer is expected on.
type wait[P any] struct {
	held P     // zero: the next acknowledgement may be held
	turn uint8 // of ackHold, when it began
}

func newAckHold[K comparable, P holdable[K]](out func([]P)) *ackHold[K, P] {
	h := &ackHold[K, P]{out: out, state: map[K]wait[P]{}}
	h.timer = time.AfterFunc(time.Hour, h.expire)
	h.timer.Stop()
	return h
}

// expects reports whether the acknowledgement of a segment with n bytes of data
// and these flags may wait: received is to be called for it.
func (h *ackHold[K, P]) expects(n int, flags uint8) bool {
	return n > 0 && n <= smallData && flags&FlagPSH != 0
}

// received notes that a segment which expects is true for came for a flow.
func (h *ackHold[K, P]) received(flow K) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.state[flow]; known || h.closed || len(h.state) >= maxHeld {
		return
	}
	if len(h.state) == 0 {
		h.timer.Reset(holdAck)
		h.busy.Store(true)
	}
	h.state[flow] = wait[P]{turn: h.turn}
}

// pass takes from ps what is held and gives the rest, in the same array.
func (h *ackHold[K, P]) pass(ps []P) []P {
	if !h.busy.Load() {
		return ps
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var none P
	left := ps[:0]
	for _, p := range ps {
		flow := p.flow()
		w, expected := h.state[flow]
		switch {
		case !expected:
			left = append(left, p)
		case w.held == none && p.bareAck():
			w.held = p
			h.state[flow] = w
		default:
			// What leaves acknowledges as much: the stack made it later.
			if w.held != none {
				w.held.Release()
			}
			delete(h.state, flow)
			left = append(left, p)
		}
	}
	clear(ps[len(left):])
	return left
}

// expire lets go of what has waited for a whole turn of the timer.
func (h *ackHold[K, P]) expire() {
	h.mu.Lock()
	var none P
	var ps []P
	for flow, w := range h.state {
		if w.turn == h.turn {
			continue
		}
		if w.held != none {
			ps = append(ps, w.held)
		}
		delete(h.state, flow)
	}
	h.turn++
	if len(h.state) > 0 && !h.closed {
		h.timer.Reset(holdAck)
	} else {
		h.busy.Store(false)
	}
	h.mu.Unlock()
	if len(ps) > 0 {
		h.out(ps)
	}
}

// close releases what is held and holds no more.
func (h *ackHold[K, P]) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.timer.Stop()
	var none P
	for _, w := range h.state {
		if w.held != none {
			w.held.Release()
		}
	}
	clear(h.state)
	h.busy.Store(false)
}
