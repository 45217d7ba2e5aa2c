package dtls

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
)

// Suite is the number of a cipher suite in the TLS registry.
type Suite uint16

// The cipher suites that can be used: AEAD with an ephemeral key exchange
// (RFC 5289, RFC 7905).
const (
	ECDHEECDSAWithAES128GCM Suite = 0xc02b
	ECDHEECDSAWithAES256GCM Suite = 0xc02c
	ECDHERSAWithAES128GCM   Suite = 0xc02f
	ECDHERSAWithAES256GCM   Suite = 0xc030
	ECDHERSAWithChaCha20    Suite = 0xcca8
	ECDHEECDSAWithChaCha20  Suite = 0xcca9
	ECDHEPSKWithChaCha20    Suite = 0xccac
)

// cipherKind selects how nonces are made; the two differ in what is on the
// wire.
type cipherKind uint8

const (
	gcm    cipherKind = iota // nonce is IV(4) and 8 bytes carried in the record (RFC 5288)
	chacha                   // nonce is IV(12) xor the record number (RFC 7905)
)

// suiteParams are the lengths and functions of a suite, in bytes.
type suiteParams struct {
	name   string
	kind   cipherKind
	key    int
	iv     int
	hash   func() hash.Hash
	psk    bool
	aead   func(key []byte) (cipher.AEAD, error)
	limits Limits
}

// Confidentiality and integrity limits of the ciphers. RFC 8446 section 5.5 and
// RFC 9147 section 4.5.3 allow 2^24.5 full-size records per AES-GCM key, which
// is 2^38.5 bytes, and 2^36 failed openings for AES-GCM and ChaCha20-Poly1305;
// ChaCha20 has no limit that 2^48 records could reach.
var (
	gcmLimits    = Limits{Records: maxRecords, Bytes: 1 << 38, OpenFailures: 1 << 36}
	chachaLimits = Limits{Records: maxRecords, Bytes: 1 << 62, OpenFailures: 1 << 36}
)

var suites = map[Suite]*suiteParams{
	ECDHEECDSAWithAES128GCM: {"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", gcm, 16, 4, sha256.New, false, newGCM, gcmLimits},
	ECDHEECDSAWithAES256GCM: {"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", gcm, 32, 4, sha512.New384, false, newGCM, gcmLimits},
	ECDHERSAWithAES128GCM:   {"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", gcm, 16, 4, sha256.New, false, newGCM, gcmLimits},
	ECDHERSAWithAES256GCM:   {"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", gcm, 32, 4, sha512.New384, false, newGCM, gcmLimits},
	ECDHERSAWithChaCha20:    {"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", chacha, 32, 12, sha256.New, false, chacha20poly1305.New, chachaLimits},
	ECDHEECDSAWithChaCha20:  {"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", chacha, 32, 12, sha256.New, false, chacha20poly1305.New, chachaLimits},
	ECDHEPSKWithChaCha20:    {"TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256", chacha, 32, 12, sha256.New, true, chacha20poly1305.New, chachaLimits},
}

// defaultSuites is our order of preference: AES-GCM first, because every
// machine that tougw is meant for computes it in hardware.
var defaultSuites = []Suite{
	ECDHEECDSAWithAES128GCM, ECDHERSAWithAES128GCM,
	ECDHEECDSAWithAES256GCM, ECDHERSAWithAES256GCM,
	ECDHEECDSAWithChaCha20, ECDHERSAWithChaCha20,
	ECDHEPSKWithChaCha20,
}

// String gives the registry's name of the suite.
func (s Suite) String() string {
	if p := suites[s]; p != nil {
		return p.name
	}
	return fmt.Sprintf("suite %#04x", uint16(s))
}

func newGCM(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}
