package framing

import (
	"slices"
	"strings"
	"testing"
)

// TestFailures: what tells of a failure is one response to the request, whatever that
// is, which the gateway of a TCP client hands on as it is.
func TestFailures(t *testing.T) {
	const get, question = "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x00\x17\x01\x02\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05hello\x00\x00\x01\x00\x01"
	for _, c := range []struct {
		typ, request string
		want         string // in what the client gets
	}{
		{TypeHTTP1, get, "HTTP/1.1 502 Bad Gateway\r\n"},
		{TypeHTTP1, "HEAD" + get[3:], "HTTP/1.1 502 Bad Gateway\r\n"},
		{TypeRESP, "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "-ERR gateway: unreachable: down\r\n"},
		{TypeMemcached, "get a\r\n", "SERVER_ERROR gateway: unreachable: down\r\n"},
		{TypeMemcached, "set a 0 0 1\r\nb\r\n", "SERVER_ERROR gateway: unreachable: down\r\n"},
		{TypeMemcached, "stats\r\n", "SERVER_ERROR gateway: unreachable: down\r\n"},
		{TypeMemcached, "mg a v\r\n", "SERVER_ERROR gateway: unreachable: down\r\n"},
		{TypeMemcached, "mg a v q\r\n", "SERVER_ERROR gateway: unreachable: down\r\n"},
		{TypeMemcached, "set a 0 0 1 noreply\r\nb\r\n", ""},
		{TypeDNS, question, "\x00\x17\x01\x02\x81\x02"},
		{TypeDelimiter, "hello\n", ""},
		{TypeLengthPrefixed, "\x00\x00\x00\x01a", ""},
	} {
		config := Config{Type: c.typ}
		switch c.typ {
		case TypeDelimiter:
			config.Delimiter = []byte("\n")
		case TypeLengthPrefixed:
			config.Bytes = 4
		}
		f := mustNew(t, config)
		messages, _, err := scan(f.Requests(), f.Traits(), []byte(c.request), whole, nil, 0)
		if err != nil || len(messages) != 1 {
			t.Fatalf("%q: %+v, %v", c.request, messages, err)
		}
		req := &messages[0].req
		for fault := Malformed; fault <= Overloaded; fault++ {
			message := f.Failure(&Error{Fault: fault, Reason: "down"}, req)
			if len(message) == 0 {
				if c.want != "" {
					t.Errorf("%s, %v: no words", c.typ, fault)
				}
				continue
			}
			if c.want == "" || !Words(c.typ) {
				t.Errorf("%s, %v: %q", c.typ, fault, message)
			}
			got, r, err := encode(f.ResponseEncoder(), message, req, bytewise)
			if err != nil || r.Close || fault == Unreachable && !strings.HasPrefix(string(got), c.want) {
				t.Errorf("%s, %v: %q became %q, %+v, %v", c.typ, fault, message, got, r, err)
			}
		}
	}
	for _, typ := range Types() {
		if words := []string{TypeHTTP1, TypeRESP, TypeMemcached, TypeDNS}; Words(typ) != slices.Contains(words, typ) {
			t.Errorf("%s: %v", typ, Words(typ))
		}
	}
}
