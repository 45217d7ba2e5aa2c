package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tougw/tougw/bridge"
	"github.com/tougw/tougw/config"
	"github.com/tougw/tougw/dtls"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rawip"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/internal/admin"
	"github.com/tougw/tougw/internal/metrics"
	"github.com/tougw/tougw/internal/policy"
	"github.com/tougw/tougw/internal/udp"
	"github.com/tougw/tougw/tcpip"
	"github.com/tougw/tougw/translate"
	"github.com/tougw/tougw/tun"
	"github.com/tougw/tougw/tunnel"
)

const (
	// peerWait is how long a captured flow waits for the association of its
	// peer before its application is told that the way is unreachable. It
	// covers a handshake that is under way, with one lost flight.
	peerWait = 5 * time.Second
	// socketBuffer is the size asked for each direction of a UDP socket, in
	// bytes: 16 MiB hold 100 ms at 1.3 Gbit/s.
	socketBuffer = 16 << 20
)

// Device is the capturing device: tun.Device, or one in memory.
type Device interface {
	tcpip.Device
	Name() string
	Capabilities() tun.Capabilities
	Close() error
}

// Options are what New needs beside the configuration. Zero fields stand for
// the real thing.
type Options struct {
	// Logger is used by every part, with an attribute "subsystem".
	Logger *slog.Logger
	// Version is shown in status.
	Version string
	// DrainTimeout bounds how long Run waits for flows to end when it is asked
	// to stop; zero is none.
	DrainTimeout time.Duration
	// Ready is called once everything is up.
	Ready func()

	// OpenDevice replaces tun.Open.
	OpenDevice func(tun.Config) (Device, error)
	// Listen replaces the UDP sockets; bind has port 0 for a dialling socket.
	Listen func(bind netip.AddrPort) (dtls.Socket, error)
	// DialTCP replaces the kernel's TCP towards destinations.
	DialTCP func(ctx context.Context, dst netip.AddrPort) (bridge.Stream, error)
	// OpenHoma replaces the raw sockets of Homa.
	OpenHoma func(rawip.Config) (carrier.Carrier, error)
	// DialServer replaces the kernel's TCP towards servers of translations.
	DialServer translate.Dial
	// LocalAddrs replaces the addresses of this host in policy.
	LocalAddrs func() ([]netip.Addr, error)
}

// Gateway is one configured gateway. Run runs it, once.
type Gateway struct {
	cfg *config.Config
	opt Options
	log *slog.Logger
	// refused warns of peers and flows that were turned away.
	refused *limitedLog
	cred    credentials
	reg     *metrics.Registry

	rules  *policy.Table
	accept *policy.Table
	guard  *policy.Guard // which addresses are ours

	node   *tunnel.Node
	stack  *tcpip.Tunnel
	bridge *bridge.Bridge
	listen *association // associations of peers that dial; nil without listen
	dials  []*association
	edge   *tcpip.Edge
	device Device

	dialTCP     func(ctx context.Context, dst netip.AddrPort) (bridge.Stream, error)
	closeDialer func() error

	homa        *rpc.Node   // nil without a rule that needs it
	homaTunnel  *homaTunnel // nil where no Homa goes to or comes from peers
	homaPeers   *rpc.Node   // on homaTunnel
	homaCarrier carrier.Carrier
	translate   translations

	started  time.Time
	ran      atomic.Bool
	ready    atomic.Bool
	draining atomic.Bool
	opening  atomic.Int64
	failed   [numFailures]atomic.Uint64

	mu      sync.Mutex
	sockets []socketEntry
	former  udp.Stats // of sockets that were replaced
}

// errRan refuses a second Run: its parts are used up.
var errRan = errors.New("gateway: was run already")

// New prepares a gateway: it reads the key files that cfg names and checks
// that the parts fit together.
func New(cfg *config.Config, opt Options) (*Gateway, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{cfg: cfg, opt: opt, log: opt.Logger.With("subsystem", "gateway")}
	g.refused = newLimitedLog(g.log, time.Second, 10)
	var err error
	if g.cred, err = loadCredentials(&cfg.Identity); err != nil {
		return nil, err
	}
	if err := g.buildPolicy(); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Gateway) logger(subsystem string) *slog.Logger {
	return g.opt.Logger.With("subsystem", subsystem)
}

// mark is the firewall mark of our own packets; 0 where nothing is captured.
func (g *Gateway) mark() uint32 {
	if g.cfg.Tun == nil {
		return 0
	}
	return g.cfg.Tun.Mark
}

// Run brings everything up, carries flows until ctx ends, drains, and takes
// everything down again. Errors of starting are returned at once, with the
// host as it was before. It may be called once.
func (g *Gateway) Run(ctx context.Context) (err error) {
	if g.ran.Swap(true) {
		return errRan
	}
	g.started = time.Now()
	// The parts outlive ctx: flows are drained before they stop.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, inner := errgroup.WithContext(inner)
	if err := g.buildPath(); err != nil {
		return err
	}
	g.reg = g.buildMetrics()
	// Whatever fails below, what was started ends before Run returns.
	defer func() {
		g.endFlows()
		stop()
		err = errors.Join(err, g.closeAll())
		if werr := group.Wait(); err == nil && werr != nil && !errors.Is(werr, context.Canceled) {
			err = werr
		}
	}()

	// The admin socket comes first, since it tells whether we run already, but
	// is answered only when there is something to tell.
	adminListener, httpListener, err := g.listenAdmin()
	if err != nil {
		return err
	}
	listeners, err := g.openListeners()
	if err == nil {
		if err = g.openTranslate(); err == nil {
			err = g.openDevice()
		}
		if err != nil {
			for _, s := range listeners {
				s.Close()
			}
		}
	}
	if err != nil {
		for _, l := range []net.Listener{adminListener, httpListener} {
			if l != nil {
				l.Close()
			}
		}
		return err
	}
	srv := admin.NewServer(g)
	if adminListener != nil {
		group.Go(func() error { return admin.Serve(inner, adminListener, srv.Handler()) })
	}
	if httpListener != nil {
		group.Go(func() error { return admin.Serve(inner, httpListener, srv.Public(g.reg.Handler())) })
	}
	for _, s := range listeners {
		group.Go(func() error {
			if err := g.listen.endpoint.Serve(inner, s); err != nil && inner.Err() == nil {
				return fmt.Errorf("listening on %s: %w", s.LocalAddr(), err)
			}
			return nil
		})
	}
	g.serveTranslate(inner, group)
	group.Go(func() error { return g.node.Run(inner) })
	if g.edge != nil {
		group.Go(func() error {
			if err := g.edge.Run(inner); err != nil && inner.Err() == nil {
				return fmt.Errorf("capture on %s: %w", g.device.Name(), err)
			}
			return nil
		})
	}
	g.ready.Store(true)
	g.log.Info("running", "name", g.cfg.Name, "version", g.opt.Version, "listen", g.cfg.Listen, "admin", g.cfg.Admin.Socket)
	if g.opt.Ready != nil {
		g.opt.Ready()
	}

	select {
	case <-ctx.Done():
		g.drain()
		return nil
	case <-inner.Done(): // a part has failed; its error comes from group, once the others have ended
		return nil
	}
}

// drain lets flows end by themselves for a while, and opens no new ones.
func (g *Gateway) drain() {
	g.ready.Store(false)
	g.draining.Store(true)
	d := g.opt.DrainTimeout
	g.log.Info("stopping", "flows", g.bridge.Len(), "drain", d)
	g.node.Drain(d)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	g.drainTranslate(ctx)
	if err := g.bridge.Close(ctx); err != nil {
		g.log.Warn("flows that had not ended were reset")
	}
}

// endFlows resets the flows that are left and takes no new ones. It comes
// before the end of the associations, so that their resets arrive.
func (g *Gateway) endFlows() {
	g.ready.Store(false)
	g.draining.Store(true)
	done, cancel := context.WithCancel(context.Background())
	cancel()
	_ = g.bridge.Close(done) // says that flows were reset, which is the point
}

// closeAll ends the parts in the order in which data flows: stacks,
// associations, sockets and the device.
func (g *Gateway) closeAll() error {
	errs := []error{g.closeTranslate()}
	if g.device != nil {
		errs = append(errs, g.device.Close())
	}
	errs = append(errs, g.stack.Close())
	for _, a := range g.associations() {
		errs = append(errs, a.endpoint.Close())
	}
	errs = append(errs, g.closeDialer())
	return errors.Join(errs...)
}

func (g *Gateway) listenAdmin() (unix, tcp net.Listener, err error) {
	if path := g.cfg.Admin.Socket; path != "" {
		if unix, err = admin.ListenUnix(path); err != nil {
			return nil, nil, err
		}
	}
	if a := g.cfg.Admin.HTTP; a.IsValid() {
		if tcp, err = net.Listen("tcp", a.String()); err != nil {
			if unix != nil {
				unix.Close()
			}
			return nil, nil, fmt.Errorf("admin http: %w", err)
		}
	}
	return unix, tcp, nil
}

func (g *Gateway) listenUDP(bind netip.AddrPort) (dtls.Socket, error) {
	if g.opt.Listen != nil {
		return g.opt.Listen(bind)
	}
	return udp.Listen(g.socketConfig(bind))
}

func (g *Gateway) socketConfig(bind netip.AddrPort) udp.Config {
	off := g.cfg.Associations.Offload == config.OffloadOff
	return udp.Config{
		Bind: bind, Mark: g.mark(), RecvBuffer: socketBuffer, SendBuffer: socketBuffer, NoGSO: off, NoGRO: off,
	}
}
