package udp

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/internal/mmsg"
)

// refuse makes c's kernel answer errno to every message that holds a run.
func refuse(c *Conn, errno unix.Errno) {
	c.sendSys = func(fd uintptr, hs []mmsg.Header) (int, unix.Errno) {
		for i := range hs {
			if hasSegment(&hs[i].Hdr) {
				if i == 0 {
					return 0, errno
				}
				hs = hs[:i]
				break
			}
		}
		return mmsg.Send(fd, hs)
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
		if c.sendSys = mmsg.Send; i%2 == 0 {
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
	s.sendSys = func(fd uintptr, hs []mmsg.Header) (int, unix.Errno) {
		calls++
		return mmsg.Send(fd, hs[:min(len(hs), 1+calls%3)])
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
			s.sendSys = func(fd uintptr, hs []mmsg.Header) (int, unix.Errno) {
				if hs[0].Hdr.Iov.Len == 2 { // the second message
					return 0, c.errno
				}
				return mmsg.Send(fd, hs[:1])
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
	s.sendSys = func(uintptr, []mmsg.Header) (int, unix.Errno) { return 0, unix.EAGAIN }
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
	s.sendSys = func(fd uintptr, hs []mmsg.Header) (int, unix.Errno) {
		if hs[0].Hdr.Iov.Len == 1 && full.Add(1) <= 2 {
			if full.Load() == 2 {
				close(blocked) // now inside the poller's loop
			}
			return 0, unix.EAGAIN
		}
		return mmsg.Send(fd, hs)
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

// Who finds others waiting for room queues behind them, though there may be some
// by now; but a small message goes past.
func TestRoomIsGivenInOrder(t *testing.T) {
	s := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), WriteWait: time.Minute})
	r := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	var full atomic.Bool
	var mu sync.Mutex
	var order []int
	tried := make(chan struct{}, 2)
	s.sendSys = func(fd uintptr, hs []mmsg.Header) (int, unix.Errno) {
		if full.Load() && hs[0].Hdr.Iov.Len > smallWrite { // little room, in truth
			select {
			case tried <- struct{}{}:
			default:
			}
			return 0, unix.EAGAIN
		}
		mu.Lock()
		order = append(order, int(hs[0].Hdr.Iov.Len))
		mu.Unlock()
		return mmsg.Send(fd, hs)
	}
	var wg sync.WaitGroup
	write := func(n int) {
		if k, err := s.WriteBatch([]Message{{Buf: make([]byte, n), N: n, Addr: r.LocalAddr()}}); k != 1 || err != nil {
			t.Errorf("%d bytes: %d, %v", n, k, err)
		}
	}
	queue := func(n int) {
		before := s.Stats().SendWaits
		wg.Go(func() { write(n) })
		for s.Stats().SendWaits == before {
			runtime.Gosched()
		}
	}
	want := []int{100} // the one that passes
	full.Store(true)
	queue(10_000)
	<-tried
	<-tried // it waits, and looks again
	want = append(want, 10_000)
	for i := range 8 {
		n := 20_000 - 1000*i
		queue(n)
		for { // it has its place
			s.room.mu.Lock()
			last := s.room.last
			s.room.mu.Unlock()
			if int(last.iovs[0].Len) == n {
				break
			}
			runtime.Gosched()
		}
		want = append(want, n)
	}
	write(100)
	full.Store(false)
	wg.Wait()
	if !slices.Equal(order, want) {
		t.Errorf("sent in the order %v, want %v", order, want)
	}
	if !s.room.open() || s.room.first != nil {
		t.Error("somebody waits still")
	}
}

// What may go past those that wait is bounded, until one of them has gone on.
func TestLittleGoesPastThoseWhoWait(t *testing.T) {
	var r room
	a, b := newWriter(nil), newWriter(nil)
	if !r.enter(a) || r.enter(b) || r.open() {
		t.Fatal("the first is not first")
	}
	for range 2 {
		n := 0
		for r.pass(1000) {
			n++
		}
		if n != maxPassed/1000 {
			t.Fatalf("%d bytes went past", n*1000)
		}
		r.leave()
	}
	if len(a.turn) != 0 || len(b.turn) != 1 || !r.open() {
		t.Fatal("the next got no word, or the first did")
	}
}

func TestCloseUnblocksWriter(t *testing.T) {
	s := listen(t, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), WriteWait: time.Minute})
	blocked := make(chan struct{})
	var once sync.Once
	calls := 0
	s.sendSys = func(uintptr, []mmsg.Header) (int, unix.Errno) {
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
