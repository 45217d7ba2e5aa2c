package rpc

import (
	"errors"
	"net"
	"time"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
)

const (
	// maxSpare bounds the batches kept for reuse, some 130 KB each.
	maxSpare = 8
	// bufferSize is the initial size of a buffer for a packet; the engine makes it
	// larger where the MTU is.
	bufferSize = 1536
)

// batch is packets on their way out.
type batch struct {
	packets [carrier.MaxBatch]carrier.Packet
	buffers [carrier.MaxBatch][]byte
	n       int
}

// takeBatch and giveBatch need mu.
func (n *Node) takeBatch() *batch {
	if k := len(n.spare); k > 0 {
		b := n.spare[k-1]
		n.spare = n.spare[:k-1]
		return b
	}
	return new(batch)
}

func (n *Node) giveBatch(b *batch) {
	if len(n.spare) < maxSpare {
		n.spare = append(n.spare, b)
	}
}

// settle hands out what the engine has to say, takes what may be sent now, and
// sets the timer. It needs mu. The caller sends the batch, which may be nil,
// after it has released mu. With more than fits one batch, the sender goroutine
// is told to go on.
func (n *Node) settle(now homa.Instant) *batch {
	n.events(now)
	b := n.fill(now)
	if b != nil && b.n == len(b.packets) {
		n.wakeSender()
	}
	n.arm(now)
	return b
}

// fill takes packets that may be sent now; nil if there are none. It needs mu.
func (n *Node) fill(now homa.Instant) *batch {
	b := n.takeBatch()
	for b.n = 0; b.n < len(b.packets); b.n++ {
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
	}
	if b.n == 0 {
		n.giveBatch(b)
		return nil
	}
	return b
}

// dispatch sends a batch that settle returned, without mu.
func (n *Node) dispatch(b *batch) {
	if b == nil {
		return
	}
	packets := b.packets[:b.n]
	err := n.carrier.Send(packets)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		n.fail(err)
	}
	n.mu.Lock()
	now := n.now()
	troubles := false
	for i := range packets {
		if packets[i].Trouble != carrier.None {
			n.trouble(now, &packets[i])
			troubles = true
		}
	}
	n.giveBatch(b)
	if troubles {
		n.events(now)
		n.wakeSender()
	}
	n.mu.Unlock()
}

// trouble tells the engine what became of a packet. It needs mu.
func (n *Node) trouble(now homa.Instant, p *carrier.Packet) {
	if p.Trouble == carrier.MTUChanged {
		n.tune(p.Addr)
		return
	}
	n.engine.Unreachable(now, p.Addr, p.Port, unreachable(p))
}

// wakeSender makes the sender goroutine look at the engine.
func (n *Node) wakeSender() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// arm sets the timer for the engine's deadline if it would fire too late. It
// needs mu. A timer that fires too early costs less than setting it at each call.
func (n *Node) arm(now homa.Instant) {
	at, ok := n.engine.Deadline()
	if !ok || n.armed != 0 && n.armed <= at {
		return
	}
	n.armed = max(at, 1)
	n.timer.Reset(time.Duration(at - now))
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
		for more := true; more; {
			n.mu.Lock()
			if n.closed {
				n.mu.Unlock()
				return
			}
			now := n.now()
			n.engine.Advance(now)
			n.events(now)
			b := n.fill(now)
			more = b != nil && b.n == len(b.packets)
			n.armed = 0
			n.arm(now)
			n.mu.Unlock()
			n.dispatch(b)
		}
	}
}

// receive feeds the engine from one receiver of the carrier.
func (n *Node) receive(receiver int) {
	in := make([]carrier.Packet, carrier.MaxBatch)
	for i := range in {
		in[i].Buf = make([]byte, carrier.MaxPacket)
	}
	for {
		k, err := n.carrier.Receive(receiver, in)
		if err != nil {
			n.fail(err)
			return
		}
		n.mu.Lock()
		now := n.now()
		n.refused = n.refused[:0]
		for i := range in[:k] {
			p := &in[i]
			if p.Trouble != carrier.None {
				n.trouble(now, p)
				continue
			}
			n.current = i
			n.engine.Receive(now, p.Addr, p.Data)
		}
		refused := n.refused
		if len(refused) > 0 {
			n.refused = nil // another receiver may be next
		}
		b := n.settle(now)
		n.mu.Unlock()
		n.dispatch(b)
		for _, i := range refused {
			n.carrier.Refuse(&in[i])
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
