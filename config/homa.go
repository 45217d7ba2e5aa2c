package config

import (
	"net/netip"
	"slices"
	"time"
)

// Homa says how this host takes part in a Homa fabric. It has no effect unless
// [Config.UsesHoma].
type Homa struct {
	// Addresses are those of this host that take part; none twice. Empty: all.
	Addresses []netip.Addr
	// Device is the only network device that is used; empty for any.
	Device string
	// Version is the form of the protocol that hosts are taken to speak until
	// their packets tell another: one of [HomaVersions]. Default: main.
	Version string
	// Peers are hosts of which more is known, with unique addresses.
	Peers []HomaPeer
	// Unscheduled is how many bytes of each message leave before the receiver has
	// granted any: 1 to 1,000,000, or 0 for what the version does. Default: 0.
	Unscheduled int
	// ClientPort is the source port of our requests: 1 to 65535. Default: 32768,
	// as Linux hosts have it; they serve ports below.
	ClientPort uint16
	// LinkRate is the rate in bit/s of the link to the fabric, for pacing and for
	// the share of the oldest message: 1 Mbit/s to 10 Tbit/s, or 0 for no pacing.
	// Default: 0.
	LinkRate int64
	// DSCP is the code point, 0 to 63, of each of the 8 priorities, the lowest
	// first. Default: the class selectors 0, 8, … 56, as Linux hosts have it.
	DSCP [8]uint8
	// LinkPriority is the kernel's priority (SO_PRIORITY) for each of the 8
	// priorities; nil leaves it alone.
	LinkPriority []uint32
	// Resend is the silence after which missing data is asked for, and the time
	// between such requests: 1ms to 10s. Default: 5ms.
	Resend time.Duration
	// Timeout is the silence after which a peer is given up: 10ms to 10m, and at
	// least twice Resend. Default: 100ms.
	Timeout time.Duration
	// Incoming bounds the bytes that are granted to all senders together and are not
	// here yet: what may wait in the switches before this host. 16 KiB to 64 MiB.
	// Default: 400,000.
	Incoming int
	// Window bounds the bytes of one message that are held for a reader: 16 KiB to
	// 1 MiB. Default: 256 KiB.
	Window int
	// ReceiveMemory and SendMemory bound the bytes held of received and of sent
	// messages, over all peers: 4 MiB to 64 GiB. Default: 64 MiB each.
	ReceiveMemory, SendMemory int64
}

// HomaPeer is a host of the fabric that is known by name.
type HomaPeer struct {
	Addr netip.Addr
	// Version is one of [HomaVersions].
	Version string
	// Unscheduled is as in [Homa], for this peer; 0 for what the version does.
	Unscheduled int
}

// HomaVersions are the names of the forms of the protocol. homaOther goes by
// another IP protocol number than the rest.
var HomaVersions = []string{"main", "6.10", "stripped", homaOther}

const homaOther = "6.1"

func defaultHoma() Homa {
	return Homa{
		Version: "main", ClientPort: 0x8000, DSCP: [8]uint8{0, 8, 16, 24, 32, 40, 48, 56},
		Resend: 5 * time.Millisecond, Timeout: 100 * time.Millisecond, Incoming: 400_000, Window: 256 << 10,
		ReceiveMemory: 64 << 20, SendMemory: 64 << 20,
	}
}

// UsesHoma reports whether a translation, or a peer, sends or serves Homa packets
// from this host.
func (c *Config) UsesHoma() bool {
	return c.AcceptsHoma() || slices.ContainsFunc(c.Translate, func(t Translate) bool {
		return t.From.Kind == TranslateHoma || t.To.Kind == TranslateHoma && t.To.Via == ""
	})
}

// AcceptsHoma reports whether peers may reach Homa servers through this host.
func (c *Config) AcceptsHoma() bool {
	return slices.ContainsFunc(c.Accept, func(a Accept) bool { return a.Action == ActionHoma })
}

// TunnelsHoma reports whether Homa goes to or comes from peers.
func (c *Config) TunnelsHoma() bool {
	return c.AcceptsHoma() || slices.ContainsFunc(c.Translate, func(t Translate) bool { return t.To.Via != "" })
}
