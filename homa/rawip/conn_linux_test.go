package rawip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/internal/testnet"
)

func TestPacketsCross(t *testing.T) {
	n := network(t)
	client, server := open(t, n.Sites[0].App, Config{}), open(t, n.Server, Config{})
	var bytesSent uint64
	for _, f := range families {
		for _, size := range []int{0, 1, 1472 - f.ipHeader} {
			data := packet(size)
			bytesSent += uint64(len(data))
			client.send(t, carrier.Packet{Addr: f.server, Data: data})
			got := server.receive(t, isPacket)
			if got.Addr != f.client || got.Local != f.server || !bytes.Equal(got.Data, data) {
				t.Fatalf("%s, %d bytes: came from %v to %v as %x", f.name, size, got.Addr, got.Local, got.Data)
			}
		}
	}
	if st := client.Stats(); st.SendPackets != 6 || st.SendBytes != bytesSent {
		t.Errorf("sent %d packets with %d bytes, counted %+v", 6, bytesSent, st)
	}
	if st := server.Stats(); st.RecvPackets != 6 || st.RecvBytes != bytesSent {
		t.Errorf("received %d packets with %d bytes, counted %+v", 6, bytesSent, st)
	}
}

func TestBatchesOfBothFamilies(t *testing.T) {
	n := network(t)
	client, server := open(t, n.Sites[0].App, Config{}), open(t, n.Server, Config{})
	const count = 200
	var batch []carrier.Packet
	for i := range count {
		f := families[i/7%2]
		batch = append(batch, carrier.Packet{Addr: f.server, Data: packet(i), Priority: uint8(i % levels)})
	}
	client.send(t, batch...)
	seen := map[int]bool{}
	for range count {
		p := server.receive(t, isPacket)
		seen[len(p.Data)] = true
	}
	if len(seen) != count {
		t.Errorf("%d different packets of %d", len(seen), count)
	}
	if st := client.Stats(); st.SendCalls > 2*count/7+2 {
		t.Errorf("%d calls for %d packets in runs of 7", st.SendCalls, count)
	}
}

// TestFilter sends what is not Homa under its protocol number.
func TestFilter(t *testing.T) {
	n := network(t)
	client, server := open(t, n.Sites[0].App, Config{}), open(t, n.Server, Config{})
	for _, f := range families {
		bad := func(change func(b []byte) []byte) carrier.Packet {
			return carrier.Packet{Addr: f.server, Data: change(packet(10))}
		}
		client.send(t,
			bad(func(b []byte) []byte { return b[:smallest-1] }),
			bad(func(b []byte) []byte { return b[:0] }),
			bad(func(b []byte) []byte { b[offsetType] = firstType - 1; return b }),
			bad(func(b []byte) []byte { b[offsetType] = lastType + 1; return b }),
			bad(func(b []byte) []byte { b[offsetType] = lastType; return b[:smallest] }))
		if got := server.receive(t, isPacket); len(got.Data) != smallest || got.Data[offsetType] != lastType {
			t.Errorf("%s: got %x", f.name, got.Data)
		}
	}
}

// TestAnswersFromTheAddressThatWasCalled uses a second address of the server.
func TestAnswersFromTheAddressThatWasCalled(t *testing.T) {
	n := network(t)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			second := f.server.Next().Next().Next()
			if err := n.Server.AddAddress("eth0", netip.PrefixFrom(second, f.server.BitLen()-8)); err != nil {
				t.Fatal(err)
			}
			client, server := open(t, n.Sites[0].App, Config{}), open(t, n.Server, Config{})
			for _, addr := range []netip.Addr{f.server, second, f.server} {
				client.send(t, carrier.Packet{Addr: addr, Data: packet(0)})
				if got := server.receive(t, isPacket); got.Local != addr {
					t.Fatalf("came to %s, want %s", got.Local, addr)
				}
				server.send(t, carrier.Packet{Addr: f.client, Data: packet(0)})
				if got := client.receive(t, isPacket); got.Addr != addr {
					t.Errorf("answered from %s, want %s", got.Addr, addr)
				}
			}
		})
	}
}

// TestLocalAddresses lets a server have two of its three addresses.
func TestLocalAddresses(t *testing.T) {
	n := network(t)
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			second, third := f.server.Next().Next().Next(), f.server.Next().Next().Next().Next()
			for _, a := range []netip.Addr{second, third} {
				if err := n.Server.AddAddress("eth0", netip.PrefixFrom(a, f.server.BitLen()-8)); err != nil {
					t.Fatal(err)
				}
			}
			client := open(t, n.Sites[0].App, Config{})
			for _, locals := range [][]netip.Addr{{second}, {second, third}} {
				server := open(t, n.Server, Config{Local: locals})
				if server.Receivers() != 1 {
					t.Fatalf("%d receivers for one family", server.Receivers())
				}
				server.send(t, carrier.Packet{Addr: f.client, Data: packet(0)})
				if got := client.receive(t, isPacket); got.Addr != second {
					t.Errorf("%v: sent from %s", locals, got.Addr)
				}
				client.send(t, carrier.Packet{Addr: f.server, Data: packet(1)}, carrier.Packet{Addr: locals[len(locals)-1], Data: packet(2)})
				if got := server.receive(t, isPacket); got.Local != locals[len(locals)-1] {
					t.Errorf("%v: received for %s", locals, got.Local)
				}
				if st := server.Stats(); len(locals) > 1 && st.RecvDropForeign != 1 {
					t.Errorf("%+v", st)
				}
				other := families[1-slices.Index(families, f)]
				batch := []carrier.Packet{{Addr: other.client, Data: packet(0)}}
				if err := server.Send(batch); err != nil || batch[0].Trouble != carrier.HostUnreachable || !errors.Is(batch[0].Err, unix.EAFNOSUPPORT) {
					t.Errorf("to the other family: %v, %v, %v", err, batch[0].Trouble, batch[0].Err)
				}
				if err := server.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestDevice(t *testing.T) {
	n := network(t)
	gateway := open(t, n.Gateway, Config{Device: "lan0"})
	client, server := open(t, n.Sites[0].App, Config{}), open(t, n.Server, Config{})
	client.send(t, carrier.Packet{Addr: testnet.GatewayAddr, Data: packet(1)})
	server.send(t, carrier.Packet{Addr: netip.MustParseAddr("198.51.100.1"), Data: packet(2)})
	if got := gateway.receive(t, isPacket); got.Addr != testnet.ServerAddr {
		t.Errorf("received from %s by another device", got.Addr)
	}
	err := n.Gateway.Do(func() error {
		_, err := Open(Config{Device: "none0"})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), `"none0"`) {
		t.Errorf("missing device: %v", err)
	}
}

// capture runs f while packets of Homa and ICMP at link are captured, and
// returns the IP packets.
func capture(t *testing.T, ns *testnet.Namespace, link string, f func()) [][]byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pcap")
	c, err := ns.Capture(context.Background(), testnet.CaptureOptions{Link: link, File: file, Filter: fmt.Sprintf("proto %d or ip6 proto %[1]d or icmp or icmp6", Protocol)})
	if err != nil {
		t.Fatal(err)
	}
	f()
	if _, _, err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const fileHeader, recordHeader, ethernet = 24, 16, 14
	var packets [][]byte
	for b = b[fileHeader:]; len(b) > recordHeader; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		packets = append(packets, b[recordHeader+ethernet:recordHeader+n])
		b = b[recordHeader+n:]
	}
	return packets
}

// TestHeadersOnTheWire looks at priorities and fragmentation bits.
func TestHeadersOnTheWire(t *testing.T) {
	n := network(t)
	inverted := []uint8{7 << 5, 6 << 5, 5 << 5, 4 << 5, 3 << 5, 2 << 5, 1 << 5, 0}
	for _, c := range []struct {
		name string
		cfg  Config
		want func(priority int) byte
	}{
		{"default", Config{}, func(p int) byte { return byte(p << 5) }},
		{"map", Config{TOS: inverted}, func(p int) byte { return inverted[p] }},
		{"off", Config{TOS: make([]uint8, levels)}, func(int) byte { return 0 }},
		{"with link priority", Config{LinkPriority: []uint32{0, 1, 2, 3, 4, 5, 6, 7}}, func(p int) byte { return byte(p << 5) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := open(t, n.Sites[0].App, c.cfg), open(t, n.Server, Config{})
			packets := capture(t, n.Server, "eth0", func() {
				for _, f := range families {
					var batch []carrier.Packet
					for p := range levels {
						batch = append(batch, carrier.Packet{Addr: f.server, Priority: uint8(p), Data: packet(p)})
					}
					client.send(t, batch...)
					for range levels {
						server.receive(t, isPacket)
					}
				}
			})
			seen := 0
			for _, b := range packets {
				switch {
				case b[0]>>4 == 4 && b[9] == Protocol:
					seen++
					if p := int(binary.BigEndian.Uint16(b[2:])) - 20 - smallest; b[1] != c.want(p) {
						t.Errorf("IPv4, priority %d: TOS %#x, want %#x", p, b[1], c.want(p))
					}
					if id, flags := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]); id != 0 || flags != 0x4000 {
						t.Errorf("IPv4: id %d, flags and offset %#x", id, flags)
					}
				case b[0]>>4 == 6 && b[6] == Protocol:
					seen++
					class := byte(binary.BigEndian.Uint16(b) >> 4)
					if p := int(binary.BigEndian.Uint16(b[4:])) - smallest; class != c.want(p) {
						t.Errorf("IPv6, priority %d: traffic class %#x, want %#x", p, class, c.want(p))
					}
				}
			}
			if seen != 2*levels {
				t.Errorf("%d packets captured, want %d", seen, 2*levels)
			}
		})
	}
}

// TestLinkPriority counts packets by the kernel's priority as they leave.
func TestLinkPriority(t *testing.T) {
	n := network(t)
	var rules strings.Builder
	for p := range levels {
		fmt.Fprintf(&rules, "add counter inet homa p%d\nadd rule inet homa out meta l4proto %d meta priority 0:%x counter name p%[1]d\n", p, Protocol, 8-p)
	}
	app := n.Sites[0].App
	if err := app.Nft("add table inet homa\nadd chain inet homa out { type filter hook postrouting priority 0; }\n" + rules.String()); err != nil {
		t.Fatal(err)
	}
	cfg := Config{LinkPriority: []uint32{8, 7, 6, 5, 4, 3, 2, 1}}
	client, server := open(t, app, cfg), open(t, n.Server, Config{})
	for _, f := range families {
		for p := range levels {
			for range p + 1 {
				client.send(t, carrier.Packet{Addr: f.server, Priority: uint8(p), Data: packet(0)})
				server.receive(t, isPacket)
			}
		}
	}
	for p := range levels {
		out, err := app.Run(context.Background(), "nft", "list", "counter", "inet", "homa", fmt.Sprintf("p%d", p))
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("packets %d ", 2*(p+1)); !strings.Contains(out, want) {
			t.Errorf("priority %d: want %s in\n%s", p, want, out)
		}
	}
	if st := client.Stats(); st.LinkPriorityDenied != 0 {
		t.Errorf("%+v", st)
	}
}

func TestFragmentsAreDropped(t *testing.T) {
	n := network(t)
	server := open(t, n.Server, Config{})
	client := open(t, n.Sites[0].App, Config{})
	for _, f := range families {
		network := fmt.Sprintf("ip%c:%d", f.name[3], Protocol)
		plain, err := n.Sites[0].App.Dial(context.Background(), network, f.server.String())
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close()
		// A plain raw socket fragments.
		if err := fragment(plain.(*net.IPConn), f.server.Is6()); err != nil {
			t.Fatal(err)
		}
		if _, err := plain.Write(packet(3000)); err != nil {
			t.Fatal(err)
		}
		client.send(t, carrier.Packet{Addr: f.server, Data: packet(3)})
		if got := server.receive(t, isPacket); len(got.Data) != smallest+3 {
			t.Errorf("%s: %d bytes came through", f.name, len(got.Data))
		}
	}
	if st := server.Stats(); st.RecvDropFragmented != 2 {
		t.Errorf("%+v", st)
	}
}

func fragment(c *net.IPConn, v6 bool) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		if v6 {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
		}
	})
	return errors.Join(cerr, err)
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Local: make([]netip.Addr, 65)}, "65 local addresses"},
		{Config{Local: []netip.Addr{{}}}, `"invalid IP"`},
		{Config{Local: []netip.Addr{netip.IPv4Unspecified()}}, `"0.0.0.0"`},
		{Config{TOS: make([]uint8, 7)}, "TOS for 7"},
		{Config{LinkPriority: make([]uint32, 9)}, "link priority for 9"},
		{Config{SendBuffer: -1}, "negative"},
	} {
		if _, err := Open(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
}

// TestNoCapability opens sockets as somebody who may not.
func TestNoCapability(t *testing.T) {
	if os.Geteuid() != 0 {
		if _, err := Open(Config{}); !errors.Is(err, unix.EPERM) {
			t.Errorf("%v", err)
		}
		return
	}
	done := make(chan error)
	go func() {
		// The thread is not given back: it ends with this goroutine.
		done <- withoutCapabilities(func() error {
			_, err := Open(Config{})
			return err
		})
	}()
	if err := <-done; !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_RAW") {
		t.Errorf("%v", err)
	}
}
