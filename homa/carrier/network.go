package carrier

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// maxQueued bounds the packets that wait in a Port; more are lost, as in a socket
// buffer.
const maxQueued = 4096

// Network is a network in memory that delivers in order and at once. It is for
// tests; everything is safe for concurrent use.
type Network struct {
	// MTU in bytes of IP packet; zero means 1500. It may not change once a Port is
	// attached.
	MTU int
	// Fate, if set, decides how many copies of a packet arrive: 0 loses it, and with
	// less its sender finds NoRoute. It is called from several goroutines, borrows
	// data, and must not be changed once a Port is attached.
	Fate func(from, to netip.Addr, data []byte) int
	// Gateways says that hosts can refuse single calls, as gateways can.
	Gateways bool

	mu    sync.Mutex
	ports map[netip.Addr]*Port
}

// Port is a host's place in a Network: a Carrier.
type Port struct {
	network *Network
	addr    netip.Addr

	mu     sync.Mutex
	filled sync.Cond // with mu
	queue  []Packet
	spare  [][]byte
	lost   int
	closed bool
}

var _ Refuser = (*Port)(nil)

// Attach makes a host with an address that no other has.
func (n *Network) Attach(addr netip.Addr) (*Port, error) {
	p := &Port{network: n, addr: addr.Unmap()}
	p.filled.L = &p.mu
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.ports[p.addr]; ok || !addr.IsValid() {
		return nil, fmt.Errorf("carrier: address %s is not valid or taken", addr)
	}
	if n.ports == nil {
		n.ports = map[netip.Addr]*Port{}
	}
	n.ports[p.addr] = p
	return p, nil
}

func (n *Network) port(addr netip.Addr) *Port {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ports[addr.Unmap()]
}

// Send delivers. An address that nobody has is HostUnreachable.
func (p *Port) Send(batch []Packet) error {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return errClosed
	}
	for i := range batch {
		b := &batch[i]
		b.Trouble, b.Err = None, nil
		to := p.network.port(b.Addr)
		switch {
		case to == nil:
			b.Trouble = HostUnreachable
		case len(b.Data)-dataHeader > p.MaxData(b.Addr):
			b.Trouble = MTUChanged
		default:
			copies := 1
			if p.network.Fate != nil {
				copies = p.network.Fate(p.addr, to.addr, b.Data)
			}
			if copies < 0 {
				b.Trouble = NoRoute
			}
			for range copies {
				to.deliver(Packet{Addr: p.addr, Local: to.addr, Priority: b.Priority, Data: b.Data, Target: b.Target})
			}
		}
	}
	return nil
}

// deliver queues a copy of b.
func (p *Port) deliver(b Packet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.queue) >= maxQueued {
		p.lost++
		return
	}
	var copied []byte
	if n := len(p.spare); n > 0 {
		copied, p.spare = p.spare[n-1], p.spare[:n-1]
	}
	b.Data = append(copied[:0], b.Data...)
	p.queue = append(p.queue, b)
	p.filled.Signal()
}

// Receivers returns 1.
func (p *Port) Receivers() int { return 1 }

// Receive waits for packets and reports.
func (p *Port) Receive(_ int, batch []Packet) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) == 0 && !p.closed {
		p.filled.Wait()
	}
	if p.closed {
		return 0, errClosed
	}
	n := min(len(batch), len(p.queue))
	for i, b := range p.queue[:n] {
		p.spare = append(p.spare, b.Data)
		b.Buf = batch[i].Buf
		b.Data = b.Buf[:copy(b.Buf, b.Data)]
		batch[i] = b
	}
	p.queue = append(p.queue[:0], p.queue[n:]...)
	return n, nil
}

// Waiting reports whether packets wait.
func (p *Port) Waiting(int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) > 0
}

// dataHeader is the size of the header of DATA packets.
const dataHeader = 56

// MaxData follows from Network.MTU.
func (p *Port) MaxData(peer netip.Addr) int {
	mtu := p.network.MTU
	if mtu == 0 {
		mtu = 1500
	}
	if peer.Unmap().Is4() {
		return mtu - 20 - dataHeader
	}
	return mtu - 40 - dataHeader
}

// Refuse reports PortUnreachable to the sender of a packet.
func (p *Port) Refuse(refused *Packet) {
	if to := p.network.port(refused.Addr); to != nil && len(refused.Data) >= 4 {
		port := uint16(refused.Data[2])<<8 | uint16(refused.Data[3])
		to.deliver(Packet{Addr: p.addr, Trouble: PortUnreachable, Port: port})
	}
}

// RefuseCall reports CallRefused to a client, in a network of gateways.
func (p *Port) RefuseCall(client netip.Addr, call uint64, err error) {
	if to := p.network.port(client); to != nil && p.network.Gateways {
		to.deliver(Packet{Addr: p.addr, Trouble: CallRefused, Call: call, Err: err})
	}
}

// Lost is how many packets came to a full queue or a closed Port.
func (p *Port) Lost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Close ends the Port. Its address stays taken, and silent.
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.queue = nil
	p.filled.Broadcast()
	return nil
}

// errClosed is net.ErrClosed for errors.Is.
var errClosed = fmt.Errorf("carrier: %w", net.ErrClosed)
