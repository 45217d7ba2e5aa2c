package tcpip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tougw/tougw/internal/packet"
	"github.com/tougw/tougw/tcpip/tcptest"
)

var (
	dst4 = "198.51.100.9:443"
	dst6 = "[2001:db8::9]:443"
)

func TestEdgeCarriesBothWays(t *testing.T) {
	for _, dst := range []string{dst4, dst6} {
		for _, tso := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s,TSO=%v", dst, tso), func(t *testing.T) {
				r := newRig(t, EdgeConfig{}, tcptest.Config{TSO: tso, Queues: 2}, nil)
				c, s := r.connect(dst)
				if got := s.Local().String(); got != dst {
					t.Errorf("local address %s, want %s", got, dst)
				}
				if got := s.Remote().String(); got != c.LocalAddr().String() {
					t.Errorf("remote address %s, want %s", got, c.LocalAddr())
				}
				transfer(t, c, s, 3<<20)
				transfer(t, s, c, 3<<20)
				if in := s.Info(); in.Read != 3<<20 || in.Written != 3<<20 || in.State != "ESTABLISHED" {
					t.Errorf("info %+v", in)
				}
				eventually(t, "all acknowledged", func() bool { return s.Outstanding() == 0 })
			})
		}
	}
}

func TestEdgeHandshakeWaitsForAccept(t *testing.T) {
	r := newRig(t, EdgeConfig{}, tcptest.Config{}, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	dialed := make(chan error, 1)
	go func() {
		_, err := r.host.Dial(ctx, netip.MustParseAddrPort(dst4))
		dialed <- err
	}()
	p := <-r.flows
	if err := <-dialed; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial gave %v before Accept", err)
	}
	if p.Dst() != netip.MustParseAddrPort(dst4) || p.Src().Addr() != netip.MustParseAddr("10.77.0.7") {
		t.Errorf("pending from %s to %s", p.Src(), p.Dst())
	}
	p.Refuse(syscall.ETIMEDOUT)
}

func TestEdgeRefuse(t *testing.T) {
	for _, c := range []struct {
		reason    error
		dst       string
		typ, code uint8 // of the ICMP error; 0, 0: none
		want      error
	}{
		{syscall.ECONNREFUSED, dst4, 0, 0, syscall.ECONNREFUSED},
		{syscall.ECONNREFUSED, dst6, 0, 0, syscall.ECONNREFUSED},
		{syscall.EHOSTUNREACH, dst4, 3, 1, syscall.EHOSTUNREACH},
		{syscall.EHOSTUNREACH, dst6, 1, 3, nil},
		{syscall.ENETUNREACH, dst4, 3, 0, syscall.ENETUNREACH},
		{syscall.ENETUNREACH, dst6, 1, 0, syscall.ENETUNREACH},
		{syscall.EACCES, dst4, 3, 13, nil},
		{syscall.EACCES, dst6, 1, 1, nil},
		{fmt.Errorf("policy: %w", syscall.EACCES), dst4, 3, 13, nil},
		{syscall.ETIMEDOUT, dst4, 0, 0, context.DeadlineExceeded},
		{errors.New("no errno"), dst6, 0, 0, context.DeadlineExceeded},
	} {
		t.Run(fmt.Sprintf("%v to %s", c.reason, c.dst), func(t *testing.T) {
			r := newRig(t, EdgeConfig{}, tcptest.Config{}, func(p *Pending) { p.Refuse(c.reason) })
			ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
			defer cancel()
			_, err := r.host.Dial(ctx, netip.MustParseAddrPort(c.dst))
			// gVisor's own host ignores some codes; a kernel does not (see
			// the test with a real device).
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("dial gave %v, want %v", err, c.want)
			}
			select {
			case e := <-r.host.ICMP():
				if e.Type != c.typ || e.Code != c.code || c.typ == 0 {
					t.Errorf("ICMP type %d code %d, want %d, %d", e.Type, e.Code, c.typ, c.code)
				}
				q, ok := packet.ParseTuple(e.Quote)
				if dst := netip.MustParseAddrPort(c.dst); !ok || q.Dst != dst || e.Src != dst.Addr() {
					t.Errorf("ICMP from %s quotes %+v", e.Src, q)
				}
			default:
				if c.typ != 0 {
					t.Error("no ICMP error")
				}
			}
			eventually(t, "end of the pending flow", func() bool { return r.edge.Stats().Unopened >= 1 })
		})
	}
}

func TestEdgePendingCaps(t *testing.T) {
	a, b := netip.MustParseAddr("10.77.0.7"), netip.MustParseAddr("10.77.0.8")
	r := newRig(t, EdgeConfig{MaxPending: 3, MaxPendingPerSource: 2}, tcptest.Config{Addresses: []netip.Addr{a, b}}, nil)
	syn := func(src netip.Addr, port uint16) {
		r.host.Send(tcp4(netip.AddrPortFrom(src, port), netip.MustParseAddrPort(dst4), FlagSYN, 1, nil))
	}
	for port := range uint16(4) {
		syn(a, 1000+port)
	}
	syn(b, 1000)
	syn(b, 1001)
	eventually(t, "drops", func() bool {
		st := r.edge.Stats()
		return st.DropPendingSource == 2 && st.DropPending == 1
	})
	for range 3 {
		p := <-r.flows
		p.Refuse(syscall.ECONNREFUSED)
		settledOrDone(p)
	}
	eventually(t, "refusals", func() bool { return r.edge.Stats().Unopened == 3 })
	syn(a, 1003) // there is room again
	(<-r.flows).Refuse(syscall.ECONNREFUSED)
}

func TestEdgeRepeatedSYNIsOnePending(t *testing.T) {
	r := newRig(t, EdgeConfig{}, tcptest.Config{}, nil)
	for range 5 {
		r.host.Send(tcp4(netip.MustParseAddrPort("10.77.0.7:1000"), netip.MustParseAddrPort(dst4), FlagSYN, 1, nil))
	}
	p := <-r.flows
	eventually(t, "all five", func() bool { return r.edge.Stats().PacketsIn == 5 })
	if st := r.edge.Stats(); st.Offered != 1 {
		t.Errorf("%d pending flows of one SYN", st.Offered)
	}
	p.Refuse(syscall.ECONNREFUSED)
}

func TestEdgePendingEnds(t *testing.T) {
	src, dst := netip.MustParseAddrPort("10.77.0.7:1000"), netip.MustParseAddrPort(dst4)
	t.Run("by RST of the application", func(t *testing.T) {
		r := newRig(t, EdgeConfig{}, tcptest.Config{}, nil)
		r.host.Send(tcp4(src, dst, FlagSYN, 1, nil))
		p := <-r.flows
		r.host.Send(tcp4(src, dst, FlagRST, 2, nil))
		<-p.Done()
		if _, err := p.Accept(testContext(t)); err != syscall.ECONNRESET {
			t.Errorf("Accept gave %v", err)
		}
	})
	t.Run("by silence of the application", func(t *testing.T) {
		dev, host := tcptest.NewPair(tcptest.Config{})
		defer host.Close()
		flows := make(chan *Pending, 1)
		e, err := NewEdge(EdgeConfig{OnFlow: func(p *Pending) { flows <- p; <-p.Done() }}, dev)
		if err != nil {
			t.Fatal(err)
		}
		e.patience = 50 * time.Millisecond
		done := make(chan error, 1)
		go func() { done <- e.Run(testContext(t)) }()
		host.Send(tcp4(src, dst, FlagSYN, 1, nil))
		p := <-flows
		<-p.Done()
		if _, err := p.Accept(testContext(t)); err != syscall.ETIMEDOUT {
			t.Errorf("Accept gave %v", err)
		}
		dev.Close()
		if err := <-done; err == nil {
			t.Error("Run gave no error for a device that failed")
		}
	})
	t.Run("by the end of Run", func(t *testing.T) {
		var p *Pending
		t.Cleanup(func() {
			if _, err := p.Accept(context.Background()); err != syscall.ECONNABORTED {
				t.Errorf("Accept gave %v", err)
			}
		})
		r := newRig(t, EdgeConfig{}, tcptest.Config{}, nil)
		r.host.Send(tcp4(src, dst, FlagSYN, 1, nil))
		p = <-r.flows
	})
	t.Run("by the context of Accept", func(t *testing.T) {
		r := newRig(t, EdgeConfig{}, tcptest.Config{}, nil)
		// The last ACK of this handshake never comes.
		r.host.Send(tcp4(netip.MustParseAddrPort("10.77.0.99:1000"), dst, FlagSYN, 1, nil))
		p := <-r.flows
		ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
		defer cancel()
		if _, err := p.Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Accept gave %v", err)
		}
	})
}

func TestEdgeHalfClose(t *testing.T) {
	r := newRig(t, EdgeConfig{}, tcptest.Config{TSO: true}, nil)
	t.Run("application first", func(t *testing.T) {
		c, s := r.connect(dst4)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Read(make([]byte, 10)); n != 0 || err != io.EOF {
			t.Fatalf("read gave %d, %v", n, err)
		}
		transfer(t, s, c, 1<<20)
		s.CloseWrite()
		if n, err := c.Read(make([]byte, 10)); n != 0 || err != io.EOF {
			t.Fatalf("application's read gave %d, %v", n, err)
		}
	})
	t.Run("far side first", func(t *testing.T) {
		c, s := r.connect(dst6)
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 10)); n != 0 || err != io.EOF {
			t.Fatalf("application's read gave %d, %v", n, err)
		}
		if _, err := s.Stream.Write([]byte("x")); err != syscall.EPIPE {
			t.Errorf("write after CloseWrite gave %v", err)
		}
		transfer(t, c, s, 1<<20)
		c.CloseWrite()
		if n, err := s.Read(make([]byte, 10)); n != 0 || err != io.EOF {
			t.Fatalf("read gave %d, %v", n, err)
		}
		eventually(t, "hang-up", s.hup.Load)
		if err := s.Err(); err != nil {
			t.Errorf("orderly end left error %v", err)
		}
	})
}

func TestEdgeReset(t *testing.T) {
	r := newRig(t, EdgeConfig{}, tcptest.Config{}, nil)
	t.Run("by the application", func(t *testing.T) {
		c, s := r.connect(dst4)
		c.Write([]byte("last words"))
		eventually(t, "arrival", func() bool { return s.ep.Readiness(waiter.ReadableEvents) != 0 })
		c.Reset()
		eventually(t, "hang-up", s.hup.Load)
		buf := make([]byte, 100)
		if n, err := s.Read(buf); err != nil || string(buf[:n]) != "last words" {
			t.Errorf("read gave %q, %v", buf[:n], err)
		}
		for range 2 {
			if _, err := s.Read(buf); err != syscall.ECONNRESET {
				t.Errorf("read gave %v", err)
			}
			if _, err := s.Write(buf); err != syscall.ECONNRESET {
				t.Errorf("write gave %v", err)
			}
		}
		if s.Outstanding() != 0 {
			t.Error("bytes outstanding after the end")
		}
	})
	t.Run("by the application after its FIN", func(t *testing.T) {
		c, s := r.connect(dst4)
		c.CloseWrite()
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("read gave %v", err)
		}
		c.Reset()
		eventually(t, "hang-up", s.hup.Load)
		if err := s.Err(); err != syscall.ECONNRESET {
			t.Errorf("error %v", err)
		}
	})
	t.Run("by us", func(t *testing.T) {
		c, s := r.connect(dst6)
		s.Reset()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("application's read gave %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close after Reset gave %v", err)
		}
	})
}

func TestCloseDeliversWhatWasWritten(t *testing.T) {
	r := newRig(t, EdgeConfig{}, tcptest.Config{TSO: true}, nil)
	c, s := r.connect(dst4)
	c.Write([]byte("a request that nobody reads"))
	eventually(t, "arrival", func() bool { return s.ep.Readiness(waiter.ReadableEvents) != 0 })
	want := bytes.Repeat([]byte("0123456789"), 5000)
	if n, err := s.Stream.Write(want); n != len(want) {
		t.Fatalf("write took %d, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("application got %d of %d bytes, %v", len(got), len(want), err)
	}
}

// An application may connect again from the same port as soon as its own
// connection is over, while our end is in TIME_WAIT.
func TestEdgePortIsUsedAgainAtOnce(t *testing.T) {
	r := newRig(t, EdgeConfig{}, tcptest.Config{}, nil)
	for i, dst := range []string{dst4, dst6} {
		dst := netip.MustParseAddrPort(dst)
		c, s := r.connect(dst.String())
		if err := s.CloseWrite(); err != nil { // we are the first, and so we wait
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatal(err)
		}
		src := netip.MustParseAddrPort(c.LocalAddr().String())
		c.Close()
		eventually(t, "TIME-WAIT", func() bool { return s.Info().State == "TIME-WAIT" })
		s.Close()
		syn := tcp4
		if i == 1 {
			syn = tcp6
		}
		r.host.Send(syn(src, dst, FlagSYN, 1, nil))
		select {
		case p := <-r.flows:
			if p.Src() != src || p.Dst() != dst {
				t.Errorf("flow from %v to %v", p.Src(), p.Dst())
			}
			p.Refuse(syscall.ETIMEDOUT)
		case <-time.After(500 * time.Millisecond):
			t.Error("no flow")
		}
	}
}

func TestSetNotifyReportsTheStateAndEnds(t *testing.T) {
	r := newRig(t, EdgeConfig{}, tcptest.Config{}, nil)
	c, s := r.connect(dst4)
	s.SetNotify(nil)
	c.Write([]byte("x"))
	eventually(t, "arrival", func() bool { return s.ep.Readiness(waiter.ReadableEvents) != 0 })
	var got Ready
	s.SetNotify(func(ev Ready) { got |= ev })
	if got != Readable|Writable {
		t.Errorf("SetNotify reported %b", got)
	}
	s.SetNotify(nil)
	got = 0
	c.Write([]byte("y"))
	eventually(t, "arrival", func() bool { return unread(s.Stream) == 2 })
	if got != 0 {
		t.Error("called after SetNotify(nil)")
	}
}

func TestEdgeAnswersOtherProtocols(t *testing.T) {
	host4, far4 := netip.MustParseAddr("10.77.0.7"), netip.MustParseAddr("198.51.100.9")
	host6, far6 := netip.MustParseAddr("fd00:77::7"), netip.MustParseAddr("2001:db8::9")
	r := newRig(t, EdgeConfig{}, tcptest.Config{}, nil)
	frag := ip4(host4, far4, packet.ProtoUDP, make([]byte, 16))
	frag[7] = 8
	fixIP4(frag)
	for _, c := range []struct {
		name      string
		p         []byte
		typ, code uint8
	}{
		{"UDP, IPv4", ip4(host4, far4, packet.ProtoUDP, make([]byte, 8)), 3, 13},
		{"UDP, IPv6", ip6(host6, far6, packet.ProtoUDP, make([]byte, 8)), 1, 1},
		{"echo, IPv4", ip4(host4, far4, packet.ProtoICMP, []byte{8, 0, 0, 0, 0, 0, 0, 0}), 3, 13},
		{"echo, IPv6", ip6(host6, far6, packet.ProtoICMPv6, []byte{128, 0, 0, 0, 0, 0, 0, 0}), 1, 1},
		{"unknown protocol", ip4(host4, far4, 253, nil), 3, 13},
		{"long UDP", ip4(host4, far4, packet.ProtoUDP, make([]byte, 1400)), 3, 13},
		{"ICMP error, IPv4", ip4(host4, far4, packet.ProtoICMP, []byte{3, 3, 0, 0, 0, 0, 0, 0}), 0, 0},
		{"ICMP error, IPv6", ip6(host6, far6, packet.ProtoICMPv6, []byte{1, 3, 0, 0, 0, 0, 0, 0}), 0, 0},
		{"empty ICMP", ip4(host4, far4, packet.ProtoICMP, nil), 0, 0},
		{"later fragment", frag, 0, 0},
		{"multicast, IPv4", ip4(host4, netip.MustParseAddr("224.0.0.251"), packet.ProtoUDP, make([]byte, 8)), 0, 0},
		{"multicast, IPv6", ip6(host6, netip.MustParseAddr("ff02::fb"), packet.ProtoUDP, make([]byte, 8)), 0, 0},
		{"broadcast", ip4(host4, netip.MustParseAddr("255.255.255.255"), packet.ProtoUDP, make([]byte, 8)), 0, 0},
		{"from nobody", ip4(netip.IPv4Unspecified(), far4, packet.ProtoUDP, make([]byte, 8)), 0, 0},
	} {
		before := r.edge.Stats()
		r.host.Send(c.p)
		eventually(t, c.name, func() bool {
			st := r.edge.Stats()
			return st.ICMPSent+st.ICMPWithheld == before.ICMPSent+before.ICMPWithheld+1
		})
		select {
		case e := <-r.host.ICMP():
			if e.Type != c.typ || e.Code != c.code || c.typ == 0 {
				t.Errorf("%s: ICMP type %d code %d, want %d, %d", c.name, e.Type, e.Code, c.typ, c.code)
			}
			if !bytes.HasPrefix(c.p, e.Quote) {
				t.Errorf("%s: quotes something else", c.name)
			}
		default:
			if c.typ != 0 {
				t.Errorf("%s: no ICMP error", c.name)
			}
		}
	}
	if st := r.edge.Stats(); st.UDP+st.ICMP+st.Other != 14 || st.Other != 1 {
		t.Errorf("counted %+v", st)
	}
	for range 10 * icmpBurst {
		r.host.Send(ip4(host4, far4, packet.ProtoUDP, make([]byte, 8)))
	}
	eventually(t, "rate limit", func() bool { return r.edge.Stats().ICMPLimited > 0 })
}

// fragment6 makes an IPv6 packet whose fragment header says that more follow at
// offset 0, before a SYN that is in order.
func fragment6(id uint32, more uint8) []byte {
	src, dst := netip.MustParseAddrPort("[fd00:77::7]:1000"), netip.MustParseAddrPort(dst6)
	h := []byte{packet.ProtoTCP, 0, 0, more}
	h = binary.BigEndian.AppendUint32(h, id)
	return ip6(src.Addr(), dst.Addr(), 44, append(h, tcpSegment(src, dst, FlagSYN, 1, nil)...))
}

func TestEdgeDropsWhatIsMalformed(t *testing.T) {
	src, dst := netip.MustParseAddrPort("10.77.0.7:1000"), netip.MustParseAddrPort(dst4)
	syn := func() []byte { return tcp4(src, dst, FlagSYN, 1, nil) }
	mutate := func(f func(p []byte)) []byte { p := syn(); f(p); return p }
	r := newRig(t, EdgeConfig{}, tcptest.Config{}, nil)
	for _, c := range []struct {
		name   string
		p      []byte
		reason func(EdgeStats) uint64
	}{
		{"empty", []byte{}, func(s EdgeStats) uint64 { return s.DropMalformed }},
		{"version 5", mutate(func(p []byte) { p[0] = 0x55 }), func(s EdgeStats) uint64 { return s.DropMalformed }},
		{"header of 16 bytes", mutate(func(p []byte) { p[0] = 0x44 }), func(s EdgeStats) uint64 { return s.DropMalformed }},
		{"cut IP header", syn()[:19], func(s EdgeStats) uint64 { return s.DropMalformed }},
		{"cut TCP header", syn()[:39], func(s EdgeStats) uint64 { return s.DropMalformed }},
		{"IP header checksum", mutate(func(p []byte) { p[8]++ }), func(s EdgeStats) uint64 { return s.DropChecksum }},
		{"TCP checksum", mutate(func(p []byte) { p[25]++ }), func(s EdgeStats) uint64 { return s.DropChecksum }},
		{"TCP header beyond the end", mutate(func(p []byte) { p[32] = 0xf0 }), func(s EdgeStats) uint64 { return s.DropMalformed }},
		{"TCP header too short", mutate(func(p []byte) { p[32] = 0x40 }), func(s EdgeStats) uint64 { return s.DropMalformed }},
		{"fragment", mutate(func(p []byte) { p[6] = 0x20; fixIP4(p) }), func(s EdgeStats) uint64 { return s.DropFragment }},
		{"first fragment of IPv6", fragment6(8, 1), func(s EdgeStats) uint64 { return s.DropFragment }},
		{"IPv6 cut", ip6(netip.MustParseAddr("fd00:77::7"), netip.MustParseAddr("2001:db8::9"), packet.ProtoTCP, make([]byte, 20))[:50], func(s EdgeStats) uint64 { return s.DropMalformed }},
		{"IPv6 TCP checksum", ip6(netip.MustParseAddr("fd00:77::7"), netip.MustParseAddr("2001:db8::9"), packet.ProtoTCP, []byte{12: 0x50, 19: 0}), func(s EdgeStats) uint64 { return s.DropChecksum }},
	} {
		before := c.reason(r.edge.Stats())
		r.host.Send(c.p)
		eventually(t, c.name, func() bool { return c.reason(r.edge.Stats()) == before+1 })
	}
	// A wrong checksum is in order when it is still to be completed.
	p := syn()
	p[36]++
	r.host.SendOffload(p, packet.Offload{Flags: packet.NeedsCsum, CsumStart: 20, CsumOffset: 16})
	(<-r.flows).Refuse(syscall.ECONNREFUSED)
}

// TestEdgeAbsorbs: for a reader that never reads, the edge takes in no more
// than its initial receive buffer advertises.
func TestEdgeAbsorbs(t *testing.T) {
	r := newRig(t, EdgeConfig{}, tcptest.Config{TSO: true}, nil)
	c, s := r.connect(dst4)
	c.SetBuffers(64<<10, 16<<10)
	c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	n := 0
	for buf := make([]byte, 4096); ; {
		k, err := c.Write(buf)
		n += k
		if err != nil {
			break
		}
	}
	if n > 100<<10 {
		t.Errorf("absorbed %d bytes", n)
	}
	s.SetNotify(nil)
	// The other direction: what a Write takes for an application that does
	// not read.
	c.SetBuffers(32<<10, 16<<10)
	m, err := s.Stream.Write(make([]byte, 8<<20))
	if err != syscall.EAGAIN || m > 160<<10 {
		t.Errorf("write took %d bytes, %v", m, err)
	}
	t.Logf("absorbed %d and %d bytes", n, m)
}
