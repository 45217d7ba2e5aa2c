package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tougw/tougw/homa/rpc"
)

var to = netip.MustParseAddrPort("10.0.0.2:4000")

// callerFunc is a function as a Caller.
type callerFunc func(ctx context.Context, request []byte) ([]byte, error)

func (f callerFunc) Call(ctx context.Context, to2 netip.AddrPort, request []byte) ([]byte, error) {
	if to2 != to {
		return nil, fmt.Errorf("call to %s", to2)
	}
	return f(ctx, request)
}

// sleep waits as a call does.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := callerFunc(func(ctx context.Context, request []byte) ([]byte, error) {
			calls++
			switch calls {
			case 2:
				return nil, errors.Join(rpc.ErrTimeout, sleep(ctx, 100*time.Millisecond))
			case 3:
				return nil, fmt.Errorf("call: %w", rpc.ErrRefused)
			case 4:
				return nil, fmt.Errorf("%w: %w", rpc.ErrUnreachable, syscall.ENETUNREACH)
			}
			return request, sleep(ctx, time.Duration(calls)*time.Millisecond)
		})
		var out bytes.Buffer
		if err := Ping(t.Context(), c, PingOptions{To: to, Count: 5, Size: 100, Interval: time.Second}, &out); err != nil {
			t.Error(err)
		}
		const want = `HOMA PING 10.0.0.2:4000: 100 bytes
100 bytes from 10.0.0.2:4000: seq=1 time=1.000 ms
10.0.0.2:4000: seq=2 no answer for 100.000 ms
10.0.0.2:4000: seq=3 port unreachable: nobody serves it
10.0.0.2:4000: seq=4 host unreachable: network is unreachable
100 bytes from 10.0.0.2:4000: seq=5 time=5.000 ms

--- 10.0.0.2:4000 ---
5 calls, 2 answered, 60% lost, 4.005s
round trip min/avg/p50/p99/max = 1.000/3.000/1.000/5.000/5.000 ms
`
		if out.String() != want {
			t.Errorf("got\n%s\nwant\n%s", &out, want)
		}
	})
}

// TestPingEnds interrupts a call that would be answered later.
func TestPingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		c := callerFunc(func(ctx context.Context, request []byte) ([]byte, error) {
			return request, sleep(ctx, 900*time.Millisecond)
		})
		var out bytes.Buffer
		if err := Ping(ctx, c, PingOptions{To: to, Size: 1, Interval: time.Second}, &out); err != nil {
			t.Error(err)
		}
		if !strings.Contains(out.String(), "2 calls, 2 answered, 0% lost, 2.5s") {
			t.Error(out.String())
		}
	})
}

func TestPingUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := callerFunc(func(context.Context, []byte) ([]byte, error) { return nil, rpc.ErrNotHoma })
		var out bytes.Buffer
		if err := Ping(t.Context(), c, PingOptions{To: to, Count: 2, Size: 1}, &out); !errors.Is(err, ErrNoAnswer) {
			t.Error(err)
		}
		if !strings.Contains(out.String(), "2 calls, 0 answered, 100% lost, 0s\n") || strings.Contains(out.String(), "min/avg") {
			t.Error(out.String())
		}
		broken := errors.New("broken pipe")
		if err := Ping(t.Context(), c, PingOptions{To: to, Count: 2, Size: 1}, errWriter{broken}); !errors.Is(err, broken) {
			t.Error(err)
		}
	})
}

type errWriter struct{ err error }

func (w errWriter) Write([]byte) (int, error) { return 0, w.err }

func TestBench(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var most, now atomic.Int64
		var mu sync.Mutex
		lengths := map[int]int{}
		c := callerFunc(func(ctx context.Context, request []byte) ([]byte, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			mu.Lock()
			lengths[len(request)]++
			mu.Unlock()
			return request[:1], sleep(ctx, time.Duration(len(request))*time.Microsecond)
		})
		var progress []Progress
		r, err := Bench(t.Context(), c, BenchOptions{
			To: to, Workload: "two sizes", MaxLength: 2000, Concurrency: 4, Duration: 10 * time.Second, Seed: 1,
			Length: func(u float64) int {
				if u < 0.5 {
					return 1000
				}
				return 5000
			},
			Progress: func(p Progress) { progress = append(progress, p) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if most.Load() != 4 {
			t.Errorf("%d calls outstanding", most.Load())
		}
		// Four workers of 1.5 ms a call on average.
		if r.CallRate < 2500 || r.CallRate > 2800 || r.Seconds != 10 || r.Answered != uint64(r.CallRate*10+0.5) {
			t.Errorf("%+v", r)
		}
		if len(lengths) != 2 || r.Cut < r.Answered/3 || r.Cut > r.Answered*2/3 {
			t.Errorf("%d cut of %v", r.Cut, lengths)
		}
		if len(r.BySize) != 2 || r.BySize[0].MaxBytes != 1000 || r.BySize[1].MinBytes != 1001 || r.BySize[0].Latency.P99 != 1000 || r.BySize[1].Latency.P50 != 2000 {
			t.Errorf("%+v", r.BySize)
		}
		if r.ReceiveRate != r.CallRate || r.Latency.Min != 1000 || r.Latency.Max != 2000 || r.Failed != 0 {
			t.Errorf("%+v", r)
		}
		if len(progress) < 9 || progress[8].Elapsed != 9*time.Second || progress[8].CallsPerSecond < 2500 {
			t.Errorf("%v", progress)
		}
		var text, again bytes.Buffer
		if err := r.WriteText(&text); err != nil {
			t.Error(err)
		}
		for _, want := range []string{"two sizes, 4 outstanding, 10.0 s", "requests to the protocol's limit", "1-1000 B", "1001-2000 B"} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("no %q in\n%s", want, &text)
			}
		}
		if err := json.NewEncoder(&again).Encode(r); err != nil {
			t.Error(err)
		}
	})
}

// TestBenchFailures: all reasons are told, those first that say more.
func TestBenchFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		c := callerFunc(func(context.Context, []byte) ([]byte, error) {
			if calls.Add(1)%3 > 0 {
				return nil, rpc.ErrTimeout
			}
			return nil, fmt.Errorf("%w: %w", rpc.ErrUnreachable, syscall.ENETUNREACH)
		})
		r, err := Bench(t.Context(), c, BenchOptions{
			To: to, MaxLength: 10, Concurrency: 2, Duration: time.Second, Length: func(float64) int { return 5 },
		})
		if len(r.Failures) != 2 || r.Failures[0].Count+r.Failures[1].Count != r.Failed || r.Failed < 1900 || r.Failed > 2002 {
			t.Fatalf("%+v", r)
		}
		want := fmt.Sprintf("no call was answered: host unreachable: network is unreachable (%d); no answer (%d)", r.Failures[0].Count, r.Failures[1].Count)
		if !errors.Is(err, ErrNoAnswer) || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		if err := r.WriteText(io.Discard); err != nil {
			t.Error(err)
		}
	})
}

// TestBenchRefused: a port that is not served is not called again and again.
func TestBenchRefused(t *testing.T) {
	for _, c := range []struct {
		err      error
		want     string
		answered int64 // calls before the first refusal
	}{
		{rpc.ErrRefused, "no call was answered: port unreachable: nobody serves it (1)", 0},
		{rpc.ErrNotHoma, "no call was answered: protocol unreachable: the host does not know Homa (1)", 0},
		{rpc.ErrRefused, "", 1}, // the server has gone and may come back
	} {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int64
			begun := time.Now()
			r, err := Bench(t.Context(), callerFunc(func(ctx context.Context, request []byte) ([]byte, error) {
				if calls.Add(1) <= c.answered {
					return request, nil
				}
				return nil, errors.Join(sleep(ctx, time.Millisecond), c.err)
			}), BenchOptions{To: to, MaxLength: 10, Concurrency: 1, Duration: time.Second, Length: func(float64) int { return 5 }})
			took := time.Since(begun)
			if c.want == "" && (err != nil || took != time.Second) || c.want != "" && (err == nil || err.Error() != c.want || took != time.Millisecond) {
				t.Errorf("%v after %v, want %s", err, took, c.want)
			}
			if r.Failed+r.Answered+r.Outstanding != uint64(calls.Load()) {
				t.Errorf("%d calls: %+v", calls.Load(), r)
			}
		})
	}
}

// TestBenchOutstanding: the end comes before any call has an answer.
func TestBenchOutstanding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := Bench(t.Context(), callerFunc(func(ctx context.Context, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}), BenchOptions{To: to, MaxLength: 10, Concurrency: 3, Duration: time.Second, Length: func(float64) int { return 5 }})
		if err == nil || err.Error() != "no call was answered: 3 still outstanding after 1.0 s" || r.Outstanding != 3 {
			t.Errorf("%v, %+v", err, r)
		}
	})
}

// TestHistogram compares percentiles with those of a sorted list.
func TestHistogram(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var h Histogram
	if h.Percentile(50) != 0 || h.Mean() != 0 {
		t.Error("an empty histogram has values")
	}
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(random.ExpFloat64() * float64(uint64(1)<<random.IntN(36)))
		d = min(d, time.Hour)
		all = append(all, d)
		h.Add(d)
	}
	slices.Sort(all)
	if h.Min() != all[0] || h.Max() != all[len(all)-1] || h.Count() != 20_000 {
		t.Errorf("%v to %v", h.Min(), h.Max())
	}
	for _, p := range []float64{0, 1, 25, 50, 90, 99, 99.9, 100} {
		want := all[max(int(p/100*20_000+0.999999)-1, 0)]
		got := h.Percentile(p)
		if diff := (got - want).Abs(); diff > want/1000+1 {
			t.Errorf("p%v is %v, want %v", p, got, want)
		}
	}
	h.Add(-time.Second)
	h.Add(100 * time.Hour)
	if h.Min() != 0 || h.Max() != time.Hour {
		t.Errorf("out of range: %v to %v", h.Min(), h.Max())
	}
}
