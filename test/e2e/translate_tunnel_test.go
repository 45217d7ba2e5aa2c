package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/admin"
	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// behindTunnel is a Homa server behind the gateway, that answers by nginx beside
// it. The gateway has only Homa to it:
//
//	curl ── TUN ── client ── tunnel ── gateway ── Homa ── far ── nginx
func behindTunnel(t *testing.T) (w *world, far *lab.Daemon) {
	at := netip.AddrPortFrom(testnet.ServerAddr, lab.HTTPPort)
	w = newWorld(t, options{gateway: func(c *lab.Config) {
		c.Accept = []string{fmt.Sprintf("{peer: \"client*\", dst: [\"%v/32\"], action: homa}", testnet.ServerAddr)}
		c.More = append(c.More, fmt.Sprintf(`translate:
  - name: web
    from: {tunnel: {dst: %v, port: %d}}
    to: {homa: "%v:4000"}
    framing: {type: http1}
    access_log: true
homa: {resend: 20ms, timeout: 5s}`, at.Addr(), at.Port(), testnet.ServerAddr))
	}})
	w.must(w.Nginx(w.ctx))
	w.must(w.Keygen(w.ctx, "far"))
	far = w.start(w.Server, lab.Config{Name: "far", More: []string{fmt.Sprintf(`translate:
  - name: nginx
    from: {homa: ":4000"}
    to: {tcp: "%v"}
    framing: {type: http1}
homa: {resend: 20ms, timeout: 5s}`, at)}})
	return w, far
}

// TestTranslateTunnelledFlows takes captured flows through the tunnel and goes on
// by Homa, and looks at each request from both ends.
func TestTranslateTunnelledFlows(t *testing.T) {
	t.Parallel()
	w, far := behindTunnel(t)
	want := w.file("page", content(1, 700_000))
	live, err := w.trace(w.gateway, "--rule", "web")
	w.must(err)
	for range 3 {
		w.curl("-o", w.Path("got"), url(testnet.ServerAddr, "page"))
		if got := w.sumFile("got"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	// What only Homa may reach is not connected by TCP.
	if _, err := w.dialFrom(w.app(), netip.AddrPortFrom(testnet.ServerAddr, 4000), 5*time.Second); err == nil {
		t.Error("a port without a rule is connected")
	}

	var ids []string // the last column but one, which is the id of a relayed RPC
	for range 3 {
		line, err := live()
		w.must(err)
		if f := strings.Fields(line); len(f) > 6 && f[1] == "web" && f[2] == "GET" && f[len(f)-3] == "ok" && f[len(f)-1] == "-" {
			ids = append(ids, f[len(f)-2])
		} else {
			t.Errorf("trace: %s", line)
		}
	}
	for _, end := range []struct {
		at   *lab.Daemon
		rule string
		ok   func(r *admin.Request) bool
	}{
		{w.gateway, "web", func(r *admin.Request) bool { return r.Peer == "client" && r.Name == "GET" && r.GrantsSent > 0 }},
		{far, "nginx", func(r *admin.Request) bool { return r.Direction == "homa-tcp" && r.GrantsReceived > 0 }},
	} {
		w.eventually(10*time.Second, func() error {
			kept, err := w.kept(end.at, "--addr", testnet.ServerPrefix.String())
			if err != nil {
				return err
			}
			n := 0
			for _, r := range kept {
				if slices.Contains(ids, r.ID) && r.Rule == end.rule && r.Result == "ok" && r.ResponseBytes > 700_000 && end.ok(&r) {
					n++
				}
			}
			if n != len(ids) {
				return fmt.Errorf("%s knows %d of %v: %+v", end.at.Name, n, ids, kept)
			}
			return nil
		})
	}
	out, err := w.Tougw(w.ctx, "trace", "--last", "--rule", "web", "--min-latency", "1us", "--socket", w.gateway.Socket())
	if w.must(err); strings.Count(out, "\n") != 4 || !strings.HasPrefix(out, "TIME") {
		t.Errorf("trace --last:\n%s", out)
	}
	out, err = w.Tougw(w.ctx, "trace", "--last", "--errors", "--socket", w.gateway.Socket())
	if w.must(err); out != "" {
		t.Errorf("trace --last --errors:\n%s", out)
	}
	w.mustStatus(w.gateway, "web", 3)
	w.mustStatus(far, "nginx", 3)
	metrics, err := w.gateway.Metrics(w.ctx)
	w.must(err)
	if n := metrics[`tougw_translate_requests_total{result="ok",rule="web"}`]; n != 3 {
		t.Errorf("%v requests in the metrics", n)
	}
}

// mustStatus wants a rule with that many requests and no failure.
func (w *world) mustStatus(d *lab.Daemon, rule string, requests uint64) {
	w.t.Helper()
	s, err := d.Status(w.ctx)
	w.must(err)
	if len(s.Translations) == 0 || s.Translations[0].Name != rule || s.Translations[0].Requests != requests ||
		s.Translations[0].FailedTotal() > 0 || s.Homa == nil {
		w.t.Errorf("status of %s: %+v", d.Name, s.Translations)
	}
}

// trace starts `tougw trace` on a daemon, waits until it listens, and returns a
// function that waits for the next line.
func (w *world) trace(d *lab.Daemon, args ...string) (next func() (string, error), err error) {
	cmd := exec.CommandContext(w.ctx, w.Binary, append([]string{"trace", "--socket", d.Socket()}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	next = func() (string, error) {
		if !lines.Scan() {
			return "", fmt.Errorf("tougw trace ended: %v", lines.Err())
		}
		return lines.Text(), nil
	}
	_, err = next() // the names of the columns come when it listens
	return next, err
}

// kept asks a daemon for the requests that it keeps.
func (w *world) kept(d *lab.Daemon, args ...string) (requests []admin.Request, err error) {
	out, err := w.Tougw(w.ctx, append([]string{"trace", "--last", "--json", "--socket", d.Socket()}, args...)...)
	for line := range strings.Lines(out) {
		var r admin.Request
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, err
		}
		requests = append(requests, r)
	}
	return requests, err
}

// TestTranslateNeedsRawSockets says what is missing.
func TestTranslateNeedsRawSockets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{idle: true})
	file, err := w.WriteFile("door.yaml", `name: door
translate: [{name: web, from: {tcp: ":80"}, to: {homa: "203.0.113.7:4000"}, framing: {type: http1}}]
admin: {socket: door.sock}
`)
	w.must(err)
	out, err := w.Sites[0].Gateway.Run(w.ctx, "setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", binary, "run", "-c", file)
	if err == nil || !strings.Contains(err.Error(), "CAP_NET_RAW") || !strings.Contains(err.Error(), "tougw run: homa: ") {
		t.Errorf("%v\n%s", err, out)
	}
}
