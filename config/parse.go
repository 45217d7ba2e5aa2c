package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

const (
	minMTU4 = 576  // RFC 791 section 3.2: what every IPv4 host takes
	minMTU6 = 1280 // RFC 8200 section 5
	maxMTU  = 65535

	maxName   = 64  // of an instance, in bytes
	maxIfName = 15  // IFNAMSIZ without the final zero
	maxSocket = 107 // sun_path without the final zero
)

// parser makes the second pass: it turns the scalars of raw into the values of
// cfg.
type parser struct {
	*decoder
	raw rawFile
	cfg *Config
	dir string // of the file; paths in it start here

	// peerNames has the names of all peers as they are written, also of those
	// that have errors, so that nothing that names them is called dangling.
	peerNames []string
}

func (p *parser) parse() {
	p.name()
	p.log()
	p.admin()
	p.identity()
	p.listen()
	p.tun()
	p.peers()
	p.rules()
	p.accept()
	p.homa()
	p.translate()
	p.flows()
	p.associations()
}

func (p *parser) name() {
	s := &p.raw.name
	if !s.given() {
		host, err := os.Hostname()
		if err == nil {
			err = checkInstance(host)
		}
		if err != nil {
			p.report(p.raw.node, "name", "is missing, and the host name cannot stand in for it: %v", err)
			return
		}
		p.cfg.Name = host
		return
	}
	v, ok := p.text(s, "a name")
	if !ok {
		return
	}
	if err := checkInstance(v); err != nil {
		p.errorf(&s.at, "%v", err)
		return
	}
	p.cfg.Name = v
}

// checkInstance checks the name of an instance, which becomes part of a file name.
func checkInstance(name string) error {
	for i := range len(name) {
		if !isNameByte(name[i]) {
			return fmt.Errorf("%s has %s: only letters, digits, '-', '_' and '.' can be in it", quote(name), quoteChar(name[i:]))
		}
	}
	if len(name) > maxName {
		return fmt.Errorf("%s has %d characters, more than %d", quote(name), len(name), maxName)
	}
	if name == "" || name[0] == '.' || name[0] == '-' {
		return fmt.Errorf("%s does not start with a letter or digit", quote(name))
	}
	return nil
}

func (p *parser) log() {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	p.cfg.Log.Level = levels[enum(p.decoder, &p.raw.log.level, "info", "debug", "info", "warn", "error")]
	p.cfg.Log.Format = enum(p.decoder, &p.raw.log.format, FormatText, FormatText, FormatJSON)
}

func (p *parser) admin() {
	r := &p.raw.admin
	if v, ok := p.text(&r.socket, "a path"); ok {
		p.cfg.Admin.Socket = p.join(v)
	} else if p.cfg.Name != "" {
		p.cfg.Admin.Socket = "/run/tougw/" + p.cfg.Name + ".sock"
	}
	if n := len(p.cfg.Admin.Socket); n > maxSocket {
		p.errorf(&r.socket.at, "the path has %d bytes; a socket can have %d", n, maxSocket)
	}
	if ap, ok := p.addrPort(&r.http); ok {
		p.cfg.Admin.HTTP = ap
		if !ap.Addr().IsLoopback() {
			p.warnf(&r.http.at, "%s can be reached from other hosts, and has no access control", ap)
		}
	}
}

// join returns a path of the file as one of the working directory.
func (p *parser) join(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(p.dir, path)
}

func (p *parser) path(s *scalar) string {
	v, ok := p.text(s, "a path")
	if !ok {
		return ""
	}
	return p.join(v)
}

func (p *parser) identity() {
	r, id := &p.raw.identity, &p.cfg.Identity
	id.Cert, id.Key, id.CA = p.path(&r.cert), p.path(&r.key), p.path(&r.ca)
	id.PSKDir = p.path(&r.pskDir)
	if r.psk.ok() {
		id.PSK = &PSK{Identity: p.decoder.name(&r.psk.identity), KeyFile: p.path(&r.psk.keyFile)}
		if !r.psk.identity.given() {
			p.missing(&r.psk.at, "identity", "the name that the key proves")
		}
		if !r.psk.keyFile.given() {
			p.missing(&r.psk.at, "key_file", "the file that `tougw keygen psk` wrote")
		}
	}
}

func (p *parser) listen() {
	for i := range p.raw.listen.items {
		s := &p.raw.listen.items[i]
		ap, ok := p.addrPort(s)
		if !ok {
			continue
		}
		if ap.Addr().IsMulticast() {
			p.errorf(&s.at, "%s is a multicast address", quote(ap.Addr().String()))
			continue
		}
		if j := p.covered(ap); j >= 0 {
			p.errorf(&s.at, "%s is there twice; %s covers it", quote(ap.String()), quote(p.cfg.Listen[j].String()))
			continue
		}
		p.cfg.Listen = append(p.cfg.Listen, ap)
	}
}

// covered returns the index of the address of Listen that has ap in it or that
// ap has in it, or -1.
func (p *parser) covered(ap netip.AddrPort) int {
	covers := func(a, b netip.AddrPort) bool {
		return a.Port() == b.Port() && (a == b ||
			a.Addr() == netip.IPv6Unspecified() ||
			a.Addr() == netip.IPv4Unspecified() && b.Addr().Is4())
	}
	for i, l := range p.cfg.Listen {
		if covers(l, ap) || covers(ap, l) {
			return i
		}
	}
	return -1
}

func (p *parser) tun() {
	r := &p.raw.tun
	if !r.ok() {
		return
	}
	t := DefaultTun()
	p.cfg.Tun = t
	if v, ok := p.text(&r.name, "an interface name"); ok {
		if err := checkInterface(v); err != nil {
			p.errorf(&r.name.at, "%v", err)
		}
		t.Name = v
	}
	if !r.addresses.given() {
		p.missing(&r.at, "addresses", `the addresses of the device, such as ["10.77.0.7/32"]`)
	}
	first := make(map[netip.Addr]string)
	for i := range r.addresses.items {
		s := &r.addresses.items[i]
		prefix, ok := p.prefix(s, true)
		if !ok {
			continue
		}
		addr := prefix.Addr()
		if path, dup := first[addr]; dup {
			p.errorf(&s.at, "%s is there twice; it is in %s already", quote(addr.String()), path)
			continue
		}
		if addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() {
			p.errorf(&s.at, "%s cannot be the address of an interface", quote(addr.String()))
			continue
		}
		first[addr] = s.path
		t.Addresses = append(t.Addresses, prefix)
	}
	p.routes(&r.routes, t)
	lo := minMTU4
	if anyIs6(t.Addresses) || anyIs6(t.Routes) {
		lo = minMTU6
	}
	if t.MTU = p.autoInteger(&r.mtu, minMTU4, maxMTU); t.MTU != 0 && t.MTU < lo {
		p.errorf(&r.mtu.at, "%d is less than %d, which the IPv6 addresses and routes of the device need", t.MTU, minMTU6)
	}
	t.Backend = enum(p.decoder, &r.backend, BackendAuto, BackendAuto, BackendNetlink, BackendWater)
	t.Queues = p.autoInteger(&r.queues, 1, 16)
	t.Mark = uint32(p.integer(&r.mark, int(t.Mark), 1, 0xffffffff))
}

// routes reads the routes of the device, among which the word default stands
// for everything of both families.
func (p *parser) routes(l *scalars, t *Tun) {
	first := make(map[netip.Prefix]string)
	for i := range l.items {
		s := &l.items[i]
		if s.ok() && s.node.ShortTag() == "!!str" && s.node.Value == "default" {
			for _, all := range []netip.Prefix{
				netip.PrefixFrom(netip.IPv4Unspecified(), 0),
				netip.PrefixFrom(netip.IPv6Unspecified(), 0),
			} {
				if p.twice(first, all, s) {
					break
				}
				t.Routes = append(t.Routes, all)
			}
			continue
		}
		if s.ok() && s.node.ShortTag() == "!!str" {
			if hint := didYouMean(s.node.Value, []string{"default"}); hint != "" {
				p.errorf(&s.at, "%s is not a prefix such as \"192.0.2.0/24\", nor the word default%s", quote(s.node.Value), hint)
				continue
			}
		}
		prefix, ok := p.prefix(s, false)
		if !ok || p.twice(first, prefix, s) {
			continue
		}
		if a := prefix.Addr(); a.IsMulticast() || a.IsLoopback() {
			p.errorf(&s.at, "%s cannot be captured: it is no unicast traffic to other hosts", quote(prefix.String()))
			continue
		}
		t.Routes = append(t.Routes, prefix)
	}
}

func anyIs6(prefixes []netip.Prefix) bool {
	for _, p := range prefixes {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}

// checkInterface checks the name of an interface as the kernel does, and more
// narrowly: only characters that need no quotes anywhere.
func checkInterface(name string) error {
	for i := range len(name) {
		if !isNameByte(name[i]) {
			return fmt.Errorf("%s has %s: only letters, digits, '-', '_' and '.' can be in it", quote(name), quoteChar(name[i:]))
		}
	}
	if len(name) > maxIfName {
		return fmt.Errorf("%s has %d characters, more than %d", quote(name), len(name), maxIfName)
	}
	if name == "." || name == ".." || name == "lo" || name == "all" || name == "default" {
		return fmt.Errorf("%s means something else to the kernel", quote(name))
	}
	return nil
}

func (p *parser) peers() {
	names := make(map[string]string)
	for i := range p.raw.peers.items {
		r := &p.raw.peers.items[i]
		if !r.ok() {
			continue
		}
		peer := Peer{Name: p.decoder.name(&r.name), ServerName: p.decoder.name(&r.serverName)}
		if r.name.given() {
			p.peerNames = append(p.peerNames, r.name.node.Value)
		} else {
			p.missing(&r.at, "name", "what rules call it")
		}
		if peer.Name != "" {
			if path, dup := names[peer.Name]; dup {
				p.errorf(&r.name.at, "%s is there twice; it is %s already", quote(peer.Name), path)
			} else {
				names[peer.Name] = r.name.path
			}
		}
		peer.Endpoints = p.endpoints(r)
		lo := minMTU4
		for _, e := range peer.Endpoints {
			if e.Addr().Is6() {
				lo = minMTU6
			}
		}
		if peer.PathMTU = p.autoInteger(&r.pathMTU, minMTU4, maxMTU); peer.PathMTU != 0 && peer.PathMTU < lo {
			p.errorf(&r.pathMTU.at, "%d is less than %d, which every IPv6 path carries", peer.PathMTU, minMTU6)
		}
		p.cfg.Peers = append(p.cfg.Peers, peer)
	}
}

func (p *parser) endpoints(r *rawPeer) []netip.AddrPort {
	if !r.endpoints.given() {
		p.missing(&r.at, "endpoints", `where it listens, such as ["203.0.113.7:443"]`)
	}
	var endpoints []netip.AddrPort
	first := make(map[netip.AddrPort]string)
	for i := range r.endpoints.items {
		s := &r.endpoints.items[i]
		ap, ok := p.addrPort(s)
		if !ok {
			continue
		}
		if path, dup := first[ap]; dup {
			p.errorf(&s.at, "%s is there twice; it is %s already", quote(ap.String()), path)
			continue
		}
		if ap.Addr().IsUnspecified() || ap.Addr().IsMulticast() {
			p.errorf(&s.at, "%s cannot be dialled: it is not the address of one host", quote(ap.Addr().String()))
			continue
		}
		first[ap] = s.path
		endpoints = append(endpoints, ap)
	}
	return endpoints
}

func (p *parser) rules() {
	for i := range p.raw.rules.items {
		r := &p.raw.rules.items[i]
		if !r.ok() {
			continue
		}
		rule := Rule{Dst: p.prefixes(&r.dst), Ports: p.ports(&r.ports)}
		rule.Action = enum(p.decoder, &r.action, "", ActionTunnel, ActionDirect, ActionReject)
		if !r.action.given() {
			p.missing(&r.at, "action", "one of tunnel, direct, reject")
		}
		rule.Peer = p.decoder.name(&r.peer)
		switch {
		case rule.Action == ActionTunnel && !r.peer.given():
			p.missing(&r.at, "peer", "the action tunnel needs a peer to send to")
		case rule.Action != "" && rule.Action != ActionTunnel && r.peer.given():
			p.errorf(&r.peer.at, "only the action tunnel sends to a peer, not %s", rule.Action)
		}
		p.cfg.Rules = append(p.cfg.Rules, rule)
	}
}

func (p *parser) accept() {
	for i := range p.raw.accept.items {
		r := &p.raw.accept.items[i]
		if !r.ok() {
			continue
		}
		rule := Accept{Dst: p.prefixes(&r.dst), Ports: p.ports(&r.ports)}
		if v, ok := p.text(&r.peer, "a name or pattern"); ok {
			pattern, err := ParsePattern(v)
			if err != nil {
				p.errorf(&r.peer.at, "%s %v", quote(v), err)
			}
			rule.Peer = pattern
		}
		if !r.peer.given() {
			p.missing(&r.at, "peer", `the identities that it is for; "*" is all`)
		}
		if !r.dst.given() {
			p.missing(&r.at, "dst", `what they may reach, such as ["10.0.0.0/8"]`)
		}
		rule.Action = enum(p.decoder, &r.action, "", ActionTCP, ActionReject, ActionHoma)
		if !r.action.given() {
			p.missing(&r.at, "action", "one of tcp, reject, homa")
		}
		p.cfg.Accept = append(p.cfg.Accept, rule)
	}
}

func (p *parser) flows() {
	r, f := &p.raw.flows, &p.cfg.Flows
	f.ConnectTimeout = p.duration(&r.connectTimeout, f.ConnectTimeout, time.Second, 10*time.Minute)
	f.IdleTimeout = p.durationOrOff(&r.idleTimeout, f.IdleTimeout, 10*time.Second, 720*time.Hour)
	k := &r.keepalive
	f.Keepalive.Idle = p.durationOrOff(&k.idle, f.Keepalive.Idle, time.Second, 9*time.Hour)
	p.wholeSeconds(&k.idle, f.Keepalive.Idle)
	f.Keepalive.Interval = p.duration(&k.interval, f.Keepalive.Interval, time.Second, 9*time.Hour)
	p.wholeSeconds(&k.interval, f.Keepalive.Interval)
	f.Keepalive.Count = p.integer(&k.count, f.Keepalive.Count, 1, 127)
	f.BufferMax = int(p.size(&r.bufferMax, int64(f.BufferMax), 64<<10, 256<<20))
	f.Max = p.integer(&r.max, f.Max, 1, 1<<20)
	f.OpeningMax = p.within(&r.openingMax, f.OpeningMax, f.Max, &r.max, "flows.max")
	f.OpeningPerSource = p.within(&r.openingPerSource, f.OpeningPerSource, f.OpeningMax, &r.openingMax, "flows.opening_max")
}

func (p *parser) associations() {
	r, a := &p.raw.associations, &p.cfg.Associations
	a.Keepalive = p.duration(&r.keepalive, a.Keepalive, time.Second, 10*time.Minute)
	a.DeadAfter = p.duration(&r.deadAfter, a.DeadAfter, time.Second, 10*time.Minute)
	a.HandshakeTimeout = p.duration(&r.handshakeTimeout, a.HandshakeTimeout, time.Second, 2*time.Minute)
	a.HalfOpenMax = p.integer(&r.halfOpenMax, a.HalfOpenMax, 1, 65536)
	a.HalfOpenPerSource = p.within(&r.halfOpenPerSource, a.HalfOpenPerSource, a.HalfOpenMax, &r.halfOpenMax, "associations.half_open_max")
	a.SessionGrace = p.duration(&r.sessionGrace, a.SessionGrace, 0, 24*time.Hour)
	a.RekeyAfter = p.duration(&r.rekeyAfter, a.RekeyAfter, 10*time.Second, 24*time.Hour)
	a.RekeyBytes = p.size(&r.rekeyBytes, a.RekeyBytes, 1<<20, 128<<30)
	a.Offload = enum(p.decoder, &r.offload, OffloadAuto, OffloadAuto, OffloadOff)
}

// within reads a number that is at least 1 and at most limit, the value of
// another key. Its default is lowered to limit.
func (p *parser) within(s *scalar, def, limit int, of *scalar, ofPath string) int {
	n := p.integer(s, min(def, limit), 1, 1<<20)
	// A limit that is itself wrong says nothing about s.
	if s.ok() && n > limit && (!of.given() || of.ok()) {
		p.errorf(&s.at, "%d is more than %s, which is %d", n, ofPath, limit)
	}
	return n
}
