package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tougw/tougw/gue"
	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/homa/wire"
	"github.com/tougw/tougw/internal/policy"
	"github.com/tougw/tougw/translate"
	"github.com/tougw/tougw/tunnel"
)

const (
	// homaQueue bounds the packets from peers that wait for the Homa node, as a
	// socket buffer would: some 5 MB.
	homaQueue = 4096
	// homaHeader is the length of the header of a Homa DATA packet.
	homaHeader = 56
	// Time-outs of Homa between gateways, in milliseconds: an answer is missed after
	// homaResendRTT round trips, at least as early as Linux hosts miss it, and a peer
	// that stays silent for homaTimeoutMin or homaTimeoutRTT round trips is given up.
	homaResendMin, homaResendMax        = 5, 1000
	homaResendRTT                       = 3
	homaTimeoutMin                      = 2000
	homaTimeoutRTT                      = 30
	homaPatience                        = homaTimeoutMin * time.Millisecond
	homaMaxIncoming                     = 4 << 20 // bytes granted and not here yet: fills 300 Mbit/s at 100 ms
	homaPeersTuned                      = 4096    // whose time-outs are not the usual ones
	homaTuneFactor                      = 2       // by how much a round trip has to change before they follow
	homaPrefix                   uint64 = 0xfd74_6f75_4754_4f55
)

// homaAddr is the address by which the Homa node knows a peer's instance: a private
// prefix that never leaves the process, and the reference.
func homaAddr(ref tunnel.PeerRef) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], homaPrefix)
	binary.BigEndian.PutUint64(b[8:], uint64(ref))
	return netip.AddrFrom16(b)
}

// homaRef is the peer that homaAddr named; 0 for any other address.
func homaRef(a netip.Addr) tunnel.PeerRef {
	b := a.As16()
	if binary.BigEndian.Uint64(b[:]) != homaPrefix {
		return 0
	}
	return tunnel.PeerRef(binary.BigEndian.Uint64(b[8:]))
}

// homaNode is the part of a tunnel.Node that carries Homa.
type homaNode interface {
	PeerRef(ctx context.Context, name string) (tunnel.PeerRef, error)
	PeerPath(ref tunnel.PeerRef) (tunnel.PeerPath, bool)
	SendDatagrams(proto gue.Protocol, ds []tunnel.Datagram)
	RefuseCall(ref tunnel.PeerRef, call uint64, reason error)
}

// homaTunnel carries Homa between gateways, inside their associations: packets of
// proto 146 in GUE, with the server that is meant beside the first byte of a
// request. It is what the tunnel node gives datagrams to (tunnel.Datagrams), and
// the carrier of a Homa node.
type homaTunnel struct {
	node homaNode

	mu      sync.Mutex
	filled  sync.Cond // with mu
	queue   []carrier.Packet
	spare   [][]byte
	closed  bool
	dropped uint64

	sends sync.Pool // *[]tunnel.Datagram

	tuneMu sync.Mutex
	tuned  map[tunnel.PeerRef]int // milliseconds until an answer is missed, as the Homa node was told
}

var (
	_ carrier.Refuser  = (*homaTunnel)(nil)
	_ tunnel.Datagrams = (*homaTunnel)(nil)
)

// newHomaTunnel makes a carrier without a tunnel node; that is set before use.
func newHomaTunnel() *homaTunnel {
	h := &homaTunnel{tuned: map[tunnel.PeerRef]int{}}
	h.filled.L = &h.mu
	h.sends.New = func() any { s := make([]tunnel.Datagram, 0, carrier.MaxBatch); return &s }
	return h
}

// Datagram implements tunnel.Datagrams.
func (h *homaTunnel) Datagram(d *tunnel.Datagram) {
	if len(d.Payload) > carrier.MaxPacket {
		return
	}
	h.enqueue(carrier.Packet{Addr: homaAddr(d.Peer), Target: d.Target, Data: d.Payload})
}

// CallRefused implements tunnel.Datagrams.
func (h *homaTunnel) CallRefused(peer tunnel.PeerRef, call uint64, reason error) {
	h.enqueue(carrier.Packet{Addr: homaAddr(peer), Trouble: carrier.CallRefused, Call: call, Err: homaError(reason)})
}

// enqueue queues p with a copy of its data.
func (h *homaTunnel) enqueue(p carrier.Packet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.queue) >= homaQueue {
		h.dropped++
		return
	}
	var b []byte
	if n := len(h.spare); n > 0 {
		b, h.spare = h.spare[n-1], h.spare[:n-1]
	}
	p.Data = append(b[:0], p.Data...)
	h.queue = append(h.queue, p)
	h.filled.Signal()
}

// Receivers implements carrier.Carrier.
func (h *homaTunnel) Receivers() int { return 1 }

// Receive implements carrier.Carrier.
func (h *homaTunnel) Receive(_ int, batch []carrier.Packet) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.queue) == 0 && !h.closed {
		h.filled.Wait()
	}
	if h.closed {
		return 0, fmt.Errorf("homa in the tunnel: %w", net.ErrClosed)
	}
	n := min(len(batch), len(h.queue))
	for i := range n {
		p := h.queue[i]
		h.spare = append(h.spare, p.Data)
		p.Buf = batch[i].Buf
		p.Data = p.Buf[:copy(p.Buf, p.Data)]
		batch[i] = p
	}
	left := copy(h.queue, h.queue[n:])
	clear(h.queue[left:])
	h.queue = h.queue[:left]
	return n, nil
}

// Waiting implements carrier.Carrier.
func (h *homaTunnel) Waiting(int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.queue) > 0
}

// Send implements carrier.Carrier.
func (h *homaTunnel) Send(batch []carrier.Packet) error {
	s := h.sends.Get().(*[]tunnel.Datagram)
	ds := (*s)[:0]
	for i := range batch {
		ds = append(ds, tunnel.Datagram{Peer: homaRef(batch[i].Addr), Target: batch[i].Target, Payload: batch[i].Data})
	}
	h.node.SendDatagrams(gue.ProtoHoma, ds)
	for i := range ds {
		batch[i].Trouble, batch[i].Err = carrier.None, nil
		switch ds[i].Failed {
		case tunnel.DatagramNoPeer:
			batch[i].Trouble = carrier.HostUnreachable
			batch[i].Err = tunnel.ErrNoPeer
		case tunnel.DatagramTooLarge:
			batch[i].Trouble = carrier.MTUChanged
		}
	}
	clear(ds)
	*s = ds
	h.sends.Put(s)
	return nil
}

// MaxData implements carrier.Carrier.
func (h *homaTunnel) MaxData(peer netip.Addr) int {
	p, ok := h.node.PeerPath(homaRef(peer))
	if !ok {
		return 1024 // any will do: nothing will be sent
	}
	return max(p.MaxPayload-homaHeader, 64)
}

// Refuse implements carrier.Carrier. Every port is served: what a peer may not
// reach is refused call by call.
func (h *homaTunnel) Refuse(*carrier.Packet) {}

// RefuseCall implements carrier.Refuser.
func (h *homaTunnel) RefuseCall(to netip.Addr, call uint64, err error) {
	h.node.RefuseCall(homaRef(to), call, homaErrno(err))
}

// Close implements carrier.Carrier.
func (h *homaTunnel) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.queue, h.spare = nil, nil
	h.filled.Broadcast()
	return nil
}

// homaTunnelConfig is the configuration of the Homa node between gateways.
func homaTunnelConfig() rpc.Config {
	return rpc.Config{Engine: homa.Config{
		AnyPort: true,
		// A client that has no answer repeats its request until its time-out.
		TombstoneLife: 2 * homaResendMax * homaTimeoutRTT / homaResendRTT * time.Millisecond,
		MaxIncoming:   homaMaxIncoming,
		Peer:          homaPeer(homaResendMin),
	}}
}

// homaPeer is a peer whose answers are missed after resend milliseconds.
func homaPeer(resend int) homa.PeerConfig {
	return homa.PeerConfig{
		Version: wire.Main, VersionSet: true,
		ResendTicks: resend, ResendInterval: resend,
		TimeoutTicks: max(homaTimeoutMin, resend*homaTimeoutRTT/homaResendRTT),
		AckTicks:     max(2, resend/2), AckTimeoutTicks: max(homaTimeoutMin, resend*homaTimeoutRTT/homaResendRTT),
	}
}

// tune makes the time-outs of a peer follow the round trip to it.
func (h *homaTunnel) tune(node *rpc.Node, ref tunnel.PeerRef) {
	path, ok := h.node.PeerPath(ref)
	if !ok {
		return
	}
	resend := min(max(homaResendMin, int(homaResendRTT*path.RTT/time.Millisecond)), homaResendMax)
	h.tuneMu.Lock()
	defer h.tuneMu.Unlock()
	was := h.tuned[ref]
	if was == 0 {
		was = homaResendMin
	}
	if resend < homaTuneFactor*was && was < homaTuneFactor*resend {
		return
	}
	if len(h.tuned) >= homaPeersTuned {
		clear(h.tuned) // gone instances among them; the others are tuned again
	}
	if node.SetPeer(homaAddr(ref), homaPeer(resend)) == nil {
		h.tuned[ref] = resend
	}
}

// homaVia opens RPCs to servers behind a peer.
type homaVia struct {
	tunnel *homaTunnel
	node   *rpc.Node
	peer   string
}

var _ translate.Dialer = homaVia{}

// Open implements translate.Dialer. Without the peer it waits a moment for it.
func (v homaVia) Open(ctx context.Context, to netip.AddrPort, length int, o rpc.OpenOptions) (translate.Call, int, error) {
	wait, cancel := context.WithTimeout(ctx, homaPatience)
	ref, err := v.tunnel.node.PeerRef(wait, v.peer)
	cancel()
	if err != nil {
		return nil, 0, fmt.Errorf("call %s via %s: %w: %w", to, v.peer, rpc.ErrUnreachable, err)
	}
	v.tunnel.tune(v.node, ref)
	o.Via = homaAddr(ref)
	return translate.Over(v.node).Open(ctx, to, length, o)
}

// homaRelay is the handler of requests that come by the tunnel: those that are
// permitted go on to the fabric.
type homaRelay struct {
	tunnel *homaTunnel
	node   *rpc.Node // of the tunnel
	// relay returns what passes a peer's request on, or nil if the peer may not call
	// that server.
	relay func(who tunnel.Identity, to netip.AddrPort) *translate.Relay
	// local returns the handler of a server that is a rule of this gateway, or nil.
	local func(to netip.AddrPort) rpc.Handler
	open  rpc.Opener // on the fabric
}

// ServeRPC implements rpc.Handler.
func (r *homaRelay) ServeRPC(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
	ref := homaRef(req.Client().Addr())
	r.tunnel.tune(r.node, ref)
	to, err := req.Target()
	if err != nil {
		return err
	}
	path, ok := r.tunnel.node.PeerPath(ref)
	if !ok {
		return tunnel.ErrNoPeer
	}
	// An IPv4 address in the clothes of IPv6 is judged as what it is.
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	relay := r.relay(path.Identity, to)
	if relay == nil {
		return syscall.EACCES
	}
	if h := r.local(to); h != nil {
		return h.ServeRPC(ctx, req, w)
	}
	return relay.Serve(ctx, req, w, path.Identity.Name(), to, r.open)
}

// openHomaTunnel starts the Homa node between gateways, if a rule or accept needs
// it.
func (g *Gateway) openHomaTunnel() error {
	if g.homaTunnel == nil {
		return nil
	}
	node, err := rpc.NewNode(g.homaTunnel, homaTunnelConfig())
	if err != nil {
		return fmt.Errorf("homa between gateways: %w", err)
	}
	g.homaPeers = node
	if !g.cfg.AcceptsHoma() {
		return nil // port by port, nobody is served
	}
	relay := &homaRelay{tunnel: g.homaTunnel, node: node, relay: g.relayTo, local: g.homaRule, open: g.homa.Open}
	_, err = node.Listen(0, relay, rpc.ServeConfig{OnError: func(client netip.AddrPort, err error) {
		g.log.Debug("homa request of peer not answered", "err", err)
	}})
	return err
}

// relayTo returns the relay of the entry of accept by which a peer may call the Homa
// server at to, or nil if it may not.
func (g *Gateway) relayTo(who tunnel.Identity, to netip.AddrPort) *translate.Relay {
	v := g.accept.Decide(who.Names, to)
	if v.Action != policy.Homa {
		g.refused.warn("homa request of peer denied", "peer", who.Name(), "dst", to, "verdict", v)
		return nil
	}
	return g.translate.relays[v.Rule]
}

// homaRule returns the rule of this gateway that serves to, or nil: a packet from
// this host to itself would find only one node.
func (g *Gateway) homaRule(to netip.AddrPort) rpc.Handler {
	for _, r := range g.translate.rules {
		if r.reverse == nil || r.cfg.From.Addr.Port() != to.Port() {
			continue
		}
		if addrs := g.cfg.Homa.Addresses; len(addrs) > 0 && !slices.Contains(addrs, to.Addr()) ||
			g.guard.Class(to.Addr()) != policy.Own {
			return nil
		}
		return r.reverse
	}
	return nil
}

// homaErrno is the reason that the tunnel can carry for a failed call.
func homaErrno(err error) error {
	for _, m := range homaReasons {
		if errors.Is(err, m.call) {
			return m.reason
		}
	}
	return err // an errno, or what becomes the general reason
}

// homaError is what a call fails with whose gateway gave a reason.
func homaError(reason error) error {
	for _, m := range homaReasons {
		if errors.Is(reason, m.reason) {
			return fmt.Errorf("%w: %w", m.call, reason)
		}
	}
	return fmt.Errorf("%w: %w", rpc.ErrUnreachable, reason)
}

// homaReasons pairs errors of calls with reasons of refused sessions. The first
// pair that matches counts.
var homaReasons = []struct{ call, reason error }{
	{rpc.ErrBusy, tunnel.ErrOverload},
	{rpc.ErrMemory, tunnel.ErrOverload},
	{rpc.ErrTimeout, syscall.ETIMEDOUT},
	{context.DeadlineExceeded, syscall.ETIMEDOUT},
	{rpc.ErrRefused, syscall.ECONNREFUSED},
	{rpc.ErrNotHoma, syscall.ENETUNREACH},
	{rpc.ErrUnreachable, syscall.EHOSTUNREACH},
}
