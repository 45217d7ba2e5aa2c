// Command homasim simulates Homa in a data centre and writes a text table, JSON
// and a plot of slowdown against message length.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tougw/tougw/homa/sim"
)

type options struct {
	workloads, schemes   string
	load                 float64
	seed                 uint64
	racks, hosts, spines int
	measure              time.Duration
	scale                float64
	fifo                 int
	overcommit, window   int
	parallel             int
	read, out            string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "homasim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	paper := sim.PaperFabric()
	flags := flag.NewFlagSet("homasim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.workloads, "workloads", strings.Join(sim.Workloads, ","), "`names` of workloads")
	flags.StringVar(&o.schemes, "schemes", schemeNames(), "`names` of what to compare")
	flags.Float64Var(&o.load, "load", 0.8, "share of the hosts' links that traffic takes")
	flags.Uint64Var(&o.seed, "seed", 1, "of traffic and paths")
	flags.IntVar(&o.racks, "racks", paper.Racks, "racks")
	flags.IntVar(&o.hosts, "hosts", paper.HostsPerRack, "hosts in each rack")
	flags.IntVar(&o.spines, "spines", paper.Spines, "spine switches")
	flags.DurationVar(&o.measure, "measure", 0, "simulated time in which measured messages begin (default: by workload, 2 ms to 120 ms)")
	flags.Float64Var(&o.scale, "scale", 1, "times that default")
	flags.IntVar(&o.fifo, "fifo", 0, "share for the oldest message, per mille (the paper: 0, the Linux module: 50)")
	flags.IntVar(&o.overcommit, "overcommit", 0, "messages granted at a time (default: levels for scheduled bytes)")
	flags.IntVar(&o.window, "window", 0, "bytes granted ahead of a message (default: what a round trip takes)")
	flags.IntVar(&o.parallel, "parallel", runtime.GOMAXPROCS(0), "runs at a time")
	flags.StringVar(&o.read, "read", "", "run nothing: show the results in these JSON `files`")
	flags.StringVar(&o.out, "out", "", "`folder` for table.txt, results.json and plot.svg")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	results, err := o.results(ctx, stderr)
	if err != nil {
		return err
	}
	table := tables(results)
	if _, err := io.WriteString(stdout, table); err != nil {
		return err
	}
	if o.out == "" {
		return nil
	}
	if err := write(o.out, table, results); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stderr, "table.txt, results.json and plot.svg are in %s\n", o.out)
	return err
}

// results reads results, or makes them.
func (o *options) results(ctx context.Context, stderr io.Writer) ([]*sim.Result, error) {
	if o.read != "" {
		return read(strings.Split(o.read, ","))
	}
	configs, err := o.configs()
	if err != nil {
		return nil, err
	}
	return runAll(ctx, configs, o.parallel, stderr)
}

// read joins the results in several files.
func read(files []string) (results []*sim.Result, err error) {
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var list []*sim.Result
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for i, r := range list {
			if r == nil || len(r.Slices) != sim.Slices {
				return nil, fmt.Errorf("%s: result %d does not have %d slices", name, i+1, sim.Slices)
			}
			results = append(results, r)
		}
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("%s: no results", strings.Join(files, ", "))
	}
	return results, nil
}

func schemeNames() string {
	var names []string
	for _, s := range sim.Schemes {
		names = append(names, s.Name)
	}
	return strings.Join(names, ",")
}

// configs lists the runs, all schemes of a workload one behind the other.
func (o *options) configs() ([]sim.Config, error) {
	if o.parallel < 1 {
		return nil, fmt.Errorf("-parallel %d is not positive", o.parallel)
	}
	if !(o.scale > 0 && o.scale <= 1000) {
		return nil, fmt.Errorf("-scale %v is not between 0 and 1000", o.scale)
	}
	var configs []sim.Config
	for name := range strings.SplitSeq(o.workloads, ",") {
		w, err := sim.LoadWorkload(name)
		if err != nil {
			return nil, err
		}
		c := sim.DefaultConfig(w)
		c.Load, c.Seed, c.FIFOShare = o.load, o.seed, o.fifo
		c.Overcommit, c.GrantWindow = o.overcommit, o.window
		c.Fabric.Racks, c.Fabric.HostsPerRack, c.Fabric.Spines = o.racks, o.hosts, o.spines
		measure := c.Measure
		if o.measure != 0 {
			measure = o.measure
		}
		c.SetMeasure(time.Duration(float64(measure) * o.scale))
		for scheme := range strings.SplitSeq(o.schemes, ",") {
			i := slices.IndexFunc(sim.Schemes, func(s sim.Scheme) bool { return s.Name == scheme })
			if i < 0 {
				return nil, fmt.Errorf("scheme %q is not one of %s", scheme, schemeNames())
			}
			c.Scheme = sim.Schemes[i]
			configs = append(configs, c)
		}
	}
	return configs, nil
}

// runAll does the runs, some at a time, and gives their results in order.
func runAll(ctx context.Context, configs []sim.Config, parallel int, stderr io.Writer) ([]*sim.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make([]*sim.Result, len(configs))
	var failure error
	var mu sync.Mutex // failure and stderr
	var wait sync.WaitGroup
	next := make(chan int)
	for range min(parallel, len(configs)) {
		wait.Go(func() {
			for i := range next {
				r, err := sim.Run(ctx, configs[i])
				mu.Lock()
				if err != nil {
					if failure == nil {
						failure = err
					}
					cancel()
				} else {
					results[i] = r
					fmt.Fprintf(stderr, "%s %s: %.1f s, p99 of the shortest half %.2f\n", r.Workload, r.Scheme.Name, r.Elapsed, r.Half.P99)
				}
				mu.Unlock()
			}
		})
	}
	for i := range configs {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wait.Wait()
	if failure == nil {
		failure = ctx.Err()
	}
	return results, failure
}

// tables joins the tables of the workloads.
func tables(results []*sim.Result) string {
	var parts []string
	for len(results) > 0 {
		n := slices.IndexFunc(results, func(r *sim.Result) bool { return r.Workload != results[0].Workload })
		if n < 0 {
			n = len(results)
		}
		parts = append(parts, sim.Table(results[:n]))
		results = results[n:]
	}
	return strings.Join(parts, "\n")
}

func write(folder, table string, results []*sim.Result) error {
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for name, content := range map[string]string{
		"table.txt": table, "results.json": string(data) + "\n", "plot.svg": sim.Plot(results),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
