package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// PaperBound is the p99 slowdown that the SIGCOMM'18 paper reports at 80 % load
// as the most for the shortest half of the messages of any workload.
const PaperBound = 2.2

// fewMessages is how many leave less than a hundred to a slice.
const fewMessages = 100 * Slices

// Table shows runs of one workload side by side, as text; results must not be
// empty.
func Table(results []*Result) string {
	var b strings.Builder
	first := results[0]
	fmt.Fprintf(&b, "%s at %.0f %% load, %d hosts, seed %d\n", first.Workload, 100*first.Load, first.Hosts, first.Seed)
	levels := "level"
	if first.ScheduledLevels > 1 {
		levels = "levels"
	}
	fmt.Fprintf(&b, "%d %s for scheduled bytes, cutoffs %v, %d bytes unscheduled, %d granted ahead of %d messages\n",
		first.ScheduledLevels, levels, first.Cutoffs[first.ScheduledLevels:], first.Unscheduled, first.GrantWindow, first.Overcommit)
	fmt.Fprintf(&b, "\n%-22s", "slowdown")
	for _, r := range results {
		fmt.Fprintf(&b, "  %23s", r.Scheme.Title)
	}
	fmt.Fprintf(&b, "\n%-22s", "messages up to, bytes")
	for range results {
		fmt.Fprintf(&b, "  %7s %7s %7s", "mean", "p50", "p99")
	}
	b.WriteByte('\n')
	row := func(name string, slice func(*Result) *Slice) {
		fmt.Fprintf(&b, "%-22s", name)
		for _, r := range results {
			s := slice(r)
			fmt.Fprintf(&b, "  %7s %7s %7s", figure(s.Mean), figure(s.P50), figure(s.P99))
		}
		b.WriteByte('\n')
	}
	for i := range first.Slices {
		name := fmt.Sprintf("%3d %%  %15s", 100*(i+1)/len(first.Slices), thousands(first.Slices[i].Longest))
		row(name, func(r *Result) *Slice { return &r.Slices[i] })
	}
	row("shortest half", func(r *Result) *Slice { return &r.Half })
	row("all", func(r *Result) *Slice { return &r.All })
	b.WriteByte('\n')
	line := func(name string, value func(*Result) string) {
		fmt.Fprintf(&b, "%-22s", name)
		for _, r := range results {
			fmt.Fprintf(&b, "  %23s", value(r))
		}
		b.WriteByte('\n')
	}
	line("measured messages", func(r *Result) string { return thousands(r.All.Count) })
	line("of these not arrived", func(r *Result) string { return thousands(r.Unfinished) })
	line("load offered, %", func(r *Result) string { return fmt.Sprintf("%.1f", 100*r.OfferedLoad) })
	line("load carried, %", func(r *Result) string { return fmt.Sprintf("%.1f", 100*r.MeasuredLoad) })
	line("packets", func(r *Result) string { return thousands(int(r.PacketsSent)) })
	line("dropped", func(r *Result) string { return thousands(int(r.PacketsDropped)) })
	line("bytes sent again", func(r *Result) string { return thousands(int(r.BytesResent)) })
	line("longest queue, bytes", func(r *Result) string { return thousands(int(r.MaxQueuedTOR)) })
	line("same, between switches", func(r *Result) string { return thousands(int(r.MaxQueuedCore)) })
	line("simulated, ms", func(r *Result) string { return fmt.Sprintf("%.1f", 1000*r.Time) })
	line("took, s", func(r *Result) string { return fmt.Sprintf("%.2f", r.Elapsed) })
	if first.All.Count < fewMessages {
		fmt.Fprintf(&b, "Fewer than %s messages: a p99 is the longest time.\n", thousands(fewMessages))
	}
	if math.Abs(first.OfferedLoad-first.Load) > 0.05 {
		b.WriteString("The load is chance: a longer run has more of the few long messages that make it.\n")
	}
	if slices.ContainsFunc(results, func(r *Result) bool { return r.Unfinished > 0 }) {
		b.WriteString("Messages that have not arrived count with the time so far, which is less than the truth.\n")
	}
	return b.String()
}

// figure writes a slowdown with three significant digits.
func figure(v float64) string {
	switch {
	case v < 9.995:
		return fmt.Sprintf("%.2f", v)
	case v < 99.95:
		return fmt.Sprintf("%.1f", v)
	}
	return thousands(int(v + 0.5))
}

// thousands writes n with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
