package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// RunDir is where daemons have their admin sockets by default.
const RunDir = "/run/tougw"

// maxAnswer bounds what a client reads, in bytes: 2^20 flows of 500 bytes.
const maxAnswer = 512 << 20

// Client asks a running daemon.
type Client struct {
	path string
	http http.Client
}

// NewClient makes a client of the daemon with the admin socket at path.
func NewClient(path string) *Client {
	return &Client{path: path, http: http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}},
	}}
}

// FindSocket returns the only admin socket in dir. Of several, those that a
// killed daemon left behind do not count. It is an error when there is none, or
// more than one.
func FindSocket(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "*.sock"))
	if err != nil {
		return "", err
	}
	if len(found) > 1 {
		if served := slices.DeleteFunc(slices.Clone(found), stale); len(served) > 0 {
			found = served
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no admin socket in %s: is tougw running? Name one with --socket PATH or -c FILE", dir)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("several admin sockets in %s (%s): name one with --socket PATH or -c FILE", dir, strings.Join(found, ", "))
}

// stale reports whether nobody serves the socket.
func stale(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Status asks for the status document.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.get(ctx, "/v1/status", &s)
}

// Flows asks for the flows.
func (c *Client) Flows(ctx context.Context) ([]Flow, error) {
	var f []Flow
	return f, c.get(ctx, "/v1/flows", &f)
}

func (c *Client) get(ctx context.Context, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://tougw"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: the daemon answered %s", c.path, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(v); err != nil {
		return fmt.Errorf("%s: the daemon's answer cannot be read: %w", c.path, err)
	}
	return nil
}

func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: no such admin socket: is tougw running?", c.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: nobody answers on this admin socket: tougw is not running", c.path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: permission denied: run as the user that runs tougw", c.path)
	}
	return fmt.Errorf("%s: %w", c.path, err)
}
