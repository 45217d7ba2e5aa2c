package framing

import (
	"bytes"
)

// linter finds the end of a header block and refuses, before net/http parses it,
// what parsers are known to read differently: line ends that are not CR LF,
// control characters, folded lines, spaces around names, more than one length,
// and lengths that are not plain numbers. It decides nothing else.
type linter struct {
	seen  int // bytes of the buffer in complete lines
	line  liner
	lines int

	old              bool // HTTP/1.0
	lengths, codings int  // Content-Length and Transfer-Encoding fields
	hosts            int
	zero             bool // the length is 0
	upgrade          bool
}

func (l *linter) reset() { *l = linter{} }

// head returns the size of the header block at the front of buf, or 0 when it is
// not complete.
func (l *linter) head(buf []byte, most int, what side) (size int, err error) {
	if l.seen > len(buf) {
		l.reset()
	}
	for {
		n, ok := l.line.find(buf[l.seen:], most-l.seen)
		if !ok {
			return 0, headTooLarge("the header of a "+what.String(), most)
		}
		if n == 0 {
			return 0, nil
		}
		line, crlf := chop(buf[l.seen : l.seen+n])
		if !crlf {
			return 0, malformed("the line %s does not end with CR LF", shown(line))
		}
		l.seen += n
		l.lines++
		switch {
		case l.lines == 1:
			err = l.first(line, what)
		case len(line) == 0:
			return l.seen, l.verdict(what)
		default:
			err = l.field(line)
		}
		if err != nil {
			return 0, err
		}
	}
}

// first checks a request line or status line.
func (l *linter) first(line []byte, what side) error {
	if i := control(line, false); i >= 0 {
		return malformed("the first line %s holds a control character", shown(line))
	}
	version := line[max(len(line)-len("HTTP/1.1"), 0):]
	if what == responses {
		version = line[:min(len("HTTP/1.1"), len(line))]
	}
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		l.old = true
	default:
		e := malformed("%s is not of HTTP/1.1", shown(line))
		if bytes.HasPrefix(version, []byte("HTTP/")) {
			e.status = 505 // HTTP Version Not Supported
		}
		return e
	}
	return nil
}

// field checks a field line, or a line of a trailer section.
func (l *linter) field(line []byte) error {
	name, value, found := bytes.Cut(line, []byte{':'})
	if !found || len(name) == 0 {
		return malformed("the field %s has no name", shown(line))
	}
	for _, c := range name {
		if !isToken[c] {
			return malformed("the name of the field %s is not a token", shown(line))
		}
	}
	if control(value, true) >= 0 {
		return malformed("the field %s holds a control character", shown(line))
	}
	value = bytes.Trim(value, " \t")
	switch {
	case is(name, "content-length"):
		n, ok := decimal(value)
		if !ok {
			return malformed("the content length %s is not a number", shown(value))
		}
		l.lengths++
		l.zero = n == 0
	case is(name, "transfer-encoding"):
		if !is(value, "chunked") {
			return &Error{Fault: Unsupported, Reason: "the transfer coding " + shown(value) + " is not chunked"}
		}
		l.codings++
	case is(name, "host"):
		l.hosts++
	case is(name, "upgrade"):
		l.upgrade = true
	case is(name, "connection"):
		// A hop that obeyed would take away what the next one needs to find the
		// end of the message.
		for rest, more := value, true; more; {
			var token []byte
			token, rest, more = bytes.Cut(rest, []byte{','})
			token = bytes.Trim(token, " \t")
			if is(token, "content-length") || is(token, "transfer-encoding") || is(token, "host") {
				return malformed("the connection option %s is a field of the message", shown(token))
			}
		}
	}
	return nil
}

// verdict checks the fields together.
func (l *linter) verdict(what side) error {
	switch {
	case l.lengths > 1:
		return malformed("there is more than one content length")
	case l.codings > 1:
		return malformed("there is more than one transfer coding")
	case l.lengths > 0 && l.codings > 0:
		return malformed("there is a content length and a transfer coding")
	case l.old && l.codings > 0:
		return malformed("there is a transfer coding in HTTP/1.0")
	case what == requests && (l.hosts > 1 || l.hosts == 0 && !l.old):
		return malformed("there are %d host fields", l.hosts)
	}
	return nil
}

// is compares b with a word in lower case, ignoring the case of b.
func is(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

// control returns the place of a control character in b, or -1. A horizontal tab
// may be allowed.
func control(b []byte, tab bool) int {
	for i, c := range b {
		if (c < ' ' || c == 0x7f) && !(tab && c == '\t') {
			return i
		}
	}
	return -1
}

// isToken says which characters may be part of a token, RFC 9110 section 5.6.2.
var isToken = func() (is [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		is[c] = true
	}
	return is
}()
