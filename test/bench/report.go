package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// results is all that was measured, as results.json has it.
type results struct {
	When    time.Time `json:"when"`
	Machine machine   `json:"machine"`
	Rounds  int       `json:"rounds"`
	Seconds int       `json:"seconds_per_throughput_run"`
	// Versions of the contenders, by name.
	Versions map[string]string `json:"versions"`
	// Names of the contenders, in the order of the table.
	Names []string `json:"contenders"`
	Rows  []*row   `json:"rows"`
}

// machine is where the results come from.
type machine struct {
	CPU        string  `json:"cpu"`
	Cores      int     `json:"cores"`
	MemoryGiB  float64 `json:"memory_gib"`
	Kernel     string  `json:"kernel"`
	System     string  `json:"system"`
	Congestion string  `json:"default_congestion_control"`
	Go         string  `json:"go"`
	Iperf      string  `json:"iperf3"`
}

// row is one line of the table: the values of all rounds for each contender.
type row struct {
	Name   string               `json:"name"`
	Unit   string               `json:"unit"`
	Values map[string][]float64 `json:"values"`
	Median map[string]float64   `json:"median"`
}

func newResults(o options, contenders []*contender) *results {
	r := &results{When: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(), Rounds: o.rounds, Seconds: o.seconds, Versions: map[string]string{}}
	for _, c := range contenders {
		r.Names = append(r.Names, c.name)
		r.Versions[c.name] = c.version
	}
	return r
}

// add puts a figure into its row. What is zero because no process did the work
// is left out.
func (r *results) add(contender string, f figure) {
	if f.V == 0 {
		return
	}
	i := slices.IndexFunc(r.Rows, func(row *row) bool { return row.Name == f.Row })
	if i < 0 {
		i = len(r.Rows)
		r.Rows = append(r.Rows, &row{Name: f.Row, Unit: f.Unit, Values: map[string][]float64{}, Median: map[string]float64{}})
	}
	row := r.Rows[i]
	row.Values[contender] = append(row.Values[contender], f.V)
	row.Median[contender] = median(row.Values[contender])
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// table is what people read: medians, with the least and the most in brackets.
func (r *results) table() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%s\n%s, %d cores, %.0f GiB; %s, Linux %s\n", r.When.Format(time.DateTime+" MST"), m.CPU, m.Cores, m.MemoryGiB, m.System, m.Kernel)
	fmt.Fprintf(&b, "%s, %s; iperf3 with cubic, the host's default is %s\n", m.Go, m.Iperf, m.Congestion)
	for _, name := range r.Names {
		fmt.Fprintf(&b, "%s: %s\n", name, r.Versions[name])
	}
	fmt.Fprintf(&b, "All on this one machine, clients and servers too. Median of %d rounds of %d s (least - most).\n\n", r.Rounds, r.Seconds)
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "\t\t%s\n", strings.Join(r.Names, "\t"))
	for _, row := range r.sorted() {
		fmt.Fprintf(w, "%s\t%s", row.Name, row.Unit)
		for _, name := range r.Names {
			v := row.Values[name]
			if len(v) == 0 {
				fmt.Fprint(w, "\t-")
				continue
			}
			d := digits(row.Unit)
			if r.Rounds == 1 {
				fmt.Fprintf(w, "\t%.*f", d, v[0])
				continue
			}
			fmt.Fprintf(w, "\t%.*f (%.*f - %.*f)", d, row.Median[name], d, slices.Min(v), d, slices.Max(v))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	return b.String()
}

// sorted puts the processor times behind the throughputs.
func (r *results) sorted() []*row {
	rows := slices.Clone(r.Rows)
	weight := func(row *row) int {
		return slices.Index([]string{"Gbit/s", "us", "/s", "s/GB", "MiB"}, row.Unit)
	}
	slices.SortStableFunc(rows, func(a, b *row) int { return weight(a) - weight(b) })
	return rows
}

// write leaves the results in a folder and prints the table.
func (r *results) write(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "results.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	table := r.table()
	fmt.Printf("\n%s\nIn %s: table.txt, results.json\n", table, folder)
	return os.WriteFile(filepath.Join(folder, "table.txt"), []byte(table), 0o644)
}

// thisMachine describes where we are; what cannot be found out stays empty.
func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), System: "Linux"}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryGiB = float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if text, err := os.ReadFile("/etc/os-release"); err == nil {
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				m.System = strings.Trim(strings.TrimSpace(value), `"`)
			}
		}
	}
	if text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control"); err == nil {
		m.Congestion = strings.TrimSpace(string(text))
	}
	if out, err := exec.Command("iperf3", "--version").Output(); err == nil {
		m.Iperf = strings.Join(strings.Fields(firstLine(string(out)))[:2], " ")
	}
	return m
}
