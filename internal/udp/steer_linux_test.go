package udp

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// byteTwo steers by the second byte of datagrams that begin with 'n'.
var byteTwo = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 0, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 'n', SkipTrue: 2},
	bpf.LoadAbsolute{Off: 1, Size: 1},
	bpf.RetA{},
	bpf.RetConstant{Val: 1 << 20},
}

// needSteering skips the test on a kernel that attaches no program at all.
func needSteering(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		t.Fatal(err)
	}
	give := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &give[0]})
	if errors.Is(err, syscall.ENOPROTOOPT) || errors.Is(err, syscall.EPERM) {
		t.Skipf("SO_ATTACH_REUSEPORT_CBPF: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

func openGroup(t *testing.T, cfg Config, n int) []*Conn {
	t.Helper()
	cfg.RecvBuffer = 1 << 20
	conns, err := ListenGroup(cfg, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close() // the watchdog of readDatagrams may have
		}
	})
	return conns
}

// What names a socket reaches it from whatever port, and everything else is
// spread by the kernel as before.
func TestGroupIsSteered(t *testing.T) {
	needSteering(t)
	for _, bind := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		t.Run(bind, func(t *testing.T) {
			to := netip.MustParseAddr("127.0.0.1")
			if bind == "[::1]:0" {
				hasIPv6(t)
				to = netip.IPv6Loopback()
			}
			const sockets, senders = 4, 64
			group := openGroup(t, Config{Bind: netip.MustParseAddrPort(bind), Steer: byteTwo}, sockets)
			for i, c := range group {
				if k := c.Capabilities(); !k.Steering || k.SteeringReason != "" || c.Number() != i {
					t.Fatalf("socket %d: number %d, %+v", i, c.Number(), k)
				}
			}
			target := netip.AddrPortFrom(to, group[0].LocalAddr().Port())
			write := func(c *Conn, b ...byte) {
				t.Helper()
				if n, err := c.WriteBatch([]Message{{Buf: b, N: len(b), Addr: target}}); n != 1 || err != nil {
					t.Fatal(err)
				}
			}
			for range senders {
				c := listen(t, Config{Bind: netip.AddrPortFrom(to, 0)})
				for i := range sockets {
					write(c, 'n', byte(i))
				}
			}
			for i, c := range group {
				for _, d := range readDatagrams(t, c, senders) {
					if string(d.payload) != string([]byte{'n', byte(i)}) {
						t.Fatalf("socket %d got %q", i, d.payload)
					}
				}
			}
			for range senders {
				c := listen(t, Config{Bind: netip.AddrPortFrom(to, 0)})
				write(c, 'x', 0)
				write(c, 'n', 200) // no such socket
			}
			end := listen(t, Config{Bind: netip.AddrPortFrom(to, 0)})
			reached := 0
			for i, c := range group {
				write(end, 'n', byte(i))
				before := 0
				for d := readDatagrams(t, c, 1); string(d[len(d)-1].payload) != string([]byte{'n', byte(i)}); d = readDatagrams(t, c, 1) {
					before += len(d)
				}
				if before > 0 {
					reached++
				}
			}
			if reached < 2 {
				t.Errorf("%d senders reached %d of %d sockets", senders, reached, sockets)
			}
		})
	}
}

func TestSteeringThatCannotWork(t *testing.T) {
	bad := openGroup(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), Steer: []bpf.Instruction{bpf.LoadAbsolute{Size: 1}}}, 2) // never returns
	for _, c := range bad {
		if k := c.Capabilities(); k.Steering || !strings.Contains(k.SteeringReason, "not steered") {
			t.Errorf("%+v", k)
		}
	}
	one := openGroup(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), Steer: byteTwo}, 1)
	if k := one[0].Capabilities(); k.Steering || k.SteeringReason != "" {
		t.Errorf("a socket alone: %+v", k)
	}
}
