package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tougw/tougw/internal/testnet"
)

// figure is what one run gives. Latencies are microseconds.
type figure struct {
	PerSecond float64 `json:"requests_per_second"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	// Bulk is the rate of the transfers beside the requests, in bit/s.
	Bulk float64 `json:"transfer_bits_per_second,omitempty"`
	// Busy is the share of all processors' time that was used, 0 to 1: near 1 a
	// figure tells of them, not of the network.
	Busy float64 `json:"busy"`
}

// payload is the size of values, of SET and GET, and of web pages.
const payload = 100

// redisBenchmark runs n requests of each kind and returns the figures of SET and
// GET.
func redisBenchmark(ctx context.Context, ns *testnet.Namespace, to netip.AddrPort, conns, pipeline, n int) (map[string]figure, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 60*time.Second, errors.New("redis-benchmark did not end"))
	defer cancel()
	out, err := ns.Run(ctx, "redis-benchmark", "-h", to.Addr().String(), "-p", fmt.Sprint(to.Port()), "-t", "set,get",
		"-d", fmt.Sprint(payload), "-c", fmt.Sprint(conns), "-P", fmt.Sprint(pipeline), "-n", fmt.Sprint(n), "--csv")
	if err != nil {
		return nil, err
	}
	return parseRedisBenchmark(out)
}

// parseRedisBenchmark reads the CSV of redis-benchmark.
func parseRedisBenchmark(out string) (map[string]figure, error) {
	start := strings.Index(out, `"test",`)
	if start < 0 {
		return nil, fmt.Errorf("redis-benchmark wrote no table: %.300q", out)
	}
	rows, err := csv.NewReader(strings.NewReader(out[start:])).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("redis-benchmark: %w", err)
	}
	column := func(row []string, name string) float64 {
		i := slices.Index(rows[0], name)
		if i < 0 {
			return 0
		}
		v, _ := strconv.ParseFloat(row[i], 64) // 0 is refused below
		return v
	}
	figures := map[string]figure{}
	for _, row := range rows[1:] {
		f := figure{PerSecond: column(row, "rps"), P50: 1000 * column(row, "p50_latency_ms"), P99: 1000 * column(row, "p99_latency_ms")}
		if f.PerSecond <= 0 || f.P50 <= 0 || f.P99 < f.P50 {
			return nil, fmt.Errorf("redis-benchmark: cannot read %q", row)
		}
		figures[row[0]] = f
	}
	for _, name := range []string{"SET", "GET"} {
		if _, ok := figures[name]; !ok {
			return nil, fmt.Errorf("redis-benchmark did not measure %s: %.300q", name, out)
		}
	}
	return figures, nil
}

// wrk asks for a page of payload bytes.
func wrk(ctx context.Context, ns *testnet.Namespace, to netip.AddrPort, conns int, d time.Duration) (figure, error) {
	seconds := max(1, int(d.Round(time.Second)/time.Second))
	out, err := ns.Run(ctx, "wrk", "--latency", "-t1", "-c", fmt.Sprint(conns), "-d", fmt.Sprintf("%ds", seconds),
		fmt.Sprintf("http://%v/%d", to, payload))
	if err != nil {
		return figure{}, err
	}
	return parseWrk(out)
}

// parseWrk reads what wrk writes. A run with errors is no measurement.
func parseWrk(out string) (f figure, err error) {
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		switch {
		case strings.Contains(line, "Socket errors") || strings.Contains(line, "Non-2xx"):
			return f, fmt.Errorf("wrk: %s", strings.TrimSpace(line))
		case len(fields) == 2 && fields[0] == "Requests/sec:":
			f.PerSecond, err = strconv.ParseFloat(fields[1], 64)
		case len(fields) == 2 && fields[0] == "50%":
			f.P50, err = micros(fields[1])
		case len(fields) == 2 && fields[0] == "99%":
			f.P99, err = micros(fields[1])
		}
		if err != nil {
			return f, fmt.Errorf("wrk: %w", err)
		}
	}
	if f.PerSecond <= 0 || f.P50 <= 0 || f.P99 < f.P50 {
		return f, fmt.Errorf("wrk: cannot read %.500q", out)
	}
	return f, nil
}

// micros reads a time of wrk: 12.34us, 1.20ms, 1.00s, 1.50m.
func micros(text string) (float64, error) {
	d, err := time.ParseDuration(text)
	return float64(d) / 1e3, err
}

// askEvery is how often a connection asks. All ways get the same load, so that a quick
// one is not measured by how much more of it its processors bear.
const askEvery = 20 * time.Millisecond

// ask sends a GET of a value of payload bytes every so often on each of some
// connections, or when the one before is answered if that is later, for a time, and
// returns rate and latencies.
func ask(ctx context.Context, ns *testnet.Namespace, to netip.AddrPort, conns int, d time.Duration) (figure, error) {
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	var mu sync.Mutex
	var all []time.Duration
	var errs []error
	var wg sync.WaitGroup
	start := time.Now()
	for i := range conns {
		wg.Go(func() {
			took, err := askOne(ctx, ns, to, start.Add(time.Duration(i)*askEvery/time.Duration(conns)), start.Add(d))
			mu.Lock()
			defer mu.Unlock()
			all, errs = append(all, took...), append(errs, err)
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	if err := errors.Join(errs...); err != nil {
		return figure{}, err
	}
	slices.Sort(all)
	rank := func(share float64) float64 { return float64(all[int(share*float64(len(all)-1))]) / 1e3 }
	return figure{PerSecond: float64(len(all)) / elapsed.Seconds(), P50: rank(0.50), P99: rank(0.99)}, nil
}

// askOne is the part of ask on one connection, from first on.
func askOne(ctx context.Context, ns *testnet.Namespace, to netip.AddrPort, first, end time.Time) (took []time.Duration, err error) {
	c, err := ns.Dial(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	request := []byte("*2\r\n$3\r\nGET\r\n$5\r\nsmall\r\n")
	want := []byte(smallReply)
	in, got := bufio.NewReader(c), make([]byte, len(want))
	for next := first; time.Now().Before(end) || len(took) == 0; next = next.Add(askEvery) {
		time.Sleep(time.Until(next))
		start := time.Now()
		if _, err := c.Write(request); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(in, got); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
		if !bytes.Equal(got, want) {
			return nil, fmt.Errorf("GET through %v: %q", to, got)
		}
	}
	return took, nil
}

// smallReply is the answer to GET small.
var smallReply = fmt.Sprintf("$%d\r\n%s\r\n", payload, smallValue)

var smallValue = strings.Repeat("s", payload)
