package tun

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/tougw/tougw/internal/packet"
	"golang.org/x/sys/unix"
)

// ip makes a packet of the given payload with a correct header.
func ip(proto uint8, src, dst netip.Addr, payload []byte) []byte {
	var b []byte
	if src.Is4() {
		b = []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0}
		b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		binary.BigEndian.PutUint16(b[10:], ^fold(sum32(b)))
	} else {
		b = []byte{0x60, 0, 0, 0, 0, 0, proto, 64}
		b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
		binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	}
	return append(b, payload...)
}

// pseudo is the sum of the pseudo-header.
func pseudo(proto uint8, src, dst netip.Addr, n int) uint64 {
	return sum32(src.AsSlice()) + sum32(dst.AsSlice()) + uint64(proto) + uint64(n)
}

// udp makes a datagram; its checksum is left open when open is set.
func udp(src, dst netip.AddrPort, payload []byte, open bool) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	b = append(b, payload...)
	sum := pseudo(packet.ProtoUDP, src.Addr(), dst.Addr(), len(b))
	if open {
		binary.BigEndian.PutUint16(b[6:], fold(sum))
	} else {
		binary.BigEndian.PutUint16(b[6:], ^fold(sum+sum32(b)))
	}
	return ip(packet.ProtoUDP, src.Addr(), dst.Addr(), b)
}

// tcp makes a segment with an open checksum.
func tcp(src, dst netip.AddrPort, seq, ack uint32, flags uint8, options, payload []byte) []byte {
	n := 20 + len(options)
	b := make([]byte, n, n+len(payload))
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = uint8(n/4)<<4, flags
	binary.BigEndian.PutUint16(b[14:], 65535)
	copy(b[20:], options)
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[16:], fold(pseudo(packet.ProtoTCP, src.Addr(), dst.Addr(), len(b))))
	return ip(packet.ProtoTCP, src.Addr(), dst.Addr(), b)
}

// transport gives proto, addresses and the bytes behind the IP header.
func transport(t *testing.T, b []byte) (packet.Tuple, []byte) {
	t.Helper()
	tu, ok := packet.ParseTuple(b)
	if !ok {
		t.Fatalf("packet does not parse: %x", b)
	}
	if tu.Src.Addr().Is4() {
		return tu, b[int(b[0]&15)*4:]
	}
	return tu, b[40:]
}

// validChecksum reports whether the checksum of a TCP or UDP packet is right,
// or is open with the right sum of the pseudo-header.
func validChecksum(t *testing.T, p *packet.In) bool {
	t.Helper()
	tu, l4 := transport(t, p.Buf[:p.N])
	sum := pseudo(tu.Proto, tu.Src.Addr(), tu.Dst.Addr(), len(l4))
	if p.Flags&packet.NeedsCsum != 0 {
		return binary.BigEndian.Uint16(p.Buf[p.CsumStart+p.CsumOffset:]) == fold(sum)
	}
	return fold(sum+sum32(l4)) == 0xffff
}

// buffers makes n packets to read into.
func buffers(n int) []packet.In {
	ps := make([]packet.In, n)
	for i := range ps {
		ps[i].Buf = make([]byte, packet.Size)
	}
	return ps
}

// readUntil reads queue 0 until want accepts a packet, and gives that.
func readUntil(t *testing.T, d Device, want func(*packet.In, packet.Tuple) bool) *packet.In {
	t.Helper()
	var found *packet.In
	within(t, "waiting for a packet of "+d.Name(), func() {
		ps := buffers(8)
		for found == nil {
			n, err := d.Read(0, ps)
			if err != nil {
				t.Errorf("Read: %v", err)
				return
			}
			for i := range ps[:n] {
				if tu, ok := packet.ParseTuple(ps[i].Buf[:ps[i].N]); ok && want(&ps[i], tu) {
					found = &ps[i]
					return
				}
			}
		}
	})
	if found == nil {
		t.FailNow()
	}
	return found
}

// to matches packets by destination.
func to(dst netip.AddrPort) func(*packet.In, packet.Tuple) bool {
	return func(_ *packet.In, tu packet.Tuple) bool { return tu.Dst == dst }
}

// write writes one packet, in two parts.
func write(t *testing.T, d Device, b []byte, o packet.Offload) {
	t.Helper()
	n, err := d.Write(0, []packet.Out{{Offload: o, Parts: [][]byte{b[:8], b[8:]}}})
	if n != 1 || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
}

// socket makes a kernel socket in the namespace of the test, with a time-out
// for reads.
func socket(t *testing.T, kind int, local netip.AddrPort, mark int) int {
	t.Helper()
	family := unix.AF_INET
	if local.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	tv := unix.NsecToTimeval(int64(20e9))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	if mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, sockaddr(local)); err != nil {
		t.Fatal(err)
	}
	return fd
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// send sends a datagram to dst.
func send(t *testing.T, fd int, payload string, dst netip.AddrPort) {
	t.Helper()
	if err := unix.Sendto(fd, []byte(payload), 0, sockaddr(dst)); err != nil {
		t.Fatalf("send to %v: %v", dst, err)
	}
}

// recv receives a datagram.
func recv(t *testing.T, fd int) string {
	t.Helper()
	b := make([]byte, 65536)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return string(slices.Clone(b[:n]))
}

// localPort gives the port that the socket is bound to.
func localPort(t *testing.T, fd int) uint16 {
	t.Helper()
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port)
	case *unix.SockaddrInet6:
		return uint16(sa.Port)
	}
	t.Fatalf("socket is bound to %T", sa)
	return 0
}
