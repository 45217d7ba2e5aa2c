// Command bench measures what the product costs its users, side by side with
// plain routing, wireguard-go, Nebula and ocserv, in the namespaces of the demo
// and as root. `make bench` builds and runs it.
//
// Every contender has a network of its own, all exist at once, and the runs
// alternate between them, so that what else the machine does hits all alike.
// The figures are medians of at least five rounds. bench-results/table.txt has
// them as text, plot.svg as a picture, and results.json has every single run.
// README.md says what each row means and how to add a contender.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/tougw/tougw/internal/testnet"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The processes that make and answer small messages are this program too.
	if len(os.Args) > 1 && os.Args[1] == loadCommand {
		exit(runLoad(ctx, os.Args[2:]))
	}
	var o options
	flag.StringVar(&o.binary, "tougw", "bin/tougw", "the `program` to measure")
	flag.StringVar(&o.out, "out", "bench-results", "the `folder` for the results")
	flag.BoolVar(&o.full, "full", false, "every row, longer runs")
	flag.BoolVar(&o.micro, "micro", false, "also run the benchmarks of the packages, as -full does (needs the source tree)")
	flag.IntVar(&o.rounds, "rounds", 5, "`number` of rounds")
	flag.DurationVar(&o.time, "time", 0, "`length` of one throughput run (default 2s, with -full 5s)")
	flag.DurationVar(&o.limit, "limit", 0, "when to stop measuring and write what there is (default 18m, with -full 3h)")
	flag.StringVar(&o.only, "only", "", "comma-separated `names` of the contenders, such as tougw,wireguard-go")
	flag.StringVar(&o.rows, "rows", "", "comma-separated parts: "+strings.Join(partNames, ", ")+" (default all)")
	flag.StringVar(&o.profile, "profile", "", "`folder` for profiles of tougw's processor time, one for each run and gateway; they cost a little of it")
	flag.StringVar(&o.nebula, "nebula", "", "`folder` with the programs nebula and nebula-cert of a version with offloads, to be measured as well")
	flag.Parse()
	exit(run(ctx, o.defaults()))
}

// exit ends the process: 130 after Ctrl-C, 1 with an error.
func exit(err error) {
	switch {
	case err == nil:
		os.Exit(0)
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "\nInterrupted; everything is cleaned up.")
		os.Exit(130)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// options are the flags.
type options struct {
	binary, out, only, rows, nebula, profile string
	full, micro                              bool
	rounds                                   int
	time, limit                              time.Duration
}

// defaults fills in what depends on -full.
func (o options) defaults() options {
	pick := func(d *time.Duration, short, full time.Duration) {
		if *d <= 0 {
			if *d = short; o.full {
				*d = full
			}
		}
	}
	pick(&o.time, 2*time.Second, 5*time.Second)
	pick(&o.limit, 18*time.Minute, 3*time.Hour)
	o.rounds = max(o.rounds, 1)
	o.micro = o.micro || o.full
	return o
}

// run measures everything and writes the results.
func run(ctx context.Context, o options) error {
	if err := testnet.Probe(); err != nil {
		return err
	}
	if _, err := raiseFileLimit(); err != nil {
		return err
	}
	s, err := newSession(ctx, o)
	if err != nil {
		return err
	}
	err = s.measure(ctx)
	err = errors.Join(err, s.close())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	fmt.Printf("\n%s\nIn %s: table.txt, plot.svg, results.json\n", s.results.table(), o.out)
	return s.results.write(o.out)
}

// raiseFileLimit lets each of 20,000 flows have a descriptor, in this process and
// in all that it starts, and returns the limit.
func raiseFileLimit() (uint64, error) {
	const want = 262144
	limit := syscall.Rlimit{Cur: want, Max: want}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		return want, nil
	}
	// Without the capability for it, as high as we may.
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("descriptor limit: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("descriptor limit: %w", err)
	}
	return limit.Cur, nil
}
