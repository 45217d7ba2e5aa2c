package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/admin"
)

// requests is an admin.Source of requests.
type requests struct {
	mu    sync.Mutex
	asked []admin.RequestFilter
	c     chan admin.Request
	lost  uint64
	kept  []admin.Request
}

func (s *requests) Status() admin.Status  { return admin.Status{} }
func (s *requests) Flows() []admin.Flow   { return nil }
func (s *requests) Ready() (bool, string) { return true, "" }

func (s *requests) ask(f admin.RequestFilter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, f)
}

func (s *requests) LastRequests(f admin.RequestFilter) ([]admin.Request, error) {
	s.ask(f)
	return s.kept, nil
}

func (s *requests) Requests(f admin.RequestFilter) (admin.RequestFeed, error) {
	s.ask(f)
	return s, nil
}

func (s *requests) Next(context.Context) (admin.Request, error) {
	r, ok := <-s.c
	if !ok {
		return r, io.EOF
	}
	return r, nil
}
func (s *requests) Waiting() bool { return len(s.c) > 0 }
func (s *requests) Lost() uint64  { return s.lost }
func (s *requests) Close()        {}

// serve answers on a socket until the test ends.
func (s *requests) serve(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "a.sock")
	l, err := admin.ListenUnix(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- admin.Serve(ctx, l, admin.NewServer(s).Handler()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket
}

func TestTrace(t *testing.T) {
	one := admin.Request{ID: "000000000000002a", Rule: "kv", Framing: "resp", Client: "192.0.2.1:5", Server: "10.1.0.5:4000", Result: "ok",
		Time: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	s := &requests{c: make(chan admin.Request, 100), kept: []admin.Request{one, one}}
	socket := s.serve(t)

	r := tougw("trace", "--last", "--socket", socket, "--rule", "kv", "--addr", "10.1.0.0/16", "--min-latency", "5ms", "--errors", "--id", "2a")
	if lines := strings.Split(r.stdout, "\n"); r.code != exitOK || r.stderr != "" || len(lines) != 4 ||
		!strings.HasPrefix(lines[0], "TIME ") || !strings.HasPrefix(lines[1], "12:00:00.000  kv ") || lines[2] != lines[1] {
		t.Errorf("--last: %+v", r)
	}
	want := admin.RequestFilter{Rule: "kv", Addr: "10.1.0.0/16", MinLatency: 5 * time.Millisecond, Errors: true, ID: "000000000000002a"}
	if s.asked[0] != want {
		t.Errorf("asked for %+v, want %+v", s.asked[0], want)
	}
	r = tougw("trace", "--last", "--json", "--socket", socket)
	for line := range strings.Lines(r.stdout) {
		var got admin.Request
		if err := json.Unmarshal([]byte(line), &got); err != nil || got != one {
			t.Errorf("--last --json: %v in %s", err, line)
		}
	}
	if n := strings.Count(r.stdout, "\n"); n != 2 || r.code != exitOK {
		t.Errorf("--last --json: %d lines, %+v", n, r)
	}

	// Live, until the daemon ends: the columns are named again from time to time.
	for range 2 * headerEvery {
		s.c <- one
	}
	s.lost = 7
	close(s.c)
	r = tougw("trace", "--socket", socket)
	if r.code != exitOK || strings.Count(r.stdout, "  kv ") != 2*headerEvery || strings.Count(r.stdout, "TIME ") != 3 ||
		strings.Count(r.stdout, "too slow: 7 requests are not shown so far\n") != 1 {
		t.Errorf("live: %+v", r)
	}
}

// TestTraceRefuses says what is wrong with a filter.
func TestTraceRefuses(t *testing.T) {
	for arg, want := range map[string]string{
		"--id=zz":           `--id: "zz" is not 1 to 16 hexadecimal digits`,
		"--addr=here":       `--addr: "here" is neither`,
		"--min-latency=-1s": "--min-latency: -1s is negative",
	} {
		if r := tougw("trace", arg); r.code != exitUsage || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v, want %q", arg, r, want)
		}
	}
}

// TestTracePrinterStops ends with its reader.
func TestTracePrinterStops(t *testing.T) {
	broken := errors.New("the pipe is broken")
	p := tracePrinter{w: writerFunc(func([]byte) (int, error) { return 0, broken })}
	if err := p.header(); err != broken {
		t.Errorf("header: %v", err)
	}
	p.lines = 0
	if err := p.print(&admin.Request{}, 0, nil); err != broken {
		t.Errorf("columns: %v", err)
	}
	p.lines = 1
	if err := p.print(&admin.Request{}, 3, nil); err != broken {
		t.Errorf("what is lost: %v", err)
	}
	var b bytes.Buffer
	p = tracePrinter{w: &b, json: true}
	if err := errors.Join(p.header(), p.print(&admin.Request{}, 3, []byte(`{"lost":3}`))); err != nil || b.String() != "{\"lost\":3}\n" {
		t.Errorf("JSON: %v, %q", err, b.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
