package config

import (
	"net/netip"
	"slices"
)

// check makes the part of the third pass that looks at combinations: values
// that are right alone, and impossible together.
func (p *parser) check() {
	p.checkUse()
	p.checkIdentity()
	p.checkTun()
	p.checkPeers()
	p.checkRules()
	p.checkAccept()
	p.checkTranslate()
	p.checkHoma()
}

// checkUse asks for at least one of the parts that do something.
func (p *parser) checkUse() {
	r := &p.raw
	if !r.listen.given() && !r.tun.given() && !r.peers.given() && !r.translate.given() {
		p.report(r.node, "listen", "is missing: a gateway needs listen; a client needs tun and peers; a translator needs translate")
	}
}

func (p *parser) checkIdentity() {
	r := &p.raw.identity
	listen, peers := p.raw.listen.given(), p.raw.peers.given()
	switch {
	case !r.given() && !listen && !peers && p.raw.translate.given():
		return // nobody is to be convinced
	case !r.given():
		p.missing(&p.raw.at, "identity", "who we are: cert, key and ca, or psk, or psk_dir")
		return
	case !r.ok():
		return
	}
	cert := r.cert.given() || r.key.given() || r.ca.given()
	if cert {
		for _, k := range []struct {
			s        *scalar
			key, why string
		}{
			{&r.cert, "cert", "it is one of three that go together: cert, key and ca"},
			{&r.key, "key", "it is one of three that go together: cert, key and ca"},
			{&r.ca, "ca", "it is one of three that go together: cert, key and ca"},
		} {
			if !k.s.given() {
				p.missing(&r.at, k.key, k.why)
			}
		}
	}
	psk, dir := r.psk.given(), r.pskDir.given()
	switch {
	case !cert && !psk && !dir:
		p.errorf(&r.at, "has none of cert with key and ca, psk, or psk_dir")
		return
	case cert && psk:
		p.errorf(&r.psk.at, "cannot be there beside cert: a peer that we dial gets one proof")
	}
	if dir && !listen {
		p.errorf(&r.pskDir.at, "has the keys of those who dial us, but there is no listen")
	}
	if psk && !peers {
		p.errorf(&r.psk.at, "is for dialling, but there are no peers; a gateway has psk_dir")
	}
	if listen && !cert && !dir {
		p.missing(&r.at, "cert", "those who dial us are proven by cert with key and ca, or by psk_dir")
	}
	if peers && !cert && !psk {
		p.missing(&r.at, "cert", "to dial peers we need cert with key and ca, or psk")
	}
}

func (p *parser) checkTun() {
	r := &p.raw.tun
	if !r.ok() {
		return
	}
	if !p.raw.peers.given() && !p.raw.listen.given() && !p.translatesFlows() {
		p.errorf(&r.at, "captures traffic, but there are neither peers nor listen to tunnel it to")
	}
	if !p.raw.rules.given() {
		p.missing(&p.raw.at, "rules", "with tun, rules say what happens to captured flows, such as {action: tunnel, peer: NAME}")
	}
}

func (p *parser) checkPeers() {
	for i := range p.raw.peers.items {
		r := &p.raw.peers.items[i]
		if r.ok() && !r.serverName.given() && !p.raw.identity.psk.given() {
			p.missing(&r.at, "server_name", "the DNS name that its certificate must have")
		}
	}
	if p.raw.peers.ok() && !p.raw.tun.given() && !p.raw.accept.given() && !p.raw.translate.given() {
		p.warnf(&p.raw.peers.at, "are dialled for nothing: there is neither tun nor accept")
	}
}

func (p *parser) checkRules() {
	l := &p.raw.rules
	if l.ok() && !p.raw.tun.given() {
		p.errorf(&l.at, "are for captured flows, but there is no tun")
	}
	catchAll := "" // the first rule that leaves nothing to those after it
	for i := range l.items {
		r := &l.items[i]
		if !r.ok() {
			continue
		}
		if catchAll != "" {
			p.warnf(&r.at, "is never reached: %s is for all flows", catchAll)
		} else if !r.dst.given() && !r.ports.given() {
			catchAll = r.path
		}
		p.checkRulePeer(&r.peer)
	}
}

// checkRulePeer looks for a peer by the name that a rule sends to. On an
// instance that listens the name may also be the proven identity of a peer that
// dials us, which is known only then.
func (p *parser) checkRulePeer(s *scalar) {
	if !s.ok() || slices.Contains(p.peerNames, s.node.Value) {
		return
	}
	name := s.node.Value
	hint := didYouMean(name, p.peerNames)
	switch {
	case !p.raw.listen.given():
		p.errorf(&s.at, "no peer is called %s%s", quote(name), hint)
	case hint != "":
		p.warnf(&s.at, "no peer is called %s, so it stands for a peer that dials us%s", quote(name), hint)
	}
}

func (p *parser) checkAccept() {
	l := &p.raw.accept
	if l.ok() && !p.raw.listen.given() && !p.raw.peers.given() {
		p.errorf(&l.at, "is for the flows of peers, but there are neither listen nor peers")
	}
	for i := range l.items {
		if r := &l.items[i]; r.action.ok() && r.action.node.Value == string(ActionTCP) {
			p.warnClosed(&r.dst)
		}
	}
	if p.raw.listen.ok() && !l.given() && !p.raw.tun.given() && !p.raw.translate.given() {
		p.warnf(&p.raw.listen.at, "lets peers in, but without accept every flow of theirs is refused")
	}
}

// warnClosed warns of prefixes of an accept rule that open nothing: addresses
// that are closed unless opened are reached only by a rule that lists the
// address itself.
func (p *parser) warnClosed(l *scalars) {
	for i := range l.items {
		s := &l.items[i]
		if !s.ok() {
			continue
		}
		prefix, err := netip.ParsePrefix(s.node.Value)
		if err != nil || prefix.IsSingleIP() {
			continue
		}
		a, z := prefix.Addr(), lastAddr(prefix)
		if a.IsLoopback() && z.IsLoopback() || a.IsLinkLocalUnicast() && z.IsLinkLocalUnicast() {
			p.warnf(&s.at, "%s opens nothing: loopback and link-local addresses are reached only by a rule that lists the one address", prefix)
		}
	}
}

// lastAddr returns the last address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
