package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixed is a Source that does not change.
type fixed struct {
	status Status
	flows  []Flow
	why    string // not ready
	kept   []Request
	feed   RequestFeed
	asked  RequestFilter
	noFeed error
}

func (f *fixed) Status() Status { return f.status }
func (f *fixed) Flows() []Flow  { return f.flows }
func (f *fixed) LastRequests(q RequestFilter) ([]Request, error) {
	f.asked = q
	return f.kept, f.noFeed
}
func (f *fixed) Requests(q RequestFilter) (RequestFeed, error) {
	f.asked = q
	return f.feed, f.noFeed
}
func (f *fixed) Ready() (bool, string) { return f.why == "", f.why }

// serve serves h on l until the test ends.
func serve(t *testing.T, l net.Listener, h http.Handler) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, h) }()
	var ended bool
	stop = func() {
		if cancel(); ended {
			return
		}
		ended = true
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "tougw", "edge.sock") // folders are made
	src := &fixed{status: full(), flows: []Flow{{ID: 7, Direction: "outbound"}}}
	stop := serve(t, listen(t, path), NewServer(src).Handler())
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket: %v %v", info.Mode(), err)
	}
	if _, err := ListenUnix(path); !errors.Is(err, ErrRunning) {
		t.Errorf("a second server: %v", err)
	}
	c := NewClient(path)
	if got, err := c.Status(t.Context()); err != nil || !reflect.DeepEqual(got, src.status) {
		t.Errorf("status: %+v %v", got, err)
	}
	if got, err := c.Flows(t.Context()); err != nil || !reflect.DeepEqual(got, src.flows) {
		t.Errorf("flows: %+v %v", got, err)
	}
	if err := c.get(t.Context(), "/v2/status", nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("unknown document: %v", err)
	}
	c.http.CloseIdleConnections()
	stop()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "no such admin socket") {
		t.Errorf("after the end: %v", err)
	}
}

func TestSocketOfAKilledDaemonIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := NewClient(path).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("stale socket: %v", err)
	}
	serve(t, listen(t, path), NewServer(&fixed{}).Handler())
	c := NewClient(path)
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	c.http.CloseIdleConnections()
}

// A daemon that is too busy to accept is not dead.
func TestBusySocketIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.sock")
	l, err := net.Listen("unix", path) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 1 << 16 { // until the queue is full
		c, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		defer c.Close()
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Fatal("the queue of a listener has no end here")
	}
	if _, err := ListenUnix(path); !errors.Is(err, ErrRunning) {
		t.Errorf("a second server: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket of a busy daemon was removed: %v", err)
	}
}

func TestWhatIsNoSocketStays(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "edge.sock")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.sock")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir} {
		if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "in the way") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file: %q %v", b, err)
	}
	if _, err := ListenUnix(filepath.Join(file, "x.sock")); err == nil {
		t.Error("a socket below a file")
	}
}

func TestPublicPages(t *testing.T) {
	src := &fixed{status: Status{Name: "edge", Instance: "0a1b2c3d"}}
	h := NewServer(src).Public(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "up 1\n") }))
	get := func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code, w.Body.String()
	}
	want := func(method, path string, code int, parts ...string) {
		t.Helper()
		got, body := get(method, path)
		if got != code {
			t.Errorf("%s %s: %d, want %d", method, path, got, code)
		}
		for _, p := range parts {
			if !strings.Contains(body, p) {
				t.Errorf("%s %s has no %q:\n%s", method, path, p, body)
			}
		}
	}
	want("GET", "/healthz", 200, "ok")
	want("GET", "/readyz", 200, "ready")
	want("GET", "/metrics", 200, "up 1")
	want("GET", "/", 200, "tougw edge", "none", "</html>")
	want("POST", "/", 405)
	want("GET", "/v1/status", 404) // is for the socket alone
	want("GET", "/v1/flows", 404)
	want("GET", "/debug/pprof/", 404)

	src.why = "no peer is up"
	want("GET", "/readyz", 503, "no peer is up")
	want("GET", "/healthz", 200, "ok")

	src.status = full()
	src.status.Peers[1].Error = `<script>alert("x")</script>`
	for i := range 1000 {
		src.status.Peers = append(src.status.Peers, Peer{Name: fmt.Sprintf("laptop-%d", i), State: "up", BytesIn: 3 << 30})
	}
	want("GET", "/", 200, "laptop-999", "3.0 GiB", "12.35 ms", "stopping", "netlink: no such device", "queue_full", "&lt;script&gt;", "</html>")
	if _, body := get("GET", "/"); strings.Contains(body, "<script>") || strings.Contains(body, "<td>refused") {
		t.Error("the page has a script of a peer, or a drop that did not happen")
	}
	w := httptest.NewRecorder()
	NewServer(src).Public(nil).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 404 {
		t.Errorf("metrics that are not there: %d", w.Code)
	}
}

func TestClientOfSomethingElse(t *testing.T) {
	for name, answer := range map[string]string{"cannot be read": "no JSON", "500": ""} {
		path := filepath.Join(t.TempDir(), "s")
		serve(t, listen(t, path), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if answer == "" {
				w.WriteHeader(http.StatusInternalServerError)
			}
			io.WriteString(w, answer)
		}))
		c := NewClient(path)
		if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), path) {
			t.Errorf("answer %q: %v", answer, err)
		}
		c.http.CloseIdleConnections()
	}
}
