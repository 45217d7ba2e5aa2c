package dtls

import (
	"strings"
)

// Kind says how a peer proved its identity.
type Kind uint8

// The two ways to prove an identity.
const (
	// Certificate: a chain to a configured root, and the leaf's private key.
	Certificate Kind = iota + 1
	// PSK: the key of a pre-shared key identity.
	PSK
)

// String gives "certificate" or "psk".
func (k Kind) String() string {
	switch k {
	case Certificate:
		return "certificate"
	case PSK:
		return "psk"
	}
	return "unknown"
}

// Identity is what a peer proved in its handshake. It is immutable.
type Identity struct {
	// Kind says how it was proven.
	Kind Kind
	// Names has at least one entry: the DNS names of the leaf certificate in
	// lower case without wildcards, never its common name; or the PSK identity
	// as it was sent. A client that authenticates by PSK has proven by the key
	// that it may speak with the server, whose name is then the client's own
	// PSK identity.
	Names []string
	// Leaf is the peer's certificate in DER, nil with a PSK.
	Leaf []byte
}

// String gives the names, separated by commas.
func (i Identity) String() string { return strings.Join(i.Names, ",") }

// Has reports whether name is one of the proven names.
func (i Identity) Has(name string) bool {
	for _, n := range i.Names {
		if n == name || i.Kind == Certificate && strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}
