package admin

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Homa describes this host's part in a Homa fabric.
type Homa struct {
	// Calls and Served are RPCs now, as client and as server.
	Calls  int `json:"calls"`
	Served int `json:"served"`
	// Peers are hosts that RPCs are or were exchanged with lately.
	Peers int `json:"peers"`
	// The rest counts since the start.
	CallsTotal    uint64 `json:"calls_total"`
	CallsFailed   uint64 `json:"calls_failed"`
	ServedTotal   uint64 `json:"served_total"`
	ServedFailed  uint64 `json:"served_failed"`
	Timeouts      uint64 `json:"timeouts"`
	BytesSent     uint64 `json:"bytes_sent"`
	BytesReceived uint64 `json:"bytes_received"`
	BytesResent   uint64 `json:"bytes_resent"`
	// Fallback says why something is not as good as it could be.
	Fallback string `json:"fallback,omitempty"`
}

// Translation describes a rule between TCP and Homa, or an entry of accept by which
// peers reach Homa servers.
type Translation struct {
	Name      string `json:"name"`
	Direction string `json:"direction"` // tcp-homa or homa-tcp, from the clients on; relay for an entry of accept
	Framing   string `json:"framing"`   // empty for a relay
	From      string `json:"from"`
	To        string `json:"to"`
	Via       string `json:"via,omitempty"`

	// Connections of TCP now, of clients or to servers; Refused are clients that were
	// not served and servers that could not be connected.
	Connections        int    `json:"connections"`
	ConnectionsTotal   uint64 `json:"connections_total"`
	ConnectionsRefused uint64 `json:"connections_refused"`
	// ConnectionsWaiting is 1 while clients wait as there are limits.connections; those
	// in the kernel's queue are not counted. ConnectionsWaited are all that waited so.
	ConnectionsWaiting int    `json:"connections_waiting"`
	ConnectionsWaited  uint64 `json:"connections_waited"`
	// Outstanding requests now, Waiting those of them that wait for their turn.
	Outstanding int `json:"outstanding"`
	Waiting     int `json:"waiting"`
	// Requests that ended; Failed are those that ended with another result than ok,
	// by result.
	Requests uint64            `json:"requests"`
	Failed   map[string]uint64 `json:"failed,omitempty"`
	Retries  uint64            `json:"retries"`
	// BytesIn came over TCP, BytesOut left over TCP; those of requests and of responses
	// for a relay.
	BytesIn  uint64 `json:"bytes_in"`
	BytesOut uint64 `json:"bytes_out"`
	// BufferedBytes are held now of messages whose length is not known.
	BufferedBytes int64 `json:"buffered_bytes"`
	Streams       int   `json:"streams"`
	// Servers are the TCP servers.
	Servers []TranslationServer `json:"servers,omitempty"`
}

// TranslationServer describes a TCP server of a rule.
type TranslationServer struct {
	Address      string `json:"address"`
	Up           bool   `json:"up"`
	Connections  int    `json:"connections"`
	Outstanding  int    `json:"outstanding"`
	Dials        uint64 `json:"dials"`
	DialFailures uint64 `json:"dial_failures"`
}

// FailedTotal is how many requests failed.
func (t *Translation) FailedTotal() (n uint64) {
	for _, f := range t.Failed {
		n += f
	}
	return n
}

// writeTranslations writes rules for people, one line each, and below what is
// wrong with them.
func writeTranslations(w io.Writer, rules []Translation) error {
	if len(rules) == 0 {
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	t := &printer{w: tw}
	t.f("\nTRANSLATION\tFRAMING\tFROM\tTO\tCONNECTIONS\tOUTSTANDING\tREQUESTS\tFAILED\tIN\tOUT\n")
	for i := range rules {
		r := &rules[i]
		to := r.To
		if r.Via != "" {
			to += " via " + r.Via
		}
		t.f("%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n", r.Name, dash(r.Framing), r.From, to, r.Connections, r.Outstanding, r.Requests,
			r.FailedTotal(), FormatBytes(r.BytesIn), FormatBytes(r.BytesOut))
	}
	if t.err == nil {
		t.err = tw.Flush()
	}
	p := &printer{w: w, err: t.err}
	for i := range rules {
		r := &rules[i]
		var failed []string
		for result, n := range r.Failed {
			if n > 0 {
				failed = append(failed, fmt.Sprintf("%s %d", result, n))
			}
		}
		if slices.Sort(failed); len(failed) > 0 {
			p.f("%s: failed: %s\n", r.Name, strings.Join(failed, ", "))
		}
		if r.ConnectionsRefused > 0 {
			p.f("%s: %d connections refused\n", r.Name, r.ConnectionsRefused)
		}
		if r.ConnectionsWaited > 0 {
			p.f("%s: %d clients had to wait as limits.connections was reached", r.Name, r.ConnectionsWaited)
			if r.ConnectionsWaiting > 0 {
				p.f(", and it is now")
			}
			p.f("\n")
		}
		for _, s := range r.Servers {
			if !s.Up {
				p.f("%s: %s is down: %d of %d attempts to connect failed\n", r.Name, s.Address, s.DialFailures, s.Dials)
			}
		}
	}
	return p.err
}
