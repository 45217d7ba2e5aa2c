package framing

import "bytes"

// delimited is the framing of messages that end with fixed bytes.
type delimited struct {
	end      []byte
	strip    bool
	pipeline bool
	max      int64
}

func newDelimiter(c Config) *delimited {
	return &delimited{end: bytes.Clone(c.Delimiter), strip: c.Strip, pipeline: c.Pipeline, max: c.Max}
}

// Traits implements Framing.
func (f *delimited) Traits() Traits {
	return Traits{Window: len(f.end), Max: f.max, Pipelined: f.pipeline}
}

func (f *delimited) Requests() Scanner         { return &delimiterScanner{f: f, what: requests} }
func (f *delimited) Responses() Scanner        { return &delimiterScanner{f: f, what: responses} }
func (f *delimited) RequestEncoder() *Encoder  { return f.encoder(requests) }
func (f *delimited) ResponseEncoder() *Encoder { return f.encoder(responses) }

func (f *delimited) encoder(what side) *Encoder {
	if f.strip {
		return &Encoder{framing: f, scanner: &undelimited{f: f, opaque: opaque{what: what}}, max: f.max}
	}
	return &Encoder{framing: f, scanner: &delimiterScanner{f: f, what: what}, max: f.max}
}

// Answer implements Framing. There is no answer that every such protocol knows.
func (f *delimited) Answer(dst []byte, _ *Error, _ *Request) ([]byte, bool) { return dst, false }

// Failure implements Framing: there are no words for it.
func (f *delimited) Failure(*Error, *Request) []byte { return nil }

func (f *delimited) prefix(dst []byte, _ int64) ([]byte, error) { return dst, nil }

func (f *delimited) suffix(dst []byte, _ *Request) []byte {
	if f.strip {
		dst = append(dst, f.end...)
	}
	return dst
}

// delimiterScanner scans one direction of a connection.
type delimiterScanner struct {
	f      *delimited
	what   side
	inside bool
	total  int64 // bytes of the message so far
	err    error
	req    Request
}

// Scan implements Scanner.
func (s *delimiterScanner) Scan(buf []byte, eof bool, req *Request) (Result, error) {
	if s.err != nil {
		return Result{}, s.err
	}
	r, err := s.scan(buf, eof, req)
	s.err = err
	return r, err
}

func (s *delimiterScanner) scan(buf []byte, eof bool, req *Request) (Result, error) {
	r := Result{Length: unknown}
	if len(buf) == 0 && !s.inside {
		return r, nil
	}
	if s.what == responses && req == nil {
		return r, malformed("a response without a request")
	}
	// A message may be no longer than max, so that bytes behind that are no
	// reason to search.
	k := len(s.f.end)
	room := s.f.max - s.total + int64(k)
	window := buf[:min(int64(len(buf)), room)]
	data := 0 // bytes of the message in buf
	if i := bytes.Index(window, s.f.end); i >= 0 {
		r.End, r.Advance, data = true, i+k, i
		if !s.f.strip {
			data += k
		}
	} else {
		// The last bytes may be the beginning of the delimiter.
		data = max(len(window)-(k-1), 0)
		r.Advance = data
	}
	if s.total+int64(data) > s.f.max {
		return Result{}, tooLarge(s.f.max)
	}
	if r.Advance == 0 {
		if eof {
			return Result{}, truncated("a message")
		}
		return Result{}, nil
	}
	r.Data = buf[:data]
	s.total += int64(data)
	r.Begin, s.inside = !s.inside, true
	if s.what == requests {
		r.Request = &s.req
	}
	if r.End {
		if s.total == 0 {
			return Result{}, malformed("an empty message cannot be carried without its delimiter")
		}
		r.Length = s.total
		s.inside, s.total = false, 0
	}
	return r, nil
}

// undelimited scans stripped messages, which must not hold the delimiter.
type undelimited struct {
	f *delimited
	opaque
}

// Scan implements Scanner.
func (u *undelimited) Scan(buf []byte, eof bool, req *Request) (Result, error) {
	k := len(u.f.end)
	bad := bytes.Contains(buf, u.f.end)
	held := buf[max(len(buf)-(k-1), 0):]
	if eof {
		// With the delimiter behind it, the end of the message must not make an
		// earlier one.
		tail := append(bytes.Clone(held), u.f.end...)
		bad = bad || bytes.Index(tail, u.f.end) != len(held)
	} else {
		buf = buf[:len(buf)-len(held)]
	}
	if bad {
		return Result{}, malformed("a %s holds the delimiter", u.what)
	}
	return u.opaque.Scan(buf, eof, req)
}
