package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tougw/tougw/config"
	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/tcpip"
	"github.com/tougw/tougw/translate"
)

// drainPoll is how often a gateway that stops looks whether requests are still
// under way.
const drainPoll = 10 * time.Millisecond

// translations are the rules between TCP and Homa, and what serves them.
type translations struct {
	rules  []*translation // those of relays are behind the others
	tracer *translate.Tracer
	// relays has, for each entry of accept, what takes peers to Homa servers, or nil.
	relays []*translate.Relay
	// byFlow has the rules for flows by their destination.
	byFlow map[netip.AddrPort]*translation
	flows  tasks // that serve flows
}

// translation is one rule: forward is for TCP clients, else reverse for Homa clients,
// else relay for peers.
type translation struct {
	name     string
	cfg      *config.Translate // nil for a relay
	accept   *config.Accept    // of a relay
	forward  *translate.Forward
	reverse  *translate.Reverse
	relay    *translate.Relay
	listener *drainListener // of TCP clients; nil for flows
	server   *rpc.Server
}

// stats are the counters of whichever it is.
func (t *translation) stats() translate.Stats {
	switch {
	case t.forward != nil:
		return t.forward.Stats()
	case t.reverse != nil:
		return t.reverse.Stats()
	}
	return t.relay.Stats()
}

// openTranslate builds all rules and opens their sockets and ports. What was
// opened when it fails is closed by closeTranslate.
func (g *Gateway) openTranslate() error {
	t := &g.translate
	if err := g.openHoma(); err != nil {
		return err
	}
	if g.translates() {
		t.tracer = translate.NewTracer(translate.TracerConfig{})
	}
	relays := g.openRelays()
	if err := g.openHomaTunnel(); err != nil {
		return err
	}
	t.byFlow = map[netip.AddrPort]*translation{}
	for i := range g.cfg.Translate {
		c := &g.cfg.Translate[i]
		r := &translation{name: c.Name, cfg: c}
		t.rules = append(t.rules, r)
		if err := g.openRule(r); err != nil {
			return fmt.Errorf("translate %s: %w", c.Name, err)
		}
	}
	t.rules = append(t.rules, relays...)
	return nil
}

// translates reports whether there is anything to trace.
func (g *Gateway) translates() bool { return len(g.cfg.Translate) > 0 || g.cfg.AcceptsHoma() }

// openRelays makes a relay for each entry of accept with action homa. Its name is no
// name that a rule can have.
func (g *Gateway) openRelays() (relays []*translation) {
	g.translate.relays = make([]*translate.Relay, len(g.cfg.Accept))
	for i := range g.cfg.Accept {
		a := &g.cfg.Accept[i]
		if a.Action != config.ActionHoma {
			continue
		}
		name := fmt.Sprintf("accept[%d]", i)
		r := translate.NewRelay(name, g.translate.tracer)
		g.translate.relays[i] = r
		relays = append(relays, &translation{name: name, accept: a, relay: r})
	}
	return relays
}

func (g *Gateway) openRule(r *translation) error {
	c := r.cfg
	rule, err := g.translateRule(c)
	if err != nil {
		return err
	}
	if c.From.Kind == config.TranslateHoma {
		if r.reverse, err = translate.NewReverse(rule, c.To.Addrs, g.dialServer(), g.translate.tracer); err != nil {
			return err
		}
		r.server, err = g.homa.Listen(c.From.Addr.Port(), r.reverse, rpc.ServeConfig{Concurrency: r.reverse.Concurrency()})
		return err
	}
	if r.forward, err = translate.NewForward(rule, c.To.Addrs[0], g.homaDialer(c.To), g.translate.tracer); err != nil {
		return err
	}
	if c.From.Kind == config.TranslateTunnel {
		g.translate.byFlow[c.From.Addr] = r
		return nil
	}
	r.listener, err = g.listenTCP(c.From.Addr)
	return err
}

// homaDialer chooses the way to a Homa server. It is the only place that does.
func (g *Gateway) homaDialer(to config.TranslateTo) translate.Dialer {
	if to.Via != "" {
		return homaVia{tunnel: g.homaTunnel, node: g.homaPeers, peer: to.Via}
	}
	return translate.Over(g.homa)
}

// translateRule is a rule in the words of package translate.
func (g *Gateway) translateRule(c *config.Translate) (translate.Rule, error) {
	f, err := framing.New(c.Framing)
	if err != nil {
		return translate.Rule{}, err
	}
	never := func(d time.Duration) time.Duration {
		if d == 0 {
			return -1
		}
		return d
	}
	rule := translate.Rule{
		Name: c.Name, Framing: f, Type: c.Framing.Type,
		Limits: translate.Limits{
			Conns: c.Limits.Connections, Outstanding: c.Limits.Outstanding, OutstandingAll: c.Limits.OutstandingAll,
			Buffered: c.Limits.Buffer, ServerConns: c.Limits.ServerConnections, Pipeline: c.Limits.Pipeline,
		},
		Timeouts: translate.Timeouts{
			Connect: c.Timeouts.Connect, Request: never(c.Timeouts.Request), Idle: never(c.Timeouts.Idle), Write: never(c.Timeouts.Write),
			Outage: c.Timeouts.Outage,
		},
		Retry: c.Retry, AnswerFailures: c.AnswerFailures, ProxyIn: c.ProxyIn, ProxyOut: c.ProxyOut,
	}
	if c.From.Kind != config.TranslateHoma {
		rule.Full = g.fullLog(c)
	}
	if c.AccessLog {
		rule.AccessLog = accessLog(g.logger("access"))
	}
	return rule, nil
}

// fullLog warns, once a minute at most, that a rule serves as many clients as it may.
func (g *Gateway) fullLog(c *config.Translate) func(client netip.AddrPort) {
	log := newLimitedLog(g.logger("translate"), time.Minute, 1)
	msg := "limits.connections is reached: clients wait"
	if c.From.Kind == config.TranslateTunnel {
		msg = "limits.connections is reached: clients are reset"
	}
	return func(client netip.AddrPort) {
		log.warn(msg, "rule", c.Name, "connections", c.Limits.Connections, "client", client)
	}
}

// serveTranslate serves the rules until ctx ends.
func (g *Gateway) serveTranslate(ctx context.Context, group *errgroup.Group) {
	t := &g.translate
	t.flows.ctx = ctx
	if g.homa != nil {
		group.Go(func() error { return g.watchHoma(ctx.Done()) })
	}
	for _, r := range t.rules {
		if r.listener == nil {
			continue
		}
		group.Go(func() error {
			if err := r.forward.Serve(ctx, r.listener); err != nil && ctx.Err() == nil {
				return fmt.Errorf("translate %s: %w", r.name, err)
			}
			return nil
		})
	}
}

// drainTranslate takes no new TCP clients, and waits until no request is under way
// or ctx ends. Requests of clients that are connected, and of Homa clients, are
// served meanwhile.
func (g *Gateway) drainTranslate(ctx context.Context) {
	for _, r := range g.translate.rules {
		if r.listener != nil {
			r.listener.drain()
		}
	}
	for tick := time.NewTicker(drainPoll); ; {
		n := 0
		for _, r := range g.translate.rules {
			s := r.stats()
			n += s.Outstanding + s.Streams
		}
		if n == 0 {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			g.log.Warn("requests that had not ended were given up", "requests", n)
			return
		}
	}
}

// closeTranslate ends what is left of the rules, once the context of
// serveTranslate has ended.
func (g *Gateway) closeTranslate() error {
	t := &g.translate
	t.flows.close()
	var errs []error
	for _, r := range t.rules {
		if r.listener != nil {
			r.listener.Close() // Serve has, unless it never began
		}
		if r.reverse != nil {
			errs = append(errs, r.reverse.Close())
		}
		if r.server != nil {
			r.server.Close()
		}
	}
	if g.homaPeers != nil {
		errs = append(errs, g.homaPeers.Close())
	}
	if g.homa != nil {
		errs = append(errs, g.homa.Close())
	}
	return errors.Join(errs...)
}

// translated returns the rule for flows to dst, or nil.
func (g *Gateway) translated(dst netip.AddrPort) *translation {
	return g.translate.byFlow[netip.AddrPortFrom(dst.Addr().Unmap().WithZone(""), dst.Port())]
}

// capturedTranslate hands a captured flow to a rule.
func (g *Gateway) capturedTranslate(ctx context.Context, p *tcpip.Pending, r *translation, src, dst netip.AddrPort) error {
	near, err := p.Accept(ctx)
	if err != nil {
		return err
	}
	g.serveFlow(r, near, dst, src, translate.Meta{Client: src}, 0)
	return nil
}

// serveFlow has a rule serve a flow, and releases its session after that.
func (g *Gateway) serveFlow(r *translation, s *tcpip.Stream, local, remote netip.AddrPort, meta translate.Meta, session uint64) {
	k := g.cfg.Flows.Keepalive
	s.SetKeepalive(k.Idle, k.Interval, k.Count)
	c := newConn(s, local, remote)
	ok := g.translate.flows.run(func(ctx context.Context) {
		r.forward.ServeConn(ctx, c, meta)
		g.release(session)
	})
	if !ok {
		c.Reset()
		g.release(session)
	}
}

// tasks are goroutines that are waited for.
type tasks struct {
	ctx    context.Context // of all of them
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// run starts f, unless the tasks are closed.
func (t *tasks) run(f func(context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(func() { f(t.ctx) })
	return true
}

// close waits for all, and starts no more.
func (t *tasks) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
}

// drainListener is a listener that can stop to take connections before it fails.
type drainListener struct {
	net.Listener
	draining  chan struct{}
	closed    chan struct{}
	drainOnce sync.Once
	closeOnce sync.Once
}

// listenTCP opens the socket of a rule.
func (g *Gateway) listenTCP(at netip.AddrPort) (*drainListener, error) {
	network, address := "tcp", at.String()
	switch {
	case !at.Addr().IsValid():
		address = fmt.Sprintf(":%d", at.Port())
	case at.Addr().Is4():
		network = "tcp4" // else 0.0.0.0 would be both families
	}
	lc := net.ListenConfig{KeepAlive: -1, KeepAliveConfig: g.keepalive()}
	l, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	return &drainListener{Listener: l, draining: make(chan struct{}), closed: make(chan struct{})}, nil
}

// drain closes the socket; Accept returns only after Close.
func (l *drainListener) drain() {
	l.drainOnce.Do(func() {
		close(l.draining)
		l.Listener.Close()
	})
}

// Accept implements net.Listener.
func (l *drainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		return c, nil
	}
	select {
	case <-l.draining:
		<-l.closed
		return nil, net.ErrClosed
	default:
		return nil, err
	}
}

// Close implements net.Listener.
func (l *drainListener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	l.drain()
	return nil
}

// keepalive is what the configuration says for kernel TCP. Without Enable a
// KeepAlive of -1 beside it turns probes off.
func (g *Gateway) keepalive() net.KeepAliveConfig {
	k := g.cfg.Flows.Keepalive
	return net.KeepAliveConfig{Enable: k.Idle > 0, Idle: k.Idle, Interval: k.Interval, Count: k.Count}
}

// dialServer connects to TCP servers, around what this host captures.
func (g *Gateway) dialServer() translate.Dial {
	if g.opt.DialServer != nil {
		return g.opt.DialServer
	}
	d := net.Dialer{KeepAlive: -1, KeepAliveConfig: g.keepalive()}
	if mark := g.mark(); mark != 0 {
		d.Control = func(_, _ string, c syscall.RawConn) error { return setMark(c, mark) }
	}
	return func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", to.String())
	}
}
