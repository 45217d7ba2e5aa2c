package translate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/rpc"
)

var (
	respConfig   = framing.Config{Type: framing.TypeRESP}
	httpConfig   = framing.Config{Type: framing.TypeHTTP1}
	prefixConfig = framing.Config{Type: framing.TypeLengthPrefixed, Bytes: 4}
	streamConfig = framing.Config{Type: framing.TypeStream}
)

func command(args ...string) string {
	s := fmt.Sprintf("*%d\r\n", len(args))
	for _, a := range args {
		s += fmt.Sprintf("$%d\r\n%s\r\n", len(a), a)
	}
	return s
}

// gate is a Homa server of RESP that answers each command with the command's second
// word, when the test says so.
type gate struct {
	mu      sync.Mutex
	waiting map[string]chan error
	order   []string
	most    int
}

func (g *gate) ServeRPC(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
	b, err := req.ReadAll()
	if err != nil {
		return err
	}
	key := strings.Split(string(b), "\r\n")[4]
	c := make(chan error, 1)
	g.mu.Lock()
	g.waiting[key] = c
	g.order = append(g.order, key)
	g.most = max(g.most, len(g.waiting))
	g.mu.Unlock()
	err = <-c
	g.mu.Lock()
	delete(g.waiting, key)
	g.mu.Unlock()
	if err == nil {
		_, err = w.Write([]byte("+" + key + "\r\n"))
	}
	return err
}

// open waits for a command and lets it be answered.
func (g *gate) open(t *testing.T, key string, err error) {
	t.Helper()
	eventually(t, key+" arrives", func() bool { return g.has(key) })
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting[key] <- err
}

func (g *gate) has(key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting[key] != nil
}

func (g *gate) arrived() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.order)
}

func newGate(t *testing.T, f *fabric) *gate {
	g := &gate{waiting: map[string]chan error{}}
	f.handle(t, g.ServeRPC)
	return g
}

// TestAnswersInOrder opens a bounded number of RPCs for pipelined requests and gives
// the answers in the order of the requests, whatever that of the responses is.
func TestAnswersInOrder(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	g := newGate(t, f)
	rule := framingOf(t, respConfig)
	rule.Limits.Outstanding = 8
	fw, addr := f.forward(t, rule, nil)
	conn := dial(t, addr)
	var input, want string
	for i := range 40 {
		input += command("GET", fmt.Sprint(i))
		want += fmt.Sprintf("+%d\r\n", i)
	}
	write(t, conn, input)
	for first := 0; first < 40; first += 8 {
		for i := 7; i >= 0; i-- {
			eventually(t, "arrival", func() bool { return g.has(fmt.Sprint(first + i)) })
		}
		if n := g.arrived(); n != first+8 {
			t.Fatalf("%d requests arrived, want %d", n, first+8)
		}
		if s := fw.Stats(); s.Outstanding != 8 {
			t.Errorf("%d outstanding", s.Outstanding)
		}
		for i := 7; i >= 0; i-- {
			g.open(t, fmt.Sprint(first+i), nil)
		}
	}
	expect(t, conn, want)
	if g.most > 8 {
		t.Errorf("%d at a time", g.most)
	}
}

// TestOutstandingAll bounds the requests of all clients.
func TestOutstandingAll(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	g := newGate(t, f)
	rule := framingOf(t, respConfig)
	rule.Limits.OutstandingAll = 3
	fw, addr := f.forward(t, rule, nil)
	var conns []*net.TCPConn
	for i := range 6 {
		conns = append(conns, dial(t, addr))
		write(t, conns[i], command("GET", fmt.Sprint(i)))
	}
	eventually(t, "three of six", func() bool { s := fw.Stats(); return s.Outstanding == 3 && s.Waiting == 3 })
	if n := g.arrived(); n > 3 {
		t.Errorf("%d arrived", n)
	}
	for done := 0; done < 6; {
		for i := range conns {
			if conns[i] != nil && g.has(fmt.Sprint(i)) {
				g.open(t, fmt.Sprint(i), nil)
				expect(t, conns[i], fmt.Sprintf("+%d\r\n", i))
				conns[i] = nil
				done++
			}
		}
	}
}

// TestWritesAreNotReordered lets what changes something wait for what came before, and
// be waited for.
func TestWritesAreNotReordered(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	g := newGate(t, f)
	fw, addr := f.forward(t, framingOf(t, respConfig), nil)
	conn := dial(t, addr)
	write(t, conn, command("GET", "a")+command("GET", "b")+command("SET", "c", "1")+command("GET", "d")+command("GET", "e"))
	stands := func(arrived, waiting int) {
		t.Helper()
		eventually(t, "standing", func() bool { return g.arrived() == arrived && fw.Stats().Waiting == waiting })
	}
	stands(2, 1)
	g.open(t, "b", nil)
	g.open(t, "a", nil)
	expect(t, conn, "+a\r\n+b\r\n")
	stands(3, 1)
	g.open(t, "c", nil)
	expect(t, conn, "+c\r\n")
	stands(5, 0)
	g.open(t, "e", nil)
	g.open(t, "d", nil)
	expect(t, conn, "+d\r\n+e\r\n")
}

// TestCutThrough sees the first bytes of a message at the other side before its last
// ones are sent, both ways.
func TestCutThrough(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	here, rest, half := make(chan string, 1), make(chan bool), make(chan bool)
	message := prefixed(text(500_000))
	f.handle(t, func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
		first := make([]byte, 50_000)
		if _, err := io.ReadFull(req, first); err != nil {
			return err
		}
		here <- string(first)
		more, err := req.ReadAll()
		if err != nil {
			return err
		}
		if err := w.SetLength(len(message)); err != nil {
			return err
		}
		if _, err := w.Write(first); err != nil {
			return err
		}
		select {
		case <-half:
		case <-ctx.Done():
			return ctx.Err()
		}
		_, err = w.Write(more)
		return err
	})
	_, addr := f.forward(t, framingOf(t, prefixConfig), nil)
	conn := dial(t, addr)
	write(t, conn, string(message[:60_000]))
	if first := <-here; first != string(message[:50_000]) {
		t.Error("other bytes")
	}
	go func() {
		<-rest
		_, _ = conn.Write(message[60_000:])
	}()
	close(rest)
	expect(t, conn, string(message[:40_000]))
	close(half)
	expect(t, conn, string(message[40_000:]))
}

// TestFailures looks at what clients of each framing are told.
func TestFailures(t *testing.T) {
	memcached := framing.Config{Type: framing.TypeMemcached}
	get := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	silent := func(context.Context, *rpc.Request, *rpc.ResponseWriter) error { return errors.New("no") }
	hangs := func(ctx context.Context, _ *rpc.Request, _ *rpc.ResponseWriter) error { <-ctx.Done(); return ctx.Err() }
	answers := func(response string) rpc.HandlerFunc {
		return func(_ context.Context, _ *rpc.Request, w *rpc.ResponseWriter) error {
			_, err := w.Write([]byte(response))
			return err
		}
	}
	big := strings.Repeat("x", 2000)
	for _, c := range []struct {
		name    string
		config  framing.Config
		handler rpc.HandlerFunc
		input   string
		want    string // the beginning of the answer; empty for a reset
		result  Result
	}{
		{"http refused", httpConfig, nil, get, "HTTP/1.1 502 ", Unreachable},
		{"http silent", httpConfig, silent, get, "HTTP/1.1 504 ", Timeout},
		{"http hangs", httpConfig, hangs, get, "HTTP/1.1 504 ", Timeout},
		{"http nonsense", httpConfig, answers("nonsense\r\n\r\n"), get, "HTTP/1.1 502 ", BadResponse},
		{"http half", httpConfig, answers("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), get, "HTTP/1.1 502 ", BadResponse},
		{"http malformed", httpConfig, silent, "nonsense\r\n\r\n", "HTTP/1.1 400 ", Malformed},
		{"http too large", httpConfig, silent, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n" + big, "HTTP/1.1 413 ", TooLarge},
		{"http truncated", httpConfig, silent, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\nhalf", "HTTP/1.1 400 ", Truncated},
		{"http upgrade", httpConfig, silent, "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 501 ", Unsupported},
		{"resp refused", respConfig, nil, command("GET", "a"), "-ERR gateway: unreachable", Unreachable},
		{"resp silent", respConfig, silent, command("GET", "a"), "-ERR gateway: timed out", Timeout},
		{"resp too large", respConfig, silent, command("SET", "a", big), "-ERR ", TooLarge},
		{"resp nonsense", respConfig, answers("?\r\n"), command("GET", "a"), "-ERR gateway: bad response", BadResponse},
		{"memcached silent", memcached, silent, "get a\r\n", "SERVER_ERROR ", Timeout},
		{"memcached too large", memcached, silent, "set a 0 0 2000\r\n" + big + "\r\n", "SERVER_ERROR object too large", TooLarge},
		{"prefix refused", prefixConfig, nil, "\x00\x00\x00\x01a", "", Unreachable},
		{"prefix too large", prefixConfig, silent, "\x00\x01\x00\x00a", "", TooLarge},
		{"prefix response too large", prefixConfig, answers(string(prefixed([]byte(big)))), "\x00\x00\x00\x01a", "", BadResponse},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFabric(t, nil, homa.Config{Peer: homa.PeerConfig{TimeoutTicks: 100}})
			if c.handler != nil {
				f.handle(t, c.handler)
			}
			c.config.Max = 1000
			rule := framingOf(t, c.config)
			rule.Timeouts.Request = 200 * time.Millisecond
			tracer := NewTracer(TracerConfig{})
			fw, addr := f.forward(t, rule, tracer)
			conn := dial(t, addr)
			write(t, conn, c.input)
			if err := conn.CloseWrite(); err != nil && c.want != "" { // a reset may come first
				t.Fatal(err)
			}
			got, err := io.ReadAll(conn)
			if c.want == "" {
				if err == nil || len(got) > 0 {
					t.Errorf("got %q, %v; want a reset", got, err)
				}
			} else if err != nil || !strings.HasPrefix(string(got), c.want) {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
			eventually(t, "the counter", func() bool { return fw.Stats().Failed[c.result] == 1 })
			if last := tracer.Last(Filter{Result: c.result}); len(last) != 1 || last[0].Error == "" {
				t.Errorf("records %+v", last)
			}
		})
	}
}

// TestGoesOn answers what follows a request that has failed, where the protocol
// allows it.
func TestGoesOn(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	redis, server := newRedis(t)
	f.reverse(t, framingOf(t, respConfig), nil, server)
	config := respConfig
	config.Max = 1000
	_, addr := f.forward(t, framingOf(t, config), nil)
	conn := dial(t, addr)
	write(t, conn, command("SET", "a", "1")+command("SET", "b", strings.Repeat("x", 5000))+command("GET", "a")+command("SUBSCRIBE", "x")+command("PING"))
	got, _ := io.ReadAll(io.LimitReader(conn, 5))
	if string(got) != "+OK\r\n" {
		t.Errorf("%q", got)
	}
	write(t, conn, command("QUIT"))
	rest, err := io.ReadAll(conn)
	lines := strings.Split(string(rest), "\r\n")
	if err != nil || len(lines) != 7 || lines[0][0] != '-' || lines[2] != "1" || lines[3][0] != '-' || lines[4] != "+PONG" || lines[5] != "+OK" {
		t.Errorf("%q, %v", lines, err)
	}
	if n := len(redis.commands); n != 3 {
		t.Errorf("executed: %q", redis.commands)
	}
}

// TestContinue asks for the body of a request that waits for it.
func TestContinue(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	f.reverse(t, framingOf(t, httpConfig), nil, newHTTP(t))
	_, addr := f.forward(t, framingOf(t, httpConfig), nil)
	conn := dial(t, addr)
	write(t, conn, "GET /3 HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	expect(t, conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: text/plain\r\n\r\n0 1HTTP/1.1 100 Continue\r\n\r\n")
	write(t, conn, "hello")
	expect(t, conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello")
}

// TestForwardRetries sends again only what changes nothing, and only if told to.
func TestForwardRetries(t *testing.T) {
	for _, c := range []struct {
		retry   bool
		command string
		want    int32
	}{
		{false, command("GET", "a"), 1},
		{true, command("GET", "a"), 2},
		{true, command("SET", "a", "1"), 1},
	} {
		f := newFabric(t, nil, homa.Config{Peer: homa.PeerConfig{TimeoutTicks: 100}})
		var executed atomic.Int32
		f.handle(t, func(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
			if executed.Add(1) == 1 {
				return errors.New("died")
			}
			_, err := w.Write([]byte("+again\r\n"))
			return err
		})
		rule := framingOf(t, respConfig)
		rule.Retry = c.retry
		fw, addr := f.forward(t, rule, nil)
		conn := dial(t, addr)
		write(t, conn, c.command)
		want := "-ERR gateway: timed out"
		if c.want == 2 {
			want = "+again\r\n"
		}
		expect(t, conn, want)
		if n := executed.Load(); n != c.want || fw.Stats().Retries != uint64(c.want-1) {
			t.Errorf("retry %v: %q was executed %d times, %d retries", c.retry, c.command, n, fw.Stats().Retries)
		}
	}
}

// TestTruncatedIsNoRequest never lets a server have half a request as a whole one.
func TestTruncatedIsNoRequest(t *testing.T) {
	f := newFabric(t, nil, homa.Config{Peer: homa.PeerConfig{TimeoutTicks: 100}})
	got := make(chan error, 1)
	f.handle(t, func(_ context.Context, req *rpc.Request, _ *rpc.ResponseWriter) error {
		_, err := req.ReadAll()
		got <- err
		return err
	})
	fw, addr := f.forward(t, framingOf(t, prefixConfig), nil)
	conn := dial(t, addr)
	write(t, conn, string(prefixed(text(500_000))[:100_000]))
	eventually(t, "the request", func() bool { return fw.Stats().Outstanding == 1 })
	if err := conn.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := <-got; err == nil {
		t.Error("half a request was served")
	}
	eventually(t, "the end", func() bool { s := fw.Stats(); return s.Failed[Aborted] == 1 && s.Conns == 0 })
}

// TestClientTimeouts ends clients that say nothing, or take nothing.
func TestClientTimeouts(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	f.handle(t, func(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
		if _, err := req.ReadAll(); err != nil {
			return err
		}
		_, err := w.Write(prefixed(make([]byte, 900_000)))
		return err
	})
	rule := framingOf(t, prefixConfig)
	rule.Timeouts.Idle, rule.Timeouts.Write = 50*time.Millisecond, 50*time.Millisecond
	_, addr := f.forward(t, rule, nil)

	if rest, err := expectEnd(dial(t, addr)); err != nil || len(rest) > 0 {
		t.Errorf("idle: %q, %v", rest, err)
	}
	stopped := dial(t, addr)
	write(t, stopped, "\x00\x00")
	if rest, err := expectEnd(stopped); err == nil || len(rest) > 0 {
		t.Errorf("stopped within a message: %q, %v", rest, err)
	}
	slow := dial(t, addr)
	if err := slow.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	_, _ = slow.Write(bytes.Repeat([]byte("\x00\x00\x00\x01a"), 60)) // it may be reset while it writes
	fw2 := func() error {
		_, err := io.Copy(io.Discard, &pausing{slow})
		return err
	}
	if err := fw2(); err == nil {
		t.Error("a client that takes nothing was not reset")
	}
}

// pausing begins to read after it was certainly given up.
type pausing struct{ io.Reader }

func (p *pausing) Read(b []byte) (int, error) {
	time.Sleep(100 * time.Millisecond)
	return p.Reader.Read(b[:min(len(b), 100)])
}

// TestConnsLimit resets clients above the bound.
func TestConnsLimit(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	rule := framingOf(t, respConfig)
	rule.Limits.Conns = 1
	fw, err := NewForward(rule, serverHost, Over(f.client), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	serve := func() *net.TCPConn {
		client := dial(t, addrPort(l.Addr()))
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { fw.ServeConn(ctx, conn, Meta{}) })
		return client
	}
	first := serve()
	eventually(t, "the first", func() bool { return fw.Stats().Conns == 1 })
	if _, err := expectEnd(serve()); err == nil {
		t.Error("the second was served")
	}
	cancel()
	if _, err := expectEnd(first); err == nil {
		t.Error("the first was not reset")
	}
	wg.Wait()
	if s := fw.Stats(); s.ConnsRefused != 1 || s.ConnsTotal != 1 || s.Conns != 0 {
		t.Errorf("%+v", s)
	}
}

// TestConnsWait lets a client wait at the listener while the limit is reached, and tells
// of it.
func TestConnsWait(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	_, server := newRedis(t)
	f.reverse(t, framingOf(t, respConfig), nil, server)
	rule := framingOf(t, respConfig)
	rule.Limits.Conns = 2
	full := make(chan netip.AddrPort, 10)
	rule.Full = func(client netip.AddrPort) { full <- client }
	fw, err := NewForward(rule, serverHost, Over(f.client), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	addr := addrPort(l.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = fw.Serve(ctx, l) })
	defer wg.Wait()
	defer cancel()
	var clients []*net.TCPConn
	for range 2 {
		c := dial(t, addr)
		write(t, c, command("PING"))
		expect(t, c, "+PONG\r\n")
		clients = append(clients, c)
	}
	third := dial(t, addr)
	write(t, third, command("PING"))
	if got := <-full; got != addrPort(third.LocalAddr()) {
		t.Errorf("told of %v, not of %v", got, third.LocalAddr())
	}
	if s := fw.Stats(); s.Conns != 2 || s.ConnsWaiting != 1 || s.ConnsWaited != 1 || s.ConnsRefused != 0 {
		t.Errorf("%+v", s)
	}
	clients[0].Close()
	expect(t, third, "+PONG\r\n")
	if s := fw.Stats(); s.Conns != 2 || s.ConnsWaiting != 0 || s.ConnsWaited != 1 || s.ConnsTotal != 3 {
		t.Errorf("%+v", s)
	}
	// One that waits at the end is reset.
	fourth := dial(t, addr)
	<-full
	cancel()
	if _, err := expectEnd(fourth); err == nil {
		t.Error("the fourth was not reset")
	}
	wg.Wait()
	if s := fw.Stats(); s.Conns != 0 || s.ConnsWaiting != 0 || s.ConnsWaited != 2 || s.ConnsTotal != 3 {
		t.Errorf("%+v", s)
	}
}

// TestProxyIn believes the header of a proxy, and no client without one.
func TestProxyIn(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	_, server := newRedis(t)
	f.reverse(t, framingOf(t, respConfig), nil, server)
	rule := framingOf(t, respConfig)
	rule.ProxyIn = true
	clients := make(chan netip.AddrPort, 9)
	rule.AccessLog = func(r *Record) { clients <- r.Client }
	_, addr := f.forward(t, rule, nil)
	from := netip.MustParseAddrPort("192.0.2.9:1234")
	v2, err := proxyHeader(from, netip.MustParseAddrPort("192.0.2.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{string(v2), "PROXY TCP4 192.0.2.9 192.0.2.1 1234 80\r\n"} {
		conn := dial(t, addr)
		write(t, conn, header+command("PING"))
		expect(t, conn, "+PONG\r\n")
		if got := <-clients; got != from {
			t.Errorf("client %s", got)
		}
	}
	conn := dial(t, addr)
	write(t, conn, command("PING"))
	if rest, err := expectEnd(conn); err == nil {
		t.Errorf("without a header: %q", rest)
	}
}
