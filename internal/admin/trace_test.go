package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// slow is a request with everything in it.
func slow() Request {
	return Request{
		ID: "00000001a2b3c4d6", Time: epoch, Rule: "kv", Direction: "tcp-homa", Framing: "resp", Name: "GET", Client: "192.0.2.7:40000",
		Server: "10.1.0.5:4000", Peer: "laptop-7", RequestBytes: 100, ResponseBytes: 1_000_000, Total: 12345 * time.Microsecond,
		Queue: 345 * time.Microsecond, Service: 2 * time.Millisecond, Transport: 10 * time.Millisecond, UnscheduledPriority: 6,
		ScheduledPriority: 2, GrantsSent: 3, GrantsReceived: 1, ResendsSent: 1, ResendsReceived: 2, BusyReceived: 1, BytesResent: 1400,
		Retries: 1, Result: "ok",
	}
}

func failed() Request {
	return Request{
		Time: epoch.Add(time.Second), Rule: "legacy", Direction: "homa-tcp", Framing: "dns", Client: "[2001:db8::7]:32768",
		Server: "127.0.0.1:53", RequestBytes: 40, Total: 5 * time.Second, Queue: 5 * time.Second, Result: "unreachable",
		Error: "connect: connection refused",
	}
}

// channel is a RequestFeed that a test fills.
type channel struct {
	c      chan Request
	lost   uint64
	closed chan struct{}
}

func (c *channel) Next(ctx context.Context) (Request, error) {
	select {
	case r, ok := <-c.c:
		if !ok {
			return r, io.EOF
		}
		return r, nil
	case <-ctx.Done():
		return Request{}, ctx.Err()
	}
}
func (c *channel) Waiting() bool { return len(c.c) > 0 }
func (c *channel) Lost() uint64  { return c.lost }
func (c *channel) Close()        { close(c.closed) }

// tracing serves src on a socket.
func tracing(t *testing.T, src Source) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "edge.sock")
	serve(t, listen(t, path), NewServer(src).Handler())
	c := NewClient(path)
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

func TestLastRequests(t *testing.T) {
	src := &fixed{kept: []Request{slow(), failed()}}
	c := tracing(t, src)
	filter := RequestFilter{Addr: "10.1.0.0/16", Rule: "kv", ID: "000000000000001f", MinLatency: 1500 * time.Microsecond, Errors: true}
	var got []Request
	err := c.LastRequests(t.Context(), filter, func(r *Request, line []byte) error {
		if !strings.HasPrefix(string(line), `{"id":`) {
			t.Errorf("line %s", line)
		}
		got = append(got, *r)
		return nil
	})
	if err != nil || !reflect.DeepEqual(got, src.kept) {
		t.Errorf("got %+v, %v", got, err)
	}
	if src.asked != filter {
		t.Errorf("asked for %+v, want %+v", src.asked, filter)
	}
	stop := errors.New("enough")
	if err := c.LastRequests(t.Context(), RequestFilter{}, func(*Request, []byte) error { return stop }); err != stop {
		t.Errorf("got %v", err)
	}
	src.noFeed = fmt.Errorf("%w: nope", ErrNoRule)
	if err := c.LastRequests(t.Context(), RequestFilter{}, nil); err == nil || !strings.Contains(err.Error(), "404 Not Found: no such rule: nope") {
		t.Errorf("got %v", err)
	}
	src.noFeed = errors.New("there is nothing to see")
	if err := c.LastRequests(t.Context(), RequestFilter{}, nil); err == nil || !strings.Contains(err.Error(), "there is nothing to see") {
		t.Errorf("got %v", err)
	}
}

// TestRequests follows requests as they end: each is told at once, and the feed is
// closed when the client goes.
func TestRequests(t *testing.T) {
	feed := &channel{c: make(chan Request), closed: make(chan struct{})}
	c := tracing(t, &fixed{feed: feed})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan uint64)
	done := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		done <- c.Requests(ctx, RequestFilter{}, func() error { close(begun); return nil }, func(r *Request, lost uint64, _ []byte) error {
			if !reflect.DeepEqual(*r, slow()) {
				t.Errorf("got %+v", r)
			}
			got <- lost
			return nil
		})
	}()
	<-begun
	for _, want := range []uint64{0, 0} {
		feed.c <- slow()
		if lost := <-got; lost != want {
			t.Errorf("lost %d, want %d", lost, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("got %v", err)
	}
	<-feed.closed
}

// TestRequestsEnd ends with the daemon, and tells what was lost.
func TestRequestsEnd(t *testing.T) {
	feed := &channel{c: make(chan Request, 3), closed: make(chan struct{}), lost: 7}
	feed.c <- slow()
	feed.c <- failed()
	close(feed.c)
	var lost []uint64
	c := tracing(t, &fixed{feed: feed})
	err := c.Requests(t.Context(), RequestFilter{}, func() error { return nil }, func(_ *Request, n uint64, _ []byte) error {
		lost = append(lost, n)
		return nil
	})
	if err != nil || !reflect.DeepEqual(lost, []uint64{7, 0}) {
		t.Errorf("lost %v, %v", lost, err)
	}
	<-feed.closed
}

func TestBadFilters(t *testing.T) {
	h := NewServer(&fixed{}).Handler()
	for query, want := range map[string]string{
		"addr=here":                        `"here" is neither an address, nor an address and port, nor a prefix`,
		"addr=10.0.0.0/33":                 `"10.0.0.0/33" is neither`,
		"min_latency=5":                    "missing unit",
		"min_latency=-5ms":                 "min_latency is negative",
		"colour=red":                       `unknown key "colour"`,
		"id=zz":                            `"zz" is not 1 to 16 hexadecimal digits`,
		"id=00000001a2b3c4d60":             "is not 1 to 16 hexadecimal digits",
		"rule=" + strings.Repeat("x", 257): "rule has more than 256 bytes",
	} {
		for _, path := range []string{"/v1/trace", "/v1/trace/last"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path+"?"+query, nil))
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s?%s: %d %s", path, query, w.Code, w.Body)
			}
		}
	}
	if f, err := filterOf(url.Values{"id": {"2A"}}); err != nil || f.ID != "000000000000002a" {
		t.Errorf("id: %+v, %v", f, err)
	}
	if f, err := filterOf(url.Values{}); err != nil || f != (RequestFilter{}) {
		t.Errorf("empty: %+v, %v", f, err)
	}
}

func TestRequestAddr(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "invalid AddrPort invalid Prefix",
		"10.1.0.5":               "10.1.0.5:0 invalid Prefix",
		"::ffff:10.1.0.5":        "10.1.0.5:0 invalid Prefix",
		"10.1.0.5:4000":          "10.1.0.5:4000 invalid Prefix",
		"[2001:db8::1]:4000":     "[2001:db8::1]:4000 invalid Prefix",
		"[::ffff:10.1.0.5]:4000": "10.1.0.5:4000 invalid Prefix",
		"10.1.2.3/16":            "invalid AddrPort 10.1.0.0/16",
	} {
		addr, prefix, err := CheckRequestAddr(in)
		if got := addr.String() + " " + prefix.String(); err != nil || got != want {
			t.Errorf("%q: got %s, %v, want %s", in, got, err, want)
		}
	}
}

func TestRequestsText(t *testing.T) {
	golden(t, "requests.txt", func(w io.Writer) error {
		r, f, relayed := slow(), failed(), slow()
		relayed.RelayID, relayed.Rule, relayed.Client, relayed.Name = "00000001a2b3c4e8", "accept[0]", "", ""
		f.Server = ""
		return errors.Join(WriteRequestHeader(w), WriteRequest(w, &r), WriteRequest(w, &f), WriteRequest(w, &relayed))
	})
}
