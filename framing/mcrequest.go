package framing

import "bytes"

// mcShape is the form of a command of memcached.
type mcShape struct {
	name string
	kind kind
	safe bool
	// bytes is the place of the length of a data block among the words, from 0 for
	// the command; 0 when there is none.
	bytes int
	// most is how many words there may be at most, noreply included; 0 for any
	// number.
	least, most int
	// first is the place of the first key of a retrieval.
	first   int
	noreply bool // may end with noreply
	meta    bool // may have the flag q
	endless bool
	quit    bool
}

// mcShapes are the commands of protocol.txt of memcached 1.6, by name.
var mcShapes = func() map[string]*mcShape {
	all := make(map[string]*mcShape)
	for _, s := range []mcShape{
		{name: "get", kind: mcValues, safe: true, first: 1, least: 2},
		{name: "gets", kind: mcValues, safe: true, first: 1, least: 2},
		{name: "gat", kind: mcValues, first: 2, least: 3},
		{name: "gats", kind: mcValues, first: 2, least: 3},
		{name: "set", kind: mcLine, bytes: 4, least: 5, most: 6, noreply: true},
		{name: "add", kind: mcLine, bytes: 4, least: 5, most: 6, noreply: true},
		{name: "replace", kind: mcLine, bytes: 4, least: 5, most: 6, noreply: true},
		{name: "append", kind: mcLine, bytes: 4, least: 5, most: 6, noreply: true},
		{name: "prepend", kind: mcLine, bytes: 4, least: 5, most: 6, noreply: true},
		{name: "cas", kind: mcLine, bytes: 4, least: 6, most: 7, noreply: true},
		{name: "delete", kind: mcLine, least: 2, most: 4, noreply: true},
		{name: "incr", kind: mcLine, least: 3, most: 4, noreply: true},
		{name: "decr", kind: mcLine, least: 3, most: 4, noreply: true},
		{name: "touch", kind: mcLine, least: 3, most: 4, noreply: true},
		{name: "mg", kind: mcMeta, least: 2, meta: true},
		{name: "ms", kind: mcMeta, bytes: 2, least: 3, meta: true},
		{name: "md", kind: mcMeta, least: 2, meta: true},
		{name: "ma", kind: mcMeta, least: 2, meta: true},
		{name: "mn", kind: mcLine, safe: true, least: 1},
		{name: "me", kind: mcLine, safe: true, least: 2},
		{name: "stats", kind: mcLists, least: 1},
		{name: "version", kind: mcLine, safe: true, least: 1},
		{name: "verbosity", kind: mcLine, least: 1, noreply: true},
		{name: "flush_all", kind: mcLine, least: 1, most: 3, noreply: true},
		{name: "cache_memlimit", kind: mcLine, least: 2, noreply: true},
		{name: "slabs", kind: mcLine, least: 2, noreply: true},
		{name: "lru", kind: mcLine, least: 2, noreply: true},
		{name: "lru_crawler", kind: mcLine, least: 2, noreply: true},
		{name: "extstore", kind: mcLine, least: 2, noreply: true},
		{name: "refresh_certs", kind: mcLine, least: 1},
		{name: "shutdown", kind: mcLine, least: 1},
		{name: "watch", least: 1, endless: true},
		{name: "quit", kind: mcNoAnswer, least: 1, quit: true},
	} {
		all[s.name] = &s
	}
	return all
}()

// mcRequests scans what a client of memcached sends.
type mcRequests struct {
	f    *memcached
	line liner

	inside bool
	length int64 // of the command with its data
	total  int64 // bytes of it that were advanced over
	data   block
	refuse *Error
	err    error
	req    Request
}

// Scan implements Scanner.
func (s *mcRequests) Scan(buf []byte, eof bool, _ *Request) (Result, error) {
	if s.err != nil {
		return Result{}, s.err
	}
	r, err := s.scan(buf, eof)
	s.err = err
	return r, err
}

func (s *mcRequests) scan(buf []byte, eof bool) (Result, error) {
	var r Result
	n := 0
	if !s.inside {
		var ok bool
		if n, ok = s.line.find(buf, s.f.line); !ok {
			return r, headTooLarge("a command", s.f.line)
		}
		if n == 0 {
			if len(buf) > 0 && buf[0] == 0x80 {
				return r, malformed("the binary protocol of memcached is not supported")
			}
			if eof && len(buf) > 0 {
				return r, truncated("a command")
			}
			return r, nil
		}
		if err := s.command(buf[:n]); err != nil {
			return r, err
		}
		r.Begin, s.inside, s.total = true, true, 0
		s.length = int64(n) + s.data.size()
		if s.length > s.f.max && s.refuse == nil {
			s.refuse = tooLarge(s.f.max)
		}
	}
	if s.data.open() {
		part, err := s.data.take(buf[n:])
		if err != nil {
			return Result{}, err
		}
		n += part
	}
	if n == 0 {
		if eof {
			return r, truncated("a data block")
		}
		return r, nil
	}
	s.total += int64(n)
	r.Advance, r.Data, r.Length, r.Request = n, buf[:n], s.length, &s.req
	if r.Refused = s.refuse; s.refuse != nil {
		r.Data, r.Length = nil, unknown
	}
	if r.End = !s.data.open(); r.End {
		s.inside = false
	}
	return r, nil
}

// command takes the line of a command.
func (s *mcRequests) command(line []byte) error {
	s.req, s.refuse = Request{}, nil
	body, _ := chop(line)
	if len(body) > 0 && body[0] == 0x80 {
		return malformed("the binary protocol of memcached is not supported")
	}
	if bytes.IndexByte(body, 0) >= 0 || bytes.IndexByte(body, '\r') >= 0 {
		return malformed("bad command line format")
	}
	w := words{rest: body}
	shape := mcShapes[string(w.next())]
	if shape == nil {
		s.refuse = &Error{Fault: Unsupported, Reason: "unknown command", answer: "ERROR\r\n"}
		return nil
	}
	s.req = Request{Name: shape.name, Safe: shape.safe, kind: shape.kind}
	if shape.endless {
		s.refuse = &Error{Fault: Unsupported, Reason: shape.name + " has no end and cannot pass this gateway"}
		return nil
	}
	var last []byte
	quiet := false
	for word := w.next(); len(word) > 0; word = w.next() {
		last = word
		i := w.count - 1
		switch {
		case shape.bytes > 0 && i == shape.bytes:
			n, ok := decimal(word)
			if !ok || n > mcMaxItem {
				return &Error{Fault: Malformed, Reason: "bad data chunk"}
			}
			s.data.begin(n)
		case shape.first > 0 && i >= shape.first || i == 1 && (shape.meta || shape.bytes > 0):
			if len(word) > mcMaxKey {
				return s.wrong(shape)
			}
		case shape.meta && word[0] == 'q':
			quiet = true
		}
	}
	if w.count < shape.least || shape.most > 0 && w.count > shape.most {
		return s.wrong(shape)
	}
	if shape.first > 0 {
		s.req.keys = w.count - shape.first
	}
	switch {
	case quiet:
		s.req.Quiet, s.req.kind, s.req.fence = true, mcFenced, mcFenceMeta
	case shape.noreply && string(last) == "noreply":
		s.req.Quiet, s.req.kind, s.req.fence = true, mcFenced, mcFenceClassic
	case shape.name == "lru_crawler":
		s.crawler(body)
	case shape.quit:
		s.req.Local, s.req.Last = true, true
	}
	return nil
}

// wrong handles a line that does not have the form of its command, as memcached
// does. But where data may follow nobody knows how much, and the connection ends.
func (s *mcRequests) wrong(shape *mcShape) error {
	if shape.bytes > 0 {
		return &Error{Fault: Malformed, Reason: "bad command line format"}
	}
	s.refuse = &Error{Fault: Unsupported, Reason: "bad command line format", answer: "ERROR\r\n"}
	return nil
}

// crawler sets the grammar of the answers of lru_crawler.
func (s *mcRequests) crawler(body []byte) {
	w := words{rest: body}
	w.next()
	switch string(w.next()) {
	case "metadump":
		s.req.kind = mcLists
	case "mgdump":
		s.req.kind = mcDump
	}
}
