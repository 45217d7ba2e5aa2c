package tunnel

import (
	"runtime"

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

const (
	// maxRun is how many records one run may hold: the kernel's UDP_MAX_SEGMENTS
	// was 64 until Linux 6.9.
	maxRun = 64
	// maxRuns is how many runs are sent at once: of small segments of all sizes
	// about as many bytes as of large ones.
	maxRuns = 64
	// maxRunBytes is the largest UDP payload over IPv4, which a run may not
	// exceed, and bounds what is sent at once: where links wait for one another
	// at a socket, that is the turn of each.
	maxRunBytes = 65507
)

// maxTurn is how many batches are sent before other goroutines get the
// processor: those of other links among them, which have no more to send only
// because this one's peer has more flows. It is about 1 MiB.
const maxTurn = 16

// transmit drains the queue until the link is done: it cuts segments, puts the
// GUE header before each piece, has it sealed in place, and sends runs of
// records of one size, several at once when they are short. It never waits for
// more: what there is is sent when the next record has no place beside it, or
// when the queue is empty.
func (l *Link) transmit() {
	defer l.node.wg.Done()
	var batch []outbound
	for {
		select {
		case <-l.done:
			l.queue.close()
			return
		case <-l.quit:
			for l.queue.unsent() { // somebody may be sending, for moments
				batch = l.drain(batch)
				runtime.Gosched()
			}
			l.queue.close()
			l.close(errStopped)
			l.Detach(errStopped)
			return
		case <-l.queue.wake:
		}
		if batch = l.drain(batch); l.queue.depth() > 0 {
			runtime.Gosched()
		}
	}
}

// drain sends what is queued, maxTurn batches at most, unless somebody else is
// sending. It uses the memory of batch and gives it back.
func (l *Link) drain(batch []outbound) []outbound {
	batch = l.queue.take(batch[:0])
	if len(batch) == 0 {
		return batch
	}
	buf := packet.Get()
	l.out.buf = buf.B[:maxRunBytes]
	for turn := 1; len(batch) > 0; turn++ {
		for i := range batch {
			l.encap(batch[i])
			batch[i].seg.Release()
		}
		clear(batch) // no segment outlives its release
		batch = batch[:0]
		if turn < maxTurn {
			batch = l.queue.more(batch)
		}
	}
	l.flush()
	l.out.buf = nil
	buf.Release()
	l.queue.done()
	return batch
}

// sendNow sends one small segment.
func (l *Link) sendNow(o outbound) {
	buf := packet.Get()
	l.out.buf = buf.B[:maxRunBytes]
	l.encap(o)
	o.seg.Release()
	l.flush()
	l.out.buf = nil
	buf.Release()
	l.queue.done()
}

// Run is a run of records of Size bytes each, of which the last may be shorter,
// and Len bytes in all. It is another name for an unnamed type, as Path is.
type Run = struct{ Len, Size int }

// burst is what is being built to be sent at once. It belongs to whoever sends.
type burst struct {
	buf     []byte // borrowed from the pool only meanwhile
	n       int    // bytes of records in it
	runs    [maxRuns]Run
	nruns   int
	open    bool // the last run takes more records
	count   int  // records in the last run
	records int  // in all
	plain   int  // bytes of plaintext
}

// joins reports whether a record of size bytes continues the last run.
func (b *burst) joins(size int) bool {
	return b.open && b.count < maxRun && size <= b.runs[b.nruns-1].Size && b.n+size <= len(b.buf)
}

// add takes in the record of size bytes that was put at buf[n].
func (b *burst) add(size, plain int, joins bool) {
	if !joins {
		b.runs[b.nruns] = Run{Size: size}
		b.nruns++
		b.count = 0
	}
	r := &b.runs[b.nruns-1]
	r.Len += size
	b.open = size == r.Size // a shorter record closes the run
	b.n += size
	b.count++
	b.records++
	b.plain += plain
}

// encap cuts o into records and adds them to what is to be sent.
func (l *Link) encap(o outbound) {
	b := &l.out
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
		joins := b.joins(size)
		// A large segment is not torn between this burst and the next.
		if !joins && b.n > 0 && (b.nruns == maxRuns || b.n+size+(left-1)/n*size > len(b.buf)) {
			l.flush()
		}
		rec := b.buf[b.n : b.n+size]
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
		b.add(got, hlen+m, joins)
	}
}

// flush sends what there is.
func (l *Link) flush() {
	b := &l.out
	if b.records == 0 {
		return
	}
	if lost := l.secure.SendRuns(b.buf[:b.n], b.runs[:b.nruns]); lost > 0 {
		l.node.counters.drops[DropSend].Add(uint64(lost))
	}
	l.lastTx.Store(l.node.now())
	if inst := l.inst.Load(); inst != nil {
		inst.bytesOut.Add(uint64(b.plain))
	}
	b.n, b.nruns, b.open, b.records, b.plain = 0, 0, false, 0, 0
}
