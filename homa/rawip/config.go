package rawip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Protocol is the IP protocol number of Homa; the module's linux_6.1.38 branch
// uses Protocol61 (an experimental number, RFC 3692).
const (
	Protocol   = 146
	Protocol61 = 253
)

// Defaults of Config; our choices.
const (
	// DefaultRecvBuffer holds, with the kernel's overhead, the unscheduled bytes
	// of some fifty messages that arrive at once.
	DefaultRecvBuffer = 4 << 20
	// DefaultSendWait is long enough for any queue of a working device to move.
	DefaultSendWait = 100 * time.Millisecond
	// DefaultRefusalRate is that of the kernel for all its ICMP errors.
	DefaultRefusalRate = 1000
)

// levels is the number of priorities.
const levels = 8

// Config describes the sockets. The zero value is all addresses of the host,
// IPv4 and, where the host has it, IPv6.
type Config struct {
	// Protocol is the IP protocol number; zero means Protocol.
	Protocol uint8
	// Local are the addresses of this host to use, at most 64. Packets to others
	// are not received, and none are sent from others. Empty means all. The
	// families of Local are the families that are opened.
	Local []netip.Addr
	// Device is the name of the network device to use alone; empty for any.
	Device string
	// Mark is the firewall mark of everything sent (SO_MARK; needs CAP_NET_ADMIN).
	// Zero sets none.
	Mark uint32
	// TOS is the TOS byte or traffic class for each of the 8 priorities. Nil means
	// priority << 5, as the module's branch main does; all zero turns priorities
	// off.
	TOS []uint8
	// LinkPriority is the kernel's priority of packets (SO_PRIORITY) for each of
	// the 8 Homa priorities, from which queueing disciplines choose a class and
	// VLAN devices the 802.1p bits (egress-qos-map). Values above 6 need
	// CAP_NET_ADMIN. Nil leaves it alone; set, it costs a system call or two
	// whenever the priority changes between packets.
	LinkPriority []uint32
	// RecvBuffer and SendBuffer are the sizes of each socket's buffers in bytes;
	// zero means DefaultRecvBuffer and the kernel's default for sending. Without
	// CAP_NET_ADMIN they are cut to net.core.rmem_max and wmem_max.
	RecvBuffer, SendBuffer int
	// SendWait bounds how long Send waits for room in the send buffer before a
	// packet counts as lost. Zero means DefaultSendWait.
	SendWait time.Duration
	// RefusalRate is how many ICMP errors Refuse sends in a second, over all
	// peers. Zero means DefaultRefusalRate, negative none.
	RefusalRate int
}

// complete checks c and returns it with defaults filled in.
func (c Config) complete() (Config, error) {
	if c.Protocol == 0 {
		c.Protocol = Protocol
	}
	if len(c.Local) > 64 {
		return c, fmt.Errorf("rawip: %d local addresses, at most 64", len(c.Local))
	}
	c.Local = slices.Clone(c.Local)
	for i, a := range c.Local {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			return c, fmt.Errorf("rawip: local address %q is not the address of a host", a)
		}
		c.Local[i] = a.Unmap()
	}
	switch len(c.TOS) {
	case 0:
		c.TOS = make([]uint8, levels)
		for i := range c.TOS {
			c.TOS[i] = uint8(i << 5)
		}
	case levels:
		c.TOS = slices.Clone(c.TOS)
	default:
		return c, fmt.Errorf("rawip: TOS for %d priorities, must be %d", len(c.TOS), levels)
	}
	if n := len(c.LinkPriority); n != 0 && n != levels {
		return c, fmt.Errorf("rawip: link priority for %d priorities, must be %d", n, levels)
	}
	c.LinkPriority = slices.Clone(c.LinkPriority)
	if c.RecvBuffer < 0 || c.SendBuffer < 0 {
		return c, errors.New("rawip: negative size of a socket buffer")
	}
	if c.RecvBuffer == 0 {
		c.RecvBuffer = DefaultRecvBuffer
	}
	if c.SendWait <= 0 {
		c.SendWait = DefaultSendWait
	}
	if c.RefusalRate == 0 {
		c.RefusalRate = DefaultRefusalRate
	}
	return c, nil
}

// wants reports whether c asks for the family of v6.
func (c *Config) wants(v6 bool) bool {
	return len(c.Local) == 0 || slices.ContainsFunc(c.Local, func(a netip.Addr) bool { return a.Is6() == v6 })
}

// locals returns the configured addresses of one family.
func (c *Config) locals(v6 bool) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(c.Local), func(a netip.Addr) bool { return a.Is6() != v6 })
}
