package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tougw/tougw/homa/probe"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/homa/sim"
)

// maxOutstanding bounds --concurrency; it is what the engine allows.
const maxOutstanding = 65_536

// newHomaBench returns `tougw homa bench`.
func newHomaBench() *cobra.Command {
	var flags homaFlags
	var size, concurrency int
	var workload string
	duration := 10 * time.Second
	var seed uint64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bench HOST:PORT [-s SIZE | --workload W1..W5]",
		Short: "Measure a Homa server: throughput and round-trip percentiles",
		Long: `bench keeps calls to a Homa server outstanding and reports how many were
answered, throughput, and percentiles of their round trips. Requests have one
length, or those of a workload of the Homa papers (W1, mostly short messages, to
W5, mostly long ones; longer requests than the protocol allows are cut to its
limit). What 'tougw homa serve --echo' or --sink answers is the response. It ends
early when the host refuses a call before any was answered.`,
		Example: "  tougw homa bench 10.0.0.2:4000 --workload W3 --concurrency 20 --duration 30s",
		Args:    exactly("HOST:PORT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkSize(cmd, size); err != nil {
				return err
			}
			if concurrency < 1 || concurrency > maxOutstanding {
				return &usageError{cmd, fmt.Errorf("--concurrency %d is not in 1 to %d", concurrency, maxOutstanding)}
			}
			if duration <= 0 {
				return &usageError{cmd, fmt.Errorf("--duration %v is not above 0", duration)}
			}
			o := probe.BenchOptions{
				MaxLength: rpc.MaxMessage, Concurrency: concurrency, Duration: duration, Seed: seed,
				Workload: fmt.Sprintf("%d bytes", size), Length: func(float64) int { return size },
			}
			if workload != "" {
				if cmd.Flags().Changed("size") {
					return &usageError{cmd, errors.New("--size and --workload exclude each other")}
				}
				w, err := sim.LoadWorkload(workload)
				if err != nil {
					return &usageError{cmd, fmt.Errorf("--workload %q is not one of %s", workload, strings.Join(sim.Workloads, ", "))}
				}
				o.Workload, o.Length = w.Name, w.Quantile
			}
			node, to, err := flags.client(cmd, args[0])
			if err != nil {
				return err
			}
			defer node.Close()
			o.To = to
			return runBench(cmd, node, o, asJSON)
		},
	}
	flags.add(cmd)
	cmd.Flags().IntVarP(&size, "size", "s", 100, "length of each request in `BYTES`, up to 1000000")
	cmd.Flags().StringVar(&workload, "workload", "", "draw lengths from the workload `NAME`: W1 to W5")
	cmd.Flags().IntVar(&concurrency, "concurrency", 1, "keep `COUNT` calls outstanding")
	cmd.Flags().Var((*seconds)(&duration), "duration", "measure for this `TIME`, as 2.5 or 2500ms")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "`NUMBER` that the lengths follow from")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON, for programs")
	return cmd
}

// runBench measures, with a progress line where stderr is a terminal, and prints
// the report.
func runBench(cmd *cobra.Command, node *rpc.Node, o probe.BenchOptions, asJSON bool) error {
	ctx, stop := untilSignal(cmd)
	defer stop()
	stderr := cmd.ErrOrStderr()
	if isTerminal(stderr) {
		const clearLine = "\r\x1b[K"
		o.Progress = func(p probe.Progress) { fmt.Fprintf(stderr, "%s%s", clearLine, p) }
		defer fmt.Fprint(stderr, clearLine)
	}
	report, err := probe.Bench(ctx, node, o)
	if err != nil && !errors.Is(err, probe.ErrNoAnswer) {
		return err
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", o.To, err)
	}
	if asJSON {
		return errors.Join(err, writeJSON(cmd.OutOrStdout(), report))
	}
	if err != nil {
		return err
	}
	return report.WriteText(cmd.OutOrStdout())
}
