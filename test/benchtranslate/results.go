package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tougw/tougw/test/lab"
	"golang.org/x/sys/unix"
)

// results is all that was measured.
type results struct {
	When      time.Time         `json:"when"`
	Took      float64           `json:"took_s"`
	CPU       string            `json:"cpu"`
	Cores     int               `json:"cores"`
	Kernel    string            `json:"kernel"`
	Versions  map[string]string `json:"versions"`
	LoadStart float64           `json:"load_start"`
	LoadEnd   float64           `json:"load_end"`
	Rounds    int               `json:"rounds"`
	Repeated  int               `json:"repeated"` // runs that the hypervisor disturbed
	Queue     int               `json:"queue_bytes"`
	Cells     []*cell           `json:"cells"`
	Goals     []goal            `json:"goals"`
}

// cell is what one way has in a row.
type cell struct {
	Row     string   `json:"row"`
	Way     string   `json:"way"`
	Runs    []figure `json:"runs,omitempty"`
	Median  figure   `json:"median"` // of each figure on its own
	Missing string   `json:"missing,omitempty"`
}

// goal is a comparison that the translator has to stand.
type goal struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Limit float64 `json:"limit"`
	Met   bool    `json:"met"`
}

func newResults(ctx context.Context, o *options) *results {
	r := &results{
		When: time.Now().UTC().Truncate(time.Second), Cores: runtime.NumCPU(), LoadStart: lab.LoadAverage(), Rounds: o.rounds,
		Queue: o.queue, Versions: map[string]string{"Go": runtime.Version()},
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, text, _ := strings.Cut(string(text), "model name")
		line, _, _ := strings.Cut(text, "\n")
		r.CPU = strings.Trim(line, " \t:")
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		r.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	for program, args := range map[string][]string{
		o.tougw: {"version"}, "redis-server": {"--version"}, "nginx": {"-v"}, "haproxy": {"-v"}, "wrk": {"-v"},
	} {
		// wrk fails when it tells its version; what is not known stays out.
		out, _ := exec.CommandContext(ctx, program, args...).CombinedOutput()
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		if program == o.tougw {
			program = "tougw"
		}
		if line != "" {
			r.Versions[program] = strings.TrimSpace(line)
		}
	}
	return r
}

func (r *results) cell(row, way string) *cell {
	i := slices.IndexFunc(r.Cells, func(c *cell) bool { return c.Row == row && c.Way == way })
	if i >= 0 {
		return r.Cells[i]
	}
	c := &cell{Row: row, Way: way}
	r.Cells = append(r.Cells, c)
	return c
}

// undisturbed does run, which sets figures, until the hypervisor leaves it alone.
func (r *results) undisturbed(ctx context.Context, run func() error, figures *[]figure) error {
	busy, repeats, err := lab.Undisturbed(ctx, run, func() bool { return true })
	r.Repeated += repeats
	for i := range *figures {
		(*figures)[i].Busy = busy
	}
	return err
}

// add records a run.
func (r *results) add(row, way string, f figure) {
	c := r.cell(row, way)
	c.Runs = append(c.Runs, f)
}

// missing records why there is no run.
func (r *results) missing(row, way, why string) { r.cell(row, way).Missing = why }

// finish computes medians and goals, and sorts: rows as they were measured, ways
// as they are listed.
func (r *results) finish() {
	r.Took = time.Since(r.When).Seconds()
	r.LoadEnd = lab.LoadAverage()
	var rows []string
	for _, c := range r.Cells {
		if !slices.Contains(rows, c.Row) {
			rows = append(rows, c.Row)
		}
		c.Median = medians(c.Runs)
	}
	rank := func(c *cell) (int, int) {
		for i, w := range ways {
			if rest, ok := strings.CutPrefix(c.Way, w.name); ok {
				return slices.Index(rows, c.Row), i + len(ways)*min(len(rest), 1)
			}
		}
		return slices.Index(rows, c.Row), 0
	}
	slices.SortStableFunc(r.Cells, func(a, b *cell) int {
		ra, wa := rank(a)
		rb, wb := rank(b)
		if ra != rb {
			return ra - rb
		}
		return wa - wb
	})
	for _, row := range rows {
		// What waits in queues of clients is throughput, which is in the table.
		if strings.Contains(row, "1 connection") && !strings.Contains(row, "pipeline") {
			r.compare(row+": p50 by translator / by two HAProxies, at most", 2, r.cell(row, translator).Median.P50, r.cell(row, twoProxies).Median.P50,
				func(x float64) bool { return x <= 2 })
		}
		if strings.HasPrefix(row, rowShapedLoaded) {
			r.compare(row+": p99 by two HAProxies / by translator, at least", 5, r.cell(row, twoProxies).Median.P99, r.cell(row, translator).Median.P99,
				func(x float64) bool { return x >= 5 })
			// An empty link would be no merit.
			r.compare(row+": transfers by translator / by two HAProxies, at least", 0.5, r.cell(row, translator).Median.Bulk, r.cell(row, twoProxies).Median.Bulk,
				func(x float64) bool { return x >= 0.5 })
		}
	}
}

// compare adds a goal for the quotient of two figures.
func (r *results) compare(what string, limit, a, b float64, met func(float64) bool) {
	if a > 0 && b > 0 {
		r.Goals = append(r.Goals, goal{what, a / b, limit, met(a / b)})
	}
}

// medians of each figure.
func medians(runs []figure) (m figure) {
	if len(runs) == 0 {
		return m
	}
	of := func(get func(f figure) float64) float64 {
		v := make([]float64, len(runs))
		for i, f := range runs {
			v[i] = get(f)
		}
		slices.Sort(v)
		return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	}
	return figure{
		PerSecond: of(func(f figure) float64 { return f.PerSecond }), P50: of(func(f figure) float64 { return f.P50 }),
		P99: of(func(f figure) float64 { return f.P99 }), Bulk: of(func(f figure) float64 { return f.Bulk }),
		Busy: of(func(f figure) float64 { return f.Busy }),
	}
}

func (r *results) writeJSON(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// writeText writes the table.
func (r *results) writeText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "%s, %d cores, Linux %s\n", r.CPU, r.Cores, r.Kernel)
	for _, program := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(tw, "%s: %s\n", program, r.Versions[program])
	}
	fmt.Fprintf(tw, "%s, took %.0f s; medians of %d rounds; load average %.2f before, %.2f after; %d runs repeated that the hypervisor disturbed\n",
		r.When.Format(time.DateTime), r.Took, r.Rounds, r.LoadStart, r.LoadEnd, r.Repeated)
	fmt.Fprintf(tw, "shaped link: queues of %d bytes; %d transfers of %d bytes, %d connections of small requests, one every %v on each\n", r.Queue, transfers, transferSize, smallConns, askEvery)
	fmt.Fprintln(tw, "busy: the share of all processors' time that was used; near 100 % a figure tells of them, not of the network")
	row := ""
	for _, c := range r.Cells {
		if c.Row != row {
			row = c.Row
			fmt.Fprintf(tw, "\n%s\trequests/s\tp50\tp99\ttransfers\tbusy\n", row)
		}
		if c.Missing != "" {
			fmt.Fprintf(tw, "  %s\t%s\n", c.Way, c.Missing)
			continue
		}
		bulk := "-"
		if c.Median.Bulk > 0 {
			bulk = fmt.Sprintf("%.1f Mbit/s", c.Median.Bulk/1e6)
		}
		fmt.Fprintf(tw, "  %s\t%.0f\t%s\t%s\t%s\t%.0f%%\n", c.Way, c.Median.PerSecond, latency(c.Median.P50), latency(c.Median.P99), bulk, 100*c.Median.Busy)
	}
	fmt.Fprintln(tw)
	for _, g := range r.Goals {
		verdict := "met"
		if !g.Met {
			verdict = "NOT MET"
		}
		fmt.Fprintf(tw, "%s %g: %.2f, %s\n", g.What, g.Limit, g.Value, verdict)
	}
	return tw.Flush()
}

// latency writes microseconds.
func latency(us float64) string {
	if us >= 10_000 {
		return fmt.Sprintf("%.1f ms", us/1000)
	}
	return fmt.Sprintf("%.0f us", us)
}
