// Command bench measures what the product costs its users, side by side with
// plain routing and with wireguard-go, in the namespaces of the demo and as
// root. `make bench` builds and runs it.
//
// Every contender has a network of its own, all exist at once, and the runs
// alternate between them, so that what else the machine does hits all alike.
// The figures are medians of several rounds. The table goes to
// bench-results/table.txt, and everything that was measured to results.json.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tougw/tougw/internal/testnet"
)

func main() {
	var o options
	flag.StringVar(&o.binary, "tougw", "bin/tougw", "the `program` to measure")
	flag.StringVar(&o.out, "out", "bench-results", "the `folder` for the results")
	flag.BoolVar(&o.full, "full", false, "every row, and more rounds")
	flag.IntVar(&o.rounds, "rounds", 0, "`number` of rounds (default 3, with -full 5)")
	flag.IntVar(&o.seconds, "seconds", 4, "`length` of one throughput run")
	flag.Parse()
	if o.rounds <= 0 {
		o.rounds = 3
		if o.full {
			o.rounds = 5
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Far above what even all rows need.
	limited, cancel := context.WithTimeout(ctx, 40*time.Minute)
	defer cancel()
	if err := run(limited, o); err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(os.Stderr, "\nInterrupted; everything is cleaned up.")
			os.Exit(130)
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	binary, out     string
	full            bool
	rounds, seconds int
}

// run measures everything and writes the results.
func run(ctx context.Context, o options) (err error) {
	if err := testnet.Probe(); err != nil {
		return err
	}
	start := time.Now()
	var contenders []*contender
	defer func() {
		for _, c := range contenders {
			if closeErr := c.Close(); closeErr != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", c.name, closeErr))
			}
			err = errors.Join(err, c.RemoveDir())
		}
	}()
	for _, make := range []func(context.Context, string) (*contender, error){plain, wireguardGo, tougw} {
		c, err := make(ctx, o.binary)
		if err != nil {
			return err
		}
		contenders = append(contenders, c)
		fmt.Printf("%-14s %s\n", c.name, c.version)
		if err := c.serve(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	results := newResults(o, contenders)
	for round := range o.rounds {
		for _, m := range measurements(o) {
			for _, c := range contenders {
				fmt.Printf("round %d of %d, %4.0f s: %-30s %-14s ", round+1, o.rounds, time.Since(start).Seconds(), m.name, c.name)
				figures, err := m.run(ctx, c)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", m.name, c.name, err)
				}
				for _, f := range figures {
					results.add(c.name, f)
					fmt.Printf(" %s", f)
				}
				fmt.Println()
			}
		}
	}
	return results.write(o.out)
}
