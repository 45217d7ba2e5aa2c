package translate

import (
	"net/netip"
	"sync/atomic"
)

// Stats are the counters of a Forward, Reverse or Relay since it began, and its levels
// now.
type Stats struct {
	// Conns are TCP connections now, ConnsTotal all that there were, ConnsRefused
	// those that were not served: too many, or a bad PROXY header; for a Reverse
	// those that failed to connect.
	Conns                    int
	ConnsTotal, ConnsRefused uint64
	// ConnsWaiting is 1 while a client of a listener waits for another to leave, as
	// there are Limits.Conns; those behind it are in the listener's queue and not seen.
	// ConnsWaited counts the clients that waited so.
	ConnsWaiting int
	ConnsWaited  uint64
	// Outstanding are requests under way now, Waiting those that wait for their
	// turn, for a free place or for a connection. Requests are all that ended,
	// Retries those sent again.
	Outstanding, Waiting int
	Requests, Retries    uint64
	// Failed counts the requests that ended with another Result than OK.
	Failed map[Result]uint64
	// BytesIn are the bytes of messages, or of streams, that came over TCP, BytesOut
	// those that left over TCP.
	BytesIn, BytesOut uint64
	// Buffered are bytes of messages of unknown length that are held now, and with
	// stream framing what may be held of all streams.
	Buffered int64
	// Streams are those of stream framing now.
	Streams int
	// Servers are those of a Reverse.
	Servers []ServerStats
}

// ServerStats tell of one TCP server.
type ServerStats struct {
	Addr netip.AddrPort
	// Up says that it is used: the last attempt to connect did not fail.
	Up bool
	// Conns are connections now, Outstanding requests assigned to it now.
	Conns, Outstanding int
	// Dials counts attempts to connect, DialFailures those that failed.
	Dials, DialFailures uint64
}

// counters is what Stats is made of.
type counters struct {
	conns                    atomic.Int64
	connsTotal, connsRefused atomic.Uint64
	connsWaiting             atomic.Int64
	connsWaited              atomic.Uint64
	outstanding, waiting     atomic.Int64
	requests, retries        atomic.Uint64
	failed                   [len(failures)]atomic.Uint64
	bytesIn, bytesOut        atomic.Uint64
	streams                  atomic.Int64
	buffered                 budget
}

// failures are the results other than OK.
var failures = [...]Result{
	Malformed, TooLarge, Truncated, Unsupported, BadResponse, Unreachable, Timeout, Overloaded, Aborted,
}

// ended counts a request that ended with a result.
func (c *counters) ended(result Result) {
	c.requests.Add(1)
	if result == OK {
		return
	}
	for i, f := range failures {
		if f == result {
			c.failed[i].Add(1)
		}
	}
}

func (c *counters) stats() Stats {
	s := Stats{
		Conns:        int(c.conns.Load()),
		ConnsTotal:   c.connsTotal.Load(),
		ConnsRefused: c.connsRefused.Load(),
		ConnsWaiting: int(c.connsWaiting.Load()),
		ConnsWaited:  c.connsWaited.Load(),
		Outstanding:  int(c.outstanding.Load()),
		Waiting:      int(c.waiting.Load()),
		Requests:     c.requests.Load(),
		Retries:      c.retries.Load(),
		Failed:       map[Result]uint64{},
		BytesIn:      c.bytesIn.Load(),
		BytesOut:     c.bytesOut.Load(),
		Buffered:     c.buffered.used.Load(),
		Streams:      int(c.streams.Load()),
	}
	for i, f := range failures {
		s.Failed[f] = c.failed[i].Load()
	}
	return s
}
