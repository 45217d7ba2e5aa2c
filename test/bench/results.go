package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tougw/tougw/test/lab"
)

// results is all that was measured, as results.json has it.
type results struct {
	When    time.Time `json:"when"`
	Took    float64   `json:"took_s"`
	Note    string    `json:"note,omitempty"`
	Machine machine   `json:"machine"`
	Full    bool      `json:"full"`
	Rounds  int       `json:"rounds"`
	Seconds float64   `json:"seconds_per_throughput_run"`
	// LoadStart and LoadEnd are load averages of a minute; that of each run is
	// with it.
	LoadStart float64 `json:"load_start"`
	LoadEnd   float64 `json:"load_end"`
	// Stolen is the processor time that the hypervisor took, in seconds.
	Stolen float64 `json:"stolen_s"`
	// Repeated counts the runs that were done once more because of that.
	Repeated int `json:"repeated"`

	Peers []*peer `json:"peers"`
	Rows  []*line `json:"rows"`

	Micro      []microResult `json:"micro,omitempty"`
	MicroError string        `json:"micro_error,omitempty"`

	machineStart lab.MachineTime
}

// peer is a contender in the results.
type peer struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	About   string `json:"about"`
	Details string `json:"details,omitempty"`
	// Missing says why there are no figures.
	Missing  string    `json:"missing,omitempty"`
	Failures []failure `json:"failures,omitempty"`

	kernel bool
}

// failure is a run that gave no figure.
type failure struct {
	Round   int    `json:"round"`
	Offload mode   `json:"udp_segmentation_offload,omitempty"`
	What    string `json:"what"`
	Why     string `json:"why"`

	rows []string // keys of what it should have given
}

// line is one row in one mode.
type line struct {
	Section string `json:"section"`
	Key     string `json:"key"`
	Title   string `json:"title"`
	Unit    string `json:"unit"`
	Better  string `json:"better"` // more, less, or neither
	Offload mode   `json:"udp_segmentation_offload,omitempty"`
	// Cells by the name of the contender.
	Cells map[string]*cell `json:"cells"`
	// Ratios say how many times better ours is than each other, medians
	// compared; below 1 it is worse.
	Ratios map[string]float64 `json:"tougw_better_by"`
}

// cell is what one contender has in a line.
type cell struct {
	Runs   []observation `json:"runs,omitempty"`
	Median float64       `json:"median"`
	Min    float64       `json:"min"`
	Max    float64       `json:"max"`
	// Missing says why there is no figure.
	Missing string `json:"missing,omitempty"`
}

// observation is one figure.
type observation struct {
	Round int     `json:"round"`
	Value float64 `json:"value"`
	// At is when it was known, in seconds since the start; Load the load
	// average of a minute then.
	At   float64 `json:"at_s"`
	Load float64 `json:"load"`
}

func newResults(ctx context.Context, o options, all []*contender) *results {
	r := &results{
		When: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(ctx), Full: o.full, Rounds: o.rounds,
		Seconds: o.time.Seconds(), LoadStart: lab.LoadAverage(),
	}
	// Without /proc/stat the time that was stolen is not known; the
	// measurements will say so.
	r.machineStart, _ = lab.ReadMachineTime()
	for _, c := range all {
		r.Peers = append(r.Peers, &peer{Name: c.name, About: c.about, kernel: c.kernel})
	}
	return r
}

// peer of a name, which must be one of a contender.
func (r *results) peer(name string) *peer {
	i := slices.IndexFunc(r.Peers, func(p *peer) bool { return p.Name == name })
	return r.Peers[i]
}

// missing says why a contender has been given up, or nothing.
func (r *results) missing(name string) string {
	if i := slices.IndexFunc(r.Peers, func(p *peer) bool { return p.Name == name }); i >= 0 {
		return r.Peers[i].Missing
	}
	return ""
}

// line of a key in a mode, nil when nothing was measured.
func (r *results) line(key string, m mode) *line {
	i := slices.IndexFunc(r.Rows, func(l *line) bool { return l.Key == key && l.Offload == m })
	if i < 0 {
		return nil
	}
	return r.Rows[i]
}

// expect returns the line of a key in a mode, and makes it if there is none.
func (r *results) expect(key string, m mode) *line {
	if l := r.line(key, m); l != nil {
		return l
	}
	row, ok := findRow(key)
	if !ok {
		panic("bench: no row " + key)
	}
	l := &line{Key: row.key, Title: row.title, Unit: row.unit, Better: "more", Offload: m, Cells: map[string]*cell{}, Ratios: map[string]float64{}}
	switch {
	case row.remark:
		l.Better = "neither"
	case row.less:
		l.Better = "less"
	}
	r.Rows = append(r.Rows, l)
	return l
}

// add records a figure.
func (r *results) add(name string, m mode, s sample, of observation) {
	l := r.expect(s.row, m)
	c := l.Cells[name]
	if c == nil {
		c = &cell{}
		l.Cells[name] = c
	}
	of.Value = s.value
	c.Runs = append(c.Runs, of)
}

// failed records that a run gave no figures, or not all. Their rows are in the
// table even when nobody has a figure.
func (r *results) failed(name string, f failure) {
	p := r.peer(name)
	p.Failures = append(p.Failures, f)
	for _, key := range f.rows {
		r.expect(key, f.Offload)
	}
}

// finish computes what follows from the runs, sorts the rows as the table has
// them and gives every empty cell its reason.
func (r *results) finish() {
	r.Took = time.Since(r.When).Seconds()
	r.LoadEnd = lab.LoadAverage()
	if now, err := lab.ReadMachineTime(); err == nil {
		r.Stolen = now.Sub(r.machineStart).Stolen.Seconds()
	}
	var sorted []*line
	for _, s := range sections() {
		for _, m := range []mode{anyMode, offloadOn, offloadOff} {
			for _, row := range s.rows {
				if l := r.line(row.key, m); l != nil {
					l.Section = s.title
					r.fill(l)
					sorted = append(sorted, l)
				}
			}
		}
	}
	r.Rows = sorted
}

// fill computes the statistics of a line.
func (r *results) fill(l *line) {
	for _, p := range r.Peers {
		c := l.Cells[p.Name]
		if c == nil {
			c = &cell{Missing: r.reason(p, l)}
			l.Cells[p.Name] = c
			continue
		}
		values := make([]float64, len(c.Runs))
		for i, run := range c.Runs {
			values[i] = run.Value
		}
		c.Median, c.Min, c.Max = median(values), slices.Min(values), slices.Max(values)
	}
	own := l.Cells[ours]
	if own == nil || len(own.Runs) == 0 || l.Better == "neither" {
		return
	}
	for name, c := range l.Cells {
		if name == ours || len(c.Runs) == 0 {
			continue
		}
		if x := betterBy(own.Median, c.Median, l.Better == "less"); x > 0 {
			l.Ratios[name] = x
		}
	}
}

// Reasons that lie in the nature of a row.
const (
	reasonKernel = "the kernel does the work: no process to account for"
	reasonOurs   = "measured for tougw only, which keeps flows where the others keep packets"
)

// reason why a contender has no figure in a line.
func (r *results) reason(p *peer, l *line) string {
	switch {
	case p.Missing != "":
		return p.Missing
	case p.kernel:
		return reasonKernel
	}
	for _, f := range slices.Backward(p.Failures) {
		if f.Offload == l.Offload && slices.Contains(f.rows, l.Key) {
			return fmt.Sprintf("%s, round %d: %s", f.What, f.Round, f.Why)
		}
	}
	return reasonOurs
}

// median of at least one value.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// betterBy says how many times better a is than b; 0 when that says nothing.
func betterBy(a, b float64, less bool) float64 {
	if less {
		a, b = b, a
	}
	x := a / b
	if math.IsNaN(x) || math.IsInf(x, 0) || x < 0 {
		return 0
	}
	return x
}

// spread is what share of their median the runs of a contender typically span,
// the median over all its rows; 0 without any.
func (r *results) spread(name string) float64 {
	var spreads []float64
	for _, l := range r.Rows {
		if c := l.Cells[name]; c != nil && len(c.Runs) > 1 && c.Median > 0 {
			spreads = append(spreads, (c.Max-c.Min)/c.Median)
		}
	}
	if len(spreads) == 0 {
		return 0
	}
	return median(spreads)
}

// write leaves the results in a folder, which it makes.
func (r *results) write(folder string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, f := range []struct{ name, content string }{
		{"results.json", string(data) + "\n"}, {"table.txt", r.table()}, {"plot.svg", r.plot()},
	} {
		if err := os.WriteFile(filepath.Join(folder, f.name), []byte(f.content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
