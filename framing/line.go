package framing

import "bytes"

// liner finds lines in a buffer that grows between calls, and looks at no byte
// twice.
type liner struct {
	seen int // bytes at the front of the buffer that hold no line feed
}

// find returns the length of the first line of buf with its line feed, or 0 when
// it is not complete. With false it is longer than most bytes.
func (l *liner) find(buf []byte, most int) (n int, ok bool) {
	if l.seen > len(buf) {
		l.seen = 0
	}
	i := bytes.IndexByte(buf[l.seen:], '\n')
	if i < 0 {
		l.seen = len(buf)
		return 0, len(buf) < most
	}
	n = l.seen + i + 1
	l.seen = 0
	return n, n <= most
}

// chop returns a line without its line end, and whether that was CR LF.
func chop(line []byte) ([]byte, bool) {
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1], true
	}
	return line, false
}

// decimal reads a number of at most 18 digits and nothing else.
func decimal(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// lineEnd checks the CR LF behind a block of data, over any number of calls.
type lineEnd struct {
	left int // bytes of CR LF that are still to come
}

// take consumes what buf has of the line end.
func (e *lineEnd) take(buf []byte) (n int, ok bool) {
	for n < len(buf) && e.left > 0 {
		if buf[n] != "\n\r"[e.left-1] {
			return n, false
		}
		n++
		e.left--
	}
	return n, true
}
