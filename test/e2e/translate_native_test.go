package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
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

// TestTranslateToHomaServer: TCP clients reach a server that was written for Homa.
func TestTranslateToHomaServer(t *testing.T) {
	t.Parallel()
	w := &translators{world: newWorld(t, options{idle: true})}
	w.must(w.RoutePlain())
	server := w.node(w.Server)
	_, err := server.Listen(homaPort, rpc.HandlerFunc(func(_ context.Context, req *rpc.Request, rw *rpc.ResponseWriter) error {
		b, err := req.ReadAll()
		if err != nil {
			return err
		}
		_, err = rw.Write(bytes.ToUpper(b))
		return err
	}), rpc.ServeConfig{})
	w.must(err)
	lines := service{name: "lines", port: 7001}
	w.client = w.start(w.Sites[0].Gateway, lab.Config{Name: "client", More: []string{fmt.Sprintf(
		"translate: [{name: lines, from: {tcp: \"%v\"}, to: {homa: \"%v:%d\"}, framing: {type: delimiter, delimiter: \"\\n\"}}]",
		lines.through(), testnet.ServerAddr, homaPort)}})

	if got := w.exchange(lines.through(), "hello\nhoma\n", 0, halfClosed); got != "HELLO\nHOMA\n" {
		t.Errorf("%q", got)
	}
	long := bytes.Repeat([]byte("abcdefg"), 100_000)
	if got := w.exchange(lines.through(), string(long)+"\n", 0, halfClosed); got != string(bytes.ToUpper(long))+"\n" {
		t.Errorf("%d bytes came back of %d", len(got), len(long)+1)
	}
	if s := w.rule(w.client, "lines"); s.Requests != 3 || s.FailedTotal() != 0 || s.Connections != 0 {
		t.Errorf("%+v", s)
	}
}

// TestTranslateFromHomaClient: a client that was written for Homa reaches TCP
// servers.
func TestTranslateFromHomaClient(t *testing.T) {
	t.Parallel()
	need(t, "redis-server=redis-server", "nginx=nginx-light")
	w := newTranslators(t, []service{redisService, webService})
	w.redis()
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
	w.clean(before)
}
