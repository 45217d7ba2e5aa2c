//go:build !linux

package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
)

// Conn is an unconnected UDP socket. ReadBatch is for one goroutine at a time;
// all other methods are safe for concurrent use.
type Conn struct {
	udp  *net.UDPConn
	v6   bool
	addr netip.AddrPort
	caps Capabilities
	wait time.Duration
	// number is the place in the group, from 0 on.
	number int

	stats     counters
	closeOnce sync.Once
	closeErr  error
}

// Listen opens the socket that cfg describes. On this system it refuses
// Config.ReusePort, Mark and DontFragment with errors.ErrUnsupported, since to
// ignore them would be worse.
func Listen(cfg Config) (*Conn, error) {
	if cfg.ReusePort || cfg.Mark != 0 || cfg.DontFragment {
		return nil, fmt.Errorf("udp: shared port, mark and don't-fragment on %s: %w", runtime.GOOS, errors.ErrUnsupported)
	}
	pc, err := new(net.ListenConfig).ListenPacket(context.Background(), cfg.network(), cfg.address())
	if err != nil {
		return nil, fmt.Errorf("udp: %w", err)
	}
	c := &Conn{udp: pc.(*net.UDPConn), wait: cfg.WriteWait}
	if c.wait <= 0 {
		c.wait = DefaultWriteWait
	}
	a := c.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	c.v6 = a.Addr().Is6() && !a.Addr().Is4In6()
	c.addr = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	reason := "not available on " + runtime.GOOS
	c.caps = Capabilities{GSOReason: reason, GROReason: reason}
	for _, b := range []struct {
		want int
		set  func(int) error
		have *int
	}{
		{cfg.RecvBuffer, c.udp.SetReadBuffer, &c.caps.RecvBuffer},
		{cfg.SendBuffer, c.udp.SetWriteBuffer, &c.caps.SendBuffer},
	} {
		if b.want <= 0 {
			continue
		}
		if err := b.set(b.want); err != nil {
			c.caps.BufferReason = err.Error()
			continue
		}
		*b.have = b.want // package net cannot read it back
	}
	return c, nil
}

// LocalAddr returns the address the socket is bound to.
func (c *Conn) LocalAddr() netip.AddrPort { return c.addr }

// Close releases the socket; calls that wait return net.ErrClosed. Later calls
// return what the first one did.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() { c.closeErr = c.udp.Close() })
	return c.closeErr
}

// Capabilities returns what the socket uses.
func (c *Conn) Capabilities() Capabilities { return c.caps }

func (c *Conn) steer([]bpf.Instruction) error { return errors.ErrUnsupported }

func (c *Conn) steered(err error) { c.caps.setSteering(err) }

// Stats returns the counters.
func (c *Conn) Stats() Stats { return c.stats.snapshot() }

// ReadBatch waits for one datagram and reads it into ms[0], whose Buf it
// borrows. Message.Local stays zero. An error ends the Conn; after Close it is
// net.ErrClosed.
func (c *Conn) ReadBatch(ms []Message) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	n, from, err := c.udp.ReadFromUDPAddrPort(ms[0].Buf)
	if err != nil {
		if errors.Is(err, net.ErrClosed) {
			return 0, errClosed
		}
		return 0, fmt.Errorf("udp: read: %w", err)
	}
	m := &ms[0]
	m.N, m.Segment, m.Local = n, 0, netip.Addr{}
	m.Addr = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	c.stats.recvCalls.Add(1)
	c.stats.recvDatagrams.Add(1)
	c.stats.recvBytes.Add(uint64(n))
	return 1, nil
}

// WriteBatch sends ms in order, one datagram per system call, and returns how
// many went out whole. It borrows the buffers; Message.Local is ignored. An
// error concerns ms[n] alone and is an errno value; only net.ErrClosed means
// that the Conn has ended.
func (c *Conn) WriteBatch(ms []Message) (int, error) {
	for i := range ms {
		m := &ms[i]
		if m.N < 0 || m.N > len(m.Buf) || m.Segment < 0 {
			c.stats.sendDropOther.Add(1)
			return i, syscall.EINVAL
		}
		segment := m.N
		if m.Segment > 0 {
			segment = min(m.Segment, m.N)
		}
		for off, more := 0, true; more; more = off < m.N {
			end := min(off+segment, m.N)
			if err := c.writeOne(m.Buf[off:end], m.Addr); err != nil {
				return i, err
			}
			off = end
		}
	}
	return len(ms), nil
}

func (c *Conn) writeOne(b []byte, to netip.AddrPort) error {
	if c.v6 {
		to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()).WithZone(to.Addr().Zone()), to.Port())
	} else {
		to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	}
	if err := c.udp.SetWriteDeadline(time.Now().Add(c.wait)); err != nil {
		return errClosed
	}
	c.stats.sendCalls.Add(1)
	_, err := c.udp.WriteToUDPAddrPort(b, to)
	var errno syscall.Errno
	switch {
	case err == nil:
		c.stats.sendDatagrams.Add(1)
		c.stats.sendBytes.Add(uint64(len(b)))
		return nil
	case errors.Is(err, net.ErrClosed):
		return errClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.stats.sendDropWait.Add(1)
		return syscall.EAGAIN
	case errors.Is(err, syscall.ENOBUFS):
		c.stats.sendDropNoBufs.Add(1)
		return nil
	case errors.Is(err, syscall.EMSGSIZE):
		c.stats.sendDropTooBig.Add(1)
		return syscall.EMSGSIZE
	case errors.As(err, &errno):
		c.stats.sendDropOther.Add(1)
		return errno
	}
	c.stats.sendDropOther.Add(1)
	return fmt.Errorf("udp: write: %w", err)
}
