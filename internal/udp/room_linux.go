package udp

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// smallWrite is up to how many bytes a write may go past those that wait for
	// room: what a control message, a request or an acknowledgement has.
	smallWrite = 2048
	// maxPassed is how many bytes may do so before one of these has gone on.
	maxPassed = 64 << 10
	// roomPoll is how often the first of those who wait looks for room. At
	// 10 Gbit/s a megabyte has left meanwhile.
	roomPoll = time.Millisecond
)

// room is the order of the writers that found the send buffer full. The kernel
// tells of room when half of the buffer is free, and lets everybody send before:
// without an order whoever comes by chance takes the room for which others have
// waited, and a peer with much to send keeps those who share its socket waiting
// until they give up.
type room struct {
	waits  atomic.Bool  // somebody does
	passed atomic.Int64 // bytes that went past the first who waits

	mu          sync.Mutex
	first, last *writer
}

// open reports whether nobody waits.
func (r *room) open() bool { return !r.waits.Load() }

// pass reports whether n bytes may be sent past those who wait.
func (r *room) pass(n int64) bool { return r.passed.Add(n) <= maxPassed }

// enter appends w to those who wait and reports whether it is the first, who may
// wait at the poller. Others get word by w.turn.
func (r *room) enter(w *writer) (first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waits.Store(true)
	if r.first == nil {
		r.first, r.last = w, w
		return true
	}
	r.last.next = w
	r.last = w
	return false
}

// leave takes the first away and gives the next its turn.
func (r *room) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.first
	r.first, w.next = w.next, nil
	r.passed.Store(0)
	if r.first == nil {
		r.waits.Store(false)
		return
	}
	r.first.turn <- struct{}{} // has room: it gets one word for each time that it enters
}
