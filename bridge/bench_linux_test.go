package bridge

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkKernelFlow moves bytes through a bridge between two kernel sockets
// on loopback; direct is the same without a bridge.
func BenchmarkKernelFlow(b *testing.B) {
	sink := serve(b, func(c *net.TCPConn) {
		buf := make([]byte, 256<<10)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	})
	run := func(b *testing.B, addr netip.AddrPort) {
		c := dial(b, addr)
		_ = c.SetDeadline(time.Time{})
		p := make([]byte, 256<<10)
		b.SetBytes(int64(len(p)))
		b.ReportAllocs()
		start := cpuTime(b)
		for b.Loop() {
			if _, err := c.Write(p); err != nil {
				b.Fatal(err)
			}
		}
		// Of client, bridge and server together; steadier than the rate when
		// the machine does other things as well.
		b.ReportMetric((cpuTime(b)-start).Seconds()*1e9/float64(b.N)/float64(len(p)), "cpu-s/GB")
		c.CloseWrite()
		if _, err := c.Read(p); err != io.EOF {
			b.Fatal(err)
		}
	}
	b.Run("direct", func(b *testing.B) { run(b, sink) })
	for name, cfg := range map[string]struct {
		c Config
		d DialerConfig
	}{
		"tuned":      {},
		"bounded":    {Config{BufferMax: 2 << 20}, DialerConfig{StartBuffer: 16 << 10}},
		"bounded-8M": {Config{BufferMax: 8 << 20}, DialerConfig{StartBuffer: 16 << 10}},
		"lowat-32K":  {Config{}, DialerConfig{NotSent: 32 << 10}},
		"lowat-128K": {Config{}, DialerConfig{NotSent: 128 << 10}},
		"lowat-256K": {Config{}, DialerConfig{NotSent: 256 << 10}},
		"lowat-1M":   {Config{}, DialerConfig{NotSent: 1 << 20}},
	} {
		b.Run(name, func(b *testing.B) { run(b, newRelay(b, sink, cfg.c, cfg.d).Addr) })
	}
}

func cpuTime(t testing.TB) time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkRoundTrip is a one-byte request and answer over one connection.
func BenchmarkRoundTrip(b *testing.B) {
	echo := serve(b, func(c *net.TCPConn) { _, _ = io.Copy(struct{ io.Writer }{c}, c) })
	run := func(b *testing.B, addr netip.AddrPort) {
		c := dial(b, addr)
		_ = c.SetDeadline(time.Time{})
		p := make([]byte, 1)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Write(p); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, p); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("direct", func(b *testing.B) { run(b, echo) })
	b.Run("bridge", func(b *testing.B) { run(b, newRelay(b, echo, Config{}, DialerConfig{}).Addr) })
}

// BenchmarkJoin opens and ends a flow; its bytes are what a flow costs beside
// its streams.
func BenchmarkJoin(b *testing.B) {
	br := New(Config{})
	meta := Meta{Peer: "edge"}
	b.ReportAllocs()
	for b.Loop() {
		f, err := br.Join(&wire{}, &wire{}, meta)
		if err != nil {
			b.Fatal(err)
		}
		f.Abort()
	}
	if err := br.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
