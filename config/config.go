package config

import (
	"log/slog"
	"net/netip"
	"time"
)

// Config is one configuration file. The zero value of an optional part means
// that the part is absent; scalars always hold their effective value, given or
// default. It is made by [Load], [Parse] or [Default] and is not changed
// afterwards.
type Config struct {
	// File is the path that the configuration was read from, as it was given.
	File string

	// Name is what this instance calls itself in logs, in status and in the
	// name of its admin socket: 1 to 64 letters, digits, '-', '_' and '.'.
	// Default: the host name.
	Name string

	Log      Log
	Admin    Admin
	Identity Identity

	// Listen has the UDP addresses where peers are accepted; empty on an
	// instance that only dials. Ports are never zero, and no address covers
	// another one with the same port. [::] stands for both families.
	Listen []netip.AddrPort

	// Tun is the device that captures traffic; nil when nothing is captured.
	Tun *Tun

	// Peers are the gateways that we dial, with unique names.
	Peers []Peer

	// Rules say what happens to a captured flow: the first match wins, and what
	// matches none is rejected. Empty without Tun, never empty with it.
	Rules []Rule

	// Accept says who may reach what through us: the first match wins, and what
	// matches none is rejected.
	Accept []Accept

	// Translate has the translations between TCP and Homa, with unique names. No
	// two of them have one From.
	Translate []Translate
	// Homa says how this host takes part in a Homa fabric.
	Homa Homa

	Flows        Flows
	Associations Associations

	// Warnings are remarks on a file that can be used as it is, such as a
	// certificate that has expired. They are sorted like [Errors], and each Msg
	// starts with "warning: ".
	Warnings Errors
}

// Peer returns the peer called name, or nil.
func (c *Config) Peer(name string) *Peer {
	for i := range c.Peers {
		if c.Peers[i].Name == name {
			return &c.Peers[i]
		}
	}
	return nil
}

// Log says how much is logged, and how.
type Log struct {
	// Level is the lowest level that is logged. Default: info.
	Level slog.Level
	// Format is [FormatText] or [FormatJSON]. Default: text.
	Format string
}

// Values of [Log.Format].
const (
	FormatText = "text"
	FormatJSON = "json"
)

// Admin says where the running daemon can be asked.
type Admin struct {
	// Socket is the path of the UNIX socket of `tougw status` and `tougw
	// flows`, at most 107 bytes. Default: /run/tougw/NAME.sock.
	Socket string
	// HTTP is the TCP address of metrics, health and the status page. The zero
	// value means that there is none. It has no access control of its own.
	HTTP netip.AddrPort
}

// Identity says who we are and whom we believe. With Config.Listen or
// Config.Peers at least one kind is present: Cert, Key and CA together, PSK (never
// beside Cert), or PSKDir (only with Config.Listen, also beside the others). All paths are absolute or relative
// to the working directory: those of the file have been joined with its
// folder.
type Identity struct {
	// Cert is a PEM file with our certificate, and its chain if it has one;
	// Key its PEM private key, which only the owner may read. The key is that of
	// the certificate.
	Cert, Key string
	// CA is a PEM file with the certificates of the authorities that we believe.
	CA string
	// PSK is our own pre-shared key, for dialling; nil without.
	PSK *PSK
	// PSKDir is a folder with a file NAME.psk for each identity that may dial
	// us. Empty: pre-shared keys are not accepted.
	PSKDir string
}

// HasCert reports whether there are a certificate, its key and a CA.
func (i *Identity) HasCert() bool { return i.Cert != "" }

// PSK is a pre-shared key by which we prove an identity to the gateways that
// we dial.
type PSK struct {
	// Identity is the name that the key proves: a DNS name in lower case.
	Identity string
	// KeyFile is the file with the key, as written by `tougw keygen psk`; only
	// the owner may read it.
	KeyFile string
}

// Tun describes the device that captures traffic, and what is routed to it.
type Tun struct {
	// Name is the name of the interface, 1 to 15 bytes. Default: tou0.
	Name string
	// Addresses are the addresses of the interface with the prefix of their
	// link. At least one, no address twice.
	Addresses []netip.Prefix
	// Routes are the prefixes that are routed to the interface, masked, none
	// twice. The word `default` of the file stands for 0.0.0.0/0 and ::/0: both
	// families, so that neither leaves by another way.
	Routes []netip.Prefix
	// MTU is the MTU of the interface in bytes: 0 for auto, else 576 to 65535,
	// and at least 1280 when there is an IPv6 address or route. Flows are ended
	// at the device, so it need not fit the path. Default: auto.
	MTU int
	// Backend says how the device is made. Default: [BackendAuto].
	Backend Backend
	// Queues is the number of queues of the device, 1 to 16, or 0 for auto.
	// Default: auto.
	Queues int
	// Mark is the firewall mark (SO_MARK) of our own outer packets, which keeps
	// them out of Routes by a policy rule. Never 0. Default: 0x1067.
	Mark uint32
}

// DefaultRoute reports whether all traffic of at least one family is captured.
func (t *Tun) DefaultRoute() bool {
	for _, p := range t.Routes {
		if p.Bits() == 0 {
			return true
		}
	}
	return false
}

// Backend is a way to make a TUN device.
type Backend string

// The backends.
const (
	// BackendAuto tries netlink, then water.
	BackendAuto Backend = "auto"
	// BackendNetlink has offloads and several queues.
	BackendNetlink Backend = "netlink"
	// BackendWater is the portable one.
	BackendWater Backend = "water"
)

// Peer is a gateway that we dial.
type Peer struct {
	// Name is what we call it: unique, a DNS name in lower case. It need not be
	// the name that its certificate proves.
	Name string
	// Endpoints are the UDP addresses where it listens, in order of preference.
	// At least one, none twice.
	Endpoints []netip.AddrPort
	// ServerName is the DNS name that its certificate must have. Empty only
	// when we dial with a pre-shared key.
	ServerName string
	// PathMTU is the size in bytes of the largest outer packet (IP header
	// included) that the path carries: 0 for auto (1400 until paths are
	// probed), else 576 to 65535, and at least 1280 when an endpoint is IPv6.
	// Default: auto.
	PathMTU int
}

// Action is what a [Rule] or an [Accept] does with a flow.
type Action string

// The actions. Rules know Direct, Reject and Tunnel; accept rules know TCP,
// Reject and Homa.
const (
	// ActionDirect connects from this host, around the tunnel.
	ActionDirect Action = "direct"
	// ActionReject refuses the flow as administratively prohibited.
	ActionReject Action = "reject"
	// ActionTunnel sends the flow to the peer of the rule.
	ActionTunnel Action = "tunnel"
	// ActionTCP connects to the destination by the TCP of this host.
	ActionTCP Action = "tcp"
	// ActionHoma lets requests of peers by Homa (via) to the destination, and TCP
	// flows to a translation that is for it, but nowhere else. (TCP lets flows
	// there, too.)
	ActionHoma Action = "homa"
)

// Rule is one line of `rules`.
type Rule struct {
	// Dst are the destinations it is for, masked; empty for all.
	Dst []netip.Prefix
	// Ports are the destination ports it is for; empty for all.
	Ports []PortRange
	// Action is Direct, Reject or Tunnel.
	Action Action
	// Peer is where Tunnel sends the flow: the Name of one of Config.Peers or,
	// on an instance that listens, the proven identity of a peer that dialled
	// us. Empty with the other actions.
	Peer string
}

// Accept is one line of `accept`.
type Accept struct {
	// Peer says for which peers it is, by an identity that they proved.
	Peer Pattern
	// Dst are the destinations it is for, masked; at least one.
	Dst []netip.Prefix
	// Ports are the destination ports it is for; empty for all.
	Ports []PortRange
	// Action is TCP, Homa or Reject.
	Action Action
}

// Flows has the bounds and timers of the flows of this instance, captured and
// accepted ones alike.
type Flows struct {
	// ConnectTimeout is how long a flow may be opening, from the first SYN until
	// the far side has connected: 1s to 10m. Default: 2m.
	ConnectTimeout time.Duration
	// IdleTimeout resets a flow over which no byte went either way for so long:
	// 0 for never, else 10s to 720h. Default: 0.
	IdleTimeout time.Duration
	Keepalive   Keepalive
	// BufferMax is the ceiling in bytes of what is buffered for one flow in one
	// direction: 64 KiB to 256 MiB. Default: 8 MiB.
	BufferMax int
	// Max is how many flows there may be at a time: 1 to 1048576. One peer may
	// hold eight times as many as are left free: alone, 8/9 of Max. Default: 65536.
	Max int
	// OpeningMax is how many of them may be opening at a time: 1 to Max.
	// Default: 4096, or Max if that is less.
	OpeningMax int
	// OpeningPerSource is how many of one source address (captured flows) or
	// peer (accepted flows) may be opening at a time: 1 to OpeningMax.
	// Default: 256, or OpeningMax if that is less.
	OpeningPerSource int
}

// Keepalive has the TCP keepalive of both ends of a flow, in whole seconds.
type Keepalive struct {
	// Idle is the silence before the first probe: 1s to 9h, or 0 for no
	// keepalive at all. Default: 75s.
	Idle time.Duration
	// Interval is the time between probes: 1s to 9h. Default: 15s.
	Interval time.Duration
	// Count is the number of unanswered probes that end the flow: 1 to 127.
	// Default: 8.
	Count int
}

// Associations has the bounds and timers of the DTLS associations.
type Associations struct {
	// Keepalive is the silence after which an echo is sent: 1s to 10m.
	// Default: 15s.
	Keepalive time.Duration
	// DeadAfter is how long an answer may be missing until the association is
	// given up: 1s to 10m. Default: 10s.
	DeadAfter time.Duration
	// HandshakeTimeout is how long one handshake may take: 1s to 2m.
	// Default: 10s.
	HandshakeTimeout time.Duration
	// HalfOpenMax is how many handshakes may be under way at a listener: 1 to
	// 65536. Default: 1024.
	HalfOpenMax int
	// HalfOpenPerSource is how many of them one source address may have: 1 to
	// HalfOpenMax. Default: 32, or HalfOpenMax if that is less.
	HalfOpenPerSource int
	// SessionGrace is how long the flows of a peer outlive its association, so
	// that it can come back: 0 to 24h. Default: 5m.
	SessionGrace time.Duration
	// RekeyAfter and RekeyBytes are the age of an association and the bytes of
	// its records, in the direction that has more, after which the side that
	// dialled makes a new one beside it and moves over: 10s to 24h and 1 MiB to
	// 128 GiB. Defaults: 1h and 64 GiB.
	RekeyAfter time.Duration
	RekeyBytes int64
	// Offload says whether datagrams go to and come from the kernel in batches
	// (UDP_SEGMENT, UDP_GRO) where it can: auto, or off for a device that cuts
	// them wrongly. Default: auto.
	Offload Offload
}

// Offload chooses whether an offload is used.
type Offload string

// The choices.
const (
	OffloadAuto Offload = "auto"
	OffloadOff  Offload = "off"
)

// Default returns what an empty file would mean if it were complete: every
// scalar has its default, and identity, listen, tun, peers, rules, accept and
// translate are absent. Name and Admin.Socket are empty.
func Default() *Config {
	return &Config{
		Log:  Log{Level: slog.LevelInfo, Format: FormatText},
		Homa: defaultHoma(),
		Flows: Flows{
			ConnectTimeout:   2 * time.Minute,
			Keepalive:        Keepalive{Idle: 75 * time.Second, Interval: 15 * time.Second, Count: 8},
			BufferMax:        8 << 20,
			Max:              65536,
			OpeningMax:       4096,
			OpeningPerSource: 256,
		},
		Associations: Associations{
			Keepalive:         15 * time.Second,
			DeadAfter:         10 * time.Second,
			HandshakeTimeout:  10 * time.Second,
			HalfOpenMax:       1024,
			HalfOpenPerSource: 32,
			SessionGrace:      5 * time.Minute,
			RekeyAfter:        time.Hour,
			RekeyBytes:        64 << 30,
			Offload:           OffloadAuto,
		},
	}
}

// DefaultTun returns the device of a `tun` part that gives nothing but
// addresses, without the addresses.
func DefaultTun() *Tun {
	return &Tun{Name: "tou0", Backend: BackendAuto, Mark: 0x1067}
}
