package framing

import "bytes"

// bodyKind says what ends the body of a message.
type bodyKind uint8

const (
	bodyNone bodyKind = iota
	bodyLength
	bodyChunked
	bodyUntilClose
	bodyNext // an interim response: the message goes on with another header block
)

// Bounds of a chunked body that are ours.
const (
	chunkLine = 512 // bytes of a chunk's first line; extensions are in it
	chunkSize = 12  // its hexadecimal digits
)

// chunkState is the part of a chunked body that is next.
type chunkState uint8

const (
	chunkHead chunkState = iota
	chunkData
	chunkEnd
	chunkTrailer
)

// httpBody finds the end of a body, RFC 9112 section 6.
type httpBody struct {
	open bool
	kind bodyKind
	left int64 // bytes of the body, or of the chunk

	chunk   chunkState
	end     lineEnd
	line    liner
	trailer int // bytes of the trailer section so far
}

func (b *httpBody) begin(kind bodyKind, length int64) {
	*b = httpBody{open: true, kind: kind, left: length}
}

// take consumes what buf has of the body, and closes b at its end. The trailer
// section may be most bytes long.
func (b *httpBody) take(buf []byte, eof bool, most int) (n int, err error) {
	switch b.kind {
	case bodyChunked:
		return b.chunks(buf, most)
	case bodyUntilClose:
		b.open = !eof
		return len(buf), nil
	}
	n = int(min(b.left, int64(len(buf))))
	b.left -= int64(n)
	b.open = b.left > 0
	return n, nil
}

func (b *httpBody) chunks(buf []byte, most int) (n int, err error) {
	for b.open && n < len(buf) {
		part, ok := 0, false
		switch b.chunk {
		case chunkHead:
			if part, ok = b.line.find(buf[n:], chunkLine); !ok {
				return 0, headTooLarge("the first line of a chunk", chunkLine)
			}
			if part > 0 {
				err = b.beginChunk(buf[n : n+part])
			}
		case chunkData:
			part = int(min(b.left, int64(len(buf)-n)))
			if b.left -= int64(part); b.left == 0 {
				b.chunk, b.end.left = chunkEnd, 2
			}
		case chunkEnd:
			if part, ok = b.end.take(buf[n:]); !ok {
				return 0, malformed("a chunk does not end with CR LF where its length says")
			}
			if b.end.left == 0 {
				b.chunk = chunkHead
			}
		case chunkTrailer:
			if part, ok = b.line.find(buf[n:], most-b.trailer); !ok {
				return 0, headTooLarge("the trailer section", most)
			}
			if part > 0 {
				err = b.trailerLine(buf[n : n+part])
			}
		}
		if err != nil {
			return 0, err
		}
		if part == 0 {
			return n, nil
		}
		n += part
	}
	return n, nil
}

// beginChunk takes the line with the size of a chunk.
func (b *httpBody) beginChunk(line []byte) error {
	body, ok := chop(line)
	digits := 0
	var size int64
	for digits < len(body) {
		v := unhex(body[digits])
		if v < 0 {
			break
		}
		size = size<<4 | int64(v)
		if digits++; digits > chunkSize {
			ok = false
			break
		}
	}
	extension := bytes.TrimLeft(body[digits:], " \t")
	switch {
	case !ok || digits == 0:
		ok = false
	case len(extension) > 0:
		ok = extension[0] == ';' && control(extension, true) < 0
	default:
		ok = digits == len(body)
	}
	if !ok {
		return malformed("%s does not begin a chunk", shown(line))
	}
	if b.chunk, b.left = chunkData, size; size == 0 {
		b.chunk = chunkTrailer
	}
	return nil
}

// trailerLine takes a line behind the last chunk.
func (b *httpBody) trailerLine(line []byte) error {
	b.trailer += len(line)
	body, ok := chop(line)
	if !ok {
		return malformed("the line %s does not end with CR LF", shown(body))
	}
	if len(body) == 0 {
		b.open = false
		return nil
	}
	var l linter
	if err := l.field(body); err != nil {
		return err
	}
	if l.lengths+l.codings+l.hosts > 0 {
		return malformed("the field %s is in the trailer section", shown(body))
	}
	return nil
}

// unhex returns the value of a hexadecimal digit, or -1.
func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
