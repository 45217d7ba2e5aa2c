package translate

import (
	"net/netip"
	"time"
)

// Record is what became of one request, or with stream framing of one
// connection. A request that passes several gateways has a record at each, with the
// same ID, or behind a Relay with its RelayID.
type Record struct {
	// ID is the id of the RPC, in 16 hexadecimal digits, as its client numbers it.
	// A Homa client never uses an id twice while it runs; together with its address
	// the id names the request. Empty when no RPC was made.
	ID string `json:"id"`
	// Time is when the request began to arrive.
	Time time.Time `json:"time"`
	// RelayID, of a Relay, is the id of the RPC that it opened, by which the request
	// goes on; it is the ID of the server's record.
	RelayID string `json:"relay_id,omitempty"`
	// Rule is the name of the rule, Direction "tcp-homa", "homa-tcp" or "relay".
	Rule      string `json:"rule"`
	Direction string `json:"direction"`
	// Framing is the type of the framing, Name the method or command if it is a
	// known one.
	Framing string `json:"framing"`
	Name    string `json:"name,omitempty"`
	// Client is who asked and Server who was asked, on this gateway's two sides: one
	// of them speaks TCP and the other Homa. Server is the last that was tried if none
	// could be reached, and invalid if it came to none. Peer is the tunnel peer whose
	// flow it is, if it is one. A Relay's client is the peer alone.
	Client netip.AddrPort `json:"client"`
	Server netip.AddrPort `json:"server"`
	Peer   string         `json:"peer,omitempty"`
	// RequestBytes and ResponseBytes are the lengths of the messages, as far as
	// known.
	RequestBytes  int64 `json:"request_bytes"`
	ResponseBytes int64 `json:"response_bytes"`

	// Total is the time from the first byte of the request to the last byte of the
	// response, in nanoseconds like the others. It is the sum of:
	// Queue, waiting here for its turn, a free place or a connection;
	// Service, from when all of the request was handed on until the response began;
	// Transport, moving the bytes of request and response through this gateway,
	// which is the speed of the slower side.
	Total     time.Duration `json:"total_ns"`
	Queue     time.Duration `json:"queue_ns"`
	Service   time.Duration `json:"service_ns"`
	Transport time.Duration `json:"transport_ns"`

	// What Homa did, on this gateway's side, of a Relay on both: the priorities last used for unscheduled
	// and scheduled data, grants and resend requests both ways, BUSYs received,
	// and bytes sent again.
	UnscheduledPriority uint8  `json:"unscheduled_priority"`
	ScheduledPriority   uint8  `json:"scheduled_priority"`
	GrantsSent          uint32 `json:"grants_sent"`
	GrantsReceived      uint32 `json:"grants_received"`
	ResendsSent         uint32 `json:"resends_sent"`
	ResendsReceived     uint32 `json:"resends_received"`
	BusyReceived        uint32 `json:"busy_received"`
	BytesResent         uint64 `json:"bytes_resent"`

	// Retries is how often the request was sent again.
	Retries int `json:"retries,omitempty"`
	// Result says how it ended, and Error more about a failure.
	Result Result `json:"result"`
	Error  string `json:"error,omitempty"`
}

// Result is how a request ended.
type Result string

// The results. Requests that are answered by a gateway itself, without an RPC,
// are OK.
const (
	OK          Result = "ok"
	Malformed   Result = "malformed"    // bytes that are not of the protocol
	TooLarge    Result = "too_large"    // a request, or its header, above its bound
	Truncated   Result = "truncated"    // the client's connection ended within it
	Unsupported Result = "unsupported"  // valid, and not to be carried
	BadResponse Result = "bad_response" // malformed, cut off or too large
	Unreachable Result = "unreachable"  // no way to the server, or refused
	Timeout     Result = "timeout"      // the server, or its gateway, is silent
	Overloaded  Result = "overloaded"   // a bound of this gateway
	Aborted     Result = "aborted"      // the client has gone, or the gateway ends
)

// ofClient reports whether a request failed by what its client did or asked for: no
// server and no gateway has to be looked at for it, and clients make any number.
func (r Result) ofClient() bool {
	switch r {
	case Malformed, TooLarge, Truncated, Unsupported, Aborted:
		return true
	}
	return false
}

// Filter selects records. The zero Filter selects all; several conditions must
// all hold.
type Filter struct {
	// Addr is that of the client or the server, any port with a port of 0.
	Addr netip.AddrPort
	// Prefix holds the address of the client or the server, if valid.
	Prefix netip.Prefix
	// Rule is the name of the rule, ID either id of the request.
	Rule, ID string
	// MinTotal is the least Record.Total.
	MinTotal time.Duration
	// Failed selects what is not OK, Result what ended so.
	Failed bool
	Result Result
}

// TracerConfig bounds a Tracer. A zero field means the default.
type TracerConfig struct {
	// Slowest, Failed and Refused are how many records of some 350 bytes are kept of
	// each kind for each rule (128): the slowest that were OK, the last that failed here
	// or at the server, and the last that failed by their client.
	Slowest, Failed, Refused int
	// SlowAge is how long a slow request is remembered (10 min), so that new ones
	// find a place.
	SlowAge time.Duration
	// Subscriptions is how many there may be (16), Queue how many records wait for
	// one that is slow (1024).
	Subscriptions, Queue int
}
