package udp

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/bpf"
)

const (
	// MaxPayload is the largest payload of one datagram or run in bytes: an
	// IPv4 packet of 65535 bytes less 28 of headers. IPv6 could carry 20 more,
	// which nothing needs.
	MaxPayload = 65507
	// MaxSegments is the largest number of datagrams the kernel cuts from one
	// run (UDP_MAX_SEGMENTS before Linux 6.7, which allows 128).
	MaxSegments = 64
)

// DefaultWriteWait is the value of Config.WriteWait when that is zero. Our
// choice: long enough for any queue of a working device to move, short enough
// that one stuck device does not hold up a transmit queue for good.
const DefaultWriteWait = 100 * time.Millisecond

// errClosed is what calls on a closed Conn return; it is net.ErrClosed for
// errors.Is.
var errClosed = fmt.Errorf("udp: %w", net.ErrClosed)

// Config describes a socket. The zero value is a dual-stack socket on a free
// port with the kernel's default buffers and all offloads that are there.
type Config struct {
	// Bind is the local address. An IPv4 address gives an IPv4 socket, [::] a
	// dual-stack one, any other IPv6 address an IPv6-only one. A port of zero
	// picks a free one. The zero AddrPort, or an invalid address with a port,
	// means [::], or 0.0.0.0 on a host without IPv6.
	Bind netip.AddrPort
	// ReusePort lets several sockets share Bind (SO_REUSEPORT); the kernel
	// spreads the remote addresses over them.
	ReusePort bool
	// Steer is a program that ListenGroup has the kernel run for each datagram,
	// over its payload: it gives the number of the socket that gets it, in the
	// order of ListenGroup. Where there is no such socket, the kernel chooses by
	// the addresses.
	Steer []bpf.Instruction
	// Mark is the firewall mark of everything sent (SO_MARK; needs
	// CAP_NET_ADMIN). Zero sets none.
	Mark uint32
	// RecvBuffer and SendBuffer are the wanted sizes of the socket's buffers in
	// bytes. Zero keeps the kernel's default. With CAP_NET_ADMIN they may exceed
	// net.core.rmem_max and wmem_max; without it they are cut to these, and
	// Capabilities says so.
	RecvBuffer, SendBuffer int
	// NoGSO and NoGRO turn the offloads off even where they would work.
	NoGSO, NoGRO bool
	// DontFragment sets the don't-fragment bit and ignores the path MTU that
	// the kernel learned from ICMP (IP_PMTUDISC_PROBE): a datagram larger than
	// the MTU of the outgoing device fails with EMSGSIZE, and the caller finds
	// the path's MTU by probing (RFC 8899). Otherwise the kernel fragments.
	DontFragment bool
	// WriteWait bounds how long one message waits for room in the socket's send
	// buffer before WriteBatch gives up on it with EAGAIN. Zero means
	// DefaultWriteWait.
	WriteWait time.Duration
}

// Capabilities tells what a Conn uses.
type Capabilities struct {
	// GSO: runs are handed to the kernel whole (UDP_SEGMENT).
	GSO bool
	// GRO: the kernel may hand over runs (UDP_GRO).
	GRO bool
	// Steering: the kernel chooses the socket of a group by Config.Steer.
	Steering bool
	// SteeringReason says why it does not although it should; empty otherwise.
	SteeringReason string
	// GSOReason and GROReason say why the offload is not in use; empty when it
	// is.
	GSOReason, GROReason string
	// RecvBuffer and SendBuffer are the sizes in force in bytes, in the unit of
	// Config: the kernel books twice as much, to cover its own overhead.
	RecvBuffer, SendBuffer int
	// BufferReason says why a buffer is smaller than wanted; empty otherwise.
	BufferReason string
}

// ListenGroup opens n sockets on one address that share its load by
// SO_REUSEPORT; with port zero in cfg.Bind the first one picks it. The kernel
// chooses the socket by a hash of both addresses, so that one remote address
// stays with one socket as long as the group does not change, or by cfg.Steer if
// it can; Capabilities says which. The numbers of the others change when one is
// closed. All or none of the sockets are open when it returns.
func ListenGroup(cfg Config, n int) ([]*Conn, error) {
	if n < 1 {
		return nil, fmt.Errorf("udp: group of %d sockets", n)
	}
	cfg.ReusePort = cfg.ReusePort || n > 1
	conns := make([]*Conn, 0, n)
	for range n {
		c, err := Listen(cfg)
		if err != nil {
			for _, c := range conns {
				_ = c.Close() // nothing was sent; the error of Listen tells more
			}
			return nil, err
		}
		c.number = len(conns)
		conns = append(conns, c)
		cfg.Bind = c.LocalAddr()
	}
	if len(cfg.Steer) > 0 && n > 1 {
		err := conns[0].steer(cfg.Steer) // the program is the group's
		for _, c := range conns {
			c.steered(err)
		}
	}
	return conns, nil
}

// network is the name by which package net opens the family of c.Bind.
func (c *Config) network() string {
	addr := c.Bind.Addr()
	switch {
	case addr.Unmap().Is4():
		return "udp4"
	case addr.IsValid() && !addr.IsUnspecified():
		return "udp6"
	}
	return "udp"
}

// address is c.Bind as package net wants it.
func (c *Config) address() string {
	if addr := c.Bind.Addr(); addr.IsValid() {
		return netip.AddrPortFrom(addr.Unmap(), c.Bind.Port()).String()
	}
	return fmt.Sprintf(":%d", c.Bind.Port())
}

// Number is the place of the socket in the group that ListenGroup opened, from 0
// on; 0 for a socket alone.
func (c *Conn) Number() int { return c.number }

// setSteering notes the result of attaching the program.
func (c *Capabilities) setSteering(err error) {
	c.Steering = err == nil
	if err != nil {
		c.SteeringReason = fmt.Sprintf("datagrams are not steered among sockets: %v", err)
	}
}
