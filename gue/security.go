package gue

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
)

// Layout of the security field with SEC = 100 (extensions-06 §4.4). The text
// once calls the HMAC 16 bytes; layout and length say 32.
const (
	// HMACLen is the length of the field in bytes.
	HMACLen = 40

	hmacCoverOffset = 4
	hmacCoverLength = 6
	hmacValue       = 8
)

// HMACKey is a key for the HMAC form of the security field.
type HMACKey struct {
	// ID is what the field names the key by.
	ID uint32
	// Key is the secret of HMAC-SHA-256; at least 32 bytes are advisable.
	Key []byte
}

// validCookie reports whether a cookie has a length that the format has.
func validCookie(c []byte) error {
	switch len(c) {
	case 8, 16, 32:
		return nil
	}
	return fmt.Errorf("gue: cookie of %d bytes, not 8, 16 or 32", len(c))
}

// macs computes HMACs without allocation. What it hashes is copied to a buffer
// of its own first, as hashes are called through an interface.
type macs struct {
	keys map[uint32]hash.Hash
	buf  [32 + MaxLen]byte
	sum  [sha256.Size]byte
}

func newMACs(keys []HMACKey) (*macs, error) {
	m := &macs{keys: make(map[uint32]hash.Hash, len(keys))}
	for _, k := range keys {
		if len(k.Key) == 0 {
			return nil, fmt.Errorf("gue: HMAC key %d is empty", k.ID)
		}
		if m.keys[k.ID] != nil {
			return nil, fmt.Errorf("gue: HMAC key %d is there twice", k.ID)
		}
		m.keys[k.ID] = hmac.New(sha256.New, k.Key)
	}
	return m, nil
}

// compute returns the HMAC over the outer addresses, the header with the
// values of HMAC, K and A as zero, and the covered payload. The result is valid
// until the next call.
func (m *macs) compute(key hash.Hash, out *Outer, h *Header, header, covered []byte) []byte {
	n := out.putAddrs((*[32]byte)(m.buf[:]))
	b := m.buf[n : n+copy(m.buf[n:], header)]
	zeroValues(h, b, FieldSecurity|FieldChecksum|FieldAltChecksum)
	key.Reset()
	key.Write(m.buf[:n+len(b)])
	key.Write(covered)
	return key.Sum(m.sum[:0])
}

// zeroValues clears the values of integrity checks in a copy of a header: the
// checksum, CRC or HMAC itself, not what it covers.
func zeroValues(h *Header, header []byte, which Fields) {
	which &= h.Has
	if which&FieldSecurity != 0 {
		o := h.offset(FieldSecurity)
		clear(header[o+hmacValue : o+HMACLen])
	}
	if which&FieldChecksum != 0 {
		o := h.offset(FieldChecksum)
		clear(header[o : o+2])
	}
	if which&FieldAltChecksum != 0 {
		o := h.offset(FieldAltChecksum)
		clear(header[o+4 : o+8])
	}
}

// verify checks an HMAC field (extensions-06 §4.4).
func (m *macs) verify(out *Outer, h *Header, header, payload []byte) Drop {
	key := m.keys[binary.BigEndian.Uint32(h.Security)]
	if key == nil {
		return DropSecurityKey
	}
	from := int(binary.BigEndian.Uint16(h.Security[hmacCoverOffset:]))
	to := from + int(binary.BigEndian.Uint16(h.Security[hmacCoverLength:]))
	if to > len(payload) {
		return DropCoverage
	}
	if !hmac.Equal(m.compute(key, out, h, header, payload[from:to]), h.Security[hmacValue:]) {
		return DropSecurity
	}
	return DropNone
}

// verifyCookie compares the cookie with each of those that are accepted, in a
// time that does not depend on their content (extensions-06 §4.3).
func verifyCookie(cookies [][]byte, got []byte) Drop {
	equal := 0
	for _, c := range cookies {
		equal |= subtle.ConstantTimeCompare(c, got)
	}
	if equal == 0 {
		return DropSecurity
	}
	return DropNone
}
