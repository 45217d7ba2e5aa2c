package translate

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/tougw/tougw/framing"
)

// Rule is what the two directions have in common: a service, how its messages
// are found, and what it may use. It must not be changed after it was given
// away.
type Rule struct {
	// Name names the rule in records and errors.
	Name string
	// Framing finds the messages. One whose Traits.Stream is true carries bytes
	// between a Forward and a Reverse, both of this package.
	Framing framing.Framing
	// Type is the type of Framing for records, such as [framing.TypeHTTP1].
	Type string

	Limits   Limits
	Timeouts Timeouts

	// Retry allows that a request which changes nothing (framing.Request.Safe) is
	// sent a second time when nobody knows whether it was executed. Without it
	// no request is ever sent twice.
	Retry bool
	// AnswerFailures has a Reverse answer a request that fails before anything of the
	// response was sent, in the words of the protocol (framing.Failure). Without it, and
	// where the protocol has none, the RPC is aborted: its client gets no response.
	AnswerFailures bool
	// ProxyIn says that each TCP client begins with a header of the PROXY protocol,
	// version 1 or 2, which tells who it is. Clients without one are reset, so
	// the socket must be reachable for proxies only. Forward.
	ProxyIn bool
	// ProxyOut puts a header of the PROXY protocol, version 2, in front of each
	// connection to a TCP server. Connections are then not shared by clients.
	// Reverse.
	ProxyOut bool

	// AccessLog, if set, is called once for each request after its end, from the
	// goroutine that served it, which it must not hold up. It borrows r.
	AccessLog func(r *Record)
	// Full, if set, is told of each TCP client that comes while Limits.Conns others
	// are served: it waits, or with ServeConn is reset. It is called from the goroutine
	// that accepts clients, which it must not hold up. Forward.
	Full func(client netip.AddrPort)
}

// Limits bound what a rule may use. A zero field means the default, all of which
// are our choices.
type Limits struct {
	// Conns is how many TCP clients a Forward serves at a time (65,536). One more is
	// accepted, to tell of it, and waits until another has left; the rest wait in the
	// listener's queue. ServeConn resets those above.
	Conns int
	// Outstanding is how many requests of one TCP client are under way (64). Its
	// further requests are not read.
	Outstanding int
	// OutstandingAll is how many requests of all clients are (8192). A Forward
	// lets further ones wait; a Reverse queues as many for a connection and
	// fails those above.
	OutstandingAll int
	// Buffered is how many bytes of messages are collected, over all connections,
	// until their length is known (64 MiB). One message holds at most Traits.Max
	// of its framing. A message that finds no room fails.
	Buffered int64
	// ServerConns is how many connections a Reverse has to each server (64), with
	// stream framing how many streams in all (8192).
	ServerConns int
	// Pipeline is how many requests are under way on one connection to a server
	// whose protocol allows it (32).
	Pipeline int
}

// Timeouts bound waiting. A zero field means the default, a negative one that
// there is none.
type Timeouts struct {
	// Connect is how long connecting to a TCP server may take (5 s).
	Connect time.Duration
	// Request is how long a request may wait for the first byte of its response,
	// from when all of it was sent, or for the next byte of it (30 s). Requests that
	// wait by their nature (framing.Request.Blocks) wait for the first byte without
	// end.
	Request time.Duration
	// Idle is how long a TCP connection is kept that nothing happens on: a client's
	// without a request under way, or in the middle of sending one, and a server's
	// that is not in use (5 min; servers 1 min). Streams end by it too, if it is
	// positive.
	Idle time.Duration
	// Write is how long a TCP client may take nothing of what it is sent (1 min).
	Write time.Duration
	// Outage is how long a stream outlives that nothing can be heard of the other
	// gateway (1 min). Both gateways should have the same.
	Outage time.Duration
}

// Defaults of Limits and Timeouts.
const (
	defaultConns          = 65_536
	defaultOutstanding    = 64
	defaultOutstandingAll = 8192
	defaultBuffered       = 64 << 20
	defaultServerConns    = 64
	defaultStreams        = 8192
	defaultPipeline       = 32

	defaultConnect    = 5 * time.Second
	defaultRequest    = 30 * time.Second
	defaultIdle       = 5 * time.Minute
	defaultServerIdle = time.Minute
	defaultWrite      = time.Minute
	defaultOutage     = time.Minute
)

// forever stands for a time-out that never comes.
const forever = 100 * 365 * 24 * time.Hour

// complete returns r with its defaults, or what is wrong with it. ServerIdle is
// the idle time of connections to servers.
func (r Rule) complete() (Rule, error) {
	if r.Framing == nil {
		return r, fmt.Errorf("translate: rule %s has no framing", r.Name)
	}
	servers := defaultServerConns
	if r.Framing.Traits().Stream {
		servers = defaultStreams
	}
	for _, f := range []struct {
		name  string
		value *int
		usual int
	}{
		{"Conns", &r.Limits.Conns, defaultConns},
		{"Outstanding", &r.Limits.Outstanding, defaultOutstanding},
		{"OutstandingAll", &r.Limits.OutstandingAll, defaultOutstandingAll},
		{"ServerConns", &r.Limits.ServerConns, servers},
		{"Pipeline", &r.Limits.Pipeline, defaultPipeline},
	} {
		if *f.value == 0 {
			*f.value = f.usual
		}
		if *f.value < 0 {
			return r, fmt.Errorf("translate: rule %s: Limits.%s is %d, must be positive", r.Name, f.name, *f.value)
		}
	}
	if r.Limits.Buffered == 0 {
		r.Limits.Buffered = defaultBuffered
	}
	if r.Limits.Buffered < 0 {
		return r, fmt.Errorf("translate: rule %s: Limits.Buffered is %d, must be positive", r.Name, r.Limits.Buffered)
	}
	return r, nil
}

// orUsual is a time-out with its default.
func orUsual(d, usual time.Duration) time.Duration {
	switch {
	case d == 0:
		return usual
	case d < 0:
		return forever
	}
	return d
}
