package tunnel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tougw/tougw/gue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// TestChecksumIsLeftOutByAgreement: only towards a peer that said it can do
// without.
func TestChecksumIsLeftOutByAgreement(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, idb := p.open()
		for _, without := range []bool{true, false} {
			p.a.send(ida, tcpACK, "data")
			got := p.b.wantInjected(idb)
			if seg := got[len(got)-1].seg; (binary.BigEndian.Uint16(seg[16:]) == 0) != without {
				t.Errorf("checksum left out: %v, want %v", !without, without)
			}
			p.pa.link.Load().noSum.Store(false) // as after the hello of an older version
		}
	})
}

func TestSessionIDsFollowTheDraft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		var seen []gue.Session
		record := func(rec []byte) bool {
			var h gue.Session
			if _, d := h.Decode(rec); d == gue.DropNone {
				h.Addresses = bytes.Clone(h.Addresses)
				seen = append(seen, h)
			}
			return false
		}
		p.pa.drop, p.pb.drop = record, record
		ida, idb := p.open()
		p.a.send(ida, tcpACK, "data")
		p.b.send(idb, tcpACK, "answer")
		p.b.wantInjected(idb)
		p.a.wantInjected(ida)
		const s, d = gue.FieldSource, gue.FieldDestination
		want := []gue.Session{
			{Has: s | gue.FieldAddresses, Source: ida, Addresses: addrsV4()}, // SYN
			{Has: s | d, Source: idb, Destination: ida},                      // SYN-ACK
			{Has: s | d, Source: ida, Destination: idb},                      // ACK
			{Has: d, Destination: idb},
			{Has: d, Destination: ida},
		}
		if len(seen) != len(want) {
			t.Fatalf("%d segments on the wire, want %d", len(seen), len(want))
		}
		for i, w := range want {
			g := seen[i]
			if g.Proto != gue.ProtoTCP || g.Has != w.Has || g.Source != w.Source || g.Destination != w.Destination || !bytes.Equal(g.Addresses, w.Addresses) {
				t.Errorf("segment %d: %+v, want %+v", i, g, w)
			}
		}
		info, ok := p.b.node.Session(idb)
		if !ok || info.Src != flowSrc || info.Dst != flowDst || info.Peer.Name() != "laptop-1" || info.Initiator {
			t.Errorf("session at the gateway: %+v %v", info, ok)
		}
	})
}

func TestRepeatedSYNFindsItsSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		id, err := p.a.node.Open(t.Context(), "edge", flowSrc, flowDst)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			p.a.send(id, tcpSYN, "")
		}
		got := p.b.take()
		if len(got) != 3 || got[0].id != got[1].id || got[1].id != got[2].id {
			t.Fatalf("three SYNs were injected as %v", got)
		}
		if n := p.b.node.SessionCount(); n != 1 {
			t.Fatalf("%d sessions, want 1", n)
		}
	})
}

func TestSegmentsAreCutToThePath(t *testing.T) {
	for _, outer := range []int{576, 1280, 1400, 1500, 9000} {
		bubble(t, func(t *testing.T) {
			p := newPair(t, Config{PathMTU: outer})
			ida, idb := p.open()
			data := strings.Repeat("0123456789abcdef", 4000)
			p.pa.sizes = nil
			seg := p.a.send(ida, tcpACK, data)
			var got strings.Builder
			for _, in := range p.b.take() {
				if in.id != idb {
					t.Fatalf("injected for %x", in.id)
				}
				got.Write(in.seg[testHeader:])
			}
			if got.String() != data {
				t.Fatalf("%d bytes arrived, want %d, or not equal", got.Len(), len(data))
			}
			for i, n := range p.pa.sizes {
				if n > outer-outerIPv4 {
					t.Fatalf("record %d has %d bytes, more than a path of %d carries", i, n, outer)
				}
				if i < len(p.pa.sizes)-1 && n != outer-outerIPv4 {
					t.Fatalf("record %d of %d has %d bytes: the path is not filled", i, len(p.pa.sizes), n)
				}
			}
			if *seg.released != 1 {
				t.Fatalf("segment released %d times", *seg.released)
			}
		})
	}
}

func TestPathMTUOfBothSides(t *testing.T) {
	for _, c := range []struct{ dialler, acceptor, want int }{
		{1300, 1500, 1300},
		{1500, 1300, 1300},
		{9000, 0, 9000}, // who knows nothing believes the other
		{1280, 0, 1280},
		{65535, 0, 65535}, // but a record holds no more than DTLS allows
		{0, 0, DefaultPathMTU},
	} {
		bubble(t, func(t *testing.T) {
			a, b := newSide(t, "laptop-1", Config{}), newSide(t, "edge", Config{PathMTU: c.acceptor})
			p := &pair{a: a, b: b}
			p.peer = a.node.AddPeer(PeerConfig{Name: "edge", Endpoints: []string{"x"}, PathMTU: c.dialler,
				Dial: func(ctx context.Context, peer *Peer, _ string) (*Link, error) {
					p.pa, p.pb = connect(a, b, peer)
					return p.pa.link.Load(), nil
				}})
			a.run()
			b.run()
			ida, idb := p.open()
			p.pa.sizes, p.pb.sizes = nil, nil
			a.send(ida, tcpACK, strings.Repeat("x", 30_000))
			b.send(idb, tcpACK, strings.Repeat("x", 30_000))
			a.take()
			b.take()
			for name, e := range map[string]*pipe{"dialler": p.pa, "acceptor": p.pb} {
				if most := slices.Max(e.sizes); most != min(c.want-outerIPv4, pipeHead+maxPlaintext+pipeTail) {
					t.Errorf("%+v: the %s sent records of up to %d bytes, want %d", c, name, most, c.want-outerIPv4)
				}
			}
		})
	}
}

func TestForeignSegmentsDoNotReachASession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, idb := p.open()
		other := func(name string) *pipe {
			c := newSide(t, name, Config{})
			peer := c.node.AddPeer(PeerConfig{Name: "edge"})
			pc, _ := connect(c, p.b, peer)
			synctest.Wait()
			return pc
		}
		other("mallory").raw(encap(0, idb, nil, tcpACK)) // another identity
		p.b.wantInjected()
		p.b.wantDrop(DropForeignSession, 1)
		other("laptop-1").raw(encap(0, idb, nil, tcpACK)) // same identity, another instance
		p.b.wantInjected()
		p.b.wantDrop(DropForeignSession, 2)

		// The same source id from another peer is another session.
		other("mallory-2").raw(encap(ida, 0, addrsV4(), tcpSYN))
		got := p.b.take()
		if len(got) != 1 || got[0].id == idb {
			t.Fatalf("SYN with a used source id from another peer: %v", got)
		}
		p.pa.raw(encap(0, 12345, nil, tcpACK))
		p.b.wantDrop(DropUnknownSession, 1)
	})
}

func TestIDsThatDoNotFitTheirSegment(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, idb := p.open()
		cases := []struct {
			name string
			from *pipe
			at   *side
			rec  []byte
		}{
			{"no ids", p.pa, p.b, encap(0, 0, nil, tcpACK)},
			{"source alone without SYN", p.pa, p.b, encap(77, 0, addrsV4(), tcpACK)},
			{"source alone on SYN-ACK", p.pa, p.b, encap(77, 0, addrsV4(), tcpSYN|tcpACK)},
			{"SYN-ACK of the initiator", p.pa, p.b, encap(0, idb, nil, tcpSYN|tcpACK)},
			{"SYN to an open session's id", p.pa, p.b, encap(0, idb, nil, tcpSYN)},
			{"wrong source with a right destination", p.pa, p.b, encap(ida+1, idb, nil, tcpACK)},
			{"second SYN-ACK with another source", p.pb, p.a, encap(idb+1, ida, nil, tcpSYN|tcpACK)},
			{"source on a later segment of the responder", p.pb, p.a, encap(idb, ida, nil, tcpACK)},
		}
		for i, c := range cases {
			before := c.at.node.Stats().Drops[DropBadIDs.String()]
			c.from.raw(c.rec)
			if got := c.at.take(); len(got) != 0 {
				t.Errorf("%d %s: injected %v", i, c.name, got)
			}
			if n := c.at.node.Stats().Drops[DropBadIDs.String()]; n != before+1 {
				t.Errorf("%d %s: not counted as bad ids: %v", i, c.name, c.at.dropped())
			}
		}
		p.pa.raw(encap(78, 0, nil, tcpSYN))
		p.b.wantDrop(DropNoAddresses, 1)
		p.pa.raw(encap(0, idb, nil, tcpACK)[:12+19])
		p.b.wantDrop(DropShort, 1)
		p.pa.raw([]byte{0xff, 0, 0})
		p.b.wantDrop(DropMalformed, 1)
		udp := encap(0, idb, nil, tcpACK)
		udp[1] = byte(gue.ProtoUDP)
		p.pa.raw(udp)
		p.b.wantDrop(DropProtocol, 1)
		p.b.wantInjected()
	})
}

func TestBeforeTheSYNACKOnlyAResetPasses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		id, err := p.a.node.Open(t.Context(), "edge", flowSrc, flowDst)
		if err != nil {
			t.Fatal(err)
		}
		p.a.send(id, tcpACK, "too early") // nothing to address it to
		p.a.wantDrop(DropBadIDs, 1)
		p.pb.raw(encap(0, id, nil, tcpACK))
		p.a.wantInjected()
		p.pb.raw(encap(0, id, nil, tcpRST|tcpACK))
		p.a.wantInjected(id)
	})
}

func TestNothingPassesBeforeTheHello(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSide(t, "laptop-1", Config{}), newSide(t, "edge", Config{})
		b.run()
		pa, _ := connect(a, b, nil) // attached as if b had dialled: a says no hello
		pa.raw(encap(5, 0, addrsV4(), tcpSYN))
		b.wantInjected()
		b.wantDrop(DropNoHello, 1)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		select {
		case <-pa.done:
		default:
			t.Fatal("an association without a hello was kept")
		}
	})
}

func TestSessionSurvivesANewAssociation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, idb := p.open()
		p.pa.Close(errors.New("cable"))
		synctest.Wait()
		p.b.send(idb, tcpACK, "lost")
		p.b.wantDrop(DropNoAssociation, 1)
		time.Sleep(time.Second) // the dialler returns
		synctest.Wait()
		p.b.send(idb, tcpACK, "back")
		p.a.wantInjected(ida)
		p.a.send(ida, tcpACK, "and forth")
		p.b.wantInjected(idb)
	})
}

func TestRestartedPeerResetsItsSessions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, _ := p.open()
		old := p.b
		p.b = newSide(t, "edge", Config{}) // same identity, new instance
		p.b.run()
		p.pa.Close(errors.New("restarted"))
		time.Sleep(time.Second)
		if err := p.a.abortedWith(ida); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("session of the old instance: %v, want a reset", err)
		}
		p.open()
		old.take()
	})
}

func TestSilentAssociationIsReplacedBeforeItIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, idb := p.open()
		first := p.pa
		first.mu.Lock()
		first.dead = true
		first.mu.Unlock()
		start := time.Now()
		for p.dials.Load() == 1 {
			p.a.node.Output(newSegment(ida, tcpACK, []byte("x"))) // the stack repeats
			time.Sleep(200 * time.Millisecond)
			if time.Since(start) > 10*time.Second {
				t.Fatal("no second association within 10 s of silence")
			}
		}
		if d := time.Since(start); d < probeAfter {
			t.Errorf("replaced after %v: too eager", d)
		}
		synctest.Wait()
		p.b.take()
		p.a.send(ida, tcpACK, "again")
		p.b.wantInjected(idb)
		time.Sleep(replaceGrace + 2*tick)
		synctest.Wait()
		select {
		case <-first.done:
		default:
			t.Fatal("the replaced association was kept")
		}
	})
}

func TestIdleAssociationIsKeptAlive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		before := p.pa
		sent := p.a.node.Stats().ControlOut
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if p.pa != before {
			t.Fatal("an idle association was replaced")
		}
		if n := p.a.node.Stats().ControlOut - sent; n < 30 || n > 80 {
			t.Errorf("%d control messages in ten idle minutes, want about 40", n)
		}
		if p.a.node.Peers()[0].State != "up" {
			t.Errorf("peer is %s", p.a.node.Peers()[0].State)
		}
	})
}

func TestDeadPeerIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{Keepalive: 15 * time.Second, DeadAfter: 10 * time.Second})
		_, idb := p.open()
		// The gateway cannot dial: its side must end by itself.
		p.pb.mu.Lock()
		p.pb.dead = true
		p.pb.mu.Unlock()
		p.pa.mu.Lock()
		p.pa.dead = true
		p.pa.mu.Unlock()
		pb := p.pb
		time.Sleep(time.Millisecond)
		p.b.send(idb, tcpACK, "anyone?")
		time.Sleep(15 * time.Second)
		synctest.Wait()
		select {
		case <-pb.done:
		default:
			t.Fatal("a dead association was kept for 15 s of traffic")
		}
	})
}

func TestOrphanedSessionsAreResetAfterTheGrace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSide(t, "laptop-1", Config{}), newSide(t, "edge", Config{SessionGrace: time.Minute})
		p := &pair{a: a, b: b}
		dials := 0
		p.peer = a.node.AddPeer(PeerConfig{Name: "edge", Endpoints: []string{"x"}, Dial: func(ctx context.Context, peer *Peer, _ string) (*Link, error) {
			if dials++; dials > 1 {
				return nil, errors.New("no way back")
			}
			p.pa, p.pb = connect(a, b, peer)
			return p.pa.link.Load(), nil
		}})
		a.run()
		b.run()
		_, idb := p.open()
		p.pa.Close(errors.New("gone"))
		time.Sleep(59 * time.Second)
		if err := b.abortedWith(idb); err != nil {
			t.Fatalf("reset before the grace was over: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := b.abortedWith(idb); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("after the grace: %v", err)
		}
		if n := b.node.SessionCount(); n != 0 {
			t.Fatalf("%d sessions left", n)
		}
		if st := b.node.Stats(); st.SessionsOpened != st.SessionsClosed {
			t.Errorf("%d sessions opened and %d closed", st.SessionsOpened, st.SessionsClosed)
		}
		if dials < 3 || dials > 12 {
			t.Errorf("%d attempts in a minute of failures: back-off is off", dials)
		}
	})
}

func TestRefusalTellsTheReason(t *testing.T) {
	reasons := []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES, syscall.ETIMEDOUT, ErrOverload, ErrDraining, ErrName}
	for _, reason := range reasons {
		bubble(t, func(t *testing.T) {
			p := newPair(t, Config{})
			id, err := p.a.node.Open(t.Context(), "edge", flowSrc, flowDst)
			if err != nil {
				t.Fatal(err)
			}
			p.a.send(id, tcpSYN, "")
			idb := p.b.take()[0].id
			p.pb.mu.Lock()
			p.pb.dead = true // the reason is lost once
			p.pb.mu.Unlock()
			p.b.node.Refuse(idb, reason)
			synctest.Wait()
			p.pb.mu.Lock()
			p.pb.dead = false
			p.pb.mu.Unlock()
			if got := p.a.abortedWith(id); got != nil {
				t.Fatalf("told %v although the message was lost", got)
			}
			time.Sleep(time.Second)
			p.a.send(id, tcpSYN, "") // the stack repeats its SYN
			p.b.wantInjected()
			if got := p.a.abortedWith(id); !errors.Is(got, reason) {
				t.Fatalf("told %v, want %v", got, reason)
			}
		})
	}
}

func TestRefusalOfAnotherPeerIsIgnored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		id, err := p.a.node.Open(t.Context(), "edge", flowSrc, flowDst)
		if err != nil {
			t.Fatal(err)
		}
		m := newSide(t, "mallory", Config{})
		pm, _ := connect(m, p.a, m.node.AddPeer(PeerConfig{Name: "a"}))
		synctest.Wait()
		pm.link.Load().control(&control{typ: ctlRefused, session: id, reason: refusedConnection})
		p.a.wantDrop(DropForeignSession, 1)
		if err := p.a.abortedWith(id); err != nil {
			t.Fatalf("a stranger's refusal ended the session: %v", err)
		}
	})
}

// The peer may give up a session between its SYN-ACK and our acknowledgement.
func TestRefusalOfAnOpenSessionResetsIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		id, err := p.a.node.Open(t.Context(), "edge", flowSrc, flowDst)
		if err != nil {
			t.Fatal(err)
		}
		p.a.send(id, tcpSYN, "")
		idb := p.b.take()[0].id
		p.b.send(idb, tcpSYN|tcpACK, "")
		p.a.wantInjected(id)
		p.a.node.Established(id)
		p.b.node.Refuse(idb, syscall.ETIMEDOUT)
		if err := p.a.abortedWith(id); err != syscall.ECONNRESET {
			t.Fatalf("told %v", err)
		}
	})
}

func TestClosedIDsAreTombstones(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, idb := p.open()
		p.b.node.Release(idb)
		p.a.node.Release(ida)
		p.pa.raw(encap(ida, 0, addrsV4(), tcpSYN)) // a late copy of the SYN
		p.b.wantInjected()
		p.b.wantDrop(DropClosedSession, 1)
		p.pa.raw(encap(0, idb, nil, tcpACK)) // a late segment still finds the stack
		p.b.wantInjected(idb)
		p.b.send(idb, tcpRST, "") // and its answer the way back
		p.a.wantInjected(ida)
		for range 4 { // one that is still in use stays
			time.Sleep(tombstone / 2)
			p.pa.raw(encap(0, idb, nil, tcpACK))
			p.b.wantInjected(idb)
		}
		time.Sleep(2 * tombstone)
		synctest.Wait()
		if a, b := p.a.node.SessionCount(), p.b.node.SessionCount(); a != 0 || b != 0 {
			t.Fatalf("%d and %d sessions left", a, b)
		}
		p.b.node.mu.RLock()
		n := len(p.b.node.bySource)
		p.b.node.mu.RUnlock()
		if n != 0 {
			t.Fatalf("%d source ids left", n)
		}
		st := p.b.node.Stats()
		if st.SessionsOpened != 1 || st.SessionsClosed != 1 {
			t.Errorf("opened %d, closed %d", st.SessionsOpened, st.SessionsClosed)
		}
	})
}

func TestLimitsRefuseAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{MaxOpening: 3, MaxSessions: 5})
		var last uint64
		for range 4 {
			id, err := p.a.node.Open(t.Context(), "edge", flowSrc, flowDst)
			if err != nil {
				t.Fatal(err)
			}
			p.a.send(id, tcpSYN, "")
			last = id
		}
		if got := p.b.take(); len(got) != 3 {
			t.Fatalf("%d sessions being opened, want 3", len(got))
		}
		if err := p.a.abortedWith(last); !errors.Is(err, ErrOverload) {
			t.Fatalf("the fourth was told %v", err)
		}
		p.b.wantDrop(DropOpeningLimit, 1)
		if _, err := p.a.node.Open(t.Context(), "edge", flowSrc, flowDst); err != nil {
			t.Fatal(err)
		}
		if _, err := p.a.node.Open(t.Context(), "edge", flowSrc, flowDst); !errors.Is(err, ErrOverload) {
			t.Fatalf("the sixth session: %v", err)
		}
	})
}

func TestDrainRefusesNewSessions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, idb := p.open()
		id, err := p.a.node.Open(t.Context(), "edge", flowSrc, flowDst)
		if err != nil {
			t.Fatal(err)
		}
		p.b.node.Drain(3 * time.Second)
		synctest.Wait()
		p.a.send(id, tcpSYN, "")
		if err := p.a.abortedWith(id); !errors.Is(err, ErrDraining) {
			t.Fatalf("told %v", err)
		}
		if _, err := p.a.node.Open(t.Context(), "edge", flowSrc, flowDst); !errors.Is(err, ErrDraining) {
			t.Fatalf("Open towards a stopping peer: %v", err)
		}
		p.a.send(ida, tcpACK, "still here")
		p.b.wantInjected(idb)
	})
}

func TestOpenWithoutAPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newSide(t, "laptop-1", Config{})
		a.run()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := a.node.Open(ctx, "edge", flowSrc, flowDst)
		if !errors.Is(err, ErrNoPeer) || !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Fatalf("Open: %v", err)
		}
	})
}

func TestFlowsOpenTowardsAPeerThatDialled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		id, err := p.b.node.Open(t.Context(), "laptop-1", flowSrc, flowDst)
		if err != nil {
			t.Fatal(err)
		}
		p.b.send(id, tcpSYN, "")
		got := p.a.take()
		if len(got) != 1 {
			t.Fatalf("SYN did not arrive: %v", p.a.dropped())
		}
		if info, _ := p.a.node.Session(got[0].id); info.Peer.Name() != "edge" || info.Dst != flowDst {
			t.Errorf("%+v", info)
		}
	})
}

func TestReceiveAllocatesNothing(t *testing.T) {
	n := New(Config{Stack: &side{}})
	inst := &instance{}
	l := &Link{node: n}
	l.inst.Store(inst)
	s := &session{id: 7, inst: inst}
	s.remote.Store(2)
	n.sessions[7] = s
	r := n.NewReceiver(nullInjector{})
	recs := [][]byte{encap(0, 7, nil, tcpACK), encap(0, 7, nil, tcpACK)}
	if a := testing.AllocsPerRun(100, func() { r.Receive(l, recs); r.Flush() }); a > 0 {
		t.Errorf("%v allocations for two records", a)
	}
}

func TestControlRoundTrip(t *testing.T) {
	for _, c := range []control{
		{typ: ctlHello, hello: hello{reply: true, low: 1, high: 3, capabilities: 0x01020304, instance: InstanceID{1, 2, 15: 9}, pathMTU: 1400}},
		{typ: ctlEchoRequest, token: 1<<63 | 5},
		{typ: ctlEchoReply, token: 5},
		{typ: ctlRefused, session: 1 << 60, reason: refusedTimeout},
		{typ: ctlPathProbe, token: 1 << 62},
		{typ: ctlPathReply, token: 3},
		{typ: ctlDrain, seconds: 300},
		{typ: ctlUnknown, session: 1<<63 | 9},
	} {
		b := c.append(nil)
		if len(b) > controlMax {
			t.Errorf("type %d has %d bytes, more than the bound %d", c.typ, len(b), controlMax)
		}
		got := control{typ: 99, token: 99, hello: hello{low: 99}, session: 99, seconds: 99} // a dirty struct
		if err := got.decode(append(b, "surplus"...)); err != nil || got != c {
			t.Errorf("type %d: %+v %v, want %+v", c.typ, got, err, c)
		}
		for n := range b {
			if err := got.decode(b[:n]); err == nil {
				t.Errorf("type %d cut to %d bytes was accepted", c.typ, n)
			}
		}
		longer := bytes.Clone(b)
		longer = append(longer, 0xff) // a field of a later version
		longer[3]++
		if err := got.decode(longer); err != nil || got != c {
			t.Errorf("type %d with a further field: %+v %v", c.typ, got, err)
		}
	}
	var c control
	if err := c.decode([]byte{controlVersion, 200, 0, 0}); !errors.Is(err, errControlUnknown) {
		t.Errorf("unknown type: %v", err)
	}
	if err := c.decode([]byte{controlVersion + 1, 1, 0, 0}); !errors.Is(err, errControlUnknown) {
		t.Errorf("unknown version: %v", err)
	}
}

func TestOtherVersionIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSide(t, "laptop-1", Config{}), newSide(t, "edge", Config{})
		b.run()
		pa, _ := connect(a, b, nil)
		pa.link.Load().control(&control{typ: ctlHello, hello: hello{low: 2, high: 9, instance: InstanceID{1}}})
		synctest.Wait()
		select {
		case <-pa.done:
		default:
			t.Fatal("a peer of another version was kept")
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add((&control{typ: ctlHello}).append(nil))
	f.Add((&control{typ: ctlRefused}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c, again control
		if c.decode(b) != nil {
			return
		}
		if err := again.decode(c.append(nil)); err != nil || again != c {
			t.Fatalf("%+v became %+v, %v", c, again, err)
		}
	})
}

func FuzzReceive(f *testing.F) {
	f.Add(encap(5, 0, addrsV4(), tcpSYN))
	f.Add(encap(5, 7, nil, tcpSYN|tcpACK))
	f.Add(encap(0, 7, nil, tcpACK))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := New(Config{Stack: &side{aborted: map[uint64]error{}}})
		inst := &instance{account: new(account)}
		l := &Link{node: n, secure: &nullSecure{}, ready: make(chan struct{}), done: make(chan struct{})}
		l.head, l.tail = l.secure.Overhead()
		l.inst.Store(inst)
		s := &session{id: 7, inst: inst, initiator: true}
		n.sessions[7] = s
		n.NewReceiver(nullInjector{}).Receive(l, [][]byte{b})
	})
}
