package udp

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace runs f with a network namespace of its own in which lo is up
// with the given MTU. Sockets that f opens stay there. Without the right to
// make one the test is skipped.
func inNamespace(t *testing.T, mtu int, f func() error) {
	t.Helper()
	type result struct {
		skip string
		err  error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: the thread ends with the goroutine and takes its
		// namespace along.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{skip: "no network namespace of our own: " + err.Error()}
			return
		}
		err := setLoopback(mtu)
		if err == nil {
			err = f()
		}
		done <- result{err: err}
	}()
	r := <-done
	if r.skip != "" {
		t.Skip(r.skip)
	}
	if r.err != nil {
		t.Fatal(r.err)
	}
}

func setLoopback(mtu int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint32(uint32(mtu))
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, ifr); err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

func TestDontFragmentReportsEMSGSIZE(t *testing.T) {
	for _, c := range []struct {
		name, bind, to string
		payload        int // the largest that fits
	}{
		{"IPv4", "127.0.0.1:0", "127.0.0.1", 1472},
		{"IPv6", "[::1]:0", "::1", 1452},
		{"IPv4 over dual-stack", "[::]:0", "127.0.0.1", 1472},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.bind[0] == '[' {
				hasIPv6(t)
			}
			var df, frag *Conn
			inNamespace(t, 1500, func() (err error) {
				bind := netip.MustParseAddrPort(c.bind)
				if df, err = Listen(Config{Bind: bind, DontFragment: true}); err != nil {
					return err
				}
				if frag, err = Listen(Config{Bind: bind}); err != nil {
					return errors.Join(err, df.Close())
				}
				return nil
			})
			defer df.Close()
			defer frag.Close()
			to := netip.AddrPortFrom(netip.MustParseAddr(c.to), df.LocalAddr().Port())
			message := func(n, segment int) Message {
				return Message{Buf: pattern(n, n), N: n, Segment: segment, Addr: to}
			}
			for _, m := range []Message{message(c.payload+1, 0), message(3*(c.payload+1), c.payload+1)} {
				ms := []Message{message(c.payload, 0), m, message(3*c.payload-5, c.payload)}
				n, err := df.WriteBatch(ms)
				if n != 1 || !errors.Is(err, syscall.EMSGSIZE) {
					t.Fatalf("WriteBatch: %d, %v; want 1, EMSGSIZE", n, err)
				}
				if n, err := df.WriteBatch(ms[2:]); n != 1 || err != nil {
					t.Fatalf("rest of the batch: %d, %v", n, err)
				}
				readDatagrams(t, df, 4)
				// Without the flag the kernel fragments single datagrams, and runs
				// fall back to these.
				if n, err := frag.WriteBatch(ms); n != 3 || err != nil {
					t.Fatalf("WriteBatch without don't-fragment: %d, %v", n, err)
				}
				readDatagrams(t, df, 4+len(cut(m)))
			}
			if s := df.Stats(); s.SendDropTooBig != 2 {
				t.Errorf("counted %d datagrams too big, want 2", s.SendDropTooBig)
			}
			// What is wrong with one path must not turn runs off for all.
			if !df.Capabilities().GSO || !frag.Capabilities().GSO {
				t.Errorf("GSO given up: %q, %q", df.Capabilities().GSOReason, frag.Capabilities().GSOReason)
			}
		})
	}
}

func TestOverflowIsCounted(t *testing.T) {
	r := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), RecvBuffer: 8192})
	s := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	ms := make([]Message, 100)
	for i := range ms {
		ms[i] = Message{Buf: make([]byte, 1000), N: 1000, Addr: r.LocalAddr()}
	}
	if _, err := s.WriteBatch(ms); err != nil {
		t.Fatal(err)
	}
	dropped := r.Stats().RecvDropOverflow
	if dropped == 0 || dropped >= 100 {
		t.Fatalf("%d of 100 datagrams dropped", dropped)
	}
	readDatagrams(t, r, 100-int(dropped))
	if again := r.Stats().RecvDropOverflow; again != dropped {
		t.Errorf("counter went from %d to %d", dropped, again)
	}
}

func TestBufferSizesAreReadBack(t *testing.T) {
	const want = 1 << 20
	c := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), RecvBuffer: want, SendBuffer: want})
	caps := c.Capabilities()
	for _, b := range []int{caps.RecvBuffer, caps.SendBuffer} {
		if b < want && !strings.Contains(caps.BufferReason, "mem_max") {
			t.Errorf("buffers of %d and %d bytes, reason %q", caps.RecvBuffer, caps.SendBuffer, caps.BufferReason)
		}
	}
	// Above what any kernel gives.
	c = listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), RecvBuffer: 1<<31 - 1})
	if caps := c.Capabilities(); !strings.Contains(caps.BufferReason, "receive buffer") {
		t.Errorf("buffer of %d bytes, reason %q", caps.RecvBuffer, caps.BufferReason)
	}
}

func TestMark(t *testing.T) {
	c, err := Listen(Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), Mark: 0x80001234})
	if errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var mark int
	if err := c.rc.Control(func(fd uintptr) { mark, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK) }); err != nil {
		t.Fatal(err)
	}
	if err != nil || uint32(mark) != 0x80001234 {
		t.Errorf("mark %#x, %v", uint32(mark), err)
	}
}

func TestGroupSharesOnePort(t *testing.T) {
	group, err := ListenGroup(Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")}, 3)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var got [3]atomic.Int32
	var all atomic.Int32
	const clients = 64
	arrived := make(chan struct{})
	for i, c := range group {
		if c.LocalAddr() != group[0].LocalAddr() {
			t.Errorf("socket %d is at %v, the first at %v", i, c.LocalAddr(), group[0].LocalAddr())
		}
		wg.Go(func() {
			ms := newBatch(4)
			for {
				n, err := c.ReadBatch(ms)
				if err != nil {
					return
				}
				got[i].Add(int32(n))
				if all.Add(int32(n)) == clients {
					close(arrived)
				}
			}
		})
	}
	for range clients {
		c := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), RecvBuffer: 4096})
		if _, err := c.WriteBatch([]Message{{Buf: []byte("x"), N: 1, Addr: group[0].LocalAddr()}}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-arrived:
	case <-time.After(10 * time.Second):
		t.Errorf("%d of %d datagrams arrived", all.Load(), clients)
	}
	for _, c := range group {
		_ = c.Close()
	}
	wg.Wait()
	for i := range got {
		if got[i].Load() == 0 { // by chance once in 10^11 runs
			t.Errorf("socket %d got nothing of %d clients", i, clients)
		}
	}
	if _, err := ListenGroup(Config{}, 0); err == nil {
		t.Error("a group of none was opened")
	}
}

func TestNoAllocations(t *testing.T) {
	for _, c := range []struct {
		name     string
		bind, to string
		off      bool
	}{
		{"IPv4", "127.0.0.1:0", "127.0.0.1", false},
		{"IPv4 without offloads", "127.0.0.1:0", "127.0.0.1", true},
		{"dual-stack", "[::]:0", "::1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.bind[0] == '[' {
				hasIPv6(t)
			}
			s := listen(t, Config{Bind: netip.MustParseAddrPort(c.bind), NoGSO: c.off, NoGRO: c.off})
			to := netip.MustParseAddr(c.to)
			addr := netip.AddrPortFrom(to, s.LocalAddr().Port())
			out := []Message{
				{Buf: make([]byte, 20*1000), N: 20 * 1000, Segment: 1000, Addr: addr, Local: to},
				{Buf: make([]byte, 100), N: 100, Addr: addr},
			}
			in := newBatch(32)
			allocs := testing.AllocsPerRun(100, func() {
				if _, err := s.WriteBatch(out); err != nil {
					t.Fatal(err)
				}
				for left := 20*1000 + 100; left > 0; {
					n, err := s.ReadBatch(in)
					if err != nil {
						t.Fatal(err)
					}
					for i := range in[:n] {
						left -= in[i].N
					}
				}
			})
			if allocs != 0 {
				t.Errorf("%v allocations", allocs)
			}
			// An errno must not be boxed either: a path may fail for long.
			bad := []Message{{Buf: out[1].Buf, N: 100, Addr: netip.AddrPortFrom(to, 0)}}
			if allocs := testing.AllocsPerRun(100, func() {
				if _, err := s.WriteBatch(bad); err == nil {
					t.Fatal("no error")
				}
			}); allocs != 0 {
				t.Errorf("%v allocations for an error", allocs)
			}
		})
	}
}
