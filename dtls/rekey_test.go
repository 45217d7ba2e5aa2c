package dtls

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bits is a set of small numbers.
type bits []uint64

// add reports whether n was not there.
func (b *bits) add(n uint64) bool {
	for uint64(len(*b)) <= n/64 {
		*b = append(*b, 0)
	}
	w := &(*b)[n/64]
	if *w&(1<<(n%64)) != 0 {
		return false
	}
	*w |= 1 << (n % 64)
	return true
}

// usedNumbers watches the wire: no number of ours is used twice under one key,
// which the receiver's Connection ID stands for. A handshake's may be repeated,
// byte for byte.
type usedNumbers struct {
	mu   sync.Mutex
	keys map[uint64]*bits
	low  map[[2]uint64][]byte
}

func (u *usedNumbers) see(t testing.TB, b []byte) {
	h, n, drop := parseHeader(b)
	if drop != numDrops || h.typ != typeCID {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if h.seq < firstNumber {
		k := [2]uint64{h.cid, h.seq}
		if old, ok := u.low[k]; ok && !bytes.Equal(old, b[:n]) {
			t.Errorf("number %d used for two records", h.seq)
		}
		u.low[k] = slices.Clone(b[:n])
		return
	}
	k := u.keys[h.cid]
	if k == nil {
		k = &bits{}
		u.keys[h.cid] = k
	}
	if !k.add(h.seq) {
		t.Errorf("number %d used twice", h.seq)
	}
}

// stream checks that numbered records arrive, each once.
type stream struct {
	t    testing.TB
	mu   sync.Mutex
	seen bits
	n    uint64 // have arrived
	low  uint64 // all below have
}

func (s *stream) take(records [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range records {
		if id := binary.BigEndian.Uint64(b); !s.seen.add(id) {
			s.t.Errorf("record %d arrived twice", id)
		}
		s.n++
	}
	for s.low/64 < uint64(len(s.seen)) && s.seen[s.low/64]&(1<<(s.low%64)) != 0 {
		s.low++
	}
}

// prefix is the number of records from the first on that have all arrived.
func (s *stream) prefix() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.low
}

func (s *stream) count() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// sendRun seals and sends the numbered records from to from+n-1. An error means
// that none of them was sent.
func sendRun(a *Association, buf []byte, from uint64, n int) error {
	head, tail := a.Overhead()
	const size = 16
	one := head + size + tail
	for i := range n {
		b := buf[i*one : (i+1)*one]
		binary.BigEndian.PutUint64(b[head:], from+uint64(i))
		if _, err := a.Seal(b, size); err != nil {
			return err
		}
	}
	return a.Send(buf[:n*one], one)
}

// rekeyHello is the number of a record that is not of the stream.
const rekeyHello = 1 << 63

const (
	rekeyRun    = 40  // records of one Send
	rekeyWindow = 100 // runs on their way
)

// rekeyEvents are those of the server: it answers a hello, counts what arrives,
// gives the window free, and answers a run on the newest association that data
// came on.
type rekeyEvents struct {
	*recorder
	up, down stream
	credit   chan struct{}

	mu      sync.Mutex
	order   map[*Association]int
	newest  *Association
	runs    uint64
	answers uint64
	buf     []byte
}

func (e *rekeyEvents) NewReceiver() Receiver { return e }
func (e *rekeyEvents) Flush()                {}

func (e *rekeyEvents) Established(a *Association) {
	e.recorder.Established(a)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.order[a] = len(e.order)
}

func (e *rekeyEvents) Receive(a *Association, records [][]byte) {
	if binary.BigEndian.Uint64(records[0]) == rekeyHello {
		if err := sendRun(a, make([]byte, 100), rekeyHello, 1); err != nil {
			e.t.Errorf("hello: %v", err)
		}
		if records = records[1:]; len(records) == 0 {
			return
		}
	}
	e.up.take(records)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.newest == nil || e.order[a] > e.order[e.newest] {
		e.newest = a
	}
	for n := e.up.count() / rekeyRun; e.runs < n; e.runs++ {
		<-e.credit
		if err := sendRun(e.newest, e.buf, e.answers, 1); err != nil {
			e.t.Errorf("answer: %v", err)
		}
		e.answers++
	}
}

// rekeyClient sends on the current association, and replaces it.
type rekeyClient struct {
	w   *world
	ev  *rekeyEvents
	cur atomic.Pointer[Association]
	// sending is held for reading while something is sent on cur.
	sending sync.RWMutex
	next    atomic.Uint64
	// hello and heard have the associations on which the server answered, and
	// the first number of its stream there.
	hello, heard sync.Map
	// refused counts runs that found the keys exhausted and were sent on the
	// next association.
	refused atomic.Int64
}

func (c *rekeyClient) receive(a *Association, records [][]byte) {
	if binary.BigEndian.Uint64(records[0]) == rekeyHello {
		c.hello.Store(a, true)
		if records = records[1:]; len(records) == 0 {
			return
		}
	}
	c.heard.LoadOrStore(a, binary.BigEndian.Uint64(records[0]))
	c.ev.down.take(records)
}

// send sends total records, together with others.
func (c *rekeyClient) send(total uint64) {
	buf := make([]byte, rekeyRun*100)
	for {
		from := c.next.Add(rekeyRun) - rekeyRun
		if from >= total {
			return
		}
		select {
		case c.ev.credit <- struct{}{}:
		case <-time.After(20 * time.Second):
			c.w.t.Error("the stream stands still")
			return
		}
		for {
			c.sending.RLock()
			a := c.cur.Load()
			err := sendRun(a, buf, from, rekeyRun)
			c.sending.RUnlock()
			if err == nil {
				break
			}
			if !errors.Is(err, ErrExhausted) {
				c.w.t.Errorf("run %d: %v", from, err)
				return
			}
			c.refused.Add(1)
			eventually(c.w.t, "new keys", func() bool { return c.cur.Load() != a })
		}
	}
}

func (c *rekeyClient) connect(n int) (*Association, error) {
	sock := c.w.net.socket(fmt.Sprintf("198.51.100.7:%d", 5000+n))
	sock.whole = true
	return c.w.client.Dial(context.Background(), sock, c.w.serverSock.addr, c.w.dial)
}

// replace makes a new association, switches to it when the server has answered
// there (it may not be ready to take data at full speed before), and ends the
// old one after a grace: when the server has switched too and all has come that it sent before.
func (c *rekeyClient) replace(n int, ended func() bool) {
	old := c.cur.Load()
	a, err := c.connect(n + 1)
	check(c.w.t, err)
	check(c.w.t, sendRun(a, make([]byte, 100), rekeyHello, 1))
	eventually(c.w.t, "answer on the new association", func() bool { _, ok := c.hello.Load(a); return ok })
	c.sending.Lock()
	c.cur.Store(a)
	c.sending.Unlock()
	eventually(c.w.t, "the server's switch", func() bool {
		first, ok := c.heard.Load(a)
		return ok && c.ev.down.prefix() >= first.(uint64) || ended()
	})
	if !ended() {
		check(c.w.t, old.Close(nil))
	}
}

// TestRekey runs a stream of a million records over more than a hundred
// associations with tiny limits, each dialled, switched to, and the one before
// it ended, while two goroutines send: nothing is lost or doubled, either way,
// and no number is used twice.
func TestRekey(t *testing.T) {
	t.Parallel()
	const total, limit = 1_000_000, 8000
	used := usedNumbers{keys: map[uint64]*bits{}, low: map[[2]uint64][]byte{}}
	ev := &rekeyEvents{credit: make(chan struct{}, rekeyWindow), order: map[*Association]int{}, buf: make([]byte, 100)}
	client := &rekeyClient{ev: ev}
	w := newWorld(t, func(w *world) {
		ev.recorder, ev.up.t, ev.down.t = w.serverEvents, t, t
		w.serverEvent = ev
		w.clientConfig.Limits.Records = limit
		w.net.tap = func(_, _ netip.AddrPort, b []byte) { used.see(t, b) }
		w.clientEvents.onReceive = client.receive
	})
	client.w = w
	first, err := client.connect(0)
	check(t, err)
	client.cur.Store(first)

	var left atomic.Int32
	left.Store(2)
	for range 2 {
		go func() {
			defer left.Add(-1)
			client.send(total)
		}()
	}
	ended := func() bool { return left.Load() == 0 }
	switches := 0
	for !ended() {
		// An owner of thousands looks at each twice a second.
		if u := client.cur.Load().Usage(); u.Share() >= 0.25 {
			client.replace(switches, ended)
			switches++
		}
		time.Sleep(100 * time.Microsecond)
	}
	eventually(t, "all of the stream", func() bool {
		ev.mu.Lock()
		defer ev.mu.Unlock()
		return ev.up.prefix() == total && ev.down.prefix() == ev.answers && ev.answers == total/rekeyRun
	})
	if switches <= 100 {
		t.Errorf("%d switches", switches)
	}
	if n := len(used.keys); n < 2*switches {
		t.Errorf("%d keys seen on the wire", n)
	}
	t.Logf("%d switches; %d runs waited for new keys", switches, client.refused.Load())
}
