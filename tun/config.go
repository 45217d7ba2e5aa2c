package tun

import (
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strings"
)

// Backend chooses how the device is made.
type Backend string

// The backends. The zero value is BackendAuto.
const (
	BackendAuto    Backend = "auto"
	BackendNetlink Backend = "netlink"
	BackendWater   Backend = "water"
)

// DefaultMark is the fwmark of our own sockets when Config.Mark is zero. Its
// bits keep clear of those that widely used software claims for itself: the
// upper half (Tailscale, Calico), 0x4000 and 0x8000 (kube-proxy), 0x0f00
// (Cilium).
const DefaultMark = 0x1067

// DefaultRunDir is where the journal is kept when Config.RunDir is empty.
const DefaultRunDir = "/run/tougw"

const (
	// defaultMTU, for devices with a vnet header, is that of Ethernet. It only
	// shapes the segments that enter and leave the device, not those of the
	// tunnel, for captured TCP ends here; and with TSO both directions move
	// 64 KiB at a time whatever it is. So it is the value that surprises no
	// application and that forwarded clients have anyway.
	defaultMTU = 1500

	// defaultMTUPlain, for devices without one, is the largest there is: each
	// packet costs a system call, and with 65535 instead of 1500 local
	// applications sent 22.5 instead of 2.8 Gbit/s and received 5.9 instead of
	// 1.3.
	defaultMTUPlain = 65535

	minMTU     = 576  // RFC 791: what every IPv4 host accepts
	minMTUIPv6 = 1280 // RFC 8200 section 5; below, Linux turns IPv6 off
	maxMTU     = 65535

	// defaultQueues bounds the queues that are taken without being asked for:
	// each has a reader, and beyond eight none was of use.
	defaultQueues = 8
	maxQueues     = 64

	maxName   = 15 // IFNAMSIZ less the terminating zero
	maxRoutes = 4096
)

// Config describes a device and what is set on the host for it.
type Config struct {
	// Name of the device: 1 to 15 bytes, as the kernel takes them, and without
	// the kernel's template character %.
	Name string
	// Backend is BackendAuto when empty.
	Backend Backend
	// MTU of the device in bytes, 576 to 65535 (from 1280 with IPv6). Zero
	// chooses: 1500 with a vnet header, 65535 without.
	MTU int
	// Queues is the number of queues, at most 64; water has one whatever this
	// says. Zero is one for each processor that Go uses, at most 8.
	Queues int
	// Addresses are set on the device, each with the length of its network.
	// As with any device, the network becomes reachable through it by a
	// connected route in the main table.
	Addresses []netip.Prefix
	// Routes are the destinations to capture, at most 4096; bits beyond a
	// prefix's length are ignored. [DefaultRoutes] captures everything. The
	// default route of a family that the host does not have is left out, any
	// other route of it is an error.
	Routes []netip.Prefix
	// Mark is the fwmark (SO_MARK) of the sockets that must stay out of the
	// device. Zero is DefaultMark.
	Mark uint32
	// Endpoints are the peers' addresses; Open fails with a LoopError when
	// marked packets to one of them would enter the device.
	Endpoints []netip.Addr
	// RunDir is the folder of journal and lock, made when missing. Empty is
	// DefaultRunDir. Only the owner of the process may have write access.
	RunDir string
	// Logger receives what is done to the host; nil discards.
	Logger *slog.Logger
}

// DefaultRoutes gives the prefixes that capture all destinations of both
// families.
func DefaultRoutes() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.IPv4Unspecified(), 0),
		netip.PrefixFrom(netip.IPv6Unspecified(), 0),
	}
}

// complete checks c and gives a copy in which defaults are filled in and
// prefixes masked, sorted and unique. MTU stays zero when it is to be chosen,
// since that depends on the backend.
func (c Config) complete() (Config, error) {
	if err := checkName(c.Name); err != nil {
		return c, err
	}
	switch c.Backend {
	case "":
		c.Backend = BackendAuto
	case BackendAuto, BackendNetlink, BackendWater:
	default:
		return c, fmt.Errorf("tun: unknown backend %q", c.Backend)
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		return c, fmt.Errorf("tun: MTU %d is outside %d to %d", c.MTU, minMTU, maxMTU)
	}
	if c.Queues < 0 || c.Queues > maxQueues {
		return c, fmt.Errorf("tun: %d queues are outside 0 to %d", c.Queues, maxQueues)
	}
	if c.Queues == 0 {
		c.Queues = min(runtime.GOMAXPROCS(0), defaultQueues)
	}
	if len(c.Routes) > maxRoutes {
		return c, fmt.Errorf("tun: %d routes are more than %d", len(c.Routes), maxRoutes)
	}
	for _, p := range slices.Concat(c.Addresses, c.Routes) {
		if !p.IsValid() || p.Addr().Is4In6() {
			return c, fmt.Errorf("tun: %v is not an IPv4 or IPv6 prefix", p)
		}
		// A default route is left out on hosts without IPv6; see host.hasIPv6.
		if c.MTU != 0 && c.MTU < minMTUIPv6 && p.Addr().Is6() && p.Bits() > 0 {
			return c, fmt.Errorf("tun: %v needs an MTU of %d or more, not %d", p, minMTUIPv6, c.MTU)
		}
	}
	c.Routes = normalize(c.Routes)
	for _, a := range c.Endpoints {
		if !a.IsValid() {
			return c, fmt.Errorf("tun: an endpoint has no address")
		}
	}
	if c.Mark == 0 {
		c.Mark = DefaultMark
	}
	if c.RunDir == "" {
		c.RunDir = DefaultRunDir
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With("subsystem", "tun", "device", c.Name)
	return c, nil
}

// checkName accepts what the kernel's dev_valid_name does, except for names
// that mean something else in its interfaces.
func checkName(name string) error {
	switch {
	case name == "" || len(name) > maxName:
		return fmt.Errorf("tun: device name %q does not have 1 to %d bytes", name, maxName)
	case name == "." || name == ".." || name == "lo" || name == "all" || name == "default":
		return fmt.Errorf("tun: device name %q is reserved", name)
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r) }):
		return fmt.Errorf("tun: device name %q has a character that is not allowed", name)
	}
	return nil
}

// normalize masks, sorts (IPv4 first, then by address and length) and
// deduplicates.
func normalize(ps []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, len(ps))
	for i, p := range ps {
		out[i] = p.Masked()
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}
