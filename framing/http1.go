package framing

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
)

// http1 is the framing of HTTP/1.0 and HTTP/1.1, RFC 9112. A message is the bytes
// of a request, or of a final response with the interim ones before it.
type http1 struct {
	bare
	max  int64
	head int
}

func newHTTP1(c Config) *http1 { return &http1{max: c.Max, head: c.Head} }

// Traits implements Framing. Servers may be sent one request after the other;
// many answer a request by closing, so that those behind it would be lost.
func (f *http1) Traits() Traits { return Traits{Window: f.head, Max: f.max} }

func (f *http1) Requests() Scanner  { return &httpScanner{f: f, what: requests} }
func (f *http1) Responses() Scanner { return &httpScanner{f: f, what: responses} }
func (f *http1) RequestEncoder() *Encoder {
	return &Encoder{framing: f, scanner: &httpScanner{f: f, what: requests}, max: f.max}
}
func (f *http1) ResponseEncoder() *Encoder {
	return &Encoder{framing: f, scanner: &httpScanner{f: f, what: responses}, max: f.max}
}

// httpStatus is the usual status of each fault.
var httpStatus = [...]int{
	Malformed:    http.StatusBadRequest,
	HeadTooLarge: http.StatusRequestHeaderFieldsTooLarge,
	TooLarge:     http.StatusRequestEntityTooLarge,
	Truncated:    http.StatusBadRequest,
	Unsupported:  http.StatusNotImplemented,
	BadResponse:  http.StatusBadGateway,
	Unreachable:  http.StatusBadGateway,
	Timeout:      http.StatusGatewayTimeout,
	Overloaded:   http.StatusServiceUnavailable,
}

// Answer implements Framing: a response with the reason as its body. The
// connection is always closed behind it, because the rest of a request that
// failed may still be on its way.
func (f *http1) Answer(dst []byte, e *Error, req *Request) ([]byte, bool) {
	return f.failure(dst, e, req, "Connection: close\r\n"), false
}

// Failure implements Framing: the same, but the whole request of an RPC is here, and
// the connection of the client may go on.
func (f *http1) Failure(e *Error, req *Request) []byte { return f.failure(nil, e, req, "") }

// failure appends a response with the reason as its body and more fields.
func (f *http1) failure(dst []byte, e *Error, req *Request, fields string) []byte {
	status := e.status
	if status == 0 {
		status = httpStatus[e.Fault]
	}
	reason := printable(e.Reason) + "\n"
	dst = fmt.Appendf(dst, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	dst = append(dst, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(reason)), 10)
	dst = append(append(append(dst, "\r\n"...), fields...), "\r\n"...)
	if req == nil || !req.head {
		dst = append(dst, reason...)
	}
	return dst
}

// httpScanner scans one direction of a connection.
type httpScanner struct {
	f    *http1
	what side
	lint linter

	inside bool
	total  int64 // bytes of the message that were advanced over
	head   httpHead
	body   httpBody
	err    error
	req    Request

	repeat []byte  // the header block that req and head are of
	of     Request // what the response with it answered
}

// Scan implements Scanner.
func (s *httpScanner) Scan(buf []byte, eof bool, req *Request) (Result, error) {
	if s.err != nil {
		return Result{}, s.err
	}
	r, err := s.scan(buf, eof, req)
	s.err = err
	return r, err
}

func (s *httpScanner) scan(buf []byte, eof bool, req *Request) (Result, error) {
	r := Result{Length: unknown}
	n := 0
	if !s.body.open {
		if len(buf) == 0 && !s.inside {
			return r, nil
		}
		if s.what == responses && req == nil {
			return r, malformed("a response without a request")
		}
		if s.what == requests && !s.inside && s.lint.lines == 0 {
			// RFC 9112 section 2.2: empty lines before a request are ignored.
			if n := emptyLines(buf); n > 0 {
				s.lint.reset()
				return Result{Advance: n}, nil
			}
		}
		size, err := s.parse(buf, req)
		if err != nil {
			if s.what == requests && size > 0 {
				r.Request = &s.req
			}
			return Result{Request: r.Request}, err
		}
		if size == 0 {
			if eof {
				return r, truncated("the header of a " + s.what.String())
			}
			return r, nil
		}
		if s.head.skip {
			return Result{Advance: size}, nil
		}
		r.Interim = s.head.interim
		n, r.Begin, s.inside = size, !s.inside, true
		if s.head.body != bodyNext {
			s.body.begin(s.head.body, s.head.length)
		}
	}
	if s.body.open {
		part, err := s.body.take(buf[n:], eof, s.f.head)
		if err != nil {
			return Result{}, err
		}
		n += part
		// The end may come without a byte.
		if r.End = !s.body.open; n == 0 && !r.End {
			if eof {
				return Result{}, truncated("the body of a " + s.what.String())
			}
			return Result{}, nil
		}
	}
	s.total += int64(n)
	r.Advance, r.Data = n, buf[:n]
	if s.what == requests {
		r.Request = &s.req
	} else {
		r.Close = s.head.close
	}
	if r.End {
		r.Length = s.total
	} else if s.body.open && s.body.kind == bodyLength {
		r.Length = s.total + s.body.left
	}
	if s.total+s.body.left > s.f.max {
		return Result{Request: r.Request}, tooLarge(s.f.max)
	}
	if r.End {
		s.inside, s.total = false, 0
	}
	return r, nil
}

// maxRepeat is the longest header block that a scanner keeps.
const maxRepeat = 1024

// parse looks at the header block at the front of buf and returns its size, or 0
// when it is not complete. A connection often carries the same block again and
// again, which means the same each time: net/http is not asked twice.
func (s *httpScanner) parse(buf []byte, req *Request) (size int, err error) {
	var of Request
	if s.what == responses {
		of.head, of.old = req.head, req.old
	}
	if s.lint.lines == 0 && len(s.repeat) > 0 && bytes.HasPrefix(buf, s.repeat) && of.head == s.of.head && of.old == s.of.old {
		s.lint.reset()
		return len(s.repeat), nil
	}
	size, err = s.lint.head(buf, s.f.head, s.what)
	if size == 0 || err != nil {
		return 0, err
	}
	if s.what == requests {
		s.req, err = s.head.request(buf[:size], &s.lint)
	} else {
		err = s.head.response(buf[:size], &s.lint, req)
	}
	s.lint.reset()
	if s.repeat, s.of = s.repeat[:0], of; size <= maxRepeat {
		s.repeat = append(s.repeat, buf[:size]...)
	}
	return size, err
}

// emptyLines returns the size of the empty lines at the front of buf.
func emptyLines(buf []byte) (n int) {
	for n+1 < len(buf) && buf[n] == '\r' && buf[n+1] == '\n' {
		n += 2
	}
	return n
}
