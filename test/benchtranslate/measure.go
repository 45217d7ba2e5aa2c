package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tougw/tougw/internal/testnet"
)

// Transfers beside small requests.
const (
	transfers    = 4       // at a time
	transferSize = 999_000 // bytes of value; with its command it is a message that Homa carries
	smallConns   = 4       // of small requests
	// warmUp is how long the link is saturated before it counts.
	warmUp = time.Second
)

// measure goes through all rows that o asks for, round by round.
func measure(ctx context.Context, o *options) (*results, error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return nil, err
	}
	r := newResults(ctx, o)
	err = errors.Join(w.idle(ctx, o, r), w.loaded(ctx, o, r), w.close())
	r.finish()
	return r, err
}

// job is one program run that gives figures for some rows.
type job struct {
	rows []string
	run  func(ctx context.Context, to *way) ([]figure, error)
}

// jobs are those of the idle link.
func (w *world) jobs(o *options) (jobs []job) {
	for _, pipeline := range []int{1, 16} {
		for _, conns := range []int{1, 50} {
			name := fmt.Sprintf("%d B, %s", payload, connections(conns))
			if pipeline > 1 {
				name += fmt.Sprintf(", pipeline of %d", pipeline)
			}
			rate := map[*way]float64{} // of the last run, from which the next one's length follows
			jobs = append(jobs, job{[]string{"Redis GET " + name, "Redis SET " + name}, func(ctx context.Context, to *way) ([]figure, error) {
				n := max(int(rate[to]*o.duration.Seconds()), 20*conns*pipeline)
				got, err := redisBenchmark(ctx, w.app(), to.redis, conns, pipeline, n)
				if err != nil {
					return nil, err
				}
				rate[to] = min(got["GET"].PerSecond, got["SET"].PerSecond)
				return []figure{got["GET"], got["SET"]}, nil
			}})
		}
	}
	for _, conns := range []int{1, 50} {
		jobs = append(jobs, job{[]string{fmt.Sprintf("HTTP %d B, %s", payload, connections(conns))}, func(ctx context.Context, to *way) ([]figure, error) {
			f, err := wrk(ctx, w.app(), to.web, conns, o.duration)
			return []figure{f}, err
		}})
	}
	return jobs
}

func connections(n int) string {
	if n == 1 {
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", n)
}

// idle measures what each way costs while nothing else happens. A first round
// warms up and finds out how long runs must be; it does not count.
func (w *world) idle(ctx context.Context, o *options, r *results) error {
	if err := w.translate(ctx, "{timeout: 2s}"); err != nil {
		return err
	}
	for _, j := range w.jobs(o) {
		if !slices.ContainsFunc(j.rows, o.rows.MatchString) {
			continue
		}
		for round := range o.rounds + 1 {
			for i := range ways {
				to := ways[(i+round)%len(ways)] // so that none always follows the same
				if err := context.Cause(ctx); err != nil {
					return err
				}
				var figures []figure
				err := r.undisturbed(ctx, func() (err error) {
					figures, err = j.run(ctx, to)
					return err
				}, &figures)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", j.rows[0], to.name, err)
				}
				if round == 0 {
					continue
				}
				for k, f := range figures {
					r.add(j.rows[k], to.name, f)
				}
				progress(j.rows[0], to.name, round)
			}
		}
	}
	return nil
}

// Beginnings of the names of the rows of the shaped link; its rate follows.
const (
	rowShapedIdle   = "Redis GET 100 B, shaped link, idle"
	rowShapedLoaded = "Redis GET 100 B beside 1 MB transfers, shaped link"
)

func atRate(row string, rate int64) string { return fmt.Sprintf("%s, %d Mbit/s", row, rate/1_000_000) }

// loaded measures small requests beside transfers over a link of limited rate.
func (w *world) loaded(ctx context.Context, o *options, r *results) (err error) {
	if !o.rows.MatchString(rowShapedIdle) && !o.rows.MatchString(rowShapedLoaded) {
		return nil
	}
	for _, p := range []string{fmt.Sprint(redisPort), fmt.Sprint(bulkPort)} {
		if _, err := w.Server.Run(ctx, "redis-cli", "-p", p, "set", "small", smallValue); err != nil {
			return err
		}
	}
	if err := w.segment(ctx, false); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.unshape(ctx), w.segment(ctx, true)) }()
	for _, rate := range o.rates {
		// Windows that fit the link, as an administrator would set them.
		if err := w.translate(ctx, fmt.Sprintf("{timeout: 2s, link_rate: %dMbit, unscheduled: 10000, incoming: %dKiB}", rate/1_000_000, 3*o.queue/4>>10)); err != nil {
			return err
		}
		for _, bulk := range []bool{false, true} {
			if err := w.shared(ctx, o, r, rate, bulk); err != nil {
				return err
			}
		}
	}
	return nil
}

// shared measures all ways over a link of a rate, with transfers or without.
func (w *world) shared(ctx context.Context, o *options, r *results, rate int64, bulk bool) error {
	row := rowShapedIdle
	if bulk {
		row = rowShapedLoaded
	}
	if !o.rows.MatchString(row) {
		return nil
	}
	row = atRate(row, rate)
	for round := range o.rounds {
		for _, queue := range []struct{ name, leaf string }{{"", fifo(o)}, {", fq_codel", codel(o)}} {
			shaped := w.tryShape(ctx, o, rate, queue.leaf)
			if shaped != nil && !errors.Is(shaped, errNoQueue) {
				return shaped
			}
			for _, to := range ways {
				name := to.name + queue.name
				if to.name == oneProxy || queue.name != "" && !bulk {
					continue
				}
				if shaped != nil {
					r.missing(row, name, "not in this kernel")
					continue
				}
				figures := make([]figure, 1)
				err := r.undisturbed(ctx, func() (err error) {
					figures[0], err = w.beside(ctx, o, to, bulk)
					return err
				}, &figures)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", row, name, err)
				}
				r.add(row, name, figures[0])
				progress(row, name, round+1)
			}
		}
	}
	return nil
}

// beside measures small requests, with transfers or without.
func (w *world) beside(ctx context.Context, o *options, to *way, bulk bool) (f figure, err error) {
	if !bulk {
		return ask(ctx, w.app(), to.redis, smallConns, o.duration)
	}
	cmd := exec.Command("redis-benchmark", "-h", to.bulk.Addr().String(), "-p", fmt.Sprint(to.bulk.Port()), "-t", "set",
		"-d", fmt.Sprint(transferSize), "-c", fmt.Sprint(transfers), "-n", "1000", "-l", "-q")
	var said testnet.Output
	cmd.Stderr = &said
	p, err := w.app().Start(cmd)
	if err != nil {
		return f, err
	}
	defer func() { p.Kill(); <-p.Done() }()
	select {
	case <-time.After(warmUp):
	case <-ctx.Done():
		return f, context.Cause(ctx)
	}
	before, err := w.received(ctx)
	if err != nil {
		return f, err
	}
	start := time.Now()
	if f, err = ask(ctx, w.app(), to.redis, smallConns, o.loaded); err != nil {
		return f, err
	}
	after, err := w.received(ctx)
	if err != nil {
		return f, err
	}
	select {
	case <-p.Done():
		return f, fmt.Errorf("the transfers ended: %w: %s", p.Wait(), said.String())
	default:
	}
	f.Bulk = 8 * (after - before) / time.Since(start).Seconds()
	if f.Bulk <= 0 {
		return f, errors.New("nothing was transferred")
	}
	return f, nil
}

// received is how many bytes the server of the transfers has got.
func (w *world) received(ctx context.Context) (float64, error) {
	out, err := w.Server.Run(ctx, "redis-cli", "-p", fmt.Sprint(bulkPort), "info", "stats")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(out) {
		if value, ok := strings.CutPrefix(line, "total_net_input_bytes:"); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, errors.New("redis does not say what it received")
}

func progress(row, way string, round int) {
	fmt.Fprintf(os.Stderr, "%s: %s, round %d\n", row, way, round)
}
