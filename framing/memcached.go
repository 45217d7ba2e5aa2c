package framing

import "bytes"

// Bounds of memcached itself: the length of a key, and the largest item that its
// -I takes.
const (
	mcMaxKey  = 250
	mcMaxItem = 1 << 30
)

// The grammars of responses of memcached, protocol.txt.
const (
	mcLine     kind = iota + 1 // one line
	mcValues                   // VALUE blocks, then END
	mcLists                    // lines, then END
	mcDump                     // lines of `lru_crawler mgdump`, then EN
	mcMeta                     // one line, with a block behind VA
	mcFenced                   // anything, then the answer of the fence
	mcNoAnswer                 // none: the request is local
)

// A client need not get an answer for a command with noreply or, in the meta
// commands, with the flag q; but errors are always sent. To find the end of such
// an answer on TCP, where it may be empty, another command is sent behind it
// whose answer shows. The answer of the fence stays in the message: Homa has no
// empty ones.
const (
	mcFenceMeta    = "mn\r\n"
	mcFenceClassic = "version\r\n"
)

// memcached is the framing of its text protocol, classic and meta commands.
type memcached struct {
	max  int64
	line int
}

func newMemcached(c Config) *memcached { return &memcached{max: c.Max, line: c.Head} }

// Traits implements Framing.
func (f *memcached) Traits() Traits { return Traits{Window: f.line, Max: f.max, Pipelined: true} }

func (f *memcached) Requests() Scanner  { return &mcRequests{f: f} }
func (f *memcached) Responses() Scanner { return &mcResponses{f: f} }
func (f *memcached) RequestEncoder() *Encoder {
	return &Encoder{framing: f, scanner: &mcRequests{f: f}, max: f.max}
}
func (f *memcached) ResponseEncoder() *Encoder {
	return &Encoder{framing: f, scanner: &mcResponses{f: f, stripFence: true}, max: f.max}
}

func (f *memcached) prefix(dst []byte, _ int64) ([]byte, error) { return dst, nil }
func (f *memcached) suffix(dst []byte, req *Request) []byte {
	if req != nil {
		dst = append(dst, req.fence...)
	}
	return dst
}

// Answer implements Framing: CLIENT_ERROR or SERVER_ERROR, or nothing where the
// client asked for no reply.
func (f *memcached) Answer(dst []byte, e *Error, req *Request) ([]byte, bool) {
	keep := true
	switch e.Fault {
	case Malformed, HeadTooLarge, Truncated:
		keep = false
	}
	if keep && req != nil && req.fence == mcFenceClassic {
		return dst, true
	}
	switch {
	case e.answer != "":
		return append(dst, e.answer...), keep
	case e.Fault == TooLarge:
		return append(dst, "SERVER_ERROR object too large for cache\r\n"...), keep
	case e.Fault == Unsupported || !keep:
		dst = append(dst, "CLIENT_ERROR "...)
	default:
		dst = append(dst, "SERVER_ERROR gateway: "...)
		dst = append(dst, e.Fault.String()...)
		dst = append(dst, ": "...)
	}
	dst = append(dst, printable(e.Reason)...)
	return append(dst, '\r', '\n'), keep
}

// Failure implements Framing: the same, with the answer of the fence where the client
// sees one. It is empty with noreply.
func (f *memcached) Failure(e *Error, req *Request) []byte {
	if req != nil && req.fence == mcFenceClassic {
		return nil
	}
	answer, _ := f.Answer(nil, e, req)
	if req != nil && req.fence == mcFenceMeta {
		answer = append(answer, "MN\r\n"...)
	}
	return answer
}

// block is the data behind a line that tells its length.
type block struct {
	left int64
	end  lineEnd
}

// begin expects n bytes and a line end.
func (b *block) begin(n int64) { b.left, b.end.left = n, 2 }

func (b *block) open() bool { return b.end.left > 0 }

// size is how many bytes the block still lacks.
func (b *block) size() int64 { return b.left + int64(b.end.left) }

// take consumes what buf has of the block.
func (b *block) take(buf []byte) (n int, err error) {
	n = int(min(b.left, int64(len(buf))))
	if b.left -= int64(n); b.left > 0 {
		return n, nil
	}
	part, ok := b.end.take(buf[n:])
	if !ok {
		return 0, &Error{Fault: Malformed, Reason: "bad data chunk"}
	}
	return n + part, nil
}

// words iterates over the words of a line.
type words struct {
	rest  []byte
	count int // of the words so far
}

// next returns the next word, empty at the end.
func (w *words) next() []byte {
	w.rest = bytes.TrimLeft(w.rest, " ")
	word := w.rest
	if i := bytes.IndexByte(w.rest, ' '); i >= 0 {
		word = w.rest[:i]
	}
	w.rest = w.rest[len(word):]
	if len(word) > 0 {
		w.count++
	}
	return word
}
