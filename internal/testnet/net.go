package testnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses of the topology; the drawing in the package comment shows them.
var (
	AppAddr       = netip.MustParseAddr("10.1.0.2")
	AppAddr6      = netip.MustParseAddr("fd00:1::2")
	AppPrefix     = netip.MustParsePrefix("10.1.0.0/24")
	AppPrefix6    = netip.MustParsePrefix("fd00:1::/64")
	GatewayAddr   = netip.MustParseAddr("203.0.113.7")
	GatewayAddr6  = netip.MustParseAddr("2001:db8:2::7")
	ServerAddr    = netip.MustParseAddr("198.51.100.2")
	ServerAddr6   = netip.MustParseAddr("2001:db8:3::2")
	ServerPrefix  = netip.MustParsePrefix("198.51.100.0/24")
	ServerPrefix6 = netip.MustParsePrefix("2001:db8:3::/64")

	siteGatewayAddr   = netip.MustParseAddr("10.1.0.1")
	siteGatewayAddr6  = netip.MustParseAddr("fd00:1::1")
	internetAddr      = netip.MustParseAddr("203.0.113.1")
	internetAddr6     = netip.MustParseAddr("2001:db8:2::1")
	serverGatewayAddr = netip.MustParseAddr("198.51.100.1")
	serverGateway6    = netip.MustParseAddr("2001:db8:3::1")
)

// MaxSites is how many sites the address plan has room for.
const MaxSites = 64

// Options say what a Net looks like. The zero value is the drawing in the
// package comment.
type Options struct {
	// Sites is the number of client sites, at most MaxSites; 0 means 1.
	Sites int
	// AppOnGateway leaves the app namespaces out: Site.App is Site.Gateway.
	AppOnGateway bool
}

// Site is a client gateway and the host behind it.
type Site struct {
	// App is where the programs of users run, Gateway where the client does.
	App, Gateway *Namespace
	// Addr and Addr6 are the addresses of Gateway on the Internet, Next and
	// Next6 those of the Internet router beside it.
	Addr, Addr6, Next, Next6 netip.Addr
	// Link is the name of the site's interface in the Internet namespace.
	Link string
}

// Net is a built topology.
type Net struct {
	// Sites has at least one element.
	Sites []*Site
	// Internet routes between the sites and Gateway.
	Internet *Namespace
	// Gateway stands between the Internet and Server.
	Gateway, Server *Namespace

	run    *run
	spaces []*Namespace
}

// New builds a topology. The caller must Close it.
func New(opts Options) (*Net, error) {
	if opts.Sites == 0 {
		opts.Sites = 1
	}
	if opts.Sites < 0 || opts.Sites > MaxSites {
		return nil, fmt.Errorf("testnet: %d sites, not 1 to %d", opts.Sites, MaxSites)
	}
	r, err := newRun()
	if err != nil {
		return nil, err
	}
	n := &Net{run: r}
	if err := n.build(opts); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Close kills every program that runs in the namespaces and removes them.
// Calling it again does nothing.
func (n *Net) Close() error {
	var errs []error
	for _, ns := range n.spaces {
		errs = append(errs, ns.close())
	}
	n.spaces = nil
	if n.run != nil {
		errs = append(errs, n.run.end())
		n.run = nil
	}
	return errors.Join(errs...)
}

// Namespaces lists all namespaces from the first application to the server.
// The caller may keep the slice.
func (n *Net) Namespaces() []*Namespace {
	return append([]*Namespace(nil), n.spaces...)
}

func (n *Net) space(place string) (*Namespace, error) {
	ns, err := newNamespace(n.run.name(place))
	if err == nil {
		n.spaces = append(n.spaces, ns)
	}
	return ns, err
}

func (n *Net) build(opts Options) (err error) {
	for i := range opts.Sites {
		suffix := ""
		if i > 0 {
			suffix = fmt.Sprint(i)
		}
		s := &Site{Link: fmt.Sprintf("site%d", i)}
		if !opts.AppOnGateway {
			if s.App, err = n.space("app" + suffix); err != nil {
				return err
			}
		}
		if s.Gateway, err = n.space("client" + suffix); err != nil {
			return err
		}
		if opts.AppOnGateway {
			s.App = s.Gateway
		}
		s.Next = netip.AddrFrom4([4]byte{192, 0, 2, byte(4*i + 1)})
		s.Addr = s.Next.Next()
		s.Next6 = netip.MustParseAddr(fmt.Sprintf("2001:db8:1:%x::1", i))
		s.Addr6 = s.Next6.Next()
		n.Sites = append(n.Sites, s)
	}
	if n.Internet, err = n.space("internet"); err != nil {
		return err
	}
	if n.Gateway, err = n.space("gateway"); err != nil {
		return err
	}
	if n.Server, err = n.space("server"); err != nil {
		return err
	}
	for _, s := range n.Sites {
		if err := n.wireSite(s); err != nil {
			return err
		}
	}
	return errors.Join(
		connect(n.Internet, "gw0", n.Gateway, "wan0"),
		n.Internet.addresses("gw0", prefix(internetAddr, 24), prefix(internetAddr6, 64)),
		n.Gateway.addresses("wan0", prefix(GatewayAddr, 24), prefix(GatewayAddr6, 64)),
		n.Gateway.defaultRoutes(internetAddr, internetAddr6),
		connect(n.Gateway, "lan0", n.Server, "eth0"),
		n.Gateway.addresses("lan0", prefix(serverGatewayAddr, 24), prefix(serverGateway6, 64)),
		n.Server.addresses("eth0", prefix(ServerAddr, 24), prefix(ServerAddr6, 64)),
		n.Server.defaultRoutes(serverGatewayAddr, serverGateway6),
	)
}

func (n *Net) wireSite(s *Site) error {
	err := errors.Join(
		connect(s.Gateway, "wan0", n.Internet, s.Link),
		s.Gateway.addresses("wan0", prefix(s.Addr, 30), prefix(s.Addr6, 64)),
		n.Internet.addresses(s.Link, prefix(s.Next, 30), prefix(s.Next6, 64)),
		s.Gateway.defaultRoutes(s.Next, s.Next6),
	)
	if err != nil || s.App == s.Gateway {
		return err
	}
	return errors.Join(
		connect(s.App, "eth0", s.Gateway, "lan0"),
		s.App.addresses("eth0", prefix(AppAddr, 24), prefix(AppAddr6, 64)),
		s.Gateway.addresses("lan0", prefix(siteGatewayAddr, 24), prefix(siteGatewayAddr6, 64)),
		s.App.defaultRoutes(siteGatewayAddr, siteGatewayAddr6),
	)
}

// RoutePlain teaches the Internet the networks behind the first site and
// behind the gateway, so that the application reaches the server without any
// tunnel.
func (n *Net) RoutePlain() error {
	s := n.Sites[0]
	return errors.Join(
		n.Internet.AddRoute(ServerPrefix, GatewayAddr),
		n.Internet.AddRoute(ServerPrefix6, GatewayAddr6),
		n.Internet.AddRoute(AppPrefix, s.Addr),
		n.Internet.AddRoute(AppPrefix6, s.Addr6),
	)
}

// connect joins two namespaces by a veth pair and brings both ends up.
func connect(a *Namespace, aName string, b *Namespace, bName string) error {
	err := a.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = aName
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: bName, PeerNamespace: netlink.NsFd(b.handle)}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("testnet: veth %s/%s - %s/%s: %w", a.Name, aName, b.Name, bName, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(a.linkUp(aName), b.linkUp(bName))
}

// onLink runs f with a link of the namespace.
func (ns *Namespace) onLink(name string, f func(netlink.Link) error) error {
	return ns.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = f(link)
		}
		if err != nil {
			return fmt.Errorf("testnet: %s/%s: %w", ns.Name, name, err)
		}
		return nil
	})
}

func (ns *Namespace) linkUp(name string) error {
	return ns.onLink(name, netlink.LinkSetUp)
}

// SetMTU changes the MTU of a link, in bytes of IP packet.
func (ns *Namespace) SetMTU(name string, mtu int) error {
	return ns.onLink(name, func(l netlink.Link) error { return netlink.LinkSetMTU(l, mtu) })
}

// addresses adds addresses with their prefix lengths to a link. They are usable
// at once: nobody waits for duplicate address detection.
func (ns *Namespace) addresses(link string, prefixes ...netip.Prefix) error {
	return ns.onLink(link, func(l netlink.Link) error {
		for _, p := range prefixes {
			addr, err := netlink.ParseAddr(p.String())
			if err != nil {
				return err
			}
			if p.Addr().Is6() {
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(l, addr); err != nil {
				return fmt.Errorf("add %s: %w", p, err)
			}
		}
		return nil
	})
}

// AddAddress gives a link one more address.
func (ns *Namespace) AddAddress(link string, p netip.Prefix) error {
	return ns.addresses(link, p)
}

// AddRoute routes dst through a neighbour.
func (ns *Namespace) AddRoute(dst netip.Prefix, via netip.Addr) error {
	return ns.Do(func() error {
		ipnet := &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())}
		if err := netlink.RouteAdd(&netlink.Route{Dst: ipnet, Gw: via.AsSlice()}); err != nil {
			return fmt.Errorf("testnet: %s: route %s via %s: %w", ns.Name, dst, via, err)
		}
		return nil
	})
}

func (ns *Namespace) defaultRoutes(via, via6 netip.Addr) error {
	return errors.Join(
		ns.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), via),
		ns.AddRoute(netip.PrefixFrom(netip.IPv6Unspecified(), 0), via6),
	)
}

func prefix(a netip.Addr, bits int) netip.Prefix { return netip.PrefixFrom(a, bits) }
