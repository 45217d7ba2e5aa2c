package gateway

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tougw/tougw/dtls"
	"github.com/tougw/tougw/internal/admin"
	"github.com/tougw/tougw/tunnel"
)

// Status implements admin.Source.
func (g *Gateway) Status() admin.Status {
	s := admin.Status{
		Name: g.cfg.Name, Version: g.opt.Version, Instance: g.node.Instance().String(), PID: os.Getpid(),
		Started: g.started, UptimeS: time.Since(g.started).Seconds(), Draining: g.draining.Load(),
		Sessions: g.node.SessionCount(), Sockets: g.socketStatus(), Peers: g.peerStatus(), Drops: g.dropStatus(),
		Homa: g.homaStatus(), Translations: g.translationStatus(),
	}
	st := g.bridge.Stats()
	s.Flows = admin.FlowCounts{
		Active: g.bridge.Len(), Opening: int(g.opening.Load()), Opened: st.Opened, Failed: g.failedFlows(), Closed: sum(st.Ended),
	}
	if d := g.device; d != nil {
		c := d.Capabilities()
		t := &admin.Tun{
			Name: d.Name(), Backend: string(c.Backend), MTU: d.MTU(), Queues: d.Queues(),
			VnetHdr: c.VnetHdr, TSO: c.TSO4, Fallback: c.Fallback, Routes: []string{},
		}
		for _, r := range g.cfg.Tun.Routes {
			t.Routes = append(t.Routes, r.String())
		}
		s.Tun = t
	}
	return s
}

// Flows implements admin.Source.
func (g *Gateway) Flows() []admin.Flow {
	infos := g.bridge.Flows(0)
	flows := make([]admin.Flow, 0, len(infos))
	for _, f := range infos {
		flow := admin.Flow{
			ID: f.ID, Direction: "direct", Peer: f.Peer, Src: f.Src.String(), Dst: f.Dst.String(), State: f.State.String(),
			Opened: f.Opened, AgeS: f.Age.Seconds(), BytesUp: f.BytesUp, BytesDown: f.BytesDown,
		}
		if f.Session != 0 {
			flow.Session, flow.Direction = fmt.Sprintf("%016x", f.Session), "inbound"
			if info, ok := g.node.Session(f.Session); ok && info.Initiator {
				flow.Direction = "outbound"
			}
		}
		flows = append(flows, flow)
	}
	return flows
}

// Ready implements admin.Source: a gateway is ready when it listens, a client
// when one of its peers is up, and a translator at once.
func (g *Gateway) Ready() (bool, string) {
	if !g.ready.Load() {
		return false, "starting or stopping"
	}
	if g.listen != nil || len(g.dials) == 0 {
		return true, ""
	}
	for _, p := range g.node.Peers() {
		if p.State == "up" {
			return true, ""
		}
	}
	return false, "no peer is up"
}

func (g *Gateway) peerStatus() []admin.Peer {
	peers := []admin.Peer{}
	for _, p := range g.node.Peers() {
		e := admin.Peer{
			Name: p.Name, State: p.State, Dialled: p.Dialled, Identity: p.Identity, Instance: p.Instance,
			Endpoints: p.Endpoints, PathMTU: p.PathMTU, RTTMs: float64(p.RTT) / float64(time.Millisecond),
			Sessions: p.Sessions, BytesIn: p.BytesIn, BytesOut: p.BytesOut, QueuedBytes: p.Queued,
			LastHandshake: p.LastHandshake, LastReceivedS: p.LastReceived.Seconds(), Error: p.Err,
		}
		if p.Endpoint.IsValid() {
			e.Endpoint = p.Endpoint.String()
		}
		if a, ok := p.Secure.(*dtls.Association); ok {
			info := a.Info()
			e.Suite, e.ConnectionID = info.Suite.String(), info.LocalCID > 0
		}
		peers = append(peers, e)
	}
	return peers
}

func (g *Gateway) socketStatus() []admin.Socket {
	g.mu.Lock()
	entries := slices.Clone(g.sockets)
	g.mu.Unlock()
	socks := []admin.Socket{}
	for _, e := range entries {
		s := admin.Socket{Address: e.sock.LocalAddr().String(), Role: e.role}
		if c, ok := e.sock.(capabilities); ok {
			k := c.Capabilities()
			s.GSO, s.GRO, s.Steering, s.RecvBuffer, s.SendBuffer = k.GSO, k.GRO, k.Steering, k.RecvBuffer, k.SendBuffer
			s.Fallback = strings.Join(slices.DeleteFunc([]string{k.GSOReason, k.GROReason, k.SteeringReason, k.BufferReason},
				func(r string) bool { return r == "" }), "; ")
		}
		socks = append(socks, s)
	}
	return socks
}

var _ admin.Source = (*Gateway)(nil)
var _ tunnel.Secure = (*dtls.Association)(nil)

func sum[K comparable](m map[K]uint64) uint64 {
	var n uint64
	for _, v := range m {
		n += v
	}
	return n
}
