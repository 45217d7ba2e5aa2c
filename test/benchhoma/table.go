package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// writeText writes the results for people.
func writeText(w io.Writer, results []result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := ""
	for _, r := range results {
		if r.Row != row {
			row = r.Row
			fmt.Fprintf(tw, "\n%s\tp50\tp99\tcalls/s\tthroughput\tlong messages\tfailed\n", row)
		}
		if r.Missing != "" {
			fmt.Fprintf(tw, "  %s\t%s\t\t\t\t\t\n", r.Transport, r.Missing)
			continue
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%.0f\t%s\t%s\t%d\n", r.Transport, micros(r.P50), micros(r.P99), r.Calls, megabits(r.Bits), megabits(r.LongBits), r.Failed)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	return writeGoal(w, results)
}

// leastFactor is how many times lower than TCP's the p99 of Homa must be in rowBeside.
const leastFactor = 7

// writeGoal writes whether Homa meets it, if both were measured.
func writeGoal(w io.Writer, results []result) error {
	p99 := map[string]float64{}
	for _, r := range results {
		if r.Row == rowBeside {
			p99[r.Transport] = r.P99
		}
	}
	if p99[nameHoma] == 0 || p99[nameTCP] == 0 {
		return nil
	}
	factor, verdict := p99[nameTCP]/p99[nameHoma], "met"
	if factor < leastFactor {
		verdict = "NOT MET"
	}
	_, err := fmt.Fprintf(w, "\n%s: p99 by %s / by %s, at least %d: %.2f, %s\n", rowBeside, nameTCP, nameHoma, leastFactor, factor, verdict)
	return err
}

// micros writes microseconds.
func micros(us float64) string {
	if us >= 10_000 {
		return fmt.Sprintf("%.1f ms", us/1000)
	}
	return fmt.Sprintf("%.1f us", us)
}

// megabits writes a rate, or a dash for none.
func megabits(bits float64) string {
	if bits == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f Mbit/s", bits/1e6)
}
