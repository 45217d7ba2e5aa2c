package translate

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa"
)

// protocol is one whose failures have words.
type protocol struct {
	framing.Config
	request, response string
	// What a client gets when the server answers brokenly, or cannot be reached, and when
	// it is silent.
	broken, unreachable, silent string
	nonsense, half, large       string // responses
}

func protocols() []protocol {
	query := string(dnsQuery(7, "a"))
	servfail := query[:2] + "\x00\x07\x81\x02"
	return []protocol{
		{
			httpConfig, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
			"HTTP/1.1 502 ", "HTTP/1.1 502 ", "HTTP/1.1 504 ",
			"nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nok",
		},
		{
			respConfig, command("GET", "a"), "$2\r\nok\r\n",
			"-ERR gateway: bad response: ", "-ERR gateway: unreachable: ", "-ERR gateway: timed out: ",
			"nonsense\r\n", "*2\r\n$1\r\na\r\n", "$1000000\r\nok",
		},
		{
			framing.Config{Type: framing.TypeMemcached}, "get a b\r\n", "END\r\n",
			"SERVER_ERROR gateway: bad response: ", "SERVER_ERROR gateway: unreachable: ", "SERVER_ERROR gateway: timed out: ",
			"nonsense\r\n", "VALUE a 0 2\r\nok", "VALUE a 0 1000000\r\nok",
		},
		{
			framing.Config{Type: framing.TypeDNS}, query, query[:4] + "\x81" + query[5:],
			servfail, servfail, servfail,
			"\x00\x01x", "\x00\x20x", "",
		},
	}
}

// readAnswer reads one answer of the protocol.
func (p *protocol) readAnswer(r *bufio.Reader) (string, error) {
	f, err := framing.New(p.Config)
	if err != nil {
		return "", err
	}
	requests, responses := f.Requests(), f.Responses()
	of, err := requests.Scan([]byte(p.request), false, nil)
	if err != nil {
		return "", err
	}
	var req *framing.Request
	if !f.Traits().Keyed {
		req = of.Request
	}
	var all, pending []byte
	for {
		b, err := r.ReadByte()
		if err != nil {
			return string(all), err
		}
		all, pending = append(all, b), append(pending, b)
		for {
			res, err := responses.Scan(pending, false, req)
			if err != nil || res.End {
				return string(all), err
			}
			if !res.Progress() {
				break
			}
			pending = pending[res.Advance:]
		}
	}
}

// TestFailuresAnswered: with AnswerFailures a TCP client at the other gateway sees why
// its request failed, and goes on with its connection.
func TestFailuresAnswered(t *testing.T) {
	for _, p := range protocols() {
		for _, c := range []struct{ name, first, want string }{
			{"hangs up", "", p.broken},
			{"nonsense", p.nonsense, p.broken},
			{"half", p.half, p.broken},
			{"too large", p.large, p.broken},
			{"silent", "silent", p.silent},
			{"refused", "refused", p.unreachable},
		} {
			if c.name == "too large" && c.first == "" {
				continue // there are no such responses
			}
			t.Run(p.Type+" "+c.name, func(t *testing.T) {
				f := newFabric(t, nil, homa.Config{})
				addr := scripted(t, func(n int, conn *net.TCPConn, r *bufio.Reader) {
					request := make([]byte, len(p.request))
					for {
						if _, err := io.ReadFull(r, request); err != nil {
							return
						}
						switch {
						case n > 1 || c.first == "refused":
							_, _ = io.WriteString(conn, p.response)
						case c.first != "silent":
							_, _ = io.WriteString(conn, c.first)
							return
						}
					}
				})
				rule := framingOf(t, p.Config)
				rule.AnswerFailures = true
				if c.first == "silent" {
					rule.Timeouts.Request = time.Second
				}
				var refused atomic.Bool
				tracer := NewTracer(TracerConfig{})
				r, err := NewReverse(rule, []netip.AddrPort{addr}, func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
					if c.first == "refused" && refused.CompareAndSwap(false, true) {
						to = closedPort(t)
					}
					var d net.Dialer
					return d.DialContext(ctx, "tcp", to.String())
				}, tracer)
				if err != nil {
					t.Fatal(err)
				}
				f.handle(t, r.ServeRPC)
				t.Cleanup(func() { r.Close() })
				fw, door := f.forward(t, framingOf(t, p.Config), nil)
				conn := dial(t, door)
				in := bufio.NewReader(conn)
				write(t, conn, p.request)
				got, err := p.readAnswer(in)
				if err != nil || !strings.HasPrefix(got, c.want) {
					t.Fatalf("got %q, %v; want %q", got, err, c.want)
				}
				// A server that could not be reached is left alone for a moment.
				eventually(t, "up", func() bool { return r.Stats().Servers[0].Up })
				write(t, conn, p.request)
				if got, err := p.readAnswer(in); err != nil || got != p.response {
					t.Errorf("then %q, %v; want %q", got, err, p.response)
				}
				eventually(t, "the end of both", func() bool { return r.Stats().Requests == 2 && fw.Stats().Requests == 2 })
				var records []Record
				eventually(t, "a record", func() bool {
					records = tracer.Last(Filter{Failed: true})
					return len(records) == 1
				})
				if records[0].Result == Aborted || records[0].ResponseBytes == 0 || r.Stats().Buffered != 0 {
					t.Errorf("%+v", records)
				}
				if s := fw.Stats(); s.Failed[BadResponse]+s.Failed[Timeout] != 0 {
					t.Errorf("%+v", s.Failed)
				}
			})
		}
	}
}

// TestFailuresAnsweredToRequests: what is wrong with the request itself is told, too,
// but never behind a response that has begun, and not without words.
func TestFailuresAnsweredToRequests(t *testing.T) {
	half := fmt.Sprintf("$500000\r\n%s", text(400_000))
	for _, c := range []struct {
		config                  framing.Config
		request, response, want string
	}{
		{respConfig, "*x\r\n", "+OK\r\n", "-ERR Protocol error: "},
		{respConfig, "SUBSCRIBE a\r\n", "+OK\r\n", "-ERR SUBSCRIBE has no single reply"},
		{respConfig, command("SET", "a", string(text(900_000))) + "x", "wait", "-ERR Protocol error: "},
		{respConfig, command("SET", "a", string(text(900_000))), "", "-ERR gateway: bad response: "},
		{respConfig, command("GET", "a"), half, ""},
		{prefixConfig, string(prefixed([]byte("a"))), "", ""},
		{framing.Config{Type: framing.TypeMemcached}, "set a 0 0 1 noreply\r\nb\r\n", "", ""},
	} {
		f := quick(t)
		addr := scripted(t, func(_ int, conn *net.TCPConn, r *bufio.Reader) {
			if _, err := r.ReadByte(); err != nil {
				return
			}
			if c.response == "wait" {
				_, _ = io.Copy(io.Discard, r)
				return
			}
			_, _ = io.WriteString(conn, c.response)
		})
		rule := framingOf(t, c.config)
		rule.AnswerFailures = true
		f.reverse(t, rule, nil, addr)
		got, err := f.call(t, c.request)
		if (err == nil) != (c.want != "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s, %.20q: %.100q, %v; want %q", c.config.Type, c.request, got, err, c.want)
		}
	}
}
