package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// ErrNoAnswer is what Ping and Bench return when no call was answered.
var ErrNoAnswer = errors.New("no call was answered")

// PingOptions say what Ping does.
type PingOptions struct {
	To netip.AddrPort
	// Count is how many calls are made; 0 means until the context ends.
	Count int
	// Size is the length of each request in bytes.
	Size int
	// Interval is the time from the start of a call to that of the next, if it is
	// over by then.
	Interval time.Duration
}

// Ping calls a server again and again and writes a line for each call, and a
// summary when it was told to end. It returns ErrNoAnswer, or an error of w.
func Ping(ctx context.Context, c Caller, o PingOptions, w io.Writer) error {
	request := make([]byte, o.Size)
	pattern(request)
	if _, err := fmt.Fprintf(w, "HOMA PING %s: %d bytes\n", o.To, o.Size); err != nil {
		return err
	}
	var times Histogram
	calls := 0
	begun := time.Now()
	next := time.NewTimer(0)
	defer next.Stop()
	for calls < o.Count || o.Count == 0 {
		select {
		case <-ctx.Done():
		case <-next.C:
		}
		if ctx.Err() != nil {
			break
		}
		next.Reset(o.Interval)
		start := time.Now()
		response, err := c.Call(ctx, o.To, request)
		took := time.Since(start)
		if err != nil && ctx.Err() != nil {
			break // a call that was cut off is no loss
		}
		calls++
		if err != nil {
			why := reason(err)
			if why == noAnswer {
				why += " for " + millis(took) + " ms"
			}
			_, err = fmt.Fprintf(w, "%s: seq=%d %s\n", o.To, calls, why)
		} else {
			times.Add(took)
			_, err = fmt.Fprintf(w, "%d bytes from %s: seq=%d time=%s ms\n", len(response), o.To, calls, millis(took))
		}
		if err != nil {
			return err
		}
	}
	return writeSummary(w, o, calls, &times, time.Since(begun))
}

func writeSummary(w io.Writer, o PingOptions, calls int, times *Histogram, took time.Duration) error {
	loss := 0.0
	if calls > 0 {
		loss = 100 * float64(calls-int(times.Count())) / float64(calls)
	}
	text := fmt.Sprintf("\n--- %s ---\n%d calls, %d answered, %.3g%% lost, %s\n", o.To, calls, times.Count(), loss, took.Round(time.Millisecond))
	if times.Count() > 0 {
		text += fmt.Sprintf("round trip min/avg/p50/p99/max = %s/%s/%s/%s/%s ms\n", millis(times.Min()), millis(times.Mean()),
			millis(times.Percentile(50)), millis(times.Percentile(99)), millis(times.Max()))
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	if times.Count() == 0 {
		return ErrNoAnswer
	}
	return nil
}

// millis writes a duration in milliseconds, to the microsecond, whatever its size:
// lines are to be compared.
func millis(d time.Duration) string {
	return fmt.Sprintf("%.3f", float64(d)/float64(time.Millisecond))
}
