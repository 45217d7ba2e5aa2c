package main

import (
	"strings"
	"testing"
)

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

func TestTable(t *testing.T) {
	r := &results{Names: []string{"a", "b"}, Rounds: 3, Versions: map[string]string{"a": "1", "b": "2"}}
	for _, v := range []float64{2, 1, 4} {
		r.add("a", figure{"cpu", "s/GB", v / 100})
		r.add("a", figure{"speed", "Gbit/s", v})
		r.add("b", figure{"speed", "Gbit/s", 10 * v})
		r.add("b", figure{"cpu", "s/GB", 0}) // no process did the work
	}
	var rows []string
	for line := range strings.Lines(r.table()) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	table := strings.Join(rows, "\n")
	for _, want := range []string{
		"speed Gbit/s 2.00 (1.00 - 4.00) 20.00 (10.00 - 40.00)\ncpu s/GB 0.02 (0.01 - 0.04) -",
		"Median of 3 rounds",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
}
