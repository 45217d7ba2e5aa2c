package tunnel

import (
	"runtime"
	"sync"

	"github.com/tougw/tougw/gue"
	"github.com/tougw/tougw/internal/packet"
)

// Segment is an outbound transport segment of up to 64 KiB, cut to the size of
// the path as it goes on the wire. Its methods are called by one goroutine.
type Segment interface {
	// Session is the own id of the session that it belongs to.
	Session() uint64
	// Flags are the flags of the TCP header.
	Flags() uint8
	// Len is what is still to be cut, one transport header included, in bytes.
	Len() int
	// Cut writes the next wire segment, header and payload, into dst and
	// returns its length, which is at most len(dst). It returns 0 at the end,
	// or when dst cannot hold the header and a byte of what is left. With sum
	// it fills in the transport checksum, else zero.
	Cut(dst []byte, sum bool) int
	// Release ends the use of the segment.
	Release()
}

// TCP header flags that session ids depend on (RFC 9293 section 3.1).
const (
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpACK = 0x10
)

type outbound struct {
	seg  Segment
	sess *session
}

// queue is the transmit queue of a link: bounded in bytes, swapped out whole by
// whoever drains it. That is one at a time: the link's goroutine, or, for a small
// segment that finds nothing under way, the goroutine that brings it. A layer
// that orders or delays what is sent (fair queueing, pacing, recovery) takes its
// place between take and the batch of transmit.
type queue struct {
	mu     sync.Mutex
	items  []outbound
	bytes  int
	max    int
	busy   bool // somebody sends
	closed bool
	wake   chan struct{} // holds a token while items wait and nobody sends
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
)

// put takes o unless the queue is at its bound or closed. The bound is checked
// before: one segment may exceed it, so that the largest always fits an empty
// queue.
func (q *queue) put(o outbound) verdict {
	n := o.seg.Len()
	q.mu.Lock()
	switch {
	case q.closed || q.bytes >= q.max:
		q.mu.Unlock()
		return dropped
	case !q.busy && len(q.items) == 0 && n <= smallSegment:
		q.busy = true
		q.mu.Unlock()
		return direct
	}
	q.items = append(q.items, o)
	q.bytes += n
	wake := !q.busy && len(q.items) == 1
	q.mu.Unlock()
	if wake {
		q.signal()
	}
	return queued
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take swaps the queued items for the empty slice spare and gives them; done has
// to follow. It gives none while somebody else sends, who will wake the link's
// goroutine again.
func (q *queue) take(spare []outbound) []outbound {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy || len(q.items) == 0 {
		return nil
	}
	items := q.items
	q.items, q.bytes, q.busy = spare, 0, true
	return items
}

// done ends what take or put began.
func (q *queue) done() {
	q.mu.Lock()
	q.busy = false
	wake := len(q.items) > 0
	q.mu.Unlock()
	if wake {
		q.signal()
	}
}

// depth returns the bytes that wait.
func (q *queue) depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	items := q.items
	q.items, q.bytes = nil, 0
	q.mu.Unlock()
	for _, o := range items {
		o.seg.Release()
	}
}

// maxRun is how many records one send may hold: the kernel's UDP_MAX_SEGMENTS
// was 64 until Linux 6.9.
const maxRun = 64

// maxRunBytes is the largest UDP payload over IPv4, which a run may not exceed.
const maxRunBytes = 65507

// transmit drains the queue until the link is done: it cuts segments, puts the
// GUE header before each piece, has it sealed in place, and sends runs of
// records of one size. It never waits for more: a run is sent when the next
// record does not fit it, or when the queue is empty.
func (l *Link) transmit() {
	defer l.node.wg.Done()
	var spare []outbound
	for {
		select {
		case <-l.done:
			l.queue.close()
			return
		case <-l.quit:
			for l.queue.depth() > 0 { // somebody may be sending, for moments
				spare = l.drain(spare)
				runtime.Gosched()
			}
			l.queue.close()
			l.close(errStopped)
			l.Detach(errStopped)
			return
		case <-l.queue.wake:
		}
		spare = l.drain(spare)
	}
}

// drain sends what is queued, unless somebody else is sending, and gives an
// empty slice for the next time.
func (l *Link) drain(spare []outbound) []outbound {
	items := l.queue.take(spare[:0])
	if items == nil {
		return spare
	}
	l.sendAll(items)
	clear(items) // no segment outlives its release
	l.queue.done()
	if cap(items) > 1024 {
		return nil // a burst's memory is given back
	}
	return items[:0]
}

// sendNow sends one small segment.
func (l *Link) sendNow(o outbound) {
	one := [1]outbound{o}
	l.sendAll(one[:])
	l.queue.done()
}

// sendAll sends items and releases each. The buffer is borrowed from the pool
// only meanwhile.
func (l *Link) sendAll(items []outbound) {
	if len(items) == 0 {
		return
	}
	buf := packet.Get()
	defer buf.Release()
	r := run{link: l, buf: buf.B[:maxRunBytes]}
	for i := range items {
		r.segment(items[i])
		items[i].seg.Release()
	}
	r.flush()
}

// run is a batch of records being built: all of one size but the last.
type run struct {
	link  *Link
	buf   []byte
	n     int // bytes of finished records
	size  int // size of the first record
	count int
	plain int // bytes of plaintext in it
}

// segment cuts o into records and appends them.
func (r *run) segment(o outbound) {
	l := r.link
	c := &l.node.counters
	sum := !l.noSum.Load()
	for left := o.seg.Len(); left > 0; left = o.seg.Len() {
		var h [gue.MaxSessionLen]byte
		hlen := o.sess.header(h[:], o.seg.Flags())
		if hlen == 0 {
			c.drops.count(DropBadIDs)
			return
		}
		room := int(l.maxPlain.Load()) - hlen
		if room <= 0 {
			c.drops.count(DropTooLarge)
			return
		}
		n := min(left, room)
		size := l.head + hlen + n + l.tail
		if r.count > 0 && (size > r.size || r.count == maxRun || r.n+size > len(r.buf)) {
			r.flush()
		}
		rec := r.buf[r.n : r.n+size]
		copy(rec[l.head:], h[:hlen])
		m := o.seg.Cut(rec[l.head+hlen:l.head+hlen+n], sum)
		if m == 0 {
			c.drops.count(DropTooLarge)
			return
		}
		got, err := l.secure.Seal(rec, hlen+m)
		if err != nil {
			c.drops.count(DropSeal)
			l.exhausted()
			return
		}
		c.segmentsOut.Add(1)
		c.bytesOut.Add(uint64(m))
		r.plain += hlen + m
		if r.count == 0 {
			r.size = got
		}
		r.n += got
		r.count++
		if got < r.size { // a shorter record closes the run
			r.flush()
		}
	}
}

func (r *run) flush() {
	if r.count == 0 {
		return
	}
	l := r.link
	if err := l.secure.Send(r.buf[:r.n], r.size); err != nil {
		l.node.counters.drops[DropSend].Add(uint64(r.count))
	}
	l.lastTx.Store(l.node.now())
	if inst := l.inst.Load(); inst != nil {
		inst.bytesOut.Add(uint64(r.plain))
	}
	r.n, r.size, r.count, r.plain = 0, 0, 0, 0
}
