package translate

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience ends tests that hang; nothing depends on it otherwise.
const patience = 2 * time.Minute

const homaPort = 4000

var serverHost = netip.MustParseAddrPort("10.0.0.2:4000")

// fabric is two Homa hosts on a network in memory.
type fabric struct {
	network        *carrier.Network
	client, server *rpc.Node
	dial           Dial // to TCP servers; nil: TCP of this host
}

func newFabric(t testing.TB, network *carrier.Network, engine homa.Config) *fabric {
	t.Helper()
	if network == nil {
		network = &carrier.Network{}
	}
	if engine.Peer.TimeoutTicks == 0 {
		engine.Peer.TimeoutTicks = 2000 // a busy machine is no dead one
	}
	node := func(addr string) *rpc.Node {
		port, err := network.Attach(netip.MustParseAddr(addr))
		if err != nil {
			t.Fatal(err)
		}
		n, err := rpc.NewNode(port, rpc.Config{Engine: engine})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	return &fabric{network: network, client: node("10.0.0.1"), server: node("10.0.0.2")}
}

func framingOf(t testing.TB, c framing.Config) Rule {
	t.Helper()
	f, err := framing.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return Rule{Name: "test", Framing: f, Type: c.Type}
}

// reverse serves a rule at the server host.
func (f *fabric) reverse(t testing.TB, rule Rule, tracer *Tracer, servers ...netip.AddrPort) *Reverse {
	t.Helper()
	r, err := NewReverse(rule, servers, f.dial, tracer)
	if err != nil {
		t.Fatal(err)
	}
	s, err := f.server.Listen(homaPort, r, rpc.ServeConfig{Concurrency: r.Concurrency()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		s.Close()
	})
	return r
}

// handle serves the server host with a handler in place of a Reverse.
func (f *fabric) handle(t testing.TB, h rpc.HandlerFunc) {
	t.Helper()
	s, err := f.server.Listen(homaPort, h, rpc.ServeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
}

// forward serves a rule on a TCP port of this host.
func (f *fabric) forward(t testing.TB, rule Rule, tracer *Tracer) (*Forward, netip.AddrPort) {
	t.Helper()
	return f.forwardOver(t, rule, tracer, Over(f.client))
}

func (f *fabric) forwardOver(t testing.TB, rule Rule, tracer *Tracer, dial Dialer) (*Forward, netip.AddrPort) {
	t.Helper()
	fw, err := NewForward(rule, serverHost, dial, tracer)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = fw.Serve(ctx, l)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return fw, addrPort(l.Addr())
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveTCP runs a server that calls handle for each connection, which it closes.
func serveTCP(t testing.TB, handle func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l := listen(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[*net.TCPConn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conn := c.(*net.TCPConn)
			mu.Lock()
			conns[conn] = true
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return addrPort(l.Addr())
}

func dial(t testing.TB, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	conn := c.(*net.TCPConn)
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// converse sends input in pieces of size bytes, ends its direction, and returns all
// that comes back.
func converse(t testing.TB, to netip.AddrPort, input []byte, size int) []byte {
	t.Helper()
	conn := dial(t, to)
	defer conn.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		for rest := input; len(rest) > 0; {
			n := min(size, len(rest))
			if _, err := conn.Write(rest[:n]); err != nil {
				return // the server may have closed; what it answered counts
			}
			rest = rest[n:]
		}
		_ = conn.CloseWrite()
	})
	got, err := io.ReadAll(conn)
	wg.Wait()
	if err != nil {
		t.Errorf("after %d bytes: %v", len(got), err)
	}
	return got
}

func write(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	if err != nil || string(got) != want {
		t.Fatalf("got %d bytes, %.100q; want %d, %.100q: %v", n, got[:n], len(want), want, err)
	}
}

// expectEnd reads to the end and says how it came: nil for FIN.
func expectEnd(c net.Conn) (rest []byte, err error) { return io.ReadAll(c) }

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after %v", what, patience)
		}
	}
}

// sameBytes compares long texts.
func sameBytes(t testing.TB, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	from := max(0, i-40)
	t.Errorf("%d bytes, want %d; they differ at %d: %.120q, want %.120q", len(got), len(want), i,
		got[min(from, len(got)):], want[min(from, len(want)):])
}

// text is n bytes without a line end, different at each place.
func text(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%d ", i)
	}
	return b[:n]
}
