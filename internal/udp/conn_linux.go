package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/internal/mmsg"
)

// Conn is an unconnected UDP socket. ReadBatch is for one goroutine at a time;
// all other methods are safe for concurrent use.
type Conn struct {
	udp  *net.UDPConn
	rc   syscall.RawConn
	v6   bool // the socket's family is AF_INET6
	addr netip.AddrPort
	wait time.Duration
	// number is the place in the group, from 0 on.
	number int

	zones mmsg.Zones
	r     reader
	w     writerPool
	// sendSys is mmsg.Send; tests put a kernel that refuses here.
	sendSys func(fd uintptr, hs []mmsg.Header) (int, unix.Errno)
	room    room

	gso atomic.Bool
	// gsoStrikes counts runs refused with EINVAL since the last one taken.
	gsoStrikes atomic.Int32
	capsMu     sync.Mutex
	caps       Capabilities

	stats counters
	drops mmsg.DropCounter

	closeOnce sync.Once
	closeErr  error
}

// Listen opens the socket that cfg describes. The error wraps the errno of the
// call that failed; a mark without CAP_NET_ADMIN gives EPERM.
func Listen(cfg Config) (*Conn, error) {
	c := &Conn{wait: cfg.WriteWait, sendSys: mmsg.Send}
	if c.wait <= 0 {
		c.wait = DefaultWriteWait
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		if cerr := rc.Control(func(fd uintptr) { err = c.setup(int(fd), cfg) }); cerr != nil {
			return cerr
		}
		return err
	}}
	pc, err := lc.ListenPacket(context.Background(), cfg.network(), cfg.address())
	if err != nil {
		return nil, fmt.Errorf("udp: %w", err)
	}
	c.udp = pc.(*net.UDPConn)
	if c.rc, err = c.udp.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("udp: %w", err), c.udp.Close())
	}
	a := c.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	c.addr = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	c.r.init(c)
	c.w.c = c
	return c, nil
}

// LocalAddr returns the address the socket is bound to.
func (c *Conn) LocalAddr() netip.AddrPort { return c.addr }

// Close releases the socket; calls that wait return net.ErrClosed. Later calls
// return what the first one did.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() {
		c.Stats() // the last look at the kernel's counter of drops
		c.closeErr = c.udp.Close()
	})
	return c.closeErr
}

// Capabilities returns what the socket uses at this moment.
func (c *Conn) Capabilities() Capabilities {
	c.capsMu.Lock()
	defer c.capsMu.Unlock()
	return c.caps
}

func (c *Conn) steered(err error) {
	c.capsMu.Lock()
	defer c.capsMu.Unlock()
	c.caps.setSteering(err)
}

// gsoOff remembers that the kernel does not take runs, and why.
func (c *Conn) gsoOff(reason string) {
	c.capsMu.Lock()
	defer c.capsMu.Unlock()
	if c.gso.Swap(false) {
		c.caps.GSO, c.caps.GSOReason = false, reason
	}
}

// Stats returns the counters. They are read one by one: sums over several of
// them may be off by what happens meanwhile.
func (c *Conn) Stats() Stats {
	s := c.stats.snapshot()
	// The kernel reports its drops on request (SO_MEMINFO), which costs nothing
	// on the packet path and, unlike SO_RXQ_OVFL, needs no later datagram.
	_ = c.rc.Control(c.drops.Update) // closed: the last known value stands
	s.RecvDropOverflow = c.drops.Total()
	return s
}

// setup sets the options of a socket that is not bound yet and probes its
// offloads.
func (c *Conn) setup(fd int, cfg Config) error {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("SO_DOMAIN: %w", err)
	}
	c.v6 = family == unix.AF_INET6
	set := func(name string, level, opt, v int) error {
		if err := unix.SetsockoptInt(fd, level, opt, v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	if c.v6 {
		err = set("IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	} else {
		err = set("IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if err != nil {
		return err
	}
	if cfg.ReusePort {
		if err := set("SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
	}
	if cfg.Mark != 0 {
		if err := set(fmt.Sprintf("SO_MARK %#x", cfg.Mark), unix.SOL_SOCKET, unix.SO_MARK, int(cfg.Mark)); err != nil {
			return err
		}
	}
	if cfg.DontFragment {
		if c.v6 {
			if err := set("IPV6_MTU_DISCOVER", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE); err != nil {
				return err
			}
		}
		// An IPv6 socket keeps a setting of its own for IPv4 over it.
		if err := set("IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE); err != nil {
			return err
		}
	}
	have, err := mmsg.SetBuffers(fd, mmsg.Buffers{Recv: cfg.RecvBuffer, Send: cfg.SendBuffer})
	if err != nil {
		return err
	}
	c.caps.RecvBuffer, c.caps.SendBuffer, c.caps.BufferReason = have.Recv, have.Send, have.Reason
	c.probe(fd, cfg)
	return nil
}

func (c *Conn) probe(fd int, cfg Config) {
	if cfg.NoGSO {
		c.caps.GSOReason = "turned off"
	} else if _, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT); err != nil {
		// Asking matters: a kernel that does not know the control message
		// ignores it and sends the run as one datagram.
		c.caps.GSOReason = fmt.Sprintf("kernel lacks UDP_SEGMENT: %v", err)
	} else {
		c.caps.GSO = true
		c.gso.Store(true)
	}
	if cfg.NoGRO {
		c.caps.GROReason = "turned off"
	} else if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
		c.caps.GROReason = fmt.Sprintf("kernel lacks UDP_GRO: %v", err)
	} else {
		c.caps.GRO = true
	}
}
