package config

import "net/netip"

// Translate is one line of `translate`: a service that speaks TCP on one side
// and Homa on the other.
type Translate struct {
	// Name is unique among the translations: a DNS name in lower case.
	Name string
	// From is where clients arrive, To the service they reach. One of them is
	// TCP and the other Homa; a tunnel counts as TCP.
	From, To TranslateEnd
	// Framing says where one message of the TCP side ends and the next begins.
	Framing Framing
}

// TranslateEnd is one side of a [Translate].
type TranslateEnd struct {
	// Kind says what is spoken there.
	Kind TranslateKind
	// Addr is the address and port. An invalid address in From stands for all
	// addresses of this host.
	Addr netip.AddrPort
	// Via is the peer behind which Addr is, in To only; empty for here.
	Via string
}

// TranslateKind is what is spoken on one side of a translation.
type TranslateKind string

// The kinds.
const (
	TranslateTCP    TranslateKind = "tcp"
	TranslateHoma   TranslateKind = "homa"
	TranslateTunnel TranslateKind = "tunnel" // flows of peers, after accept
)

// Framing says how messages are cut out of a byte stream.
type Framing struct {
	// Type is [FramingLengthPrefixed] or [FramingRESP].
	Type string
	// Bytes is the size of the length: 1, 2, 4 or 8. Only with a length prefix.
	Bytes int
	// BigEndian is the byte order of the length: true for `big`.
	BigEndian bool
}

// Values of [Framing.Type].
const (
	FramingLengthPrefixed = "length-prefixed"
	FramingRESP           = "resp" // the Redis serialization protocol
)
