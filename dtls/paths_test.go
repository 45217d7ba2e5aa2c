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
	"testing/synctest"
	"time"

	"github.com/tougw/tougw/internal/udp"
)

var (
	movedAddr = netip.MustParseAddrPort("203.0.113.77:999")
	evilAddr  = netip.MustParseAddrPort("203.0.113.66:666")
)

// prober does what the owner of associations is expected to do about new paths:
// it sends an echo to each candidate and validates it when the answer came from
// there. It answers echoes by the path by which they came.
type prober struct {
	t testing.TB

	mu    sync.Mutex
	sent  map[Path][]byte
	asked []Path
	deaf  bool // do not answer echoes
	// overtaken allows that another path was validated, which forgets this one, since
	// the echo was sent: with several sockets answers overtake each other.
	overtaken bool
}

const (
	echoPrefix   = "echo "
	answerPrefix = "answer "
)

// attach makes the prober serve the associations of r and gives the hook.
func attach(t testing.TB, r *recorder) (*prober, func(*Association, Path)) {
	p := &prober{t: t, sent: map[Path][]byte{}}
	r.onReceive = p.receive
	return p, p.candidate
}

func (p *prober) candidate(a *Association, to Path) {
	p.mu.Lock()
	p.asked = append(p.asked, to)
	p.sent[to] = fmt.Appendf(nil, "%d", len(p.asked))
	echo := append([]byte(echoPrefix), p.sent[to]...)
	p.mu.Unlock()
	if err := sendRecordVia(a, echo, to); err != nil && a.Err() == nil {
		p.t.Errorf("echo to %v: %v", to, err)
	}
}

func (p *prober) receive(a *Association, records [][]byte) {
	from := a.Arrived()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range records {
		if id, ok := bytes.CutPrefix(b, []byte(echoPrefix)); ok && !p.deaf {
			if err := sendRecordVia(a, append([]byte(answerPrefix), id...), from); err != nil && a.Err() == nil {
				p.t.Errorf("answer to %v: %v", from, err)
			}
		}
		if id, ok := bytes.CutPrefix(b, []byte(answerPrefix)); ok && p.sent[from] != nil && bytes.Equal(id, p.sent[from]) {
			if !a.Validate(from) && !p.overtaken {
				p.t.Errorf("%v is answered and not validated", from)
			}
		}
	}
}

func (p *prober) reported() []Path {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// sendRecordVia seals one record and sends it by a path.
func sendRecordVia(a *Association, plain []byte, to Path) error {
	head, tail := a.Overhead()
	b := make([]byte, head+len(plain)+tail)
	copy(b[head:], plain)
	n, err := a.Seal(b, len(plain))
	if err != nil {
		return err
	}
	return a.SendVia(b[:n], n, to)
}

// rebind makes the net show host's datagrams to peer as those of another
// address, and deliver there what is sent to that; what is sent to the old
// address is lost.
func (n *memNet) rebind(host, to netip.AddrPort, peer *memSock) {
	n.mu.Lock()
	s := n.socks[host]
	n.mu.Unlock()
	n.setFilter(func(from, dst netip.AddrPort, b []byte) bool {
		switch {
		case from == host && dst == peer.addr:
			peer.push(to, b)
		case from == peer.addr && dst == to:
			s.push(from, b)
		}
		return false
	})
}

// exchangeData sends both ways until something has arrived at both ends: while
// a path is being validated, what goes to the old one is lost.
func (w *world) exchangeData(c, s *Association) {
	w.t.Helper()
	n, m := len(w.serverEvents.received(s)), len(w.clientEvents.received(c))
	word := fmt.Appendf(nil, "data %d %d", n, m)
	got := func(rs [][]byte) bool {
		return slices.ContainsFunc(rs, func(b []byte) bool { return bytes.Equal(b, word) })
	}
	eventually(w.t, "data both ways", func() bool {
		check(w.t, sendRecord(c, word))
		check(w.t, sendRecord(s, word))
		return got(w.serverEvents.received(s)[n:]) && got(w.clientEvents.received(c)[m:])
	})
}

// TestMovedClient gives the client another address: the server follows once its
// echo was answered from there, and again when it moves back.
func TestMovedClient(t *testing.T) {
	var p *prober
	w := newWorld(t, func(w *world) {
		p, w.serverConfig.PathCandidate = attach(t, w.serverEvents)
		_, w.clientConfig.PathCandidate = attach(t, w.clientEvents)
	})
	c, s := w.pair()
	w.exchangeData(c, s)
	home := s.Path()
	for i, to := range []netip.AddrPort{movedAddr, netip.MustParseAddrPort("[2001:db8::7]:1"), home.Remote} {
		w.net.rebind(home.Remote, to, w.serverSock)
		w.exchangeData(c, s)
		if want := (Path{to, home.Local}); s.Path() != want || s.Remote() != to || s.Info().Moves != uint64(i+1) {
			t.Errorf("path %v after %d moves, want %v", s.Path(), s.Info().Moves, want)
		}
		if got := p.reported(); len(got) != i+1 || got[i].Remote != to {
			t.Errorf("reported %v", got)
		}
	}
	if st := w.server.Stats(); st.PathCandidates != 3 || st.Migrations != 3 || st.PathRefusals != 0 {
		t.Errorf("%+v", st)
	}
	if st := w.client.Stats(); st.PathCandidates != 0 {
		t.Errorf("client: %+v", st)
	}
	w.net.setFilter(nil)
}

// TestMovedClientStartsAnew: a handshake from the address that an association has
// moved to is known for one of its peer, one from its old address is not.
func TestMovedClientStartsAnew(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.serverConfig.ReplaceGrace = 50 * time.Millisecond
		_, w.serverConfig.PathCandidate = attach(t, w.serverEvents)
		_, w.clientConfig.PathCandidate = attach(t, w.clientEvents)
	})
	c, s := w.pair()
	home := s.Path()
	w.net.rebind(home.Remote, movedAddr, w.serverSock)
	w.exchangeData(c, s)
	w.net.setFilter(nil)
	other, err := w.connect(home.Remote.String())
	check(t, err)
	time.Sleep(4 * w.serverConfig.ReplaceGrace)
	if err := w.serverEvents.reason(s); err != nil {
		t.Fatalf("ended by a handshake from its old address: %v", err)
	}
	again, err := w.connect(movedAddr.String())
	check(t, err)
	eventually(t, "the end of the first", func() bool { return errors.Is(w.serverEvents.reason(s), ErrReplaced) })
	check(t, sendRecord(again, []byte("x")))
	check(t, sendRecord(other, []byte("x")))
	s.w.mu.RLock()
	n := len(s.w.routes)
	s.w.mu.RUnlock()
	if n != 2 {
		t.Errorf("%d routes for two associations", n)
	}
}

// TestMoveTakesNoOnlyWay: an association without a Connection ID keeps its address.
func TestMoveTakesNoOnlyWay(t *testing.T) {
	d := newBed(t, ECDHEECDSAWithAES128GCM, true)
	at := tuple{remote: movedAddr}
	plain := &Association{w: d.w}
	d.w.at(at).owner = plain
	d.w.adopt(d.a, at)
	if d.w.routes[at].owner != plain {
		t.Error("taken")
	}
	plain.localCID = 1
	d.w.adopt(d.a, at)
	if d.w.routes[at].owner != d.a {
		t.Error("not taken although the other can be reached by its Connection ID")
	}
	d.w.unroute(plain, at)
	d.w.unroute(d.a, at)
	if d.w.routes[at] != nil {
		t.Error("route left")
	}
}

// TestMovedServer is the same for a dialled association.
func TestMovedServer(t *testing.T) {
	w := newWorld(t, func(w *world) {
		_, w.serverConfig.PathCandidate = attach(t, w.serverEvents)
		_, w.clientConfig.PathCandidate = attach(t, w.clientEvents)
	})
	c, s := w.pair()
	w.net.mu.Lock()
	client := w.net.socks[netip.MustParseAddrPort(clientAddr)]
	w.net.mu.Unlock()
	w.net.rebind(w.serverSock.addr, movedAddr, client)
	check(t, sendRecord(s, []byte("from the new address")))
	eventually(t, "move", func() bool { return c.Remote() == movedAddr })
	w.exchangeData(c, s)
	if got := c.Local(); got != client.addr {
		t.Errorf("local address %v", got)
	}
	w.net.setFilter(nil)
}

// TestNoCandidate sends what is no evidence of a move from another address: old
// records, replays and forgeries.
func TestNoCandidate(t *testing.T) {
	var p *prober
	w := newWorld(t, func(w *world) { p, w.serverConfig.PathCandidate = attach(t, w.serverEvents) })
	c, s := w.pair()
	var copies [][]byte
	w.net.setFilter(func(_, to netip.AddrPort, b []byte) bool {
		copies = append(copies, slices.Clone(b))
		return to != w.serverSock.addr
	})
	for range 4 {
		check(t, sendRecord(c, []byte("x")))
	}
	w.net.setFilter(nil)
	w.serverSock.push(netip.MustParseAddrPort(clientAddr), copies[2])
	forged := slices.Clone(copies[3])
	forged[len(forged)-1] ^= 1
	for _, b := range [][]byte{copies[2], copies[0], forged, copies[0], copies[1]} {
		w.serverSock.push(evilAddr, b)
	}
	eventually(t, "all of them", func() bool {
		d := w.server.Stats().Drops
		return d[DropOpenFailed] == 1 && d[DropReplay] == 2 && len(w.serverEvents.received(s)) == 3
	})
	if st := w.server.Stats(); st.PathCandidates != 0 || len(p.reported()) != 0 {
		t.Errorf("%+v, reported %v", st, p.reported())
	}
	if s.Validate(Path{evilAddr, w.serverSock.addr}) || s.Remote() != netip.MustParseAddrPort(clientAddr) {
		t.Error("moved without a candidate")
	}
	if err := sendRecordVia(s, []byte("x"), Path{evilAddr, w.serverSock.addr}); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("sent without a candidate: %v", err)
	}
	w.serverSock.push(netip.MustParseAddrPort(clientAddr), copies[3])
	eventually(t, "last record", func() bool { return len(w.serverEvents.received(s)) == 4 })
}

// TestSpoofedSource has an attacker on the path copy each of the client's
// records and win the race from addresses that are not his: the association
// stays, the victims get no more than three times what came in their name.
func TestSpoofedSource(t *testing.T) {
	var p *prober
	w := newWorld(t, func(w *world) {
		p, w.serverConfig.PathCandidate = attach(t, w.serverEvents)
		_, w.clientConfig.PathCandidate = attach(t, w.clientEvents)
	})
	c, s := w.pair()
	home := s.Path()
	var mu sync.Mutex
	victims := []netip.AddrPort{evilAddr, movedAddr, netip.MustParseAddrPort("203.0.113.67:667")}
	in, out := map[netip.AddrPort]int{}, map[netip.AddrPort]int{}
	n := 0
	w.net.setFilter(func(_, to netip.AddrPort, b []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		if to == w.serverSock.addr {
			v := victims[n%len(victims)]
			n++
			in[v] += len(b)
			w.serverSock.push(v, b)
		} else {
			out[to] += len(b)
		}
		return true
	})
	for range 200 {
		check(t, sendRecord(c, []byte("data")))
		check(t, sendRecord(s, []byte("data")))
	}
	eventually(t, "candidates", func() bool { return len(p.reported()) >= 2 })
	for _, to := range p.reported() {
		var err error
		for err == nil { // an owner that does not count
			err = sendRecordVia(s, []byte("echo again"), to)
		}
		if !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Error(err)
		}
	}
	eventually(t, "data at both ends", func() bool {
		return len(w.serverEvents.received(s)) >= 200 && len(w.clientEvents.received(c)) >= 200
	})
	if s.Path() != home {
		t.Errorf("moved to %v", s.Path())
	}
	mu.Lock()
	defer mu.Unlock()
	for i, v := range victims {
		if i < maxCandidates && out[v] == 0 || out[v] > 3*in[v] {
			t.Errorf("%d bytes to %v, %d in its name", out[v], v, in[v])
		}
	}
	if st := w.server.Stats(); st.PathCandidates < 2 || st.PathRefusals == 0 || st.Migrations != 0 {
		t.Errorf("%+v", st)
	}
}

// TestAnswerFromElsewhere answers the echo from the old address: that does not
// validate the new one.
func TestAnswerFromElsewhere(t *testing.T) {
	var p *prober
	w := newWorld(t, func(w *world) { p, w.serverConfig.PathCandidate = attach(t, w.serverEvents) })
	c, s := w.pair()
	w.net.setFilter(func(_, to netip.AddrPort, b []byte) bool {
		if to == w.serverSock.addr {
			w.serverSock.push(evilAddr, b) // and the original, too late
		}
		return true
	})
	check(t, sendRecord(c, []byte("x")))
	eventually(t, "candidate", func() bool { return len(p.reported()) == 1 })
	w.net.setFilter(nil)
	check(t, sendRecord(c, []byte(answerPrefix+"1")))
	eventually(t, "answer", func() bool { return len(w.serverEvents.received(s)) == 2 })
	if evil := (Path{evilAddr, w.serverSock.addr}); s.Validate(evil) || s.Remote() == evilAddr {
		t.Error("moved although nothing came from there since the echo")
	}
}

// serve runs the server on one more socket until the test or the given
// function ends it.
func (w *world) serve(s *memSock) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx, s) }()
	stop = sync.OnceFunc(func() {
		cancel()
		check(w.t, <-done)
	})
	w.t.Cleanup(stop)
	return stop
}

// TestMovedToAnotherSocket lets the moved client's records arrive at another
// socket of the group, as SO_REUSEPORT does, or at one with another address and
// port. When that socket is no longer served, the association's own is used.
func TestMovedToAnotherSocket(t *testing.T) {
	for _, addr := range []string{serverAddr, "192.0.2.2:4433"} {
		t.Run(addr, func(t *testing.T) {
			w := newWorld(t, func(w *world) {
				_, w.serverConfig.PathCandidate = attach(t, w.serverEvents)
				_, w.clientConfig.PathCandidate = attach(t, w.clientEvents)
			})
			c, s := w.pair()
			second := w.net.socket(addr)
			stop := w.serve(second)
			// The client's server address is translated, as by a balancer.
			client := netip.MustParseAddrPort(clientAddr)
			w.net.mu.Lock()
			clientSock := w.net.socks[client]
			w.net.mu.Unlock()
			var mu sync.Mutex
			at := second
			w.net.setFilter(func(from, to netip.AddrPort, b []byte) bool {
				mu.Lock()
				defer mu.Unlock()
				if from == client {
					at.push(movedAddr, b)
				} else if to == movedAddr {
					clientSock.push(w.serverSock.addr, b)
				}
				return false
			})
			w.exchangeData(c, s)
			if want := (Path{movedAddr, second.addr}); s.Path() != want || s.Local() != second.addr {
				t.Errorf("path %v, want %v", s.Path(), want)
			}
			if s.paths.current.Load().w.sock != Socket(second) {
				t.Error("does not send from the socket at which the records arrive")
			}
			mu.Lock()
			at = w.serverSock
			mu.Unlock()
			stop()
			if err := sendRecord(s, []byte("lost")); err == nil {
				t.Error("sent from a closed socket")
			}
			w.exchangeData(c, s)
			if want := (Path{movedAddr, w.serverSock.addr}); s.Path() != want {
				t.Errorf("path %v, want %v", s.Path(), want)
			}
			w.net.setFilter(nil)
		})
	}
}

// TestOtherSocketOfTheGroup lets the same addresses lead to another socket of
// the group: nothing needs validation.
func TestOtherSocketOfTheGroup(t *testing.T) {
	var p *prober
	w := newWorld(t, func(w *world) { p, w.serverConfig.PathCandidate = attach(t, w.serverEvents) })
	c, s := w.pair()
	second := w.net.socket(serverAddr) // the net delivers to it from now on
	stop := w.serve(second)
	w.exchangeData(c, s)
	if s.paths.current.Load().w.sock != Socket(second) || len(p.reported()) != 0 || s.Info().Moves != 0 {
		t.Errorf("reported %v", p.reported())
	}
	stop()
	w.net.mu.Lock()
	w.net.socks[w.serverSock.addr] = w.serverSock
	w.net.mu.Unlock()
	_ = sendRecord(s, []byte("lost")) // the socket is closed
	w.exchangeData(c, s)
}

// TestMovedToAnotherLocalAddress lets the client's records arrive at another
// address of this host.
func TestMovedToAnotherLocalAddress(t *testing.T) {
	w := newWorld(t, func(w *world) {
		_, w.serverConfig.PathCandidate = attach(t, w.serverEvents)
		_, w.clientConfig.PathCandidate = attach(t, w.clientEvents)
	})
	first, other := netip.MustParseAddr("192.0.2.200"), netip.MustParseAddr("192.0.2.201")
	set := func(a netip.Addr) {
		w.serverSock.mu.Lock()
		defer w.serverSock.mu.Unlock()
		w.serverSock.local = a
	}
	set(first)
	c, s := w.pair()
	set(other)
	check(t, sendRecord(c, []byte("x")))
	want := Path{netip.MustParseAddrPort(clientAddr), netip.AddrPortFrom(other, 443)}
	eventually(t, "move", func() bool { return s.Path() == want })
	w.serverSock.mu.Lock()
	w.serverSock.record = true
	w.serverSock.mu.Unlock()
	w.alive(c, s)
	w.serverSock.mu.Lock()
	defer w.serverSock.mu.Unlock()
	for _, b := range w.serverSock.batches {
		if b[0].Local != other {
			t.Errorf("sent from %v", b[0].Local)
		}
	}
	if len(w.serverSock.batches) == 0 {
		t.Error("nothing sent")
	}
}

// arrive delivers n new records of size bytes to the bed from an address.
func (b *bed) arrive(from netip.AddrPort, n, size int) (bytes int) {
	in := b.sealed(n, size)
	b.w.message(&udp.Message{Buf: in, N: len(in), Segment: len(in) / n, Addr: from})
	return len(in)
}

// TestCandidates checks the bounds of candidates: bytes, number and time.
func TestCandidates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, ECDHEECDSAWithAES128GCM, true)
		var asked []netip.AddrPort
		b.w.e.cfg.PathCandidate = func(a *Association, p Path) {
			if a != b.a {
				t.Error("another association")
			}
			asked = append(asked, p.Remote)
		}
		path := func(a netip.AddrPort) Path { return Path{a, b.w.addr} }
		come := func(from netip.AddrPort, n int) int {
			defer b.w.hand()
			return b.arrive(from, n, 100)
		}
		addr := func(i int) netip.AddrPort { return netip.AddrPortFrom(evilAddr.Addr(), uint16(i)) }

		n := come(addr(1), 1)
		if b.a.Validate(path(addr(1))) {
			t.Error("validated without an echo")
		}
		if err := b.a.SendVia(make([]byte, 3*n+1), 0, path(addr(1))); !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("more than three times: %v", err)
		}
		check(t, b.a.SendVia(make([]byte, 3*n), n, path(addr(1))))
		if err := b.a.SendVia(make([]byte, 1), 0, path(addr(1))); !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("more than three times: %v", err)
		}
		if b.sock.bytes != 3*n {
			t.Errorf("%d bytes sent of %d", b.sock.bytes, 3*n)
		}
		n = come(addr(1), 10) // more came, more may go
		check(t, b.a.SendVia(make([]byte, 3*n), n, path(addr(1))))
		come(addr(2), 1)
		for i := range 10 { // no place left
			come(addr(3+i), 1)
		}
		if want := []netip.AddrPort{addr(1), addr(2)}; !slices.Equal(asked, want) {
			t.Errorf("candidates %v, want %v", asked, want)
		}
		if st := b.w.e.Stats(); st.PathCandidates != 2 || st.PathsCrowded != 10 || st.PathRefusals != 2 {
			t.Errorf("%+v", st)
		}
		time.Sleep(candidateHold)
		come(addr(20), 1) // in the place of the first
		if asked = asked[2:]; !slices.Equal(asked, []netip.AddrPort{addr(20)}) {
			t.Errorf("candidates %v", asked)
		}
		if err := b.a.SendVia(make([]byte, 1), 0, path(addr(1))); !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("sent to a forgotten candidate: %v", err)
		}
		check(t, b.a.SendVia(make([]byte, 1), 0, path(addr(20))))
		come(addr(20), 1)
		time.Sleep(candidateLife)
		if b.a.Validate(path(addr(20))) {
			t.Error("validated after its time")
		}
		come(addr(20), 1) // reported anew
		if asked = asked[1:]; !slices.Equal(asked, []netip.AddrPort{addr(20)}) {
			t.Errorf("candidates %v", asked)
		}
		check(t, b.a.SendVia(make([]byte, 1), 0, path(addr(20))))
		come(netip.MustParseAddrPort(clientAddr), 1)
		if b.a.Validate(path(addr(20))) {
			t.Error("validated by a record that came elsewhere")
		}
		come(addr(20), 1)
		if !b.a.Validate(path(addr(20))) || b.a.Remote() != addr(20) {
			t.Error("not validated")
		}
		if !b.a.Validate(path(addr(20))) {
			t.Error("not where it is")
		}
		check(t, b.a.SendVia(make([]byte, 1e6), 1000, path(addr(20)))) // the path of the association
		if r := b.w.routes[tuple{remote: addr(20)}]; len(b.w.routes) != 1 || r == nil || r.owner != b.a {
			t.Error("the old address still leads to the association, or the new one does not")
		}
		for _, c := range b.a.paths.candidates {
			if c != nil {
				t.Errorf("candidate %v left", c.remote)
			}
		}
	})
}

// pathEvents notes by which path each run came, without allocating.
type pathEvents struct {
	countEvents
	runs [8]struct {
		path Path
		n    int
	}
	next int
}

func (e *pathEvents) Receive(a *Association, rs [][]byte) {
	e.countEvents.Receive(a, rs)
	e.runs[e.next%len(e.runs)].path = a.Arrived()
	e.runs[e.next%len(e.runs)].n = len(rs)
	e.next++
}

// TestArrived cuts runs where the path changes, and allocates nothing for
// records of a candidate.
func TestArrived(t *testing.T) {
	b := newBed(t, ECDHEECDSAWithAES128GCM, true)
	ev := &pathEvents{}
	b.w.rcv = ev
	client := netip.MustParseAddrPort(clientAddr)
	from := []netip.AddrPort{client, client, movedAddr, movedAddr, client, evilAddr}
	var batches [][]byte
	for range 102 * len(from) {
		batches = append(batches, b.sealed(3, 50))
	}
	batch := func() {
		for _, f := range from {
			in := batches[0]
			batches = batches[1:]
			b.w.message(&udp.Message{Buf: in, N: len(in), Segment: len(in) / 3, Addr: f})
		}
		b.w.hand()
	}
	batch()
	for i, want := range []struct {
		from netip.AddrPort
		n    int
	}{{client, 6}, {movedAddr, 6}, {client, 3}, {evilAddr, 3}} {
		if r := ev.runs[i]; r.path != (Path{want.from, b.w.addr}) || r.n != want.n {
			t.Errorf("run %d: %d records from %v, want %d from %v", i, r.n, r.path, want.n, want.from)
		}
	}
	if n := testing.AllocsPerRun(100, batch); n != 0 {
		t.Errorf("receiving by three paths allocates %v times", n)
	}
	buf := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		if err := b.a.SendVia(buf, 0, Path{movedAddr, b.w.addr}); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("SendVia allocates %v times", n)
	}
	if a := b.a.Path(); a.Remote != client {
		t.Errorf("moved to %v", a)
	}
}

// TestEarlyDataFromElsewhere does not keep data for the end of a handshake that
// came by another path, so that what is delivered is what Arrived says.
func TestEarlyDataFromElsewhere(t *testing.T) {
	b := newBed(t, ECDHEECDSAWithAES128GCM, true)
	h := newHandshake(b.w, tuple{remote: movedAddr}, false)
	t.Cleanup(func() { h.cancel(nil); b.w.e.cids.remove(h.cid) })
	h.cid = b.w.e.cids.add(0, h)
	rec := cidRecord(1, 200, h.cid, make([]byte, 40))
	b.w.datagram(rec, tuple{remote: evilAddr})
	if len(h.early) != 0 || b.w.e.Stats().Drops[DropEarly] != 1 {
		t.Errorf("%d records kept", len(h.early))
	}
	b.w.datagram(rec, tuple{remote: movedAddr})
	if len(h.early) != 1 {
		t.Errorf("%d records kept", len(h.early))
	}
}
