package tcpip

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// wire joins two Tunnels in one process: it cuts segments to size bytes and
// translates ids as the owner of a Tunnel does, with seeded loss and
// reordering. Each direction has one goroutine.
type wire struct {
	size    int
	delay   time.Duration // one way
	loss    float64
	reorder float64
	tap     func(toB bool, id uint64, seg []byte) // sees each cut segment

	a, b *Tunnel
	ab   *leg // a to b
	ba   *leg
	wg   sync.WaitGroup

	mu   sync.Mutex
	toB  map[uint64]uint64 // a's id to b's
	toA  map[uint64]uint64
	next uint64 // of b's ids
}

// leg is one direction of a wire.
type leg struct {
	delay  time.Duration
	mu     sync.Mutex
	filled sync.Cond
	segs   []inFlight
	closed bool
}

type inFlight struct {
	*Segment
	due time.Time
}

func newLeg(delay time.Duration) *leg {
	l := &leg{delay: delay}
	l.filled.L = &l.mu
	return l
}

func (l *leg) put(segs []*Segment) {
	l.mu.Lock()
	due := time.Now().Add(l.delay)
	for _, s := range segs {
		l.segs = append(l.segs, inFlight{s, due})
	}
	l.filled.Signal()
	l.mu.Unlock()
}

// newWire makes two Tunnels and joins them.
func newWire(t testing.TB, a, b TunnelConfig, w *wire) *wire {
	t.Helper()
	w.toB, w.toA, w.next = make(map[uint64]uint64), make(map[uint64]uint64), 1<<63
	if w.size == 0 {
		w.size = 1300
	}
	w.ab, w.ba = newLeg(w.delay), newLeg(w.delay)
	var err error
	if w.a, err = NewTunnel(a, w.ab.put); err != nil {
		t.Fatal(err)
	}
	if w.b, err = NewTunnel(b, w.ba.put); err != nil {
		t.Fatal(err)
	}
	w.wg.Go(func() { w.run(w.ab, w.b, true) })
	w.wg.Go(func() { w.run(w.ba, w.a, false) })
	t.Cleanup(w.close)
	return w
}

func (w *wire) close() {
	w.a.Close()
	w.b.Close()
	for _, l := range []*leg{w.ab, w.ba} {
		l.mu.Lock()
		l.closed = true
		l.filled.Broadcast()
		l.mu.Unlock()
	}
	w.wg.Wait()
}

// translate gives the other side's id of a segment that left.
func (w *wire) translate(id uint64, toB, syn bool) (uint64, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !toB {
		other, ok := w.toA[id]
		return other, ok
	}
	other, ok := w.toB[id]
	if !ok && syn {
		w.next++
		other, ok = w.next, true
		w.toB[id], w.toA[other] = other, id
	}
	return other, ok
}

func (w *wire) run(l *leg, to *Tunnel, toB bool) {
	seed := uint64(1)
	if !toB {
		seed = 2
	}
	rnd := rand.New(rand.NewPCG(7, seed))
	in := to.NewInjector()
	buf := make([]byte, w.size)
	var held []byte // a segment that is overtaken by the next
	var heldID uint64
	var batch []inFlight
	for {
		l.mu.Lock()
		for len(l.segs) == 0 && !l.closed {
			l.filled.Wait()
		}
		batch, l.segs = l.segs, batch[:0]
		closed := l.closed
		l.mu.Unlock()
		for _, s := range batch {
			if w.delay > 0 && !closed {
				if d := time.Until(s.due); d > 0 {
					in.Flush()
					time.Sleep(d)
				}
			}
			id, ok := w.translate(s.Session(), toB, s.Flags()&FlagSYN != 0)
			for n := s.Cut(buf, true); n > 0; n = s.Cut(buf, true) {
				seg := buf[:n]
				if w.tap != nil {
					w.tap(toB, s.Session(), seg)
				}
				if !ok || w.loss > 0 && rnd.Float64() < w.loss {
					continue
				}
				if held == nil && w.reorder > 0 && rnd.Float64() < w.reorder {
					held, heldID = append([]byte(nil), seg...), id
					continue
				}
				in.Inject(id, seg)
				if held != nil {
					in.Inject(heldID, held)
					held = nil
				}
			}
			s.Release()
		}
		clear(batch)
		in.Flush()
		if closed {
			return
		}
	}
}

// segment makes a TCP segment with the checksum of the tunnel.
func segment(flags uint8, seq, ack uint32, options, payload []byte) []byte {
	b := make([]byte, 20, 20+len(options)+len(payload))
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], 443)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = byte((20+len(options))/4)<<4, flags
	binary.BigEndian.PutUint16(b[14:], 65535)
	b = append(append(b, options...), payload...)
	return sum(b)
}
