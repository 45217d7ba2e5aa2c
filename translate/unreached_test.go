package translate

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/tougw/tougw/framing"
)

// closedPort is a port of this host at which nobody listens.
func closedPort(t testing.TB) netip.AddrPort {
	l := listen(t)
	defer l.Close()
	return addrPort(l.Addr())
}

// TestRecordOfUnreached names the servers that were tried, and what was wrong.
func TestRecordOfUnreached(t *testing.T) {
	for _, config := range []framing.Config{respConfig, {Type: framing.TypeStream}} {
		f := quick(t)
		one, two := closedPort(t), closedPort(t)
		tracer := NewTracer(TracerConfig{})
		f.reverse(t, framingOf(t, config), tracer, one, two)
		_, door := f.forward(t, framingOf(t, config), nil)
		for n := 1; n <= 3; n++ { // at first they are tried, then they are known to be down
			// A stream may be reset at any moment, even while it is connected.
			if conn, err := net.Dial("tcp", door.String()); err == nil {
				_, _ = io.WriteString(conn, "PING\r\n")
				_, _ = conn.Read(make([]byte, 1)) // an answer or the end
				conn.Close()
			}
			eventually(t, "a record", func() bool { return len(tracer.Last(Filter{Failed: true})) == n })
		}
		for _, r := range tracer.Last(Filter{Failed: true}) {
			of := func(a netip.AddrPort) string { return fmt.Sprintf("connect %v: connection refused", a) }
			if r.Server != one && r.Server != two || r.Result != Unreachable || r.Error != of(one)+"; "+of(two) && r.Error != of(two)+"; "+of(one) {
				t.Errorf("%s: server %v, %s, %q", config.Type, r.Server, r.Result, r.Error)
			}
		}
	}
}
