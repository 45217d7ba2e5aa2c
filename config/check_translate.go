package config

import (
	"net/netip"
	"slices"

	"github.com/tougw/tougw/framing"
)

// checkTranslate looks for rules that get in each other's way, or that nothing
// can reach. What has errors of its own is left out.
func (p *parser) checkTranslate() {
	type place struct {
		from TranslateFrom
		at   *at
		raw  *rawTranslate
		rule *Translate
	}
	var rules []place
	rule := 0 // rules that are no objects have no Translate
	for i := range p.raw.translate.items {
		r := &p.raw.translate.items[i]
		if !r.ok() {
			continue
		}
		t := &p.cfg.Translate[rule]
		rule++
		a := map[TranslateKind]*at{TranslateTCP: &r.from.tcp.at, TranslateTunnel: &r.from.tunnel.at, TranslateHoma: &r.from.homa.at}[t.From.Kind]
		if a == nil || !a.ok() || t.From.Addr.Port() == 0 {
			continue
		}
		for _, o := range rules {
			if o.from.clashes(t.From) {
				p.errorf(a, "is taken: %s has it already", o.at.path)
				break
			}
		}
		if h := p.cfg.Admin.HTTP; t.From.Kind == TranslateTCP && h.IsValid() && t.From.clashes(TranslateFrom{TranslateTCP, h}) {
			p.errorf(a, "is taken: admin.http has it already")
		}
		if t.From.Kind == TranslateTunnel && t.From.Addr.IsValid() && !p.raw.tun.given() && !p.raw.accept.given() {
			p.errorf(a, "is for flows, but none come: there is neither accept, for those of peers, nor tun, for captured ones")
		}
		rules = append(rules, place{t.From, a, r, t})
	}
	// A stream is cut into messages that only another stream understands.
	for _, c := range rules {
		for _, s := range rules {
			if !p.reaches(c.rule, s.rule) {
				continue
			}
			if one, other := c.rule.Framing.Type, s.rule.Framing.Type; one != "" && other != "" &&
				(one == framing.TypeStream) != (other == framing.TypeStream) {
				p.errorf(&c.raw.framing.typ.at, "is %s at this end and %s at the other, %s: stream is for both ends or for none", one, other, s.raw.path)
			}
		}
	}
}

// clashes reports whether two rules would take the same clients.
func (f TranslateFrom) clashes(g TranslateFrom) bool {
	if f.Kind != g.Kind || f.Addr.Port() != g.Addr.Port() {
		return false
	}
	if f.Kind != TranslateTCP {
		return f.Addr == g.Addr
	}
	// Without an address, and with [::], it is every address of both families.
	all := func(a netip.Addr) bool { return !a.IsValid() || a == netip.IPv6Unspecified() }
	a, b := f.Addr.Addr(), g.Addr.Addr()
	return a == b || all(a) || all(b) ||
		a == netip.IPv4Unspecified() && b.Is4() || b == netip.IPv4Unspecified() && a.Is4()
}

// reaches reports whether the server of c is s, as far as the file tells.
func (p *parser) reaches(c, s *Translate) bool {
	if c.To.Kind != TranslateHoma || c.To.Via != "" || s.From.Kind != TranslateHoma {
		return false
	}
	return slices.ContainsFunc(c.To.Addrs, func(a netip.AddrPort) bool {
		return a.Port() == s.From.Addr.Port() && (a.Addr().IsLoopback() || slices.Contains(p.cfg.Homa.Addresses, a.Addr()))
	})
}

// translatesFlows reports whether a rule is for flows.
func (p *parser) translatesFlows() bool {
	return slices.ContainsFunc(p.cfg.Translate, func(t Translate) bool { return t.From.Kind == TranslateTunnel })
}

// checkHoma warns of what has no effect.
func (p *parser) checkHoma() {
	if r := &p.raw.homa; r.ok() && !p.cfg.UsesHoma() {
		p.warnf(&r.at, "has no effect: no translate rule sends or serves Homa here, and no accept rule opens it to peers")
	}
}
