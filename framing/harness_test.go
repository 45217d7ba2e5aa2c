package framing

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// message is what a scanner said of one message, all of its results together.
type message struct {
	data        []byte
	req         Request
	refused     *Error
	key         uint64
	unsolicited bool
	close       bool
	interim     string
	ended       bool
	known       int // bytes of data that had come when the length was first known
}

// pieces of input: how many bytes arrive at a time.
type split func(left int) int

func whole(left int) int { return left }
func bytewise(int) int   { return 1 }
func random(seed uint64) split {
	r := rand.New(rand.NewPCG(seed, 0))
	return func(left int) int {
		if r.IntN(4) == 0 {
			return 1
		}
		return 1 + r.IntN(min(left, 1+r.IntN(200)))
	}
}

// fail is panicked with by scan where a scanner breaks its contract, so that it
// serves tests, fuzzing and properties alike.
type fail string

// scan feeds input to s in pieces, as its caller would, and returns its messages
// and its error. Each message takes the next of reqs, unless it is unsolicited.
// The buffer is cut to window bytes; 0 for no bound.
func scan(s Scanner, traits Traits, input []byte, by split, reqs []Request, window int) (messages []message, skipped int, err error) {
	fails := func(format string, args ...any) { panic(fail(fmt.Sprintf(format, args...))) }
	var cur *message
	length := int64(unknown)
	var buf []byte
	for {
		eof := len(input) == 0
		for {
			var req *Request
			if len(reqs) > 0 {
				req = &reqs[0]
			}
			// A copy finds writes to the buffer, and reads behind its end.
			view := append(make([]byte, 0, len(buf)), buf...)
			r, e := s.Scan(view, eof, req)
			if !bytes.Equal(view, buf) {
				fails("the buffer was written to")
			}
			if e != nil {
				if _, ok := e.(*Error); !ok || r.Advance != 0 || r.Data != nil || r.Begin || r.End {
					fails("error %T %v with result %+v", e, e, r)
				}
				if _, again := s.Scan(nil, true, req); again != e {
					fails("after the error %v comes %v", e, again)
				}
				return messages, skipped, e
			}
			if !r.Progress() {
				if !reflect.DeepEqual(r, Result{Length: r.Length}) {
					fails("no progress, but %+v", r)
				}
				break
			}
			if r.Advance < len(r.Data) || r.Advance > len(buf) {
				fails("advance %d and %d bytes of data of %d", r.Advance, len(r.Data), len(buf))
			}
			if r.Begin != (cur == nil) && (r.Begin || r.End || len(r.Data) > 0) {
				fails("begin %v within %+v", r.Begin, cur)
			}
			buf = buf[r.Advance:]
			skipped += r.Advance - len(r.Data)
			if r.Begin {
				messages = append(messages, message{known: -1})
				cur, length = &messages[len(messages)-1], unknown
			}
			if cur == nil {
				continue
			}
			cur.data = append(cur.data, r.Data...)
			cur.close = cur.close || r.Close
			if r.Interim != "" && !r.Begin {
				fails("interim response in the middle")
			}
			cur.interim += r.Interim
			cur.key, cur.unsolicited = r.Key, r.Unsolicited
			if r.Request != nil {
				cur.req = *r.Request
			}
			if cur.refused != nil && r.Refused != cur.refused && r.Advance > len(r.Data) {
				fails("a refused message is accepted again")
			}
			if r.Refused != nil {
				if len(r.Data) > 0 || length >= 0 || r.Length >= 0 {
					fails("a refused message has data or length %d", length)
				}
				cur.refused, cur.data = r.Refused, nil
			} else {
				if length >= 0 && r.Length != length && len(r.Data) > 0 || r.Length > traits.Max {
					fails("length %d, then %d, with maximum %d", length, r.Length, traits.Max)
				}
				if r.Length >= 0 && length < 0 {
					length, cur.known = r.Length, len(cur.data)
				}
				if int64(len(cur.data)) > traits.Max {
					fails("%d bytes of data with maximum %d", len(cur.data), traits.Max)
				}
				if r.End && (r.Length != int64(len(cur.data)) || r.Length != length) {
					fails("%d bytes of length %d, before %d", len(cur.data), r.Length, length)
				}
			}
			if r.End {
				cur.ended = true
				if !cur.unsolicited && len(reqs) > 0 {
					reqs = reqs[1:]
				}
				cur = nil
			}
		}
		if len(buf) >= traits.Window {
			fails("%d bytes are held with window %d", len(buf), traits.Window)
		}
		if eof {
			if cur != nil {
				fails("an unfinished message without an error at the end")
			}
			return messages, skipped, nil
		}
		n := min(by(len(input)), len(input))
		if window > 0 {
			n = min(n, window-len(buf))
		}
		buf = append(buf, input[:n]...)
		input = input[n:]
	}
}

// stable scans input in several ways and compares. An unfinished message may
// differ: how much of it was seen before the error depends on the pieces.
func stable(fresh func() Scanner, traits Traits, input []byte, reqs []Request, seeds ...uint64) (messages []message, skipped int, err error) {
	messages, skipped, err = scan(fresh(), traits, input, whole, reqs, 0)
	compare := func(how string, got []message, gotErr error) {
		a, b := finished(messages), finished(got)
		if len(a) != len(b) {
			panic(fail(fmt.Sprintf("%s: %d messages, at once %d", how, len(b), len(a))))
		}
		for i := range a {
			a[i].known, b[i].known = 0, 0
			if !reflect.DeepEqual(a[i], b[i]) {
				panic(fail(fmt.Sprintf("%s: message %d is %+v, at once %+v", how, i, b[i], a[i])))
			}
		}
		if !reflect.DeepEqual(gotErr, err) {
			panic(fail(fmt.Sprintf("%s: error %v, at once %v", how, gotErr, err)))
		}
	}
	if len(input) <= 20000 {
		got, _, e := scan(fresh(), traits, input, bytewise, reqs, 0)
		compare("byte by byte", got, e)
	}
	got, _, e := scan(fresh(), traits, input, whole, reqs, traits.Window)
	compare("in the smallest window", got, e)
	for _, seed := range seeds {
		got, _, e := scan(fresh(), traits, input, random(seed), reqs, 0)
		compare(fmt.Sprintf("split %d", seed), got, e)
	}
	return messages, skipped, err
}

func finished(all []message) (done []message) {
	for _, m := range all {
		if m.ended {
			done = append(done, m)
		}
	}
	return done
}

// guard turns broken contracts into failures of t.
func guard(t interface {
	Helper()
	Fatalf(string, ...any)
}) {
	t.Helper()
	if p := recover(); p != nil {
		if f, ok := p.(fail); ok {
			t.Fatalf("%s", string(f))
		}
		panic(p)
	}
}

// encode sends messages through an encoder, in pieces, and returns the wire.
func encode(e *Encoder, data []byte, req *Request, by split) (wire []byte, r Result, err error) {
	wire, err = e.Begin(nil, int64(len(data)), req)
	if err != nil {
		return nil, r, err
	}
	var buf []byte
	for {
		for {
			if r, err = e.Scan(buf); err != nil {
				return wire, r, err
			}
			buf = buf[r.Advance:]
			wire = append(wire, r.Data...)
			if r.End {
				if r.Refused == nil {
					wire = e.End(wire)
				}
				return wire, r, nil
			}
			if !r.Progress() {
				break
			}
		}
		if len(data) == 0 {
			panic(fail("a message has ended and no result says so"))
		}
		n := min(by(len(data)), len(data))
		buf, data = append(buf, data[:n]...), data[n:]
	}
}

// recorded reads a file of testdata, packed or not.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err == nil {
		return b
	}
	f, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return b
}

// sessions lists the recorded connections whose name begins so.
func sessions(t testing.TB, prefix string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", prefix+"*.client*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recording of %s: %v", prefix, err)
	}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(strings.TrimSuffix(filepath.Base(f), ".gz"), ".client"))
	}
	return names
}

func mustNew(t testing.TB, c Config) Framing {
	t.Helper()
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
