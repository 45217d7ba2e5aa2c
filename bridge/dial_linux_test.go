package bridge

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inNamespace runs f on a thread in a network namespace of its own, in which a
// TUN device tun0 is the only way to 198.51.100.0/24 and 2001:db8::/64; answer
// plays the network: it gets each packet and returns the reply, or nil. The test
// is skipped where namespaces or TUN devices cannot be made.
//
//	Dial ── tun0 ── answer
func inNamespace(t *testing.T, answer func(p []byte) []byte, f func()) {
	t.Helper()
	done := make(chan struct{})
	var skip error
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if skip = unix.Unshare(unix.CLONE_NEWNET); skip != nil {
			return
		}
		var tun *os.File
		if tun, skip = openTun(); tun != nil {
			defer tun.Close()
		}
		if skip != nil {
			return
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			buf := make([]byte, 65536)
			for {
				n, err := tun.Read(buf)
				if err != nil {
					if !errors.Is(err, os.ErrClosed) {
						t.Error(err)
					}
					return
				}
				if reply := answer(buf[:n]); reply != nil {
					if _, err := tun.Write(reply); err != nil {
						t.Error(err)
					}
				}
			}
		}()
		f()
		tun.Close()
		<-served
	}()
	<-done
	if skip != nil {
		t.Skipf("no namespace with a TUN device: %v", skip)
	}
}

func openTun() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ifr, _ := unix.NewIfreq("tun0")
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// Only now: the runtime's poller must not see the device before.
	tun := os.NewFile(uintptr(fd), "tun0")
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return tun, err
	}
	defer unix.Close(s)
	for req, addr := range map[uint][]byte{unix.SIOCSIFADDR: {198, 51, 100, 1}, unix.SIOCSIFNETMASK: {255, 255, 255, 0}} {
		ifr, _ := unix.NewIfreq("tun0")
		if err := ifr.SetInet4Addr(addr); err != nil {
			return tun, err
		}
		if err := unix.IoctlIfreq(s, req, ifr); err != nil {
			return tun, err
		}
	}
	for _, name := range []string{"tun0", "lo"} {
		ifr, _ := unix.NewIfreq(name)
		ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
			return tun, err
		}
	}
	ifi, err := net.InterfaceByName("tun0")
	if err != nil {
		return tun, err
	}
	s6, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return tun, err
	}
	defer unix.Close(s6)
	in6 := struct { // struct in6_ifreq
		addr   [16]byte
		prefix uint32
		index  int32
	}{netip.MustParseAddr("2001:db8::1").As16(), 64, int32(ifi.Index)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s6), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&in6))); errno != 0 {
		return tun, errno
	}
	return tun, nil
}

func sum(b []byte, start uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		start += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for start > 0xffff {
		start = start>>16 + start&0xffff
	}
	return ^uint16(start)
}

// icmp answers the TCP packet p, whose destination's last byte is the code, with
// "destination unreachable" of that code; codes above 99 get no answer.
func icmp(p []byte) []byte {
	switch {
	case len(p) >= 40 && p[0]>>4 == 4 && p[9] == unix.IPPROTO_TCP:
		code := p[19] - 10
		if code > 99 {
			return nil
		}
		r := make([]byte, 20+8+28)
		r[0], r[8], r[9] = 0x45, 64, unix.IPPROTO_ICMP
		binary.BigEndian.PutUint16(r[2:], uint16(len(r)))
		copy(r[12:16], p[16:20])
		copy(r[16:20], p[12:16])
		binary.BigEndian.PutUint16(r[10:], sum(r[:20], 0))
		r[20], r[21] = 3, code
		copy(r[28:], p[:28])
		binary.BigEndian.PutUint16(r[22:], sum(r[20:], 0))
		return r
	case len(p) >= 60 && p[0]>>4 == 6 && p[6] == unix.IPPROTO_TCP:
		code := p[39] - 0x10
		if code > 99 {
			return nil
		}
		r := make([]byte, 40+8+60)
		r[0], r[6], r[7] = 0x60, unix.IPPROTO_ICMPV6, 64
		binary.BigEndian.PutUint16(r[4:], uint16(len(r)-40))
		copy(r[8:24], p[24:40])
		copy(r[24:40], p[8:24])
		r[40], r[41] = 1, code
		copy(r[48:], p[:60])
		pseudo := uint32(len(r)-40) + unix.IPPROTO_ICMPV6 + uint32(^sum(r[8:40], 0))
		binary.BigEndian.PutUint16(r[42:], sum(r[40:], pseudo))
		return r
	}
	return nil
}

func TestDialTellsUnreachableApart(t *testing.T) {
	inNamespace(t, icmp, func() {
		d := NewDialer(DialerConfig{Mark: 7})
		defer d.Close()
		for _, c := range []struct {
			what string
			dst  string
			want error
		}{
			{"network", "198.51.100.10:80", syscall.ENETUNREACH},
			{"host", "198.51.100.11:80", syscall.EHOSTUNREACH},
			{"protocol", "198.51.100.12:80", syscall.EHOSTUNREACH},
			{"port", "198.51.100.13:80", syscall.ECONNREFUSED},
			{"host unknown", "198.51.100.17:80", syscall.EHOSTUNREACH},
			{"network prohibited", "198.51.100.19:80", syscall.EACCES},
			{"host prohibited", "198.51.100.20:80", syscall.EACCES},
			{"prohibited", "198.51.100.23:80", syscall.EACCES},
			{"IPv4-mapped", "[::ffff:198.51.100.23]:80", syscall.EACCES},
			{"silent", "198.51.100.250:80", syscall.ETIMEDOUT},
			{"no route", "203.0.113.1:80", syscall.ENETUNREACH},
			{"IPv6 no route", "[2001:db8::10]:80", syscall.ENETUNREACH},
			{"IPv6 prohibited", "[2001:db8::11]:80", syscall.EACCES},
			{"IPv6 address", "[2001:db8::13]:80", syscall.EHOSTUNREACH},
			{"IPv6 port", "[2001:db8::14]:80", syscall.ECONNREFUSED},
			{"IPv6 source policy", "[2001:db8::15]:80", syscall.EACCES},
			{"IPv6 reject route", "[2001:db8::16]:80", syscall.EACCES},
			{"IPv6 silent", "[2001:db8::fa]:80", syscall.ETIMEDOUT},
			{"IPv6 no way", "[2001:db9::1]:80", syscall.ENETUNREACH},
		} {
			timeout := 5 * time.Second
			if c.want == syscall.ETIMEDOUT {
				timeout = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			s, err := d.Dial(ctx, netip.MustParseAddrPort(c.dst))
			cancel()
			if s != nil || !errors.Is(err, c.want) {
				t.Errorf("%s: %v, %v, want %v", c.what, s, err, c.want)
			}
		}
	})
}

func TestDialIsInterrupted(t *testing.T) {
	started := make(chan struct{}, 100)
	silent := func(p []byte) []byte { started <- struct{}{}; return nil }
	inNamespace(t, silent, func() {
		d := NewDialer(DialerConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-started; cancel() }()
		dst := netip.MustParseAddrPort("198.51.100.250:80")
		if _, err := d.Dial(ctx, dst); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if _, err := d.Dial(ctx, dst); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled before: %v", err)
		}
		for len(started) > 0 {
			<-started
		}
		go func() { <-started; d.Close() }()
		if _, err := d.Dial(t.Context(), dst); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		if _, err := d.Dial(t.Context(), dst); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed before: %v", err)
		}
	})
}

func TestDialRefused(t *testing.T) {
	ln := listen(t, 0)
	dst := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	d := NewDialer(DialerConfig{})
	defer d.Close()
	if _, err := d.Dial(t.Context(), dst); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
	if _, err := d.Dial(t.Context(), netip.AddrPort{}); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Error(err)
	}
	if _, err := d.Dial(t.Context(), netip.MustParseAddrPort("[fe80::1%nosuch]:1")); !errors.Is(err, syscall.ENETUNREACH) {
		t.Error(err)
	}
}

func TestDialMeaning(t *testing.T) {
	for in, want := range map[error]error{
		syscall.EPERM:            syscall.EACCES,
		syscall.EHOSTDOWN:        syscall.EHOSTUNREACH,
		syscall.ENETDOWN:         syscall.ENETUNREACH,
		syscall.EINVAL:           syscall.ETIMEDOUT,
		syscall.ECONNRESET:       syscall.ECONNREFUSED,
		syscall.EMFILE:           syscall.EMFILE,
		context.DeadlineExceeded: syscall.ETIMEDOUT,
		context.Canceled:         context.Canceled,
		os.ErrDeadlineExceeded:   syscall.ETIMEDOUT,
	} {
		if got := dialMeaning(in); got != want {
			t.Errorf("%v: %v, want %v", in, got, want)
		}
	}
}

// TestSocketOptions looks at what the kernel was told.
func TestSocketOptions(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	server := serve(t, func(*net.TCPConn) { <-hold })
	d := NewDialer(DialerConfig{StartBuffer: 16 << 10, UserTimeout: 90 * time.Second})
	defer d.Close()
	stream, err := d.Dial(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	s := stream.(*socket)
	want := func(level, opt, want int) {
		t.Helper()
		if got, err := unix.GetsockoptInt(s.fd, level, opt); err != nil || got != want {
			t.Errorf("option %d: %d, %v, want %d", opt, got, err, want)
		}
	}
	want(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	want(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 90000)
	want(unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 16<<10)
	want(unix.SOL_SOCKET, unix.SO_RCVBUF, 32<<10)
	want(unix.SOL_SOCKET, unix.SO_BUF_LOCK, rcvbufLock)
	s.SetBuffers(0, 32<<10)
	want(unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 32<<10)
	s.SetBuffers(1<<20, 1<<20)
	want(unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, DefaultNotSent)
	want(unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0)
	s.SetKeepalive(90*time.Second, 1500*time.Millisecond, 4)
	want(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	want(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 90)
	want(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 2)
	want(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4)
	s.SetKeepalive(0, 0, 0)
	want(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)

	// After release everything is harmless.
	s.Reset()
	s.Reset()
	s.SetBuffers(1, 1)
	s.SetKeepalive(time.Second, time.Second, 1)
	if _, err := s.Read(nil); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := s.Write(nil); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := s.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := s.Close(); err != nil || s.Outstanding() != 0 || s.Err() != nil {
		t.Error(err, s.Outstanding(), s.Err())
	}
}

// TestWindowScale: the small start window must not cost the large one later.
func TestWindowScale(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	server := serve(t, func(*net.TCPConn) { <-hold })
	scale := func(cfg DialerConfig) uint8 {
		d := NewDialer(cfg)
		defer d.Close()
		s, err := d.Dial(t.Context(), server)
		if err != nil {
			t.Fatal(err)
		}
		info, err := unix.GetsockoptTCPInfo(s.(*socket).fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		return *(*uint8)(unsafe.Add(unsafe.Pointer(info), 6)) // snd_wscale, rcv_wscale: 4 bits each
	}
	if small, usual := scale(DialerConfig{StartBuffer: 8 << 10}), scale(DialerConfig{}); small != usual {
		t.Errorf("window scales %#x with a start size, %#x without", small, usual)
	}
}

func TestDialerCloseResetsWhatIsLeft(t *testing.T) {
	result := make(chan error, 1)
	server := serve(t, func(c *net.TCPConn) {
		_, err := c.Read(make([]byte, 1))
		result <- err
	})
	d := NewDialer(DialerConfig{})
	if _, err := d.Dial(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	if err := NewDialer(DialerConfig{}).Close(); err != nil {
		t.Error(err)
	}
}

// TestErrorsOfReadAndWrite has the calls themselves report the reset, while the
// event that would is held back.
func TestErrorsOfReadAndWrite(t *testing.T) {
	for _, call := range []string{"read", "write", "read after the event", "write after the event"} {
		t.Run(call, func(t *testing.T) {
			gate := make(chan struct{})
			server := serve(t, func(c *net.TCPConn) {
				<-gate
				rst(c)
			})
			d := NewDialer(DialerConfig{})
			defer d.Close()
			stream, err := d.Dial(t.Context(), server)
			if err != nil {
				t.Fatal(err)
			}
			s := stream.(*socket)
			late := call == "read after the event" || call == "write after the event"
			if !late {
				s.emu.Lock() // nobody can take the error
			}
			close(gate)
			if late {
				waitFor(t, "event", func() bool { return s.Err() != nil })
			}
			p := make([]byte, 1)
			if call[0] == 'r' {
				waitFor(t, "reset", func() bool { _, err = s.Read(p); return err != unix.EAGAIN })
			} else {
				waitFor(t, "reset", func() bool { _, err = s.Write(p); return err != nil })
			}
			if !late {
				s.emu.Unlock()
			}
			if err != syscall.ECONNRESET || s.Err() != syscall.ECONNRESET {
				t.Errorf("%v, %v", err, s.Err())
			}
			if err := s.CloseWrite(); err != syscall.ECONNRESET {
				t.Errorf("CloseWrite: %v", err)
			}
			if n := s.Outstanding(); n != 0 {
				t.Errorf("%d bytes outstanding", n)
			}
		})
	}
}

// TestFINThenReset: what a server sends before it closes is whole, also when a
// reset follows because it was written to.
func TestFINThenReset(t *testing.T) {
	for _, how := range []string{"open", "half-closed", "both in one event"} {
		t.Run(how, func(t *testing.T) {
			gate := make(chan struct{})
			server := serve(t, func(c *net.TCPConn) {
				c.Write([]byte("all "))
				<-gate
				c.Write([]byte("of it"))
			})
			d := NewDialer(DialerConfig{})
			defer d.Close()
			stream, err := d.Dial(t.Context(), server)
			if err != nil {
				t.Fatal(err)
			}
			s := stream.(*socket)
			oneEvent := how == "both in one event"
			if oneEvent {
				s.p.mu.Lock() // no event is delivered
			}
			close(gate)
			waitFor(t, "FIN", func() bool {
				info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
				return err == nil && info.State == unix.BPF_TCP_CLOSE_WAIT && (oneEvent || s.fin.Load())
			})
			if how == "half-closed" {
				// Byte and FIN leave together, so that the reset finds both sent.
				if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_CORK, 1); err != nil {
					t.Fatal(err)
				}
			}
			s.Write([]byte("x"))
			if how == "half-closed" {
				if err := s.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			if oneEvent {
				s.p.mu.Unlock()
			}
			waitFor(t, "reset", func() bool { return s.Err() != nil })
			p := make([]byte, 100)
			n, err := s.Read(p)
			if string(p[:n]) != "all of it" || err != nil {
				t.Errorf("%q, %v", p[:n], err)
			}
			if _, err := s.Read(p); err != io.EOF {
				t.Errorf("after the data: %v", err)
			}
			if err := s.Err(); err != syscall.ECONNRESET {
				t.Error(err)
			}
		})
	}
}
