package gateway

import (
	"slices"
	"strings"

	"github.com/tougw/tougw/dtls"
	"github.com/tougw/tougw/internal/admin"
	"github.com/tougw/tougw/internal/udp"
	"github.com/tougw/tougw/tun"
)

// deviceStats is what a device tells of itself, if it does.
type deviceStats interface{ Stats() tun.Stats }

// socketStats is what a real UDP socket tells of itself.
type socketStats interface{ Stats() udp.Stats }

// dropStatus lists every reason of every part, sorted, also those that have
// not happened.
func (g *Gateway) dropStatus() []admin.Drop {
	all := map[admin.Drop]uint64{} // keyed by a Drop without count
	add := func(where, reason string, n uint64) { all[admin.Drop{Where: where, Reason: reason}] += n }
	for i := range failures {
		add("flow", failures[i].reason, g.failed[i].Load())
	}
	for reason, n := range g.node.Stats().Drops {
		add("tunnel", reason, n)
	}
	for _, a := range g.associations() {
		s := a.endpoint.Stats()
		for i, n := range s.Drops {
			add("dtls", dtls.Drop(i).String(), n)
		}
		for i, n := range s.SendErrors {
			add("dtls", "send_"+dtls.SendError(i).String(), n)
		}
		for reason, n := range dtlsFailures(s) {
			add("handshake", reason, n)
		}
		add("dtls", "read_errors", s.ReadErrors)
		add("dtls", "number_guard", s.NumberGuard)
	}
	t := g.stack.Stats()
	add("stack", "malformed", t.DropMalformed)
	add("stack", "checksum", t.DropChecksum)
	add("stack", "past", t.DropPast)
	add("stack", "pending", t.DropPending)
	add("stack", "not_admitted", t.DropNotAdmitted)
	add("stack", "not_tcp", t.DropNotTCP)
	if g.edge != nil {
		g.captureDrops(add)
	}
	if g.homa != nil {
		g.homaDrops(add)
	}
	g.mu.Lock()
	entries := slices.Clone(g.sockets)
	socketDrops(g.former, add)
	g.mu.Unlock()
	for _, e := range entries {
		if s, ok := e.sock.(socketStats); ok {
			socketDrops(s.Stats(), add)
		}
	}
	drops := make([]admin.Drop, 0, len(all))
	for d, n := range all {
		d.Count = n
		drops = append(drops, d)
	}
	slices.SortFunc(drops, func(a, b admin.Drop) int {
		if c := strings.Compare(a.Where, b.Where); c != 0 {
			return c
		}
		return strings.Compare(a.Reason, b.Reason)
	})
	return drops
}

func (g *Gateway) captureDrops(add func(where, reason string, n uint64)) {
	e := g.edge.Stats()
	add("capture", "udp", e.UDP)
	add("capture", "icmp", e.ICMP)
	add("capture", "other_protocol", e.Other)
	add("capture", "icmp_withheld", e.ICMPWithheld)
	add("capture", "icmp_limited", e.ICMPLimited)
	add("capture", "malformed", e.DropMalformed)
	add("capture", "checksum", e.DropChecksum)
	add("capture", "fragment", e.DropFragment)
	add("capture", "pending", e.DropPending)
	add("capture", "pending_source", e.DropPendingSource)
	add("capture", "write", e.DropWrite)
	if d, ok := g.device.(deviceStats); ok {
		s := d.Stats()
		add("device", "read_malformed", s.ReadMalformed)
		add("device", "read_overflow", s.ReadOverflow)
		add("device", "write_segmentation", s.WriteSegmentation)
		add("device", "write_invalid", s.WriteInvalid)
		add("device", "write_refused", s.WriteRefused)
	}
}

func socketDrops(s udp.Stats, add func(where, reason string, n uint64)) {
	add("socket", "recv_overflow", s.RecvDropOverflow)
	add("socket", "recv_truncated", s.RecvDropTruncated)
	add("socket", "recv_errors", s.RecvErrors)
	add("socket", "send_too_big", s.SendDropTooBig)
	add("socket", "send_no_buffers", s.SendDropNoBufs)
	add("socket", "send_wait", s.SendDropWait)
	add("socket", "send_other", s.SendDropOther)
}

// dtlsFailures counts failed handshakes by reason.
func dtlsFailures(s dtls.Stats) map[string]uint64 {
	m := make(map[string]uint64, len(s.Failures))
	for i, n := range s.Failures {
		m[dtls.Failure(i).String()] = n
	}
	return m
}

func addNamed(to, from map[string]uint64) {
	for k, n := range from {
		to[k] += n
	}
}
