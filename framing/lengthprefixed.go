package framing

import "encoding/binary"

// maxVarint is the size of the longest varint: 64 bits in groups of 7.
const maxVarint = 10

// What the length of a message counts.
type counting uint8

const (
	countsAfter   counting = iota // what is behind the length
	countsLength                  // the length, too
	countsMessage                 // all of the message
)

// lengthPrefixed is the framing of messages that begin with their length.
type lengthPrefixed struct {
	width    int // bytes of the length, 0 for a varint
	little   bool
	offset   int
	counts   counting
	strip    bool
	pipeline bool
	max      int64
}

func newLengthPrefixed(c Config) *lengthPrefixed {
	counts := map[string]counting{"after": countsAfter, "length": countsLength, "message": countsMessage}
	return &lengthPrefixed{
		width: c.Bytes, little: c.Order == "little", offset: c.Offset, counts: counts[c.Counts],
		strip: c.Strip, pipeline: c.Pipeline, max: c.Max,
	}
}

// Traits implements Framing.
func (f *lengthPrefixed) Traits() Traits {
	window := f.offset + f.width
	if f.width == 0 {
		window += maxVarint
	}
	return Traits{Window: window, Max: f.max, Pipelined: f.pipeline}
}

func (f *lengthPrefixed) Requests() Scanner  { return &prefixScanner{f: f, what: requests} }
func (f *lengthPrefixed) Responses() Scanner { return &prefixScanner{f: f, what: responses} }

func (f *lengthPrefixed) RequestEncoder() *Encoder  { return f.encoder(requests) }
func (f *lengthPrefixed) ResponseEncoder() *Encoder { return f.encoder(responses) }

func (f *lengthPrefixed) encoder(what side) *Encoder {
	if f.strip {
		return &Encoder{framing: f, scanner: &opaque{what: what}, max: f.max}
	}
	return &Encoder{framing: f, scanner: &prefixScanner{f: f, what: what}, max: f.max}
}

// Answer implements Framing. There is no answer that every such protocol knows.
func (f *lengthPrefixed) Answer(dst []byte, _ *Error, _ *Request) ([]byte, bool) { return dst, false }

// Failure implements Framing: there are no words for it.
func (f *lengthPrefixed) Failure(*Error, *Request) []byte { return nil }

func (f *lengthPrefixed) suffix(dst []byte, _ *Request) []byte { return dst }

func (f *lengthPrefixed) prefix(dst []byte, length int64) ([]byte, error) {
	if !f.strip {
		return dst, nil
	}
	v := uint64(length)
	if f.counts != countsAfter {
		v += uint64(f.width)
	}
	if f.width == 0 {
		return appendVarint(dst, v, f.little), nil
	}
	if f.width < 8 && v>>(8*f.width) != 0 {
		return dst, tooLarge(1<<(8*f.width) - 1)
	}
	for i := range f.width {
		shift := 8 * i
		if !f.little {
			shift = 8 * (f.width - 1 - i)
		}
		dst = append(dst, byte(v>>shift))
	}
	return dst, nil
}

func appendVarint(dst []byte, v uint64, little bool) []byte {
	if little {
		return binary.AppendUvarint(dst, v)
	}
	var groups [maxVarint]byte
	i := len(groups) - 1
	groups[i] = byte(v & 0x7f)
	for v >>= 7; v > 0; v >>= 7 {
		i--
		groups[i] = byte(v&0x7f) | 0x80
	}
	return append(dst, groups[i:]...)
}

// header reads the header of the message in buf. It returns its size, 0 when it
// is not complete, and the bytes that follow it.
func (f *lengthPrefixed) header(buf []byte) (size int, rest int64, err error) {
	if len(buf) < f.offset+max(f.width, 1) {
		return 0, 0, nil
	}
	var v uint64
	b := buf[f.offset:]
	if f.width == 0 {
		var n int
		if v, n, err = varint(b, f.little); n == 0 || err != nil {
			return 0, 0, err
		}
		size = f.offset + n
	} else {
		size = f.offset + f.width
		for i := range f.width {
			if f.little {
				v |= uint64(b[i]) << (8 * i)
			} else {
				v = v<<8 | uint64(b[i])
			}
		}
	}
	counted := uint64(0)
	switch f.counts {
	case countsLength:
		counted = uint64(size - f.offset)
	case countsMessage:
		counted = uint64(size)
	}
	if v < counted {
		return 0, 0, malformed("the length %d of a message is less than the %d bytes of the header that it counts", v, counted)
	}
	v -= counted
	kept := uint64(size)
	if f.strip {
		kept = 0
		if v == 0 {
			return 0, 0, malformed("an empty message cannot be carried without its length")
		}
	}
	if v > uint64(f.max) || v+kept > uint64(f.max) {
		return 0, 0, tooLarge(f.max)
	}
	return size, int64(v), nil
}

// varint returns a number in groups of 7 bits and its size, or 0 when b does not
// hold all of it.
func varint(b []byte, little bool) (v uint64, n int, err error) {
	for i, c := range b[:min(len(b), maxVarint)] {
		group := uint64(c & 0x7f)
		if little {
			if i == maxVarint-1 && c > 1 {
				return 0, 0, errVarint
			}
			v |= group << (7 * i)
		} else {
			if v>>57 != 0 || i == maxVarint-1 && c > 0x7f {
				return 0, 0, errVarint
			}
			v = v<<7 | group
		}
		if c < 0x80 {
			return v, i + 1, nil
		}
	}
	return 0, 0, nil
}

var errVarint = malformed("the length of a message has more than 64 bits")

// prefixScanner scans one direction of a connection.
type prefixScanner struct {
	f      *lengthPrefixed
	what   side
	inside bool  // in a message
	length int64 // of the message
	left   int64 // of its bytes
	err    error
	req    Request
}

// Scan implements Scanner.
func (s *prefixScanner) Scan(buf []byte, eof bool, req *Request) (Result, error) {
	if s.err != nil {
		return Result{}, s.err
	}
	r, err := s.scan(buf, eof, req)
	s.err = err
	return r, err
}

func (s *prefixScanner) scan(buf []byte, eof bool, req *Request) (Result, error) {
	var r Result
	if !s.inside {
		if len(buf) == 0 {
			return r, nil
		}
		if s.what == responses && req == nil {
			return r, malformed("a response without a request")
		}
		size, rest, err := s.f.header(buf)
		if err != nil {
			return r, err
		}
		if size == 0 {
			if eof {
				return r, truncated("the header of a message")
			}
			return r, nil
		}
		r.Begin, s.inside = true, true
		if s.f.strip {
			r.Advance, buf = size, buf[size:]
			s.length, s.left = rest, rest
		} else {
			s.length, s.left = rest+int64(size), rest+int64(size)
		}
	}
	n := int(min(s.left, int64(len(buf))))
	s.left -= int64(n)
	if n == 0 && !r.Begin {
		if eof {
			return r, truncated("a message")
		}
		return r, nil
	}
	r.Data, r.Advance, r.Length = buf[:n], r.Advance+n, s.length
	if s.what == requests {
		r.Request = &s.req
	}
	if s.left == 0 {
		r.End, s.inside = true, false
	}
	return r, nil
}
