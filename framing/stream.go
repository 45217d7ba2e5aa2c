package framing

import (
	"encoding/binary"
	"fmt"
)

// ChunkHeaderLen is the size of the header of a [Chunk].
const ChunkHeaderLen = 40

const (
	chunkMagic   = 0x54 // T
	chunkVersion = 2
)

// ChunkFlags are marks in the bytes of a stream.
type ChunkFlags uint8

// The flags.
const (
	// ChunkOpen opens the stream. Offset is 0.
	ChunkOpen ChunkFlags = 1 << iota
	// ChunkFin ends this direction behind the data of the chunk (half-close). The
	// other direction goes on.
	ChunkFin
	// ChunkReset ends both directions at once, for Reason. There is no data.
	ChunkReset
	// ChunkPoll, in requests, asks for a response that waits until there is data,
	// an end or a reset to tell. There is no data, and Offset is the number of the
	// poll.
	ChunkPoll

	chunkKnown = ChunkOpen | ChunkFin | ChunkReset | ChunkPoll
)

// ResetReason says why a stream was reset.
type ResetReason uint8

// The reasons.
const (
	ResetUnspecified   ResetReason = iota
	ResetByPeer                    // the TCP connection was reset
	ResetRefused                   // the server refused the connection
	ResetUnreachable               // the server cannot be reached
	ResetTimeout                   // the server, or the other gateway, is silent
	ResetOverloaded                // too many streams
	ResetUnknownStream             // there is no such stream (any more)
	ResetProtocol                  // a chunk broke the rules
	resetReasons
)

var resetNames = [...]string{
	"unspecified", "reset by peer", "refused", "unreachable", "timed out", "overloaded", "unknown stream", "protocol error",
}

// String returns the reason in words.
func (r ResetReason) String() string {
	if r < resetReasons {
		return resetNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// ChunkPlaces is how many polls of a stream may be under way.
const ChunkPlaces = 8

// MaxOffsetInStream is the largest offset in one direction of a stream.
const MaxOffsetInStream = 1<<62 - 1

// Chunk is the header of a message, request or response, that carries a part of
// one direction of a byte stream between two gateways. All numbers are in
// network byte order; the data follows and ends with the message.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---------------+---------------+---------------+---------------+
//	|  magic 0x54   |   version 2   |0 0 0 0|P|R|F|O|    reason     |
//	+---------------+---------------+---------------+---------------+
//	|                        length of the data                     |
//	+---------------------------------------------------------------+
//	|                           stream (64)                         |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|                           offset (64)                         |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|                           limit (64)                          |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|                          received (64)                        |
//	|                                                               |
//	+---------------------------------------------------------------+
//
// RPCs run in parallel and may overtake each other, so that a receiver orders
// chunks by their offsets. An RPC that fails is repeated: no offset is sent twice
// with different bytes, and a receiver drops what it has.
//
// Polls have [ChunkPlaces] places; poll n is in place n modulo ChunkPlaces. Each
// poll in a place, a repeated one too, has a higher number than those before it, and
// there is no other under way whose response is still wanted. Bytes that were sent
// in response to a poll and are not Received are sent again to the next in its place.
type Chunk struct {
	Flags ChunkFlags
	// Reason counts with ChunkReset only and is 0 otherwise.
	Reason ResetReason
	// Length is the number of bytes of data behind the header.
	Length uint32
	// Stream names the stream: a random number that the opener draws.
	Stream uint64
	// Offset is the place of the first byte of data in this direction, from 0. It
	// is what numbers the chunks. Without data it is where the direction stands,
	// but in a poll its number.
	Offset uint64
	// Limit is the offset up to which the sender of this chunk takes bytes of the
	// opposite direction (at most MaxOffsetInStream). It never goes down; the
	// highest that has arrived counts.
	Limit uint64
	// Received is the offset up to which the sender of this chunk has bytes of the
	// opposite direction, without a gap, and will not want them again. The end counts
	// as one more byte. It never goes down.
	Received uint64
}

// Append appends the 40 bytes of the header to dst. It panics when c breaks the
// rules of Decode.
func (c *Chunk) Append(dst []byte) []byte {
	if err := c.check(); err != nil {
		panic(err)
	}
	dst = append(dst, chunkMagic, chunkVersion, byte(c.Flags), byte(c.Reason))
	dst = binary.BigEndian.AppendUint32(dst, c.Length)
	dst = binary.BigEndian.AppendUint64(dst, c.Stream)
	dst = binary.BigEndian.AppendUint64(dst, c.Offset)
	dst = binary.BigEndian.AppendUint64(dst, c.Limit)
	return binary.BigEndian.AppendUint64(dst, c.Received)
}

// Decode reads the header at the front of a message of length bytes, of which b
// holds at least the first 40 where there are so many. Every field is set. The
// error is an [*Error]; c is zero then.
func (c *Chunk) Decode(b []byte, length int64) error {
	*c = Chunk{}
	if length < ChunkHeaderLen || len(b) < ChunkHeaderLen {
		return malformed("a chunk of %d bytes is shorter than its header", min(length, int64(len(b))))
	}
	if b[0] != chunkMagic || b[1] != chunkVersion {
		return malformed("a chunk begins with %#02x %d, not with %#02x and version %d", b[0], b[1], chunkMagic, chunkVersion)
	}
	d := Chunk{
		Flags: ChunkFlags(b[2]), Reason: ResetReason(b[3]),
		Length:   binary.BigEndian.Uint32(b[4:]),
		Stream:   binary.BigEndian.Uint64(b[8:]),
		Offset:   binary.BigEndian.Uint64(b[16:]),
		Limit:    binary.BigEndian.Uint64(b[24:]),
		Received: binary.BigEndian.Uint64(b[32:]),
	}
	if int64(d.Length) != length-ChunkHeaderLen {
		return malformed("a chunk tells of %d bytes of data and holds %d", d.Length, length-ChunkHeaderLen)
	}
	if err := d.check(); err != nil {
		return err
	}
	*c = d
	return nil
}

func (c *Chunk) check() error {
	switch {
	case c.Flags&^chunkKnown != 0:
		return malformed("a chunk has unknown flags %#02x", uint8(c.Flags&^chunkKnown))
	case c.Flags&ChunkReset == 0 && c.Reason != 0:
		return malformed("a chunk has a reason and is no reset")
	case c.Flags&ChunkReset != 0 && (c.Length != 0 || c.Flags&^ChunkReset != 0):
		return malformed("a chunk is a reset and more")
	case c.Flags&ChunkPoll != 0 && (c.Length != 0 || c.Flags&^ChunkPoll != 0):
		return malformed("a chunk is a poll and more")
	case c.Flags&ChunkOpen != 0 && c.Offset != 0:
		return malformed("a chunk opens a stream at offset %d", c.Offset)
	case c.Offset > MaxOffsetInStream-uint64(c.Length) || c.Limit > MaxOffsetInStream || c.Received > MaxOffsetInStream:
		return malformed("a chunk goes beyond the largest offset of a stream")
	}
	return nil
}

// stream is the framing of bytes without messages.
type stream struct {
	bare
	max int64
}

func newStream(c Config) *stream { return &stream{max: c.Max} }

// Traits implements Framing.
func (f *stream) Traits() Traits { return Traits{Window: 1, Max: f.max, Pipelined: true, Stream: true} }

// A scanner cuts what there is into pieces that fit into one message together
// with the header, which it leaves to its caller.
func (f *stream) Requests() Scanner  { return &pieces{most: f.max - ChunkHeaderLen, what: requests} }
func (f *stream) Responses() Scanner { return &pieces{most: f.max - ChunkHeaderLen, what: responses} }

func (f *stream) RequestEncoder() *Encoder  { return f.encoder(requests) }
func (f *stream) ResponseEncoder() *Encoder { return f.encoder(responses) }

func (f *stream) encoder(what side) *Encoder {
	return &Encoder{framing: f, scanner: &opaque{what: what}, max: f.max - ChunkHeaderLen}
}

// Answer implements Framing: a stream that fails is reset.
func (f *stream) Answer(dst []byte, _ *Error, _ *Request) ([]byte, bool) { return dst, false }

// Failure implements Framing: there are no words for it.
func (f *stream) Failure(*Error, *Request) []byte { return nil }

// pieces scans one direction of a stream.
type pieces struct {
	most int64
	what side
	req  Request
}

// Scan implements Scanner.
func (s *pieces) Scan(buf []byte, _ bool, _ *Request) (Result, error) {
	if len(buf) == 0 {
		return Result{}, nil
	}
	n := int(min(int64(len(buf)), s.most))
	r := Result{Advance: n, Data: buf[:n], Begin: true, End: true, Length: int64(n)}
	if s.what == requests {
		r.Request = &s.req
	}
	return r, nil
}
