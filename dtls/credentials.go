package dtls

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	pion "github.com/pion/dtls/v3"
)

var (
	errNoNames       = errors.New("peer's certificate has no DNS name")
	errNoCertificate = errors.New("peer showed no certificate")
)

// commonOptions are those of both roles.
func (c *Config) commonOptions(suites []Suite) []pion.Option {
	ids := make([]pion.CipherSuiteID, len(suites))
	for i, s := range suites {
		ids[i] = pion.CipherSuiteID(s)
	}
	return []pion.Option{
		pion.WithCipherSuites(ids...),
		// Without it the master secret is not bound to the handshake, and the
		// library does not tell us whether it was.
		pion.WithExtendedMasterSecret(pion.RequireExtendedMasterSecret),
		pion.WithMTU(handshakeMTU),
		pion.WithFlightInterval(c.FlightInterval),
		pion.WithLoggerFactory(libraryLog{c.Logger}),
	}
}

// serverOptions are those of every accepted handshake.
func (e *Endpoint) serverOptions() []pion.ServerOption {
	c := &e.cfg
	var use []Suite
	if c.hasCertificate() {
		use = append(use, c.suitesFor(false)...)
	}
	if c.LookupPSK != nil {
		use = append(use, c.suitesFor(true)...)
	}
	var out []pion.ServerOption
	for _, o := range c.commonOptions(use) {
		out = append(out, o)
	}
	if c.hasCertificate() {
		out = append(out,
			pion.WithCertificates(c.Certificate),
			pion.WithClientAuth(pion.RequireAndVerifyClientCert),
			pion.WithClientCAs(c.Roots),
			pion.WithVerifyPeerCertificate(verifyNames))
	}
	return out
}

// serverOptions adds those of one handshake.
func (h *handshake) serverOptions() []pion.ServerOption {
	out := h.w.e.server[:len(h.w.e.server):len(h.w.e.server)]
	if h.cid != 0 {
		out = append(out, pion.WithConnectionIDGenerator(h.cidBytes))
	}
	if h.w.e.cfg.LookupPSK != nil {
		out = append(out, pion.WithPSK(h.lookupPSK))
	}
	return out
}

// clientOptions are those of a dialled handshake.
func (h *handshake) clientOptions() []pion.ClientOption {
	c := &h.w.e.cfg
	psk := h.dial.PSK
	opts := c.commonOptions(c.suitesFor(psk != nil))
	if psk != nil {
		opts = append(opts,
			pion.WithPSK(func([]byte) ([]byte, error) { return psk.Key, nil }),
			pion.WithPSKIdentityHint([]byte(psk.Identity)))
	} else {
		opts = append(opts,
			pion.WithCertificates(c.Certificate),
			pion.WithRootCAs(c.Roots),
			pion.WithServerName(h.dial.ServerName),
			pion.WithVerifyPeerCertificate(verifyNames))
	}
	if h.cid != 0 {
		opts = append(opts, pion.WithConnectionIDGenerator(h.cidBytes))
	}
	out := make([]pion.ClientOption, len(opts))
	for i, o := range opts {
		out[i] = o
	}
	return out
}

// cidBytes gives the handshake's Connection ID to the library.
func (h *handshake) cidBytes() []byte { return binary.BigEndian.AppendUint64(nil, h.cid) }

// lookupPSK gives the library the key of a client's identity. An unknown
// identity gets a key that no one has, so that it fails as a wrong key does
// (RFC 4279 section 2).
func (h *handshake) lookupPSK(identity []byte) ([]byte, error) {
	id := string(identity)
	var key []byte
	ok := false
	if len(id) > 0 && len(id) <= maxPSKIdentity {
		key, ok = h.w.e.cfg.LookupPSK(id)
		ok = ok && len(key) >= MinPSK
	}
	if !ok {
		m := hmac.New(sha256.New, h.w.e.decoy[:])
		m.Write(identity)
		key = m.Sum(nil)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.identity, h.unknown, h.asked = id, !ok, true
	h.watchKey()
	return key, nil
}

// dnsNames are the names that a certificate proves: its DNS names without
// wildcards, in lower case.
func dnsNames(c *x509.Certificate) []string {
	var out []string
	for _, n := range c.DNSNames {
		if n != "" && !strings.Contains(n, "*") {
			out = append(out, strings.ToLower(n))
		}
	}
	return out
}

// verifyNames is called by the library after it has verified the chain.
func verifyNames(raw [][]byte, chains [][]*x509.Certificate) error {
	if len(raw) == 0 {
		return errNoCertificate
	}
	if len(chains) == 0 {
		return x509.UnknownAuthorityError{}
	}
	leaf, err := x509.ParseCertificate(raw[0])
	if err != nil {
		return err
	}
	if len(dnsNames(leaf)) == 0 {
		return errNoNames
	}
	return nil
}

// prove gives the identity that a completed handshake has proven. It depends on
// the suite, not on what else was sent.
func (h *handshake) prove(p *suiteParams, x *exported) (Identity, error) {
	if p.psk {
		if h.client {
			return Identity{Kind: PSK, Names: []string{h.dial.PSK.Identity}}, nil
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.asked || h.unknown || h.identity != string(x.IdentityHint) {
			return Identity{}, errKey
		}
		return Identity{Kind: PSK, Names: []string{h.identity}}, nil
	}
	if len(x.PeerCertificates) == 0 {
		return Identity{}, errNoCertificate
	}
	leaf, err := x509.ParseCertificate(x.PeerCertificates[0])
	if err != nil {
		return Identity{}, err
	}
	names := dnsNames(leaf)
	if len(names) == 0 {
		return Identity{}, errNoNames
	}
	return Identity{Kind: Certificate, Names: names, Leaf: leaf.Raw}, nil
}

// explain finds out why a handshake failed: the reason to count, the alert that
// tells the peer (AlertCloseNotify: the library's, if any), and the error for
// the caller.
func (h *handshake) explain(ctx context.Context, err error) (Failure, Alert, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	cause := context.Cause(ctx)
	var (
		unknownCA x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
	)
	switch {
	case errors.As(err, &unknownCA):
		return FailUnknownCA, AlertUnknownCA, err
	case errors.As(err, &invalid):
		switch invalid.Reason {
		case x509.Expired:
			return FailExpired, AlertCertificateExpired, err
		case x509.IncompatibleUsage:
			return FailUsage, AlertUnsupportedCertificate, err
		}
		return FailCertificate, AlertBadCertificate, err
	case errors.As(err, &name):
		return FailName, AlertBadCertificate, err
	case errors.Is(err, errNoNames):
		return FailNoName, AlertBadCertificate, err
	case errors.Is(err, errNoCertificate), h.heldAlert() == alertNoCertificate:
		return FailNoCertificate, AlertHandshakeFailure, errNoCertificate
	case h.refused != nil:
		return FailAlert, AlertCloseNotify, h.refused
	case errors.Is(cause, errKey) && h.unknown:
		return FailUnknownIdentity, AlertDecryptError, fmt.Errorf("no key for PSK identity %q", h.identity)
	case errors.Is(cause, errKey):
		return FailKey, AlertDecryptError, fmt.Errorf("PSK of %q: %w", h.identity, errKey)
	case errors.Is(cause, errHello):
		return FailHello, AlertCloseNotify, errHello
	case errors.Is(cause, errTimeout), errors.Is(cause, context.DeadlineExceeded):
		err = cause
		if h.sendErr != nil {
			err = fmt.Errorf("%w (last socket error: %w)", cause, h.sendErr)
		}
		return FailTimeout, AlertCloseNotify, err
	case cause != nil:
		return FailCanceled, AlertCloseNotify, cause
	case errors.Is(err, errStopped):
		return FailCanceled, AlertCloseNotify, err
	}
	switch h.heldAlert() {
	case AlertInsufficientSecurity, AlertProtocolVersion, AlertHandshakeFailure:
		return FailSuite, AlertCloseNotify, err
	}
	return FailOther, AlertCloseNotify, err
}

// alertNoCertificate is the library's word for a missing client certificate,
// of SSL 3.0 (RFC 5246 section 7.2 reserves it).
const alertNoCertificate Alert = 41

// heldAlert is the alert that the library wanted to send, AlertCloseNotify if
// none. The caller holds mu.
func (h *handshake) heldAlert() Alert {
	if h.held == nil {
		return AlertCloseNotify
	}
	return Alert(h.held[headerLen+1])
}
