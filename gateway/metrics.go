package gateway

import (
	"github.com/tougw/tougw/internal/metrics"
	"github.com/tougw/tougw/tunnel"
)

// Names of metrics: tougw_<subsystem>_<what>_<unit>[_total].
const (
	metricFlowsActive    = "tougw_flows_active"
	metricFlowsOpening   = "tougw_flows_opening"
	metricFlowsOpened    = "tougw_flows_opened_total"
	metricFlowsFailed    = "tougw_flows_failed_total"
	metricFlowsEnded     = "tougw_flows_ended_total"
	metricFlowBytes      = "tougw_flows_bytes_total"
	metricSessions       = "tougw_tunnel_sessions"
	metricTunnelBytes    = "tougw_tunnel_segment_bytes_total"
	metricTunnelSegments = "tougw_tunnel_segments_total"
	metricPeerUp         = "tougw_peer_up"
	metricPeerRTT        = "tougw_peer_rtt_seconds"
	metricDrops          = "tougw_drops_total"
	metricHandshakes     = "tougw_dtls_handshakes_total"
	metricHalfOpen       = "tougw_dtls_half_open"
	metricAssociations   = "tougw_dtls_associations"
	metricRetransmits    = "tougw_stack_retransmits_total"
)

func (g *Gateway) buildMetrics() *metrics.Registry {
	r := metrics.New()
	r.Gauge(metricFlowsActive, "Flows that are joined now.", func() float64 { return float64(g.bridge.Len()) })
	r.Gauge(metricFlowsOpening, "Flows whose far side is being connected now.", func() float64 { return float64(g.opening.Load()) })
	r.Counter(metricFlowsOpened, "Flows that were joined.", func() uint64 { return g.bridge.Stats().Opened })
	r.Counter(metricFlowsFailed, "Flows that were refused or could not be connected.", g.failedFlows)
	r.Counters(metricFlowsEnded, "Flows that ended, by cause.", []string{"cause"}, func() []metrics.Sample {
		var out []metrics.Sample
		for cause, n := range g.bridge.Stats().Ended {
			out = append(out, metrics.Sample{Labels: []string{cause.String()}, Value: float64(n)})
		}
		return out
	})
	r.Counters(metricFlowBytes, "Payload bytes of flows; up is away from the end that opened them.", []string{"direction"},
		func() []metrics.Sample {
			s := g.bridge.Stats()
			return []metrics.Sample{{Labels: []string{"up"}, Value: float64(s.BytesUp)}, {Labels: []string{"down"}, Value: float64(s.BytesDown)}}
		})
	r.Gauge(metricSessions, "TOU sessions, closing ones included.", func() float64 { return float64(g.node.SessionCount()) })
	r.Counters(metricTunnelBytes, "Bytes of TCP segments in the tunnel, TCP headers included.", []string{"direction"},
		func() []metrics.Sample {
			s := g.node.Stats()
			return []metrics.Sample{{Labels: []string{"in"}, Value: float64(s.BytesIn)}, {Labels: []string{"out"}, Value: float64(s.BytesOut)}}
		})
	r.Counters(metricTunnelSegments, "TCP segments in the tunnel.", []string{"direction"}, func() []metrics.Sample {
		s := g.node.Stats()
		return []metrics.Sample{{Labels: []string{"in"}, Value: float64(s.SegmentsIn)}, {Labels: []string{"out"}, Value: float64(s.SegmentsOut)}}
	})
	r.Counters(metricDrops, "Things that were not carried, by part and reason.", []string{"where", "reason"}, func() []metrics.Sample {
		var out []metrics.Sample
		for _, d := range g.dropStatus() {
			out = append(out, metrics.Sample{Labels: []string{d.Where, d.Reason}, Value: float64(d.Count)})
		}
		return out
	})
	r.Counter(metricRetransmits, "TCP segments that the tunnel stack sent again.", func() uint64 { return g.stack.Stats().Retransmits })
	g.peerMetrics(r)
	g.dtlsMetrics(r)
	if g.translates() {
		g.translateMetrics(r)
	}
	if g.cfg.UsesHoma() {
		g.homaMetrics(r)
	}
	return r
}

// peerMetrics registers what is told of each peer. Peers that dialled are
// labelled by their proven name; several instances may have one.
func (g *Gateway) peerMetrics(r *metrics.Registry) {
	byPeer := func(add func(sum float64, p tunnel.PeerInfo) float64) func() []metrics.Sample {
		return func() []metrics.Sample {
			values := map[string]float64{}
			for _, p := range g.node.Peers() {
				values[p.Name] = add(values[p.Name], p)
			}
			out := make([]metrics.Sample, 0, len(values))
			for name, v := range values {
				out = append(out, metrics.Sample{Labels: []string{name}, Value: v})
			}
			return out
		}
	}
	r.Gauges(metricPeerUp, "Instances of the peer that are up.", []string{"peer"}, byPeer(func(n float64, p tunnel.PeerInfo) float64 {
		if p.State == "up" {
			n++
		}
		return n
	}))
	r.Gauges(metricPeerRTT, "Smoothed round trip to the peer, the longest of its instances; 0 while unknown.", []string{"peer"},
		byPeer(func(longest float64, p tunnel.PeerInfo) float64 { return max(longest, p.RTT.Seconds()) }))
}

func (g *Gateway) dtlsMetrics(r *metrics.Registry) {
	r.Counters(metricHandshakes, "DTLS handshakes of both roles, by result.", []string{"result"}, func() []metrics.Sample {
		var done uint64
		failed := map[string]uint64{}
		for _, a := range g.associations() {
			s := a.endpoint.Stats()
			done += s.HandshakesCompleted
			addNamed(failed, dtlsFailures(s))
		}
		out := []metrics.Sample{{Labels: []string{"completed"}, Value: float64(done)}}
		for why, n := range failed {
			out = append(out, metrics.Sample{Labels: []string{why}, Value: float64(n)})
		}
		return out
	})
	r.Gauge(metricHalfOpen, "DTLS handshakes under way.", func() float64 {
		n := 0
		for _, a := range g.associations() {
			n += a.endpoint.Stats().HalfOpen
		}
		return float64(n)
	})
	r.Gauge(metricAssociations, "DTLS associations.", func() float64 {
		n := 0
		for _, a := range g.associations() {
			n += a.endpoint.Stats().Associations
		}
		return float64(n)
	})
}
