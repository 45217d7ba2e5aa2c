// Package relay is a UDP relay with bad manners: it stands on the path between
// a client and a gateway, as a NAT does, and delays, loses, reorders, repeats,
// alters and invents datagrams, as the worst of networks do. What it does to
// them follows from a seed.
package relay

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxDatagram is the size of a read buffer.
	maxDatagram = 1 << 16
	// memory is how many datagrams of a direction are kept for replays.
	memory = 512
	// maxQueued bounds the datagrams on their way; more are lost.
	maxQueued = 1 << 15
	// maxClients bounds the flows of a relay.
	maxClients = 1024
)

// Faults is what a relay does to datagrams. The zero value forwards them as
// they are. Shares are probabilities for each datagram.
type Faults struct {
	// Drop loses datagrams.
	Drop float64
	// Flip inverts one bit of datagrams.
	Flip float64
	// Forge sends a copy with one inverted bit behind datagrams.
	Forge float64
	// Replay sends one of the last datagrams of the same direction once more.
	Replay float64
	// Delay of every datagram, each way, and Jitter, up to which it varies and
	// reorders them.
	Delay, Jitter time.Duration
	// MaxSize drops larger datagrams, in bytes of UDP payload; 0 is no limit.
	MaxSize int
}

// Counts is what a relay has done since it was made.
type Counts struct {
	Forwarded, Dropped, Flipped, Forged, Replayed uint64
}

// Relay forwards between clients, which send to its front socket, and one
// server.
type Relay struct {
	front net.PacketConn
	dial  func() (net.Conn, error)

	faults atomic.Pointer[Faults]
	counts struct{ forwarded, dropped, flipped, forged, replayed atomic.Uint64 }

	mu      sync.Mutex
	rng     *rand.Rand
	clients map[netip.AddrPort]net.Conn
	closed  bool

	up, down *line
	wg       sync.WaitGroup
}

// New makes a relay and starts it. It takes front, where clients send to, and
// calls dial for a socket towards the server for each client. The caller must
// Close it.
func New(seed uint64, front net.PacketConn, dial func() (net.Conn, error)) *Relay {
	r := &Relay{
		front:   front,
		dial:    dial,
		rng:     rand.New(rand.NewPCG(seed, 0)),
		clients: map[netip.AddrPort]net.Conn{},
	}
	r.faults.Store(&Faults{})
	r.up, r.down = newLine(), newLine()
	r.wg.Go(r.up.run)
	r.wg.Go(r.down.run)
	r.wg.Go(r.readFront)
	return r
}

// Addr is where clients send to.
func (r *Relay) Addr() netip.AddrPort { return r.front.LocalAddr().(*net.UDPAddr).AddrPort() }

// Set replaces the faults.
func (r *Relay) Set(f Faults) { r.faults.Store(&f) }

// Counts returns what was done so far.
func (r *Relay) Counts() Counts {
	c := &r.counts
	return Counts{c.forwarded.Load(), c.dropped.Load(), c.flipped.Load(), c.forged.Load(), c.replayed.Load()}
}

// Rebind forgets the sockets towards the server, as a NAT forgets mappings: the
// next datagram of each client comes from another port.
func (r *Relay) Rebind() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for client, conn := range r.clients {
		_ = conn.Close()
		delete(r.clients, client)
	}
}

// Inject sends a datagram to the server as if it came from each client.
func (r *Relay) Inject(b []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, conn := range r.clients {
		_, err := conn.Write(b)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Close stops the relay and waits for it. What is on its way is lost.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	err := r.front.Close()
	r.Rebind()
	r.up.close()
	r.down.close()
	r.wg.Wait()
	return err
}

func (r *Relay) readFront() {
	buf := make([]byte, maxDatagram)
	for {
		n, addr, err := r.front.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier datagram
		}
		client := addr.(*net.UDPAddr).AddrPort()
		conn, err := r.upstream(client)
		if err != nil {
			r.counts.dropped.Add(1)
			continue
		}
		r.pass(r.up, buf[:n], func(b []byte) { _, _ = conn.Write(b) })
	}
}

// upstream finds or makes the socket towards the server of a client.
func (r *Relay) upstream(client netip.AddrPort) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if conn := r.clients[client]; conn != nil {
		return conn, nil
	}
	if r.closed || len(r.clients) >= maxClients {
		return nil, fmt.Errorf("relay: no room for %v", client)
	}
	conn, err := r.dial()
	if err != nil {
		return nil, err
	}
	r.clients[client] = conn
	r.wg.Go(func() { r.readServer(conn, net.UDPAddrFromAddrPort(client)) })
	return conn, nil
}

func (r *Relay) readServer(conn net.Conn, client net.Addr) {
	buf := make([]byte, maxDatagram)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		r.pass(r.down, buf[:n], func(b []byte) { _, _ = r.front.WriteTo(b, client) })
	}
}

// pass applies the faults to a datagram, which it borrows, and puts what is
// left of it, and what is added, on the line.
func (r *Relay) pass(l *line, b []byte, send func([]byte)) {
	f := r.faults.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	hit := func(share float64) bool { return share > 0 && r.rng.Float64() < share }
	put := func(b []byte, counter *atomic.Uint64) {
		delay := f.Delay
		if f.Jitter > 0 {
			delay += time.Duration(r.rng.Int64N(int64(f.Jitter)))
		}
		if !l.put(item{due: time.Now().Add(delay), data: b, send: send}) {
			counter = &r.counts.dropped
		}
		counter.Add(1)
	}
	if len(b) == 0 || hit(f.Drop) || f.MaxSize > 0 && len(b) > f.MaxSize {
		r.counts.dropped.Add(1)
		return
	}
	own := append([]byte(nil), b...)
	if hit(f.Flip) {
		r.counts.flipped.Add(1)
		own = r.flipped(own)
	}
	put(own, &r.counts.forwarded)
	if hit(f.Forge) {
		put(r.flipped(own), &r.counts.forged)
	}
	if hit(f.Replay) && len(l.past) > 0 {
		put(l.past[r.rng.IntN(len(l.past))], &r.counts.replayed)
	}
	if f.Replay > 0 {
		l.remember(own)
	}
}

// flipped is a copy of b with one bit inverted.
func (r *Relay) flipped(b []byte) []byte {
	c := append([]byte(nil), b...)
	bit := r.rng.IntN(8 * len(c))
	c[bit/8] ^= 1 << (bit % 8)
	return c
}

// item is a datagram on its way.
type item struct {
	due  time.Time
	seq  uint64 // order among equals
	data []byte
	send func([]byte)
}

// line is one direction: a queue ordered by time, and what went by.
type line struct {
	past [][]byte // of pass, under the relay's lock
	next int

	mu     sync.Mutex
	queue  items
	seq    uint64
	wake   chan struct{}
	closed chan struct{}
}

func newLine() *line {
	return &line{wake: make(chan struct{}, 1), closed: make(chan struct{})}
}

// remember keeps b, which it takes, in place of the oldest.
func (l *line) remember(b []byte) {
	if len(l.past) < memory {
		l.past = append(l.past, b)
		return
	}
	l.past[l.next%memory] = b
	l.next++
}

// put queues an item and reports whether there was room.
func (l *line) put(it item) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) >= maxQueued {
		return false
	}
	l.seq++
	it.seq = l.seq
	heap.Push(&l.queue, it)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

func (l *line) close() { close(l.closed) }

// run sends what is due until close.
func (l *line) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		l.mu.Lock()
		wait := time.Hour
		var due []item
		for len(l.queue) > 0 {
			if wait = time.Until(l.queue[0].due); wait > 0 {
				break
			}
			due = append(due, heap.Pop(&l.queue).(item))
		}
		l.mu.Unlock()
		for _, it := range due {
			it.send(it.data)
		}
		if len(due) > 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-l.wake:
		case <-timer.C:
		case <-l.closed:
			return
		}
	}
}

type items []item

func (q items) Len() int { return len(q) }
func (q items) Less(i, j int) bool {
	if !q[i].due.Equal(q[j].due) {
		return q[i].due.Before(q[j].due)
	}
	return q[i].seq < q[j].seq
}
func (q items) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push is for package heap.
func (q *items) Push(x any) { *q = append(*q, x.(item)) }

// Pop is for package heap.
func (q *items) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
