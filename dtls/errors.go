package dtls

import (
	"errors"
	"fmt"
)

// Reasons for the end of an association, as Events.Closed and
// Association.Err give them.
var (
	// ErrClosedLocally says that this side closed the association.
	ErrClosedLocally = errors.New("dtls: association closed")
	// ErrClosedByPeer says that the peer sent an authenticated close_notify.
	ErrClosedByPeer = errors.New("dtls: association closed by peer")
	// ErrReplaced says that the peer has authenticated anew from the same
	// address, and that the association could or should no longer be reached.
	ErrReplaced = errors.New("dtls: association replaced by a newer one from the same address")
	// ErrSuperseded says that the peer's identity has established more than
	// Config.MaxPerIdentity associations, of which this was the oldest.
	ErrSuperseded = errors.New("dtls: association superseded by newer ones of the same identity")
	// ErrForgery says that so many records failed authentication that the
	// integrity limit of the cipher is near (Limits.OpenFailures).
	ErrForgery = errors.New("dtls: too many records failed authentication")
)

// ErrExhausted is returned by Seal when the record numbers or the
// confidentiality limit of the key are used up (Limits). The association can
// still receive; a new one is needed for sending.
var ErrExhausted = errors.New("dtls: key exhausted")

// errTooLarge and errShortBuffer report misuse of Seal.
var (
	errTooLarge    = errors.New("dtls: plaintext above 16384 bytes")
	errShortBuffer = errors.New("dtls: buffer has no room for the record")
)

// Alert is the description of a TLS alert (RFC 5246 section 7.2).
type Alert uint8

// Alerts that this package sends or explains; the values are those of RFC 5246
// section 7.2 and RFC 4279 section 6.
const (
	AlertCloseNotify            Alert = 0
	AlertHandshakeFailure       Alert = 40
	AlertBadCertificate         Alert = 42
	AlertUnsupportedCertificate Alert = 43
	AlertCertificateRevoked     Alert = 44
	AlertCertificateExpired     Alert = 45
	AlertCertificateUnknown     Alert = 46
	AlertUnknownCA              Alert = 48
	AlertAccessDenied           Alert = 49
	AlertDecryptError           Alert = 51
	AlertProtocolVersion        Alert = 70
	AlertInsufficientSecurity   Alert = 71
	AlertInternalError          Alert = 80
	AlertNoRenegotiation        Alert = 100
	AlertUnknownPSKIdentity     Alert = 115
)

// alertNames are the names of the specification, in words.
var alertNames = map[Alert]string{
	AlertCloseNotify:            "close notify",
	AlertHandshakeFailure:       "handshake failure",
	AlertBadCertificate:         "bad certificate",
	AlertUnsupportedCertificate: "unsupported certificate",
	AlertCertificateRevoked:     "certificate revoked",
	AlertCertificateExpired:     "certificate expired",
	AlertCertificateUnknown:     "certificate unknown",
	AlertUnknownCA:              "unknown CA",
	AlertAccessDenied:           "access denied",
	AlertDecryptError:           "decrypt error (pre-shared key or its identity is wrong)",
	AlertProtocolVersion:        "protocol version",
	AlertInsufficientSecurity:   "insufficient security (no common cipher suite, curve or extended master secret)",
	AlertInternalError:          "internal error",
	AlertNoRenegotiation:        "no renegotiation",
	AlertUnknownPSKIdentity:     "unknown PSK identity",
}

// String gives the alert's name in words.
func (a Alert) String() string {
	if s, ok := alertNames[a]; ok {
		return s
	}
	return fmt.Sprintf("alert %d", uint8(a))
}

// AlertError says that the peer ended a handshake or an association with a
// fatal alert. During a handshake alerts are not authenticated.
type AlertError struct {
	// Alert is what the peer sent.
	Alert Alert
}

// Error describes the alert.
func (e *AlertError) Error() string { return "dtls: peer sent alert: " + e.Alert.String() }
