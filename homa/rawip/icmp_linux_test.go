package rawip

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/internal/testnet"
)

// withoutCapabilities runs f on a thread that has lost its capabilities.
func withoutCapabilities(f func() error) error {
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return err
	}
	return f()
}

// TestOpenSocketSuppressesProtocolUnreachable sends to a host with a socket and
// to one without.
func TestOpenSocketSuppressesProtocolUnreachable(t *testing.T) {
	n := network(t)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			client := open(t, n.Sites[0].App, Config{})
			client.send(t, carrier.Packet{Addr: f.server, Data: packet(0)})
			got := client.receive(t, func(carrier.Packet) bool { return true })
			if got.Trouble != carrier.ProtocolUnreachable || got.Addr != f.server {
				t.Fatalf("without a socket: %+v", got)
			}

			server := open(t, n.Server, Config{})
			client.send(t, carrier.Packet{Addr: f.server, Data: packet(0)})
			server.receive(t, isPacket)
			// The kernel would have answered before the server could.
			server.send(t, carrier.Packet{Addr: f.client, Data: packet(0)})
			if got := client.receive(t, func(carrier.Packet) bool { return true }); got.Trouble != carrier.None {
				t.Errorf("with a socket: %+v", got)
			}
			if st := client.Stats(); st.ProtocolUnreachable != 1 {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestRefuse(t *testing.T) {
	n := network(t)
	client, server := open(t, n.Sites[0].App, Config{}), open(t, n.Server, Config{RefusalRate: 1000})
	for _, f := range families {
		for _, size := range []int{0, 1400} {
			client.send(t, carrier.Packet{Addr: f.server, Data: packet(size)})
			p := server.receive(t, isPacket)
			packets := capture(t, n.Server, "eth0", func() {
				server.Refuse(&p)
				got := client.receive(t, func(carrier.Packet) bool { return true })
				if got.Trouble != carrier.PortUnreachable || got.Addr != f.server || got.Port != 4000 || !errors.Is(got.Err, unix.ECONNREFUSED) {
					t.Fatalf("%s: %+v", f.name, got)
				}
			})
			checkRefusal(t, f, size, packets)
		}
	}
	st := server.Stats()
	if st.Refusals != 4 || st.RefusalsSuppressed != 0 {
		t.Errorf("%+v", st)
	}
	server.refuser.init(-1)
	server.Refuse(&carrier.Packet{Addr: testnet.AppAddr, Local: testnet.ServerAddr, Data: packet(0)})
	if st := server.Stats(); st.Refusals != 4 || st.RefusalsSuppressed != 1 {
		t.Errorf("above the rate: %+v", st)
	}
	for _, p := range []carrier.Packet{
		{Addr: netip.MustParseAddr("224.0.0.1"), Local: testnet.ServerAddr},
		{Addr: testnet.AppAddr, Local: netip.MustParseAddr("224.0.0.1")},
		{Addr: testnet.AppAddr},
		{Addr: netip.IPv6Unspecified(), Local: testnet.ServerAddr6},
	} {
		server.Refuse(&p)
	}
	if st := server.Stats(); st.Refusals+st.RefusalsSuppressed != 5 {
		t.Errorf("not between single hosts: %+v", st)
	}
}

// TestRefuseForeign: a server that another process began after its port was found not to
// be served is not refused.
func TestRefuseForeign(t *testing.T) {
	n := network(t)
	idle, other := open(t, n.Server, Config{}), open(t, n.Server, Config{})
	p := carrier.Packet{Addr: testnet.AppAddr, Local: testnet.ServerAddr, Data: packet(0)}
	if idle.Foreign(4000) {
		t.Fatal("foreign before it is claimed")
	}
	release, err := other.Claim(4000)
	if err != nil {
		t.Fatal(err)
	}
	idle.Refuse(&p)
	if st := idle.Stats(); st.Refusals != 0 || st.RefusalsSuppressed != 1 {
		t.Errorf("%+v", st)
	}
	release()
	idle.Refuse(&p)
	if st := idle.Stats(); st.Refusals != 1 {
		t.Errorf("not refused after its end: %+v", st)
	}
}

// checkRefusal looks for one error of at most 576 bytes, with right checksums.
func checkRefusal(t *testing.T, f family, size int, packets [][]byte) {
	t.Helper()
	seen := 0
	for _, b := range packets {
		if f.server.Is4() && b[0]>>4 == 4 && b[9] == unix.IPPROTO_ICMP {
			seen++
			m := b[20:]
			if m[0] != 3 || m[1] != 3 || checksum(m) != 0 || checksum(m[8:28]) != 0 || m[8+9] != Protocol {
				t.Errorf("ICMP error %x", m)
			}
			if quoted := int(binary.BigEndian.Uint16(m[10:])); quoted != 20+smallest+size || len(b) > 576 {
				t.Errorf("error of %d bytes quotes a packet of %d", len(b), quoted)
			}
		}
		if f.server.Is6() && b[0]>>4 == 6 && b[6] == unix.IPPROTO_ICMPV6 && b[40] == icmp6Unreachable {
			seen++
			if m := b[40:]; m[1] != 4 || m[8+6] != Protocol || len(b) > 1280 {
				t.Errorf("ICMPv6 error of %d bytes %x", len(b), m)
			}
		}
	}
	if seen != 1 {
		t.Errorf("%s: %d errors on the wire", f.name, seen)
	}
}

func TestRefusalRate(t *testing.T) {
	var r refuser
	r.init(10)
	now := time.Now()
	count := func() (n int) {
		for r.allow(now) {
			n++
		}
		return n
	}
	for _, step := range []struct {
		pause time.Duration
		want  int
	}{{0, 10}, {0, 0}, {100 * time.Millisecond, 1}, {time.Second, 10}, {time.Hour, refusalBurst}} {
		now = now.Add(step.pause)
		if got := count(); got != step.want {
			t.Errorf("after %v more: %d allowed, want %d", step.pause, got, step.want)
		}
	}
	r.init(-1)
	if r.allow(now.Add(time.Hour)) {
		t.Error("allowed although turned off")
	}
}

// TestUnreachable asks a router for hosts that it has no route to.
func TestUnreachable(t *testing.T) {
	n := network(t)
	client := open(t, n.Sites[0].App, Config{})
	for _, dst := range []string{"10.99.0.1", "2001:db8:99::1"} {
		addr := netip.MustParseAddr(dst)
		client.send(t, carrier.Packet{Addr: addr, Data: packet(0)})
		got := client.receive(t, func(p carrier.Packet) bool { return p.Addr == addr })
		if got.Trouble != carrier.HostUnreachable {
			t.Errorf("%s: %+v", dst, got)
		}
		// The error was taken from the socket: the next packet leaves.
		client.send(t, carrier.Packet{Addr: testnet.ServerAddr, Data: packet(0)})
	}
}

// TestErrorsDoNotBlameOthers sends many packets while errors come back.
func TestErrorsDoNotBlameOthers(t *testing.T) {
	n := network(t)
	client, server := open(t, n.Sites[0].App, Config{}), open(t, n.Server, Config{})
	const count = 2000
	received := 0
	for i := range count {
		client.send(t,
			carrier.Packet{Addr: netip.MustParseAddr("10.99.0.1"), Data: packet(1)},
			carrier.Packet{Addr: testnet.ServerAddr, Data: packet(2)})
		if i%16 == 15 {
			for range 16 {
				server.receive(t, isPacket)
				received++
			}
		}
	}
	if received != count {
		t.Errorf("%d of %d packets arrived", received, count)
	}
	if st := client.Stats(); st.HostUnreachable == 0 || st.SendPackets != 2*count {
		t.Errorf("%+v", st)
	}
}

func TestNoRoute(t *testing.T) {
	n := network(t)
	// A namespace that routes only to its neighbours.
	client := open(t, n.Internet, Config{})
	for _, dst := range []string{"172.16.0.1", "2001:db8:77::1"} {
		addr := netip.MustParseAddr(dst)
		batch := []carrier.Packet{{Addr: addr, Data: packet(0)}, {Addr: testnet.GatewayAddr, Data: packet(0)}}
		if err := client.Send(batch); err != nil {
			t.Fatal(err)
		}
		if batch[0].Trouble != carrier.NoRoute || !errors.Is(batch[0].Err, unix.ENETUNREACH) {
			t.Errorf("%s: %v, %v", dst, batch[0].Trouble, batch[0].Err)
		}
		if batch[1].Trouble != carrier.None {
			t.Errorf("packet behind it: %v, %v", batch[1].Trouble, batch[1].Err)
		}
		if err := client.CheckRoute(addr); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("%s: %v", dst, err)
		}
	}
	if err := client.CheckRoute(testnet.GatewayAddr); err != nil {
		t.Error(err)
	}
}

// TestPathMTU lowers the MTU of a link in the middle, and of the first one.
func TestPathMTU(t *testing.T) {
	n := network(t)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			client, server := open(t, n.Sites[0].App, Config{}), open(t, n.Server, Config{})
			headers := f.ipHeader + dataHeader
			want := func(mtu int) {
				t.Helper()
				if got := client.MaxData(f.server); got != mtu-headers {
					t.Errorf("%d bytes of data, want %d", got, mtu-headers)
				}
			}
			full := func(mtu int) carrier.Packet {
				return carrier.Packet{Addr: f.server, Data: packet(mtu - f.ipHeader - smallest)}
			}
			want(1500)
			if err := n.Internet.SetMTU("gw0", 1400); err != nil {
				t.Fatal(err)
			}
			client.send(t, full(1500))
			if got := client.receive(t, func(carrier.Packet) bool { return true }); got.Trouble != carrier.MTUChanged || got.Addr != f.server {
				t.Fatalf("%+v", got)
			}
			want(1400)
			client.send(t, full(1400))
			if got := server.receive(t, isPacket); len(got.Data) != 1400-f.ipHeader {
				t.Errorf("%d bytes came", len(got.Data))
			}

			// What the route itself does not take never leaves.
			if err := n.Sites[0].App.SetMTU("eth0", 1300); err != nil {
				t.Fatal(err)
			}
			batch := []carrier.Packet{full(1400), full(1300)}
			if err := client.Send(batch); err != nil {
				t.Fatal(err)
			}
			if batch[0].Trouble != carrier.MTUChanged || batch[1].Trouble != carrier.None {
				t.Errorf("%v and %v", batch[0].Trouble, batch[1].Trouble)
			}
			want(1300)
			server.receive(t, isPacket)

			if err := n.Sites[0].App.SetMTU("eth0", 1500); err != nil {
				t.Fatal(err)
			}
			if err := n.Internet.SetMTU("gw0", 1500); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestLargeMTU(t *testing.T) {
	n := network(t)
	server := open(t, n.Server, Config{})
	if got := server.MaxData(testnet.ServerAddr); got != carrier.MaxPacket-20-dataHeader {
		t.Errorf("on loopback: %d bytes of data", got)
	}
	server.send(t, carrier.Packet{Addr: testnet.ServerAddr, Data: packet(carrier.MaxPacket - 20 - smallest)})
	if got := server.receive(t, isPacket); len(got.Data) != carrier.MaxPacket-20 {
		t.Errorf("%d bytes came", len(got.Data))
	}
	server.send(t, carrier.Packet{Addr: testnet.ServerAddr, Data: packet(carrier.MaxPacket - 20 - smallest + 1)},
		carrier.Packet{Addr: testnet.ServerAddr, Data: packet(0)})
	if got := server.receive(t, isPacket); len(got.Data) != smallest {
		t.Errorf("%d bytes came", len(got.Data))
	}
	if st := server.Stats(); st.RecvDropTruncated != 1 {
		t.Errorf("%+v", st)
	}
}

func TestPeersAreBounded(t *testing.T) {
	var p peers
	for i := range maxPeers + 10 {
		p.seen(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), testnet.ServerAddr)
	}
	if n := len(p.m); n > maxPeers || n < maxPeers/2 {
		t.Errorf("%d peers remembered", n)
	}
}

// TestFirewall drops packets on their way out: they are lost, and nobody is
// unreachable.
func TestFirewall(t *testing.T) {
	n := network(t)
	client := open(t, n.Sites[0].App, Config{})
	if err := n.Sites[0].App.Nft("add table inet homa\nadd chain inet homa out { type filter hook output priority 0; }\nadd rule inet homa out drop"); err != nil {
		t.Fatal(err)
	}
	client.send(t, carrier.Packet{Addr: testnet.ServerAddr, Data: packet(0)}, carrier.Packet{Addr: testnet.ServerAddr6, Data: packet(0)})
	if st := client.Stats(); st.SendDropDenied != 2 {
		t.Errorf("%+v", st)
	}
}

// TestPacketPathDoesNotAllocate sends and receives on loopback.
func TestPacketPathDoesNotAllocate(t *testing.T) {
	n := network(t)
	var c *Conn
	err := n.Server.Do(func() (err error) {
		c, err = Open(Config{Local: []netip.Addr{testnet.ServerAddr}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := make([]carrier.Packet, 8)
	for i := range in {
		in[i].Buf = make([]byte, carrier.MaxPacket)
	}
	out := make([]carrier.Packet, 8)
	for i := range out {
		out[i] = carrier.Packet{Addr: testnet.ServerAddr, Priority: uint8(i), Data: packet(100)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	allocs := testing.AllocsPerRun(100, func() {
		if err := c.Send(out); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < len(out); {
			n, err := c.Receive(0, in)
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
		c.MaxData(testnet.ServerAddr)
	})
	if allocs != 0 {
		t.Errorf("%v allocations for %d packets", allocs, len(out))
	}
}
