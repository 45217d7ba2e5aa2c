package e2e

import (
	bigendian "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tougw/tougw/test/lab"
)

// frameService has messages behind their lengths, four bytes each.
var frameService = service{name: "frames", port: 7000, framing: "{type: length-prefixed, bytes: 4}"}

// frame is a message of it.
func frame(b string) string { return string(bigendian.BigEndian.AppendUint32(nil, uint32(len(b)))) + b }

// sayAndHear writes a request and returns what comes back until the connection
// ends, and how it did: nil is an orderly end after all was written.
func (w *translators) sayAndHear(s service, request string) (string, error) {
	w.t.Helper()
	c := w.mustDial(s.through())
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	// A reset is told once, to who writes or to who reads.
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, request)
		written <- err
	}()
	answer, err := io.ReadAll(c)
	err = errors.Join(err, <-written)
	if timedOut(err) {
		w.t.Fatalf("%s: the connection is still there, after %.300q", s.name, answer)
	}
	return string(answer), err
}

// wasReset tells that a connection was reset.
func wasReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// TestTranslateBrokenRequests: what cannot be understood, or is too large, is told
// in the words of the protocol and reaches no server.
func TestTranslateBrokenRequests(t *testing.T) {
	t.Parallel()
	web := webService
	services := []service{web, redisService, cacheService, nameService, frameService}
	w := newTranslators(t, services)
	var connected atomic.Int32
	for _, s := range services {
		w.rawServer(s, func(c *net.TCPConn) {
			connected.Add(1)
			_, _ = io.Copy(io.Discard, c)
		})
	}
	before := w.settled()
	big := strings.Repeat("x", 1_100_000)
	for _, c := range []struct {
		name    string
		s       service
		request string
		answer  string // its beginning; empty for a reset
	}{
		{"HTTP, no request line", web, "\x00\x01\x02\r\n\r\n", "HTTP/1.1 400 "},
		{"HTTP, two lengths", web, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 400 "},
		{"HTTP, long head", web, "GET / HTTP/1.1\r\nHost: x\r\nX: " + big, "HTTP/1.1 431 "},
		{"HTTP, large body", web, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1100000\r\n\r\n" + big, "HTTP/1.1 413 "},
		{"RESP, no count", redisService, "*x\r\n", "-ERR Protocol error"},
		{"RESP, no string", redisService, "*1\r\n:5\r\n", "-ERR Protocol error"},
		{"memcached, no length", cacheService, "set a 0 0 x\r\n", "CLIENT_ERROR "},
		{"DNS, no header", nameService, "\x00\x05abcde", ""},
		{"frames, too large", frameService, "\x7f\xff\xff\xff" + big, ""},
	} {
		answer, err := w.sayAndHear(c.s, c.request)
		switch {
		case c.answer == "" && (answer != "" || !wasReset(err)):
			t.Errorf("%s: %.100q, %v; want a reset", c.name, answer, err)
		case !strings.HasPrefix(answer, c.answer):
			t.Errorf("%s: %.100q, %v; want %q", c.name, answer, err, c.answer)
		}
	}
	// Commands that are too large are answered, and the connection goes on.
	for _, c := range []struct {
		s                          service
		request, after, want, last string
	}{
		{redisService, resp("SET", "k", big), resp("SET", "k", big), "-ERR ", "\r\n"},
		{cacheService, "set k 0 0 1100000\r\n" + big + "\r\n", "set k 0 0 1100000\r\n" + big + "\r\n", "SERVER_ERROR ", "\r\n"},
	} {
		conn := w.mustDial(c.s.through())
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		for i, request := range []string{c.request, c.after} {
			_, err := io.WriteString(conn, request)
			w.must(err)
			buf := make([]byte, 1000)
			n, err := conn.Read(buf)
			if err != nil || !strings.HasPrefix(string(buf[:n]), c.want) || !strings.HasSuffix(string(buf[:n]), c.last) {
				t.Errorf("%s, large request %d: %q, %v; want %q", c.s.name, i+1, buf[:n], err, c.want)
			}
		}
		w.must(conn.Close())
	}
	if n := connected.Load(); n != 0 {
		t.Errorf("%d connections to servers, want none", n)
	}
	w.clean(before)
}

// TestTranslateTruncated: half a request reaches no server as a whole one, half a
// response no client.
func TestTranslateTruncated(t *testing.T) {
	t.Parallel()
	w := newTranslators(t, []service{frameService})
	var whole atomic.Int32
	w.rawServer(frameService, func(c *net.TCPConn) {
		for {
			head := make([]byte, 4)
			if _, err := io.ReadFull(c, head); err != nil {
				return
			}
			body := make([]byte, bigendian.BigEndian.Uint32(head))
			if _, err := io.ReadFull(c, body); err != nil {
				return
			}
			whole.Add(1)
			if string(body) == "half" {
				_, _ = io.WriteString(c, frame("an answer that breaks off")[:15])
				return
			}
			if _, err := io.WriteString(c, frame(string(body))); err != nil {
				return
			}
		}
	})
	before := w.settled()
	w.must(w.framed("whole", nil))
	for _, half := range []string{frame("cut")[:2], frame("cut")[:5], frame(strings.Repeat("c", 500_000))[:300_000]} {
		c := w.mustDial(frameService.through())
		_, err := io.WriteString(c, half)
		w.must(err)
		w.must(c.CloseWrite())
		if answer, err := io.ReadAll(c); len(answer) > 0 || timedOut(err) {
			t.Errorf("half a request of %d bytes: %q, %v", len(half), answer, err)
		}
		w.must(c.Close())
	}
	answer, err := w.sayAndHear(frameService, frame("half"))
	if err == nil || answer == frame("an answer that breaks off") {
		t.Errorf("half a response: %q, %v; want a reset", answer, err)
	}
	if n := whole.Load(); n != 2 {
		t.Errorf("the server had %d requests, want 2", n)
	}
	w.must(w.framed("still here", nil))
	w.clean(before)
}

// framed sends a message on a connection of its own, or on c, and expects it back.
func (w *translators) framed(text string, c *net.TCPConn) error {
	if c == nil {
		var err error
		if c, err = w.dial(frameService.through()); err != nil {
			return err
		}
		defer c.Close()
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return echoed(c, frame(text))
}

// TestTranslateServerDies: requests to a server that has died fail in words, and
// succeed when it is back, on the same connection of the client.
func TestTranslateServerDies(t *testing.T) {
	t.Parallel()
	need(t, "redis-server=redis-server")
	w := newTranslators(t, []service{redisService})
	p := w.redis()
	before := w.settled()
	c := w.mustDial(redisService.through())
	ask := func() string {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, err := io.WriteString(c, resp("SET", "a", "b"))
		w.must(err)
		buf := make([]byte, 1000)
		n, err := c.Read(buf)
		w.must(err)
		return string(buf[:n])
	}
	if got := ask(); got != "+OK\r\n" {
		t.Fatalf("%q", got)
	}
	p.Kill()
	<-p.Done()
	for range 3 {
		if got := ask(); !strings.HasPrefix(got, "-ERR gateway: ") || strings.Contains(got, "timed out") {
			t.Errorf("from a dead server: %q", got)
		}
	}
	w.redis()
	w.eventually(20*time.Second, func() error {
		if got := ask(); got != "+OK\r\n" {
			return fmt.Errorf("the server is back, and the answer %q", got)
		}
		return nil
	})
	w.must(c.Close())
	w.clean(before)
}

// TestTranslateLoss: one of a hundred packets of the fabric is lost, and nothing of
// any message.
func TestTranslateLoss(t *testing.T) {
	t.Parallel()
	need(t, "redis-server=redis-server", "redis-benchmark=redis-tools", "nginx=nginx-light")
	w := newTranslators(t, []service{redisService, webService, shellService})
	w.redis()
	w.must(w.Nginx(w.ctx))
	args, err := w.SSHServer(w.ctx)
	w.must(err)
	w.file("page", content(50, 900_000))
	before := w.settled()
	w.must(w.Internet.Drop(0.01, "ip protocol 146"))

	requests := "3000"
	if long {
		requests = "100000"
	}
	failed := w.rule(w.client, "redis").FailedTotal()
	w.output("", "redis-benchmark", redisArgs(redisService.through(), "-t", "set,get", "-c", "20", "-n", requests, "-d", "3000", "--csv")...)
	if now := w.rule(w.client, "redis").FailedTotal(); now != failed {
		t.Errorf("%d requests failed", now-failed)
	}
	w.must(w.parallel("page", 20))
	w.same("ssh", shellService, func(at netip.AddrPort) string {
		return w.output("", "ssh", append(args, "root@"+at.Addr().String(), "seq 300000")...)
	})
	m, err := w.gateway.Metrics(w.ctx)
	w.must(err)
	if m[`tougw_homa_message_bytes_total{direction="resent"}`] == 0 {
		t.Error("nothing was sent again: was anything lost?")
	}
	w.must(w.Internet.Heal())
	w.clean(before)
}

// TestTranslateStoppedServer: clients that send to a server that reads nothing wait,
// and the gateways hold no more than they may.
func TestTranslateStoppedServer(t *testing.T) {
	t.Parallel()
	conns := 100
	if long {
		conns = 1000
	}
	const memory = 16 << 20
	w := newTranslators(t, []service{frameService}, "receive_memory: 16MiB", "send_memory: 16MiB")
	stop := make(chan struct{})
	w.rawServer(frameService, func(c *net.TCPConn) { <-stop })
	defer close(stop)
	usage := map[*lab.Daemon]int64{}
	for _, d := range []*lab.Daemon{w.client, w.gateway} {
		u, err := d.Usage()
		w.must(err)
		usage[d] = u.RSS
	}
	request := frame(string(content(51, 900_000)))
	for range conns {
		c := w.mustDial(frameService.through())
		go func() { _, _ = io.WriteString(c, request) }() // until the test's end
	}
	// A while after all have begun, nothing has grown without bound.
	for range 5 {
		time.Sleep(time.Second)
		for _, d := range []*lab.Daemon{w.client, w.gateway} {
			m, err := d.Metrics(w.ctx)
			w.must(err)
			for _, direction := range []string{"in", "out"} {
				if held := m[fmt.Sprintf("tougw_homa_memory_bytes{direction=%q}", direction)]; held > memory {
					t.Errorf("%s holds %.0f bytes of Homa, may %d", d.Name, held, memory)
				}
			}
			u, err := d.Usage()
			w.must(err)
			// What is bounded, twice for the collector, and 64 KiB for each client.
			if most := usage[d] + 2*(2*memory+int64(conns)*64<<10); u.RSS > most && !raced(t) {
				t.Errorf("%s: %d MiB of memory, may %d", d.Name, u.RSS>>20, most>>20)
			}
		}
	}
	// Who found no memory was told so, and the others wait.
	s := w.rule(w.client, "frames")
	if refused := s.Failed["overloaded"]; s.Connections == 0 || s.Connections+int(refused) != conns {
		t.Errorf("%d connections and %d refused, want %d together: %+v", s.Connections, refused, conns, s)
	}
}
