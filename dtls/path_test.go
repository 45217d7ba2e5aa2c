package dtls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestRestartedClient connects again from the same address while the server has
// an association with it: the old one is untouched until the new one is
// authenticated. Then it ends, or lives on by its Connection ID.
func TestRestartedClient(t *testing.T) {
	for _, cid := range []bool{false, true} {
		t.Run(fmt.Sprintf("cid=%v", cid), func(t *testing.T) {
			w := newWorld(t, func(w *world) {
				w.clientConfig.ConnectionID = cid
				w.serverConfig.ReplaceGrace = 300 * time.Millisecond
				w.clientConfig.FlightInterval = 20 * time.Millisecond
			})
			c1, s1 := w.pair()
			w.alive(c1, s1)
			old := w.net.socks[netip.MustParseAddrPort(clientAddr)]

			// Both clients use the same address; the server's datagrams reach
			// both sockets, as if the old process were still there to watch.
			twin := w.net.socket(clientAddr)
			w.net.setFilter(func(from, to netip.AddrPort, b []byte) bool {
				if to == old.addr {
					old.push(from, b)
				}
				return true
			})
			w.numbers.forget()
			w.net.mu.Lock()
			w.net.tap = nil // two clients number records from one address
			w.net.mu.Unlock()

			// A handshake that fails to authenticate changes nothing.
			ev := newRecorder(t)
			bad := w.clientConfig
			bad.Certificate = newAuthority(t).issue(t, "laptop-7", false, nil)
			e, err := New(bad, ev)
			check(t, err)
			if _, err := e.Dial(context.Background(), twin, w.serverSock.addr, w.dial); err == nil {
				t.Fatal("connected")
			}
			check(t, e.Close())
			w.net.mu.Lock()
			w.net.socks[old.addr] = old
			w.net.mu.Unlock()
			w.net.setFilter(nil)
			w.alive(c1, s1)

			// One that authenticates takes the address.
			twin = w.net.socket(clientAddr)
			w.net.setFilter(func(from, to netip.AddrPort, b []byte) bool {
				if to == old.addr {
					old.push(from, b)
				}
				return true
			})
			e, err = New(w.clientConfig, ev)
			check(t, err)
			n := w.serverEvents.count()
			c2, err := e.Dial(context.Background(), twin, w.serverSock.addr, w.dial)
			check(t, err)
			eventually(t, "second association", func() bool { return w.serverEvents.count() > n })
			s2 := w.serverEvents.last()
			check(t, sendRecord(c2, []byte("two")))
			eventually(t, "data of the second", func() bool { return len(w.serverEvents.received(s2)) == 1 })
			if cid {
				n := len(w.serverEvents.received(s1))
				check(t, sendRecord(c1, []byte("one, by its ID")))
				eventually(t, "data of the first", func() bool { return len(w.serverEvents.received(s1)) == n+1 })
			}
			eventually(t, "end of the first", func() bool { return errors.Is(w.serverEvents.reason(s1), ErrReplaced) })
			check(t, sendRecord(c2, []byte("two")))
			eventually(t, "data of the second", func() bool { return len(w.serverEvents.received(s2)) == 2 })
			check(t, c1.Close(nil))
			check(t, e.Close())
			w.net.setFilter(nil)
		})
	}
}

// TestStrayHello sends an established client's own ClientHello again, and one
// that another host forged: the association does not notice.
func TestStrayHello(t *testing.T) {
	for _, cid := range []bool{false, true} {
		t.Run(fmt.Sprintf("cid=%v", cid), func(t *testing.T) {
			w := newWorld(t, func(w *world) {
				w.clientConfig.ConnectionID = cid
				w.serverConfig.HelloTimeout = 50 * time.Millisecond
			})
			var hellos [][]byte
			w.net.setFilter(func(from, _ netip.AddrPort, b []byte) bool {
				if f := flightOf(b); f == "hello" || f == "hello2" {
					hellos = append(hellos, slices.Clone(b))
				}
				return true
			})
			c, s := w.pair()
			w.net.setFilter(nil)
			from := netip.MustParseAddrPort(clientAddr)
			// A hello goes to its handshake until that is done, which is after the
			// event that w.pair saw.
			eventually(t, "end of the handshake", func() bool { return w.server.Stats().HalfOpen == 0 })
			for _, h := range hellos {
				w.serverSock.push(from, h)
			}
			// The client's own retransmissions, on a slow machine, count too.
			eventually(t, "stale hellos", func() bool { return w.server.Stats().Drops[DropStaleHello] >= uint64(len(hellos)) })
			for i := range 20 { // forged: the cookie goes to the client, which ignores it
				w.serverSock.push(from, withRandom(hellos[0], i+1))
				check(t, sendRecord(c, []byte("meanwhile")))
				check(t, sendRecord(s, []byte("meanwhile")))
			}
			eventually(t, "bound of the address", func() bool { return w.server.Stats().Drops[DropHalfOpenSource] == 20-maxPending })
			eventually(t, "data", func() bool {
				return len(w.serverEvents.received(s)) == 20 && len(w.clientEvents.received(c)) == 20
			})
			eventually(t, "expiry", func() bool { return w.server.Stats().Failures[FailHello] == maxPending })
			w.alive(c, s)
		})
	}
}

// TestForgedHelloDuringHandshake sends forged ClientHellos from the client's
// address after each answer of the server. (One that comes before the server's
// first answer can make the client take up a cookie that is not its own, which
// is no more than forging that answer would do.)
func TestForgedHelloDuringHandshake(t *testing.T) {
	w := newWorld(t, func(w *world) {
		// The forged ones do not go away in time to help.
		w.serverConfig.HelloTimeout, w.clientConfig.HandshakeTimeout = 5*time.Second, 2*time.Second
	})
	var mu sync.Mutex
	var hello []byte
	n := 0
	w.net.setFilter(func(from, to netip.AddrPort, b []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		if to == w.serverSock.addr {
			if hello == nil {
				hello = slices.Clone(b)
			}
			return true
		}
		w.net.mu.Lock()
		client := w.net.socks[to]
		w.net.mu.Unlock()
		client.push(from, b)
		for i := 0; i < 3 && n < 30; i++ {
			n++
			w.serverSock.push(to, withRandom(hello, n))
		}
		return false
	})
	c, s := w.pair()
	w.net.setFilter(nil)
	w.alive(c, s)
	// The handshake that led here is uncounted after the event that w.pair saw, and
	// a forged hello that is still queued then may take its place.
	eventually(t, "one completed handshake, the others pending", func() bool {
		st := w.server.Stats()
		return (st.HalfOpen == maxPending-1 || st.HalfOpen == maxPending) && st.HandshakesCompleted == 1
	})
}

// TestSocketErrors makes sending fail in every way: the association lives on.
func TestSocketErrors(t *testing.T) {
	w := newWorld(t, nil)
	c, s := w.pair()
	w.net.mu.Lock()
	sock := w.net.socks[netip.MustParseAddrPort(clientAddr)]
	w.net.mu.Unlock()
	for err, class := range map[error]SendError{
		syscall.ECONNREFUSED: SendRefused, syscall.EMSGSIZE: SendTooBig, syscall.ENETUNREACH: SendUnreachable,
		syscall.EHOSTUNREACH: SendUnreachable, syscall.EAGAIN: SendNoBuffers, syscall.ENOBUFS: SendNoBuffers,
		syscall.EPERM: SendDenied, syscall.EIO: SendOther,
	} {
		before := w.client.Stats().SendErrors[class]
		sock.failWrites(fmt.Errorf("sendmmsg: %w", err))
		if got := sendRecord(c, []byte("x")); !errors.Is(got, err) {
			t.Errorf("error %v, want %v", got, err)
		}
		sock.failWrites(nil)
		if n := w.client.Stats().SendErrors[class] - before; n != 1 {
			t.Errorf("%v counted %d times as %v", err, n, class)
		}
		w.alive(c, s)
	}
}

// TestSendRuns sends more runs than one call of the socket takes, with records
// of all sizes: all arrive in order, and what does not is counted.
func TestSendRuns(t *testing.T) {
	w := newWorld(t, nil)
	c, s := w.pair()
	head, tail := c.Overhead()
	var b []byte
	var runs []Run
	var want [][]byte
	for i := range 2*maxRuns + 3 {
		r := Run{}
		for j := range 1 + i%4 {
			plain := bytes.Repeat([]byte{byte(i)}, 100+i)
			if j == 3 {
				plain = plain[:50] // the last may be shorter
			}
			rec := make([]byte, head+len(plain)+tail)
			copy(rec[head:], plain)
			n, err := c.Seal(rec, len(plain))
			check(t, err)
			r.Size = max(r.Size, n)
			r.Len += n
			b = append(b, rec[:n]...)
			want = append(want, plain)
		}
		runs = append(runs, r)
	}
	if lost := c.SendRuns(b, runs); lost != 0 {
		t.Fatalf("%d records lost", lost)
	}
	eventually(t, "all records", func() bool { return len(w.serverEvents.received(s)) == len(want) })
	for i, got := range w.serverEvents.received(s) {
		if !bytes.Equal(got, want[i]) {
			t.Fatalf("record %d differs", i)
		}
	}
	w.net.mu.Lock()
	sock := w.net.socks[netip.MustParseAddrPort(clientAddr)]
	w.net.mu.Unlock()
	sock.failWrites(syscall.EPERM)
	if lost := c.SendRuns(b, runs); lost != len(want) {
		t.Errorf("%d of %d records counted as lost", lost, len(want))
	}
	if n := w.client.Stats().SendErrors[SendDenied]; n != uint64(len(runs)) {
		t.Errorf("%d errors counted for %d runs", n, len(runs))
	}
	sock.failWrites(nil)
	if a := testing.AllocsPerRun(100, func() { c.SendRuns(nil, nil) }); a > 0 {
		t.Errorf("%v allocations", a)
	}
	check(t, c.Close(nil))
	if lost := c.SendRuns(b, runs); lost != len(want) {
		t.Errorf("%d of %d records counted as lost after the end", lost, len(want))
	}
}

// TestSocketFails closes the socket under a dialled association.
func TestSocketFails(t *testing.T) {
	w := newWorld(t, nil)
	c, _ := w.pair()
	w.net.mu.Lock()
	sock := w.net.socks[netip.MustParseAddrPort(clientAddr)]
	w.net.mu.Unlock()
	check(t, sock.Close())
	<-c.Done()
	if err := c.Err(); err == nil || errors.Is(err, ErrClosedLocally) {
		t.Errorf("ended with: %v", err)
	}
	if err := sendRecord(c, []byte("x")); err == nil {
		t.Error("sent after the end")
	}
}

// TestCloseFromCallbacks closes associations from within events.
func TestCloseFromCallbacks(t *testing.T) {
	w := newWorld(t, nil)
	reason := errors.New("enough")
	w.serverEvents.onReceive = func(a *Association, _ [][]byte) {
		check(t, a.Close(reason))
		check(t, a.Close(nil))
	}
	c, s := w.pair()
	check(t, sendRecord(c, []byte("x")))
	_ = sendRecord(c, []byte("y")) // the end may have come already
	eventually(t, "end", func() bool {
		return errors.Is(w.serverEvents.reason(s), reason) && errors.Is(w.clientEvents.reason(c), ErrClosedByPeer)
	})
	<-s.Done()
	if !errors.Is(s.Err(), reason) {
		t.Errorf("ended with: %v", s.Err())
	}
}

// TestRenegotiation asks for one inside the association, both ways.
func TestRenegotiation(t *testing.T) {
	w := newWorld(t, nil)
	c, s := w.pair()
	for a, msg := range map[*Association]byte{c: msgClientHello, s: msgHelloRequest} {
		head, tail := a.Overhead()
		b := make([]byte, head+12+tail)
		b[head] = msg
		var sc scratch
		n := a.sealing.seal(&sc, typeHandshake, a.number.Add(1)-1, b, 12)
		check(t, a.Send(b[:n], n))
	}
	eventually(t, "refusals", func() bool {
		return w.client.Stats().Drops[DropUnexpected] == 1 && w.server.Stats().Drops[DropUnexpected] == 1
	})
	w.alive(c, s)
}
