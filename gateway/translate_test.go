package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rawip"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/internal/admin"
)

// The hosts of the fabric.
var (
	doorAddr = netip.MustParseAddr("10.1.0.1")
	backAddr = netip.MustParseAddr("10.1.0.2")
	kvAddr   = netip.MustParseAddr("10.1.0.5")
)

// patience keeps a slow machine from looking like a dead one.
const patience = "homa: {resend: 50ms, timeout: 20s}\n"

// freePort is a TCP port that nobody has at the moment.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// onFabric puts the Homa of a gateway on a fabric in memory.
func onFabric(fabric *carrier.Network, at netip.Addr) func(*Options) {
	return func(o *Options) {
		o.OpenHoma = func(rawip.Config) (carrier.Carrier, error) { return fabric.Attach(at) }
	}
}

// startWith is start with other options.
func (w *world) startWith(at netip.Addr, yaml string, change ...func(*Options)) *running {
	w.t.Helper()
	r := w.prepare(at, yaml, change...)
	r.run()
	select {
	case <-r.ready:
	case err := <-r.done:
		close(r.done)
		w.t.Fatalf("%s did not start: %v", r.cfg.Name, err)
	case <-time.After(10 * time.Second):
		w.t.Fatalf("%s did not start in 10 s", r.cfg.Name)
	}
	return r
}

// echoServer answers RPCs to port 4000 with their request in capitals.
func echoServer(t *testing.T, fabric *carrier.Network) {
	t.Helper()
	c, err := fabric.Attach(kvAddr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := rpc.NewNode(c, rpc.Config{Engine: homa.Config{Peer: homa.PeerConfig{ResendTicks: 50, ResendInterval: 50, TimeoutTicks: 20_000}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if _, err := n.Listen(4000, rpc.HandlerFunc(func(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
		b, err := req.ReadAll()
		if err == nil {
			_, err = w.Write(bytes.ToUpper(b))
		}
		return err
	}), rpc.ServeConfig{}); err != nil {
		t.Fatal(err)
	}
}

// ask sends a line and reads one.
func ask(c io.ReadWriter, line string) (string, error) {
	if _, err := io.WriteString(c, line); err != nil {
		return "", err
	}
	b := make([]byte, len(line))
	_, err := io.ReadFull(c, b)
	return string(b), err
}

func dialLoopback(t *testing.T, port uint16) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// TestTranslate takes requests from TCP over Homa to TCP, through two gateways, and
// looks at all that tells of them.
func TestTranslate(t *testing.T) {
	w := newWorld(t)
	fabric := &carrier.Network{}
	server := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		io.Copy(c, c)
	})
	port := freePort(t)
	var log lockedBuffer
	door := w.startWith(clientAddr, fmt.Sprintf(`name: door
translate:
- name: lines
  from: {tcp: "127.0.0.1:%d"}
  to: {homa: "10.1.0.2:4100"}
  framing: {type: delimiter, delimiter: "\n"}
  access_log: true
`, port)+patience, onFabric(fabric, doorAddr), func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	back := w.startWith(edgeAddr, fmt.Sprintf(`name: back
translate:
- name: echo
  from: {homa: ":4100"}
  to: {tcp: "127.0.0.1:%d"}
  framing: {type: delimiter, delimiter: "\n"}
`, server)+patience, onFabric(fabric, backAddr))

	live, err := door.Requests(admin.RequestFilter{Rule: "lines"})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	c := dialLoopback(t, port)
	for i := range 5 {
		line := strings.Repeat("x", i*1000) + "\n"
		if got, err := ask(c, line); got != line || err != nil {
			t.Fatalf("line of %d bytes: %d bytes, %v", len(line), len(got), err)
		}
	}
	var ids []string
	for i := range 5 {
		r, err := live.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Rule != "lines" || r.Direction != "tcp-homa" || r.Result != "ok" || r.Server != "10.1.0.2:4100" ||
			r.Client != c.LocalAddr().String() || r.RequestBytes != int64(i*1000+1) || r.ResponseBytes != r.RequestBytes || r.Total <= 0 {
			t.Errorf("request %d: %+v", i, r)
		}
		ids = append(ids, r.ID)
	}
	// The same requests at the other gateway have the same ids.
	eventually(t, "all requests told of", func() bool { kept, _ := back.LastRequests(admin.RequestFilter{}); return len(kept) == 5 })
	kept, err := back.LastRequests(admin.RequestFilter{Addr: "10.1.0.0/24"})
	if err != nil || len(kept) != 5 {
		t.Fatalf("%d kept, %v", len(kept), err)
	}
	for i, r := range kept {
		if r.ID != ids[i] || r.Rule != "echo" || r.Direction != "homa-tcp" || r.Server != fmt.Sprintf("127.0.0.1:%d", server) {
			t.Errorf("request %d: %+v, want id %s", i, r, ids[i])
		}
	}
	if kept, err := back.LastRequests(admin.RequestFilter{Errors: true}); len(kept) > 0 || err != nil {
		t.Errorf("failed: %+v, %v", kept, err)
	}

	// What was written is counted after the client may have it.
	eventually(t, "bytes counted", func() bool { return door.Status().Translations[0].BytesOut == 10_005 })
	s := door.Status()
	if len(s.Translations) != 1 || s.Homa == nil || s.Homa.CallsTotal != 5 {
		t.Fatalf("status: %+v, %+v", s.Translations, s.Homa)
	}
	want := admin.Translation{
		Name: "lines", Direction: "tcp-homa", Framing: "delimiter", From: fmt.Sprintf("tcp 127.0.0.1:%d", port), To: "homa 10.1.0.2:4100",
		Connections: 1, ConnectionsTotal: 1, Requests: 5, BytesIn: 10_005, BytesOut: 10_005,
	}
	got := s.Translations[0]
	if n := got.FailedTotal(); n > 0 {
		t.Errorf("%d failed: %v", n, got.Failed)
	}
	if got.Failed = nil; !reflect.DeepEqual(got, want) {
		t.Errorf("status:\n%+v, want\n%+v", got, want)
	}
	if got := back.Status().Translations[0]; got.Requests != 5 || len(got.Servers) != 1 || !got.Servers[0].Up {
		t.Errorf("status of the other: %+v", got)
	}
	for _, r := range []*running{door, back} {
		if ok, why := r.Ready(); !ok {
			t.Errorf("%s is not ready: %s", r.cfg.Name, why)
		}
	}
	samples := gather(t, door)
	if samples[`tougw_translate_requests_total{ok,lines}`] != 5 || samples[`tougw_translate_bytes_total{in,lines}`] != 10_005 ||
		samples[`tougw_homa_rpcs_total{ok,client}`] != 5 {
		t.Errorf("metrics: %v", samples)
	}
	if n := strings.Count(log.String(), "subsystem=access rule=lines id="); n != 5 {
		t.Errorf("%d lines of access in\n%s", n, log.String())
	}
}

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// gather returns the metrics of a gateway as name{values}, the values in the order
// of their labels' names.
func gather(t *testing.T, r *running) map[string]float64 {
	t.Helper()
	families, err := r.reg.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	samples := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
			}
			samples[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return samples
}

// TestTranslateLarge has messages up to Homa's limit, longer than what is held of
// one.
func TestTranslateLarge(t *testing.T) {
	w := newWorld(t)
	fabric := &carrier.Network{}
	server := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		for {
			b := make([]byte, 4)
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			b = append(b, make([]byte, binary.BigEndian.Uint32(b))...)
			if _, err := io.ReadFull(c, b[4:]); err != nil {
				return
			}
			c.Write(b)
		}
	})
	port := freePort(t)
	const framed = "framing: {type: length-prefixed, bytes: 4}"
	w.startWith(clientAddr, fmt.Sprintf(`name: door
translate: [{name: large, from: {tcp: "127.0.0.1:%d"}, to: {homa: "10.1.0.2:4100"}, `+framed+`}]
`, port)+patience, onFabric(fabric, doorAddr))
	w.startWith(edgeAddr, fmt.Sprintf(`name: back
translate: [{name: large, from: {homa: ":4100"}, to: {tcp: "127.0.0.1:%d"}, `+framed+`}]
`, server)+patience, onFabric(fabric, backAddr))
	c := dialLoopback(t, port)
	c.SetDeadline(time.Now().Add(30 * time.Second))
	for _, size := range []int{1, 100_000, 300_000, 999_996, 1} {
		body, err := io.ReadAll(noise(9, int64(size)))
		if err != nil {
			t.Fatal(err)
		}
		message := append(binary.BigEndian.AppendUint32(nil, uint32(size)), body...)
		if _, err := c.Write(message); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(message))
		if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, message) {
			t.Fatalf("%d bytes: %d came back, %v", size, n, err)
		}
	}
}

// TestTranslateStream carries bytes without messages, with half-close.
func TestTranslateStream(t *testing.T) {
	w := newWorld(t)
	fabric := &carrier.Network{}
	const size = 3 << 20
	server := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		sum, n, err := digest(c)
		if _, err := fmt.Fprintf(c, "%x %d %v", sum, n, err); err != nil {
			return
		}
	})
	port := freePort(t)
	w.startWith(clientAddr, fmt.Sprintf(`name: door
translate: [{name: any, from: {tcp: "127.0.0.1:%d"}, to: {homa: "10.1.0.2:4100"}, framing: {type: stream}}]
`, port)+patience, onFabric(fabric, doorAddr))
	w.startWith(edgeAddr, fmt.Sprintf(`name: back
translate: [{name: any, from: {homa: ":4100"}, to: {tcp: "127.0.0.1:%d"}, framing: {type: stream}}]
`, server)+patience, onFabric(fabric, backAddr))
	c := dialLoopback(t, port)
	if _, err := io.Copy(c, noise(7, size)); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	sum, _, _ := digest(noise(7, size))
	got, err := io.ReadAll(c)
	if want := fmt.Sprintf("%x %d <nil>", sum, size); string(got) != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

const lines = `framing: {type: delimiter, delimiter: "\n"}`

// TestTranslateFlowsOfPeers takes flows of a peer to a Homa server, after accept.
func TestTranslateFlowsOfPeers(t *testing.T) {
	w := newWorld(t)
	fabric := &carrier.Network{}
	echoServer(t, fabric)
	edge := w.startWith(edgeAddr, `name: edge
identity: {cert: edge.crt, key: edge.key, ca: ca.crt}
listen: ["203.0.113.7:443"]
accept:
- {peer: "laptop-*", dst: ["198.51.100.9/32"], ports: ["7000-7001"], action: homa}
- {peer: "laptop-*", dst: ["198.51.100.9/32"], ports: ["7002"], action: tcp}
translate:
- {name: kv, from: {tunnel: {dst: 198.51.100.9, port: 7000}}, to: {homa: "10.1.0.5:4000"}, `+lines+`}
- {name: kv-tcp, from: {tunnel: {dst: 198.51.100.9, port: 7002}}, to: {homa: "10.1.0.5:4000"}, `+lines+`}
- {name: closed, from: {tunnel: {dst: 198.51.100.9, port: 7003}}, to: {homa: "10.1.0.5:4000"}, `+lines+`}
`+patience, onFabric(fabric, doorAddr))
	client := w.start(clientAddr, clientYAML("laptop-1"))
	w.waitUp(client)

	for _, port := range []uint16{7000, 7002} {
		c := client.dial(destAddr, port)
		if got, err := ask(c, "hello\n"); got != "HELLO\n" || err != nil {
			t.Errorf("port %d: %q, %v", port, got, err)
		}
		c.Close()
	}
	// What only a translation may have is not connected by TCP, and a rule opens
	// nothing by itself.
	for _, port := range []uint16{7001, 7003} {
		if _, err := client.tryDial(destAddr, port, 20*time.Second); !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("port %d: %v", port, err)
		}
	}
	eventually(t, "record", func() bool { kept, _ := edge.LastRequests(admin.RequestFilter{Rule: "kv"}); return len(kept) == 1 })
	kept, err := edge.LastRequests(admin.RequestFilter{Rule: "kv"})
	if err != nil || kept[0].Peer != "laptop-1" || !strings.HasPrefix(kept[0].Client, "10.77.0.7:") || kept[0].Server != "10.1.0.5:4000" {
		t.Errorf("record: %+v, %v", kept, err)
	}
	// The sessions are given back.
	eventually(t, "end of the flows", func() bool {
		for _, r := range edge.Status().Translations {
			if r.Connections > 0 {
				return false
			}
		}
		return true
	})
	if n := edge.bridge.Stats().Opened; n != 0 {
		t.Errorf("%d flows were bridged", n)
	}
}

// TestTranslateCapturedFlows takes captured flows to a Homa server, after rules.
func TestTranslateCapturedFlows(t *testing.T) {
	w := newWorld(t)
	fabric := &carrier.Network{}
	echoServer(t, fabric)
	client := w.startWith(clientAddr, `name: laptop-1
tun: {addresses: ["10.77.0.7/32"], routes: ["198.51.100.0/24"]}
rules:
- {dst: ["198.51.100.9/32"], ports: [7001], action: reject}
- {action: direct}
translate:
- {name: kv, from: {tunnel: {dst: 198.51.100.9, port: 7000}}, to: {homa: "10.1.0.5:4000"}, `+lines+`}
- {name: no, from: {tunnel: {dst: 198.51.100.9, port: 7001}}, to: {homa: "10.1.0.5:4000"}, `+lines+`}
`+patience, onFabric(fabric, doorAddr))
	c := client.dial(destAddr, 7000)
	if got, err := ask(c, "hello\n"); got != "HELLO\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := client.tryDial(destAddr, 7001, 20*time.Second); err == nil {
		t.Error("a rejected flow is translated")
	}
}

// TestTranslateFull tells of clients that wait because others have all places.
func TestTranslateFull(t *testing.T) {
	w := newWorld(t)
	fabric := &carrier.Network{}
	echoServer(t, fabric)
	port := freePort(t)
	var log lockedBuffer
	door := w.startWith(clientAddr, fmt.Sprintf(`name: door
translate: [{name: kv, from: {tcp: "127.0.0.1:%d"}, to: {homa: "10.1.0.5:4000"}, limits: {connections: 1}, `+lines+`}]
`, port)+patience, onFabric(fabric, doorAddr), func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	first := dialLoopback(t, port)
	if got, err := ask(first, "hello\n"); got != "HELLO\n" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	for n := range 3 {
		next := dialLoopback(t, port)
		eventually(t, "a client that waits", func() bool {
			s := door.Status().Translations[0]
			return s.ConnectionsWaited == uint64(n+1) && s.ConnectionsWaiting == 1
		})
		if samples := gather(t, door); samples["tougw_translate_connections_waiting{kv}"] != 1 ||
			samples["tougw_translate_connections_waited_total{kv}"] != float64(n+1) {
			t.Errorf("metrics: %v", samples)
		}
		first.Close()
		if got, err := ask(next, "hello\n"); got != "HELLO\n" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		first = next
	}
	if text := log.String(); strings.Count(text, `msg="limits.connections is reached: clients wait" subsystem=translate rule=kv connections=1 client=127.0.0.1:`) != 1 {
		t.Errorf("log:\n%s", text)
	}
}

// TestTranslateVia follows a request from the gateway of its client by that of a peer
// to the fabric: the gateway in the middle knows both of its ids.
func TestTranslateVia(t *testing.T) {
	w := newWorld(t)
	fabric := &carrier.Network{}
	server := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		io.Copy(c, c)
	})
	edge := w.startWith(edgeAddr, `name: edge
identity: {cert: edge.crt, key: edge.key, ca: ca.crt}
listen: ["203.0.113.7:443"]
accept:
- {peer: "laptop-*", dst: ["10.1.0.9/32"], action: reject}
- {peer: "laptop-*", dst: ["10.1.0.0/24"], ports: ["4100", "4200-4300"], action: homa}
`+patience, onFabric(fabric, doorAddr))
	back := w.startWith(deadAddr, fmt.Sprintf(`name: back
translate: [{name: echo, from: {homa: ":4100"}, to: {tcp: "127.0.0.1:%d"}, `+lines+`}]
`, server)+patience, onFabric(fabric, backAddr))
	port, closed := freePort(t), freePort(t)
	near := w.startWith(clientAddr, fmt.Sprintf(`name: laptop-1
identity: {cert: laptop-1.crt, key: laptop-1.key, ca: ca.crt}
peers: [{name: edge, endpoints: ["203.0.113.7:443"], server_name: edge}]
translate:
- {name: kv, from: {tcp: "127.0.0.1:%d"}, to: {homa: "10.1.0.2:4100", via: edge}, `+lines+`}
- {name: closed, from: {tcp: "127.0.0.1:%d"}, to: {homa: "10.1.0.2:4200", via: edge}, `+lines+`}
`, port, closed))
	w.waitUp(near)

	live, err := edge.Requests(admin.RequestFilter{Rule: "accept[1]"})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	line := strings.Repeat("x", 100_000) + "\n"
	if got, err := ask(dialLoopback(t, port), line); got != line || err != nil {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	r, err := live.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Direction != "relay" || r.Result != "ok" || r.Server != "10.1.0.2:4100" || r.Client != "" || r.Peer != "laptop-1" ||
		r.RequestBytes != 100_001 || r.ResponseBytes != 100_001 || r.Total <= 0 || r.GrantsSent == 0 || r.GrantsReceived == 0 ||
		r.Queue+r.Service+r.Transport != r.Total || min(r.Queue, r.Service, r.Transport) < 0 || r.RelayID == "" || r.RelayID == r.ID {
		t.Errorf("relayed: %+v", r)
	}
	for _, at := range []struct {
		gateway *running
		id      string
	}{{near, r.ID}, {edge, r.ID}, {edge, r.RelayID}, {back, r.RelayID}} {
		eventually(t, at.gateway.cfg.Name+" knows the id", func() bool {
			kept, _ := at.gateway.LastRequests(admin.RequestFilter{ID: at.id})
			return len(kept) == 1 && kept[0].Result == "ok"
		})
	}

	// A port that nobody serves.
	if got, err := ask(dialLoopback(t, closed), "x\n"); err == nil {
		t.Errorf("nobody serves it: %q", got)
	}
	if r, err := live.Next(t.Context()); err != nil || r.Result != "unreachable" || r.Error == "" || r.RelayID == "" {
		t.Errorf("nobody serves it: %+v, %v", r, err)
	}
	eventually(t, "end of the relays", func() bool { return edge.translate.relays[1].Stats().Outstanding == 0 })
	rules := edge.Status().Translations
	if len(rules) != 1 {
		t.Fatalf("status: %+v", rules)
	}
	want := admin.Translation{
		Name: "accept[1]", Direction: "relay", From: "peer laptop-*", To: "homa 10.1.0.0/24 port 4100,4200-4300",
		Requests: 2, BytesIn: 100_003, BytesOut: 100_001,
	}
	got := rules[0]
	if n := got.FailedTotal(); n != 1 || got.Failed["unreachable"] != 1 {
		t.Errorf("%d failed: %v", n, got.Failed)
	}
	if got.Failed = nil; !reflect.DeepEqual(got, want) {
		t.Errorf("status:\n%+v, want\n%+v", got, want)
	}
	if samples := gather(t, edge); samples[`tougw_translate_requests_total{ok,accept[1]}`] != 1 ||
		samples[`tougw_translate_requests_total{unreachable,accept[1]}`] != 1 || samples[`tougw_translate_bytes_total{in,accept[1]}`] != 100_003 {
		t.Errorf("metrics: %v", samples)
	}
	// A rule that there is not is named with those that there are.
	if _, err := edge.LastRequests(admin.RequestFilter{Rule: "kv"}); !errors.Is(err, admin.ErrNoRule) || !strings.HasSuffix(err.Error(), "has accept[1]") {
		t.Errorf("got %v", err)
	}
	if _, err := near.Requests(admin.RequestFilter{Rule: "cache"}); !errors.Is(err, admin.ErrNoRule) || !strings.HasSuffix(err.Error(), "has kv, closed") {
		t.Errorf("got %v", err)
	}
	if _, err := near.Requests(admin.RequestFilter{ID: "zz"}); err == nil {
		t.Error("zz is an id")
	}
}

// TestTranslateDrain stops a gateway in the middle of a request: it is answered,
// and nobody new is served.
func TestTranslateDrain(t *testing.T) {
	w := newWorld(t)
	fabric := &carrier.Network{}
	asked, answer := make(chan struct{}), make(chan struct{})
	server := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		b := make([]byte, 6)
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		close(asked)
		<-answer
		c.Write(b)
	})
	port := freePort(t)
	slow := func(o *Options) { o.DrainTimeout = 20 * time.Second }
	door := w.startWith(clientAddr, fmt.Sprintf(`name: door
translate: [{name: kv, from: {tcp: "127.0.0.1:%d"}, to: {homa: "10.1.0.2:4100"}, `+lines+`}]
`, port)+patience, onFabric(fabric, doorAddr), slow)
	back := w.startWith(edgeAddr, fmt.Sprintf(`name: back
translate: [{name: kv, from: {homa: ":4100"}, to: {tcp: "127.0.0.1:%d"}, `+lines+`}]
`, server)+patience, onFabric(fabric, backAddr), slow)
	c := dialLoopback(t, port)
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
	<-asked
	door.stop()
	back.stop()
	eventually(t, "refusal", func() bool {
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	close(answer)
	b := make([]byte, 6)
	if _, err := io.ReadFull(c, b); string(b) != "hello\n" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	door.end()
	back.end()
}

// TestTranslateStartFails names what is in the way, and leaves nothing behind.
func TestTranslateStartFails(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	yaml := fmt.Sprintf(`name: door
translate:
- {name: first, from: {homa: ":4100"}, to: {tcp: "127.0.0.1:1"}, framing: {type: resp}}
- {name: kv, from: {tcp: "%s"}, to: {homa: "10.1.0.5:4000"}, framing: {type: resp}}
`, l.Addr())
	fabric := &carrier.Network{}
	for name, c := range map[string]struct {
		change func(*Options)
		want   []string
	}{
		"port in use": {onFabric(fabric, doorAddr), []string{"translate kv: listen tcp4 " + l.Addr().String(), "address already in use"}},
		"no raw sockets": {
			func(o *Options) {
				o.OpenHoma = func(rawip.Config) (carrier.Carrier, error) {
					return nil, fmt.Errorf("raw socket: %w (needs CAP_NET_RAW)", syscall.EPERM)
				}
			},
			[]string{"homa: raw socket: operation not permitted (needs CAP_NET_RAW)"},
		},
	} {
		r := w.prepare(clientAddr, yaml, c.change)
		err := r.Run(t.Context())
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q in it", name, err, want)
			}
		}
	}
}

// TestHomaFailureEndsRun ends the gateway when its Homa node has.
func TestHomaFailureEndsRun(t *testing.T) {
	w := newWorld(t)
	fabric := &carrier.Network{}
	var port *carrier.Port
	r := w.startWith(clientAddr, `name: door
translate: [{name: a, from: {homa: ":4100"}, to: {tcp: "127.0.0.1:1"}, framing: {type: resp}}]
`, func(o *Options) {
		o.OpenHoma = func(rawip.Config) (c carrier.Carrier, err error) {
			port, err = fabric.Attach(doorAddr)
			return port, err
		}
	})
	port.Close()
	if err := r.wait("the carrier is closed"); !errors.Is(err, errHoma) {
		t.Errorf("Run: %v", err)
	}
}

func TestNoTranslation(t *testing.T) {
	w := newWorld(t)
	edge := w.start(edgeAddr, edgeYAML)
	if _, err := edge.LastRequests(admin.RequestFilter{}); !errors.Is(err, errNoTranslation) {
		t.Errorf("got %v", err)
	}
	if _, err := edge.Requests(admin.RequestFilter{}); !errors.Is(err, errNoTranslation) {
		t.Errorf("got %v", err)
	}
	if s := edge.Status(); s.Homa != nil || s.Translations != nil {
		t.Errorf("status: %+v, %+v", s.Homa, s.Translations)
	}
}
