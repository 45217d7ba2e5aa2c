package rpc

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/wire"
	"github.com/tougw/tougw/internal/hrtimer"
)

// MaxMessage is the longest message in bytes that the protocol allows.
const MaxMessage = 1_000_000

// A paced node wakes when its backlog has fallen to a quarter, and fills it up. It is
// backlogTime, longer than a timer is late as a rule, or on slow links what
// backlogBytes take, so that a waking is worth some packets, up to maxBacklog.
const (
	backlogTime  = 500 * time.Microsecond
	backlogBytes = 12_000
	maxBacklog   = 5 * time.Millisecond
)

// defaultBacklog is the backlog of a node that is paced at a rate in bit/s.
func defaultBacklog(rate int64) time.Duration {
	return min(max(backlogTime, time.Duration(backlogBytes*8*float64(time.Second)/float64(rate))), maxBacklog)
}

// maxTuned bounds the peers whose MTU is not the usual one.
const maxTuned = 4096

// Config is the configuration of a Node. The zero value is good.
type Config struct {
	// Engine is the engine's. OnUnknownPort is called as well as the node's own
	// answer; it is called with a lock held. With a LinkRate, a MaxBacklog of zero
	// means 500 µs, or what 12,000 bytes take, up to 5 ms, and a MinBacklog of zero a
	// quarter of MaxBacklog.
	Engine homa.Config
}

// Node is a Homa endpoint. It is safe for concurrent use.
type Node struct {
	carrier carrier.Carrier
	config  Config
	start   time.Time
	done    chan struct{} // closed by Close
	wg      sync.WaitGroup
	timer   *time.Timer
	pacer   *hrtimer.Timer // in place of timer if the engine is paced, else nil
	wake    chan struct{}  // of the sender
	spare   spares
	sends   sync.WaitGroup // a count for each batch that was filled and not yet sent; none is added once closed, but by Close
	failure atomic.Pointer[error]
	end     sync.Once // of Close
	closing error     // what it gave; set by end

	// mu guards what follows, and the fields of streams that say so.
	mu      sync.Mutex
	engine  *homa.Engine
	closed  bool
	servers map[uint16]*Server
	peers   map[netip.Addr]homa.PeerConfig // set by SetPeer
	tuned   map[netip.Addr]int             // MaxData, where the engine was told
	armed   homa.Instant                   // when timer fires; never if 0
	// overdue is since when timers wait for packets that wait to be received; they
	// do not if 0.
	overdue homa.Instant
	// current is the packet that the engine is given, refused those of a batch that
	// nobody serves.
	current int
	refused []int
}

// NewNode starts a node on a carrier, which it owns from then on, also if it
// fails. The error says what is wrong with the configuration.
func NewNode(c carrier.Carrier, config Config) (*Node, error) {
	n := &Node{
		carrier: c,
		config:  config,
		start:   time.Now(),
		done:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		timer:   time.NewTimer(time.Hour),
		servers: map[uint16]*Server{},
		peers:   map[netip.Addr]homa.PeerConfig{},
		tuned:   map[netip.Addr]int{},
	}
	unknown := config.Engine.OnUnknownPort
	config.Engine.OnUnknownPort = func(from netip.Addr, packet []byte) {
		n.refused = append(n.refused, n.current)
		if unknown != nil {
			unknown(from, packet)
		}
	}
	if c := &config.Engine; c.LinkRate > 0 {
		if c.MaxBacklog == 0 {
			c.MaxBacklog = defaultBacklog(c.LinkRate)
		}
		if c.MinBacklog == 0 {
			c.MinBacklog = c.MaxBacklog / 4
		}
	}
	var err error
	if ports, ok := c.(carrier.Ports); ok {
		config.Engine.Foreign = ports.Foreign
		if config.Engine.ClientPort == 0 {
			config.Engine.ClientPort = claimClientPort(ports)
		}
	}
	if n.engine, err = homa.New(config.Engine); err != nil {
		_ = c.Close() // nothing was sent
		return nil, err
	}
	if config.Engine.LinkRate > 0 {
		if n.pacer, err = hrtimer.New(); err != nil {
			_ = c.Close()
			return nil, err
		}
		n.wg.Go(n.pace)
	}
	for r := range c.Receivers() {
		n.wg.Go(func() { n.receive(r) })
	}
	n.wg.Go(n.send)
	return n, nil
}

// firstClientPort is where the ports of clients begin; Linux hosts do it so.
const firstClientPort = 0x8000

// claimClientPort finds a port for the calls of a node that no other node of the
// host has, and leaves it claimed until the carrier is closed. Without one it
// gives 0, the engine's default: there will be few answers meant for others.
func claimClientPort(ports carrier.Ports) uint16 {
	for range 100 {
		port := uint16(firstClientPort + rand.IntN(math.MaxUint16-firstClientPort))
		if _, err := ports.Claim(port); err == nil {
			return port
		} else if !errors.Is(err, carrier.ErrClaimed) {
			break
		}
	}
	return 0
}

// now is the time for the engine.
func (n *Node) now() homa.Instant { return homa.Instant(time.Since(n.start)) }

// Close ends all calls and handlers' contexts, waits until the goroutines of the
// node, and handlers, have returned, and closes the carrier. A second call waits
// too.
func (n *Node) Close() error {
	n.end.Do(func() {
		n.mu.Lock()
		more := !n.closed
		if more {
			n.closed = true
			close(n.done)
			n.engine.FlushAcks(n.now()) // servers would ask in vain
		}
		n.mu.Unlock()
		for more { // all ACKs, which leave before any data
			n.mu.Lock()
			b := n.fill(n.now(), carrier.MaxBatch)
			more = b != nil && b.n == len(b.packets) && b.packets[b.n-1].Priority == wire.NumPriorities-1
			n.mu.Unlock()
			n.dispatch(b)
		}
		n.sends.Wait()
		n.closing = n.carrier.Close()
		if n.pacer != nil {
			_ = n.pacer.Close() // there is nothing to lose
		}
	})
	n.wg.Wait()
	n.timer.Stop()
	return n.closing
}

// fail remembers why the carrier ended, and ends the node.
func (n *Node) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		err = fmt.Errorf("homa: carrier: %w", err)
		n.failure.CompareAndSwap(nil, &err)
		n.closed = true
		close(n.done)
	}
}

// closedError is why the node is closed.
func (n *Node) closedError() error {
	if err := n.failure.Load(); err != nil {
		return *err
	}
	return errClosed
}

// Done is closed when the node was closed or its carrier failed.
func (n *Node) Done() <-chan struct{} { return n.done }

// Stats returns the engine's counters.
func (n *Node) Stats() homa.Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.engine.Stats()
}

// SetPeer sets what is particular about a peer. With MaxData zero it follows the
// carrier.
func (n *Node) SetPeer(addr netip.Addr, config homa.PeerConfig) error {
	addr = addr.Unmap()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.engine.SetPeer(addr, config); err != nil {
		return err
	}
	n.peers[addr] = config
	delete(n.tuned, addr)
	n.tune(addr)
	return nil
}

// tune tells the engine how much data a packet to a peer may hold, if that has
// changed. It needs mu.
func (n *Node) tune(addr netip.Addr) {
	config := n.peers[addr] // else all zero: the defaults
	usual := n.usual(addr)
	if config.MaxData != 0 {
		usual = config.MaxData
	}
	data := min(n.carrier.MaxData(addr), n.most(addr))
	told, ok := n.tuned[addr]
	if !ok {
		told = usual
	}
	switch {
	case data == told:
		return
	case data == usual:
		n.untune(addr)
		return
	case !ok && len(n.tuned) >= maxTuned:
		for other := range n.tuned {
			n.untune(other) // if it is in use, a packet that is too big will tell
			break
		}
	}
	config.MaxData = data
	if n.engine.SetPeer(addr, config) == nil { // else the peer stays as it was
		n.tuned[addr] = data
	}
}

// untune returns a peer to what was configured.
func (n *Node) untune(addr netip.Addr) {
	delete(n.tuned, addr)
	if config, ok := n.peers[addr]; ok {
		_ = n.engine.SetPeer(addr, config) // it was taken before
	} else {
		n.engine.ClearPeer(addr)
	}
}

// most is the configured bound on the data in a packet.
func (n *Node) most(addr netip.Addr) int {
	if config := n.peers[addr]; config.MaxData != 0 {
		return config.MaxData
	}
	if data := n.config.Engine.Peer.MaxData; data != 0 {
		return data
	}
	return math.MaxInt
}

// usual is what the engine assumes of peers.
func (n *Node) usual(addr netip.Addr) int {
	if data := n.config.Engine.Peer.MaxData; data != 0 {
		return data
	}
	const mtu, header = 1500, 56
	if addr.Is4() {
		return mtu - 20 - header
	}
	return mtu - 40 - header
}

// maxMessage is the longest message in bytes.
func (n *Node) maxMessage() int {
	if most := n.config.Engine.MaxMessage; most != 0 {
		return most
	}
	return MaxMessage
}
