package rawip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/internal/mmsg"
)

var _ carrier.Carrier = (*Conn)(nil)

// errClosed is net.ErrClosed for errors.Is.
var errClosed = fmt.Errorf("rawip: %w", net.ErrClosed)

// Conn is a pair of raw sockets, or one. It is safe for concurrent use, except
// that each receiver has one goroutine at a time.
type Conn struct {
	cfg     Config
	sockets []*socket // one or two
	v4, v6  *socket   // nil: not open
	peers   peers
	zones   mmsg.Zones
	refuser refuser
	ports   *ports
	stats   counters

	closeOnce sync.Once
	closeErr  error
}

// Open opens the sockets that cfg describes. Without CAP_NET_RAW the error
// wraps EPERM and says so.
func Open(cfg Config) (*Conn, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	c := &Conn{cfg: cfg, ports: newPorts(cfg.Protocol, cfg.Local)}
	c.refuser.init(cfg.RefusalRate)
	for _, v6 := range []bool{false, true} {
		if !cfg.wants(v6) {
			continue
		}
		s, err := newSocket(c, v6)
		if errors.Is(err, unix.EAFNOSUPPORT) && len(cfg.Local) == 0 && (!v6 || c.v4 != nil) {
			continue // a host without this family
		}
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.sockets = append(c.sockets, s)
		if v6 {
			c.v6 = s
		} else {
			c.v4 = s
		}
	}
	return c, nil
}

// socketOf returns the socket for the family of addr, or nil.
func (c *Conn) socketOf(addr netip.Addr) *socket {
	switch {
	case addr.Is4() || addr.Is4In6():
		return c.v4
	case addr.Is6():
		return c.v6
	}
	return nil
}

// Receivers is the number of address families that are open.
func (c *Conn) Receivers() int { return len(c.sockets) }

// Close releases the sockets.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() {
		c.Stats() // the last look at the kernel's counters of drops
		var errs []error
		for _, s := range c.sockets {
			errs = append(errs, s.close())
		}
		c.ports.close()
		c.closeErr = errors.Join(errs...)
	})
	return c.closeErr
}

// Stats returns the counters. They are read one by one: sums over several of
// them may be off by what happens meanwhile.
func (c *Conn) Stats() Stats {
	st := c.stats.snapshot()
	for _, s := range c.sockets {
		_ = s.rc.Control(s.drops.Update) // closed: the last known value stands
		st.RecvDropOverflow += s.drops.Total()
	}
	return st
}

// BufferReason says why the socket buffers are smaller than Config wants; empty
// when they are not.
func (c *Conn) BufferReason() string { return c.sockets[0].buffers.Reason }

// CheckRoute returns why packets to peer cannot be sent at all: a family that
// is not open, or no route.
func (c *Conn) CheckRoute(peer netip.Addr) error {
	s := c.socketOf(peer)
	if s == nil {
		return fmt.Errorf("rawip: %s: %w", peer, unix.EAFNOSUPPORT)
	}
	_, err := s.route.mtu(peer, &c.zones)
	switch {
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("rawip: %s: %w: it is a broadcast address", peer, err)
	case err != nil:
		return fmt.Errorf("rawip: %s: %w", peer, err)
	}
	return nil
}
