package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// sampleResults has a figure for each row, contender and round, except that one
// contender is missing, one failed in one row, and the kernel's has no process.
func sampleResults() *results {
	r := &results{Rounds: 5, Machine: machine{CPU: `Test & "Sons" <CPU>`, Cores: 2}}
	for _, c := range contenders("/opt/nebula") {
		r.Peers = append(r.Peers, &peer{Name: c.name, About: strings.Repeat("about ", 30), kernel: c.kernel})
	}
	r.peer("ocserv").Missing = "cannot be installed: " + strings.Repeat("no network ", 20)
	r.failed("Nebula new", failure{Round: 2, Offload: offloadOff, What: "1 stream up", Why: "timed out", rows: []string{"up1"}})
	for round := range r.Rounds {
		for _, s := range sections() {
			for _, row := range s.rows {
				for i, p := range r.Peers {
					if p.Missing != "" || p.kernel && strings.Contains(row.key, "client") {
						continue
					}
					for _, m := range []mode{offloadOn, offloadOff} {
						if p.Name == "Nebula new" && m == offloadOff && row.key == "up1" {
							continue
						}
						r.add(p.Name, m, sample{row.key, 123456.7 / math.Pow(7, float64(i)) * float64(1+round)}, observation{Round: round + 1})
					}
				}
			}
		}
	}
	r.finish()
	return r
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

func TestBetterBy(t *testing.T) {
	for _, c := range []struct {
		a, b float64
		less bool
		want float64
	}{{6, 3, false, 2}, {3, 6, false, 0.5}, {3, 6, true, 2}, {6, 3, true, 0.5}, {1, 0, false, 0}, {0, 0, true, 0}, {0, 5, true, 0}, {-1, 1, false, 0}} {
		if got := betterBy(c.a, c.b, c.less); got != c.want {
			t.Errorf("betterBy(%v, %v, %v) = %v, want %v", c.a, c.b, c.less, got, c.want)
		}
	}
}

func TestRowsFitTheTable(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sections() {
		if len(s.title)+len(" (offload off)") > tableWidth {
			t.Errorf("section %q is too long", s.title)
		}
		for _, row := range s.rows {
			if seen[row.key] {
				t.Errorf("two rows have the key %s", row.key)
			}
			seen[row.key] = true
			if n := len(row.title) + len(", ") + len(row.unit); n > titleWidth {
				t.Errorf("%s, %s has %d characters, at most %d fit", row.title, row.unit, n, titleWidth)
			}
		}
	}
	all := contenders("/opt/nebula")
	if all[len(all)-1].name != ours {
		t.Error("ours is not the last")
	}
	if n := titleWidth + columnWidth*(len(all)+len(comparedWith)); n > tableWidth {
		t.Errorf("the table is %d wide", n)
	}
	for _, c := range all {
		if first, second := splitName(c.name); len(first) >= columnWidth || len(second) >= columnWidth {
			t.Errorf("the name %q does not fit", c.name)
		}
	}
	for _, c := range comparedWith {
		if _, err := chosen(all, c.name); err != nil {
			t.Error(err)
		}
	}
}

func TestTable(t *testing.T) {
	r := sampleResults()
	table := r.table()
	for line := range strings.Lines(table) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > tableWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	var rows []string
	for line := range strings.Lines(table) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	text := strings.Join(rows, "\n")
	for _, want := range []string{
		"1 stream up, Gbit/s 370,370 52,910 7,559 1,080 n/a[1] 22.0 0.00x 0.00x 0.02x",
		"1 stream up, Gbit/s 370,370 52,910 7,559 n/a[2] n/a[1] 22.0 0.00x 0.00x -",
		"1 conn., p50, us 370,370 52,910 7,559 1,080 n/a[1] 22.0 2,401x 343x 49.0x",
		"1 stream up, client, s/GB - 52,910",
		"[1] ocserv: cannot be installed: no network",
		"[2] Nebula new: 1 stream up, round 2: timed out",
		"Failed: Nebula new, 1 stream up, round 2: timed out",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for _, l := range r.Rows {
		if l.Better == "neither" && len(l.Ratios) > 0 {
			t.Errorf("%s has ratios", l.Key)
		}
		for name, c := range l.Cells {
			if len(c.Runs) == 0 && c.Missing == "" {
				t.Errorf("%s of %s is missing without a reason", l.Key, name)
			}
		}
	}
}

func TestPlotIsXML(t *testing.T) {
	for _, r := range []*results{sampleResults(), {}} {
		plot := r.plot()
		d := xml.NewDecoder(strings.NewReader(plot))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if strings.Contains(plot, "NaN") || strings.Contains(plot, "Inf") || strings.Contains(plot, `height="-`) {
			t.Error("the picture has impossible coordinates")
		}
	}
}

func TestWrite(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "a", "b")
	want := sampleResults()
	if err := want.write(folder); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"table.txt", "plot.svg", "results.json"} {
		if info, err := os.Stat(filepath.Join(folder, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(folder, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got results
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	l := got.line("up1", offloadOn)
	if l == nil || len(l.Cells[ours].Runs) != 5 || l.Cells[ours].Median != want.line("up1", offloadOn).Cells[ours].Median {
		t.Errorf("the file does not have what was measured: %+v", l)
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0.00", 0.123: "0.12", 9.994: "9.99", 9.996: "10.0", 12.34: "12.3", 99.94: "99.9", 99.96: "100",
		1234.6: "1,235", 1234567: "1,234,567", -4321: "-4,321", -0.5: "-0.50", 999: "999", -100: "-100",
	} {
		if got := figure(v); got != want {
			t.Errorf("figure(%v) = %s, want %s", v, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	long := strings.Repeat("word ", 60)
	for line := range strings.Lines(wrap("[1] ", long)) {
		if n := len(strings.TrimRight(line, "\n")); n > tableWidth || !strings.HasPrefix(line, "[1] ") && !strings.HasPrefix(line, "    word") {
			t.Errorf("%q", line)
		}
	}
	if got := strings.Join(strings.Fields(wrap("", long)), " "); got != strings.TrimSpace(long) {
		t.Error("words were lost")
	}
}

func TestPlotKeepsBarsInside(t *testing.T) {
	r := &results{Peers: []*peer{{Name: "plain", kernel: true}, {Name: "wireguard-go"}, {Name: ours}}}
	for name, v := range map[string]float64{"plain": 1000, "wireguard-go": 1, ours: 2} {
		r.add(name, offloadOn, sample{"up1", v}, observation{})
	}
	r.add(ours, anyMode, sample{flowKey("client", 1000), 20}, observation{})
	r.finish()
	plot := r.plot()
	if len(r.panels()) != 1 {
		t.Error("a row of one contender is drawn")
	}
	if strings.Contains(plot, `y="-`) || !strings.Contains(plot, "1,000") || !strings.Contains(plot, `height="4" fill="white"`) {
		t.Error(plot)
	}
}

func TestFailedRowsAreInTheTable(t *testing.T) {
	r := &results{Peers: []*peer{{Name: "plain", kernel: true}, {Name: ours}}}
	r.failed(ours, failure{Round: 1, What: partMemory, Why: "too many files", rows: memoryRows(flowCounts, true)})
	r.finish()
	text := r.table()
	for _, n := range flowCounts {
		if want := thousands(n) + " flows, MiB"; !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if !strings.Contains(text, "n/a[1]") || !strings.Contains(text, "[1] tougw: memory, round 1: too many files") {
		t.Error(text)
	}
}

func TestEveryMeasurementHasItsRows(t *testing.T) {
	keys := memoryRows(flowCounts, true)
	for _, m := range measurements(options{full: true}, offloadOn) {
		keys = append(keys, m.rows...)
	}
	for _, s := range sections() {
		for _, row := range s.rows {
			if !slices.Contains(keys, row.key) && !strings.HasPrefix(row.key, "idle-") {
				t.Errorf("nothing gives %s", row.key)
			}
		}
	}
	for _, key := range keys {
		if _, ok := findRow(key); !ok {
			t.Errorf("no row %s", key)
		}
	}
}
