package sim

import (
	"encoding/xml"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestSlowdownsAreSummarised(t *testing.T) {
	var samples []sample
	for i := range 1000 {
		samples = append(samples, sample{length: int32(1000 - i), slowdown: float32(1 + i)})
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(samples), func(i, j int) { samples[i], samples[j] = samples[j], samples[i] })
	var r Result
	r.measure(samples)
	if len(r.Slices) != Slices {
		t.Fatalf("%d slices", len(r.Slices))
	}
	if want := (Slice{Count: 100, Shortest: 1, Longest: 100, Mean: 950.5, P50: 950, P99: 999, P999: 1000, Max: 1000}); r.Slices[0] != want {
		t.Errorf("shortest tenth %+v, want %+v", r.Slices[0], want)
	}
	if want := (Slice{Count: 500, Shortest: 1, Longest: 500, Mean: 750.5, P50: 750, P99: 995, P999: 1000, Max: 1000}); r.Half != want {
		t.Errorf("shortest half %+v, want %+v", r.Half, want)
	}
	if r.All.Count != 1000 || r.All.P50 != 500 || r.All.P99 != 990 || r.All.P999 != 999 {
		t.Errorf("all %+v", r.All)
	}
	var none Result
	none.measure(nil)
	if none.All.Count != 0 || len(none.Slices) != Slices {
		t.Errorf("no samples: %+v", none)
	}
}

// made is a result for tables and plots.
func made(workload string, scheme Scheme, worst float64) *Result {
	r := &Result{Workload: workload, Scheme: scheme, Load: 0.8, Hosts: 144, OfferedLoad: 0.78, MeasuredLoad: 0.79, ScheduledLevels: 3}
	var samples []sample
	for i := range 10_000 {
		samples = append(samples, sample{int32(i + 1), float32(1 + worst*float64(i%100)/99)})
	}
	r.measure(samples)
	return r
}

func TestTable(t *testing.T) {
	text := Table([]*Result{made("W3", Schemes[0], 1), made("W3", Schemes[2], 2000)})
	for _, want := range []string{
		"W3 at 80 % load, 144 hosts",
		" 10 %            1,000     1.50    1.49    1.99    1,001     991   1,981\n",
		"measured messages                        10,000                   10,000\n",
		"load carried, %                            79.0                     79.0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if !strings.HasSuffix(text, "took, s                                    0.00                     0.00\n") {
		t.Errorf("reservations about a long run:\n%s", text)
	}
}

// TestReservations: a table says what its figures are not good for.
func TestReservations(t *testing.T) {
	r := made("W5", Schemes[0], 1)
	r.measure(make([]sample, 52))
	r.ScheduledLevels, r.OfferedLoad, r.Unfinished, r.Elapsed = 1, 0.52, 4, 0.04
	text := Table([]*Result{r})
	for _, want := range []string{
		"\n1 level for scheduled bytes",
		"took, s                                    0.04\nFewer than 1,000 messages: a p99 is the longest time.\nThe load is chance:",
		"\nMessages that have not arrived count with the time so far",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestPlotIsXML(t *testing.T) {
	odd := Scheme{Name: "odd", Title: `<"&'>`}
	plot := Plot([]*Result{made("W1", Schemes[0], 1), made("W1", odd, 500), made("W2", Schemes[0], 3)})
	decoder := xml.NewDecoder(strings.NewReader(plot))
	lines := 0
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "polyline" {
			lines++
		}
	}
	if lines != 2*3 {
		t.Errorf("%d lines, want one for each percentile of each result", lines)
	}
	if Plot(nil) == "" {
		t.Error("no picture of no results")
	}
}

func TestNumbersInTables(t *testing.T) {
	for n, want := range map[int]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
	for v, want := range map[float64]string{1: "1.00", 9.994: "9.99", 9.996: "10.0", 99.94: "99.9", 99.96: "100", 1234.5: "1,235"} {
		if got := figure(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
}
