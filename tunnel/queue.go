package tunnel

import "sync"

const (
	// quantum is how many bytes a flow may send in its turn: about the largest
	// segment, so that a turn of a bulk flow is one run of records.
	quantum = 64 << 10
	// batchBytes is how many bytes are taken out at a time. What comes for
	// another flow meanwhile waits for no more than that.
	batchBytes = quantum
	// segmentCost is what a segment counts beside its own bytes: about what a
	// record and the outer headers add.
	segmentCost = 100
	// queueShare is how many times the bytes that are left free a flow may have
	// waiting. As with the limits of sessions, it shrinks with what is free, so
	// that whoever has most is refused first, and k greedy flows leave room for
	// others: alone one gets eight ninths of the queue.
	queueShare = 8
	// maxFree bounds the unused entries that a queue keeps.
	maxFree = 1024
)

// queue is the transmit queue of a link, bounded in bytes. Each flow (session)
// has a queue of its own in it, and they take turns by bytes: deficit round robin
// (Shreedhar and Varghese, 1995). A flow that had nothing waiting goes before the
// others as long as it has not sent its quantum of the present round, much as in
// RFC 8290 section 4.2. So requests, answers, and acknowledgements of what the
// peer sends do not wait for bulk. The order within a flow is kept.
//
// One at a time drains it: the link's goroutine, or, for a small segment that
// finds nothing under way, the goroutine that brings it. A layer that delays
// what is sent (pacing, recovery) takes its place between take and the batch of
// drain.
type queue struct {
	mu     sync.Mutex
	fresh  flowList // flows that had nothing waiting
	active flowList // the others, in the order of their turns
	flows  int      // in both
	count  int      // segments that wait
	bytes  int      // their length
	max    int
	sent   uint64 // bytes that were taken out, with segmentCost
	free   *entry // unused ones
	nfree  int
	busy   bool // somebody sends
	closed bool
	wake   chan struct{} // holds a token while segments wait and nobody sends
}

// entry is one segment that waits.
type entry struct {
	seg  Segment
	n    int // its length when it came
	next *entry
}

// flow is what waits of one session in one queue, whose mu guards it. A session
// keeps its flow when that is empty.
type flow struct {
	queue       *queue
	sess        *session
	first, last *entry
	bytes       int
	credit      int    // bytes that it may send before its turn is over
	since       uint64 // queue.sent when it last got a quantum
	next        *flow  // in the list that it is in while something waits
}

// flowList is a list of flows in the order of their turns.
type flowList struct{ first, last *flow }

func (l *flowList) push(f *flow) {
	f.next = nil
	if l.first == nil {
		l.first = f
	} else {
		l.last.next = f
	}
	l.last = f
}

func (l *flowList) pop() *flow {
	f := l.first
	l.first, f.next = f.next, nil
	return f
}

func newQueue(maxBytes int) *queue { return &queue{max: maxBytes, wake: make(chan struct{}, 1)} }

// smallSegment is up to what length in bytes a segment is sent by the goroutine
// that brings it: what a request, its answer or an acknowledgement has. To wake
// another goroutine for it costs more than to send it.
const smallSegment = 2048

// verdict is what put did with a segment.
type verdict uint8

const (
	dropped verdict = iota // it is the caller's
	queued                 // it is the queue's
	direct                 // the caller has to send it, and then to call done
	corked                 // it is the queue's, and the caller has to see that it is drained
)

// put takes o unless the queue is closed or has no room for its flow. With cork
// small segments wait for others.
func (q *queue) put(o outbound, cork bool) verdict {
	n := o.seg.Len()
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return dropped
	}
	small := n <= smallSegment
	if !q.busy && q.count == 0 && small && !cork {
		q.busy = true
		q.mu.Unlock()
		return direct
	}
	f := q.flow(o.sess)
	if !q.admits(f) {
		q.mu.Unlock()
		return dropped
	}
	if f.first == nil {
		q.enlist(f)
	}
	f.push(q.entry(o.seg, n))
	q.count++
	q.bytes += n
	first := !q.busy && q.count == 1
	wake := first || !q.busy && !small
	q.mu.Unlock()
	if first && small && cork {
		return corked
	}
	if wake {
		q.signal()
	}
	return queued
}

// flow finds the flow of a session here, and makes one when the session's last
// segments went through another link. mu is held.
func (q *queue) flow(s *session) *flow {
	f := s.flow.Load()
	if f == nil || f.queue != q {
		f = &flow{queue: q, sess: s, credit: quantum, since: q.sent}
		s.flow.Store(f)
	}
	return f
}

// enlist gives f its place when something begins to wait. mu is held.
func (q *queue) enlist(f *flow) {
	// A round is over when each flow may have sent its quantum.
	if q.sent-f.since >= uint64(q.flows+1)*quantum {
		f.credit, f.since = quantum, q.sent
	}
	if f.credit > 0 {
		q.fresh.push(f)
	} else {
		q.active.push(f)
	}
	q.flows++
}

// admits reports whether f may have one more segment waiting, of whatever
// length. Nobody is refused who has nothing waiting, unless the queue is an
// eighth above its bound by that: one fat flow costs the others nothing. mu is
// held.
func (q *queue) admits(f *flow) bool {
	free := q.max - q.bytes
	if f.bytes == 0 {
		return free > -q.max/queueShare
	}
	return f.bytes < queueShare*free
}

// entry gives an entry for a segment of n bytes. mu is held.
func (q *queue) entry(seg Segment, n int) *entry {
	e := q.free
	if e == nil {
		return &entry{seg: seg, n: n}
	}
	q.free, e.next = e.next, nil
	q.nfree--
	e.seg, e.n = seg, n
	return e
}

func (f *flow) push(e *entry) {
	if f.first == nil {
		f.first = e
	} else {
		f.last.next = e
	}
	f.last = e
	f.bytes += e.n
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take begins to send: it appends what is to be sent next to batch, which is
// empty, for a batch of about batchBytes; more gives further ones, and done has
// to follow. It gives none while somebody else sends, who will wake the link's
// goroutine again.
func (q *queue) take(batch []outbound) []outbound {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy || q.count == 0 {
		return batch
	}
	q.busy = true
	return q.fill(batch)
}

// more is take for who sends.
func (q *queue) more(batch []outbound) []outbound {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.fill(batch)
}

// fill goes through the flows in their turns. mu is held.
func (q *queue) fill(batch []outbound) []outbound {
	for sum := 0; sum < batchBytes; {
		l := &q.fresh
		if l.first == nil {
			l = &q.active
		}
		f := l.first
		switch {
		case f == nil:
			return batch
		case f.credit <= 0: // its turn is over
			f.credit += quantum
			f.since = q.sent
			q.active.push(l.pop())
			continue
		}
		e := q.remove(f)
		batch = append(batch, outbound{e.seg, f.sess})
		cost := e.n + segmentCost
		f.credit -= cost
		sum += cost
		q.sent += uint64(cost)
		q.release(e)
		if f.first == nil {
			l.pop()
			q.flows--
		}
	}
	return batch
}

// remove takes out the first entry of f. mu is held.
func (q *queue) remove(f *flow) *entry {
	e := f.first
	f.first = e.next
	f.bytes -= e.n
	q.bytes -= e.n
	q.count--
	return e
}

// release keeps an entry for another segment. mu is held.
func (q *queue) release(e *entry) {
	*e = entry{}
	if q.nfree < maxFree {
		e.next, q.free = q.free, e
		q.nfree++
	}
}

// done ends what take or put began.
func (q *queue) done() {
	q.mu.Lock()
	q.busy = false
	wake := q.count > 0
	q.mu.Unlock()
	if wake {
		q.signal()
	}
}

// unsent reports whether something waits or is being sent.
func (q *queue) unsent() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count > 0 || q.busy
}

// depth returns the bytes that wait.
func (q *queue) depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// close releases what waits and takes no more.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	var left []Segment
	for _, l := range []*flowList{&q.fresh, &q.active} {
		for l.first != nil {
			f := l.pop()
			for f.first != nil {
				left = append(left, q.remove(f).seg)
			}
		}
	}
	q.free, q.nfree, q.flows = nil, 0, 0
	q.mu.Unlock()
	for _, seg := range left {
		seg.Release()
	}
}
