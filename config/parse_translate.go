package config

import "net/netip"

// noHoma reports a part of the file that needs a translation to Homa, which
// this version cannot do. It is the only place that says so.
func (p *parser) noHoma(a *at) {
	p.errorf(a, "this version does not translate to Homa yet")
}

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
		if fromHoma, toHoma := t.From.Kind == TranslateHoma, t.To.Kind == TranslateHoma; t.From.Kind != "" && t.To.Kind != "" && fromHoma == toHoma {
			p.report(r.node, r.path, "one side is TCP and the other Homa, but both are %s", map[bool]string{true: "Homa", false: "TCP"}[toHoma])
		}
		if r.framing.given() {
			t.Framing = p.framing(&r.framing)
		} else {
			p.missing(&r.at, "framing", "where a message of the TCP side ends")
		}
		p.cfg.Translate = append(p.cfg.Translate, t)
	}
	if p.raw.translate.ok() {
		p.noHoma(&p.raw.translate.at)
	}
}

func (p *parser) translateFrom(r *rawFrom) TranslateEnd {
	if !r.ok() {
		return TranslateEnd{}
	}
	given := 0
	var end TranslateEnd
	if r.tcp.given() {
		given++
		end = TranslateEnd{Kind: TranslateTCP, Addr: p.bareAddrPort(&r.tcp)}
	}
	if r.homa.given() {
		given++
		end = TranslateEnd{Kind: TranslateHoma, Addr: p.bareAddrPort(&r.homa)}
	}
	if r.tunnel.given() {
		given++
		end = TranslateEnd{Kind: TranslateTunnel, Addr: p.tunnelDst(&r.tunnel)}
	}
	if given != 1 {
		p.errorf(&r.at, "wants exactly one of tcp, homa and tunnel")
	}
	return end
}

// tunnelDst reads the destination of the flows of peers that are translated.
func (p *parser) tunnelDst(r *rawTunnel) netip.AddrPort {
	if !r.ok() {
		return netip.AddrPort{}
	}
	var addr netip.Addr
	if v, ok := p.text(&r.dst, "an IP address"); ok {
		a, err := netip.ParseAddr(v)
		if err != nil || a.Zone() != "" {
			p.errorf(&r.dst.at, "%s is not an IP address", quote(v))
		} else {
			addr = a.Unmap()
		}
	}
	if !r.dst.given() {
		p.missing(&r.at, "dst", "the address that the flows are for")
	}
	if !r.port.given() {
		p.missing(&r.at, "port", "the port that the flows are for")
	}
	return netip.AddrPortFrom(addr, uint16(p.integer(&r.port, 0, 1, 65535)))
}

func (p *parser) translateTo(r *rawTo) TranslateEnd {
	if !r.ok() {
		return TranslateEnd{}
	}
	var end TranslateEnd
	if r.tcp.given() == r.homa.given() {
		p.errorf(&r.at, "wants exactly one of tcp and homa")
		return end
	}
	if r.tcp.given() {
		end.Kind = TranslateTCP
		end.Addr, _ = p.addrPort(&r.tcp)
	} else {
		end.Kind = TranslateHoma
		end.Addr, _ = p.addrPort(&r.homa)
	}
	end.Via = p.decoder.name(&r.via)
	return end
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

func (p *parser) framing(r *rawFraming) Framing {
	if !r.ok() {
		return Framing{}
	}
	var f Framing
	f.Type = enum(p.decoder, &r.typ, "", FramingLengthPrefixed, FramingRESP)
	switch {
	case !r.typ.given():
		p.missing(&r.at, "type", "one of length-prefixed, resp")
	case f.Type == FramingLengthPrefixed:
		if !r.bytes.given() {
			p.missing(&r.at, "bytes", "the size of the length: 1, 2, 4 or 8")
		}
		f.Bytes = p.integer(&r.bytes, 4, 1, 8)
		if r.bytes.ok() && f.Bytes&(f.Bytes-1) != 0 {
			p.errorf(&r.bytes.at, "%d is not one of 1, 2, 4, 8", f.Bytes)
		}
		f.BigEndian = enum(p.decoder, &r.order, "big", "big", "little") == "big"
	case f.Type == FramingRESP:
		for _, s := range []*scalar{&r.bytes, &r.order} {
			if s.given() {
				p.errorf(&s.at, "only length-prefixed messages have it")
			}
		}
	}
	return f
}
