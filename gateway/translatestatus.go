package gateway

import (
	"fmt"
	"strings"

	"github.com/tougw/tougw/config"
	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/rawip"
	"github.com/tougw/tougw/internal/admin"
)

// homaStatus is what status tells of the Homa node; nil without one.
func (g *Gateway) homaStatus() *admin.Homa {
	if g.homa == nil {
		return nil
	}
	s := g.homa.Stats()
	h := &admin.Homa{
		Calls: s.ClientOutgoing + s.ClientIncoming, Served: s.ServerIncoming + s.ServerInService + s.ServerOutgoing, Peers: s.Peers,
		CallsTotal: s.Called, CallsFailed: s.CallsFailed, ServedTotal: s.Served, ServedFailed: s.ServedFailed, Timeouts: s.Timeouts,
		BytesSent: s.BytesSent, BytesReceived: s.BytesReceived, BytesResent: s.BytesResent,
	}
	if c, ok := g.homaCarrier.(homaSocket); ok {
		h.Fallback = c.BufferReason()
	}
	return h
}

// translationStatus lists the rules in the order of the file, and behind them the
// entries of accept that relay.
func (g *Gateway) translationStatus() []admin.Translation {
	var rules []admin.Translation
	for _, r := range g.translate.rules {
		s := r.stats()
		t := admin.Translation{
			Name: r.name, Connections: s.Conns, ConnectionsTotal: s.ConnsTotal, ConnectionsRefused: s.ConnsRefused,
			ConnectionsWaiting: s.ConnsWaiting, ConnectionsWaited: s.ConnsWaited,
			Outstanding: s.Outstanding, Waiting: s.Waiting, Requests: s.Requests, Retries: s.Retries,
			BytesIn: s.BytesIn, BytesOut: s.BytesOut, BufferedBytes: s.Buffered, Streams: s.Streams,
		}
		r.describe(&t)
		for result, n := range s.Failed {
			if t.Failed == nil {
				t.Failed = map[string]uint64{}
			}
			t.Failed[string(result)] = n
		}
		for _, v := range s.Servers {
			t.Servers = append(t.Servers, admin.TranslationServer{
				Address: v.Addr.String(), Up: v.Up, Connections: v.Conns, Outstanding: v.Outstanding, Dials: v.Dials, DialFailures: v.DialFailures,
			})
		}
		rules = append(rules, t)
	}
	return rules
}

// describe fills in what the configuration says.
func (r *translation) describe(t *admin.Translation) {
	if r.relay != nil {
		t.Direction, t.From, t.To = "relay", "peer "+r.accept.Peer.String(), acceptText(r.accept)
		return
	}
	t.Direction = "tcp-homa"
	if r.reverse != nil {
		t.Direction = "homa-tcp"
	}
	t.Framing, t.From, t.To, t.Via = r.cfg.Framing.Type, fromText(r.cfg.From), toText(r.cfg.To), r.cfg.To.Via
}

// acceptText is what an entry of accept opens, as in "homa 10.1.0.0/16 port 4000".
func acceptText(a *config.Accept) string {
	var dst, ports []string
	for _, p := range a.Dst {
		dst = append(dst, p.String())
	}
	for _, p := range a.Ports {
		if p.First == p.Last {
			ports = append(ports, fmt.Sprint(p.First))
		} else {
			ports = append(ports, fmt.Sprintf("%d-%d", p.First, p.Last))
		}
	}
	text := "homa " + strings.Join(dst, ",")
	if len(ports) > 0 {
		text += " port " + strings.Join(ports, ",")
	}
	return text
}

func fromText(f config.TranslateFrom) string {
	addr := f.Addr.String()
	if !f.Addr.Addr().IsValid() {
		addr = fmt.Sprintf(":%d", f.Addr.Port())
	}
	return string(f.Kind) + " " + addr
}

func toText(t config.TranslateTo) string {
	addrs := make([]string, 0, len(t.Addrs))
	for _, a := range t.Addrs {
		addrs = append(addrs, a.String())
	}
	return string(t.Kind) + " " + strings.Join(addrs, ",")
}

// homaDrops counts what Homa did not carry.
func (g *Gateway) homaDrops(add func(where, reason string, n uint64)) {
	s := g.homa.Stats()
	for _, d := range homaDrops(&s) {
		add("homa", d.reason, d.n)
	}
	if c, ok := g.homaCarrier.(homaSocket); ok {
		for _, d := range rawDrops(c.Stats()) {
			add("homa_socket", d.reason, d.n)
		}
	}
}

// drop is a reason and how often it happened.
type drop struct {
	reason string
	n      uint64
}

func homaDrops(s *homa.Stats) []drop {
	return []drop{
		{"malformed", s.DropMalformed}, {"unknown_rpc", s.DropUnknown}, {"port", s.DropPort}, {"mismatch", s.DropMismatch},
		{"duplicate", s.DropDuplicate}, {"tombstone", s.DropTombstone}, {"no_memory", s.DropNoMemory}, {"window", s.DropWindow},
		{"gaps", s.DropGaps}, {"busy", s.DropBusy}, {"transmit", s.DropTransmit},
	}
}

func rawDrops(s rawip.Stats) []drop {
	return []drop{
		{"recv_overflow", s.RecvDropOverflow}, {"recv_truncated", s.RecvDropTruncated}, {"recv_fragmented", s.RecvDropFragmented},
		{"recv_foreign", s.RecvDropForeign}, {"send_too_big", s.SendDropTooBig}, {"send_no_buffers", s.SendDropNoBufs},
		{"send_wait", s.SendDropWait}, {"send_denied", s.SendDropDenied}, {"send_no_route", s.SendDropNoRoute},
		{"send_family", s.SendDropFamily},
	}
}
