package framing

import "bytes"

// mcResponses scans what memcached sends.
type mcResponses struct {
	f    *memcached
	line liner
	// stripFence leaves the answer of the fence out of the data.
	stripFence bool

	inside bool
	total  int64 // bytes of the message that were advanced over
	kept   int64 // of them, those that were data
	length int64 // or unknown
	data   block
	refuse *Error
	err    error
}

// Scan implements Scanner.
func (s *mcResponses) Scan(buf []byte, eof bool, req *Request) (Result, error) {
	if s.err != nil {
		return Result{}, s.err
	}
	r, err := s.scan(buf, eof, req)
	s.err = err
	return r, err
}

func (s *mcResponses) scan(buf []byte, eof bool, req *Request) (Result, error) {
	r := Result{Length: unknown}
	if len(buf) == 0 && !s.inside {
		return r, nil
	}
	if req == nil {
		return r, malformed("an answer without a command")
	}
	n, kept := 0, 0
	for n < len(buf) && !r.End {
		if s.data.open() {
			part, err := s.data.take(buf[n:])
			if err != nil {
				return Result{}, err
			}
			n += part
			kept = n
			r.End = !s.data.open() && req.kind == mcMeta
			continue
		}
		part, ok := s.line.find(buf[n:], s.f.line)
		if !ok {
			return Result{}, headTooLarge("a line", s.f.line)
		}
		if part == 0 {
			break
		}
		end, fence, err := s.answer(buf[n:n+part], req, s.total+int64(n) == 0)
		if err != nil {
			return Result{}, err
		}
		n += part
		if r.End = end; !fence || !s.stripFence {
			kept = n
		}
		s.predict(req, s.total+int64(n))
	}
	if n == 0 {
		if eof {
			return Result{}, truncated("an answer")
		}
		return Result{}, nil
	}
	if !s.inside {
		r.Begin, s.inside = true, true
	}
	s.total, s.kept = s.total+int64(n), s.kept+int64(kept)
	r.Advance, r.Data = n, buf[:kept]
	if r.End {
		if s.length > 0 && s.length != s.total {
			return Result{}, malformed("an answer ends before its length")
		}
		s.length = s.kept
	}
	if s.total+s.data.size() > s.f.max && s.refuse == nil {
		s.refuse = tooLarge(s.f.max)
	}
	if s.length > 0 || r.End {
		r.Length = s.length
	}
	if r.Refused = s.refuse; s.refuse != nil {
		r.Data, r.Length = nil, unknown
	}
	if r.End {
		s.inside, s.total, s.kept, s.length, s.refuse = false, 0, 0, 0, nil
	}
	return r, nil
}

// predict sets the length of an answer that has come to the only data block that
// it can have, total bytes after its beginning.
func (s *mcResponses) predict(req *Request, total int64) {
	if !s.data.open() || s.length > 0 {
		return
	}
	switch {
	case req.kind == mcMeta:
		s.length = total + s.data.size()
	case req.kind == mcValues && req.keys == 1:
		s.length = total + s.data.size() + int64(len("END\r\n"))
	}
}

// answer takes one line, and says whether it ends the message, and whether that
// is because it answers the fence. First says that it is the first of its
// message.
func (s *mcResponses) answer(line []byte, req *Request, first bool) (end, fence bool, err error) {
	body, ok := chop(line)
	// The lines of a dump end with LF alone, but for the last.
	if !ok && req.kind != mcLists && req.kind != mcDump {
		return false, false, malformed("the line %s does not end with CR LF", shown(body))
	}
	w := words{rest: body}
	word := string(w.next())
	if len(word) == 0 {
		return false, false, malformed("an answer is empty")
	}
	failed := word == "ERROR" || word == "CLIENT_ERROR" || word == "SERVER_ERROR"
	switch req.kind {
	case mcLine:
		return true, false, nil
	case mcMeta:
		if word == "VA" {
			return false, false, s.block(&w, 1)
		}
		return true, false, nil
	case mcValues:
		if word == "VALUE" {
			return false, false, s.block(&w, 3)
		}
		if word == "END" || failed {
			return true, false, nil
		}
	case mcLists:
		// What does not list anything is a single line, such as RESET or BUSY.
		if string(body) == "END" || first && !mcListed(word) {
			return true, false, nil
		}
		return false, false, nil
	case mcDump:
		if string(body) == "EN" || first && word != "mg" {
			return true, false, nil
		}
		return false, false, nil
	case mcFenced:
		if word == "VA" {
			return false, false, s.block(&w, 1)
		}
		fence = string(body) == "MN" || word == "VERSION"
		return fence, fence, nil
	}
	return false, false, malformed("%s is no answer to %s", shown(body), req.Name)
}

// mcListed reports whether a line that begins with word is one of a list.
func mcListed(word string) bool {
	switch word {
	case "STAT", "ITEM", "PREFIX":
		return true
	}
	return len(word) > 4 && word[:4] == "key="
}

// block begins the data block whose length is the word at place i.
func (s *mcResponses) block(w *words, i int) error {
	for w.count < i {
		w.next()
	}
	word := w.next()
	n, ok := decimal(word)
	if !ok || n > mcMaxItem {
		return malformed("%s is no length of a value", shown(bytes.Clone(word)))
	}
	s.data.begin(n)
	return nil
}
