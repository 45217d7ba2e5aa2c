// Command benchhoma measures Homa in user space against kernel TCP, between
// network namespaces of this machine: round trips of 100-byte RPCs, long
// messages, many outstanding RPCs, and short RPCs while long messages saturate
// a link behind priority queues. It prints a table, and JSON on request.
//
// It needs root. Rows that this kernel cannot run say why.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/tougw/tougw/internal/testnet"
)

// options are the flags.
type options struct {
	duration time.Duration
	rate     int64 // bit/s of the saturated link
	queue    int   // bytes of each of its queues
	rows     *regexp.Regexp
	json     string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "benchhoma:", err)
		os.Exit(1)
	}
}

func run() error {
	var o options
	flag.DurationVar(&o.duration, "duration", 3*time.Second, "`TIME` of each measurement")
	megabits := flag.Int("rate", 300, "rate of the saturated link in `MBIT/S`")
	flag.IntVar(&o.queue, "queue", 128<<10, "size of each of its queues in `BYTES`")
	rows := flag.String("rows", "", "only the rows that match this `REGEXP`")
	flag.StringVar(&o.json, "json", "", "also write the results to `FILE` as JSON")
	flag.Parse()
	var err error
	if o.rows, err = regexp.Compile(*rows); err != nil {
		return fmt.Errorf("-rows: %w", err)
	}
	if flag.NArg() > 0 || o.duration <= 0 || *megabits < 1 || *megabits > 100_000 || o.queue < 3000 {
		flag.Usage()
		return errors.New("bad arguments")
	}
	o.rate = int64(*megabits) * 1_000_000
	if err := testnet.Probe(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	results, err := measure(ctx, &o)
	if err != nil {
		return err
	}
	if err := writeText(os.Stdout, results); err != nil {
		return err
	}
	if o.json == "" {
		return nil
	}
	b, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(b, '\n'), 0o644)
}
