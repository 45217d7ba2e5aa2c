package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// traceWrite is how long a client of the trace may take nothing, and maxLine
// bounds what a client reads of one line, in bytes.
const (
	traceWrite = 10 * time.Second
	maxLine    = 64 << 10
)

// traceLine is a line of the trace: a request, or how many were left out so far
// because the client was too slow.
type traceLine struct {
	Lost uint64 `json:"lost,omitempty"`
	*Request
}

// last answers with the requests that are kept.
func (s *Server) last(w http.ResponseWriter, r *http.Request) {
	f, err := filterOf(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	kept, err := s.src.LastRequests(f)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	e := json.NewEncoder(w)
	for i := range kept {
		if e.Encode(&kept[i]) != nil {
			return // the reader went away
		}
	}
}

// refuse answers with why the source has no requests.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if errors.Is(err, ErrNoRule) {
		status = http.StatusNotFound
	}
	http.Error(w, err.Error(), status)
}

// trace answers with requests as they end, one a line, until the client goes.
func (s *Server) trace(w http.ResponseWriter, r *http.Request) {
	f, err := filterOf(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	feed, err := s.src.Requests(f)
	if err != nil {
		refuse(w, err)
		return
	}
	defer feed.Close()
	control := http.NewResponseController(w)
	// The connection has the deadlines of short answers. Without this one the server
	// would take its end for that of the client.
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := func() error {
		if err := control.SetWriteDeadline(time.Now().Add(traceWrite)); err != nil {
			return err
		}
		return control.Flush()
	}
	if flush() != nil { // the header, by which the client knows that it listens
		return
	}
	e := json.NewEncoder(w)
	for lost := uint64(0); ; {
		req, err := feed.Next(r.Context())
		if err != nil {
			return
		}
		line := traceLine{Request: &req}
		if n := feed.Lost(); n != lost {
			lost, line.Lost = n, n
		}
		if e.Encode(line) != nil {
			return
		}
		if !feed.Waiting() && flush() != nil {
			return
		}
	}
}

// LastRequests calls fn with the requests that the daemon keeps, the slowest and
// the failed, the oldest first; line is the JSON of the request. An error of fn
// ends it.
func (c *Client) LastRequests(ctx context.Context, f RequestFilter, fn func(r *Request, line []byte) error) error {
	return c.lines(ctx, "/v1/trace/last", f, func() error { return nil }, func(r *Request, _ uint64, line []byte) error { return fn(r, line) })
}

// Requests calls fn with requests as they end, until ctx ends or the daemon
// does; lost is how many were left out so far, where that has changed. Ready is
// called when the daemon has begun to listen.
func (c *Client) Requests(ctx context.Context, f RequestFilter, ready func() error, fn func(r *Request, lost uint64, line []byte) error) error {
	return c.lines(ctx, "/v1/trace", f, ready, fn)
}

func (c *Client) lines(ctx context.Context, path string, f RequestFilter, ready func() error, fn func(*Request, uint64, []byte) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://tougw"+path+"?"+f.query().Encode(), nil)
	if err != nil {
		return err
	}
	// As long as it takes: the time-out of short answers is not for this one.
	client := http.Client{Transport: c.http.Transport}
	resp, err := client.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // the status says enough without it
		return fmt.Errorf("%s: the daemon answered %s: %s", c.path, resp.Status, strings.TrimSpace(string(why)))
	}
	if err := ready(); err != nil {
		return err
	}
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, maxLine)
	for in.Scan() {
		line := traceLine{Request: new(Request)}
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return fmt.Errorf("%s: the daemon's answer cannot be read: %w", c.path, err)
		}
		if err := fn(line.Request, line.Lost, in.Bytes()); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: the trace ended: %w", c.path, err)
	}
	return nil
}
