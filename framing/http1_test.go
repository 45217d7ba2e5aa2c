package framing

import (
	"fmt"
	"strings"
	"testing"
)

// smuggling are requests that one parser takes for one and another for two, or
// for something else.
var smuggling = []struct {
	name, input string
	status      string // of the answer
	reason      string
}{
	{"length and chunked", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", "400", "a content length and a transfer coding"},
	{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400", "more than one content length"},
	{"two equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\na", "400", "more than one content length"},
	{"list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", "400", `"1, 1" is not a number`},
	{"signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", "400", `"+1" is not a number`},
	{"length in hexadecimal", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na", "400", "not a number"},
	{"empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", "400", "not a number"},
	{"huge length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\n", "400", "not a number"},
	{"two codings", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "more than one transfer coding"},
	{"unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "501", "is not chunked"},
	{"identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", "501", "is not chunked"},
	{"coding list", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501", "is not chunked"},
	{"coding with a vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\vchunked\r\n\r\n", "400", "control character"},
	{"chunked in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "in HTTP/1.0"},
	{"space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\na", "400", "not a token"},
	{"space before the name", "POST / HTTP/1.1\r\nHost: a\r\n Content-Length: 1\r\n\r\na", "400", "not a token"},
	{"folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", "400", "has no name"},
	{"LF alone", "GET / HTTP/1.1\nHost: a\n\n", "400", "does not end with CR LF"},
	{"LF alone between fields", "GET / HTTP/1.1\r\nX: a\nHost: a\r\n\r\n", "400", "does not end with CR LF"},
	{"CR alone", "GET / HTTP/1.1\r\nX: a\rContent-Length: 5\r\nHost: a\r\n\r\n", "400", "control character"},
	{"NUL", "GET / HTTP/1.1\r\nX: a\x00\r\nHost: a\r\n\r\n", "400", "control character"},
	{"no colon", "GET / HTTP/1.1\r\nHost a\r\n\r\n", "400", "has no name"},
	{"no host", "GET / HTTP/1.1\r\n\r\n", "400", "0 host fields"},
	{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400", "2 host fields"},
	{"connection takes the length away", "POST / HTTP/1.1\r\nHost: a\r\nConnection: close, Content-Length\r\nContent-Length: 1\r\n\r\na", "400", "is a field of the message"},
	{"HTTP/0.9", "GET /\r\n", "400", "is not of HTTP/1.1"},
	{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505", "is not of HTTP/1.1"},
	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", "505", "is not of HTTP/1.1"},
	{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400", "malformed HTTP"},
	{"space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "400", "malformed HTTP"},
	{"tab in the first line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "400", "control character"},
	{"TLS", "\x16\x03\x01\x02\x00\x01\r\n", "400", "control character"},
	{"CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "501", "CONNECT cannot pass"},
	{"upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "501", "upgrade"},
	{"expectation", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: tea\r\n\r\na", "417", "100-continue"},
	{"chunk size with a sign", chunked + "+1\r\na\r\n0\r\n\r\n", "400", "does not begin a chunk"},
	{"chunk size with 0x", chunked + "0x1\r\na\r\n0\r\n\r\n", "400", "does not begin a chunk"},
	{"chunk size and LF", chunked + "1\na\r\n0\r\n\r\n", "400", "does not begin a chunk"},
	{"chunk size overflows", chunked + "10000000000000001\r\na\r\n0\r\n\r\n", "400", "does not begin a chunk"},
	{"no chunk size", chunked + "\r\n0\r\n\r\n", "400", "does not begin a chunk"},
	{"space behind the chunk size", chunked + "1 \r\na\r\n0\r\n\r\n", "400", "does not begin a chunk"},
	{"LF in an extension", chunked + "1;a\nb\r\na\r\n0\r\n\r\n", "400", "does not begin a chunk"},
	{"CR in an extension", chunked + "1;a\rb\r\na\r\n0\r\n\r\n", "400", "does not begin a chunk"},
	{"chunk longer than its size", chunked + "1\r\nab\r\n0\r\n\r\n", "400", "does not end with CR LF where"},
	{"chunk ends with LF", chunked + "1\r\na\n0\r\n\r\n", "400", "does not end with CR LF where"},
	{"length in the trailer", chunked + "0\r\nContent-Length: 5\r\n\r\n", "400", "in the trailer"},
	{"folded trailer", chunked + "0\r\nX: a\r\n b\r\n\r\n", "400", "has no name"},
	{"truncated header", "GET / HTTP/1.1\r\nHo", "400", "ended within the header"},
	{"truncated body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na", "400", "ended within the body"},
	{"truncated chunk", chunked + "5\r\nab", "400", "ended within the body"},
}

const chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

func TestHTTPSmuggling(t *testing.T) {
	f := mustNew(t, Config{Type: TypeHTTP1, Max: 10000, Head: 600})
	for _, c := range smuggling {
		t.Run(c.name, func(t *testing.T) {
			defer guard(t)
			// One good request before it must not help.
			good := "GET /good HTTP/1.1\r\nHost: a\r\n\r\n"
			messages, _, err := stable(f.Requests, f.Traits(), []byte(good+c.input), nil, 1, 2)
			if err == nil || !strings.Contains(err.Error(), c.reason) {
				t.Fatalf("error %v, want %q", err, c.reason)
			}
			if done := finished(messages); len(done) != 1 || string(done[0].data) != good {
				t.Errorf("%+v", done)
			}
			answer, keep := f.Answer(nil, err.(*Error), nil)
			if keep || !strings.HasPrefix(string(answer), "HTTP/1.1 "+c.status+" ") {
				t.Errorf("%q, want status %s", answer, c.status)
			}
			if _, _, err := encode(f.RequestEncoder(), []byte(c.input), nil, whole); err == nil {
				t.Error("a message of a Homa client is not refused")
			}
		})
	}
}

func TestHTTPBadResponses(t *testing.T) {
	f := mustNew(t, Config{Type: TypeHTTP1, Max: 1000, Head: 600})
	for _, c := range []struct{ name, input, reason string }{
		{"101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "status 101"},
		{"204 with a body", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", "has a body"},
		{"100 with a body", "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n", "has a body"},
		{"length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "a content length and a transfer coding"},
		{"LF", "HTTP/1.1 200 OK\nContent-Length: 3\r\n\r\nabc", "does not end with CR LF"},
		{"SSH", "SSH-2.0-OpenSSH_9.2\r\n", "not of HTTP/1.1"},
		{"status", "HTTP/1.1 2000 OK\r\n\r\n", "malformed HTTP status code"},
		{"too large by length", "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", "larger than 1000 bytes"},
		{"too large by chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n", "larger than 1000 bytes"},
		{"too large to the end", "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("a", 1000), "larger than 1000 bytes"},
		{"too many interim", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 40), "larger than 1000 bytes"},
		{"header too large", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 600) + "\r\n\r\n", "longer than 600 bytes"},
		{"truncated", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "ended within the body"},
		{"unasked", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "without a request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer guard(t)
			_, _, err := stable(f.Responses, f.Traits(), []byte(c.input), []Request{{}}, 1, 2)
			if err == nil || !strings.Contains(err.Error(), c.reason) {
				t.Fatalf("error %v, want %q", err, c.reason)
			}
		})
	}
}

// The length must be known with the header, for the body to be forwarded as it
// arrives; and what the length of a body is depends on the request.
func TestHTTPResponses(t *testing.T) {
	const final = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
	f := mustNew(t, Config{Type: TypeHTTP1})
	for _, c := range []struct {
		name, input  string
		req          Request
		data         string
		known        int // bytes that may arrive before the length is known
		close, clean bool
	}{
		{name: "length", input: final + "abc", data: final + "abc", known: len(final)},
		{name: "HEAD", input: final, req: Request{head: true}, data: final, known: len(final)},
		{name: "304", input: "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", data: "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", known: 48},
		{name: "100 and 103", input: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + final + "abc",
			data: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + final + "abc", known: 37 + len(final)},
		{name: "103 to HTTP/1.0", input: "HTTP/1.1 103 Early Hints\r\n\r\n" + final + "abc", req: Request{old: true}, data: final + "abc", known: len(final)},
		{name: "to the end", input: "HTTP/1.1 200 OK\r\n\r\nabc", data: "HTTP/1.1 200 OK\r\n\r\nabc", known: 22, close: true},
		{name: "empty to the end", input: "HTTP/1.1 200 OK\r\n\r\n", data: "HTTP/1.1 200 OK\r\n\r\n", known: 19, close: true},
		{name: "close", input: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
			data: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", known: 57, close: true},
		{name: "1.0", input: "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", data: "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", known: 38, close: true},
		{name: "chunked", input: "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\nX: y\r\n\r\n",
			data: "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\nX: y\r\n\r\n", known: 72},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer guard(t)
			if _, _, err := stable(f.Responses, f.Traits(), []byte(c.input), []Request{c.req}, 1, 2); err != nil {
				t.Fatal(err)
			}
			messages, _, err := scan(f.Responses(), f.Traits(), []byte(c.input), bytewise, []Request{c.req}, 0)
			if err != nil || len(messages) != 1 {
				t.Fatalf("%+v %v", messages, err)
			}
			m := messages[0]
			if string(m.data) != c.data || m.close != c.close || m.known != c.known {
				t.Errorf("data %q, close %v, length known after %d", m.data, m.close, m.known)
			}
		})
	}
}

func TestHTTPRequests(t *testing.T) {
	defer guard(t)
	f := mustNew(t, Config{Type: TypeHTTP1})
	input := "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n" +
		"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\nabc" +
		"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n" +
		"BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" +
		"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" +
		"GET / HTTP/1.0\r\n\r\n"
	messages, skipped, err := stable(f.Requests, f.Traits(), []byte(input), nil, 1, 2, 3)
	if err != nil || skipped != 2 {
		t.Fatalf("%d bytes skipped: %v", skipped, err)
	}
	want := "GET 27 safe\nPUT 72 interim\nGET 49 safe\n 47 last\nGET 42 safe\nGET 18 safe last\n"
	if got := summary(messages); got != want {
		t.Errorf("%q", got)
	}
}

func TestHTTPAnswers(t *testing.T) {
	f := mustNew(t, Config{Type: TypeHTTP1})
	for fault, status := range map[Fault]int{
		Malformed: 400, HeadTooLarge: 431, TooLarge: 413, Truncated: 400, Unsupported: 501,
		BadResponse: 502, Unreachable: 502, Timeout: 504, Overloaded: 503,
	} {
		e := &Error{Fault: fault, Reason: "no\r\nX: y"}
		answer, keep := f.Answer(nil, e, nil)
		if keep || !strings.HasPrefix(string(answer), fmt.Sprintf("HTTP/1.1 %d ", status)) || !strings.HasSuffix(string(answer), "\r\n\r\nno??X: y\n") {
			t.Errorf("%v: %q", fault, answer)
		}
		head, _ := f.Answer(nil, e, &Request{head: true})
		if string(head)+"no??X: y\n" != string(answer) {
			t.Errorf("to HEAD %q", head)
		}
	}
}
