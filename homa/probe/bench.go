package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/tougw/tougw/homa/rpc"
)

// BenchOptions say what Bench does.
type BenchOptions struct {
	To netip.AddrPort
	// Length draws the length of the next request, in bytes, from a uniform number
	// in [0,1).
	Length func(u float64) int
	// Workload is the name of Length, for the report.
	Workload string
	// MaxLength is the protocol's limit; longer requests are cut to it, and counted.
	MaxLength int
	// Concurrency is how many calls are outstanding.
	Concurrency int
	// Duration is how long new calls are begun; the end of the context ends it early.
	Duration time.Duration
	// Seed makes the lengths repeatable.
	Seed uint64
	// Progress, if set, is called every second.
	Progress func(Progress)
}

// Progress is where a running Bench is.
type Progress struct {
	Elapsed          time.Duration
	Answered, Failed uint64
	// CallsPerSecond and BytesPerSecond (requests and responses) are those since the
	// last call of Progress.
	CallsPerSecond, BytesPerSecond float64
}

// Report is what Bench measured. Times in JSON are microseconds.
type Report struct {
	Server      string         `json:"server"`
	Workload    string         `json:"workload"`
	Concurrency int            `json:"concurrency"`
	Seconds     float64        `json:"seconds"`
	Answered    uint64         `json:"answered"`
	Failed      uint64         `json:"failed"`
	Failures    []Failure      `json:"failures,omitempty"` // what says most first
	Outstanding uint64         `json:"outstanding_at_end"` // calls that the end cut off
	Cut         uint64         `json:"cut_to_limit"`
	CallRate    float64        `json:"calls_per_second"`
	SendRate    float64        `json:"request_bytes_per_second"`
	ReceiveRate float64        `json:"response_bytes_per_second"`
	Latency     Latency        `json:"latency"`
	BySize      []SizedLatency `json:"latency_by_size,omitempty"`
}

// Failure is a reason why calls failed.
type Failure struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// Latency describes round-trip times.
type Latency struct {
	Count uint64  `json:"count"`
	Min   float64 `json:"min_us"`
	Mean  float64 `json:"mean_us"`
	P50   float64 `json:"p50_us"`
	P90   float64 `json:"p90_us"`
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p99_9_us"`
	Max   float64 `json:"max_us"`
}

// SizedLatency is the Latency of requests from MinBytes to MaxBytes long.
type SizedLatency struct {
	MinBytes int     `json:"min_bytes"`
	MaxBytes int     `json:"max_bytes"`
	Latency  Latency `json:"latency"`
}

// maxReasons bounds the reasons told apart.
const maxReasons = 16

// recorder collects what all workers measure.
type recorder struct {
	bounds []int // longest length of each class, increasing

	mu                    sync.Mutex
	answered, failed, cut uint64
	outstanding           uint64 // when the end came
	sent, received        uint64 // bytes of calls that were answered
	times                 Histogram
	sized                 []Histogram // by bounds
	failures              map[string]uint64
}

func (r *recorder) success(length, response int, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered++
	r.sent += uint64(length)
	r.received += uint64(response)
	r.times.Add(took)
	i, _ := slices.BinarySearch(r.bounds, length)
	r.sized[min(i, len(r.sized)-1)].Add(took)
}

// failure counts a failed call and reports whether none was answered yet.
func (r *recorder) failure(why string) (all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
	if r.failures[why] > 0 || len(r.failures) < maxReasons {
		r.failures[why]++
	}
	return r.answered == 0
}

// Bench keeps calls outstanding and measures them. It ends early when the server's
// host refuses a call before any was answered. It fails with ErrNoAnswer, and with
// all reasons, when none was answered; the Report is valid then, too.
func Bench(ctx context.Context, c Caller, o BenchOptions) (*Report, error) {
	rec := &recorder{bounds: quantiles(&o), failures: map[string]uint64{}}
	rec.sized = make([]Histogram, len(rec.bounds))
	ctx, cancel := context.WithTimeout(ctx, o.Duration)
	defer cancel()
	begun := time.Now()
	var workers, progress sync.WaitGroup
	for i := range o.Concurrency {
		workers.Go(func() { work(ctx, cancel, c, &o, rec, rand.New(rand.NewPCG(o.Seed, uint64(i)))) })
	}
	stop := make(chan struct{})
	if o.Progress != nil {
		progress.Go(func() { rec.watch(stop, begun, o.Progress) })
	}
	workers.Wait()
	took := time.Since(begun)
	close(stop)
	progress.Wait()
	r := rec.report(&o, took)
	if r.Answered == 0 {
		return r, fmt.Errorf("%w: %s", ErrNoAnswer, r.reasons())
	}
	return r, nil
}

// reasons says why calls were not answered.
func (r *Report) reasons() string {
	var all []string
	for _, f := range r.Failures {
		all = append(all, fmt.Sprintf("%s (%d)", f.Reason, f.Count))
	}
	if len(all) == 0 {
		return fmt.Sprintf("%d still outstanding after %.1f s", r.Outstanding, r.Seconds)
	}
	return strings.Join(all, "; ")
}

// sizeClasses is how many classes of length a Report tells apart.
const sizeClasses = 10

// quantiles returns the longest length of each class, increasing; each class has
// about a tenth of all calls.
func quantiles(o *BenchOptions) []int {
	var bounds []int
	for i := range sizeClasses {
		u := float64(i+1) / sizeClasses
		bounds = append(bounds, min(o.Length(min(u, 1-1e-9)), o.MaxLength))
	}
	return slices.Compact(bounds)
}

// work makes one call at a time until ctx ends. The end cuts a call off, which
// then is neither answered nor failed. A refusal before any answer ends all work.
func work(ctx context.Context, stop func(), c Caller, o *BenchOptions, rec *recorder, random *rand.Rand) {
	var request []byte
	for ctx.Err() == nil {
		length := o.Length(random.Float64())
		if length > o.MaxLength {
			length = o.MaxLength
			rec.mu.Lock()
			rec.cut++
			rec.mu.Unlock()
		}
		if length > len(request) {
			request = make([]byte, length)
			pattern(request)
		}
		start := time.Now()
		response, err := c.Call(ctx, o.To, request[:length])
		took := time.Since(start)
		switch {
		case err == nil:
			rec.success(length, len(response), took)
		case ctx.Err() != nil:
			rec.mu.Lock()
			rec.outstanding++
			rec.mu.Unlock()
		default:
			if rec.failure(reason(err)) && (errors.Is(err, rpc.ErrRefused) || errors.Is(err, rpc.ErrNotHoma)) {
				stop()
			}
			// What fails at once would fail a million times a second.
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
	}
}

// watch calls progress every second.
func (r *recorder) watch(stop <-chan struct{}, begun time.Time, progress func(Progress)) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	last, lastCalls, lastBytes := begun, uint64(0), uint64(0)
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		now := time.Now()
		r.mu.Lock()
		calls, failed, bytes := r.answered, r.failed, r.sent+r.received
		r.mu.Unlock()
		passed := now.Sub(last).Seconds()
		progress(Progress{
			Elapsed: now.Sub(begun), Answered: calls, Failed: failed,
			CallsPerSecond: float64(calls-lastCalls) / passed, BytesPerSecond: float64(bytes-lastBytes) / passed,
		})
		last, lastCalls, lastBytes = now, calls, bytes
	}
}

// report makes the Report when all workers have ended.
func (r *recorder) report(o *BenchOptions, took time.Duration) *Report {
	seconds := took.Seconds()
	rep := &Report{
		Server: o.To.String(), Workload: o.Workload, Concurrency: o.Concurrency, Seconds: seconds,
		Answered: r.answered, Failed: r.failed, Outstanding: r.outstanding, Cut: r.cut, CallRate: float64(r.answered) / seconds,
		SendRate: float64(r.sent) / seconds, ReceiveRate: float64(r.received) / seconds, Latency: latencyOf(&r.times),
	}
	for why, n := range r.failures {
		rep.Failures = append(rep.Failures, Failure{why, n})
	}
	last := func(f Failure) int {
		if f.Reason == noAnswer {
			return 1
		}
		return 0
	}
	slices.SortFunc(rep.Failures, func(a, b Failure) int {
		return cmp.Or(last(a)-last(b), cmp.Compare(b.Count, a.Count), strings.Compare(a.Reason, b.Reason))
	})
	if len(r.bounds) > 1 {
		least := 1
		for i, most := range r.bounds {
			rep.BySize = append(rep.BySize, SizedLatency{least, most, latencyOf(&r.sized[i])})
			least = most + 1
		}
	}
	return rep
}

func latencyOf(h *Histogram) Latency {
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return Latency{h.Count(), us(h.Min()), us(h.Mean()), us(h.Percentile(50)), us(h.Percentile(90)),
		us(h.Percentile(99)), us(h.Percentile(99.9)), us(h.Max())}
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "server\t%s\n", r.Server)
	fmt.Fprintf(tw, "workload\t%s, %d outstanding, %.1f s\n", r.Workload, r.Concurrency, r.Seconds)
	fmt.Fprintf(tw, "calls\t%d answered, %d failed\n", r.Answered, r.Failed)
	for _, f := range r.Failures {
		fmt.Fprintf(tw, "failed\t%d: %s\n", f.Count, f.Reason)
	}
	if r.Cut > 0 {
		fmt.Fprintf(tw, "cut\t%d requests to the protocol's limit\n", r.Cut)
	}
	fmt.Fprintf(tw, "rate\t%.0f calls/s, requests %s, responses %s\n", r.CallRate, bitRate(r.SendRate), bitRate(r.ReceiveRate))
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(tw, "\nround trip, ms\tcalls\tmin\tmean\tp50\tp90\tp99\tp99.9\tmax\n")
	row := func(name string, l Latency) {
		fmt.Fprintf(tw, "%s\t%d", name, l.Count)
		for _, us := range []float64{l.Min, l.Mean, l.P50, l.P90, l.P99, l.P999, l.Max} {
			fmt.Fprintf(tw, "\t%s", millis(time.Duration(us*float64(time.Microsecond))))
		}
		fmt.Fprintln(tw)
	}
	row("all", r.Latency)
	for _, s := range r.BySize {
		row(fmt.Sprintf("%d-%d B", s.MinBytes, s.MaxBytes), s.Latency)
	}
	return tw.Flush()
}

// bitRate writes bytes per second as bits.
func bitRate(bytes float64) string {
	bits := bytes * 8
	for _, unit := range []string{"bit/s", "kbit/s", "Mbit/s"} {
		if bits < 1000 {
			return fmt.Sprintf("%.3g %s", bits, unit)
		}
		bits /= 1000
	}
	return fmt.Sprintf("%.3g Gbit/s", bits)
}

// String is a line for a terminal.
func (p Progress) String() string {
	s := fmt.Sprintf("%3.0f s  %d calls  %.0f calls/s  %s", p.Elapsed.Seconds(), p.Answered, p.CallsPerSecond, bitRate(p.BytesPerSecond))
	if p.Failed > 0 {
		s += fmt.Sprintf("  %d failed", p.Failed)
	}
	return s
}
