package gateway

import (
	"errors"
	"fmt"
	"time"

	"github.com/tougw/tougw/config"
	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rawip"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/homa/wire"
)

// openHoma starts the Homa node of this host, if a translation needs it.
func (g *Gateway) openHoma() error {
	if !g.cfg.UsesHoma() {
		return nil
	}
	h := &g.cfg.Homa
	version, err := wire.ParseVersion(h.Version)
	if err != nil {
		return err
	}
	open := g.opt.OpenHoma
	if open == nil {
		open = openRaw
	}
	c, err := open(rawConfig(h, version, g.mark()))
	if err != nil {
		return fmt.Errorf("homa: %w", err)
	}
	node, err := rpc.NewNode(c, engineConfig(h, version))
	if err != nil {
		return fmt.Errorf("homa: %w", err)
	}
	g.homa, g.homaCarrier = node, c
	for _, p := range h.Peers {
		v, err := wire.ParseVersion(p.Version)
		if err == nil {
			err = node.SetPeer(p.Addr, homa.PeerConfig{Version: v, VersionSet: true, Unscheduled: p.Unscheduled})
		}
		if err != nil {
			return fmt.Errorf("homa: peer %s: %w", p.Addr, err)
		}
	}
	g.log.Info("homa", "addresses", h.Addresses, "device", h.Device, "version", version)
	if s, ok := c.(homaSocket); ok && s.BufferReason() != "" {
		g.log.Warn("homa socket has smaller buffers than wanted", "reason", s.BufferReason())
	}
	return nil
}

// homaSocket is what a carrier on real sockets tells of itself.
type homaSocket interface {
	BufferReason() string
	Stats() rawip.Stats
}

func openRaw(c rawip.Config) (carrier.Carrier, error) {
	conn, err := rawip.Open(c)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func rawConfig(h *config.Homa, version wire.Version, mark uint32) rawip.Config {
	c := rawip.Config{
		Protocol: version.IPProtocol(), Local: h.Addresses, Device: h.Device, Mark: mark, LinkPriority: h.LinkPriority,
		TOS: make([]uint8, len(h.DSCP)),
	}
	for i, dscp := range h.DSCP {
		c.TOS[i] = dscp << 2 // the two bits below are ECN's (RFC 2474, RFC 3168)
	}
	return c
}

func engineConfig(h *config.Homa, version wire.Version) rpc.Config {
	const tick = time.Millisecond
	// A packet each way for what the link brings in a millisecond.
	step := int(min(h.LinkRate/8/1000, int64(h.Incoming)))
	return rpc.Config{Engine: homa.Config{
		Tick: tick,
		Peer: homa.PeerConfig{
			Version: version, Unscheduled: h.Unscheduled,
			ResendTicks: int(h.Resend / tick), ResendInterval: int(h.Resend / tick), TimeoutTicks: int(h.Timeout / tick),
		},
		ClientPort: h.ClientPort, LinkRate: h.LinkRate, GrantRate: h.LinkRate,
		// What the oldest message is granted out of turn comes out of the same.
		FIFOGrantIncrement: min(50_000, h.Incoming/8),
		MaxIncoming:        h.Incoming, GrantStep: step, ReceiveWindow: h.Window, ReceiveMemory: h.ReceiveMemory, SendMemory: h.SendMemory,
	}}
}

// errHoma ends a gateway whose Homa node has failed.
var errHoma = errors.New("homa: the node has failed")

// watchHoma returns when the node has ended, with an error unless it was to.
func (g *Gateway) watchHoma(done <-chan struct{}) error {
	select {
	case <-g.homa.Done():
		return errHoma
	case <-done:
		return nil
	}
}
