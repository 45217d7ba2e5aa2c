package framing

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// check scans input as requests and as responses to each of reqs, in several
// ways, and wants each message that was found to survive encoder and scanner.
func check(t *testing.T, f Framing, input []byte, seed uint64, reqs []Request) {
	t.Helper()
	defer guard(t)
	messages, _, _ := stable(f.Requests, f.Traits(), input, nil, seed)
	survive(t, f, f.RequestEncoder(), f.Requests, messages, nil)
	for _, m := range messages {
		if m.refused != nil {
			if out, keep := f.Answer(nil, m.refused, &m.req); len(out) == 0 && keep && !m.req.Quiet {
				t.Fatalf("%v has an empty answer", m.refused)
			}
		}
	}
	if f.Traits().Keyed {
		reqs = []Request{{}}
	}
	for i := range reqs {
		// As many requests as there can be responses.
		queue := make([]Request, min(len(input)+1, 64))
		for j := range queue {
			queue[j] = reqs[i]
		}
		given := queue
		if f.Traits().Keyed {
			given = nil
		}
		messages, _, _ := stable(f.Responses, f.Traits(), input, given, seed)
		survive(t, f, f.ResponseEncoder(), f.Responses, messages, &queue[0])
	}
}

func survive(t *testing.T, f Framing, e *Encoder, fresh func() Scanner, messages []message, req *Request) {
	t.Helper()
	for _, m := range finished(messages) {
		if m.refused != nil || m.unsolicited || m.req.Local {
			continue
		}
		wire, r, err := encode(e, m.data, req, random(uint64(len(m.data))))
		if err != nil {
			t.Fatalf("%q was scanned and cannot be encoded: %v", m.data, err)
		}
		if req == nil && r.Refused != nil {
			t.Fatalf("%q was scanned and is refused: %v", m.data, r.Refused)
		}
		if req != nil && req.Quiet {
			continue // the wire lacks the fence
		}
		var reqs []Request
		if req != nil {
			reqs = []Request{*req}
		}
		if req == nil && m.req.fence != "" {
			wire = bytes.TrimSuffix(wire, []byte(m.req.fence))
		}
		again, _, err := scan(fresh(), f.Traits(), wire, whole, reqs, 0)
		if err != nil || len(again) != 1 || !again[0].ended || !bytes.Equal(again[0].data, m.data) {
			t.Fatalf("%q became %q on the wire, and %+v: %v", m.data, wire, again, err)
		}
	}
}

// seeds adds recorded connections, without the large ones.
func seeds(f *testing.F, prefix string) {
	for _, name := range sessions(f, prefix) {
		for _, side := range []string{".client", ".server"} {
			if b := recorded(f, name+side); len(b) < 5000 {
				f.Add(b, uint64(len(b)))
			}
		}
	}
}

const fuzzMax = 1500 // bytes: small, so that inputs get beyond it

func FuzzLengthPrefixed(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03abc\x00\x00\x00\x00"), uint64(0))
	f.Add([]byte("\x03abc\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), uint64(0x1ff))
	f.Add([]byte("\x80\x03abc"), uint64(0x2f5))
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		c := Config{
			Type: TypeLengthPrefixed, Bytes: []int{1, 2, 4, 8, 0}[seed%5], Order: []string{"big", "little"}[seed>>3&1],
			Counts: []string{"after", "length", "message"}[seed>>4&3%3], Strip: seed>>6&1 == 1, Offset: int(seed >> 7 & 3), Max: fuzzMax,
		}
		if c.Varint = c.Bytes == 0; c.Strip {
			if c.Offset = 0; c.Varint {
				c.Counts = "after"
			}
		}
		check(t, mustNew(t, c), input, seed, []Request{{}})
	})
}

func FuzzDelimiter(f *testing.F) {
	f.Add([]byte("one\ntwo\n"), "\n", false, uint64(1))
	f.Add([]byte("oaaaneaa"), "aa", true, uint64(1))
	f.Add([]byte("aabaabaac"), "aabaac", true, uint64(1))
	f.Fuzz(func(t *testing.T, input []byte, delimiter string, strip bool, seed uint64) {
		if len(delimiter) == 0 || len(delimiter) > MaxDelimiter {
			return
		}
		c := Config{Type: TypeDelimiter, Delimiter: []byte(delimiter), Strip: strip, Max: 100}
		check(t, mustNew(t, c), input, seed, []Request{{}})
		defer guard(t)
		messages, _, err := scan(mustNew(t, c).Requests(), mustNew(t, c).Traits(), input, whole, nil, 0)
		rest := input
		for _, m := range finished(messages) {
			part, after, found := bytes.Cut(rest, []byte(delimiter))
			if !strip {
				part = rest[:len(part)+len(delimiter)]
			}
			if !found || !bytes.Equal(part, m.data) {
				t.Fatalf("%q is %q, want %q (%v)", rest, m.data, part, err)
			}
			rest = after
		}
	})
}

func FuzzDNS(f *testing.F) {
	seeds(f, "dnsmasq-")
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		check(t, mustNew(t, Config{Type: TypeDNS, Max: fuzzMax}), input, seed, nil)
	})
}

func FuzzRESP(f *testing.F) {
	seeds(f, "redis-")
	f.Add([]byte("|1\r\n+a\r\n:1\r\n*2\r\n|1\r\n+b\r\n#t\r\n$-1\r\n%1\r\n(12\r\n_\r\n>1\r\n+x\r\n"), uint64(1))
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		c := Config{Type: TypeRESP, Max: fuzzMax, Head: minHead, Depth: 5}
		if seed&1 == 1 {
			c.ConnectionState = "pass"
		}
		framing := mustNew(t, c)
		check(t, framing, input, seed, []Request{{}})
		defer guard(t)
		reqs := make([]Request, len(input))
		messages, _, _ := scan(framing.Responses(), framing.Traits(), input, whole, reqs, 0)
		rest := input
		for i, m := range finished(messages) {
			n := respEnd(rest)
			if n < 0 || m.refused == nil && !bytes.Equal(m.data, rest[:n]) {
				t.Fatalf("reply %d of %q is %q, want %d bytes", i, rest, m.data, n)
			}
			rest = rest[n:]
		}
	})
}

// respEnd returns the size of the value at the front of b, or -1: RESP once more,
// by recursion.
func respEnd(b []byte) int {
	i := bytes.Index(b, []byte("\r\n"))
	if i < 1 {
		return -1
	}
	typ, arg, n := b[0], string(b[1:i]), i+2
	count := 0
	for _, c := range arg {
		if count = count*10 + int(c-'0'); count > 1<<20 {
			count = 1 << 20
		}
	}
	if arg == "-1" {
		count = -1
	}
	switch typ {
	case '$', '!', '=':
		if count >= 0 {
			n += count + 2
		}
	case '%', '|', '*', '~', '>':
		if typ == '%' || typ == '|' {
			count *= 2
		}
		if typ == '|' {
			count++
		}
		for range count {
			if n > len(b) {
				return -1
			}
			k := respEnd(b[n:])
			if k < 0 {
				return -1
			}
			n += k
		}
	}
	if n > len(b) {
		return -1
	}
	return n
}

func FuzzMemcached(f *testing.F) {
	seeds(f, "memcached-")
	reqs := []Request{
		{kind: mcLine}, {kind: mcValues, keys: 1}, {kind: mcValues, keys: 2}, {kind: mcLists}, {kind: mcDump},
		{kind: mcMeta}, {kind: mcFenced, Quiet: true},
	}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		check(t, mustNew(t, Config{Type: TypeMemcached, Max: fuzzMax, Head: minHead}), input, seed, reqs)
	})
}

func FuzzHTTP1(f *testing.F) {
	seeds(f, "nginx-")
	for _, c := range smuggling {
		f.Add([]byte(c.input), uint64(1))
	}
	reqs := []Request{{}, {head: true}, {old: true}}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		framing := mustNew(t, Config{Type: TypeHTTP1, Max: 5000, Head: minHead})
		check(t, framing, input, seed, reqs)
		defer guard(t)
		messages, _, _ := scan(framing.Requests(), framing.Traits(), input, whole, nil, 0)
		for _, m := range finished(messages) {
			r := bufio.NewReader(bytes.NewReader(m.data))
			req, err := http.ReadRequest(r)
			if err != nil {
				t.Fatalf("%q: net/http says %v", m.data, err)
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				t.Fatalf("%q: body: net/http says %v", m.data, err)
			}
			if rest, _ := io.ReadAll(r); len(rest) > 0 {
				t.Fatalf("%q: net/http leaves %q", m.data, rest)
			}
		}
		for i := range reqs {
			messages, _, _ := scan(framing.Responses(), framing.Traits(), input, whole, []Request{reqs[i]}, 0)
			for _, m := range finished(messages) {
				final := m.data
				for bytes.HasPrefix(final, []byte("HTTP/1.")) && final[9] == '1' {
					_, final, _ = bytes.Cut(final, []byte("\r\n\r\n"))
				}
				r := bufio.NewReader(bytes.NewReader(final))
				of := &http.Request{Method: "GET"}
				if reqs[i].head {
					of.Method = "HEAD"
				}
				resp, err := http.ReadResponse(r, of)
				if err != nil {
					t.Fatalf("%q: net/http says %v", m.data, err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Fatalf("%q: body: net/http says %v", m.data, err)
				}
				if rest, _ := io.ReadAll(r); len(rest) > 0 {
					t.Fatalf("%q: net/http leaves %q", m.data, rest)
				}
			}
		}
	})
}

func FuzzStream(f *testing.F) {
	f.Add((&Chunk{Flags: ChunkOpen | ChunkFin, Length: 2, Stream: 7, Limit: 1 << 20}).Append(nil), int64(42))
	f.Add((&Chunk{Flags: ChunkReset, Reason: ResetTimeout, Stream: 7, Offset: 99, Received: 7}).Append(nil), int64(40))
	f.Fuzz(func(t *testing.T, input []byte, length int64) {
		dirty := Chunk{1, 2, 3, 4, 5, 6, 7}
		if err := dirty.Decode(input, length); err != nil {
			if dirty != (Chunk{}) || err.(*Error).Fault != Malformed {
				t.Fatalf("%v: %+v", err, dirty)
			}
		} else if again := dirty.Append(nil); !bytes.Equal(again, input[:ChunkHeaderLen]) {
			t.Fatalf("%x became %x", input, again)
		}
		c := mustNew(t, Config{Type: TypeStream, Max: ChunkHeaderLen + 5})
		defer guard(t)
		for _, by := range []split{whole, bytewise, random(uint64(length))} {
			messages, _, err := scan(c.Requests(), c.Traits(), input, by, nil, 0)
			var all []byte
			for _, m := range messages {
				all = append(all, m.data...)
				if len(m.data) > 5 || !m.ended {
					t.Fatalf("a piece of %d bytes", len(m.data))
				}
			}
			if err != nil || !bytes.Equal(all, input) {
				t.Fatalf("%q became %q: %v", input, all, err)
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add("a\r\nb", uint8(1))
	f.Fuzz(func(t *testing.T, reason string, fault uint8) {
		e := &Error{Fault: Fault(fault%uint8(Overloaded) + 1), Reason: reason}
		for typ, req := range map[string]Request{
			TypeRESP: {}, TypeHTTP1: {}, TypeMemcached: {kind: mcLine}, TypeDNS: {question: make([]byte, dnsHeader)},
		} {
			framing := mustNew(t, Config{Type: typ})
			answer, _ := framing.Answer([]byte("before"), e, &req)
			answer, ok := bytes.CutPrefix(answer, []byte("before"))
			reqs := []Request{req}
			if typ == TypeDNS {
				reqs = nil
			}
			messages, skipped, err := scan(framing.Responses(), framing.Traits(), answer, whole, reqs, 0)
			if !ok || err != nil || skipped != 0 && typ != TypeDNS || len(messages) != 1 || !messages[0].ended {
				t.Fatalf("%s: the answer %q is no single response: %+v %v", typ, answer, messages, err)
			}
			if strings.Contains(reason, "\n") && typ == TypeRESP && bytes.Count(answer, []byte("\n")) != 1 {
				t.Fatalf("%q", answer)
			}
		}
	})
}
