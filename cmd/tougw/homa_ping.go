package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tougw/tougw/homa/probe"
)

// newHomaPing returns `tougw homa ping`.
func newHomaPing() *cobra.Command {
	var flags homaFlags
	var count, size int
	interval := time.Second
	cmd := &cobra.Command{
		Use:   "ping HOST:PORT [-c COUNT] [-s SIZE] [-i INTERVAL]",
		Short: "Call a Homa server again and again, and show the round trips",
		Long: `ping calls a Homa server, one call at a time, and prints a line for each call and
a summary at the end. Any server will do; 'tougw homa serve --echo' is one. It
ends after COUNT calls, or at SIGINT. The exit code is 1 when no call was
answered.`,
		Example: "  tougw homa ping 10.0.0.2:4000 -c 5",
		Args:    exactly("HOST:PORT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkSize(cmd, size); err != nil {
				return err
			}
			if count < 0 || cmd.Flags().Changed("count") && count == 0 {
				return &usageError{cmd, fmt.Errorf("--count %d is not above 0", count)}
			}
			if interval < 0 {
				return &usageError{cmd, fmt.Errorf("--interval %v is negative", interval)}
			}
			node, to, err := flags.client(cmd, args[0])
			if err != nil {
				return err
			}
			defer node.Close()
			ctx, stop := untilSignal(cmd)
			defer stop()
			err = probe.Ping(ctx, node, probe.PingOptions{To: to, Count: count, Size: size, Interval: interval}, cmd.OutOrStdout())
			if errors.Is(err, probe.ErrNoAnswer) {
				return errReported
			}
			return err
		},
	}
	flags.add(cmd)
	cmd.Flags().IntVarP(&count, "count", "c", 0, "stop after `COUNT` calls")
	cmd.Flags().IntVarP(&size, "size", "s", 100, "length of each request in `BYTES`, up to 1000000")
	cmd.Flags().VarP((*seconds)(&interval), "interval", "i", "`TIME` from the start of a call to the next, as 0.2 or 200ms")
	return cmd
}
