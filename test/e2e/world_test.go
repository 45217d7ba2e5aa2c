package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// options say how a test's world differs from the usual one: a client and a
// gateway, up, with certificates of one authority.
type options struct {
	net testnet.Options
	// client and gateway change the configurations.
	client, gateway func(*lab.Config)
	// limit is how long the test may take, 2 minutes by default. Everything
	// that waits in a test ends with it.
	limit time.Duration
	// bulk tests do not record packets, which would slow them down.
	bulk bool
	// idle leaves the daemons to the test.
	idle bool
}

// world is a lab with a client and a gateway, for one test.
type world struct {
	*lab.Lab
	t   *testing.T
	ctx context.Context
	// client is the daemon of the first site.
	client, gateway *lab.Daemon
}

// newWorld builds the network, makes identities, starts both daemons and waits
// until they have each other. The test's end takes it all down and fails the
// test if a daemon panicked, raced or did not stop.
func newWorld(t *testing.T, o options) *world {
	t.Helper()
	testnet.Require(t)
	if o.limit == 0 {
		o.limit = 2 * time.Minute
	}
	l, err := lab.New(binary, o.net)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), o.limit, fmt.Errorf("the test's limit of %v is over", o.limit))
	w := &world{Lab: l, t: t, ctx: ctx}
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			w.snapshot()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			w.keep()
		}
		if err := l.RemoveDir(); err != nil {
			t.Error(err)
		}
	})
	if !o.bulk {
		w.record(w.Sites[0].Gateway, "client")
		w.record(w.Gateway, "gateway")
	}
	w.must(l.Keygen(ctx, "client", "gateway"))
	if o.idle {
		return w
	}
	gateway, client := lab.GatewayConfig(), lab.ClientConfig("client")
	if o.gateway != nil {
		o.gateway(&gateway)
	}
	if o.client != nil {
		o.client(&client)
	}
	w.gateway = w.start(w.Gateway, gateway)
	w.client = w.start(w.Sites[0].Gateway, client)
	w.up(w.client)
	return w
}

// must ends the test on an error.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// run runs a subtest in the same world.
func (w *world) run(name string, f func(w *world, t *testing.T)) {
	w.t.Run(name, func(t *testing.T) {
		sub := *w
		sub.t = t
		f(&sub, t)
	})
}

// within is the world's context with a nearer end, for the duration of the
// test.
func (w *world) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeoutCause(w.ctx, d, fmt.Errorf("not within %v", d))
	w.t.Cleanup(cancel)
	return ctx
}

// start starts a daemon.
func (w *world) start(ns *testnet.Namespace, c lab.Config) *lab.Daemon {
	w.t.Helper()
	d, err := w.Start(w.ctx, ns, c)
	w.must(err)
	return d
}

// up waits until the client's peer is up.
func (w *world) up(client *lab.Daemon) {
	w.t.Helper()
	w.must(client.WaitPeer(w.within(20*time.Second), "gateway", "up"))
}

// app is the namespace of the first application.
func (w *world) app() *testnet.Namespace { return w.Sites[0].App }

// eventually waits for check to succeed.
func (w *world) eventually(d time.Duration, check func() error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeoutCause(w.ctx, d, fmt.Errorf("not within %v", d))
	defer cancel()
	w.must(testnet.Poll(ctx, check))
}

// record captures the headers of what passes through a namespace, the last few
// megabytes of it.
func (w *world) record(ns *testnet.Namespace, name string) {
	w.t.Helper()
	c, err := ns.Capture(w.ctx, testnet.CaptureOptions{Link: "any", File: w.Path(name + ".pcap"), Snap: 128, Megabytes: 8})
	w.must(err)
	// The capture's process dies with the namespace; a failed test wants what
	// it has seen until then.
	_ = c
}

// snapshot writes down what the daemons say of themselves, before they end.
func (w *world) snapshot() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, name := range []string{"client", "gateway"} {
		for _, question := range []string{"status", "flows"} {
			out, err := w.Tougw(ctx, question, "--socket", w.Path(name+".sock"))
			if err != nil {
				out += err.Error()
			}
			if _, err := w.WriteFile(name+"-"+question+".txt", out); err != nil {
				w.t.Log(err)
			}
		}
	}
}

// keep copies the lab's folder to the results, except what is large.
func (w *world) keep() {
	const large = 20 << 20
	to := filepath.Join(results, strings.ReplaceAll(w.t.Name(), "/", "_"))
	err := filepath.WalkDir(w.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > large {
			return err
		}
		rel, err := filepath.Rel(w.Dir, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
	if err != nil {
		w.t.Log(err)
	}
	w.t.Logf("logs, configuration and packets: %s", to)
}

// serve answers TCP connections in the server's namespace until the test ends,
// each with handler in a goroutine of its own; the connection is closed when
// handler returns. It returns the address, of the family of addr.
func (w *world) serve(addr netip.Addr, handler func(*net.TCPConn)) netip.AddrPort {
	w.t.Helper()
	return w.serveAt(w.Server, netip.AddrPortFrom(addr, 0), handler)
}

// serveAt is serve in any namespace and on any port.
func (w *world) serveAt(ns *testnet.Namespace, at netip.AddrPort, handler func(*net.TCPConn)) netip.AddrPort {
	w.t.Helper()
	l, err := ns.Listen("tcp", at.String())
	w.must(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				// No handler outlives its test by much, whatever happens.
				if deadline, ok := w.ctx.Deadline(); ok {
					_ = c.SetDeadline(deadline)
				}
				handler(c.(*net.TCPConn))
			}()
		}
	}()
	w.t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// dial connects from the first application.
func (w *world) dial(to netip.AddrPort) (*net.TCPConn, error) {
	return w.dialFrom(w.app(), to, 10*time.Second)
}

// dialFrom connects from a namespace. The connection's deadline is the test's.
func (w *world) dialFrom(ns *testnet.Namespace, to netip.AddrPort, patience time.Duration) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	c, err := ns.Dial(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	if deadline, ok := w.ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn), nil
}

// mustDial is dial for connections that have to come about.
func (w *world) mustDial(to netip.AddrPort) *net.TCPConn {
	w.t.Helper()
	c, err := w.dial(to)
	w.must(err)
	return c
}

// ask opens a flow, sends a line and expects it back: the shortest sign of
// life.
func (w *world) ask(ns *testnet.Namespace, to netip.AddrPort) error {
	c, err := w.dialFrom(ns, to, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return echoed(c, "sign of life")
}

// echoed sends text on a connection to an echo server and expects it back.
func echoed(c *net.TCPConn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("echo of %q is %q", text, got)
	}
	return nil
}

// echo is a handler that returns what it reads, and the end of it.
func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// timedOut tells an error of a time-out from others.
func timedOut(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// content is size bytes that do not compress, the same for the same seed.
func content(seed byte, size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// file puts content under www of the lab, where nginx serves it, and returns
// its hash.
func (w *world) file(name string, b []byte) string {
	w.t.Helper()
	_, err := w.WriteFile("www/"+name, string(b))
	w.must(err)
	return sum(b)
}

// sumFile hashes a file in the lab's folder.
func (w *world) sumFile(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(w.Path(name))
	w.must(err)
	return sum(b)
}

// url of a path on the server, in the family of addr.
func url(addr netip.Addr, path string) string {
	return "http://" + netip.AddrPortFrom(addr, lab.HTTPPort).String() + "/" + path
}

// curl runs curl in the application's namespace.
func (w *world) curl(args ...string) string {
	w.t.Helper()
	out, err := w.app().Run(w.ctx, "curl", append([]string{"-sS", "--fail", "--max-time", "60"}, args...)...)
	w.must(err)
	return out
}
