package bridge

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// adopt gives the kernel connection c, which it takes, as a Stream of d.
func adopt(t testing.TB, d *Dialer, c net.Conn) *socket {
	t.Helper()
	p, err := d.poller()
	if err != nil {
		t.Fatal(err)
	}
	rc, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	var dupErr error
	if err := rc.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || dupErr != nil {
		t.Fatal(err, dupErr)
	}
	c.Close()
	if err := d.setOptions(fd); err != nil {
		t.Fatal(err)
	}
	s, err := p.add(fd)
	if err != nil {
		t.Fatal(err)
	}
	s.established(&d.cfg)
	return s
}

// relay is a bridge between two real TCP connections: programs connect to Addr
// and reach the server behind it.
type relay struct {
	*Bridge
	d    *Dialer
	ln   net.Listener
	Addr netip.AddrPort
	wg   sync.WaitGroup
}

func newRelay(t testing.TB, server netip.AddrPort, cfg Config, dcfg DialerConfig) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Bridge: New(cfg), d: NewDialer(dcfg), ln: ln, Addr: ln.Addr().(*net.TCPAddr).AddrPort()}
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b, err := r.d.Dial(context.Background(), server)
			if err != nil {
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
				continue
			}
			src := c.RemoteAddr().(*net.TCPAddr).AddrPort()
			// ErrFull and ErrClosed reset both, which is what the test sees.
			_, _ = r.Join(adopt(t, r.d, c), b, Meta{Src: src, Dst: server})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		r.wg.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ctx)
		if err := r.d.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// serve runs handle for each connection to the returned address.
func serve(t testing.TB, handle func(c *net.TCPConn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func dial(t testing.TB, addr netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

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
		"bounded":    {Config{BufferMax: 2 << 20}, DialerConfig{HoldBuffers: true}},
		"bounded-8M": {Config{BufferMax: 8 << 20}, DialerConfig{HoldBuffers: true}},
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
