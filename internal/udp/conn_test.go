package udp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bufferSize = 1 << 16

func listen(t testing.TB, cfg Config) *Conn {
	t.Helper()
	if cfg.RecvBuffer == 0 {
		cfg.RecvBuffer = 4 << 20
	}
	c, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func newBatch(n int) []Message {
	ms := make([]Message, n)
	for i := range ms {
		ms[i].Buf = make([]byte, bufferSize)
	}
	return ms
}

// datagram is one received datagram, cut out of its run.
type datagram struct {
	from    netip.AddrPort
	local   netip.Addr
	payload []byte
}

// readDatagrams reads until n datagrams are there. A watchdog closes the socket
// when they do not come.
func readDatagrams(t testing.TB, c *Conn, n int) []datagram {
	t.Helper()
	watchdog := time.AfterFunc(10*time.Second, func() { _ = c.Close() })
	defer watchdog.Stop()
	var out []datagram
	ms := newBatch(8)
	for len(out) < n {
		k, err := c.ReadBatch(ms)
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v (%+v)", len(out), n, err, c.Stats())
		}
		for i := range ms[:k] {
			m := &ms[i]
			b, segment := m.Buf[:m.N], m.N
			if m.Segment > 0 {
				segment = m.Segment
			}
			for first := true; first || len(b) > 0; first = false {
				cut := min(segment, len(b))
				out = append(out, datagram{m.Addr, m.Local, bytes.Clone(b[:cut])})
				b = b[cut:]
			}
		}
	}
	return out
}

// pattern is n bytes that differ from place to place and from seed to seed.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(seed*31 + i*7 + i>>8)
	}
	return b
}

// cut splits a message as the receiver should see it.
func cut(m Message) [][]byte {
	b := m.Buf[:m.N]
	if m.Segment <= 0 || m.Segment >= m.N {
		return [][]byte{b}
	}
	var out [][]byte
	for len(b) > 0 {
		n := min(m.Segment, len(b))
		out = append(out, b[:n])
		b = b[n:]
	}
	return out
}

func hasIPv6(t testing.TB) {
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 on loopback: %v", err)
	}
	_ = c.Close()
}

// Every combination of offloads on both sides, and every family, must move the
// same datagrams in the same order.
func TestRunsArriveEqualInAllForms(t *testing.T) {
	batch := func(to netip.AddrPort) []Message {
		var ms []Message
		for i, s := range []struct{ n, segment int }{
			{100, 0}, {0, 0}, {1, 0}, {1400, 1400}, {1400, 9000},
			{44 * 1472, 1472},    // full run
			{10*1400 + 17, 1400}, // short last datagram
			{2 * 900, 900},       // two only
			{3, 1},
			{64, 1},
			{65, 1},               // one above MaxSegments
			{200 * 100, 100},      // far above
			{65507, 0},            // the largest datagram
			{65536, 16384},        // above MaxPayload: cut into runs
			{40000 + 5000, 40000}, // a run of one and a rest
			{5, 0},
		} {
			ms = append(ms, Message{Buf: pattern(i, s.n), N: s.n, Segment: s.segment, Addr: to})
		}
		return ms
	}
	for _, f := range []struct{ name, recv, send, to string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "[::1]:0", "[::1]:0", "::1"},
		{"dual-stack receiver, IPv4", "[::]:0", "127.0.0.1:0", "127.0.0.1"},
		{"dual-stack sender, IPv4", "127.0.0.1:0", "[::]:0", "127.0.0.1"},
		{"dual-stack both, IPv6", "[::]:0", "[::]:0", "::1"},
	} {
		for _, o := range []struct {
			noGSO, noGRO bool
		}{{false, false}, {true, false}, {false, true}, {true, true}} {
			t.Run(fmt.Sprintf("%s/gso=%v,gro=%v", f.name, !o.noGSO, !o.noGRO), func(t *testing.T) {
				to := netip.MustParseAddr(f.to)
				if to.Is6() || f.recv[0] == '[' || f.send[0] == '[' {
					hasIPv6(t)
				}
				r := listen(t, Config{Bind: netip.MustParseAddrPort(f.recv), NoGRO: o.noGRO})
				s := listen(t, Config{Bind: netip.MustParseAddrPort(f.send), NoGSO: o.noGSO})
				ms := batch(netip.AddrPortFrom(to, r.LocalAddr().Port()))
				var want [][]byte
				for _, m := range ms {
					want = append(want, cut(m)...)
				}
				if n, err := s.WriteBatch(ms); n != len(ms) || err != nil {
					t.Fatalf("WriteBatch: %d, %v; want %d", n, err, len(ms))
				}
				got := readDatagrams(t, r, len(want))
				if len(got) != len(want) {
					t.Fatalf("%d datagrams arrived, want %d", len(got), len(want))
				}
				from := netip.AddrPortFrom(to, s.LocalAddr().Port())
				for i, d := range got {
					if !bytes.Equal(d.payload, want[i]) {
						t.Fatalf("datagram %d: %d bytes, want %d or other content", i, len(d.payload), len(want[i]))
					}
					if d.from != from || d.local != to {
						t.Fatalf("datagram %d: from %v to %v, want %v and %v", i, d.from, d.local, from, to)
					}
				}
				ws, rs := s.Stats(), r.Stats()
				if ws.SendDatagrams != uint64(len(want)) || rs.RecvDatagrams != uint64(len(want)) || ws.SendBytes != rs.RecvBytes {
					t.Errorf("counted %d datagrams and %d bytes sent, %d and %d received; want %d",
						ws.SendDatagrams, ws.SendBytes, rs.RecvDatagrams, rs.RecvBytes, len(want))
				}
				if on := s.Capabilities().GSO; on != (ws.SendRuns > 0) {
					t.Errorf("GSO in use: %v, but %d runs sent", on, ws.SendRuns)
				}
				if !r.Capabilities().GRO && rs.RecvRuns > 0 {
					t.Errorf("GRO not in use, but %d runs received", rs.RecvRuns)
				}
				if s.Capabilities().GSO && r.Capabilities().GRO && rs.RecvRuns == 0 {
					t.Error("both offloads in use, but no run received")
				}
			})
		}
	}
}

func TestReplyLeavesFromTheAddressAsked(t *testing.T) {
	for _, bind := range []string{"0.0.0.0:0", "[::]:0"} {
		t.Run(bind, func(t *testing.T) {
			if bind[0] == '[' {
				hasIPv6(t)
			}
			server := listen(t, Config{Bind: netip.MustParseAddrPort(bind)})
			client := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
			asked := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), server.LocalAddr().Port())
			for _, segment := range []int{0, 2} { // alone, and next to UDP_SEGMENT
				if _, err := client.WriteBatch([]Message{{Buf: []byte("ask"), N: 3, Addr: asked}}); err != nil {
					t.Fatal(err)
				}
				q := readDatagrams(t, server, 1)[0]
				if q.local != asked.Addr() {
					t.Fatalf("arrived at %v, want %v", q.local, asked.Addr())
				}
				reply := []Message{{Buf: []byte("reply"), N: 5, Segment: segment, Addr: q.from, Local: q.local}}
				if _, err := server.WriteBatch(reply); err != nil {
					t.Fatal(err)
				}
				for _, d := range readDatagrams(t, client, len(cut(reply[0]))) {
					if d.from != asked {
						t.Fatalf("reply came from %v, want %v", d.from, asked)
					}
				}
			}
		})
	}
}

func TestZoneOfLinkLocalAddresses(t *testing.T) {
	ifis, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, ifi := range ifis {
		addrs, err := ifi.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			ip, ok := netip.AddrFromSlice(a.(*net.IPNet).IP)
			if !ok || !ip.IsLinkLocalUnicast() || !ip.Is6() || ip.Is4In6() || ifi.Flags&net.FlagUp == 0 {
				continue
			}
			ip = ip.WithZone(ifi.Name)
			c := listen(t, Config{Bind: netip.MustParseAddrPort("[::]:0")})
			to := netip.AddrPortFrom(ip, c.LocalAddr().Port())
			if _, err := c.WriteBatch([]Message{{Buf: []byte("x"), N: 1, Addr: to, Local: ip}}); err != nil {
				t.Fatal(err)
			}
			if d := readDatagrams(t, c, 1)[0]; d.from != to || d.local != ip {
				t.Fatalf("from %v to %v, want %v and %v", d.from, d.local, to, ip)
			}
			return
		}
	}
	t.Skip("no interface with an IPv6 link-local address")
}

func TestCloseUnblocksReader(t *testing.T) {
	c := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	done := make(chan error)
	started := make(chan struct{})
	go func() {
		close(started)
		_, err := c.ReadBatch(newBatch(1))
		done <- err
	}()
	<-started
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("reader got %v, want net.ErrClosed", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	m := []Message{{Buf: []byte("x"), N: 1, Addr: c.LocalAddr()}}
	if n, err := c.WriteBatch(m); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("WriteBatch after Close: %d, %v; want net.ErrClosed", n, err)
	}
	if n, err := c.ReadBatch(newBatch(1)); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadBatch after Close: %d, %v; want net.ErrClosed", n, err)
	}
	c.Stats() // must still answer
}

func TestMalformedMessagesFailAlone(t *testing.T) {
	c := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	good := Message{Buf: []byte("good"), N: 4, Addr: c.LocalAddr()}
	bad := func(f func(*Message)) Message { m := good; f(&m); return m }
	for _, b := range []struct {
		name string
		m    Message
		want error
	}{
		{"N beyond Buf", bad(func(m *Message) { m.N = 5 }), syscall.EINVAL},
		{"negative N", bad(func(m *Message) { m.N = -1 }), syscall.EINVAL},
		{"negative Segment", bad(func(m *Message) { m.Segment = -1 }), syscall.EINVAL},
		{"no address", bad(func(m *Message) { m.Addr = netip.AddrPort{} }), syscall.EAFNOSUPPORT},
		{"IPv6 to an IPv4 socket", bad(func(m *Message) { m.Addr = netip.MustParseAddrPort("[::1]:1") }), syscall.EAFNOSUPPORT},
		{"IPv6 source on an IPv4 socket", bad(func(m *Message) { m.Local = netip.MustParseAddr("::1") }), syscall.EAFNOSUPPORT},
		{"a source that is not ours", bad(func(m *Message) { m.Local = netip.MustParseAddr("192.0.2.1") }), nil}, // EINVAL or ENETUNREACH
		{"larger than any datagram", bad(func(m *Message) { m.Buf = make([]byte, 65508); m.N = 65508 }), syscall.EMSGSIZE},
		{"run of datagrams larger than any", bad(func(m *Message) { m.Buf = make([]byte, 70000); m.N = 70000; m.Segment = 66000 }), syscall.EMSGSIZE},
		{"port zero", bad(func(m *Message) { m.Addr = netip.AddrPortFrom(m.Addr.Addr(), 0) }), syscall.EINVAL},
	} {
		t.Run(b.name, func(t *testing.T) {
			ms := []Message{good, b.m, good}
			n, err := c.WriteBatch(ms)
			if n != 1 || err == nil || b.want != nil && !errors.Is(err, b.want) {
				t.Fatalf("WriteBatch: %d, %v; want 1, %v", n, err, b.want)
			}
			if n, err := c.WriteBatch(ms[n+1:]); n != 1 || err != nil {
				t.Fatalf("rest of the batch: %d, %v", n, err)
			}
			readDatagrams(t, c, 2)
		})
	}
	s := c.Stats()
	if s.SendDropTooBig != 2 || s.SendDropOther != 8 {
		t.Errorf("counted %d too big and %d others, want 2 and 8", s.SendDropTooBig, s.SendDropOther)
	}
}

func TestTruncatedDatagramHasNoBytes(t *testing.T) {
	c := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	for _, n := range []int{11, 10} {
		if _, err := c.WriteBatch([]Message{{Buf: pattern(0, n), N: n, Addr: c.LocalAddr()}}); err != nil {
			t.Fatal(err)
		}
	}
	ms := []Message{{Buf: make([]byte, 10)}, {Buf: make([]byte, 10)}}
	n, err := c.ReadBatch(ms)
	if n != 2 || err != nil {
		t.Fatalf("ReadBatch: %d, %v", n, err)
	}
	if ms[0].N != 0 || ms[1].N != 10 {
		t.Errorf("sizes %d and %d, want 0 and 10", ms[0].N, ms[1].N)
	}
	if s := c.Stats(); s.RecvDropTruncated != 1 || s.RecvDatagrams != 1 {
		t.Errorf("counted %d truncated and %d received, want 1 and 1", s.RecvDropTruncated, s.RecvDatagrams)
	}
}

func TestEmptyBatch(t *testing.T) {
	c := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	if n, err := c.WriteBatch(nil); n != 0 || err != nil {
		t.Errorf("WriteBatch: %d, %v", n, err)
	}
	if n, err := c.ReadBatch(nil); n != 0 || err != nil {
		t.Errorf("ReadBatch: %d, %v", n, err)
	}
}

// A closed port answers with ICMP, which must neither end the socket nor reach
// the caller.
func TestUnreachablePeerIsSilent(t *testing.T) {
	gone := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	c := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	for range 3 {
		if _, err := c.WriteBatch([]Message{{Buf: []byte("x"), N: 1, Addr: gone.LocalAddr()}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.WriteBatch([]Message{{Buf: []byte("y"), N: 1, Addr: c.LocalAddr()}}); err != nil {
		t.Fatal(err)
	}
	if d := readDatagrams(t, c, 1)[0]; string(d.payload) != "y" {
		t.Errorf("read %q", d.payload)
	}
}

func TestConcurrentWriters(t *testing.T) {
	const writers, batches = 8, 40
	r := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), RecvBuffer: 8 << 20})
	s := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	credit := make(chan struct{}, 64) // bounds what is in the receive buffer
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			b := make([]byte, 4*1000)
			for i := range batches {
				for j := range 4 {
					binary.BigEndian.PutUint32(b[j*1000:], uint32(w))
					binary.BigEndian.PutUint32(b[j*1000+4:], uint32(i*4+j))
				}
				credit <- struct{}{}
				if n, err := s.WriteBatch([]Message{{Buf: b, N: 3500, Segment: 1000, Addr: r.LocalAddr()}}); n != 1 || err != nil {
					t.Errorf("writer %d: %d, %v", w, n, err)
				}
			}
		})
	}
	var next [writers]uint32
	for seen := 0; seen < writers*batches*4; {
		got := readDatagrams(t, r, 4)
		seen += len(got)
		for _, d := range got {
			w, i := binary.BigEndian.Uint32(d.payload), binary.BigEndian.Uint32(d.payload[4:])
			if w >= writers || i != next[w] {
				t.Fatalf("writer %d: datagram %d, want %d", w, i, next[w])
			}
			if next[w]++; next[w]%4 == 0 {
				<-credit
			}
		}
	}
	wg.Wait()
	if got := s.Stats().SendDatagrams; got != writers*batches*4 {
		t.Errorf("counted %d datagrams, want %d", got, writers*batches*4)
	}
}

func TestListenReportsBadAddress(t *testing.T) {
	_, err := Listen(Config{Bind: netip.MustParseAddrPort("192.0.2.1:0")})
	if !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("got %v, want EADDRNOTAVAIL", err)
	}
	c := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	if _, err := Listen(Config{Bind: c.LocalAddr()}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
}

func TestZeroConfig(t *testing.T) {
	c := listen(t, Config{})
	if !c.LocalAddr().Addr().IsUnspecified() || c.LocalAddr().Port() == 0 {
		t.Errorf("bound to %v", c.LocalAddr())
	}
}
