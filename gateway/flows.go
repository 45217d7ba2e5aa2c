package gateway

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/tougw/tougw/bridge"
	"github.com/tougw/tougw/internal/policy"
	"github.com/tougw/tougw/tcpip"
	"github.com/tougw/tougw/translate"
	"github.com/tougw/tougw/tunnel"
)

// errSilence refuses a flow without an answer on the local side: the peer is
// told by a control message, or the application by its own time-out.
var errSilence = syscall.ETIMEDOUT

// captured decides on a flow that the device captured, connects its far side,
// and only then completes its handshake. It runs in a goroutine of its own
// until the flow is joined or refused.
func (g *Gateway) captured(p *tcpip.Pending) {
	g.opening.Add(1)
	defer g.opening.Add(-1)
	src, dst := p.Src(), p.Dst()
	ctx, cancel := g.openingContext(p)
	defer cancel()
	verdict := g.rules.Decide(nil, dst)
	rule := g.translated(dst)
	var err error
	switch {
	case g.draining.Load():
		err = tunnel.ErrDraining
	case g.bridge.Full():
		err = tunnel.ErrOverload
	case rule != nil && verdict.Action != policy.Reject:
		err = g.capturedTranslate(ctx, p, rule, src, dst)
	case verdict.Action == policy.Tunnel:
		err = g.capturedTunnel(ctx, p, verdict.Target, src, dst)
	case verdict.Action == policy.Direct:
		err = g.capturedDirect(ctx, p, src, dst)
	default:
		err = syscall.EACCES
	}
	if err != nil {
		g.countFailed(err)
		g.log.Debug("flow not opened", "src", src, "dst", dst, "err", err)
		p.Refuse(err)
	}
}

// openingContext ends when a flow has been opening for too long, or its opener
// gave up.
func (g *Gateway) openingContext(p *tcpip.Pending) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.Flows.ConnectTimeout)
	stop := context.AfterFunc(doneContext{p.Done()}, cancel)
	return ctx, func() { stop(); cancel() }
}

func (g *Gateway) capturedTunnel(ctx context.Context, p *tcpip.Pending, peer string, src, dst netip.AddrPort) error {
	wait, cancel := context.WithTimeout(ctx, peerWait)
	id, err := g.node.Open(wait, peer, src, dst)
	cancel()
	if err != nil {
		return err
	}
	far, err := g.stack.Dial(ctx, id, src.Port(), dst.Port())
	if err != nil {
		g.node.Release(id)
		return timeout(err)
	}
	g.node.Established(id)
	near, err := p.Accept(ctx)
	if err != nil {
		far.Reset()
		g.node.Release(id)
		return err
	}
	if info, ok := g.node.Session(id); ok {
		widen(far, info.RTT)
	}
	g.join(stream{near, 0}, g.tunnelStream(far), bridge.Meta{Peer: peer, Src: src, Dst: dst, Session: id})
	return nil
}

func (g *Gateway) capturedDirect(ctx context.Context, p *tcpip.Pending, src, dst netip.AddrPort) error {
	far, err := g.dialTCP(ctx, dst)
	if err != nil {
		return timeout(err)
	}
	near, err := p.Accept(ctx)
	if err != nil {
		far.Reset()
		return err
	}
	g.join(stream{near, 0}, far, bridge.Meta{Src: src, Dst: dst})
	return nil
}

// accepted decides on a flow that a peer opens through its tunnel and connects
// it to its destination.
func (g *Gateway) accepted(p *tcpip.Pending) {
	g.opening.Add(1)
	defer g.opening.Add(-1)
	id := p.Session()
	info, ok := g.node.Session(id)
	if !ok { // its instance went away meanwhile
		p.Refuse(errSilence)
		return
	}
	ctx, cancel := g.openingContext(p)
	defer cancel()
	if err := g.acceptedFlow(ctx, p, id, info); err != nil {
		g.countFailed(err)
		g.log.Debug("flow of peer not opened", "peer", info.Peer.Name(), "dst", info.Dst, "name", info.Name, "err", err)
		g.node.Refuse(id, err)
		p.Refuse(errSilence) // the reason travels in the control message
	}
}

func (g *Gateway) acceptedFlow(ctx context.Context, p *tcpip.Pending, id uint64, info tunnel.SessionInfo) error {
	switch {
	case g.draining.Load():
		return tunnel.ErrDraining
	case g.bridge.Full():
		return tunnel.ErrOverload
	}
	dst, err := g.target(ctx, info)
	if err != nil {
		return err
	}
	if r := g.translated(dst); r != nil {
		near, err := p.Accept(ctx)
		if err != nil {
			return timeout(err)
		}
		g.node.Established(id)
		widen(near, info.RTT)
		g.serveFlow(r, near, dst, info.Src, translate.Meta{Client: info.Src, Peer: info.Peer.Name()}, id)
		return nil
	}
	far, err := g.dialTCP(ctx, dst)
	if err != nil {
		return timeout(err)
	}
	near, err := p.Accept(ctx)
	if err != nil {
		far.Reset()
		return timeout(err)
	}
	g.node.Established(id)
	widen(near, info.RTT)
	g.join(g.tunnelStream(near), far, bridge.Meta{Peer: info.Peer.Name(), Src: info.Src, Dst: dst, Name: info.Name, Session: id})
	return nil
}

// target is where a peer's flow may go: its address, or the first address of
// its name that the rules allow.
func (g *Gateway) target(ctx context.Context, info tunnel.SessionInfo) (netip.AddrPort, error) {
	if info.Name == "" {
		if !g.allows(info, info.Dst) {
			return netip.AddrPort{}, syscall.EACCES
		}
		return info.Dst, nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", info.Name)
	if err != nil {
		return netip.AddrPort{}, errors.Join(tunnel.ErrName, err)
	}
	for _, a := range addrs {
		if dst := netip.AddrPortFrom(a.Unmap(), info.Dst.Port()); g.allows(info, dst) {
			return dst, nil
		}
	}
	return netip.AddrPort{}, syscall.EACCES
}

// allows decides whether the peer of a flow may reach dst, by TCP or through a
// translation.
func (g *Gateway) allows(info tunnel.SessionInfo, dst netip.AddrPort) bool {
	v := g.accept.Decide(info.Peer.Names, dst)
	ok := v.Action == policy.TCP || v.Action == policy.Homa && g.translated(dst) != nil
	if !ok {
		g.refused.warn("flow of peer denied", "peer", info.Peer.Name(), "dst", dst, "verdict", v)
	}
	return ok
}

// join hands a connected flow to the bridge. a is the side that opened it. The
// session is released by ended, or here when the bridge takes no more flows.
func (g *Gateway) join(a, b bridge.Stream, meta bridge.Meta) {
	if _, err := g.bridge.Join(a, b, meta); err != nil {
		g.countFailed(err)
		g.log.Debug("flow not joined", "src", meta.Src, "dst", meta.Dst, "err", err)
		g.release(meta.Session)
	}
}

// ended is called by the bridge for each flow that has ended.
func (g *Gateway) ended(f bridge.FlowInfo) { g.release(f.Session) }

func (g *Gateway) release(session uint64) {
	if session != 0 {
		g.node.Release(session)
	}
}

// stream makes a bridge.Stream of a tcpip.Stream.
type stream struct {
	*tcpip.Stream
	writeSize int
}

// WriteSize implements bridge.Stream.
func (s stream) WriteSize() int { return s.writeSize }

// tunnelStream is a stream of the tunnel stack: it is best given what fills one
// send of the socket.
func (g *Gateway) tunnelStream(s *tcpip.Stream) stream { return stream{s, maxSegment(g.pathMTU())} }

// SetBuffers implements bridge.Stream. The stacks size their buffers themselves,
// by what moves and what the path holds.
func (stream) SetBuffers(int, int) {}

// SetNotify implements bridge.Stream.
func (s stream) SetNotify(fn func(readable, writable, failed bool)) {
	if fn == nil {
		s.Stream.SetNotify(nil)
		return
	}
	s.Stream.SetNotify(func(ev tcpip.Ready) {
		fn(ev&tcpip.Readable != 0, ev&tcpip.Writable != 0, ev&tcpip.Hup != 0)
	})
}

// timeout turns the end of a context into what a caller of connect sees.
func timeout(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return syscall.ETIMEDOUT
	}
	return err
}

// doneContext is a context that ends with a channel.
type doneContext struct{ done <-chan struct{} }

func (doneContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c doneContext) Done() <-chan struct{}     { return c.done }
func (doneContext) Value(any) any               { return nil }
func (c doneContext) Err() error {
	select {
	case <-c.done:
		return context.Canceled
	default:
		return nil
	}
}
