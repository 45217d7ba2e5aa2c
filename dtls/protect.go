package dtls

import (
	"crypto/cipher"
	"encoding/binary"
	"sync"

	"github.com/tougw/tougw/internal/udp"
)

// scratch holds what must not be allocated per record: arguments of interface
// methods escape.
type scratch struct {
	nonce [12]byte
	aad   [23 + maxPeerCID]byte
	msg   [1]udp.Message
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// protector is one direction of an association: a key, an IV and the
// Connection ID that records of this direction carry, empty for plain records.
type protector struct {
	kind cipherKind
	aead cipher.AEAD
	iv   [12]byte
	cid  []byte
}

// head is what a record has before its plaintext.
func (p *protector) head() int {
	n := headerLen + len(p.cid)
	if p.kind == gcm {
		n += explicitLen
	}
	return n
}

// tail is what a record has after its plaintext: the tag, and with a Connection
// ID the real content type (RFC 9146 section 4).
func (p *protector) tail() int {
	if len(p.cid) > 0 {
		return tagLen + 1
	}
	return tagLen
}

// additional builds the additional data of a record: RFC 5246 section 6.2.3.3
// with the epoch as in RFC 6347 section 4.1.2.1, or RFC 9146 section 5.3. num is
// epoch and record number, n the length of the plaintext (with Connection ID:
// of the inner plaintext).
func (p *protector) additional(buf []byte, typ uint8, num uint64, n int) []byte {
	if len(p.cid) == 0 {
		binary.BigEndian.PutUint64(buf, num)
		buf[8], buf[9], buf[10] = typ, 0xfe, 0xfd
		binary.BigEndian.PutUint16(buf[11:], uint16(n))
		return buf[:13]
	}
	binary.BigEndian.PutUint64(buf, ^uint64(0))
	buf[8], buf[9], buf[10], buf[11], buf[12] = typeCID, uint8(len(p.cid)), typeCID, 0xfe, 0xfd
	binary.BigEndian.PutUint64(buf[13:], num)
	i := 21 + copy(buf[21:], p.cid)
	binary.BigEndian.PutUint16(buf[i:], uint16(n))
	return buf[:i+2]
}

// nonce builds the nonce of the record with epoch and number num; for GCM
// explicit is the part that the record carries.
func (p *protector) nonce(sc *scratch, num uint64, explicit []byte) []byte {
	sc.nonce = p.iv
	if p.kind == gcm {
		copy(sc.nonce[4:], explicit[:explicitLen])
		return sc.nonce[:]
	}
	binary.BigEndian.PutUint64(sc.nonce[4:], binary.BigEndian.Uint64(sc.nonce[4:])^num)
	return sc.nonce[:]
}

// seal protects b[head:head+n] in place as a record of the given type in epoch
// 1 and returns the length of the record, which begins at b[0]. The caller has
// checked the sizes, and never uses seq twice.
func (p *protector) seal(sc *scratch, typ uint8, seq uint64, b []byte, n int) int {
	num := 1<<48 | seq
	head := p.head()
	outer := typ
	if len(p.cid) > 0 {
		outer = typeCID
		b[head+n] = typ
		n++
	}
	b[0], b[1], b[2] = outer, 0xfe, 0xfd
	binary.BigEndian.PutUint64(b[epochOffset:], num)
	i := 11 + copy(b[11:], p.cid)
	binary.BigEndian.PutUint16(b[i:], uint16(head-i-2+n+tagLen))
	if p.kind == gcm {
		// The record number is the explicit nonce: it never repeats.
		binary.BigEndian.PutUint64(b[i+2:], num)
	}
	p.aead.Seal(b[head:head], p.nonce(sc, num, b[i+2:]), b[head:head+n], p.additional(sc.aad[:], typ, num, n))
	return head + n + tagLen
}

// open opens rec in place and gives its real content type and plaintext, which
// lies within rec. When authentication fails the fragment's bytes are lost.
func (p *protector) open(sc *scratch, h header, rec []byte) (typ uint8, plain []byte, ok bool) {
	num := uint64(h.epoch)<<48 | h.seq
	body := rec[h.start:]
	explicit := body
	if p.kind == gcm {
		if len(body) < explicitLen {
			return 0, nil, false
		}
		body = body[explicitLen:]
	}
	n := len(body) - tagLen
	if n < 0 {
		return 0, nil, false
	}
	plain, err := p.aead.Open(body[:0], p.nonce(sc, num, explicit), body, p.additional(sc.aad[:], h.typ, num, n))
	if err != nil {
		return 0, nil, false
	}
	if len(p.cid) == 0 {
		return h.typ, plain, true
	}
	// Inner plaintext: content, real type, zeros (RFC 9146 section 4).
	for i := len(plain) - 1; i >= 0; i-- {
		if plain[i] != 0 {
			return plain[i], plain[:i], true
		}
	}
	return 0, nil, true
}
