package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/tougw/tougw/homa/rawip"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// node is a Homa host of the test.
func (w *world) node(ns *testnet.Namespace) *rpc.Node {
	w.t.Helper()
	var conn *rawip.Conn
	w.must(ns.Do(func() (err error) {
		conn, err = rawip.Open(rawip.Config{})
		return err
	}))
	n, err := rpc.NewNode(conn, rpc.Config{})
	w.must(err)
	w.t.Cleanup(func() {
		if err := n.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return n
}

// nativeService is a service that was written for Homa, and what a client of TCP
// says to it and gets.
type nativeService struct {
	service
	// answer is the server's, to a message.
	answer func(request []byte) ([]byte, error)
	// request makes a request of a text, response what the client gets of it.
	request, response func(text string) string
}

var nativeServices = []nativeService{{
	service: service{name: "lines", port: 7001, framing: `{type: delimiter, delimiter: "\n"}`},
	answer:  func(b []byte) ([]byte, error) { return bytes.ToUpper(b), nil },
	request: func(text string) string { return text + "\n" }, response: func(text string) string { return strings.ToUpper(text) + "\n" },
}, {
	service: service{name: "frames", port: 7002, framing: "{type: length-prefixed, bytes: 4, keep: false}"},
	answer:  func(b []byte) ([]byte, error) { return bytes.ToUpper(b), nil },
	request: frame, response: func(text string) string { return frame(strings.ToUpper(text)) },
}, {
	service: service{name: "redis", port: 7003, framing: "{type: resp}"},
	answer: func(b []byte) ([]byte, error) {
		// *2, $4, ECHO, $LENGTH, TEXT
		part := bytes.SplitN(b, []byte("\r\n"), 5)
		if len(part) != 5 || !bytes.EqualFold(part[2], []byte("ECHO")) {
			return []byte("-ERR unknown command\r\n"), nil
		}
		return fmt.Appendf(nil, "%s\r\n%s", part[3], bytes.ToUpper(part[4])), nil
	},
	request:  func(text string) string { return resp("ECHO", text) },
	response: func(text string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), strings.ToUpper(text)) },
}, {
	service: service{name: "web", port: 7004, framing: "{type: http1}"},
	answer: func(b []byte) ([]byte, error) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(r.Body)
		return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), bytes.ToUpper(body)), err
	},
	request: func(text string) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	},
	response: func(text string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), strings.ToUpper(text))
	},
}}

// TestTranslateToHomaServer: TCP clients reach servers that were written for Homa.
func TestTranslateToHomaServer(t *testing.T) {
	t.Parallel()
	need(t, "redis-cli=redis-tools", "curl=curl")
	w := &translators{world: newWorld(t, options{idle: true})}
	w.must(w.RoutePlain())
	server := w.node(w.Server)
	rules := "translate:\n"
	for i, s := range nativeServices {
		_, err := server.Listen(homaPort+uint16(i), rpc.HandlerFunc(func(_ context.Context, req *rpc.Request, rw *rpc.ResponseWriter) error {
			b, err := req.ReadAll()
			if err == nil {
				b, err = s.answer(b)
			}
			if err != nil {
				return err
			}
			_, err = rw.Write(b)
			return err
		}), rpc.ServeConfig{})
		w.must(err)
		rules += fmt.Sprintf("  - {name: %s, from: {tcp: \"%v\"}, to: {homa: \"%v:%d\"}, framing: %s}\n",
			s.name, s.through(), testnet.ServerAddr, homaPort+i, s.framing)
	}
	w.client = w.start(w.Sites[0].Gateway, lab.Config{Name: "client", More: []string{rules, "homa: {" + patient + "}"}})

	for _, s := range nativeServices {
		request, want := "", ""
		texts := []string{"hello", "homa", strings.Repeat("abcdefg", 100_000)}
		for i := range 50 {
			texts = append(texts, fmt.Sprint("pipelined ", i))
		}
		for _, text := range texts {
			request, want = request+s.request(text), want+s.response(text)
		}
		if got := w.exchange(s.through(), request, 0, halfClosed); got != want {
			t.Errorf("%s: %d bytes, want %d: %.200q", s.name, len(got), len(want), got)
		}
		if r := w.rule(w.client, s.name); r.Requests != uint64(len(texts)) || r.FailedTotal() != 0 || r.Connections != 0 {
			t.Errorf("%+v", r)
		}
	}
	redis, web := nativeServices[2].through(), nativeServices[3].through()
	if got := w.output("echo hello\necho homa\n", "redis-cli", redisArgs(redis)...); got != "HELLO\nHOMA\n" {
		t.Errorf("redis-cli: %q", got)
	}
	if got := w.curl("--data", "hello", fmt.Sprintf("http://%v/", web)); got != "HELLO" {
		t.Errorf("curl: %q", got)
	}
}

// TestTranslateFromHomaClient: a client that was written for Homa reaches TCP
// servers.
func TestTranslateFromHomaClient(t *testing.T) {
	t.Parallel()
	need(t, "redis-server=redis-server", "nginx=nginx-light")
	lines := service{name: "lines", port: 7001, framing: `{type: delimiter, delimiter: "\n", keep: false}`}
	w := newTranslators(t, []service{redisService, webService, frameService, lines})
	w.redis()
	w.rawServer(frameService, echo)
	w.rawServer(lines, echo)
	w.must(w.Nginx(w.ctx))
	page := content(60, 700_000)
	w.file("page", page)
	before := w.settled()
	client := w.node(w.app())
	call := func(port uint16, request string) string {
		t.Helper()
		answer, err := client.Call(w.ctx, netip.AddrPortFrom(testnet.GatewayAddr, port), []byte(request))
		w.must(err)
		return string(answer)
	}
	value := string(content(61, 300_000))
	for _, c := range []struct{ request, want string }{
		{resp("SET", "k", value), "+OK\r\n"},
		{resp("GET", "k"), fmt.Sprintf("$%d\r\n%s\r\n", len(value), value)},
		{resp("NOSUCH"), ""},
		{"PING\r\n", "+PONG\r\n"},
	} {
		want := c.want
		if want == "" {
			want = w.exchange(redisService.direct(), c.request, 0, "\r\n")
		}
		if got := call(homaPort, c.request); got != want {
			t.Errorf("%.30q: %d bytes %.100q, want %d %.100q", c.request, len(got), got, len(want), want)
		}
	}
	want := date.ReplaceAllString(w.exchange(webService.direct(), fetch("GET", "/page"), 0, ""), "Date: -")
	if got := date.ReplaceAllString(call(homaPort+1, fetch("GET", "/page")), "Date: -"); got != want || len(got) < len(page) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	text := strings.Repeat("abcdefg", 100_000)
	for port, message := range map[uint16]string{homaPort + 2: frame(text), homaPort + 3: text} {
		for range 3 {
			if got := call(port, message); got != message {
				t.Errorf("port %d: %d bytes %.100q, want the %d that were sent", port, len(got), got, len(message))
			}
		}
	}
	w.clean(before)
}
