package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// opTimeout bounds one connect or one exchange. Above the first retransmission
// of a SYN (1 s) and the second (3 s), below anybody's patience.
const opTimeout = 5 * time.Second

// Target is a Server.
type Target struct {
	// Addr and Base, the first of Ports ports, are where it listens.
	Addr netip.Addr
	Base uint16
	// Congestion is the congestion control of both ends; empty for the host's
	// default. Some may be chosen by root only.
	Congestion string
}

// control sets what sockets of both ends have in common.
func (t Target) control(_, _ string, c syscall.RawConn) error {
	if t.Congestion == "" {
		return nil
	}
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, t.Congestion)
	})
	if failed != nil {
		failed = fmt.Errorf("congestion control %s: %w", t.Congestion, failed)
	}
	return errors.Join(err, failed)
}

// port of the i-th connection.
func (t Target) port(i int) string {
	return netip.AddrPortFrom(t.Addr, t.Base+uint16(i%Ports)).String()
}

// dial opens the i-th connection.
func (t Target) dial(ctx context.Context, i int) (net.Conn, error) {
	d := net.Dialer{Timeout: opTimeout, KeepAlive: -1, Control: t.control}
	return d.DialContext(ctx, "tcp", t.port(i))
}

// exchange sends a request and reads its echo, within opTimeout.
func exchange(conn net.Conn, buf []byte) error {
	if err := conn.SetDeadline(time.Now().Add(opTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write(buf); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, buf)
	return err
}

// Report is what a client measured, as JSON.
type Report struct {
	// Count is how many requests or connections were completed in Seconds.
	Count   uint64  `json:"count"`
	Seconds float64 `json:"seconds"`
	// P50 and P99 are percentiles of what one took, Max the longest, in
	// microseconds.
	P50 float64 `json:"p50_us"`
	P99 float64 `json:"p99_us"`
	Max float64 `json:"max_us"`
	// Errors is how many failed; Error is the first one.
	Errors uint64 `json:"errors"`
	Error  string `json:"error,omitempty"`
}

// Rate is the number completed a second.
func (r Report) Rate() float64 {
	if r.Seconds <= 0 {
		return 0
	}
	return float64(r.Count) / r.Seconds
}

// failures of several goroutines.
type failures struct {
	n     atomic.Uint64
	first atomic.Pointer[string]
}

func (f *failures) add(err error) {
	f.n.Add(1)
	text := err.Error()
	f.first.CompareAndSwap(nil, &text)
}

func (f *failures) report(h *Histogram, took time.Duration) Report {
	micros := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	r := Report{
		Count: h.Count(), Seconds: took.Seconds(), Errors: f.n.Load(),
		P50: micros(h.Quantile(0.5)), P99: micros(h.Quantile(0.99)), Max: micros(h.Max()),
	}
	if text := f.first.Load(); text != nil {
		r.Error = *text
	}
	return r
}

// Requests describes RunRequests.
type Requests struct {
	Target
	// Connections at a time, each with one request under way at a time.
	Connections int
	// Size of request and reply in bytes, at most 4096.
	Size int
	// WarmUp comes before Time, and is not counted.
	WarmUp, Time time.Duration
}

// RunRequests opens connections, then sends requests over all of them and
// measures what each takes. A connection that fails is not opened again. The
// error is for what makes the whole run worthless: a connection that cannot be
// opened, or ctx ended.
func RunRequests(ctx context.Context, o Requests) (Report, error) {
	conns := make([]net.Conn, o.Connections)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	for i := range conns {
		var err error
		if conns[i], err = o.dial(ctx, i); err != nil {
			return Report{}, err
		}
	}
	from := time.Now().Add(o.WarmUp)
	until := from.Add(o.Time)
	var (
		wg    sync.WaitGroup
		fails failures
		parts = make([]*Histogram, len(conns))
	)
	for i, conn := range conns {
		parts[i] = new(Histogram)
		wg.Go(func() {
			buf := make([]byte, o.Size)
			for start := time.Now(); start.Before(until) && ctx.Err() == nil; {
				if err := exchange(conn, buf); err != nil {
					fails.add(err)
					return
				}
				end := time.Now()
				if !start.Before(from) && end.Before(until) {
					parts[i].Add(end.Sub(start))
				}
				start = end
			}
		})
	}
	wg.Wait()
	all := new(Histogram)
	for _, h := range parts {
		all.Merge(h)
	}
	return fails.report(all, o.Time), ctx.Err()
}

// Connections describes RunConnections.
type Connections struct {
	Target
	// Parallel is how many are under way at a time.
	Parallel int
	// WarmUp comes before Time, and is not counted.
	WarmUp, Time time.Duration
}

// RunConnections opens connections, has one byte echoed over each and closes
// it, over and over, and measures what each takes until the echo. The error is
// ctx's.
func RunConnections(ctx context.Context, o Connections) (Report, error) {
	from := time.Now().Add(o.WarmUp)
	until := from.Add(o.Time)
	var (
		wg    sync.WaitGroup
		fails failures
		next  atomic.Int64
		parts = make([]*Histogram, o.Parallel)
	)
	for i := range parts {
		parts[i] = new(Histogram)
		wg.Go(func() {
			for start := time.Now(); start.Before(until) && ctx.Err() == nil; start = time.Now() {
				conn, err := once(ctx, o.Target, int(next.Add(1)))
				took := time.Since(start)
				if err != nil {
					fails.add(err)
				} else if _ = conn.Close(); !start.Before(from) && start.Add(took).Before(until) {
					parts[i].Add(took)
				}
			}
		})
	}
	wg.Wait()
	all := new(Histogram)
	for _, h := range parts {
		all.Merge(h)
	}
	return fails.report(all, o.Time), ctx.Err()
}

// once opens a connection and has one byte echoed. The caller closes it.
func once(ctx context.Context, t Target, i int) (net.Conn, error) {
	conn, err := t.dial(ctx, i)
	if err != nil {
		return nil, err
	}
	if err := exchange(conn, []byte{'x'}); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connected, but: %w", err)
	}
	return conn, nil
}
