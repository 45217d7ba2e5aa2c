package dtls

import "encoding/binary"

// Content types (RFC 5246 section 6.2.1, RFC 9146 section 4).
const (
	typeChangeCipherSpec = 20
	typeAlert            = 21
	typeHandshake        = 22
	typeApplicationData  = 23
	typeCID              = 25
)

// Sizes of the record layer in bytes.
const (
	headerLen    = 13 // without a Connection ID (RFC 6347 section 4.1)
	epochOffset  = 3  // of the epoch, which the 48-bit number follows
	cidOffset    = 11 // of the Connection ID, when there is one (RFC 9146 section 4)
	explicitLen  = 8  // nonce carried in a GCM record (RFC 5288 section 3)
	tagLen       = 16 // of both ciphers
	maxPlaintext = 1 << 14
	maxFragment  = maxPlaintext + 256 // most that an AEAD record may add (RFC 5246 section 6.2.3.3 allows more)
	maxPeerCID   = 255                // RFC 9146 section 3
)

// Our choices.
const (
	// cidLen is the length of the Connection IDs that we give out; see cid.
	cidLen = 8
	// firstNumber is the number of the first record that we protect. Lower
	// numbers belong to the handshake library: its records with a number from
	// here on never reach the socket, so that no number is used twice under
	// one key whatever the library does.
	firstNumber = 128
	// maxLibraryNumber is the highest number that the library may have reached
	// when we take over, which leaves a gap of at least 64.
	maxLibraryNumber = firstNumber - 64
	// maxRecords leaves room below 2^48 for alerts and for the numbers that
	// concurrent callers draw before they see the limit.
	maxRecords = 1<<48 - 1<<20
	// hardLimit is where even alerts stop.
	hardLimit = 1<<48 - 1
)

// header is what the clear part of a record says.
type header struct {
	typ   uint8
	epoch uint16
	seq   uint64 // 48 bits
	cid   uint64 // our Connection ID when typ is typeCID
	start int    // offset of the fragment in the record
}

// parseHeader reads the header of the first record in b and gives its length.
// The drop is numDrops when the record is well-formed; otherwise the rest of b
// is of no use.
func parseHeader(b []byte) (h header, n int, drop Drop) {
	if len(b) < headerLen {
		return h, 0, DropMalformed
	}
	h.typ = b[0]
	h.start = headerLen
	if b[1] != 0xfe || b[2] != 0xfd && b[2] != 0xff {
		return h, 0, DropVersion
	}
	v := binary.BigEndian.Uint64(b[epochOffset:])
	h.epoch, h.seq = uint16(v>>48), v&(1<<48-1)
	if h.epoch > 1 {
		return h, 0, DropEpoch
	}
	if h.epoch == 1 && b[2] != 0xfd {
		// Only a first ClientHello may claim DTLS 1.0.
		return h, 0, DropVersion
	}
	if h.typ == typeCID {
		h.start += cidLen
		if len(b) < h.start {
			return h, 0, DropMalformed
		}
		h.cid = binary.BigEndian.Uint64(b[11:])
	}
	l := int(binary.BigEndian.Uint16(b[h.start-2:]))
	n = h.start + l
	if n > len(b) || l > maxFragment || l == 0 {
		return h, 0, DropMalformed
	}
	return h, n, numDrops
}
