package simnet

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultQueue is the value of Config.QueueDatagrams when that is zero: about
// what a kernel's receive buffer of 4 MiB holds of full datagrams.
const DefaultQueue = 2048

// firstEphemeral is where the search for a free port begins (RFC 6335 §6).
const firstEphemeral = 49152

var errClosed = fmt.Errorf("simnet: %w", net.ErrClosed)

// Config describes a network. The zero value is one that loses nothing and
// delivers at once.
type Config struct {
	// Seed selects the sequence of chances.
	Seed int64
	// Link holds the properties of directions that have none of their own.
	Link Link
	// QueueDatagrams bounds what waits in a socket to be read; more is dropped
	// and counted. Zero means DefaultQueue.
	QueueDatagrams int
	// Coalesce makes ReadBatch join datagrams of one size from one address to
	// runs, as UDP_GRO does. Otherwise it returns single datagrams.
	Coalesce bool
}

// Net is a network in memory.
type Net struct {
	cfg   Config
	start time.Time

	// Order of locks: direction.mu, scheduler.mu, Net.mu, Socket.mu.
	mu      sync.RWMutex
	sockets map[netip.AddrPort]*Socket // by the address that others see
	dirs    map[hosts]*direction
	closed  bool

	link  atomic.Pointer[Link] // of directions without their own
	tap   atomic.Pointer[Tap]
	rec   recorder
	sched scheduler
	// loose counts what belongs to no direction: injections, short reads.
	loose counters
}

// hosts names a direction by the addresses that the sockets are bound to, so
// that a rebinding does not change a path.
type hosts struct{ from, to netip.Addr }

// New makes a network without sockets.
func New(cfg Config) *Net {
	if cfg.QueueDatagrams <= 0 {
		cfg.QueueDatagrams = DefaultQueue
	}
	n := &Net{
		cfg:     cfg,
		start:   time.Now(),
		sockets: map[netip.AddrPort]*Socket{},
		dirs:    map[hosts]*direction{},
	}
	n.link.Store(&cfg.Link)
	n.sched.net = n
	return n
}

// Socket opens a socket at addr, whose host need not exist before. A port of
// zero picks a free one. The address must not be a wildcard.
func (n *Net) Socket(addr netip.AddrPort) (*Socket, error) {
	ip := addr.Addr().Unmap()
	if !ip.IsValid() || ip.IsUnspecified() {
		return nil, fmt.Errorf("simnet: socket at %v: no host's address", addr)
	}
	addr = netip.AddrPortFrom(ip, addr.Port())
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errClosed
	}
	if addr.Port() == 0 {
		for p := firstEphemeral; p < 1<<16; p++ {
			if a := netip.AddrPortFrom(ip, uint16(p)); n.sockets[a] == nil {
				addr = a
				break
			}
		}
	}
	if addr.Port() == 0 || n.sockets[addr] != nil {
		return nil, fmt.Errorf("simnet: socket at %v: address in use", addr)
	}
	s := &Socket{net: n, local: addr, public: addr}
	s.ready.L = &s.mu
	n.sockets[addr] = s
	return s, nil
}

// Rebind does what a NAT does that forgot a mapping: from now on, datagrams of
// the socket that others see as old come from new, what is sent to new reaches
// it, and old is dead, also for datagrams that are on their way. The socket's
// LocalAddr and the properties of its paths stay.
func (n *Net) Rebind(old, new netip.AddrPort) error {
	old = netip.AddrPortFrom(old.Addr().Unmap(), old.Port())
	new = netip.AddrPortFrom(new.Addr().Unmap(), new.Port())
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sockets[old]
	switch {
	case s == nil:
		return fmt.Errorf("simnet: rebind of %v: no socket", old)
	case n.sockets[new] != nil:
		return fmt.Errorf("simnet: rebind of %v to %v: address in use", old, new)
	case old.Addr().Is4() != new.Addr().Is4() || new.Port() == 0:
		return fmt.Errorf("simnet: rebind of %v to %v: not an address of that family with a port", old, new)
	}
	delete(n.sockets, old)
	n.sockets[new] = s
	s.public = new
	return nil
}

// Close closes all sockets, drops what is on its way and returns when no timer
// runs any more. Later calls do nothing.
func (n *Net) Close() error {
	n.mu.Lock()
	n.closed = true
	sockets := n.sockets
	n.sockets = map[netip.AddrPort]*Socket{}
	n.mu.Unlock()
	for _, s := range sockets {
		s.shut()
	}
	n.sched.close()
	return nil
}

// remove forgets a closed socket.
func (n *Net) remove(s *Socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sockets[s.public] == s {
		delete(n.sockets, s.public)
	}
}

// route finds what a datagram from s to dst looks like outside and which
// direction it takes.
func (n *Net) route(s *Socket, dst netip.AddrPort) (src netip.AddrPort, d *direction) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	to := dst.Addr()
	if r := n.sockets[dst]; r != nil {
		to = r.local.Addr()
	}
	return s.public, n.dirs[hosts{s.local.Addr(), to}]
}

// direction returns the state of the direction between two hosts.
func (n *Net) direction(h hosts) *direction {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.dirs[h]
	if d == nil {
		d = newDirection(n, h)
		n.dirs[h] = d
	}
	return d
}

// hostsOf names the direction from s to dst.
func (n *Net) hostsOf(s *Socket, dst netip.AddrPort) hosts {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if r := n.sockets[dst]; r != nil {
		return hosts{s.local.Addr(), r.local.Addr()}
	}
	return hosts{s.local.Addr(), dst.Addr()}
}

// deliver takes b and puts it into the queue of whoever has the address dst.
func (n *Net) deliver(b *buffer, src, dst netip.AddrPort, c *counters) bool {
	n.mu.RLock()
	s := n.sockets[dst]
	n.mu.RUnlock()
	if s == nil {
		c.noSocket.Add(1)
		b.release()
		return false
	}
	return s.enqueue(b, src, c)
}
