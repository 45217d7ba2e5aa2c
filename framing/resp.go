package framing

import (
	"bytes"
	"math"
)

// Bounds of Redis itself: proto-max-bulk-len, and the largest multibulk count.
const (
	respMaxBulk  = 512 << 20
	respMaxCount = 1 << 20
	// respMaxElements bounds the count of an aggregate in a response. What it
	// really has is bounded by the size of the message.
	respMaxElements = math.MaxInt32
)

// resp is the framing of the Redis serialization protocol, versions 2 and 3.
type resp struct {
	bare
	max   int64
	line  int
	depth int
	pass  bool // commands that change the state of the connection
}

func newRESP(c Config) *resp {
	return &resp{max: c.Max, line: c.Head, depth: c.Depth, pass: c.ConnectionState == "pass"}
}

// Traits implements Framing.
func (f *resp) Traits() Traits { return Traits{Window: f.line, Max: f.max, Pipelined: true} }

func (f *resp) Requests() Scanner  { return &respScanner{f: f, what: requests} }
func (f *resp) Responses() Scanner { return &respScanner{f: f, what: responses} }
func (f *resp) RequestEncoder() *Encoder {
	return &Encoder{framing: f, scanner: &respScanner{f: f, what: requests}, max: f.max}
}
func (f *resp) ResponseEncoder() *Encoder {
	return &Encoder{framing: f, scanner: &respScanner{f: f, what: responses}, max: f.max}
}

// Answer implements Framing: an error reply.
func (f *resp) Answer(dst []byte, e *Error, _ *Request) ([]byte, bool) {
	keep := true
	dst = append(dst, "-ERR "...)
	switch e.Fault {
	case Malformed, HeadTooLarge:
		dst = append(dst, "Protocol error: "...)
		keep = false
	case Truncated:
		keep = false
	case Timeout, Unreachable, BadResponse, Overloaded:
		dst = append(dst, "gateway: "...)
		dst = append(dst, e.Fault.String()...)
		dst = append(dst, ": "...)
	}
	dst = append(dst, printable(e.Reason)...)
	return append(dst, '\r', '\n'), keep
}

// Failure implements Framing.
func (f *resp) Failure(e *Error, req *Request) []byte {
	answer, _ := f.Answer(nil, e, req)
	return answer
}

// respScanner scans one direction of a connection.
type respScanner struct {
	f    *resp
	what side
	line liner

	begun bool
	total int64 // bytes of the message that were advanced over
	// stack holds, for each open aggregate, how many elements are still to begin.
	// At the bottom there is the message itself, with one.
	stack  []int64
	bulk   int64 // bytes of a bulk string that are still to come
	end    lineEnd
	push   bool
	refuse *Error
	err    error
	req    Request
}

// Scan implements Scanner.
func (s *respScanner) Scan(buf []byte, eof bool, req *Request) (Result, error) {
	if s.err != nil {
		return Result{}, s.err
	}
	r, err := s.scan(buf, eof, req)
	s.err = err
	return r, err
}

func (s *respScanner) scan(buf []byte, eof bool, req *Request) (Result, error) {
	r := Result{Length: unknown}
	if len(s.stack) == 0 {
		begin, skip, err := s.start(buf, req)
		if err != nil {
			return Result{}, err
		}
		if !begin {
			if skip == 0 && eof && len(buf) > 0 {
				return Result{}, truncated("a " + s.what.String())
			}
			return Result{Advance: skip}, nil
		}
	}
	n, err := s.elements(buf)
	if err != nil {
		return Result{}, err
	}
	if n == 0 {
		if eof {
			return Result{}, truncated("a " + s.what.String())
		}
		return Result{}, nil
	}
	r.Begin, s.begun = !s.begun, true
	s.total += int64(n)
	r.Advance, r.Data, r.Unsolicited = n, buf[:n], s.push
	if s.what == requests {
		r.Request = &s.req
	}
	if r.End = len(s.stack) == 0; r.End {
		r.Length = s.total
	} else if s.lastElement() {
		r.Length = s.total + s.bulk + int64(s.end.left)
	}
	if max(r.Length, s.total+s.bulk+int64(s.end.left)) > s.f.max && s.refuse == nil {
		s.refuse = tooLarge(s.f.max)
	}
	if r.Refused = s.refuse; s.refuse != nil {
		r.Data, r.Length = nil, unknown
	}
	if r.End {
		s.begun, s.total, s.push, s.refuse = false, 0, false, nil
	}
	return r, nil
}

// lastElement reports whether the bulk string that is being read is all that
// the message still lacks.
func (s *respScanner) lastElement() bool {
	for _, left := range s.stack {
		if left != 0 {
			return false
		}
	}
	return s.end.left > 0
}

// start looks at the beginning of a message, and reports whether enough of it is
// there to begin with it; otherwise how many bytes to skip, which are none.
func (s *respScanner) start(buf []byte, req *Request) (begin bool, skip int, err error) {
	if len(buf) == 0 {
		return false, 0, nil
	}
	if s.what == responses {
		if s.push = buf[0] == '>'; !s.push && req == nil {
			return false, 0, malformed("a reply without a command")
		}
		s.stack = append(s.stack, 1)
		return true, 0, nil
	}
	if buf[0] == '*' {
		begin, skip, err = s.startCommand(buf)
	} else {
		begin, skip, err = s.startInline(buf)
	}
	if begin {
		s.stack = append(s.stack, 1)
	}
	return begin, skip, err
}

// elements reads elements from the front of buf for as long as they are
// complete, but at most one message. An open bulk string is read in parts.
func (s *respScanner) elements(buf []byte) (n int, err error) {
	for n < len(buf) {
		switch {
		case s.bulk > 0:
			part := int(min(s.bulk, int64(len(buf)-n)))
			n += part
			s.bulk -= int64(part)
			continue
		case s.end.left > 0:
			part, ok := s.end.take(buf[n:])
			if n += part; !ok {
				return 0, malformed("a bulk string does not end with CR LF where its length says")
			}
			if s.end.left > 0 {
				return n, nil
			}
		default:
			part, ok := s.line.find(buf[n:], s.f.line)
			if !ok {
				return 0, headTooLarge("a line", s.f.line)
			}
			if part == 0 {
				return n, nil
			}
			if err := s.element(buf[n : n+part]); err != nil {
				return 0, err
			}
			if n += part; s.end.left > 0 {
				continue
			}
		}
		for len(s.stack) > 0 && s.stack[len(s.stack)-1] == 0 {
			s.stack = s.stack[:len(s.stack)-1]
		}
		if len(s.stack) == 0 {
			return n, nil
		}
	}
	return n, nil
}

// element takes the line that begins an element. A bulk string is left in
// s.bulk and s.end, an aggregate on the stack.
func (s *respScanner) element(line []byte) error {
	body, ok := chop(line)
	if s.what == requests && s.req.kind == respInline {
		s.stack[len(s.stack)-1]--
		return nil
	}
	if !ok || len(body) == 0 || bytes.IndexByte(body, '\r') >= 0 {
		return malformed("the line %s does not end with CR LF", shown(body))
	}
	typ, value := body[0], body[1:]
	if s.what == requests {
		if want := "*$"[min(len(s.stack), 2)-1]; typ != want {
			return malformed("expected '%c', got %s", want, shown(body[:1]))
		}
	}
	top := len(s.stack) - 1
	if typ != '|' { // attributes stand before an element and are none
		s.stack[top]--
	}
	switch typ {
	case '+', '-', ',', '_':
		return nil
	case ':', '(':
		if !isInteger(value) {
			return malformed("%s is not an integer", shown(body))
		}
		return nil
	case '#':
		if len(value) != 1 || value[0] != 't' && value[0] != 'f' {
			return malformed("%s is neither true nor false", shown(body))
		}
		return nil
	case '$', '!', '=':
		return s.beginBulk(typ, value)
	case '*', '~', '>', '%', '|':
		return s.beginAggregate(typ, value)
	}
	return malformed("%s is no type of RESP", shown(body[:1]))
}

func (s *respScanner) beginBulk(typ byte, value []byte) error {
	if string(value) == "-1" && typ == '$' && s.what == responses {
		return nil // null
	}
	n, ok := decimal(value)
	if !ok || n > respMaxBulk {
		return malformed("invalid bulk length %s", shown(value))
	}
	s.bulk, s.end.left = n, 2
	return nil
}

func (s *respScanner) beginAggregate(typ byte, value []byte) error {
	if typ == '>' && (!s.push || len(s.stack) > 1 || s.begun) {
		return malformed("a push within a reply")
	}
	if string(value) == "-1" && typ == '*' {
		return nil // null
	}
	n, ok := decimal(value)
	if !ok || n > respMaxElements || s.what == requests && n > respMaxCount {
		return malformed("invalid multibulk length %s", shown(value))
	}
	if typ == '%' || typ == '|' {
		n *= 2
	}
	if len(s.stack) > s.f.depth {
		return malformed("aggregates are nested deeper than %d", s.f.depth)
	}
	s.stack = append(s.stack, n)
	return nil
}

// isInteger reports whether b is an integer with or without a sign.
func isInteger(b []byte) bool {
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		b = b[1:]
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}
