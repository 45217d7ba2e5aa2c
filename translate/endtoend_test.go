package translate

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa"
)

// conversations are what clients say in each framing, and who answers.
func conversations() []conversation {
	big := text(300_000)
	get := func(path, more string) string { return "GET " + path + " HTTP/1.1\r\nHost: a\r\n" + more + "\r\n" }
	command := func(args ...string) string {
		s := fmt.Sprintf("*%d\r\n", len(args))
		for _, a := range args {
			s += fmt.Sprintf("$%d\r\n%s\r\n", len(a), a)
		}
		return s
	}
	var dns, lengths, resp []byte
	for i := range 40 {
		dns = append(dns, dnsQuery(uint16(i), []string{"a", "slow", "b"}[i%3])...)
		lengths = append(lengths, prefixed(text(1+i*i*40))...)
		resp = append(resp, command("GET", fmt.Sprint("k", i%7))...)
		resp = append(resp, command("APPEND", fmt.Sprint("k", i%7), string(text(i*100)))...)
	}
	return []conversation{
		{"http1", framing.Config{Type: framing.TypeHTTP1}, newHTTP, []byte(
			get("/10", "") + get("/300000", "") + get("/chunked/20000", "") +
				"HEAD /5000 HTTP/1.1\r\nHost: a\r\n\r\n" +
				fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(big), big) +
				"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" +
				get("/1", "Connection: close\r\n"))},
		{"resp", framing.Config{Type: framing.TypeRESP}, func(t testing.TB) netip.AddrPort {
			_, addr := newRedis(t)
			return addr
		}, append(resp, command("SET", "big", string(big))+command("GET", "big")+command("LRANGE", "l", "0", "50")+"PING\r\n"+
			strings.Repeat(command("INCR", "n"), 30)+command("GET", "n")...)},
		{"memcached", framing.Config{Type: framing.TypeMemcached}, newMemcached, []byte(
			"set a 0 0 5\r\nhello\r\nget a b\r\nset b 0 0 1 noreply\r\nx\r\nget a b\r\ndelete a\r\nget a\r\n" +
				"ms c 3\r\nabc\r\nmg c v\r\nmg d v q\r\nmg c v q\r\nmn\r\n" +
				fmt.Sprintf("set big 0 0 %d\r\n%s\r\nget big\r\nversion\r\n", len(big), big))},
		{"dns", framing.Config{Type: framing.TypeDNS}, newDNS, dns},
		{"length-prefixed", framing.Config{Type: framing.TypeLengthPrefixed, Bytes: 4}, newPrefixed, append(lengths, prefixed(big)...)},
		{"length-prefixed stripped", framing.Config{Type: framing.TypeLengthPrefixed, Bytes: 4, Strip: true, Pipeline: true}, newPrefixed, lengths},
		{"delimiter", framing.Config{Type: framing.TypeDelimiter, Delimiter: []byte("\n")}, newLines, append(bytes.Repeat([]byte("hello\n"), 50), append(big, '\n')...)},
		{"delimiter stripped", framing.Config{Type: framing.TypeDelimiter, Delimiter: []byte("\n"), Strip: true, Pipeline: true}, newLines, bytes.Repeat([]byte("hello\n"), 50)},
		{"stream", framing.Config{Type: framing.TypeStream}, newEcho, text(3_000_000)},
	}
}

type conversation struct {
	name   string
	config framing.Config
	server func(testing.TB) netip.AddrPort
	input  []byte
}

// TestSameAsDirect compares what a client gets from a server of its protocol with
// what it gets through TCP, Homa, TCP.
func TestSameAsDirect(t *testing.T) {
	for _, c := range conversations() {
		t.Run(c.name, func(t *testing.T) {
			want := converse(t, c.server(t), c.input, len(c.input))
			if len(want) == 0 {
				t.Fatal("the server says nothing")
			}
			for _, size := range []int{len(c.input), 1000, 7} {
				if size == 7 && len(c.input) > 100_000 {
					size = 1460
				}
				f := newFabric(t, nil, homa.Config{})
				tracer := NewTracer(TracerConfig{})
				rule := framingOf(t, c.config)
				if c.name == "dns" {
					rule.Limits.ServerConns = 1 // what is slow waits for the next query there
				}
				r := f.reverse(t, rule, tracer, c.server(t))
				fw, addr := f.forward(t, framingOf(t, c.config), tracer)
				got := converse(t, addr, c.input, size)
				if c.name == "dns" {
					want, got = sorted(want), sorted(got)
				}
				sameBytes(t, got, want)
				eventually(t, "nothing under way", func() bool {
					a, b := fw.Stats(), r.Stats()
					return a.Outstanding+a.Waiting+b.Outstanding+b.Waiting+a.Streams+b.Streams == 0 && a.Buffered+b.Buffered == 0
				})
				if s := fw.Stats(); s.Requests == 0 || s.BytesIn != uint64(len(c.input)) || s.BytesOut != uint64(len(got)) {
					t.Errorf("%+v", s)
				}
				for _, s := range []Stats{fw.Stats(), r.Stats()} {
					for result, n := range s.Failed {
						if n > 0 {
							t.Errorf("%d %s", n, result)
						}
					}
				}
				for _, rec := range tracer.Last(Filter{Failed: true}) {
					t.Errorf("failed: %+v", rec)
				}
			}
		})
	}
}

// sorted puts DNS messages, which come in any order, into that of their ids.
func sorted(b []byte) []byte {
	all := map[int][]byte{}
	for len(b) > 4 {
		n := 2 + int(b[0])<<8 + int(b[1])
		all[int(b[2])<<8+int(b[3])] = b[:n]
		b = b[n:]
	}
	var out []byte
	for id := range 1 << 16 {
		out = append(out, all[id]...)
	}
	return out
}
