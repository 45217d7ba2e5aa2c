package rawip

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/internal/mmsg"
	"github.com/tougw/tougw/internal/testnet"
)

// TestClassify looks at every kind of error that means something, and at some that
// do not.
func TestClassify(t *testing.T) {
	const v4, v6 = unix.SO_EE_ORIGIN_ICMP, unix.SO_EE_ORIGIN_ICMP6
	for _, c := range []struct {
		origin, typ, code uint8
		quoted            []byte
		want              carrier.Trouble
		port              uint16
	}{
		{v4, 3, 3, packet(0), carrier.PortUnreachable, 4000},
		{v4, 3, 3, packet(0)[:27], carrier.None, 0},
		{v4, 3, 2, packet(0)[:8], carrier.None, 0},
		{v4, 3, 0, nil, carrier.None, 0},
		{v4, 3, 4, nil, carrier.MTUChanged, 0},
		{v4, 3, 3, make([]byte, 28), carrier.None, 0},
		{v4, 3, 2, packet(0), carrier.ProtocolUnreachable, 0},
		{v4, 3, 4, packet(0), carrier.MTUChanged, 0},
		{v4, 3, 0, packet(0), carrier.HostUnreachable, 0},
		{v4, 3, 13, packet(0), carrier.HostUnreachable, 0},
		{v4, 11, 0, packet(0), carrier.None, 0},
		{v4, 12, 1, packet(0), carrier.None, 0},
		{v6, 1, 4, packet(0), carrier.PortUnreachable, 4000},
		{v6, 1, 3, packet(0), carrier.HostUnreachable, 0},
		{v6, 1, 0, packet(0), carrier.HostUnreachable, 0},
		{v6, 2, 0, packet(0), carrier.MTUChanged, 0},
		{v6, 4, 1, packet(0), carrier.ProtocolUnreachable, 0},
		{v6, 4, 0, packet(0), carrier.None, 0},
		{v6, 3, 0, packet(0), carrier.None, 0},
		{unix.SO_EE_ORIGIN_LOCAL, 0, 0, nil, carrier.None, 0},
	} {
		q := &errorQueue{s: &socket{c: &Conn{}}}
		got, port := q.classify(unix.SockExtendedErr{Origin: c.origin, Type: c.typ, Code: c.code}, c.quoted)
		if got != c.want || port != c.port {
			t.Errorf("origin %d, type %d, code %d: %v, port %d; want %v, port %d", c.origin, c.typ, c.code, got, port, c.want, c.port)
		}
	}
}

func TestBehindIPv4(t *testing.T) {
	header := make([]byte, 24)
	for _, c := range []struct {
		first byte
		n     int
		want  int // -1: nil
	}{{0x45, 24, 4}, {0x46, 24, 0}, {0x45, 20, 0}, {0x45, 19, -1}, {0x44, 24, -1}, {0x4f, 24, -1}, {0, 0, -1}} {
		header[0] = c.first
		got := behindIPv4(header[:c.n])
		if c.want < 0 && got != nil || c.want >= 0 && (got == nil || len(got) != c.want) {
			t.Errorf("first byte %#x of %d: %v", c.first, c.n, got)
		}
	}
}

func FuzzControl(f *testing.F) {
	var c recvControl
	n := mmsg.PutSource(c.bytes(), testnet.ServerAddr6, true, new(mmsg.Zones))
	f.Add(append([]byte(nil), c.bytes()[:n]...))
	f.Fuzz(func(_ *testing.T, in []byte) {
		var c recvControl
		b := c.bytes()[:copy(c.bytes(), in)]
		parseControl(b, new(mmsg.Zones))
		extendedError(b)
		behindIPv4(in)
	})
}
