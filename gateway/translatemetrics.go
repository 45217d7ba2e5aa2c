package gateway

import (
	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/internal/metrics"
	"github.com/tougw/tougw/translate"
)

// Names of metrics of translations and of Homa.
const (
	metricTranslateConns       = "tougw_translate_connections"
	metricTranslateConnsTotal  = "tougw_translate_connections_total"
	metricTranslateConnsRefuse = "tougw_translate_connections_refused_total"
	metricTranslateConnsWait   = "tougw_translate_connections_waiting"
	metricTranslateConnsWaited = "tougw_translate_connections_waited_total"
	metricTranslateOutstanding = "tougw_translate_outstanding_requests"
	metricTranslateWaiting     = "tougw_translate_waiting_requests"
	metricTranslateRequests    = "tougw_translate_requests_total"
	metricTranslateRetries     = "tougw_translate_retries_total"
	metricTranslateBytes       = "tougw_translate_bytes_total"
	metricTranslateBuffered    = "tougw_translate_buffered_bytes"
	metricTranslateStreams     = "tougw_translate_streams"
	metricTranslateServerUp    = "tougw_translate_server_up"
	metricTranslateServerConns = "tougw_translate_server_connections"
	metricTranslateDials       = "tougw_translate_server_dials_total"
	metricHomaRPCs             = "tougw_homa_rpcs"
	metricHomaRPCsTotal        = "tougw_homa_rpcs_total"
	metricHomaTimeouts         = "tougw_homa_timeouts_total"
	metricHomaBytes            = "tougw_homa_message_bytes_total"
	metricHomaPeers            = "tougw_homa_peers"
	metricHomaMemory           = "tougw_homa_memory_bytes"
)

// translateMetrics registers what is told of each rule.
func (g *Gateway) translateMetrics(r *metrics.Registry) {
	byRule := func(read func(s *translate.Stats) float64) func() []metrics.Sample {
		return func() []metrics.Sample {
			var out []metrics.Sample
			for _, t := range g.translate.rules {
				s := t.stats()
				out = append(out, metrics.Sample{Labels: []string{t.name}, Value: read(&s)})
			}
			return out
		}
	}
	rule := []string{"rule"}
	for _, m := range []struct {
		name, help string
		read       func(*translate.Stats) float64
	}{
		{metricTranslateConns, "TCP connections, of clients or to servers.", func(s *translate.Stats) float64 { return float64(s.Conns) }},
		{metricTranslateConnsWait, "1 while clients wait as there are limits.connections; those in the kernel's queue are not counted.", func(s *translate.Stats) float64 { return float64(s.ConnsWaiting) }},
		{metricTranslateOutstanding, "Requests under way.", func(s *translate.Stats) float64 { return float64(s.Outstanding) }},
		{metricTranslateWaiting, "Requests that wait for their turn or a connection.", func(s *translate.Stats) float64 { return float64(s.Waiting) }},
		{metricTranslateBuffered, "Bytes held of messages whose length is not known yet.", func(s *translate.Stats) float64 { return float64(s.Buffered) }},
		{metricTranslateStreams, "Streams open.", func(s *translate.Stats) float64 { return float64(s.Streams) }},
	} {
		r.Gauges(m.name, m.help, rule, byRule(m.read))
	}
	for _, m := range []struct {
		name, help string
		read       func(*translate.Stats) float64
	}{
		{metricTranslateConnsTotal, "TCP connections that there were.", func(s *translate.Stats) float64 { return float64(s.ConnsTotal) }},
		{metricTranslateConnsRefuse, "Clients that were not served, servers that were not connected.", func(s *translate.Stats) float64 { return float64(s.ConnsRefused) }},
		{metricTranslateConnsWaited, "Clients that waited since there were limits.connections.", func(s *translate.Stats) float64 { return float64(s.ConnsWaited) }},
		{metricTranslateRetries, "Requests that were sent again.", func(s *translate.Stats) float64 { return float64(s.Retries) }},
	} {
		r.Counters(m.name, m.help, rule, byRule(m.read))
	}
	r.Counters(metricTranslateRequests, "Requests that ended, by result.", []string{"rule", "result"}, g.requestSamples)
	r.Counters(metricTranslateBytes, "Bytes of messages and streams over TCP.", []string{"rule", "direction"}, func() []metrics.Sample {
		var out []metrics.Sample
		for _, t := range g.translate.rules {
			s := t.stats()
			out = append(out, metrics.Sample{Labels: []string{t.name, "in"}, Value: float64(s.BytesIn)},
				metrics.Sample{Labels: []string{t.name, "out"}, Value: float64(s.BytesOut)})
		}
		return out
	})
	byServer := func(read func(*translate.ServerStats) float64) func() []metrics.Sample {
		return func() []metrics.Sample {
			var out []metrics.Sample
			for _, t := range g.translate.rules {
				for _, s := range t.stats().Servers {
					out = append(out, metrics.Sample{Labels: []string{t.name, s.Addr.String()}, Value: read(&s)})
				}
			}
			return out
		}
	}
	server := []string{"rule", "server"}
	r.Gauges(metricTranslateServerUp, "1 where the last attempt to connect to the TCP server did not fail.", server,
		byServer(func(s *translate.ServerStats) float64 {
			if s.Up {
				return 1
			}
			return 0
		}))
	r.Gauges(metricTranslateServerConns, "Connections to the TCP server.", server,
		byServer(func(s *translate.ServerStats) float64 { return float64(s.Conns) }))
	r.Counters(metricTranslateDials, "Attempts to connect to the TCP server, by result.", []string{"rule", "server", "result"},
		func() []metrics.Sample {
			var out []metrics.Sample
			for _, t := range g.translate.rules {
				for _, s := range t.stats().Servers {
					labels := []string{t.name, s.Addr.String()}
					out = append(out, metrics.Sample{Labels: append(labels[:2:2], "failed"), Value: float64(s.DialFailures)},
						metrics.Sample{Labels: append(labels[:2:2], "ok"), Value: float64(s.Dials - s.DialFailures)})
				}
			}
			return out
		})
}

// requestSamples counts the requests of each rule by result.
func (g *Gateway) requestSamples() []metrics.Sample {
	var out []metrics.Sample
	for _, t := range g.translate.rules {
		s := t.stats()
		ok := s.Requests
		for result, n := range s.Failed {
			ok -= min(n, ok) // it is counted a moment before it is in Requests
			out = append(out, metrics.Sample{Labels: []string{t.name, string(result)}, Value: float64(n)})
		}
		out = append(out, metrics.Sample{Labels: []string{t.name, string(translate.OK)}, Value: float64(ok)})
	}
	return out
}

// homaMetrics registers what is told of the Homa node.
func (g *Gateway) homaMetrics(r *metrics.Registry) {
	read := func(samples func(s *homa.Stats) []metrics.Sample) func() []metrics.Sample {
		return func() []metrics.Sample {
			if g.homa == nil {
				return nil
			}
			s := g.homa.Stats()
			return samples(&s)
		}
	}
	one := func(value float64, labels ...string) metrics.Sample {
		return metrics.Sample{Labels: labels, Value: value}
	}
	r.Gauges(metricHomaRPCs, "RPCs under way.", []string{"role"}, read(func(s *homa.Stats) []metrics.Sample {
		return []metrics.Sample{
			one(float64(s.ClientOutgoing+s.ClientIncoming), "client"),
			one(float64(s.ServerIncoming+s.ServerInService+s.ServerOutgoing), "server"),
		}
	}))
	r.Counters(metricHomaRPCsTotal, "RPCs that ended, by result.", []string{"role", "result"}, read(func(s *homa.Stats) []metrics.Sample {
		return []metrics.Sample{
			one(float64(s.Completed), "client", "ok"), one(float64(s.CallsFailed), "client", "failed"),
			one(float64(s.Acked), "server", "ok"), one(float64(s.ServedFailed), "server", "failed"),
		}
	}))
	r.Counters(metricHomaTimeouts, "RPCs that failed because the peer was silent.", nil, read(func(s *homa.Stats) []metrics.Sample {
		return []metrics.Sample{one(float64(s.Timeouts))}
	}))
	r.Counters(metricHomaBytes, "Bytes of messages; resent is sent again.", []string{"direction"}, read(func(s *homa.Stats) []metrics.Sample {
		return []metrics.Sample{one(float64(s.BytesReceived), "in"), one(float64(s.BytesSent), "out"), one(float64(s.BytesResent), "resent")}
	}))
	r.Gauges(metricHomaMemory, "Bytes held of messages.", []string{"direction"}, read(func(s *homa.Stats) []metrics.Sample {
		return []metrics.Sample{one(float64(s.HeldReceive), "in"), one(float64(s.HeldSend), "out")}
	}))
	r.Gauges(metricHomaPeers, "Hosts of the fabric that are known.", nil, read(func(s *homa.Stats) []metrics.Sample {
		return []metrics.Sample{one(float64(s.Peers))}
	}))
}
