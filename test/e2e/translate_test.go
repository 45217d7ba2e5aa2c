package e2e

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/admin"
	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// doorAddr is the near gateway's address for the application.
var doorAddr = netip.MustParseAddr("10.1.0.1")

// homaPort is the first Homa port of the far gateway.
const homaPort = 4000

// service is a TCP server behind two translators, by the same framing at both:
//
//	application ── TCP ── near gateway ── Homa ── far gateway ── TCP ── server
type service struct {
	name    string
	port    uint16 // of the near gateway, and of the server
	behind  uint16 // of the server, if it is another one
	framing string // YAML
	more    string // YAML of further keys of the near rule, such as "retry: true"
	far     string // the same of the far rule, instead of its usual time-outs
}

// Framings of real programs.
var (
	webService   = service{name: "web", port: lab.HTTPPort, framing: "{type: http1}"}
	redisService = service{name: "redis", port: 6379, framing: "{type: resp}"}
	cacheService = service{name: "cache", port: 11211, framing: "{type: memcached}"}
	nameService  = service{name: "names", port: 53, framing: "{type: dns}"}
	shellService = service{name: "shell", port: lab.SSHPort, framing: "{type: stream}"}
)

// direct and through are the two ways to a service.
func (s service) direct() netip.AddrPort {
	return netip.AddrPortFrom(testnet.ServerAddr, cmp.Or(s.behind, s.port))
}
func (s service) through() netip.AddrPort { return netip.AddrPortFrom(doorAddr, s.port) }

// translators is a world without a tunnel: two gateways that translate, with a
// fabric between them, and a plain route past them for comparison.
type translators struct {
	*world
	services []service
}

// patient is for machines that run many tests at once: a gateway that does not get
// the processor for 100 ms is not dead.
const patient = "timeout: 2s"

// newTranslators starts both gateways for the services; homa holds further keys of
// this name, and another timeout than patient if need be.
func newTranslators(t *testing.T, services []service, homa ...string) *translators {
	t.Helper()
	w := &translators{newWorld(t, options{idle: true, limit: 5 * time.Minute}), services}
	w.must(w.RoutePlain())
	t.Cleanup(func() {
		if t.Failed() {
			w.requests()
		}
	})
	// Idle connections to servers end soon, so that what stays is a leak.
	near, far := "translate:\n", "translate:\n"
	for i, s := range services {
		more := ""
		if s.more != "" {
			more = ", " + s.more
		}
		near += fmt.Sprintf("  - {name: %s, from: {tcp: \"%v\"}, to: {homa: \"%v:%d\"}, framing: %s%s}\n",
			s.name, s.through(), testnet.GatewayAddr, homaPort+i, s.framing, more)
		further := cmp.Or(s.far, "timeouts: {idle: 1s}")
		if s.far == "" && strings.Contains(s.framing, "stream") {
			further = "timeouts: {connect: 2s}"
		}
		for _, words := range []service{webService, redisService, cacheService, nameService} {
			if s.far == "" && s.framing == words.framing {
				further += ", failures: answer"
			}
		}
		far += fmt.Sprintf("  - {name: %s, from: {homa: \":%d\"}, to: {tcp: \"%v\"}, framing: %s, %s}\n",
			s.name, homaPort+i, s.direct(), s.framing, further)
	}
	if !slices.ContainsFunc(homa, func(key string) bool { return strings.HasPrefix(key, "timeout:") }) {
		homa = append(homa, patient)
	}
	fabric := fmt.Sprintf("homa: {%s}", strings.Join(homa, ", "))
	w.gateway = w.start(w.Gateway, lab.Config{Name: "gateway", More: []string{far, fabric}})
	w.client = w.start(w.Sites[0].Gateway, lab.Config{Name: "client", More: []string{near, fabric}})
	return w
}

// requests logs what the gateways remember of requests, for a test that failed.
func (w *translators) requests() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, name := range []string{"client", "gateway"} {
		out, err := w.Tougw(ctx, "trace", "--last", "--errors", "--socket", w.Path(name+".sock"))
		w.t.Logf("requests that failed at the %s: %v\n%.5000s", name, err, out)
	}
}

// run runs a subtest in the same world.
func (w *translators) run(name string, f func(w *translators, t *testing.T)) {
	w.world.run(name, func(sub *world, t *testing.T) { f(&translators{sub, w.services}, t) })
}

// need installs programs of Debian that are missing, each PROGRAM=PACKAGE.
func need(t *testing.T, programs ...string) {
	t.Helper()
	testnet.Require(t)
	out, err := exec.CommandContext(t.Context(), "../need", programs...).CombinedOutput()
	switch {
	case err == nil:
	case os.Getenv(testnet.Required) != "":
		t.Fatalf("%v: %s", err, out)
	default:
		t.Skipf("%v: %s", err, out)
	}
}

// program finds a program where PATH of a user does not lead, too.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return "/usr/sbin/" + name
}

// server starts a program on the server's host and waits until it listens.
func (w *translators) server(name string, port uint16, args ...string) *testnet.Process {
	w.t.Helper()
	p, err := w.Go(w.Server, name, program(name), args...)
	w.must(err)
	w.must(w.Server.WaitListening(w.within(20*time.Second), port))
	return p
}

// output runs a program of the application and returns what it writes.
func (w *translators) output(input, name string, args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	out, err := w.app().RunInput(ctx, input, program(name), args...)
	if err != nil {
		w.t.Fatalf("%s %s: %v; it wrote %.500q", name, strings.Join(args, " "), err, out)
	}
	return out
}

// same has f use the service directly and through the gateways, and wants the same
// result.
func (w *translators) same(what string, s service, f func(at netip.AddrPort) string) {
	w.t.Helper()
	want, got := f(s.direct()), f(s.through())
	if want == "" {
		w.t.Errorf("%s: an empty answer proves nothing", what)
	}
	if got != want {
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		w.t.Errorf("%s: %d bytes, want %d; different from byte %d on:\ngot  %.300q\nwant %.300q", what, len(got), len(want), i, got[i:], want[i:])
	}
}

// halfClosed is an end for exchange: it closes its half after the request, and
// wants all that comes until the other half is closed. Servers differ in what they
// do then: some drop answers.
const halfClosed = "(half-closed)"

// exchange writes bytes to a service in pieces of size step, all at once with 0,
// and returns what comes back up to and with end; with an empty one all that comes
// until the server closes.
func (w *translators) exchange(at netip.AddrPort, request string, step int, end string) string {
	w.t.Helper()
	c, err := w.dial(at)
	w.must(err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if step == 0 {
		step = len(request)
	}
	go func() {
		for rest := request; rest != ""; {
			n := min(step, len(rest))
			if _, err := io.WriteString(c, rest[:n]); err != nil {
				return // the answer shows it
			}
			rest = rest[n:]
		}
		if end == halfClosed {
			_ = c.CloseWrite()
		}
	}()
	var answer []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		answer = append(answer, buf[:n]...)
		switch {
		case end != "" && bytes.HasSuffix(answer, []byte(end)), (end == "" || end == halfClosed) && err == io.EOF:
			return string(answer)
		case err != nil:
			w.t.Fatalf("%v: %v after %d bytes: %.300q", at, err, len(answer), answer)
		}
	}
}

// rule is what a daemon says of one of its rules.
func (w *translators) rule(d *lab.Daemon, name string) *admin.Translation {
	w.t.Helper()
	s, err := d.Status(w.ctx)
	w.must(err)
	for _, r := range s.Translations {
		if r.Name == name {
			return &r
		}
	}
	w.t.Fatalf("%s has no rule %s", d.Name, name)
	return nil
}

// leftovers is what may not grow from request to request.
type leftovers struct{ goroutines, descriptors int }

// settled waits until nothing of any request is left at either gateway, and
// returns what they hold then.
func (w *translators) settled() map[string]leftovers {
	w.t.Helper()
	held := map[string]leftovers{}
	for _, d := range []*lab.Daemon{w.client, w.gateway} {
		w.eventually(30*time.Second, func() error {
			m, err := d.Metrics(w.ctx)
			if err != nil {
				return err
			}
			for _, name := range []string{
				"tougw_translate_connections", "tougw_translate_outstanding_requests", "tougw_translate_waiting_requests",
				"tougw_translate_buffered_bytes", "tougw_translate_streams", "tougw_translate_server_connections",
				"tougw_homa_rpcs", "tougw_homa_memory_bytes",
			} {
				v, ok := m[name]
				if !ok && name != "tougw_translate_server_connections" {
					return fmt.Errorf("%s does not tell %s", d.Name, name)
				}
				if v != 0 {
					return fmt.Errorf("%s: %s is %v", d.Name, name, v)
				}
			}
			u, err := d.Usage()
			held[d.Name] = leftovers{int(m["go_goroutines"]), u.Descriptors}
			return err
		})
	}
	return held
}

// idleWorkers is how many goroutines a Homa port may keep for the next requests.
const idleWorkers = 128

// clean waits until both gateways hold no more than before.
func (w *translators) clean(before map[string]leftovers) {
	w.t.Helper()
	w.eventually(30*time.Second, func() error {
		for name, a := range w.settled() {
			most := before[name].goroutines + 5
			if name == w.gateway.Name {
				most += idleWorkers
			}
			if b := before[name]; a.goroutines > most || a.descriptors > b.descriptors+3 {
				return fmt.Errorf("%s: %d goroutines and %d descriptors, %d and %d before", name, a.goroutines, a.descriptors, b.goroutines, b.descriptors)
			}
		}
		return nil
	})
}

// rawServer is a TCP server of the test on the server's host, at the service's
// port.
func (w *translators) rawServer(s service, handler func(*net.TCPConn)) {
	w.t.Helper()
	w.serveAt(w.Server, s.direct(), handler)
}
