package config

import (
	"net/netip"
	"time"
)

func (p *parser) homa() {
	r, h := &p.raw.homa, &p.cfg.Homa
	h.Addresses = p.addresses(&r.addresses)
	if v, ok := p.text(&r.device, "an interface name"); ok {
		if err := checkInterface(v); err != nil {
			p.errorf(&r.device.at, "%v", err)
		}
		h.Device = v
	}
	h.Version = p.homaVersion(&r.version, h.Version)
	p.homaPeers(&r.peers)
	h.Unscheduled = p.autoInteger(&r.unscheduled, 1, maxHomaMessage)
	h.ClientPort = uint16(p.integer(&r.clientPort, int(h.ClientPort), 1, 65535))
	h.LinkRate = p.bitRate(&r.linkRate, h.LinkRate, 1e6, 10e12)
	if v, ok := p.priorities(&r.dscp, 63); ok {
		for i := range v {
			h.DSCP[i] = uint8(v[i])
		}
	}
	h.LinkPriority, _ = p.priorities(&r.linkPriority, 0xffffffff)
	h.Resend = p.duration(&r.resend, h.Resend, time.Millisecond, 10*time.Second)
	h.Timeout = p.duration(&r.timeout, h.Timeout, 10*time.Millisecond, 10*time.Minute)
	for _, t := range []struct {
		s *scalar
		d time.Duration
	}{{&r.resend, h.Resend}, {&r.timeout, h.Timeout}} {
		if t.s.ok() && t.d%time.Millisecond != 0 {
			p.errorf(&t.s.at, "%s is not in whole milliseconds", t.s.node.Value)
		}
	}
	if a := firstOK(&r.timeout, &r.resend); a != nil && h.Timeout < 2*h.Resend {
		p.errorf(&a.at, "a time-out of %s leaves no room to ask again after %s: it is at least twice homa.resend", short(h.Timeout), short(h.Resend))
	}
	h.Incoming = int(p.size(&r.incoming, int64(h.Incoming), 16<<10, 64<<20))
	h.Window = int(p.size(&r.window, int64(h.Window), 16<<10, 1<<20))
	h.ReceiveMemory = p.size(&r.receiveMemory, h.ReceiveMemory, 4<<20, 64<<30)
	h.SendMemory = p.size(&r.sendMemory, h.SendMemory, 4<<20, 64<<30)
}

// firstOK returns the first of the scalars that is given and right, or nil.
func firstOK(all ...*scalar) *scalar {
	for _, s := range all {
		if s.ok() {
			return s
		}
	}
	return nil
}

// homaVersion returns the name of a form of the protocol, which may look like a
// number.
func (p *parser) homaVersion(s *scalar, def string) string {
	if s.ok() && s.node.ShortTag() == "!!float" {
		// 6.1 and 6.10 are two numbers only as texts.
		n := *s.node
		n.Tag = "!!str"
		s.node = &n
	}
	return enum(p.decoder, s, def, HomaVersions...)
}

func (p *parser) homaPeers(l *objects[rawHomaPeer, *rawHomaPeer]) {
	first := make(map[netip.Addr]string)
	for i := range l.items {
		r := &l.items[i]
		if !r.ok() {
			continue
		}
		peer := HomaPeer{Version: p.homaVersion(&r.version, p.cfg.Homa.Version)}
		if a, ok := p.address(&r.address); ok {
			if path, dup := first[a]; dup {
				p.errorf(&r.address.at, "%s is there twice; it is %s already", quote(a.String()), path)
			} else {
				first[a] = r.address.path
			}
			peer.Addr = a
		}
		if !r.address.given() {
			p.missing(&r.at, "address", "the IP address of the host")
		}
		if (peer.Version == homaOther) != (p.cfg.Homa.Version == homaOther) && r.version.ok() {
			p.errorf(&r.version.at, "%s and homa.version %s are different IP protocols; one instance speaks one of them", peer.Version, p.cfg.Homa.Version)
		}
		peer.Unscheduled = p.autoInteger(&r.unscheduled, 1, maxHomaMessage)
		p.cfg.Homa.Peers = append(p.cfg.Homa.Peers, peer)
	}
}

// address returns the IP address of one host.
func (d *decoder) address(s *scalar) (netip.Addr, bool) {
	v, ok := d.text(s, "an IP address")
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(v)
	switch {
	case err != nil || a.Zone() != "":
		d.errorf(&s.at, "%s is not an IP address", quote(v))
	case a.Is4In6():
		d.errorf(&s.at, "%s is an IPv4 address in IPv6 form; write \"%s\"", quote(v), a.Unmap())
	case a.IsUnspecified() || a.IsMulticast():
		d.errorf(&s.at, "%s is not the address of one host", quote(v))
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// addresses returns the addresses of a list, none of which is there twice.
func (d *decoder) addresses(l *scalars) []netip.Addr {
	var addrs []netip.Addr
	first := make(map[netip.Addr]string)
	for i := range l.items {
		s := &l.items[i]
		a, ok := d.address(s)
		if !ok {
			continue
		}
		if path, dup := first[a]; dup {
			d.errorf(&s.at, "%s is there twice; it is %s already", quote(a.String()), path)
			continue
		}
		first[a] = s.path
		addrs = append(addrs, a)
	}
	return addrs
}

// priorities returns a list of one number for each of Homa's 8 priorities.
func (d *decoder) priorities(l *scalars, most int) ([]uint32, bool) {
	if !l.ok() {
		return nil, false
	}
	if len(l.items) != 8 {
		d.errorf(&l.at, "has %d numbers, not 8: one for each priority, the lowest first", len(l.items))
		return nil, false
	}
	numbers := make([]uint32, 8)
	for i := range l.items {
		numbers[i] = uint32(d.integer(&l.items[i], 0, 0, most))
	}
	return numbers, true
}
