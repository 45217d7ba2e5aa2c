package udp

import (
	"errors"
	"net"
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

// refuse makes c's kernel answer errno to every message that holds a run.
func refuse(c *Conn, errno unix.Errno) {
	c.sendSys = func(fd uintptr, hs []mmsghdr) (int, unix.Errno) {
		for i := range hs {
			if hasSegment(&hs[i].hdr) {
				if i == 0 {
					return 0, errno
				}
				hs = hs[:i]
				break
			}
		}
		return sendmmsg(fd, hs)
	}
}

func hasSegment(h *unix.Msghdr) bool {
	if h.Control == nil {
		return false
	}
	cmsgs, err := unix.ParseSocketControlMessage(bytesOf(h.Control, int(h.Controllen)))
	if err != nil {
		panic(err)
	}
	for _, m := range cmsgs {
		if m.Header.Level == unix.IPPROTO_UDP && m.Header.Type == unix.UDP_SEGMENT {
			return true
		}
	}
	return false
}

func runsAndSingles(to netip.AddrPort) (ms []Message, datagrams int) {
	for i := range 5 {
		m := Message{Buf: pattern(i, 90*100+3), N: 90*100 + 3, Segment: 100, Addr: to, Local: to.Addr()}
		single := Message{Buf: pattern(i, 50), N: 50, Addr: to}
		ms = append(ms, m, single)
		datagrams += 91 + 1
	}
	return ms, datagrams
}

func TestRefusedRunsAreSentSingly(t *testing.T) {
	for _, c := range []struct {
		name    string
		errno   unix.Errno
		batches int  // of five runs each
		off     bool // GSO given up after them
		refused uint64
	}{
		{"EIO is final", unix.EIO, 1, true, 1},
		{"EOPNOTSUPP is final", unix.EOPNOTSUPP, 1, true, 1},
		{"EINVAL needs proof", unix.EINVAL, 1, false, 5},
		{"EINVAL proven", unix.EINVAL, 2, true, maxStrikes},
		{"EMSGSIZE is about one path", unix.EMSGSIZE, 3, false, 15},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
			if !s.Capabilities().GSO {
				t.Skip(s.Capabilities().GSOReason)
			}
			r := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
			refuse(s, c.errno)
			for range c.batches {
				ms, datagrams := runsAndSingles(r.LocalAddr())
				if n, err := s.WriteBatch(ms); n != len(ms) || err != nil {
					t.Fatalf("WriteBatch: %d, %v", n, err)
				}
				got := readDatagrams(t, r, datagrams)
				for _, m := range ms {
					for _, want := range cut(m) {
						if string(got[0].payload) != string(want) {
							t.Fatal("datagrams differ from what was sent")
						}
						got = got[1:]
					}
				}
			}
			caps, stats := s.Capabilities(), s.Stats()
			if caps.GSO == c.off || (caps.GSOReason != "") != c.off {
				t.Errorf("GSO %v, reason %q; want off = %v", caps.GSO, caps.GSOReason, c.off)
			}
			if stats.GSORefused != c.refused || stats.SendRuns != 0 {
				t.Errorf("counted %d refused and %d sent runs, want %d and 0", stats.GSORefused, stats.SendRuns, c.refused)
			}
		})
	}
}

func TestRefusedForAnotherReason(t *testing.T) {
	s := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	// Port zero: the kernel says EINVAL to a run and to its datagrams alike.
	m := Message{Buf: make([]byte, 200), N: 200, Segment: 100, Addr: netip.MustParseAddrPort("127.0.0.1:0")}
	for range 2 * maxStrikes {
		if n, err := s.WriteBatch([]Message{m}); n != 0 || !errors.Is(err, syscall.EINVAL) {
			t.Fatalf("WriteBatch: %d, %v; want EINVAL", n, err)
		}
	}
	if caps := s.Capabilities(); caps.GSOReason != "" {
		t.Errorf("GSO given up: %s", caps.GSOReason)
	}
}

func TestTakenRunClearsStrikes(t *testing.T) {
	c := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	if !c.Capabilities().GSO {
		t.Skip(c.Capabilities().GSOReason)
	}
	run := []Message{{Buf: make([]byte, 200), N: 200, Segment: 100, Addr: c.LocalAddr()}}
	for i := range 4 * maxStrikes {
		if c.sendSys = sendmmsg; i%2 == 0 {
			refuse(c, unix.EINVAL)
		}
		if _, err := c.WriteBatch(run); err != nil {
			t.Fatal(err)
		}
	}
	if !c.Capabilities().GSO {
		t.Error("GSO given up although every other run was taken")
	}
	readDatagrams(t, c, 8*maxStrikes)
}

func TestPartialSendGoesOn(t *testing.T) {
	s := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	calls := 0
	s.sendSys = func(fd uintptr, hs []mmsghdr) (int, unix.Errno) {
		calls++
		return sendmmsg(fd, hs[:min(len(hs), 1+calls%3)])
	}
	ms := make([]Message, 150)
	for i := range ms {
		ms[i] = Message{Buf: pattern(i, 10), N: 10, Addr: s.LocalAddr()}
	}
	if n, err := s.WriteBatch(ms); n != len(ms) || err != nil {
		t.Fatalf("WriteBatch: %d, %v", n, err)
	}
	for i, d := range readDatagrams(t, s, len(ms)) {
		if string(d.payload) != string(ms[i].Buf) {
			t.Fatalf("datagram %d differs", i)
		}
	}
}

func TestErrorsOfTheKernel(t *testing.T) {
	for _, c := range []struct {
		errno unix.Errno
		sent  int
		want  error
		drops func(Stats) uint64
	}{
		{unix.ENOBUFS, 3, nil, func(s Stats) uint64 { return s.SendDropNoBufs }},
		{unix.EPERM, 1, syscall.EPERM, func(s Stats) uint64 { return s.SendDropOther }},
		{unix.ENETUNREACH, 1, syscall.ENETUNREACH, func(s Stats) uint64 { return s.SendDropOther }},
	} {
		t.Run(c.errno.Error(), func(t *testing.T) {
			s := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
			s.sendSys = func(fd uintptr, hs []mmsghdr) (int, unix.Errno) {
				if hs[0].hdr.Iov.Len == 2 { // the second message
					return 0, c.errno
				}
				return sendmmsg(fd, hs[:1])
			}
			var ms []Message
			for n := 1; n <= 3; n++ {
				ms = append(ms, Message{Buf: make([]byte, n), N: n, Addr: s.LocalAddr()})
			}
			n, err := s.WriteBatch(ms)
			if n != c.sent || !errors.Is(err, c.want) {
				t.Errorf("WriteBatch: %d, %v; want %d, %v", n, err, c.sent, c.want)
			}
			if st := s.Stats(); c.drops(st) != 1 {
				t.Errorf("drop not counted: %+v", st)
			}
		})
	}
}

func TestFullSendBufferIsGivenUp(t *testing.T) {
	s := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), WriteWait: 20 * time.Millisecond})
	s.sendSys = func(uintptr, []mmsghdr) (int, unix.Errno) { return 0, unix.EAGAIN }
	m := []Message{{Buf: []byte("x"), N: 1, Addr: s.LocalAddr()}}
	start := time.Now()
	var wg sync.WaitGroup
	for range 4 { // their waits must not add up
		wg.Go(func() {
			if n, err := s.WriteBatch(m); n != 0 || !errors.Is(err, syscall.EAGAIN) {
				t.Errorf("WriteBatch: %d, %v; want EAGAIN", n, err)
			}
		})
	}
	wg.Wait()
	if d := time.Since(start); d < 20*time.Millisecond || d > 5*time.Second {
		t.Errorf("gave up after %v, want 20ms", d)
	}
	if st := s.Stats(); st.SendDropWait != 4 || st.SendWaits != 4 {
		t.Errorf("counted %d drops and %d waits, want 4", st.SendDropWait, st.SendWaits)
	}
}

// A writer that finds the buffer full goes on when there is room, and does not
// hold up others meanwhile.
func TestFullSendBufferIsWaitedFor(t *testing.T) {
	s := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), WriteWait: time.Minute})
	var full atomic.Int32
	blocked := make(chan struct{})
	s.sendSys = func(fd uintptr, hs []mmsghdr) (int, unix.Errno) {
		if hs[0].hdr.Iov.Len == 1 && full.Add(1) <= 2 {
			if full.Load() == 2 {
				close(blocked) // now inside the poller's loop
			}
			return 0, unix.EAGAIN
		}
		return sendmmsg(fd, hs)
	}
	done := make(chan error)
	go func() {
		_, err := s.WriteBatch([]Message{{Buf: []byte("1"), N: 1, Addr: s.LocalAddr()}})
		done <- err
	}()
	<-blocked
	// Each datagram that leaves reports room to the poller.
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		if n, err := s.WriteBatch([]Message{{Buf: []byte("22"), N: 2, Addr: s.LocalAddr()}}); n != 1 || err != nil {
			t.Fatalf("second writer: %d, %v", n, err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		case <-deadline.C:
			t.Fatal("first writer was not woken")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestCloseUnblocksWriter(t *testing.T) {
	s := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), WriteWait: time.Minute})
	blocked := make(chan struct{})
	var once sync.Once
	calls := 0
	s.sendSys = func(uintptr, []mmsghdr) (int, unix.Errno) {
		if calls++; calls == 2 {
			once.Do(func() { close(blocked) })
		}
		return 0, unix.EAGAIN
	}
	done := make(chan error)
	go func() {
		_, err := s.WriteBatch([]Message{{Buf: []byte("1"), N: 1, Addr: s.LocalAddr()}})
		done <- err
	}()
	<-blocked
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("writer got %v, want net.ErrClosed", err)
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
