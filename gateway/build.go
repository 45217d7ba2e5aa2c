package gateway

import (
	"fmt"
	"net/netip"

	"github.com/tougw/tougw/bridge"
	"github.com/tougw/tougw/config"
	"github.com/tougw/tougw/dtls"
	"github.com/tougw/tougw/gue"
	"github.com/tougw/tougw/tcpip"
	"github.com/tougw/tougw/tun"
	"github.com/tougw/tougw/tunnel"
)

// Sizes in bytes that the segments of the tunnel stack are made to fit, for the
// usual case of AES-GCM with an 8-byte Connection ID over IPv4. Another case
// costs a remainder in each batch and nothing else: the tunnel cuts every
// segment to what its path carries.
const (
	outerHeaders   = 20 + 8
	recordOverhead = 13 + 8 + 1 + 8 + 16 // header, Connection ID, type, explicit nonce, tag
	tunnelHeader   = gue.BaseLen + gue.SessionIDLen
	innerIPv6      = 40      // exists only inside the stack
	tcpHeader      = 20 + 12 // with timestamps
	maxDatagrams   = 64      // of one send
	maxPayload     = 65507
)

// tunnelMTU is the MTU of the stack's interface for a path MTU.
func tunnelMTU(path int) int {
	return max(1280, path-outerHeaders-recordOverhead-tunnelHeader+innerIPv6)
}

// maxSegment is the payload that fills one send completely for a path MTU.
func maxSegment(path int) int {
	record := path - outerHeaders
	n := min(maxDatagrams, maxPayload/record)
	return max(1280, min(n*(record-recordOverhead-tunnelHeader-tcpHeader), 65374))
}

// pathMTU is the largest outer packet that a configured peer may get, or the
// default.
func (g *Gateway) pathMTU() int {
	mtu := 0
	for _, p := range g.cfg.Peers {
		mtu = max(mtu, p.PathMTU)
	}
	if mtu == 0 {
		mtu = tunnel.DefaultPathMTU
	}
	return mtu
}

// buildPath makes the parts between the device and the sockets. Nothing on the
// host is touched.
func (g *Gateway) buildPath() error {
	c := g.cfg
	buffers := tcpip.BufferConfig{
		InitialRecv: tunnelStartRecv, InitialSend: tunnelStartSend, MaxRecv: c.Flows.BufferMax, MaxSend: c.Flows.BufferMax,
	}
	stack, err := tcpip.NewTunnel(tcpip.TunnelConfig{
		OnFlow: g.accepted, MTU: tunnelMTU(g.pathMTU()), MaxSegment: maxSegment(g.pathMTU()),
		MaxPending: c.Flows.OpeningMax, Buffers: buffers, Turn: turn{g}, Logger: g.logger("tcpip"),
	}, g.output)
	if err != nil {
		return err
	}
	g.stack = stack
	tc := tunnel.Config{
		Stack: stack, Keepalive: c.Associations.Keepalive, DeadAfter: c.Associations.DeadAfter,
		HelloTimeout: c.Associations.HandshakeTimeout, SessionGrace: max(c.Associations.SessionGrace, 1),
		MaxSessions: c.Flows.Max, MaxOpening: c.Flows.OpeningPerSource, Logger: g.logger("tunnel"),
		RekeyAfter: c.Associations.RekeyAfter, RekeyBytes: uint64(c.Associations.RekeyBytes), Usage: usage,
	}
	if c.TunnelsHoma() {
		g.homaTunnel = newHomaTunnel()
		tc.Datagrams, tc.DatagramProtocols = g.homaTunnel, []gue.Protocol{gue.ProtoHoma}
	}
	g.node = tunnel.New(tc)
	if g.homaTunnel != nil {
		g.homaTunnel.node = g.node
	}
	g.bridge = bridge.New(bridge.Config{
		MaxFlows: c.Flows.Max, IdleTimeout: c.Flows.IdleTimeout, BufferMax: c.Flows.BufferMax, OnEnd: g.ended,
		Keepalive: bridge.Keepalive{Idle: c.Flows.Keepalive.Idle, Interval: c.Flows.Keepalive.Interval, Count: c.Flows.Keepalive.Count},
	})
	g.dialTCP, g.closeDialer = g.opt.DialTCP, func() error { return nil }
	if g.dialTCP == nil {
		d := bridge.NewDialer(bridge.DialerConfig{Mark: g.mark(), StartBuffer: kernelStart, Turn: turn{g}})
		g.dialTCP, g.closeDialer = d.Dial, d.Close
	}
	if err := g.buildAssociations(); err != nil {
		g.stack.Close()
		g.closeDialer()
		return err
	}
	return nil
}

// output takes segments of the tunnel stack to the node.
func (g *Gateway) output(segs []*tcpip.Segment) {
	for _, s := range segs {
		g.node.Output(s)
	}
}

func (g *Gateway) buildAssociations() error {
	base := g.dtlsConfig()
	if len(g.cfg.Listen) > 0 {
		a, err := g.newAssociation(base, nil)
		if err != nil {
			return err
		}
		g.listen = a
	}
	for _, p := range g.cfg.Peers {
		a, err := g.newAssociation(base, &p)
		if err != nil {
			return fmt.Errorf("peer %s: %w", p.Name, err)
		}
		g.dials = append(g.dials, a)
	}
	return nil
}

func (g *Gateway) dtlsConfig() dtls.Config {
	a := g.cfg.Associations
	cfg := dtls.Config{
		Roots: g.cred.roots, ConnectionID: true, HandshakeTimeout: a.HandshakeTimeout,
		MaxHalfOpen: a.HalfOpenMax, MaxHalfOpenPerSource: a.HalfOpenPerSource, Logger: g.logger("dtls"),
	}
	if g.cred.certificate != nil {
		cfg.Certificate = *g.cred.certificate
	}
	if keys := g.cred.psks; keys != nil {
		cfg.LookupPSK = func(identity string) ([]byte, bool) { k, ok := keys[identity]; return k, ok }
	}
	return cfg
}

func (g *Gateway) newAssociation(cfg dtls.Config, p *config.Peer) (*association, error) {
	a := &association{gw: g, links: map[*dtls.Association]*tunnel.Link{}}
	if p == nil {
		cfg.OnFailure = func(remote netip.AddrPort, why dtls.Failure, err error) {
			g.refused.warn("peer refused", "remote", remote, "reason", why, "err", err)
		}
	} else {
		cfg.LookupPSK = nil
		a.params = dtls.DialParams{ServerName: p.ServerName}
		if g.cred.psk != nil {
			a.params.PSK = &dtls.PreShared{Identity: g.cred.pskName, Key: g.cred.psk}
		}
	}
	cfg.PathCandidate = a.candidate
	e, err := dtls.New(cfg, a)
	if err != nil {
		return nil, err
	}
	a.endpoint = e
	if p != nil {
		endpoints := make([]string, 0, len(p.Endpoints))
		for _, e := range p.Endpoints {
			endpoints = append(endpoints, e.String())
		}
		a.peer = g.node.AddPeer(tunnel.PeerConfig{Name: p.Name, Endpoints: endpoints, PathMTU: p.PathMTU, Dial: a.dial})
	}
	return a, nil
}

// openDevice makes the capturing device and its stack.
func (g *Gateway) openDevice() error {
	t := g.cfg.Tun
	if t == nil {
		return nil
	}
	if t.DefaultRoute() {
		g.log.Warn("everything is captured: UDP, and DNS with it, gets an ICMP error in this version, and connections from beyond the LAN to this host do not work")
	}
	tc := tun.Config{
		Name: t.Name, Backend: tun.Backend(t.Backend), MTU: t.MTU, Queues: t.Queues, Addresses: t.Addresses,
		Routes: t.Routes, Mark: t.Mark, Logger: g.logger("tun"),
	}
	for _, p := range g.cfg.Peers {
		for _, e := range p.Endpoints {
			tc.Endpoints = append(tc.Endpoints, e.Addr())
		}
	}
	open := g.opt.OpenDevice
	if open == nil {
		open = func(c tun.Config) (Device, error) { return tun.Open(c) }
	}
	dev, err := open(tc)
	if err != nil {
		return err
	}
	g.device = dev
	edge, err := tcpip.NewEdge(tcpip.EdgeConfig{
		OnFlow: g.captured, MaxPending: g.cfg.Flows.OpeningMax, MaxPendingPerSource: g.cfg.Flows.OpeningPerSource,
		TSO: dev.Capabilities().TSO4, Turn: turn{g}, Logger: g.logger("capture"),
		Buffers: tcpip.BufferConfig{InitialRecv: edgeStartRecv, InitialSend: edgeStartSend},
	}, dev)
	if err != nil {
		return err
	}
	g.edge = edge
	return nil
}
