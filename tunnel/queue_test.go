package tunnel

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

func TestQueueIsBounded(t *testing.T) {
	q, sess := newQueue(10_000), &session{}
	var segs []*segment
	for range 5 {
		s := newSegment(1, tcpACK, make([]byte, 4980))
		if q.put(outbound{s, sess}, false) == dropped {
			break
		}
		segs = append(segs, s)
	}
	if len(segs) != 2 {
		t.Fatalf("%d segments of 5000 bytes fit a queue of 10000", len(segs))
	}
	if d := q.depth(); d != 10_000 {
		t.Fatalf("depth %d", d)
	}
	if got := q.take(nil); len(got) != 2 || q.depth() != 0 {
		t.Fatalf("took %d, left %d", len(got), q.depth())
	}
	q.done()
	s := newSegment(1, tcpACK, make([]byte, 50_000))
	if q.put(outbound{s, sess}, false) != queued {
		t.Fatal("a segment larger than the bound does not fit an empty queue")
	}
	q.close()
	if *s.released != 1 {
		t.Fatal("close did not release what waited")
	}
	if q.put(outbound{s, sess}, false) != dropped {
		t.Fatal("a closed queue took a segment")
	}
}

// TestSmallSegmentsAreSentAtOnce: by who brings them, but never past others.
func TestSmallSegmentsAreSentAtOnce(t *testing.T) {
	q, sess := newQueue(1<<20), &session{}
	small := outbound{newSegment(1, tcpACK, make([]byte, 100)), sess}
	large := outbound{newSegment(1, tcpACK, make([]byte, 5000)), sess}
	if q.put(small, false) != direct {
		t.Fatal("a small segment was queued although nothing waits")
	}
	if q.put(small, false) != queued || q.put(large, false) != queued {
		t.Fatal("not queued behind one that is being sent")
	}
	if q.take(nil) != nil {
		t.Fatal("two senders at once")
	}
	select {
	case <-q.wake:
		t.Fatal("woken while somebody sends")
	default:
	}
	q.done()
	select {
	case <-q.wake:
	default:
		t.Fatal("nobody was woken for what waits")
	}
	if q.put(small, false) != queued {
		t.Fatal("a small segment went past others")
	}
	if got := q.take(nil); len(got) != 3 || got[1] != large {
		t.Fatalf("took %d", len(got))
	}
	q.done()
	if q.put(large, false) != queued || q.put(small, false) != queued {
		t.Fatal("a large segment was sent by who brought it, or overtaken")
	}
}

func TestTransmitAllocatesNothing(t *testing.T) {
	_, l := benchLink()
	large, small := make([]byte, 65000), make([]byte, 60)
	var segs []*segment
	var sess []*session
	for i := range 8 {
		s := &session{id: uint64(i + 1), inst: &instance{}}
		s.remote.Store(2)
		sess = append(sess, s)
		segs = append(segs, newSegment(s.id, tcpACK, nil))
	}
	var batch []outbound
	if a := testing.AllocsPerRun(100, func() {
		for i, seg := range segs {
			seg.left, seg.first = large, true
			if i%2 == 1 { // the first is not small, and has the others wait
				seg.left = small
			}
			if v := l.queue.put(outbound{seg, sess[i]}, false); v != queued {
				t.Fatalf("segment %d: verdict %d", i, v)
			}
		}
		batch = l.drain(batch)
	}); a > 0 {
		t.Errorf("%v allocations for eight segments of eight flows", a)
	}
}

// flows makes n sessions whose segments can be told apart.
func flows(n int) []*session {
	all := make([]*session, n)
	for i := range all {
		all[i] = &session{id: uint64(i + 1)}
	}
	return all
}

// fill queues n segments of size bytes, with consecutive numbers from from on.
func fill(t *testing.T, q *queue, s *session, from, n, size int) {
	t.Helper()
	for i := range n {
		p := make([]byte, size-testHeader)
		binary.BigEndian.PutUint32(p, uint32(from+i))
		if v := q.put(outbound{newSegment(s.id, tcpACK, p), s}, false); v != queued {
			t.Fatalf("segment %d of flow %d: verdict %d", from+i, s.id, v)
		}
	}
}

// drainQueue takes everything and lists it; check sees each batch.
func drainQueue(q *queue, check func([]outbound)) (all []outbound) {
	batch := q.take(nil)
	for len(batch) > 0 {
		if check != nil {
			check(batch)
		}
		all = append(all, batch...)
		batch = q.more(batch[:0:0])
	}
	if len(all) > 0 {
		q.done()
	}
	return all
}

func number(o outbound) int {
	return int(binary.BigEndian.Uint32(o.seg.(*segment).left))
}

// TestFlowsShareByBytes: whatever the size of their segments, flows that have
// something waiting get the same, within a turn.
func TestFlowsShareByBytes(t *testing.T) {
	q := newQueue(64 << 20)
	sizes := []int{65000, 1400, 9000, 30000}
	all := flows(len(sizes))
	q.busy = true
	for i, s := range all {
		fill(t, q, s, 0, 4<<20/sizes[i], sizes[i])
	}
	q.busy = false
	sent := make([]int, len(sizes)) // with what a segment counts beside its bytes
	total := 0
	batch := q.take(nil)
	for ; total < 8<<20; batch = q.more(batch[:0]) {
		for _, o := range batch {
			n := o.seg.Len() + segmentCost
			sent[o.sess.id-1] += n
			total += n
		}
		for i, n := range sent {
			if d := n - total/len(sent); d > 2*quantum || d < -2*quantum {
				t.Fatalf("after %d bytes flow %d (segments of %d bytes) is %d bytes off its share", total, i, sizes[i], d)
			}
		}
	}
}

// TestSmallMessagesDoNotWaitForBulk: beyond what is being sent already.
func TestSmallMessagesDoNotWaitForBulk(t *testing.T) {
	q := newQueue(32 << 20)
	all := flows(12)
	bulk, sparse := all[:10], all[10:]
	for _, s := range bulk {
		fill(t, q, s, 0, 20, 64000)
	}
	batch := q.take(nil)
	for range len(bulk) { // until none of them is new
		batch = q.more(batch[:0])
	}
	for round := range 20 {
		for _, s := range sparse {
			fill(t, q, s, round, 1, 200)
		}
		batch = q.more(batch[:0])
		for i, s := range sparse {
			if batch[i].sess != s || number(batch[i]) != round {
				t.Fatalf("round %d: position %d is flow %d", round, i, batch[i].sess.id)
			}
		}
		batch = q.more(batch[:0])
	}
}

// TestNobodyStaysAhead: a flow that always has a little keeps bulk from its
// share no more than any other.
func TestNobodyStaysAhead(t *testing.T) {
	q := newQueue(16 << 20)
	all := flows(2)
	fill(t, q, all[0], 0, 100, 64000)
	next, sent := 0, [2]int{}
	batch := q.take(nil)
	for sent[0] < 50 {
		for _, o := range batch {
			sent[o.sess.id-1]++
		}
		fill(t, q, all[1], next, 40, 1300) // is never found without
		next += 40
		batch = q.more(batch[:0])
		if sent[1] > 100*(sent[0]+2) {
			t.Fatalf("%d small segments and %d large ones were sent", sent[1], sent[0])
		}
	}
}

func TestFattestFlowIsRefusedFirst(t *testing.T) {
	const bound = 1 << 20
	q := newQueue(bound)
	all := flows(50)
	q.busy = true
	put := func(s *session, size int) bool {
		return q.put(outbound{newSegment(s.id, tcpACK, make([]byte, size-testHeader)), s}, false) == queued
	}
	for put(all[0], 10_000) {
	}
	if got := q.depth(); got < bound*8/9 || got > bound*8/9+10_000 {
		t.Fatalf("one flow got %d of %d bytes", got, bound)
	}
	for i, s := range all[1:] {
		for n := range 2 {
			if !put(s, 1000) {
				t.Fatalf("segment %d of flow %d refused, though flow 1 has nearly all", n, i+2)
			}
		}
		if put(all[0], 1000) {
			t.Fatal("the fattest flow got more")
		}
	}
	// However many come, the bound holds.
	for i := 0; i < 1000; i++ {
		put(&session{}, 1000)
	}
	if got := q.depth(); got > bound+bound/8+1000 {
		t.Fatalf("%d bytes wait, bound %d", got, bound)
	}
	if got := drainQueue(q, nil); got != nil {
		t.Fatal("two senders at once")
	}
	q.busy = false
	drainQueue(q, nil)
	if q.depth() != 0 || q.count != 0 || q.fresh.first != nil || q.active.first != nil || q.nfree > maxFree {
		t.Fatalf("left: %+v", q)
	}
}

// TestOrderWithinAFlow: over a long random life, every segment comes out once,
// in the order of its flow, in batches of bounded size.
func TestOrderWithinAFlow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	q := newQueue(8 << 20)
	all := flows(20)
	put, got := make([]int, len(all)), make([]int, len(all))
	check := func(batch []outbound) {
		sum := 0
		for i, o := range batch {
			f := o.sess.id - 1
			if number(o) != got[f] {
				t.Fatalf("flow %d: segment %d, want %d", f, number(o), got[f])
			}
			got[f]++
			if i < len(batch)-1 {
				sum += o.seg.Len()
			}
		}
		if sum >= batchBytes {
			t.Fatalf("batch of more than %d bytes", sum)
		}
	}
	for range 2000 {
		for range r.IntN(40) {
			i := r.IntN(len(all))
			size := testHeader + 4 + r.IntN(300)
			if i%3 == 0 {
				size = testHeader + 4 + r.IntN(64000)
			}
			p := make([]byte, size-testHeader)
			binary.BigEndian.PutUint32(p, uint32(put[i]))
			o := outbound{newSegment(all[i].id, tcpACK, p), all[i]}
			switch q.put(o, false) {
			case queued:
				put[i]++
			case direct:
				put[i]++
				check([]outbound{o})
				q.done()
			}
		}
		batch := q.take(nil)
		for n := r.IntN(30); len(batch) > 0; n-- {
			check(batch)
			if n <= 0 {
				break
			}
			batch = q.more(nil)
		}
		if len(batch) > 0 || q.busy {
			q.done()
		}
	}
	drainQueue(q, check)
	for i := range all {
		if put[i] != got[i] || put[i] == 0 {
			t.Errorf("flow %d: %d in, %d out", i, put[i], got[i])
		}
	}
}

// TestSessionMovesToAnotherQueue: what waits in the old one stays there and
// leaves by it.
func TestSessionMovesToAnotherQueue(t *testing.T) {
	a, b := newQueue(1<<20), newQueue(1<<20)
	s := flows(1)[0]
	fill(t, a, s, 0, 3, 3000)
	fill(t, b, s, 3, 3, 3000)
	if got := drainQueue(a, nil); len(got) != 3 || number(got[2]) != 2 {
		t.Fatalf("old queue gave %d", len(got))
	}
	fill(t, b, s, 6, 1, 3000)
	if got := drainQueue(b, nil); len(got) != 4 || number(got[3]) != 6 {
		t.Fatalf("new queue gave %d", len(got))
	}
}
