package bridge

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dialer opens kernel TCP connections and gives them as Streams. One goroutine,
// started by the first Dial, serves the events of them all.
type Dialer struct {
	cfg DialerConfig

	mu     sync.Mutex
	poll   *poller // nil before the first Dial
	closed bool
}

// NewDialer returns a Dialer that has opened nothing yet.
func NewDialer(cfg DialerConfig) *Dialer {
	if cfg.NotSent <= 0 {
		cfg.NotSent = DefaultNotSent
	}
	if cfg.Turn == nil {
		cfg.Turn = noTurn{}
	}
	return &Dialer{cfg: cfg}
}

// Dial connects to dst. It returns when the connection is established, has
// failed, or ctx ends. Its errors wrap what the caller is to pass on:
// syscall.ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EACCES (administratively
// prohibited), ETIMEDOUT (also when ctx's deadline passed), ctx's error when it
// was cancelled, net.ErrClosed; anything else (EMFILE, EADDRNOTAVAIL) is trouble
// on this side. An IPv4-mapped address is dialled as IPv4.
func (d *Dialer) Dial(ctx context.Context, dst netip.AddrPort) (Stream, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	p, err := d.poller()
	if err != nil {
		return nil, dialError(dst, err)
	}
	s, err := d.connect(ctx, p, dst)
	if err != nil {
		return nil, dialError(dst, err)
	}
	return s, nil
}

// Close resets the connections that are left and stops the goroutine. It is
// idempotent.
func (d *Dialer) Close() error {
	d.mu.Lock()
	p := d.poll
	d.closed = true
	d.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.close()
}

func (d *Dialer) poller() (*poller, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, net.ErrClosed
	}
	if d.poll == nil {
		p, err := newPoller(d.cfg.Turn)
		if err != nil {
			return nil, err
		}
		d.poll = p
	}
	return d.poll, nil
}

func (d *Dialer) connect(ctx context.Context, p *poller, dst netip.AddrPort) (*socket, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sa, family, err := sockaddr(dst)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	if err := d.setOptions(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// A connect that a signal interrupts goes on by itself (POSIX): what it comes
	// to is told by the event, as with EINPROGRESS.
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS && err != unix.EINTR {
		unix.Close(fd)
		return nil, err
	}
	s, err := p.add(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := s.waitConnected(ctx); err != nil {
		s.with(func(fd int) {
			if prohibited(fd) {
				err = unix.EACCES
			}
		})
		s.Reset()
		return nil, err
	}
	d.established(s)
	return s, nil
}

func (d *Dialer) setOptions(fd int) error {
	if d.cfg.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(d.cfg.Mark)); err != nil {
			// Not as an errno: EPERM would pass for the answer of the network.
			return fmt.Errorf("set mark %#x: %v", d.cfg.Mark, err)
		}
	}
	// What follows is supported by every kernel this runs on, and a connection
	// is better without one of them than none at all.
	// Bytes are gathered before they are written; Nagle would only add delay.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	notSent := d.cfg.NotSent
	if n := d.cfg.StartBuffer; n > 0 {
		notSent = min(notSent, n)
		setStartBuffer(fd, n)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
	if t := d.cfg.UserTimeout; t > 0 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(t.Milliseconds()))
	}
	return nil
}

// established completes the options of a connected socket.
func (d *Dialer) established(s *socket) {
	s.notSent = d.cfg.NotSent
	if n := d.cfg.StartBuffer; n > 0 {
		s.sendSmall.Store(n < d.cfg.NotSent)
		// Without it the kernel tunes from the start.
		s.with(func(fd int) { _ = hold(fd) })
	}
}

// setStartBuffer makes the receive window n bytes at first. The lock that
// SO_RCVBUF sets is taken off again before the handshake, because the window
// scale would be chosen for a window that never grows; hold puts it back.
func setStartBuffer(fd, n int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0) != nil {
		return // not known before Linux 5.14: the lock would be for good
	}
	// The kernel doubles the value and counts half of it as window.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, n)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0)
}

// hold ends the kernel's tuning of the receive buffer for now.
func hold(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, rcvbufLock)
}

// waitConnected waits for the outcome of a connect that is under way.
func (s *socket) waitConnected(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	s.SetNotify(func(_, _, _ bool) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	defer s.SetNotify(nil)
	for {
		if err := s.connectError(); err != nil {
			return err
		}
		err := net.ErrClosed
		s.with(func(fd int) { _, err = unix.Getpeername(fd) })
		if err == nil || err == net.ErrClosed {
			return err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.p.stop:
			return net.ErrClosed
		}
	}
}

// prohibited reports whether an ICMP error of the connection attempt says
// "administratively prohibited": codes 9, 10 and 13 of type 3 (RFC 1812
// section 5.2.7.1). IPv4 gives them the errno of "unreachable"; since Linux 5.9
// the error queue of a connecting socket has the code as well, without being
// asked for. For IPv6 the errno is EACCES already.
func prohibited(fd int) bool {
	var data [64]byte
	var oob [256]byte
	for range 8 { // the queue is short, and this loop bounded
		_, n, _, _, err := unix.Recvmsg(fd, data[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return false
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil {
			return false
		}
		for _, m := range msgs {
			// struct sock_extended_err: errno (4), origin, type, code.
			if len(m.Data) < 8 || binary.NativeEndian.Uint32(m.Data) == 0 {
				continue
			}
			origin, typ, code := m.Data[4], m.Data[5], m.Data[6]
			if origin == unix.SO_EE_ORIGIN_ICMP && typ == 3 && (code == 9 || code == 10 || code == 13) {
				return true
			}
		}
	}
	return false
}

func sockaddr(dst netip.AddrPort) (unix.Sockaddr, int, error) {
	addr := dst.Addr()
	switch {
	case addr.Is4():
		return &unix.SockaddrInet4{Port: int(dst.Port()), Addr: addr.As4()}, unix.AF_INET, nil
	case addr.Is6():
		sa := &unix.SockaddrInet6{Port: int(dst.Port()), Addr: addr.As16()}
		if zone := addr.Zone(); zone != "" {
			id, err := zoneID(zone)
			if err != nil {
				return nil, 0, err
			}
			sa.ZoneId = id
		}
		return sa, unix.AF_INET6, nil
	}
	return nil, 0, fmt.Errorf("no address: %w", syscall.EHOSTUNREACH)
}

func zoneID(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, syscall.ENETUNREACH)
	}
	return uint32(ifi.Index), nil
}

// seconds rounds d up to whole seconds, at least one.
func seconds(d time.Duration) int { return max(1, int((d+time.Second-1)/time.Second)) }
