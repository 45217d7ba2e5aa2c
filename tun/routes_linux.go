package tun

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// families checks the addresses and routes of c against the families that the
// host has, and gives the routes without a default route of one that it has
// not.
func (s *host) families(c Config) ([]netip.Prefix, error) {
	v6 := hasIPv6()
	for _, p := range c.Addresses {
		if p.Addr().Is6() && !v6 {
			return nil, fmt.Errorf("tun: address %v: this host has no IPv6", p)
		}
	}
	var out []netip.Prefix
	for _, p := range c.Routes {
		switch {
		case p.Addr().Is4(), v6 && (c.MTU == 0 || c.MTU >= minMTUIPv6):
			out = append(out, p)
		case v6:
			return nil, fmt.Errorf("tun: route %v needs an MTU of %d or more, not %d", p, minMTUIPv6, c.MTU)
		case p.Bits() > 0:
			return nil, fmt.Errorf("tun: route %v: this host has no IPv6", p)
		default:
			s.log.Info("this host has no IPv6; its default route is left out")
		}
	}
	return out, nil
}

// hasIPv6 reports whether IPv6 is there and not turned off as a whole.
func hasIPv6() bool {
	off, err := readSysctl("ipv6/conf/all/disable_ipv6")
	return err == nil && off == "0"
}

// rules lists the policy rules of both families that are in force.
func (s *host) rules() ([]rule, error) {
	for range 10 {
		list, err := s.h.RuleList(netlink.FAMILY_ALL)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue // somebody changed them meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("tun: list policy rules: %w", err)
		}
		out := make([]rule, len(list))
		for i, r := range list {
			out[i] = rule{Priority: r.Priority, Table: r.Table}
		}
		return out, nil
	}
	return nil, errors.New("tun: list policy rules: they change all the time")
}

func (s *host) delRule(r rule) error {
	err := s.h.RuleDel(netlinkRule(r))
	if err != nil && !errors.Is(err, unix.ENOENT) && !noFamily(err) {
		return fmt.Errorf("tun: remove rule %d: %w", r.Priority, err)
	}
	return nil
}

func (s *host) delRoute(r route) error {
	err := s.h.RouteDel(netlinkRoute(r))
	if err != nil && !errors.Is(err, unix.ESRCH) && !noFamily(err) {
		return fmt.Errorf("tun: remove route %v of table %d: %w", r.Dst, r.Table, err)
	}
	return nil
}

func netlinkRule(r rule) *netlink.Rule {
	out := netlink.NewRule()
	out.Family = netlink.FAMILY_V4
	if r.IPv6 {
		out.Family = netlink.FAMILY_V6
	}
	out.Priority = r.Priority
	out.Table = r.Table
	// Trap of the library: it leaves the suppression out, without an error, for
	// tables from 256 on. Ours is on the main table only.
	out.SuppressPrefixlen = r.Suppress
	out.Mark, out.Invert = r.NotMark, r.NotMark != 0
	out.Protocol = protocol
	return out
}

func netlinkRoute(r route) *netlink.Route {
	// What goes to the device is ended on this host: there is nothing to pace
	// or to probe for. Reno sends as much as the window allows; BBR, where it is
	// the host's default, makes a third of the throughput, and a send buffer of
	// more than a mebibyte for a reader that never reads.
	out := &netlink.Route{Dst: ipNet(r.Dst), Table: r.Table, Protocol: protocol, Congctl: "reno"}
	if r.Dst.Addr().Is4() {
		out.Scope = netlink.SCOPE_LINK
	}
	return out
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// checkLoop is Device.CheckLoop.
func (s *host) checkLoop(c Config, endpoints []netip.Addr) error {
	for _, a := range endpoints {
		a = a.Unmap()
		for _, own := range c.Addresses {
			if own.Addr() == a.WithZone("") {
				return &LoopError{Device: c.Name, Endpoint: a, Route: "its own address " + own.String()}
			}
		}
		r, err := s.lookup(a, c.Mark, false)
		if err != nil {
			return err
		}
		if r == nil || r.LinkIndex != s.index {
			continue
		}
		return &LoopError{Device: c.Name, Endpoint: a, Route: s.describe(a, c.Mark)}
	}
	return nil
}

// lookup asks the kernel how packets with the mark reach a; nil when there is
// no route. With match the answer is the entry of the routing table.
func (s *host) lookup(a netip.Addr, mark uint32, match bool) (*netlink.Route, error) {
	opts := &netlink.RouteGetOptions{Mark: mark, FIBMatch: match}
	if a.Zone() != "" {
		i, err := s.h.LinkByName(a.Zone())
		if err != nil {
			return nil, fmt.Errorf("tun: route to %v: %w", a, err)
		}
		opts.OifIndex = i.Attrs().Index
	}
	rs, err := s.h.RouteGetWithOptions(a.Unmap().AsSlice(), opts)
	switch {
	case err == nil && len(rs) > 0:
		return &rs[0], nil
	case err == nil, noRoute(err):
		return nil, nil
	}
	return nil, fmt.Errorf("tun: route to %v: %w", a, err)
}

// noRoute reports whether err is what the kernel answers when a lookup ends
// nowhere, in a route of type unreachable, prohibit or blackhole, or in a
// family that it does not have.
func noRoute(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) ||
		errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL) || noFamily(err)
}

// noFamily reports whether err says that the kernel does not have the address
// family.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// describe names the routing table's entry that leads to a.
func (s *host) describe(a netip.Addr, mark uint32) string {
	r, err := s.lookup(a, mark, true)
	if err != nil || r == nil {
		return "a route"
	}
	dst := "default"
	if r.Dst != nil {
		dst = r.Dst.String()
	}
	table := "main"
	if r.Table != tableMain {
		table = fmt.Sprint(r.Table)
	}
	return fmt.Sprintf("route %s of table %s", dst, table)
}
