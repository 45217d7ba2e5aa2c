// Command benchtranslate measures the translator beside TCP proxies, in network
// namespaces of this machine and with real programs: Redis and nginx as servers,
// redis-benchmark and wrk as clients. The ways between them are none (routing
// only), one HAProxy, two HAProxies in a row, and two tougw that speak Homa with
// each other. Then 1 MB transfers and small requests share a link of limited rate.
//
// It needs root, and prints a table, and JSON on request.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tougw/tougw/internal/testnet"
)

// options are the flags.
type options struct {
	tougw    string
	duration time.Duration // of each run on an idle link
	loaded   time.Duration // of each run beside transfers
	rounds   int
	rates    []int64 // bit/s of the shaped link, one after the other
	queue    int     // bytes of each of its queues
	rows     *regexp.Regexp
	json     string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "benchtranslate:", err)
		os.Exit(1)
	}
}

func run() error {
	var o options
	flag.StringVar(&o.tougw, "tougw", "bin/tougw", "the `FILE` of the program to measure")
	flag.DurationVar(&o.duration, "duration", 1200*time.Millisecond, "`TIME` of each run on an idle link")
	flag.DurationVar(&o.loaded, "loaded", 4*time.Second, "`TIME` of each run beside transfers")
	flag.IntVar(&o.rounds, "rounds", 3, "`NUMBER` of rounds; the table has their medians")
	rates := flag.String("rate", "100,300", "rates of the shared link, one after the other, in `MBIT/S`")
	flag.IntVar(&o.queue, "queue", 128<<10, "size of each of its queues in `BYTES`")
	rows := flag.String("rows", "", "only the rows that match this `REGEXP`")
	flag.StringVar(&o.json, "json", "", "also write the results to `FILE` as JSON")
	flag.Parse()
	var err error
	if o.rows, err = regexp.Compile(*rows); err != nil {
		return fmt.Errorf("-rows: %w", err)
	}
	if flag.NArg() > 0 || o.duration <= 0 || o.loaded <= 0 || o.rounds < 1 || o.queue < 3000 {
		flag.Usage()
		return errors.New("bad arguments")
	}
	for text := range strings.SplitSeq(*rates, ",") {
		megabits, err := strconv.ParseUint(text, 10, 16)
		if err != nil || megabits == 0 {
			return fmt.Errorf("-rate: %q is no rate of 1 to 65535 Mbit/s", text)
		}
		o.rates = append(o.rates, int64(megabits)*1_000_000)
	}
	if err := testnet.Probe(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r, err := measure(ctx, &o)
	if err != nil {
		return err
	}
	if o.json != "" {
		if err := r.writeJSON(o.json); err != nil {
			return err
		}
	}
	return r.writeText(os.Stdout)
}
