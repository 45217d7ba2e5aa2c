package framing

import (
	"strings"
	"testing"
)

// workloads are typical messages, many in a buffer as with pipelining.
var workloads = []struct {
	name      string
	config    Config
	message   string
	response  *Request // nil for requests
	other     string   // a part that every second message has in upper case
	allocates bool     // net/http, or the question of DNS
}{
	{name: "length-prefixed", config: Config{Type: TypeLengthPrefixed, Bytes: 4}, message: "\x00\x00\x00\x64" + strings.Repeat("x", 100)},
	{name: "delimiter", config: Config{Type: TypeDelimiter, Delimiter: []byte("\r\n")}, message: strings.Repeat("x", 100) + "\r\n"},
	{name: "resp/get", config: Config{Type: TypeRESP}, message: "*2\r\n$3\r\nGET\r\n$16\r\nkey:__rand_int__\r\n"},
	{name: "resp/set", config: Config{Type: TypeRESP}, message: "*3\r\n$3\r\nSET\r\n$16\r\nkey:__rand_int__\r\n$100\r\n" + strings.Repeat("x", 100) + "\r\n"},
	{name: "resp/bulk", config: Config{Type: TypeRESP}, message: "$100\r\n" + strings.Repeat("x", 100) + "\r\n", response: &Request{}},
	{name: "resp/array", config: Config{Type: TypeRESP}, message: "*100\r\n" + strings.Repeat("$3\r\nxxx\r\n", 100), response: &Request{}},
	{name: "memcached/get", config: Config{Type: TypeMemcached}, message: "get memtier-1234567\r\n"},
	{name: "memcached/set", config: Config{Type: TypeMemcached}, message: "set memtier-1234567 0 0 100\r\n" + strings.Repeat("x", 100) + "\r\n"},
	{name: "memcached/value", config: Config{Type: TypeMemcached}, message: "VALUE memtier-1234567 0 100\r\n" + strings.Repeat("x", 100) + "\r\nEND\r\n", response: &Request{kind: mcValues, keys: 1}},
	{name: "dns/query", config: Config{Type: TypeDNS}, message: "\x00\x1c\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04test\x05local\x00\x00\x01\x00\x01", allocates: true},
	{name: "http1/get", config: Config{Type: TypeHTTP1}, message: "GET /index.html HTTP/1.1\r\nHost: 10.1.0.5:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n", allocates: true, other: "index"},
	{name: "http1/get-again", config: Config{Type: TypeHTTP1}, message: "GET /index.html HTTP/1.1\r\nHost: 10.1.0.5:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"},
	{name: "http1/response", config: Config{Type: TypeHTTP1}, message: "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 14:10:19 GMT\r\n" +
		"Content-Type: text/html\r\nContent-Length: 100\r\nConnection: keep-alive\r\nETag: \"5f5\"\r\n\r\n" + strings.Repeat("x", 100), response: &Request{}, allocates: true, other: "html"},
}

// scanAll scans a buffer of n messages once.
func scanAll(tb testing.TB, s Scanner, buf []byte, req *Request, n int) {
	for range n {
		r, err := s.Scan(buf, false, req)
		if err != nil || !r.Begin || !r.End {
			tb.Fatalf("%+v: %v", r, err)
		}
		buf = buf[r.Advance:]
	}
}

func BenchmarkScan(b *testing.B) {
	const n = 16
	for _, w := range workloads {
		b.Run(w.name, func(b *testing.B) {
			f := mustNew(b, w.config)
			s := f.Requests()
			if w.response != nil {
				s = f.Responses()
			}
			buf := []byte(strings.Repeat(w.message, n))
			if w.other != "" {
				buf = []byte(strings.Repeat(w.message+strings.Replace(w.message, w.other, strings.ToUpper(w.other), 1), n/2))
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(w.message)))
			for i := 0; i < b.N; i += n {
				scanAll(b, s, buf, w.response, n)
			}
		})
	}
}

func TestScanDoesNotAllocate(t *testing.T) {
	for _, w := range workloads {
		if w.allocates {
			continue
		}
		f := mustNew(t, w.config)
		s, e := f.Requests(), f.RequestEncoder()
		if w.response != nil {
			s, e = f.Responses(), f.ResponseEncoder()
		}
		buf := []byte(strings.Repeat(w.message, 4))
		if n := testing.AllocsPerRun(100, func() { scanAll(t, s, buf, w.response, 4) }); n != 0 {
			t.Errorf("%s: %v allocations in 4 messages", w.name, n)
		}
		wire := make([]byte, 0, 64)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := e.Begin(wire, int64(len(w.message)), w.response); err != nil {
				t.Fatal(err)
			}
			if r, err := e.Scan(buf[:len(w.message)]); err != nil || !r.End {
				t.Fatalf("%+v: %v", r, err)
			}
			e.End(wire)
		}); n != 0 {
			t.Errorf("%s: %v allocations to encode", w.name, n)
		}
	}
}
