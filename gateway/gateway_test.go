package gateway

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
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/tougw/tougw/internal/admin"
	"github.com/tougw/tougw/internal/pki"
	"github.com/tougw/tougw/internal/simnet"
	"github.com/tougw/tougw/tcpip/tcptest"
)

// sendNoise answers each connection with size bytes and closes it.
func sendNoise(seed uint64, size int64) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, noise(seed, size)) // a reader that leaves is the test's business
	}
}

func TestTransfersOverBadPaths(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		link simnet.Link
		size int64
	}{
		{"good path", simnet.Link{}, 64 << 20},
		{"1% loss", simnet.Link{Loss: 0.01}, 4 << 20},
		{"5% loss", simnet.Link{Loss: 0.05, Delay: ms}, 1 << 20},
		{"reordering", simnet.Link{Reorder: 0.1, ReorderDelay: 2 * ms}, 4 << 20},
		{"duplicates", simnet.Link{Duplicate: 0.1}, 16 << 20},
		{"delay and jitter", simnet.Link{Delay: 20 * ms, Jitter: 5 * ms}, 16 << 20},
		{"bit errors", simnet.Link{Corrupt: 0.01}, 4 << 20},
		{"exact MTU", simnet.Link{MTU: 1400}, 4 << 20},
		{"all of it", simnet.Link{Loss: 0.01, Reorder: 0.02, ReorderDelay: ms, Duplicate: 0.02, Corrupt: 0.005, Delay: 2 * ms, Jitter: ms}, 1 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			client, edge := w.pair()
			w.net.SetDefault(c.link)
			down := serve(t, sendNoise(7, c.size))
			up := serve(t, func(s *net.TCPConn) {
				defer s.Close()
				sum, n, err := digest(s)
				fmt.Fprintf(s, "%x %d %v", sum, n, err)
			})
			var wg sync.WaitGroup
			wg.Go(func() {
				conn := client.dial(destAddr, down)
				if err := download(conn, 7, c.size); err != nil {
					t.Errorf("download: %v", err)
				}
			})
			wg.Go(func() {
				conn := client.dial(destAddr, up)
				if _, err := io.Copy(conn, noise(8, c.size)); err != nil {
					t.Errorf("upload: %v", err)
					return
				}
				if err := conn.CloseWrite(); err != nil {
					t.Errorf("upload: FIN: %v", err)
				}
				got, err := io.ReadAll(conn)
				sum, n, _ := digest(noise(8, c.size))
				if want := fmt.Sprintf("%x %d <nil>", sum, n); err != nil || string(got) != want {
					t.Errorf("upload: server saw %q (%v), want %q", got, err, want)
				}
			})
			wg.Wait()
			t.Logf("drops: client %v, edge %v", happened(client), happened(edge))
		})
	}
}

func happened(r *running) string {
	var b strings.Builder
	for _, d := range r.Status().Drops {
		if d.Count > 0 {
			fmt.Fprintf(&b, "%s.%s=%d ", d.Where, d.Reason, d.Count)
		}
	}
	return b.String()
}

func TestFarSideFirst(t *testing.T) {
	w := newWorld(t)
	client, edge := w.pair()
	closed := serve(t, func(c *net.TCPConn) { c.Close() })
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := netip.MustParseAddrPort(l.Addr().String()).Port()
	l.Close()
	for _, c := range []struct {
		name string
		dst  netip.Addr
		port uint16
		want error
	}{
		{"refused", destAddr, refusing, syscall.ECONNREFUSED},
		{"host unreachable", noRoute, 80, syscall.EHOSTUNREACH},
		{"network unreachable", noNet, 80, syscall.ENETUNREACH},
		{"rejected here", netip.MustParseAddr("198.51.100.13"), closed, syscall.EHOSTUNREACH},
		{"denied by the peer", netip.MustParseAddr("192.0.2.200"), closed, syscall.EHOSTUNREACH},
		{"the peer's own address", edgeAddr, 443, syscall.EHOSTUNREACH},
	} {
		_, err := client.tryDial(c.dst, c.port, 15*time.Second)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := client.tryDial(deadAddr, 80, 3*time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dead host: %v, want silence", err)
	}
	if n := edge.bridge.Len(); n != 0 {
		t.Errorf("%d flows at the edge, want none", n)
	}
	client.dial(netip.MustParseAddr("198.51.100.14"), closed) // direct
	client.dial(destAddr6, closed)                            // IPv6
}

func TestHalfCloseBothWays(t *testing.T) {
	w := newWorld(t)
	client, _ := w.pair()
	late := serve(t, func(c *net.TCPConn) { // answers after the client's FIN
		defer c.Close()
		b, _ := io.ReadAll(c)
		time.Sleep(300 * time.Millisecond)
		fmt.Fprintf(c, "got %d", len(b))
	})
	early := make(chan string, 1)
	first := serve(t, func(c *net.TCPConn) { // FIN first, then reads
		defer c.Close()
		c.CloseWrite()
		b, _ := io.ReadAll(c)
		early <- fmt.Sprint(len(b))
	})
	c := client.dial(destAddr, late)
	io.WriteString(c, "question")
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "got 8" {
		t.Errorf("reply after our FIN: %q %v", b, err)
	}
	c = client.dial(destAddr, first)
	if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
		t.Errorf("server's FIN: %q %v", b, err)
	}
	time.Sleep(200 * time.Millisecond)
	if _, err := io.Copy(c, noise(1, 1<<20)); err != nil {
		t.Errorf("upload after the server's FIN: %v", err)
	}
	c.CloseWrite()
	select {
	case n := <-early:
		if n != "1048576" {
			t.Errorf("server read %s bytes", n)
		}
	case <-time.After(10 * time.Second):
		t.Error("upload after the server's FIN did not end")
	}
	eventually(t, "flows ended", func() bool { return client.bridge.Len() == 0 })
}

func TestResetsTravelBothWays(t *testing.T) {
	w := newWorld(t)
	client, edge := w.pair()
	byServer := serve(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 4))
		c.SetLinger(0)
		c.Close()
	})
	seen := make(chan error, 1)
	byClient := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		io.ReadFull(c, make([]byte, 4))
		_, err := c.Read(make([]byte, 1))
		seen <- err
	})
	c := client.dial(destAddr, byServer)
	io.WriteString(c, "ping")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("server's RST: %v", err)
	}
	c = client.dial(destAddr, byClient)
	io.WriteString(c, "ping")
	eventually(t, "bytes at the server", func() bool { fs := edge.Flows(); return len(fs) > 0 && fs[len(fs)-1].BytesUp == 4 })
	c.Reset()
	select {
	case err := <-seen:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("client's RST at the server: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("client's RST did not reach the server")
	}
	eventually(t, "flows ended", func() bool { return client.bridge.Len()+edge.bridge.Len() == 0 })
}

func TestDownloadsAreNeverTruncated(t *testing.T) {
	w := newWorld(t)
	client, edge := w.pair()
	w.net.SetDefault(simnet.Link{Loss: 0.001})
	const n = 400
	var next sync.Map
	port := serve(t, func(c *net.TCPConn) {
		var id [2]byte
		if _, err := io.ReadFull(c, id[:]); err != nil {
			c.Close()
			return
		}
		seed := uint64(id[0])<<8 | uint64(id[1])
		size, _ := next.Load(seed)
		sendNoise(seed, size.(int64))(c)
	})
	work := make(chan uint64)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for seed := range work {
				size := int64(seed*seed*7919%(256<<10)) + 1
				next.Store(seed, size)
				c, err := client.tryDial(destAddr, port, 20*time.Second)
				if err != nil {
					t.Errorf("download %d: %v", seed, err)
					continue
				}
				c.Write([]byte{byte(seed >> 8), byte(seed)})
				if err := download(c, seed, size); err != nil {
					t.Errorf("download %d: %v", seed, err)
				}
				c.Close()
			}
		})
	}
	for i := range uint64(n) {
		work <- i
	}
	close(work)
	wg.Wait()
	eventually(t, "flows ended", func() bool { return client.bridge.Len()+edge.bridge.Len() == 0 })
	if st := client.Status(); st.Flows.Opened != n || st.Flows.Failed != 0 {
		t.Errorf("%d flows opened and %d failed, want %d and none", st.Flows.Opened, st.Flows.Failed, n)
	}
}

// echo returns what it reads.
func echo(c *net.TCPConn) {
	defer c.Close()
	_, _ = io.Copy(c, c)
}

// pingPong sends a message and waits for its echo.
func pingPong(c net.Conn, msg string) error {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, msg); err != nil {
		return err
	}
	b := make([]byte, len(msg))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != msg {
		return fmt.Errorf("echo %q of %q", b, msg)
	}
	return nil
}

func TestFlowSurvivesAnOutageAndANewAssociation(t *testing.T) {
	w := newWorld(t)
	client, edge := w.pair()
	c := client.dial(destAddr, serve(t, echo))
	if err := pingPong(c, "before"); err != nil {
		t.Fatal(err)
	}
	before := client.Status().Peers[0].LastHandshake
	w.net.SetBoth(clientAddr, edgeAddr, simnet.Link{Blackhole: true})
	done := make(chan error, 1)
	go func() { done <- pingPong(c, "during the outage") }()
	time.Sleep(6 * time.Second) // long enough for the client to try anew
	w.net.SetBoth(clientAddr, edgeAddr, simnet.Link{})
	if err := <-done; err != nil {
		t.Fatalf("after the outage: %v", err)
	}
	t.Logf("new association: %v", !client.Status().Peers[0].LastHandshake.Equal(before))
	if err := pingPong(c, "after"); err != nil {
		t.Fatal(err)
	}
	if n := edge.bridge.Len(); n != 1 {
		t.Errorf("%d flows at the edge", n)
	}
}

func TestRestartOfTheEdgeResetsFlowsSoon(t *testing.T) {
	w := newWorld(t)
	client, edge := w.pair()
	port := serve(t, echo)
	c := client.dial(destAddr, port)
	if err := pingPong(c, "before"); err != nil {
		t.Fatal(err)
	}
	// As a crash: nothing that the old process says gets out.
	w.net.SetBoth(clientAddr, edgeAddr, simnet.Link{Blackhole: true})
	edge.end()
	w.net.SetBoth(clientAddr, edgeAddr, simnet.Link{})
	w.start(edgeAddr, edgeYAML)
	start := time.Now()
	if err := pingPong(c, "into the void"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("flow of the edge that went away: %v, want a reset", err)
	}
	t.Logf("reset after %v", time.Since(start).Round(10*time.Millisecond))
	fresh := client.dial(destAddr, port)
	if err := pingPong(fresh, "again"); err != nil {
		t.Error(err)
	}
}

func TestOverlappingClients(t *testing.T) {
	w := newWorld(t, "laptop-2", "laptop-3")
	edge := w.start(edgeAddr, edgeYAML)
	port := serve(t, echo)
	var conns []*tcptest.Conn
	for i, name := range []string{"laptop-1", "laptop-2", "laptop-3"} {
		r := w.start(netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)}), clientYAML(name))
		w.waitUp(r)
		// The same address and port on every host.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		c, err := r.host.DialFrom(ctx, netip.MustParseAddrPort("10.77.0.7:5555"), netip.AddrPortFrom(destAddr, port))
		cancel()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
	}
	for round := range 20 {
		for i, c := range conns {
			if err := pingPong(c, fmt.Sprintf("client %d round %d", i, round)); err != nil {
				t.Fatalf("client %d: %v", i, err)
			}
		}
	}
	peers := map[string]bool{}
	for _, f := range edge.Flows() {
		if f.Src != "10.77.0.7:5555" {
			t.Errorf("flow from %s", f.Src)
		}
		peers[f.Peer] = true
	}
	if len(peers) != 3 {
		t.Errorf("flows of %v, want three peers", peers)
	}
}

func TestFlowsFromTheGatewayToAClient(t *testing.T) {
	w := newWorld(t)
	edge := w.start(edgeAddr, `name: edge
identity: {cert: edge.crt, key: edge.key, ca: ca.crt}
listen: ["203.0.113.7:443"]
tun: {addresses: ["10.99.0.1/32"], routes: ["10.1.0.0/16"]}
rules: [{dst: ["10.1.0.0/16"], action: tunnel, peer: laptop-1}]
`)
	client := w.start(clientAddr, `name: laptop-1
identity: {cert: laptop-1.crt, key: laptop-1.key, ca: ca.crt}
peers: [{name: edge, endpoints: ["203.0.113.7:443"], server_name: edge}]
accept: [{peer: edge, dst: ["10.1.0.0/16"], action: tcp}]
`)
	w.waitUp(client)
	c := edge.dial(netip.MustParseAddr("10.1.0.5"), serve(t, echo))
	if err := pingPong(c, "hello there"); err != nil {
		t.Fatal(err)
	}
	if f := client.Flows(); len(f) != 1 || f[0].Direction != "inbound" || f[0].Peer != "edge" {
		t.Errorf("flows of the client: %+v", f)
	}
	if f := edge.Flows(); len(f) != 1 || f[0].Direction != "outbound" || f[0].Peer != "laptop-1" {
		t.Errorf("flows of the edge: %+v", f)
	}
}

func TestPreSharedKey(t *testing.T) {
	w := newWorld(t)
	file, err := pki.PSK("laptop-9", w.dir+"/psk")
	if err != nil {
		t.Fatal(err)
	}
	w.start(edgeAddr, strings.Replace(edgeYAML, "identity: {", "identity: {psk_dir: psk, ", 1))
	client := w.start(clientAddr, strings.NewReplacer(
		"identity: {cert: laptop-9.crt, key: laptop-9.key, ca: ca.crt}", "identity: {psk: {identity: laptop-9, key_file: "+file+"}}",
		", server_name: edge", "",
	).Replace(clientYAML("laptop-9")))
	w.waitUp(client)
	if err := pingPong(client.dial(destAddr, serve(t, echo)), "by key"); err != nil {
		t.Fatal(err)
	}
}

func TestStrangersStayOutside(t *testing.T) {
	w := newWorld(t, "stranger")
	other := newWorld(t) // another CA
	port := serve(t, echo)
	for _, c := range []struct {
		name, yaml, want string
		dir              string
	}{
		{"wrong server name", strings.Replace(clientYAML("laptop-1"), "server_name: edge", "server_name: core", 1), "core", w.dir},
		{"another authority", strings.ReplaceAll(clientYAML("laptop-1"), ": laptop-1.", ": "+other.dir+"/laptop-1."), "", w.dir},
	} {
		t.Run(c.name, func(t *testing.T) {
			edge := w.start(edgeAddr, edgeYAML)
			client := w.start(clientAddr, c.yaml)
			eventually(t, "a failed attempt", func() bool { return client.Status().Peers[0].Error != "" })
			if e := client.Status().Peers[0].Error; !strings.Contains(e, c.want) {
				t.Errorf("the error %q does not name %q", e, c.want)
			} else {
				t.Log(e)
			}
			if _, err := client.tryDial(destAddr, port, 10*time.Second); !errors.Is(err, syscall.EHOSTUNREACH) {
				t.Errorf("dial without a peer: %v", err)
			}
			if n := len(edge.Status().Peers); n != 0 {
				t.Errorf("the edge has %d peers", n)
			}
			client.end()
			edge.end()
		})
	}
	t.Run("no accept rule", func(t *testing.T) {
		w.start(edgeAddr, edgeYAML)
		client := w.start(clientAddr, clientYAML("stranger"))
		w.waitUp(client)
		if _, err := client.tryDial(destAddr, port, 10*time.Second); !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("dial: %v", err)
		}
	})
}

func TestReplayedDatagramsChangeNothing(t *testing.T) {
	w := newWorld(t)
	client, edge := w.pair()
	w.net.Record(1 << 16)
	port := serve(t, echo)
	c := client.dial(destAddr, port)
	for i := range 50 {
		if err := pingPong(c, fmt.Sprintf("message %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	recorded := w.net.Recorded()
	if len(recorded) < 100 {
		t.Fatalf("%d datagrams recorded", len(recorded))
	}
	w.net.Inject(recorded...)
	for _, d := range recorded { // and with a number that was not used yet
		d.Payload = bytes.Clone(d.Payload)
		d.Payload[9] ^= 0x40
		w.net.Inject(d)
	}
	if err := pingPong(c, "still in order"); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*running{client, edge} {
		if !strings.Contains(happened(r), "dtls.replay=") || !strings.Contains(happened(r), "dtls.open_failed=") {
			t.Errorf("%s counted %s", r.cfg.Name, happened(r))
		}
	}
}

func TestBackPressure(t *testing.T) {
	w := newWorld(t)
	client, _ := w.pair()
	hold := make(chan struct{})
	port := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		c.SetReadBuffer(64 << 10)
		<-hold
		n, _ := io.Copy(io.Discard, c)
		fmt.Fprint(c, n)
	})
	c := client.dial(destAddr, port)
	c.SetBuffers(0, 128<<10) // as a kernel that does not tune for a path that stands still
	c.SetWriteDeadline(time.Now().Add(4 * time.Second))
	n, err := io.Copy(c, noise(1, 64<<20))
	if err == nil {
		t.Fatalf("a reader that never reads took %d bytes", n)
	}
	t.Logf("absorbed %d KiB for a reader that never reads", n>>10)
	if n > 1<<20 {
		t.Errorf("absorbed %d bytes, more than 1 MiB", n)
	}
	close(hold)
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || len(b) == 0 {
		t.Errorf("after the reader reads: %q %v", b, err)
	}
}

func TestStatusAndMetrics(t *testing.T) {
	w := newWorld(t)
	client, edge := w.pair()
	c := client.dial(destAddr, serve(t, echo))
	if err := pingPong(c, "hello"); err != nil {
		t.Fatal(err)
	}
	cl := admin.NewClient(client.cfg.Admin.Socket)
	st, err := cl.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := st.Peers[0]
	if p.State != "up" || p.Identity == "" || p.Endpoint != "203.0.113.7:443" || p.PathMTU != 1400 || p.BytesIn == 0 || p.BytesOut == 0 || !p.ConnectionID || p.LastHandshake.IsZero() {
		t.Errorf("peer: %+v", p)
	}
	fl, err := cl.Flows(t.Context())
	if err != nil || len(fl) != 1 {
		t.Fatalf("flows: %v %v", fl, err)
	}
	f := fl[0]
	if f.Direction != "outbound" || f.Peer != "edge" || !strings.HasPrefix(f.Dst, "198.51.100.9:") || f.BytesUp != 5 || f.BytesDown != 5 || f.State != "open" {
		t.Errorf("flow: %+v", f)
	}
	var b strings.Builder
	if err := st.WriteText(&b); err != nil || !strings.Contains(b.String(), "203.0.113.7:443") {
		t.Errorf("text: %v\n%s", err, b.String())
	}
	for _, r := range []*running{client, edge} {
		families, err := r.reg.Gatherer().Gather()
		if err != nil {
			t.Fatal(err)
		}
		ours := families[:0]
		for _, f := range families {
			if strings.HasPrefix(f.GetName(), "tougw_") {
				ours = append(ours, f)
			}
		}
		if len(ours) < 15 {
			t.Errorf("%d metrics of ours", len(ours))
		}
		problems, err := promlint.NewWithMetricFamilies(ours).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("metric names: %v %v", problems, err)
		}
	}
	eventually(t, "round trip known", func() bool { return client.Status().Peers[0].RTTMs > 0 })
}

func TestSecondStartIsRefused(t *testing.T) {
	w := newWorld(t)
	client, _ := w.pair()
	g, err := New(client.cfg, client.opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); !errors.Is(err, admin.ErrRunning) {
		t.Errorf("second start: %v", err)
	}
	if err := pingPong(client.dial(destAddr, serve(t, echo)), "undisturbed"); err != nil {
		t.Error(err)
	}
}

func TestStopDrains(t *testing.T) {
	w := newWorld(t)
	client, edge := w.pair()
	edge.opt.DrainTimeout = time.Minute // more than the slowest machine takes for what is left
	port := serve(t, sendNoise(3, 8<<20))
	c := client.dial(destAddr, port)
	first := make([]byte, 1000)
	if _, err := io.ReadFull(c, first); err != nil {
		t.Fatal(err)
	}
	edge.stop()
	eventually(t, "the client knows", func() bool { return client.Status().Peers[0].State == "draining" })
	if _, err := client.tryDial(destAddr, port, 10*time.Second); err == nil {
		t.Error("a stopping edge took a new flow")
	}
	if err := download(struct {
		io.Reader
		io.Writer
		io.Closer
	}{io.MultiReader(bytes.NewReader(first), c), c, c}, 3, 8<<20); err != nil {
		t.Errorf("download during the drain: %v", err)
	}
}
