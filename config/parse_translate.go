package config

import (
	"net/netip"
	"time"

	"github.com/tougw/tougw/framing"
)

func (p *parser) translate() {
	names := make(map[string]string)
	for i := range p.raw.translate.items {
		r := &p.raw.translate.items[i]
		if !r.ok() {
			continue
		}
		t := Translate{Name: p.decoder.name(&r.name)}
		if !r.name.given() {
			p.missing(&r.at, "name", "what status and logs call it")
		}
		if t.Name != "" {
			if path, dup := names[t.Name]; dup {
				p.errorf(&r.name.at, "%s is there twice; it is %s already", quote(t.Name), path)
			} else {
				names[t.Name] = r.name.path
			}
		}
		p.translateEnds(r, &t)
		if r.framing.given() {
			t.Framing = p.framing(&r.framing)
		} else {
			p.missing(&r.at, "framing", "where a message of the TCP side ends")
		}
		p.translateNumbers(r, &t)
		p.cfg.Translate = append(p.cfg.Translate, t)
	}
}

// translateEnds reads both sides of a rule.
func (p *parser) translateEnds(r *rawTranslate, t *Translate) {
	if r.from.given() {
		t.From = p.translateFrom(&r.from)
	} else {
		p.missing(&r.at, "from", "where clients arrive")
	}
	if r.to.given() {
		t.To = p.translateTo(&r.to)
	} else {
		p.missing(&r.at, "to", "the service that they reach")
	}
	if t.From.Kind == "" || t.To.Kind == "" {
		return
	}
	if fromHoma, toHoma := t.From.Kind == TranslateHoma, t.To.Kind == TranslateHoma; fromHoma == toHoma {
		p.report(r.node, r.path, "one side is TCP and the other Homa, but both are %s", map[bool]string{true: "Homa", false: "TCP"}[toHoma])
	}
}

func (p *parser) translateFrom(r *rawFrom) TranslateFrom {
	if !r.ok() {
		return TranslateFrom{}
	}
	given := 0
	var from TranslateFrom
	if r.tcp.given() {
		given++
		from = TranslateFrom{TranslateTCP, p.bareAddrPort(&r.tcp)}
		if from.Addr.Addr().IsMulticast() {
			p.errorf(&r.tcp.at, "%s is a multicast address", quote(from.Addr.Addr().String()))
		}
	}
	if r.tunnel.given() {
		given++
		from = TranslateFrom{TranslateTunnel, p.tunnelDst(&r.tunnel)}
	}
	if r.homa.given() {
		given++
		from = TranslateFrom{TranslateHoma, p.homaPort(&r.homa)}
	}
	if given != 1 {
		p.errorf(&r.at, "wants exactly one of tcp, tunnel and homa")
		return TranslateFrom{}
	}
	return from
}

// tunnelDst reads the destination of the flows that are translated.
func (p *parser) tunnelDst(r *rawTunnel) netip.AddrPort {
	if !r.ok() {
		return netip.AddrPort{}
	}
	addr, _ := p.address(&r.dst)
	if !r.dst.given() {
		p.missing(&r.at, "dst", "the address that the flows are for")
	}
	if !r.port.given() {
		p.missing(&r.at, "port", "the port that the flows are for")
	}
	return netip.AddrPortFrom(addr, uint16(p.integer(&r.port, 0, 1, 65535)))
}

// homaPort reads a port that is served, as in ":4100". The addresses are those
// of the homa part.
func (p *parser) homaPort(s *scalar) netip.AddrPort {
	ap := p.bareAddrPort(s)
	switch {
	case !s.ok():
	case ap.Addr().IsValid():
		p.errorf(&s.at, "%s has an address; ports of Homa are served at all of homa.addresses: write \":%d\"", quote(ap.String()), ap.Port())
	case ap.Port() >= 0x8000:
		p.warnf(&s.at, "%d is a port that Linux hosts cannot call: servers have 1 to 32767 there", ap.Port())
	}
	return ap
}

func (p *parser) translateTo(r *rawTo) TranslateTo {
	if !r.ok() {
		return TranslateTo{}
	}
	if r.tcp.given() == r.homa.given() {
		p.errorf(&r.at, "wants exactly one of tcp and homa")
		return TranslateTo{}
	}
	if r.tcp.given() {
		if r.via.given() {
			p.errorf(&r.via.at, "only a Homa server is behind a peer; TCP servers are reached by rules and accept")
		}
		return TranslateTo{Kind: TranslateTCP, Addrs: p.servers(r.tcp.items)}
	}
	to := TranslateTo{Kind: TranslateHoma, Via: p.decoder.name(&r.via)}
	to.Addrs = p.servers([]scalar{r.homa})
	p.checkRulePeer(&r.via)
	return to
}

// servers reads the addresses of servers.
func (p *parser) servers(items []scalar) []netip.AddrPort {
	var servers []netip.AddrPort
	first := make(map[netip.AddrPort]string)
	for i := range items {
		s := &items[i]
		ap, ok := p.addrPort(s)
		if !ok {
			continue
		}
		if path, dup := first[ap]; dup {
			p.errorf(&s.at, "%s is there twice; it is %s already", quote(ap.String()), path)
			continue
		}
		if ap.Addr().IsUnspecified() || ap.Addr().IsMulticast() {
			p.errorf(&s.at, "%s cannot be connected to: it is not the address of one host", quote(ap.Addr().String()))
			continue
		}
		first[ap] = s.path
		servers = append(servers, ap)
	}
	return servers
}

// bareAddrPort reads an address and port, or a port alone as in ":4100".
func (p *parser) bareAddrPort(s *scalar) netip.AddrPort {
	v, ok := p.text(s, `an address and port such as "0.0.0.0:7000"`)
	if !ok {
		return netip.AddrPort{}
	}
	ap, msg := parseAddrPort(v, true)
	if msg != "" {
		p.errorf(&s.at, "%s %s", quote(v), msg)
	}
	return ap
}

// translateNumbers reads the bounds and times of a rule.
func (p *parser) translateNumbers(r *rawTranslate, t *Translate) {
	def := DefaultTranslate(t.To.Kind, t.Framing.Type == framing.TypeStream)
	l, raw := &t.Limits, &r.limits
	*l = def.Limits
	l.Connections = p.integer(&raw.connections, l.Connections, 1, 1<<20)
	l.Outstanding = p.integer(&raw.outstanding, l.Outstanding, 1, 65536)
	l.OutstandingAll = p.integer(&raw.outstandingAll, l.OutstandingAll, 1, 1<<20)
	l.Buffer = p.size(&raw.buffer, l.Buffer, 64<<10, 64<<30)
	l.ServerConnections = p.integer(&raw.serverConnections, l.ServerConnections, 1, 65536)
	l.Pipeline = p.integer(&raw.pipeline, l.Pipeline, 1, 65536)
	if raw.buffer.ok() && l.Buffer < t.Framing.Max {
		p.errorf(&raw.buffer.at, "%s is less than one message, which may have %d bytes", raw.buffer.node.Value, t.Framing.Max)
	}
	o, times := &t.Timeouts, &r.timeouts
	*o = def.Timeouts
	o.Connect = p.duration(&times.connect, o.Connect, time.Millisecond, 2*time.Minute)
	o.Request = p.durationOrOff(&times.request, o.Request, time.Millisecond, 24*time.Hour)
	o.Idle = p.durationOrOff(&times.idle, o.Idle, time.Second, 720*time.Hour)
	o.Write = p.durationOrOff(&times.write, o.Write, time.Second, 24*time.Hour)
	o.Outage = p.duration(&times.outage, o.Outage, time.Second, 24*time.Hour)
	if times.outage.ok() && t.Framing.Type != "" && t.Framing.Type != framing.TypeStream {
		p.errorf(&times.outage.at, "is about connections that go on, which only stream framing has: a request is not repeated")
	}
	t.Retry = p.boolean(&r.retry, false)
	if t.Retry && t.Framing.Type == framing.TypeStream {
		p.errorf(&r.retry.at, "is about requests, and a stream has none")
	}
	t.AnswerFailures = enum(p.decoder, &r.failures, "abort", "abort", "answer") == "answer"
	if typ := t.Framing.Type; t.AnswerFailures && typ != "" && !framing.Words(typ) {
		p.warnf(&r.failures.at, "answer has no effect: %s has no words for a failure, so that the RPC is aborted all the same", typ)
	}
	t.AccessLog = p.boolean(&r.accessLog, false)
	proxy := &r.proxyProtocol
	t.ProxyIn, t.ProxyOut = p.boolean(&proxy.in, false), p.boolean(&proxy.out, false)

	clients := []*scalar{&raw.connections, &raw.outstanding, &times.write, &proxy.in}
	servers := []*scalar{&raw.serverConnections, &raw.pipeline, &times.connect, &proxy.out, &r.failures}
	if t.From.Kind == TranslateHoma {
		p.oneSided(clients, "is about TCP clients, and those of this rule speak Homa")
	}
	if t.To.Kind == TranslateHoma {
		p.oneSided(servers, "is about TCP servers, and that of this rule speaks Homa")
	}
}

// oneSided reports keys that are about a side that the rule does not have.
func (p *parser) oneSided(keys []*scalar, why string) {
	for _, s := range keys {
		if s.ok() {
			p.errorf(&s.at, "%s", why)
		}
	}
}
