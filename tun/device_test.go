package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/tougw/tougw/internal/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var backends = []Backend{BackendNetlink, BackendWater}

// dualStack is a device with 10.99.0.1/24 and fd99::1/64.
func dualStack(b Backend, queues int) Config {
	return Config{Name: "tou0", Backend: b, Queues: queues, Addresses: []netip.Prefix{
		netip.MustParsePrefix("10.99.0.1/24"), netip.MustParsePrefix("fd99::1/64"),
	}}
}

// ends are the device's own address and one behind it, for each family.
var ends = []struct{ local, remote netip.Addr }{
	{netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.2")},
	{netip.MustParseAddr("fd99::1"), netip.MustParseAddr("fd99::2")},
}

func TestDatagramsBothWays(t *testing.T) {
	for _, b := range backends {
		t.Run(string(b), func(t *testing.T) {
			namespace(t)
			d := open(t, dualStack(b, 1))
			for _, e := range ends {
				fd := socket(t, unix.SOCK_DGRAM, netip.AddrPortFrom(e.local, 0), 0)
				local, remote := netip.AddrPortFrom(e.local, localPort(t, fd)), netip.AddrPortFrom(e.remote, 9)
				send(t, fd, "out", remote)
				p := readUntil(t, d, to(remote))
				if tu, l4 := transport(t, p.Buf[:p.N]); tu.Src != local || string(l4[8:]) != "out" || !validChecksum(t, p) {
					t.Errorf("read %v %q, checksum valid %v", tu, l4, validChecksum(t, p))
				}
				write(t, d, udp(remote, local, []byte("complete"), false), packet.Offload{})
				// Odd length, so that the last byte counts as half a word.
				pkt := udp(remote, local, []byte("open"+"!"), true)
				start := uint16(len(pkt) - 8 - 5)
				write(t, d, pkt, packet.Offload{Flags: packet.NeedsCsum, CsumStart: start, CsumOffset: 6})
				if got := recv(t, fd) + " " + recv(t, fd); got != "complete open!" {
					t.Errorf("received %q", got)
				}
			}
			if s := d.Stats(); s.WrittenPackets != 4 || s.ReadPackets < 2 || s.ReadBytes < 2*31 || s.ReadMalformed+s.WriteInvalid+s.WriteRefused != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestKernelAnswersEcho(t *testing.T) {
	for _, b := range backends {
		t.Run(string(b), func(t *testing.T) {
			namespace(t)
			d := open(t, dualStack(b, 1))
			e := ends[0]
			echo := []byte{8, 0, 0, 0, 0, 1, 0, 1, 'h', 'i'}
			binary.BigEndian.PutUint16(echo[2:], ^fold(sum32(echo)))
			write(t, d, ip(packet.ProtoICMP, e.remote, e.local, echo), packet.Offload{})
			p := readUntil(t, d, func(_ *packet.In, tu packet.Tuple) bool { return tu.Proto == packet.ProtoICMP })
			if _, l4 := transport(t, p.Buf[:p.N]); l4[0] != 0 || string(l4[8:]) != "hi" || fold(sum32(l4)) != 0xffff {
				t.Errorf("answer %x", l4)
			}
		})
	}
}

// connect completes the handshake of a kernel socket with a peer made of
// hand-written segments, and gives the socket, both ends and the next sequence
// numbers of the peer and of the kernel.
func connect(t *testing.T, d Device, local, remote netip.Addr) (fd int, l, r netip.AddrPort, seq, ack uint32) {
	t.Helper()
	fd = socket(t, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, netip.AddrPortFrom(local, 0), 0)
	l, r = netip.AddrPortFrom(local, localPort(t, fd)), netip.AddrPortFrom(remote, 80)
	if err := unix.Connect(fd, sockaddr(r)); err != unix.EINPROGRESS {
		t.Fatalf("connect: %v", err)
	}
	p := readUntil(t, d, to(r))
	_, l4 := transport(t, p.Buf[:p.N])
	seq, ack = 1000, binary.BigEndian.Uint32(l4[4:])+1
	pkt := tcp(r, l, seq, ack, 0x12, []byte{2, 4, 0x03, 0xe8, 1, 3, 3, 8}, nil) // MSS 1000, window scale 8
	write(t, d, pkt, tcpOffload(pkt, 28, 0))
	seq++
	readUntil(t, d, to(r)) // the ACK
	return fd, l, r, seq, ack
}

// tcpOffload describes a segment made by tcp, with the length of its TCP header.
func tcpOffload(pkt []byte, hlen int, mss uint16) packet.Offload {
	o := packet.Offload{Flags: packet.NeedsCsum, CsumStart: 20, CsumOffset: 16, GSOSize: mss}
	gso := uint8(packet.GSOTCPv4)
	if pkt[0]>>4 == 6 {
		o.CsumStart, gso = 40, packet.GSOTCPv6
	}
	if mss > 0 {
		o.GSOType = gso
	}
	o.HdrLen = o.CsumStart + uint16(hlen)
	return o
}

// TestRenoTowardsTheDevice: captured connections do not take the host's default.
func TestRenoTowardsTheDevice(t *testing.T) {
	namespace(t)
	cfg := dualStack(BackendNetlink, 1)
	cfg.Routes = prefixes("198.51.100.0/24", "2001:db8:9::/64")
	d := open(t, cfg)
	for i, remote := range []string{"198.51.100.7", "2001:db8:9::7"} {
		fd, _, _, _, _ := connect(t, d, ends[i].local, netip.MustParseAddr(remote))
		// The kernel's own name for it; the default is cubic, or what the host says.
		if got, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err != nil || got != "reno" {
			t.Errorf("to %s: congestion control %q (%v), want reno", remote, got, err)
		}
	}
}

func TestSuperSegmentsBothWays(t *testing.T) {
	namespace(t)
	d := open(t, dualStack(BackendNetlink, 1))
	if c := d.Capabilities(); !c.VnetHdr || !c.TSO4 || !c.TSO6 || !c.Csum || d.MTU() != 1500 {
		t.Fatalf("capabilities %+v, MTU %d", c, d.MTU())
	}
	for _, e := range ends {
		fd, l, r, seq, ack := connect(t, d, e.local, e.remote)
		if _, err := unix.Write(fd, make([]byte, 1<<16)); err != nil {
			t.Fatal(err)
		}
		// Ten segments fit the initial window: one super-packet of 10 000 bytes.
		p := readUntil(t, d, to(r))
		_, l4 := transport(t, p.Buf[:p.N])
		hlen := int(l4[12]>>4) * 4
		payload := len(l4) - hlen
		gso := uint8(packet.GSOTCPv4)
		if e.local.Is6() {
			gso = packet.GSOTCPv6
		}
		if p.N <= d.MTU() || p.GSOType != gso || p.GSOSize != 1000 || payload <= 1000 || p.Flags&packet.NeedsCsum == 0 {
			t.Errorf("read %d bytes with %+v", p.N, p.Offload)
		}
		if want := p.N - payload; int(p.HdrLen) != want || int(p.CsumStart) != want-hlen || p.CsumOffset != 16 || !validChecksum(t, p) {
			t.Errorf("offload %+v, headers have %d bytes", p.Offload, want)
		}

		data := bytes.Repeat([]byte("tougw "), 5000)
		pkt := tcp(r, l, seq, ack, 0x18, nil, data)
		write(t, d, pkt, tcpOffload(pkt, 20, 1000))
		if err := unix.SetNonblock(fd, false); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		if _, err := io.ReadFull(readerFunc(func(b []byte) (int, error) { return unix.Read(fd, b) }), got); err != nil || !bytes.Equal(got, data) {
			t.Errorf("received other bytes, %v", err)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestWaterMovesWholeSegments(t *testing.T) {
	namespace(t)
	d := open(t, dualStack(BackendWater, 4))
	if c := d.Capabilities(); c != (Capabilities{Backend: BackendWater, Queues: 1}) || d.Queues() != 1 || d.MTU() != 65535 {
		t.Fatalf("capabilities %+v, %d queues, MTU %d", c, d.Queues(), d.MTU())
	}
	for _, e := range ends {
		fd, l, r, seq, ack := connect(t, d, e.local, e.remote)
		if _, err := unix.Write(fd, make([]byte, 5000)); err != nil {
			t.Fatal(err)
		}
		p := readUntil(t, d, to(r))
		if p.Offload != (packet.Offload{}) || !validChecksum(t, p) || p.N > 1100 {
			t.Errorf("read %d bytes with %+v, checksum valid %v", p.N, p.Offload, validChecksum(t, p))
		}
		data := bytes.Repeat([]byte("x"), 60001)
		pkt := tcp(r, l, seq, ack, 0x18, nil, data)
		write(t, d, pkt, tcpOffload(pkt, 20, 0))
		if err := unix.SetNonblock(fd, false); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		if _, err := io.ReadFull(readerFunc(func(b []byte) (int, error) { return unix.Read(fd, b) }), got); err != nil || !bytes.Equal(got, data) {
			t.Errorf("received other bytes, %v", err)
		}
	}
}

func TestWriteRefusals(t *testing.T) {
	namespace(t)
	local, remote := netip.AddrPortFrom(ends[0].local, 7), netip.AddrPortFrom(ends[0].remote, 7)
	good := packet.Out{Parts: [][]byte{udp(remote, local, nil, false)}}
	empty := packet.Out{Parts: [][]byte{nil, {}}}
	long := packet.Out{Parts: [][]byte{make([]byte, 65530), make([]byte, 6)}}
	parts := packet.Out{Parts: bytes.Split(make([]byte, maxParts+1), nil)}
	gso := packet.Out{Offload: packet.Offload{GSOType: packet.GSOTCPv4}, Parts: good.Parts}
	outside := packet.Out{Offload: packet.Offload{Flags: packet.NeedsCsum, CsumStart: 20, CsumOffset: 7}, Parts: good.Parts}

	t.Run("water", func(t *testing.T) {
		d := open(t, dualStack(BackendWater, 1))
		for _, c := range []struct {
			name string
			out  packet.Out
			err  error
		}{
			{"empty", empty, ErrPacket}, {"too long", long, ErrPacket}, {"too many parts", parts, ErrPacket},
			{"super-packet", gso, ErrSegmentation}, {"checksum outside", outside, ErrPacket},
		} {
			// The packets around the bad one still go out.
			if n, err := d.Write(0, []packet.Out{good, c.out, good}); n != 2 || !errors.Is(err, c.err) {
				t.Errorf("%s: wrote %d, %v", c.name, n, err)
			}
		}
		if s := d.Stats(); s.WriteInvalid != 4 || s.WriteSegmentation != 1 || s.WriteRefused != 0 || s.WrittenPackets != 10 {
			t.Errorf("stats %+v", s)
		}
	})
	t.Run("netlink", func(t *testing.T) {
		d := open(t, dualStack(BackendNetlink, 1))
		for _, out := range []packet.Out{empty, long, parts} {
			if n, err := d.Write(0, []packet.Out{good, out, good}); n != 2 || !errors.Is(err, ErrPacket) {
				t.Errorf("wrote %d, %v", n, err)
			}
		}
		// Segments without a size: the kernel's own check.
		if n, err := d.Write(0, []packet.Out{good, gso, good}); n != 2 || !errors.Is(err, unix.EINVAL) {
			t.Errorf("wrote %d, %v", n, err)
		}
		link, err := netlink.LinkByName(d.Name())
		if err == nil {
			err = netlink.LinkSetDown(link)
		}
		if err != nil {
			t.Fatal(err)
		}
		if n, err := d.Write(0, []packet.Out{good}); n != 0 || !errors.Is(err, unix.EIO) {
			t.Errorf("device is down: wrote %d, %v", n, err)
		}
		if s := d.Stats(); s.WriteInvalid != 3 || s.WriteRefused != 2 || s.WrittenPackets != 8 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestReadBatch(t *testing.T) {
	for _, b := range backends {
		t.Run(string(b), func(t *testing.T) {
			namespace(t)
			d := open(t, dualStack(b, 1))
			fd := socket(t, unix.SOCK_DGRAM, netip.AddrPortFrom(ends[0].local, 0), 0)
			remote := netip.AddrPortFrom(ends[0].remote, 9)
			for i := range 10 {
				send(t, fd, fmt.Sprint(i), remote)
			}
			// All are there, so each read fills what it is given.
			var got []string
			ps := buffers(4)
			for len(got) < 10 {
				n, err := d.Read(0, ps)
				if err != nil {
					t.Fatal(err)
				}
				for i := range ps[:n] {
					if tu, l4 := transport(t, ps[i].Buf[:ps[i].N]); tu.Dst == remote {
						got = append(got, string(l4[8:]))
					}
				}
				if n < 4 && len(got) < 10 {
					t.Fatalf("read %d of 4 with packets left", n)
				}
			}
			if s := strings.Join(got, ""); s != "0123456789" {
				t.Errorf("read %s", s)
			}
			if n, err := d.Read(0, nil); n != 0 || err != nil {
				t.Errorf("read into nothing: %d, %v", n, err)
			}
			ps[1].Buf = ps[1].Buf[:packet.Size-1]
			if _, err := d.Read(0, ps); !errors.Is(err, io.ErrShortBuffer) {
				t.Errorf("read into a short buffer: %v", err)
			}
		})
	}
}

func TestSeveralQueues(t *testing.T) {
	namespace(t)
	const queues, flows = 4, 128
	d := open(t, dualStack(BackendNetlink, queues))
	if d.Queues() != queues || d.Capabilities().Queues != queues {
		t.Fatalf("%d queues, %+v", d.Queues(), d.Capabilities())
	}
	remote := netip.AddrPortFrom(ends[0].remote, 9)
	type hit struct {
		queue int
		src   netip.AddrPort
	}
	hits := make(chan hit, flows)
	var wg sync.WaitGroup
	for q := range queues {
		wg.Go(func() {
			ps := buffers(4)
			for {
				n, err := d.Read(q, ps)
				if err != nil {
					if !errors.Is(err, os.ErrClosed) {
						t.Errorf("queue %d: %v", q, err)
					}
					return
				}
				for i := range ps[:n] {
					if tu, ok := packet.ParseTuple(ps[i].Buf[:ps[i].N]); ok && tu.Dst == remote {
						hits <- hit{q, tu.Src}
					}
				}
			}
		})
	}
	for range flows {
		fd := socket(t, unix.SOCK_DGRAM, netip.AddrPortFrom(ends[0].local, 0), 0)
		send(t, fd, "x", remote)
	}
	used, seen := map[int]int{}, map[netip.AddrPort]bool{}
	within(t, "waiting for all flows", func() {
		for len(seen) < flows {
			h := <-hits
			used[h.queue]++
			seen[h.src] = true
		}
	})
	if len(used) < 2 {
		t.Errorf("all flows in one of %d queues: %v", queues, used)
	}
	local := netip.AddrPortFrom(ends[0].local, 0)
	fd := socket(t, unix.SOCK_DGRAM, local, 0)
	local = netip.AddrPortFrom(ends[0].local, localPort(t, fd))
	for q := range queues {
		if n, err := d.Write(q, []packet.Out{{Parts: [][]byte{udp(remote, local, []byte{byte('0' + q)}, false)}}}); n != 1 || err != nil {
			t.Errorf("write to queue %d: %d, %v", q, n, err)
		}
		if got := recv(t, fd); got != fmt.Sprint(q) {
			t.Errorf("received %q through queue %d", got, q)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	within(t, "readers after Close", wg.Wait)
}

func TestCloseUnblocks(t *testing.T) {
	for _, b := range backends {
		t.Run(string(b), func(t *testing.T) {
			namespace(t)
			dir := t.TempDir()
			c := dualStack(b, 2)
			c.RunDir = dir
			d, err := Open(c)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for q := range d.Queues() {
				wg.Go(func() {
					for {
						if _, err := d.Read(q, buffers(1)); err != nil {
							if !errors.Is(err, os.ErrClosed) {
								t.Errorf("queue %d: %v", q, err)
							}
							return
						}
					}
				})
			}
			// Close from many sides at once, and on threads of other namespaces.
			for range 4 {
				wg.Go(func() {
					if err := d.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				})
			}
			within(t, "readers after Close", wg.Wait)
			if _, err := d.Write(0, []packet.Out{{Parts: [][]byte{{0x45}}}}); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Write after Close: %v", err)
			}
			if _, err := d.Read(0, buffers(1)); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Read after Close: %v", err)
			}
			if err := d.CheckLoop(nil); !errors.Is(err, os.ErrClosed) {
				t.Errorf("CheckLoop after Close: %v", err)
			}
			d.Stats()
			emptyDir(t, dir)
		})
	}
}

func TestDeviceRemovedByOthers(t *testing.T) {
	for _, b := range backends {
		t.Run(string(b), func(t *testing.T) {
			namespace(t)
			before := hostState(t)
			dir := t.TempDir()
			c := captureAll(dir, b)
			d := open(t, c)
			link, err := netlink.LinkByName(d.Name())
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() {
				for {
					if _, err := d.Read(0, buffers(1)); err != nil {
						done <- err
						return
					}
				}
			}()
			if err := netlink.LinkDel(link); err != nil {
				t.Fatal(err)
			}
			within(t, "reader of a removed device", func() { err = <-done })
			isErr(t, err, unix.EBADFD)
			_, err = d.Write(0, []packet.Out{{Parts: [][]byte{{0x45}}}})
			isErr(t, err, unix.EBADFD)
			if err := d.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			sameState(t, before)
			emptyDir(t, dir)
		})
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, b := range backends {
		t.Run(string(b), func(t *testing.T) {
			namespace(t)
			d := open(t, dualStack(b, 1))
			fd := socket(t, unix.SOCK_DGRAM, netip.AddrPortFrom(ends[0].local, 0), 0)
			local, remote := netip.AddrPortFrom(ends[0].local, localPort(t, fd)), netip.AddrPortFrom(ends[0].remote, 9)
			if err := unix.Connect(fd, sockaddr(remote)); err != nil {
				t.Fatal(err)
			}
			payload, ps := []byte("x"), buffers(4)
			if n := testing.AllocsPerRun(200, func() {
				if _, err := unix.Write(fd, payload); err != nil {
					t.Fatal(err)
				}
				if _, err := d.Read(0, ps); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("Read allocates %v times", n)
			}
			pkt := udp(remote, local, []byte("payload"), true)
			out := []packet.Out{
				{Offload: packet.Offload{Flags: packet.NeedsCsum, CsumStart: 20, CsumOffset: 6}, Parts: [][]byte{pkt[:20], pkt[20:28], pkt[28:]}},
				{Offload: packet.Offload{Flags: packet.NeedsCsum, CsumStart: 20, CsumOffset: 6}, Parts: bytes.SplitAfter(pkt, nil)},
			}
			if n := testing.AllocsPerRun(200, func() {
				if n, err := d.Write(0, out); n != 2 || err != nil {
					t.Fatal(n, err)
				}
			}); n != 0 {
				t.Errorf("Write allocates %v times", n)
			}
			w := d.(*device).writers[0]
			for _, v := range w.iov[:cap(w.iov)] {
				if v.Base != nil {
					t.Fatal("a part is kept beyond Write")
				}
			}
		})
	}
}
