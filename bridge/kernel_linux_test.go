package bridge

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
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
	d.established(s)
	return s
}

// listen listens on loopback with the segment size of an Ethernet: the kernel
// sizes send buffers by it, and loopback's own would give megabytes. A window
// other than 0 is as DialerConfig.StartBuffer.
func listen(t testing.TB, window int) net.Listener {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var optErr error
		err := c.Control(func(fd uintptr) {
			if optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1460); window > 0 {
				setStartBuffer(int(fd), window)
			}
		})
		return errors.Join(err, optErr)
	}}
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// relay is a bridge between two real TCP connections: programs connect to Addr
// and reach the server behind it.
type relay struct {
	*Bridge
	// portable: both ends are NewConnStreams instead of kernel sockets.
	portable bool
	d        *Dialer
	ln       net.Listener
	Addr     netip.AddrPort
	wg       sync.WaitGroup
}

func newRelay(t testing.TB, server netip.AddrPort, cfg Config, dcfg DialerConfig) *relay {
	t.Helper()
	return startRelay(t, &relay{Bridge: New(cfg), d: NewDialer(dcfg)}, server)
}

func startRelay(t testing.TB, r *relay, server netip.AddrPort) *relay {
	t.Helper()
	ln := listen(t, r.d.cfg.StartBuffer)
	r.ln, r.Addr = ln, ln.Addr().(*net.TCPAddr).AddrPort()
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			src := c.RemoteAddr().(*net.TCPAddr).AddrPort()
			a, b, err := r.ends(t, c, server)
			if err != nil {
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
				continue
			}
			// ErrFull and ErrClosed reset both, which is what the test sees.
			_, _ = r.Join(a, b, Meta{Src: src, Dst: server})
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

func (r *relay) ends(t testing.TB, c net.Conn, server netip.AddrPort) (a, b Stream, err error) {
	if r.portable {
		o, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(server))
		if err != nil {
			return nil, nil, err
		}
		return NewConnStream(c.(*net.TCPConn)), NewConnStream(o), nil
	}
	if b, err = r.d.Dial(context.Background(), server); err != nil {
		return nil, nil, err
	}
	return adopt(t, r.d, c), b, nil
}

// serve runs handle for each connection to the returned address.
func serve(t testing.TB, handle func(c *net.TCPConn)) netip.AddrPort {
	t.Helper()
	ln := listen(t, 0)
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
