package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tougw/tougw/internal/admin"
)

// headerEvery is after how many lines the columns are named again.
const headerEvery = 40

// newTrace returns `tougw trace`.
func newTrace() *cobra.Command {
	var filter admin.RequestFilter
	var last bool
	cmd := newQuery("trace", "Show translated requests of the running daemon",
		func(ctx context.Context, c *admin.Client, w io.Writer, asJSON bool) error {
			t := tracePrinter{w: w, json: asJSON}
			if last {
				return c.LastRequests(ctx, filter, func(r *admin.Request, line []byte) error { return t.print(r, 0, line) })
			}
			return c.Requests(ctx, filter, t.header, t.print)
		})
	cmd.Use = "trace [--last] [--rule NAME] [--addr ADDRESS] [--min-latency TIME] [--errors] [--id ID] [--json] [--socket PATH | -c FILE]"
	cmd.Long = `Show the requests that the running daemon translates between TCP and Homa, each
when it ends, until this command is stopped. With --last it shows those that the
daemon keeps, for each rule the slowest of late and the last that failed, and ends.

TOTAL is the time from the first byte of the request to the last byte of the
response: the sum of QUEUE (waiting here), SERVICE (from the end of the request
until the response began) and TRANSPORT (moving both through this gateway). PRIO
is the Homa priority of unscheduled and of scheduled data, RESENT what this side
sent again because packets were lost. ID is the same on both gateways that a
request passes. A gateway that passes requests of a peer on to a Homa fabric shows
them as those of its entry of accept, with the peer as CLIENT; there ID is that of
the peer, and RELAYED the one by which the request goes on. --id finds either.

` + cmd.Long
	flags := cmd.Flags()
	flags.BoolVar(&last, "last", false, "the slowest and the failed requests that are kept, in place of those to come")
	flags.StringVar(&filter.Rule, "rule", "", "only the translate rule `NAME`, or an entry of accept such as accept[0]")
	flags.StringVar(&filter.Addr, "addr", "", "only what has this client or server: an `ADDRESS`, ADDRESS:PORT or prefix")
	flags.DurationVar(&filter.MinLatency, "min-latency", 0, "only what took this `TIME` or longer, such as 5ms")
	flags.BoolVar(&filter.Errors, "errors", false, "only what failed")
	flags.StringVar(&filter.ID, "id", "", "only the request with this `ID`, of either side of a relay")
	flags.Lookup("json").Usage = "print one JSON object a line, for programs"
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if _, _, err := admin.CheckRequestAddr(filter.Addr); err != nil {
			return &usageError{cmd, fmt.Errorf("--addr: %w", err)}
		}
		if _, err := admin.CheckRequestID(filter.ID); err != nil {
			return &usageError{cmd, fmt.Errorf("--id: %w", err)}
		}
		if filter.MinLatency < 0 {
			return &usageError{cmd, fmt.Errorf("--min-latency: %s is negative", filter.MinLatency)}
		}
		return nil
	}
	return cmd
}

// tracePrinter prints requests as they come.
type tracePrinter struct {
	w    io.Writer
	json bool
	// lines since the columns were named; 0: never.
	lines int
}

// header names the columns.
func (t *tracePrinter) header() error {
	if t.json {
		return nil
	}
	t.lines = 1
	return admin.WriteRequestHeader(t.w)
}

func (t *tracePrinter) print(r *admin.Request, lost uint64, line []byte) error {
	if t.json {
		_, err := fmt.Fprintf(t.w, "%s\n", bytes.TrimSpace(line))
		return err
	}
	if t.lines%headerEvery == 0 {
		if err := t.header(); err != nil {
			return err
		}
	}
	t.lines++
	if lost > 0 {
		if _, err := fmt.Fprintf(t.w, "%s: too slow: %d requests are not shown so far\n", time.Now().Format(time.TimeOnly), lost); err != nil {
			return err
		}
	}
	return admin.WriteRequest(t.w, r)
}
