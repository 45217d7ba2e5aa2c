package translate

import (
	"bufio"
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

	"github.com/pires/go-proxyproto"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/rpc"
)

// quick is a fabric on which a handler that fails is noticed soon.
func quick(t *testing.T) *fabric {
	return newFabric(t, nil, homa.Config{Peer: homa.PeerConfig{TimeoutTicks: 150}})
}

func (f *fabric) call(t testing.TB, request string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b, err := f.client.Call(ctx, serverHost, []byte(request))
	return string(b), err
}

// scripted is a server of RESP whose connections do as the test says.
func scripted(t *testing.T, script func(n int, conn *net.TCPConn, r *bufio.Reader)) netip.AddrPort {
	var conns atomic.Int32
	return serveTCP(t, func(conn *net.TCPConn) {
		script(int(conns.Add(1)), conn, bufio.NewReader(conn))
	})
}

// TestBalance gives requests to the server with the least work.
func TestBalance(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	release := make(chan bool)
	var slow, fast atomic.Int32
	answer := func(count *atomic.Int32, wait chan bool) netip.AddrPort {
		return scripted(t, func(_ int, conn *net.TCPConn, r *bufio.Reader) {
			for {
				if _, err := readCommand(r); err != nil {
					return
				}
				count.Add(1)
				if wait != nil {
					<-wait
				}
				_, _ = io.WriteString(conn, "+OK\r\n")
			}
		})
	}
	r := f.reverse(t, framingOf(t, respConfig), nil, answer(&slow, release), answer(&fast, nil))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := f.call(t, "PING\r\n"); err != nil {
				t.Error(err)
			}
		})
		eventually(t, "one more", func() bool { return slow.Load()+fast.Load() > 0 })
	}
	eventually(t, "all", func() bool { return slow.Load()+fast.Load() == 20 })
	close(release)
	wg.Wait()
	if slow.Load() == 0 || fast.Load() == 0 {
		t.Errorf("%d at the slow server, %d at the other", slow.Load(), fast.Load())
	}
	if s := r.Stats(); len(s.Servers) != 2 || s.Servers[0].Outstanding != 0 || !s.Servers[0].Up || s.Requests != 20 {
		t.Errorf("%+v", s)
	}
}

// TestHealth leaves a server alone that cannot be connected to until a probe can.
func TestHealth(t *testing.T) {
	f := quick(t)
	var mu sync.Mutex
	down := map[netip.AddrPort]bool{}
	_, one := newRedis(t)
	_, two := newRedis(t)
	r, err := NewReverse(framingOf(t, respConfig), []netip.AddrPort{one, two}, func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if down[to] {
			return nil, errors.New("down")
		}
		return net.Dial("tcp", to.String())
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.handle(t, r.ServeRPC)
	defer r.Close()
	set := func(a, b bool) {
		mu.Lock()
		defer mu.Unlock()
		down[one], down[two] = a, b
	}
	up := func() int {
		n := 0
		for _, s := range r.Stats().Servers {
			if s.Up {
				n++
			}
		}
		return n
	}
	set(true, false)
	for range 10 {
		if _, err := f.call(t, "PING\r\n"); err != nil {
			t.Fatalf("one of two servers down: %v", err)
		}
	}
	set(true, true)
	eventually(t, "no handler uses a connection", func() bool { return r.Stats().Outstanding == 0 })
	r.mu.Lock()
	for c := range r.open {
		go c.fail(errHungUp)
		c.server.free = nil
		c.drop()
	}
	r.mu.Unlock()
	if _, err := f.call(t, "PING\r\n"); !errors.Is(err, rpc.ErrTimeout) {
		t.Errorf("both down: %v", err)
	}
	eventually(t, "both are down", func() bool { return up() == 0 })
	set(false, false)
	eventually(t, "both are up", func() bool { return up() == 2 })
	if _, err := f.call(t, "PING\r\n"); err != nil {
		t.Error(err)
	}
	if s := r.Stats(); s.Failed[Unreachable] != 1 {
		t.Errorf("%+v", s.Failed)
	}
}

// TestServerDies never makes an answer of half a response.
func TestServerDies(t *testing.T) {
	big := fmt.Sprintf("$500000\r\n%s\r\n", text(500_000))
	for name, response := range map[string]string{
		"nothing":                "",
		"half of a line":         "+OK",
		"half of a bulk string":  "$9\r\nhalf",
		"half of an array":       "*2\r\n$1\r\na\r\n",
		"half of a long string":  big[:300_000],
		"nonsense":               "nonsense\r\n",
		"a response too large":   "$1500000\r\n",
		"all but the last bytes": big[:len(big)-1],
	} {
		t.Run(name, func(t *testing.T) {
			f := quick(t)
			addr := scripted(t, func(_ int, conn *net.TCPConn, r *bufio.Reader) {
				if _, err := readCommand(r); err == nil {
					_, _ = io.WriteString(conn, response)
				}
			})
			r := f.reverse(t, framingOf(t, respConfig), nil, addr)
			if got, err := f.call(t, "PING\r\n"); !errors.Is(err, rpc.ErrTimeout) {
				t.Errorf("%q, %v", got, err)
			}
			if s := r.Stats(); s.Failed[BadResponse] != 1 || s.Conns != 0 || s.Outstanding != 0 || s.Buffered != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestReverseRetries executes nothing twice unless it changes nothing and the rule
// allows it.
func TestReverseRetries(t *testing.T) {
	for _, c := range []struct {
		retry bool
		name  string
		want  int32
	}{{false, "GET", 1}, {true, "GET", 2}, {true, "INCR", 1}} {
		f := quick(t)
		var executed atomic.Int32
		addr := scripted(t, func(_ int, conn *net.TCPConn, r *bufio.Reader) {
			if _, err := readCommand(r); err == nil && executed.Add(1) > 1 {
				_, _ = io.WriteString(conn, "+again\r\n")
			}
		})
		rule := framingOf(t, respConfig)
		rule.Retry = c.retry
		r := f.reverse(t, rule, nil, addr)
		got, err := f.call(t, command(c.name, "a"))
		if again := c.want == 2; again != (err == nil && got == "+again\r\n") || executed.Load() != c.want || r.Stats().Retries != uint64(c.want-1) {
			t.Errorf("retry %v, %s: %q, %v, executed %d times", c.retry, c.name, got, err, executed.Load())
		}
	}
}

// TestStaleConnection finds out that a server has closed a connection before it is
// used again.
func TestStaleConnection(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	var closed atomic.Int32
	addr := scripted(t, func(_ int, conn *net.TCPConn, r *bufio.Reader) {
		if _, err := readCommand(r); err == nil {
			_, _ = io.WriteString(conn, "+OK\r\n")
		}
		conn.Close()
		closed.Add(1)
	})
	f.reverse(t, framingOf(t, respConfig), nil, addr)
	for i := range int32(20) {
		if got, err := f.call(t, command("INCR", "a")); got != "+OK\r\n" {
			t.Fatalf("request %d: %q, %v", i, got, err)
		}
		eventually(t, "closed", func() bool { return closed.Load() == i+1 })
		time.Sleep(time.Millisecond) // the FIN is on its way through this host
	}
}

// TestServerTimeouts gives up a server that does not answer, but not one that is asked
// to take its time.
func TestServerTimeouts(t *testing.T) {
	f := quick(t)
	release := make(chan bool)
	addr := scripted(t, func(_ int, conn *net.TCPConn, r *bufio.Reader) {
		args, err := readCommand(r)
		if err == nil && args[0] == "BLPOP" {
			<-release
			_, _ = io.WriteString(conn, "+late\r\n")
		}
		_, _ = r.ReadByte()
	})
	rule := framingOf(t, respConfig)
	rule.Timeouts.Request = 40 * time.Millisecond
	r := f.reverse(t, rule, nil, addr)
	late := make(chan string)
	go func() {
		got, err := f.call(t, command("BLPOP", "a", "0"))
		late <- fmt.Sprint(got, err)
	}()
	if got, err := f.call(t, "PING\r\n"); !errors.Is(err, rpc.ErrTimeout) {
		t.Errorf("%q, %v", got, err)
	}
	if s := r.Stats(); s.Failed[Timeout] != 1 || s.Outstanding != 1 {
		t.Errorf("%+v", s)
	}
	close(release)
	if got := <-late; got != "+late\r\n<nil>" {
		t.Errorf("blocking command: %s", got)
	}
}

// TestIdleConnections closes what is not in use.
func TestIdleConnections(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	_, addr := newRedis(t)
	rule := framingOf(t, respConfig)
	rule.Timeouts.Idle = 20 * time.Millisecond
	r := f.reverse(t, rule, nil, addr)
	if _, err := f.call(t, "PING\r\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "closed", func() bool { return r.Stats().Conns == 0 })
}

// TestPipelined has many requests on one connection, whose answers find their way.
func TestPipelined(t *testing.T) {
	for _, config := range []framing.Config{respConfig, {Type: framing.TypeDNS}, httpConfig} {
		f := newFabric(t, nil, homa.Config{})
		rule := framingOf(t, config)
		rule.Limits.ServerConns = 1
		var addr netip.AddrPort
		request := func(i int) (string, string) {
			return command("ECHO", fmt.Sprint(i)), fmt.Sprintf("$%d\r\n%d\r\n", len(fmt.Sprint(i)), i)
		}
		switch config.Type {
		case framing.TypeRESP:
			_, addr = newRedis(t)
		case framing.TypeDNS:
			addr = newDNS(t)
			request = func(i int) (string, string) {
				// Of two with one id only one may be on the connection.
				q := string(dnsQuery(uint16(i/2), []string{"a", "slow"}[i%2]))[2:]
				return q, q[:2] + "\x81" + q[3:]
			}
		default:
			addr = newHTTP(t)
			request = func(i int) (string, string) {
				body := string(text(i))
				return fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i), fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n%s", i, body)
			}
		}
		r := f.reverse(t, rule, nil, addr)
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				req, want := request(i)
				if got, err := f.call(t, req); err != nil || got != want {
					t.Errorf("%s %d: %q, %v; want %q", config.Type, i, got, err, want)
				}
			})
		}
		wg.Wait()
		eventually(t, "the end of the last request", func() bool { return r.Stats().Outstanding == 0 })
		if s := r.Stats(); s.ConnsTotal != 1 || s.Requests != 200 || s.Outstanding+s.Waiting != 0 || s.Servers[0].Outstanding != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// TestEarlyResponse takes an answer that comes before the end of the request, and no
// further one from that connection.
func TestEarlyResponse(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	var conns atomic.Int32
	addr := scripted(t, func(n int, conn *net.TCPConn, r *bufio.Reader) {
		conns.Store(int32(n))
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
		if strings.HasPrefix(line, "POST") {
			time.Sleep(50 * time.Millisecond) // without reading
		}
		_, _ = io.Copy(io.Discard, r)
	})
	// The kernel must not take the whole request.
	f.dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", to.String())
		if err == nil {
			err = conn.(*net.TCPConn).SetWriteBuffer(64 << 10)
		}
		return conn, err
	}
	f.reverse(t, framingOf(t, httpConfig), nil, addr)
	body := text(900_000)
	post := fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	for i, req := range []string{post, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"} {
		if got, err := f.call(t, req); !strings.HasSuffix(got, "\r\n\r\nearly") {
			t.Errorf("request %d: %q, %v", i, got, err)
		}
	}
	if conns.Load() != 2 {
		t.Errorf("%d connections", conns.Load())
	}
}

// TestAnswerWhileReading has a server that answers what it reads as it comes, and
// needs the whole request to end its answer.
func TestAnswerWhileReading(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	var conns atomic.Int32
	addr := scripted(t, func(n int, conn *net.TCPConn, r *bufio.Reader) {
		conns.Store(int32(n))
		_, _ = io.Copy(conn, r)
	})
	f.reverse(t, framingOf(t, prefixConfig), nil, addr)
	for _, n := range []int{900_000, 10, 200_000} {
		message := string(prefixed(text(n)))
		if got, err := f.call(t, message); got != message {
			t.Errorf("%d bytes of %d came back, %v", len(got), len(message), err)
		}
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections", conns.Load())
	}
}

// TestSmuggling lets no message through that is not exactly one request.
func TestSmuggling(t *testing.T) {
	f := quick(t)
	redis, addr := newRedis(t)
	r := f.reverse(t, framingOf(t, respConfig), nil, addr)
	long := command("SET", "a", string(text(50_000)))
	for _, request := range []string{
		"PING\r\nSET a 1\r\n", command("SET", "a", "1")[:20], "nonsense", long + "PING\r\n", long[:len(long)-3], "SUBSCRIBE a\r\n",
	} {
		if got, err := f.call(t, request); err == nil {
			t.Errorf("%.40q was answered: %q", request, got)
		}
	}
	if got, err := f.call(t, "QUIT\r\n"); got != "+OK\r\n" {
		t.Errorf("QUIT: %q, %v", got, err)
	}
	if _, err := f.call(t, command("GET", "a")); err != nil {
		t.Error(err)
	}
	redis.mu.Lock()
	defer redis.mu.Unlock()
	if len(redis.commands) > 2 || redis.data["a"] != "" && len(redis.data["a"]) != 50_000 {
		t.Errorf("executed %q", redis.commands)
	}
	if s := r.Stats(); s.Failed[Malformed]+s.Failed[Truncated]+s.Failed[Unsupported] < 5 {
		t.Errorf("%+v", s.Failed)
	}
}

// TestProxyOut names its client to the server, and does not mix clients on a
// connection.
func TestProxyOut(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	named := make(chan string, 9)
	addr := scripted(t, func(_ int, conn *net.TCPConn, r *bufio.Reader) {
		header, err := proxyproto.Read(r)
		if err != nil {
			t.Error(err)
			return
		}
		named <- header.SourceAddr.String()
		for {
			if _, err := readCommand(r); err != nil {
				return
			}
			_, _ = io.WriteString(conn, "+OK\r\n")
		}
	})
	rule := framingOf(t, respConfig)
	rule.ProxyOut = true
	rule.Limits.ServerConns = 1
	r := f.reverse(t, rule, nil, addr)
	for range 3 {
		if _, err := f.call(t, "PING\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-named; !strings.HasPrefix(got, "10.0.0.1:") {
		t.Errorf("client %s", got)
	}
	if _, err := f.server.Call(context.Background(), serverHost, []byte("PING\r\n")); err != nil {
		t.Logf("a host calls itself: %v", err) // not all carriers can
	}
	if n := r.Stats().ConnsTotal; n > 2 {
		t.Errorf("%d connections", n)
	}
}

// TestReverseClose fails what is under way and leaves nothing.
func TestReverseClose(t *testing.T) {
	f := quick(t)
	arrived := make(chan bool, 9)
	addr := scripted(t, func(_ int, conn *net.TCPConn, r *bufio.Reader) {
		if _, err := readCommand(r); err == nil {
			arrived <- true
		}
		_, _ = r.ReadByte()
	})
	r := f.reverse(t, framingOf(t, respConfig), nil, addr)
	failed := make(chan error)
	go func() {
		_, err := f.call(t, "PING\r\n")
		failed <- err
	}()
	<-arrived
	r.Close()
	if err := <-failed; err == nil {
		t.Error("answered")
	}
	if _, err := f.call(t, "PING\r\n"); err == nil {
		t.Error("answered after Close")
	}
	if s := r.Stats(); s.Failed[Aborted] != 2 {
		t.Errorf("%+v", s)
	}
	r.Close()
}

// TestBadRules are refused with a reason.
func TestBadRules(t *testing.T) {
	good := framingOf(t, respConfig)
	addr := netip.MustParseAddrPort("127.0.0.1:1")
	for want, try := range map[string]func() error{
		"no framing": func() error { _, err := NewReverse(Rule{Name: "x"}, []netip.AddrPort{addr}, nil, nil); return err },
		"no server":  func() error { _, err := NewReverse(good, nil, nil, nil); return err },
		"no address": func() error { _, err := NewReverse(good, []netip.AddrPort{{}}, nil, nil); return err },
		"no Homa":    func() error { _, err := NewForward(good, serverHost, nil, nil); return err },
		"Limits.Conns": func() error {
			bad := good
			bad.Limits.Conns = -1
			_, err := NewForward(bad, serverHost, Over(nil), nil)
			return err
		},
	} {
		if err := try(); err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
