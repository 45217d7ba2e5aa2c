package load

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHistogramBucketsCoverEveryValue(t *testing.T) {
	last := -1
	for v := uint64(0); v < 1<<20; v++ {
		i := bucket(v)
		if i != last && i != last+1 {
			t.Fatalf("bucket(%d) = %d after %d", v, i, last)
		}
		last = i
		if m := float64(middle(i)); math.Abs(m-float64(v)) > float64(v)/sub+1 {
			t.Fatalf("bucket %d of %d has its middle at %v", i, v, m)
		}
	}
	for _, v := range []uint64{1 << topBits, 1<<topBits + 1, math.MaxUint64} {
		if i := bucket(v); i >= buckets {
			t.Errorf("bucket(%d) = %d of %d", v, i, buckets)
		}
	}
}

func TestHistogramQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	var a, b Histogram
	for i := range 20_000 {
		d := time.Duration(math.Exp(rng.Float64()*15)) * time.Nanosecond
		all = append(all, d)
		if i%3 == 0 {
			a.Add(d)
		} else {
			b.Add(d)
		}
	}
	a.Merge(&b)
	slices.Sort(all)
	if a.Count() != uint64(len(all)) || a.Max() != all[len(all)-1] {
		t.Errorf("%d values, the most %v; want %d and %v", a.Count(), a.Max(), len(all), all[len(all)-1])
	}
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		if got := a.Quantile(q); math.Abs(float64(got-want)) > float64(want)*0.01+1 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	var empty Histogram
	empty.Merge(new(Histogram))
	if empty.Quantile(0.5) != 0 || empty.Max() != 0 {
		t.Error("an empty histogram has values")
	}
	empty.Add(-time.Second)
	if empty.Quantile(0.5) != 0 || empty.Count() != 1 {
		t.Error("a negative duration is not 0")
	}
}

// serve runs a server on loopback for the test.
func serve(t *testing.T) Target {
	t.Helper()
	// A free range cannot be asked for: try.
	addr := netip.MustParseAddr("127.0.0.1")
	for base := uint16(21000); base < 60000; base += 16 {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		target := Target{Addr: addr, Base: base}
		go func() { done <- RunServer(ctx, target) }()
		for {
			select {
			case <-done:
			default:
				conn, err := target.dial(ctx, Ports-1)
				if err != nil {
					continue
				}
				_ = conn.Close()
				t.Cleanup(func() {
					cancel()
					if err := <-done; err != nil {
						t.Error(err)
					}
				})
				return target
			}
			break
		}
		cancel()
	}
	t.Fatal("no free ports")
	return Target{}
}

func TestRequests(t *testing.T) {
	target := serve(t)
	r, err := RunRequests(t.Context(), Requests{Target: target, Connections: 8, Size: 100, WarmUp: 20 * time.Millisecond, Time: 200 * time.Millisecond})
	if err != nil || r.Errors != 0 {
		t.Fatal(err, r)
	}
	if r.Count == 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Max < r.P99*0.99 || r.Seconds != 0.2 || r.Rate() != float64(r.Count)/0.2 {
		t.Errorf("%+v", r)
	}
}

func TestConnections(t *testing.T) {
	target := serve(t)
	r, err := RunConnections(t.Context(), Connections{Target: target, Parallel: 4, Time: 200 * time.Millisecond})
	if err != nil || r.Errors != 0 || r.Count == 0 {
		t.Error(err, r)
	}
}

func TestFailuresAreReported(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	target := Target{Addr: addr.Addr(), Base: addr.Port() - 1}
	closed := Target{Addr: addr.Addr(), Base: addr.Port()}
	if _, err := RunRequests(t.Context(), Requests{Target: closed, Connections: 1, Size: 1, Time: time.Millisecond}); err == nil {
		t.Error("requests to a closed port succeed")
	}
	r, err := RunConnections(t.Context(), Connections{Target: target, Parallel: 1, Time: 20 * time.Millisecond})
	if err != nil || r.Errors == 0 || !strings.Contains(r.Error, "refused") {
		t.Error(err, r)
	}
	closed.Congestion = "nobody knows this"
	if _, err := RunRequests(t.Context(), Requests{Target: closed, Connections: 1, Size: 1, Time: time.Millisecond}); err == nil || !strings.Contains(err.Error(), "congestion") {
		t.Error("unknown congestion control:", err)
	}
	if (Report{}).Rate() != 0 {
		t.Error("an empty report has a rate")
	}
}

func TestIdle(t *testing.T) {
	target := serve(t)
	target.Congestion = "reno" // in every kernel, and free for all
	in, orders := io.Pipe()
	answers, out := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- RunIdle(t.Context(), target, in, out) }()
	for _, step := range []struct{ ask, open int }{{10, 10}, {200, 200}, {100, 200}} {
		fmt.Fprintln(orders, step.ask)
		var got int
		if _, err := fmt.Fscanln(answers, &got); err != nil || got != step.open {
			t.Fatalf("asked for %d: %d are open, %v", step.ask, got, err)
		}
	}
	_ = orders.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := RunIdle(t.Context(), target, strings.NewReader("many\n"), io.Discard); err == nil {
		t.Error("nonsense is taken for a number")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var text strings.Builder
	if err := RunIdle(ctx, target, strings.NewReader("3\n"), &text); err != nil || !strings.HasPrefix(text.String(), "error: 0 of 3") {
		t.Error(err, text.String())
	}
}
