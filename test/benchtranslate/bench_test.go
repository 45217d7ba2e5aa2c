package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/testnet"
)

// TestMeasure takes every way through one row of each kind, too briefly for
// figures.
func TestMeasure(t *testing.T) {
	testnet.Require(t)
	out, err := exec.Command("../need", "redis-server=redis-server", "redis-benchmark=redis-tools", "haproxy=haproxy", "wrk=wrk",
		"tc=iproute2", "ethtool=ethtool", "nginx=nginx-light").CombinedOutput()
	if err != nil && os.Getenv(testnet.Required) == "" {
		t.Skipf("%v: %s", err, out)
	} else if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tougw := filepath.Join(t.TempDir(), "tougw")
	if out, err := exec.Command("go", "build", "-o", tougw, "../../cmd/tougw").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o := &options{
		tougw: tougw, duration: 200 * time.Millisecond, loaded: time.Second, rounds: 1, rates: []int64{100_000_000, 300_000_000}, queue: 128 << 10,
		rows: regexp.MustCompile("^Redis GET 100 B, 1 connection$|^HTTP 100 B, 1 connection$|shaped"),
	}
	r, err := measure(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	rows := []string{"Redis GET 100 B, 1 connection", "Redis SET 100 B, 1 connection", "HTTP 100 B, 1 connection"}
	for _, rate := range o.rates {
		rows = append(rows, atRate(rowShapedIdle, rate), atRate(rowShapedLoaded, rate))
	}
	for _, row := range rows {
		for _, way := range []string{direct, oneProxy, twoProxies, translator} {
			if strings.Contains(row, "shaped") && way == oneProxy {
				continue
			}
			c := r.cell(row, way)
			if f := c.Median; len(c.Runs) != 1 || f.PerSecond <= 0 || f.P50 <= 0 || f.P99 < f.P50 || f.Busy < 0 || f.Busy > 1 ||
				(f.Bulk > 0) != strings.HasPrefix(row, rowShapedLoaded) {
				t.Errorf("%s, %s: %+v", row, way, c)
			}
		}
	}
	if len(r.Goals) != 7 {
		t.Errorf("goals: %+v", r.Goals)
	}
}

func TestParseRedisBenchmark(t *testing.T) {
	const header = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"` + "\n"
	got, err := parseRedisBenchmark("WARNING: no CONFIG\n" + header +
		`"SET","19607.84","0.044","0.024","0.039","0.063","0.151","0.295"` + "\n" + `"GET","20000.00","0.043","0.016","0.047","0.063","0.127","0.271"` + "\n")
	if err != nil || got["SET"] != (figure{PerSecond: 19607.84, P50: 39, P99: 151}) || got["GET"].P50 != 47 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", header, header + `"SET","0","0","0","0","0","0","0"` + "\n", header + `"SET","1","1","1","1","1","1","1"` + "\n"} {
		if got, err := parseRedisBenchmark(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

func TestParseWrk(t *testing.T) {
	const text = `Running 1s test @ http://198.51.100.2:80/100
  1 threads and 1 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   139.22us  344.66us   7.42ms   97.09%
  Latency Distribution
     50%   88.00us
     75%  105.00us
     90%  160.00us
     99%    1.52ms
  10004 requests in 1.10s, 3.18MB read
Requests/sec:   9095.12
Transfer/sec:      2.89MB
`
	if got, err := parseWrk(text); err != nil || got != (figure{PerSecond: 9095.12, P50: 88, P99: 1520}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", strings.Replace(text, "9095.12", "many", 1), strings.Replace(text, "50% ", "51% ", 1),
		text + "  Socket errors: connect 0, read 3, write 0, timeout 0\n", text + "  Non-2xx or 3xx responses: 12\n"} {
		if got, err := parseWrk(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

func TestTable(t *testing.T) {
	r := &results{Rounds: 3}
	for _, x := range []float64{30, 10, 20} {
		r.add("row, 1 connection", translator, figure{PerSecond: 1000 * x, P50: x, P99: 1000 * x})
		r.add("row, 1 connection", twoProxies, figure{PerSecond: 1, P50: 5, P99: 6})
	}
	r.missing(rowShapedLoaded, translator+", fq_codel", "not in this kernel")
	r.add(rowShapedLoaded, translator, figure{PerSecond: 1, P50: 1, P99: 10, Bulk: 1e8})
	r.add(rowShapedLoaded, twoProxies, figure{PerSecond: 1, P50: 1, P99: 60, Bulk: 2.5e8})
	r.finish()
	var b bytes.Buffer
	if err := r.writeText(&b); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(b.String()) {
		words := strings.Fields(line)
		if len(words) > 0 {
			got = append(got, strings.Join(words[:len(words)-1], " ")) // but how busy
		}
	}
	want := []string{
		"row, 1 connection requests/s p50 p99 transfers", "two HAProxies 1 5 us 6 us -", "translator 20000 20 us 20.0 ms -",
		rowShapedLoaded + " requests/s p50 p99 transfers", "two HAProxies 1 1 us 60 us 250.0 Mbit/s", "translator 1 1 us 10 us 100.0 Mbit/s",
		"translator, fq_codel not in this",
		"row, 1 connection: p50 by translator / by two HAProxies, at most 2: 4.00, NOT",
		rowShapedLoaded + ": p99 by two HAProxies / by translator, at least 5: 6.00,",
		rowShapedLoaded + ": transfers by translator / by two HAProxies, at least 0.5: 0.40, NOT",
	}
	if all := strings.Join(got, "\n"); !strings.HasSuffix(all, strings.Join(want, "\n")) {
		t.Errorf("got\n%s\nwant at the end\n%s", all, strings.Join(want, "\n"))
	}
}
