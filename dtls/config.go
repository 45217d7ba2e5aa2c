package dtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/tougw/tougw/internal/udp"
)

// Socket is what associations send and receive through. Its methods behave as
// those of udp.Conn: ReadBatch has one caller and is unblocked by Close, the
// others are safe for concurrent use.
type Socket interface {
	ReadBatch(ms []udp.Message) (int, error)
	WriteBatch(ms []udp.Message) (int, error)
	LocalAddr() netip.AddrPort
	Close() error
}

// Events receives what happens to the associations of an Endpoint. The calls
// for one association do not overlap: Established, then Receive any number of
// times, then Closed.
type Events interface {
	// NewReceiver is called once for each goroutine that delivers data: one
	// for each socket, and one for each handshake that data overtook.
	NewReceiver() Receiver
	// Established says that the handshake is complete and the peer
	// authenticated. For a dialled association it is called before Dial
	// returns. The association may be used and closed from within.
	Established(a *Association)
	// Closed says that no further call for this association follows; err is
	// the reason, never nil. It must not call Endpoint.Close.
	Closed(a *Association, err error)
}

// Receiver gets the plaintexts of application records.
type Receiver interface {
	// Receive borrows a run of records of one association until it returns:
	// in order of arrival, opened in place in the socket's read buffers, which
	// the receiver may overwrite, none of them empty. Two sockets never
	// deliver for the same association at once.
	Receive(a *Association, records [][]byte)
	// Flush marks the end of a socket read batch in which Receive was called.
	Flush()
}

// Limits bound the use of the keys of an association, in each direction
// separately. A zero field means the limit of the cipher suite.
type Limits struct {
	// Records is the number of records after which Seal returns ErrExhausted,
	// at most 2^48 - 2^20.
	Records uint64
	// Bytes is the number of record bytes, headers included, after which Seal
	// returns ErrExhausted: 2^38 for AES-GCM.
	Bytes uint64
	// OpenFailures is the number of records failing authentication at which
	// the association is closed with ErrForgery: 2^36.
	OpenFailures uint64
}

// Config describes an Endpoint. It is not changed after New.
type Config struct {
	// Certificate is what this side proves itself with, unless a dialled
	// association uses a PSK. Its zero value means none. Serve needs it or
	// LookupPSK.
	Certificate tls.Certificate
	// Roots are the authorities whose certificates are believed, on both
	// sides. Required with Certificate.
	Roots *x509.CertPool
	// LookupPSK gives the key of a pre-shared key identity to Serve, and
	// whether it is known. Nil means that PSK is not offered. It is called
	// from many goroutines. Keys below MinPSK bytes count as unknown.
	LookupPSK func(identity string) (key []byte, ok bool)
	// ConnectionID negotiates Connection IDs of 8 bytes (RFC 9146) with peers
	// that know them.
	ConnectionID bool
	// Suites are the cipher suites offered and accepted, in order of
	// preference. Nil means all of this package; only those that fit the
	// credentials are used.
	Suites []Suite

	// HandshakeTimeout bounds a handshake; zero means 10 s.
	HandshakeTimeout time.Duration
	// HelloTimeout bounds the time until a client has echoed its cookie; zero
	// means 3 s. It is shorter because until then the source may be forged.
	HelloTimeout time.Duration
	// FlightInterval is the time after which an unanswered flight is repeated
	// first, doubled each time; zero means 500 ms.
	FlightInterval time.Duration
	// MaxHalfOpen bounds handshakes that peers have begun and not completed;
	// zero means 1024 (each costs about 35 KiB and 5 goroutines).
	MaxHalfOpen int
	// MaxHalfOpenPerSource bounds them for one IPv4 address or IPv6 /64; zero
	// means 64.
	MaxHalfOpenPerSource int
	// MaxAssociations bounds accepted associations; zero means 65536.
	MaxAssociations int
	// MaxPerIdentity bounds accepted associations of one identity (its kind and
	// names), so that none can use up MaxAssociations; zero means 64. When one
	// more is established the oldest ends with ErrSuperseded: a peer that lost
	// its associations without a word always gets in. Peers that share a
	// certificate or PSK end each other's, if they are more than this.
	MaxPerIdentity int
	// ReplaceGrace is how long an association with a Connection ID is kept
	// after its peer has authenticated anew from the same address; zero means
	// 30 s.
	ReplaceGrace time.Duration
	// Limits bound the use of keys.
	Limits Limits

	// PathCandidate is told when an authentic record of a with the newest number
	// came by another path than a's. Nothing has changed: records go on to the
	// old path until the new one is validated, for which the callee sends an
	// echo with Association.SendVia and calls Association.Validate when it is
	// answered by that path (RFC 9146 section 6). After some seconds the path
	// is forgotten, and reported anew if the peer still sends from there. Anyone
	// who sees the peer's records can cause calls with any address, at most two
	// a second in the long run. It is called from a receive goroutine, before
	// the record is delivered, and must not block or close the Endpoint.
	PathCandidate func(a *Association, p Path)
	// OnFailure is told about every handshake that failed, except those whose
	// source never echoed the cookie. Anyone who can receive at an address can
	// cause such calls, without any credentials, as fast as MaxHalfOpen allows,
	// and choose much of err's text (names in its certificate, its PSK
	// identity): the callee must bound what it logs or keeps of them, in all
	// and not only for each address, and quote err. It is called from the
	// goroutine of the handshake and must not block.
	OnFailure func(remote netip.AddrPort, why Failure, err error)
	// Logger receives debug messages; nil discards them.
	Logger *slog.Logger
}

// MinPSK is the least number of bytes of a pre-shared key (RFC 9257 section 6
// asks for 128 bits).
const MinPSK = 16

// PreShared is a pre-shared key with its identity.
type PreShared struct {
	// Identity is the name that the key proves, 1 to 128 bytes.
	Identity string
	// Key has at least MinPSK bytes.
	Key []byte
}

// DialParams say whom Dial expects to reach.
type DialParams struct {
	// ServerName is the DNS name that the peer's certificate must carry.
	// Required unless PSK is set.
	ServerName string
	// PSK selects authentication by a pre-shared key instead of certificates.
	PSK *PreShared
}

const (
	defaultHandshakeTimeout = 10 * time.Second
	defaultHelloTimeout     = 3 * time.Second
	// defaultFlightInterval is below the second of RFC 6347 section 4.2.4.1: a
	// repeated flight is cheap, and one loss should not cost a second.
	defaultFlightInterval       = 500 * time.Millisecond
	defaultMaxHalfOpen          = 1024
	defaultMaxHalfOpenPerSource = 64
	defaultMaxAssociations      = 1 << 16
	defaultMaxPerIdentity       = 64
	defaultReplaceGrace         = 30 * time.Second
	maxPSKIdentity              = 128
)

// withDefaults fills zero fields and reports what cannot work.
func (c Config) withDefaults() (Config, error) {
	or := func(p *time.Duration, d time.Duration) {
		if *p <= 0 {
			*p = d
		}
	}
	or(&c.HandshakeTimeout, defaultHandshakeTimeout)
	or(&c.HelloTimeout, defaultHelloTimeout)
	or(&c.FlightInterval, defaultFlightInterval)
	or(&c.ReplaceGrace, defaultReplaceGrace)
	orInt := func(p *int, d int) {
		if *p <= 0 {
			*p = d
		}
	}
	orInt(&c.MaxHalfOpen, defaultMaxHalfOpen)
	orInt(&c.MaxHalfOpenPerSource, defaultMaxHalfOpenPerSource)
	orInt(&c.MaxAssociations, defaultMaxAssociations)
	orInt(&c.MaxPerIdentity, defaultMaxPerIdentity)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Suites == nil {
		c.Suites = defaultSuites
	}
	for _, s := range c.Suites {
		if suites[s] == nil {
			return c, fmt.Errorf("dtls: cipher suite %#04x is not supported", uint16(s))
		}
	}
	if c.hasCertificate() && c.Roots == nil {
		return c, errors.New("dtls: a certificate needs roots to believe the peer's")
	}
	if c.Limits.Records > maxRecords {
		return c, fmt.Errorf("dtls: limit of %d records is above %d", c.Limits.Records, uint64(maxRecords))
	}
	return c, nil
}

func (c *Config) hasCertificate() bool { return len(c.Certificate.Certificate) > 0 }

// suitesFor gives the configured suites of one kind of authentication.
func (c *Config) suitesFor(psk bool) []Suite {
	var out []Suite
	for _, s := range c.Suites {
		if suites[s].psk == psk {
			out = append(out, s)
		}
	}
	return out
}

// check reports parameters that can never succeed.
func (p *DialParams) check(c *Config) error {
	if p.PSK != nil {
		switch {
		case len(p.PSK.Identity) == 0 || len(p.PSK.Identity) > maxPSKIdentity:
			return fmt.Errorf("dtls: PSK identity of %d bytes, want 1 to %d", len(p.PSK.Identity), maxPSKIdentity)
		case len(p.PSK.Key) < MinPSK:
			return fmt.Errorf("dtls: PSK of %d bytes, want at least %d", len(p.PSK.Key), MinPSK)
		case len(c.suitesFor(true)) == 0:
			return errors.New("dtls: no cipher suite for a PSK is configured")
		}
		return nil
	}
	switch {
	case !c.hasCertificate():
		return errors.New("dtls: neither a certificate nor a PSK to dial with")
	case len(c.suitesFor(false)) == 0:
		return errors.New("dtls: no cipher suite for certificates is configured")
	case p.ServerName == "":
		// An empty name would switch the verification of names off.
		return errors.New("dtls: server name missing")
	case net.ParseIP(strings.Trim(p.ServerName, "[]")) != nil:
		return fmt.Errorf("dtls: server name %q is an address, want a DNS name", p.ServerName)
	}
	return nil
}
