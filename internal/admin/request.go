package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Request is what became of one translated request: a line of `tougw trace
// --json`. Times are in nanoseconds.
type Request struct {
	// ID follows the request from one gateway to the next. Empty when no RPC was made.
	// Behind a gateway that relays it for a peer it goes on as RelayID.
	ID      string    `json:"id"`
	RelayID string    `json:"relay_id,omitempty"`
	Time    time.Time `json:"time"` // when it began to arrive
	// Rule is the name of a translation, such as "accept[0]" for those of a relay.
	Rule      string `json:"rule"`
	Direction string `json:"direction"` // tcp-homa, homa-tcp or relay
	Framing   string `json:"framing"`
	Name      string `json:"name,omitempty"` // method or command
	Client    string `json:"client"`         // empty for a relay, whose client is the peer
	Server    string `json:"server"`         // empty when none was chosen
	Peer      string `json:"peer,omitempty"` // whose flow or request it came by

	RequestBytes  int64 `json:"request_bytes"`
	ResponseBytes int64 `json:"response_bytes"`

	// Total is from the first byte of the request to the last of the response, and the
	// sum of Queue, Service (until the response began) and Transport.
	Total     time.Duration `json:"total_ns"`
	Queue     time.Duration `json:"queue_ns"`
	Service   time.Duration `json:"service_ns"`
	Transport time.Duration `json:"transport_ns"`

	// What Homa did on this gateway's side.
	UnscheduledPriority uint8  `json:"unscheduled_priority"`
	ScheduledPriority   uint8  `json:"scheduled_priority"`
	GrantsSent          uint32 `json:"grants_sent"`
	GrantsReceived      uint32 `json:"grants_received"`
	ResendsSent         uint32 `json:"resends_sent"`
	ResendsReceived     uint32 `json:"resends_received"`
	BusyReceived        uint32 `json:"busy_received"`
	BytesResent         uint64 `json:"bytes_resent"`

	Retries int    `json:"retries,omitempty"`
	Result  string `json:"result"` // ok, or how it failed
	Error   string `json:"error,omitempty"`
}

// RequestFilter selects requests. The zero filter selects all.
type RequestFilter struct {
	// Addr is an address, an address and port, or a prefix, of the client or server,
	// as [CheckRequestAddr] takes it.
	Addr string
	// Rule is the name of a rule. ID is that of a request, as [CheckRequestID] takes it.
	Rule, ID string
	// MinLatency is the least Request.Total.
	MinLatency time.Duration
	// Errors selects what failed.
	Errors bool
}

// CheckRequestAddr reads an address for a RequestFilter: what is not meant is
// invalid. A port of 0 is any.
func CheckRequestAddr(s string) (addr netip.AddrPort, prefix netip.Prefix, err error) {
	if s == "" {
		return addr, prefix, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a.Unmap(), 0), prefix, nil
	}
	if strings.Contains(s, "/") {
		if prefix, err = netip.ParsePrefix(s); err == nil {
			return addr, prefix.Masked(), nil
		}
	} else if addr, err = netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), prefix, nil
	}
	return addr, prefix, fmt.Errorf("%q is neither an address, nor an address and port, nor a prefix", s)
}

// CheckRequestID reads an id for a RequestFilter, up to 16 hexadecimal digits, and
// returns it as Request.ID has it. Empty is any.
func CheckRequestID(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	id, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) > 16 {
		return "", fmt.Errorf("%.64q is not 1 to 16 hexadecimal digits", s)
	}
	return fmt.Sprintf("%016x", id), nil
}

// maxFilterText bounds the texts of a filter in bytes.
const maxFilterText = 256

// Values of a query.
const (
	queryAddr       = "addr"
	queryRule       = "rule"
	queryID         = "id"
	queryMinLatency = "min_latency"
	queryErrors     = "errors"
)

func (f RequestFilter) query() url.Values {
	q := url.Values{}
	for key, value := range map[string]string{queryAddr: f.Addr, queryRule: f.Rule, queryID: f.ID} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if f.MinLatency > 0 {
		q.Set(queryMinLatency, f.MinLatency.String())
	}
	if f.Errors {
		q.Set(queryErrors, "true")
	}
	return q
}

// filterOf reads a filter from a query, of which it understands every key or
// none.
func filterOf(q url.Values) (f RequestFilter, err error) {
	for key := range q {
		value := q.Get(key)
		if len(value) > maxFilterText {
			return f, fmt.Errorf("%s has more than %d bytes", key, maxFilterText)
		}
		switch key {
		case queryAddr:
			f.Addr = value
			_, _, err = CheckRequestAddr(value)
		case queryRule:
			f.Rule = value
		case queryID:
			f.ID, err = CheckRequestID(value)
		case queryMinLatency:
			if f.MinLatency, err = time.ParseDuration(value); err == nil && f.MinLatency < 0 {
				err = errors.New("min_latency is negative")
			}
		case queryErrors:
			f.Errors = value == "true"
		default:
			err = fmt.Errorf("unknown key %.64q", key)
		}
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

// RequestFeed has requests as they end.
type RequestFeed interface {
	// Next waits for a request; its error is that of ctx, or io.EOF at the end.
	Next(ctx context.Context) (Request, error)
	// Waiting reports whether Next would return at once.
	Waiting() bool
	// Lost is how many requests were left out because Next came too seldom.
	Lost() uint64
	// Close ends the feed.
	Close()
}

// requestColumns are the columns of WriteRequest; times come behind.
const requestColumns = "%-12s  %-10s %-10s %-21s %-21s %9s %9s"

// WriteRequestHeader writes the names of the columns of WriteRequest.
func WriteRequestHeader(w io.Writer) error {
	_, err := fmt.Fprintf(w, requestColumns+" %9s %9s %9s %9s %5s %6s %9s  %-12s %-16s %s\n", "TIME", "RULE", "COMMAND", "CLIENT", "SERVER",
		"REQUEST", "RESPONSE", "TOTAL", "QUEUE", "SERVICE", "TRANSPORT", "PRIO", "GRANTS", "RESENT", "RESULT", "ID", "RELAYED")
	return err
}

// WriteRequest writes a request for people, in one line. Prio is the priority of
// unscheduled and of scheduled data, and grants are those of both sides. Requests to
// resend are left out: most ask a server that takes its time.
func WriteRequest(w io.Writer, r *Request) error {
	result := r.Result
	if r.Retries > 0 {
		result += fmt.Sprintf("+%d", r.Retries)
	}
	_, err := fmt.Fprintf(w, requestColumns+" %9s %9s %9s %9s %5s %6d %9s  %-12s %-16s %s", r.Time.Format("15:04:05.000"), r.Rule,
		dash(r.Name), dash(cmp.Or(r.Client, r.Peer)), dash(r.Server), FormatBytes(uint64(max(r.RequestBytes, 0))), FormatBytes(uint64(max(r.ResponseBytes, 0))),
		formatTime(r.Total), formatTime(r.Queue), formatTime(r.Service), formatTime(r.Transport),
		fmt.Sprintf("%d/%d", r.UnscheduledPriority, r.ScheduledPriority),
		r.GrantsSent+r.GrantsReceived, FormatBytes(r.BytesResent), result, dash(r.ID), dash(r.RelayID))
	if err == nil && r.Error != "" {
		_, err = fmt.Fprintf(w, "  %s", r.Error)
	}
	if err == nil {
		_, err = io.WriteString(w, "\n")
	}
	return err
}

// formatTime writes a time with three digits that matter.
func formatTime(d time.Duration) string {
	switch {
	case d < 100*time.Microsecond:
		return d.Round(100 * time.Nanosecond).String()
	case d < 100*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < 100*time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
