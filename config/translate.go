package config

import (
	"net/netip"
	"time"

	"github.com/tougw/tougw/framing"
)

// Translate is one rule of `translate`: a service that is reached by TCP on one
// side and by Homa on the other.
type Translate struct {
	// Name is unique among the rules: a DNS name in lower case.
	Name string
	// From is where clients arrive, To the service that they reach. One of them
	// is Homa and the other TCP, be it in a tunnel.
	From TranslateFrom
	To   TranslateTo
	// Framing says where messages begin and end on the TCP side. It is one that
	// [framing.New] takes, with a Max that fits a Homa message.
	Framing  framing.Config
	Limits   TranslateLimits
	Timeouts TranslateTimeouts
	// Retry says that a request which changes nothing may be sent again when nobody
	// knows whether it was executed. Default: false.
	Retry bool
	// AnswerFailures says that a Homa client whose TCP server fails is told so in the
	// words of the protocol (`failures: answer`), rather than left to a time-out
	// (`abort`). Default: false. Only to TCP, and of no use where [framing.Words] is
	// false.
	AnswerFailures bool
	// ProxyIn says that TCP clients begin with a header of the PROXY protocol,
	// ProxyOut that TCP servers get one. Default: false.
	ProxyIn, ProxyOut bool
	// AccessLog says that each request is logged. Default: false.
	AccessLog bool
}

// TranslateFrom is where the clients of a [Translate] arrive.
type TranslateFrom struct {
	Kind TranslateKind
	// Addr is the address and port: with TCP those of a socket here, where an
	// invalid address stands for all; with Tunnel the destination of the flows;
	// with Homa a port alone.
	Addr netip.AddrPort
}

// TranslateTo is the service that the clients of a [Translate] reach.
type TranslateTo struct {
	// Kind is TCP or Homa.
	Kind TranslateKind
	// Addrs are the servers, none twice: one with Homa, one or more with TCP.
	Addrs []netip.AddrPort
	// Via is the peer that calls a Homa server for us: the Name of one of
	// Config.Peers or, on an instance that listens, the proven identity of a peer
	// that dialled us. Empty: we call it.
	Via string
}

// TranslateKind is what is spoken on one side of a [Translate].
type TranslateKind string

// The kinds.
const (
	TranslateTCP    TranslateKind = "tcp"
	TranslateHoma   TranslateKind = "homa"
	TranslateTunnel TranslateKind = "tunnel" // flows of peers, after accept, and captured ones, after rules
)

// TranslateLimits bounds what a rule holds at a time.
type TranslateLimits struct {
	// Connections of TCP clients: 1 to 1048576. Default: 65536. Only to Homa.
	Connections int
	// Outstanding requests of one TCP client: 1 to 65536. Default: 64. Only to
	// Homa.
	Outstanding int
	// OutstandingAll are the requests under way of all clients: 1 to 1048576.
	// Default: 8192.
	OutstandingAll int
	// Buffer is what messages of unknown length may hold until that is known, in
	// bytes: 64 KiB to 64 GiB, and at least Framing.Max. Default: 64 MiB.
	Buffer int64
	// ServerConnections are those to each TCP server, with stream framing in all: 1
	// to 65536. Default: 64, with stream framing 8192. Only to TCP.
	ServerConnections int
	// Pipeline is how many requests are under way on one connection to a TCP
	// server whose protocol allows it: 1 to 65536. Default: 32. Only to TCP.
	Pipeline int
}

// TranslateTimeouts has the patience of a rule. Zero is without end.
type TranslateTimeouts struct {
	// Connect is how long a TCP server may take to be connected: 1ms to 2m, never
	// zero. Default: 5s. Only to TCP.
	Connect time.Duration
	// Request is how long a server may take to begin its response, or to send more
	// of it: 1ms to 24h. Default: 30s.
	Request time.Duration
	// Idle ends a TCP connection on which nothing happens: 1s to 720h. Default: 5m
	// of clients, 1m to servers.
	Idle time.Duration
	// Write is how long a TCP client may take nothing of what it is sent: 1s to 24h.
	// Default: 1m. Only to Homa.
	Write time.Duration
	// Outage is how long a connection of stream framing outlives that nothing is heard
	// of the other gateway: 1s to 24h, never zero. Default: 1m. Only with stream
	// framing.
	Outage time.Duration
}

// DefaultTranslate returns a rule with the defaults of all keys that have one.
// The kind of its server and whether its framing is stream decide over some.
func DefaultTranslate(to TranslateKind, stream bool) Translate {
	t := Translate{
		Limits: TranslateLimits{
			Connections: 65536, Outstanding: 64, OutstandingAll: 8192, Buffer: 64 << 20, ServerConnections: 64, Pipeline: 32,
		},
		Timeouts: TranslateTimeouts{
			Connect: 5 * time.Second, Request: 30 * time.Second, Idle: 5 * time.Minute, Write: time.Minute,
			Outage: time.Minute,
		},
	}
	if to == TranslateTCP {
		t.Timeouts.Idle = time.Minute
	}
	if stream {
		t.Limits.ServerConnections = 8192
		t.Timeouts.Idle = 0
	}
	return t
}
