package rpc

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/wire"
)

const (
	// maxSpare bounds the batches kept for reuse, up to 130 KB each.
	maxSpare = 8
	// bufferSize is the initial size of a buffer for a packet; the engine makes it
	// larger where the MTU is.
	bufferSize = 1536
	// sentAside is how many packets of a paced node leave by the goroutine that happens
	// to have the engine, such as that of a receiver or a caller, and sentAtOnce by the
	// sender's. The kernel may carry each through all of its way to the other host
	// before it comes back, tens of microseconds, and meanwhile neither receives nor
	// runs what waits for this processor: with whole batches, 2 ms. A node that is not
	// paced sends when it is granted something, all of it: half as many short calls got
	// through beside long ones when it did not.
	sentAside  = 4
	sentAtOnce = 16
	// senderID is where a packet has the id of its RPC, as its sender sees it.
	senderID = 20
)

// batch is packets on their way out.
type batch struct {
	packets [carrier.MaxBatch]carrier.Packet
	buffers [carrier.MaxBatch][]byte
	calls   [carrier.MaxBatch]uint64 // ids of calls that the packets are the first of, else 0
	n       int
}

// spares keeps batches for reuse. It has its own lock, so that who has sent a batch
// need not wait for the engine.
type spares struct {
	mu      sync.Mutex
	batches []*batch
}

func (s *spares) take() *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := len(s.batches); k > 0 {
		b := s.batches[k-1]
		s.batches = s.batches[:k-1]
		return b
	}
	return new(batch)
}

func (s *spares) give(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.batches) < maxSpare {
		s.batches = append(s.batches, b)
	}
}

// settle hands out what the engine has to say, takes what may be sent now, and
// sets the timer. It needs mu. The caller sends the batch, which may be nil,
// after it has released mu. With more than it may hold, the sender goroutine is told
// to go on.
func (n *Node) settle(now homa.Instant) *batch {
	n.events(now)
	if n.closed {
		return nil // what is left is for Close to send
	}
	most := n.atOnce(sentAside)
	b := n.fill(now, most)
	if b != nil && b.n == most {
		n.wakeSender() // which arms
	} else {
		n.arm(now)
	}
	return b
}

// atOnce is what a paced node sends at a time, and else a whole batch.
func (n *Node) atOnce(paced int) int {
	if n.pacer != nil {
		return paced
	}
	return carrier.MaxBatch
}

// fill takes packets that may be sent now, up to most; nil if there are none. It needs
// mu. The batch must be dispatched.
func (n *Node) fill(now homa.Instant, most int) *batch {
	b := n.spare.take()
	for b.n = 0; b.n < most; b.n++ {
		buffer := b.buffers[b.n]
		if buffer == nil {
			buffer = make([]byte, 0, bufferSize)
		}
		out, ok := n.engine.Transmit(now, buffer[:0])
		if !ok {
			b.buffers[b.n] = buffer
			break
		}
		b.buffers[b.n] = out.Packet
		b.packets[b.n] = carrier.Packet{Addr: out.To, Priority: out.Priority, Data: out.Packet}
		b.calls[b.n] = 0
		if out.First {
			if out.RPC.Stats().PacketsSent == 1 {
				b.calls[b.n] = out.RPC.ID()
			}
			if s, ok := out.RPC.Value().(*stream); ok {
				b.packets[b.n].Target = s.target
			}
		}
	}
	if b.n == 0 {
		n.spare.give(b)
		return nil
	}
	n.sends.Add(1)
	return b
}

// dispatch sends a batch that fill returned, without mu.
func (n *Node) dispatch(b *batch) {
	if b == nil {
		return
	}
	defer n.sends.Done()
	packets := b.packets[:b.n]
	err := n.carrier.Send(packets)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		n.fail(err)
	}
	for i := range packets {
		if packets[i].Trouble != carrier.None {
			n.troubles(b)
			break
		}
	}
	n.spare.give(b)
}

// troubles tells the engine what became of the packets of a batch.
func (n *Node) troubles(b *batch) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	for i := range b.packets[:b.n] {
		switch p := &b.packets[i]; p.Trouble {
		case carrier.None:
		case carrier.NoRoute:
			// A link of this host may be back in a moment: what is under way takes it as
			// loss, while a call that has yet to begin is told.
			n.failCall(now, b.calls[i], p.Addr, unreachable(p))
		default:
			n.trouble(now, p)
		}
	}
	n.events(now)
	n.wakeSender()
}

// believes reports whether a report may be true: that it is about an RPC that
// there is. Ids are hard to guess. It needs mu.
func (n *Node) believes(p *carrier.Packet) bool {
	if len(p.Data) == 0 || p.Trouble == carrier.MTUChanged {
		return true
	}
	if len(p.Data) < senderID+8 {
		return false
	}
	var r *homa.RPC
	if id := binary.BigEndian.Uint64(p.Data[senderID:]); id%2 == 0 {
		r = n.engine.Called(id)
	} else {
		r = n.engine.Served(p.Addr, id^1)
	}
	return r != nil && r.Peer().Addr() == p.Addr
}

// trouble tells the engine what became of a packet. It needs mu.
func (n *Node) trouble(now homa.Instant, p *carrier.Packet) {
	switch p.Trouble {
	case carrier.MTUChanged:
		n.tune(p.Addr)
		return
	case carrier.CallRefused:
		n.failCall(now, p.Call, p.Addr, refusedCall(p))
		return
	}
	n.engine.Unreachable(now, p.Addr, p.Port, unreachable(p))
}

// failCall ends the call with an id, if it is one to that peer: only the gateway that
// was called may refuse. It needs mu.
func (n *Node) failCall(now homa.Instant, id uint64, peer netip.Addr, err error) {
	if r := n.engine.Called(id); r != nil && r.Peer().Addr() == peer {
		if s, ok := r.Value().(*stream); ok {
			s.fail(now, err)
		}
	}
}

// wakeSender makes the sender goroutine look at the engine.
func (n *Node) wakeSender() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// arm sets a timer for the engine's deadline if it would fire too late. It needs mu.
// A timer that fires too early costs less than setting it at each call.
func (n *Node) arm(now homa.Instant) {
	at, ok := n.engine.Deadline()
	if !ok || n.armed != 0 && n.armed <= at {
		return
	}
	room, paced := n.engine.Room()
	if n.overdue != 0 {
		at = max(at, n.overdue.Add(maxOverdue))
		if paced {
			at = min(at, room) // sending waits for no packet
		}
	}
	n.armed = max(at, 1)
	if n.pacer != nil {
		n.pacer.Set(time.Duration(at - now))
	} else {
		n.timer.Reset(time.Duration(at - now))
	}
}

// send runs timers, and sends what others leave to it.
func (n *Node) send() {
	for {
		select {
		case <-n.done:
			return
		case <-n.wake:
		case <-n.timer.C:
		}
		if !n.pump() {
			return
		}
	}
}

// pace sends when the pacer has room.
func (n *Node) pace() {
	for n.pacer.Wait() == nil && n.pump() {
	}
}

// pump runs timers and sends all that may leave. It reports false once the node is
// closed.
func (n *Node) pump() bool {
	for more := true; more; {
		n.mu.Lock()
		if n.closed {
			n.mu.Unlock()
			return false
		}
		now := n.now()
		n.advance(now)
		n.events(now)
		most := n.atOnce(sentAtOnce)
		b := n.fill(now, most)
		more = b != nil && b.n == most
		if n.armed = 0; !more {
			n.arm(now)
		}
		n.mu.Unlock()
		n.dispatch(b)
	}
	return true
}

// maxOverdue is how long timers wait for packets. Our choice: a fraction of the
// first time-out, so that a node that is always behind still acts on them.
const maxOverdue = 20 * time.Millisecond

// advance runs the engine's timers that are due, unless packets wait that may be
// what they are about: a node that is behind its packets would ask for what it
// has, and be behind the more. It needs mu.
func (n *Node) advance(now homa.Instant) {
	at, ok := n.engine.Deadline()
	if !ok || at > now {
		n.overdue = 0
		return
	}
	if n.overdue == 0 {
		n.overdue = now
	}
	if now.Sub(n.overdue) < maxOverdue {
		for r := range n.carrier.Receivers() {
			if n.carrier.Waiting(r) {
				return // receive comes back here
			}
		}
	}
	n.overdue = 0
	n.engine.Advance(now)
}

// maxRounds is how many full batches are received before anything is sent. Our
// choice: enough that a node which is behind sees acknowledgements and repeated
// questions before it answers the first ones.
const maxRounds = 8

// receive feeds the engine from one receiver of the carrier.
func (n *Node) receive(receiver int) {
	in := make([]carrier.Packet, carrier.MaxBatch)
	for i := range in {
		in[i].Buf = make([]byte, carrier.MaxPacket)
	}
	for round := 1; ; round++ {
		k, err := n.carrier.Receive(receiver, in)
		if err != nil {
			n.fail(err)
			return
		}
		behind := k == len(in) && round < maxRounds && n.carrier.Waiting(receiver)
		n.mu.Lock()
		now := n.now()
		n.take(now, in[:k])
		refused := n.refused
		if len(refused) > 0 {
			n.refused = nil // another receiver may be next
		}
		var b *batch
		if behind {
			n.events(now)
		} else {
			round = 0
			if n.overdue != 0 {
				n.advance(now)
			}
			b = n.settle(now)
		}
		n.mu.Unlock()
		n.dispatch(b)
		for _, i := range refused {
			n.carrier.Refuse(&in[i])
		}
	}
}

// take gives received packets and reports to the engine. It needs mu.
func (n *Node) take(now homa.Instant, in []carrier.Packet) {
	n.refused = n.refused[:0]
	for i := range in {
		p := &in[i]
		if p.Trouble != carrier.None {
			if n.believes(p) {
				n.trouble(now, p)
			}
			continue
		}
		n.current = i
		n.engine.Receive(now, p.Addr, p.Data)
		if p.Target.IsValid() {
			n.target(p)
		}
	}
}

// target notes where the client of a packet with the first byte of a request
// wants it to go. It needs mu.
func (n *Node) target(p *carrier.Packet) {
	var k wire.Packet
	if wire.Main.Decode(&k, p.Data) != nil {
		return
	}
	r := n.engine.Served(p.Addr, k.SenderID)
	if r == nil {
		return
	}
	switch v := r.Value().(type) {
	case nil: // its event follows
		r.SetValue(p.Target)
	case *stream:
		if !v.target.IsValid() {
			v.target = p.Target
		}
	}
}

// events hands out the engine's events. It needs mu.
func (n *Node) events(now homa.Instant) {
	for {
		e, ok := n.engine.Event()
		if !ok {
			return
		}
		if e.Kind == homa.Request {
			n.request(now, e.RPC)
			continue
		}
		if s, ok := e.RPC.Value().(*stream); ok {
			s.event(now, e)
		}
	}
}
