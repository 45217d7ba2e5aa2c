package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tougw/tougw/bridge"
	"github.com/tougw/tougw/config"
	"github.com/tougw/tougw/dtls"
	"github.com/tougw/tougw/internal/pki"
	"github.com/tougw/tougw/internal/simnet"
	"github.com/tougw/tougw/tcpip/tcptest"
	"github.com/tougw/tougw/tun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Addresses of the test network. Destinations are mapped to loopback with
// their port kept, since the servers are real.
var (
	clientAddr = netip.MustParseAddr("192.0.2.1")
	edgeAddr   = netip.MustParseAddr("203.0.113.7")
	destAddr   = netip.MustParseAddr("198.51.100.9")
	destAddr6  = netip.MustParseAddr("2001:db8::9")
	deadAddr   = netip.MustParseAddr("198.51.100.66")
	noRoute    = netip.MustParseAddr("198.51.100.67")
	noNet      = netip.MustParseAddr("198.51.100.68")
)

// world is a network in memory and a folder with keys.
type world struct {
	t   *testing.T
	net *simnet.Net
	dir string
}

func newWorld(t *testing.T, names ...string) *world {
	w := &world{t: t, net: simnet.New(simnet.Config{Seed: 1, Coalesce: true}), dir: t.TempDir()}
	t.Cleanup(func() { w.net.Close() })
	w.do(pki.CA(w.dir, pki.Validity{}))
	for _, n := range append(names, "edge", "laptop-1") {
		w.do(pki.Identity(n, w.dir, w.dir, pki.Validity{}))
	}
	return w
}

func (w *world) do(_ []string, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// running is a gateway that runs.
type running struct {
	*Gateway
	t    *testing.T
	host *tcptest.Host      // nil without a device
	stop context.CancelFunc // nil before run

	done  chan error
	ready chan struct{}
}

// memDevice is a Device in memory.
type memDevice struct {
	*tcptest.Device
	tso bool
}

func (d memDevice) Capabilities() tun.Capabilities {
	return tun.Capabilities{Backend: "memory", VnetHdr: d.tso, TSO4: d.tso, TSO6: d.tso, Csum: d.tso, Queues: d.Queues()}
}

// dialTest connects to destinations as the gateway's host would: real servers
// are on loopback, and the addresses that fail do so by name.
func dialTest(d *bridge.Dialer) func(context.Context, netip.AddrPort) (bridge.Stream, error) {
	return func(ctx context.Context, dst netip.AddrPort) (bridge.Stream, error) {
		switch dst.Addr() {
		case deadAddr:
			<-ctx.Done()
			return nil, ctx.Err()
		case noRoute:
			return nil, fmt.Errorf("connect: %w", syscall.EHOSTUNREACH)
		case noNet:
			return nil, fmt.Errorf("connect: %w", syscall.ENETUNREACH)
		}
		return d.Dial(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dst.Port()))
	}
}

// start runs a gateway from YAML at an address of the network, and waits until
// it is ready.
func (w *world) start(at netip.Addr, yaml string) *running {
	w.t.Helper()
	r := w.prepare(at, yaml)
	r.run()
	select {
	case <-r.ready:
	case err := <-r.done:
		w.t.Fatalf("%s did not start: %v", r.cfg.Name, err)
	case <-time.After(10 * time.Second):
		w.t.Fatalf("%s did not start in 10 s", r.cfg.Name)
	}
	return r
}

// prepare makes a gateway that does not run yet; change may still change its
// options.
func (w *world) prepare(at netip.Addr, yaml string, change ...func(*Options)) *running {
	w.t.Helper()
	name := strings.Fields(yaml)[1]
	file := filepath.Join(w.dir, name+".yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		w.t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg.Admin.Socket = filepath.Join(w.dir, name+".sock")
	r := &running{t: w.t, done: make(chan error, 1), ready: make(chan struct{})}
	var dialer *bridge.Dialer
	opt := Options{
		Version: "test", Ready: func() { close(r.ready) }, DrainTimeout: 200 * time.Millisecond,
		Listen: func(bind netip.AddrPort) (dtls.Socket, error) {
			return w.net.Socket(netip.AddrPortFrom(at, bind.Port()))
		},
		OpenDevice: func(tun.Config) (Device, error) {
			dev, host := tcptest.NewPair(tcptest.Config{TSO: true, Queues: 2})
			r.host = host
			return memDevice{dev, true}, nil
		},
		LocalAddrs: func() ([]netip.Addr, error) { return []netip.Addr{at}, nil },
	}
	if os.Getenv("TOUGW_TEST_LOG") != "" {
		opt.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", name)
	}
	dialer = bridge.NewDialer(bridge.DialerConfig{})
	opt.DialTCP = dialTest(dialer)
	for _, f := range change {
		f(&opt)
	}
	g, err := New(cfg, opt)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Gateway = g
	w.t.Cleanup(func() {
		if r.stop != nil {
			r.end()
		}
		dialer.Close()
		if r.host != nil {
			r.host.Close()
		}
	})
	return r
}

// run runs the gateway in a goroutine.
func (r *running) run() {
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() { r.done <- r.Run(ctx) }()
}

// end stops the gateway and waits for it. It is idempotent.
func (r *running) end() {
	r.stop()
	select {
	case err, ok := <-r.done:
		if ok {
			close(r.done)
		}
		if err != nil {
			r.t.Errorf("Run of %s: %v", r.cfg.Name, err)
		}
	case <-time.After(20 * time.Second):
		r.t.Fatalf("%s did not stop in 20 s", r.cfg.Name)
	}
}

const edgeYAML = `name: edge
identity: {cert: edge.crt, key: edge.key, ca: ca.crt}
listen: ["203.0.113.7:443"]
accept:
  - {peer: "laptop-*", dst: ["198.51.100.0/24", "2001:db8::/32", "10.0.0.0/8"], ports: ["1-65535"], action: tcp}
  - {peer: "laptop-*", dst: ["127.0.0.0/8"], action: tcp}
`

func clientYAML(name string) string {
	return `name: ` + name + `
identity: {cert: ` + name + `.crt, key: ` + name + `.key, ca: ca.crt}
tun: {addresses: ["10.77.0.7/32", "fd00:77::7/128"], routes: ["198.51.100.0/24"]}
peers: [{name: edge, endpoints: ["203.0.113.7:443"], server_name: edge}]
rules:
  - {dst: ["198.51.100.13/32"], action: reject}
  - {dst: ["198.51.100.14/32"], action: direct}
  - {action: tunnel, peer: edge}
associations: {session_grace: 30s}
`
}

// pair starts an edge and a client and waits until the client is connected.
func (w *world) pair() (client, edge *running) {
	edge = w.start(edgeAddr, edgeYAML)
	client = w.start(clientAddr, clientYAML("laptop-1"))
	w.waitUp(client)
	return client, edge
}

func (w *world) waitUp(r *running) {
	w.t.Helper()
	eventually(w.t, "peer up", func() bool { ok, _ := r.Ready(); return ok })
}

// eventually polls until f is true, for up to 30 s.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// serve runs a TCP server on loopback and returns its port.
func serve(t *testing.T, handle func(*net.TCPConn)) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c.(*net.TCPConn))
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

func (r *running) dial(addr netip.Addr, port uint16) *tcptest.Conn {
	r.t.Helper()
	c, err := r.tryDial(addr, port, 20*time.Second)
	if err != nil {
		r.t.Fatalf("dial %v:%d: %v", addr, port, err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func (r *running) tryDial(addr netip.Addr, port uint16, patience time.Duration) (*tcptest.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.host.Dial(ctx, netip.AddrPortFrom(addr, port))
}

// noise is a reproducible stream of n bytes.
func noise(seed uint64, n int64) io.Reader {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	return io.LimitReader(rand.NewChaCha8(key), n)
}

func digest(r io.Reader) ([32]byte, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return [32]byte(h.Sum(nil)), n, err
}

// download reads size bytes from a server that sends noise, checks them, and
// returns an error that says what is wrong.
func download(c io.ReadWriteCloser, seed uint64, size int64) error {
	want, _, _ := digest(noise(seed, size))
	got, n, err := digest(c)
	switch {
	case err != nil:
		return fmt.Errorf("after %d of %d bytes: %w", n, size, err)
	case n != size:
		return fmt.Errorf("%d bytes of %d", n, size)
	case got != want:
		return errors.New("other bytes than were sent")
	}
	return nil
}
