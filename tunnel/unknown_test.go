package tunnel

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// loses has a side forget a session, as it does with those of an instance that
// stayed away too long.
func (s *side) loses(id uint64) {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	s.node.forget(s.node.sessions[id])
}

func TestUnknownSessionIsResetAtOnce(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags uint8
		reset bool
	}{{"data", tcpACK, true}, {"SYN-ACK", tcpSYN | tcpACK, true}, {"reset", tcpRST | tcpACK, false}} {
		for _, initiator := range []bool{true, false} {
			bubble(t, func(t *testing.T) {
				p := newPair(t, Config{})
				ida, idb := p.open()
				other, _ := p.open()
				from, to, id, lost := p.a, p.b, ida, idb
				if !initiator {
					from, to, id, lost = p.b, p.a, idb, ida
				} else if c.flags&tcpSYN != 0 {
					return // the initiator sends none
				}
				to.loses(lost)
				from.send(id, c.flags, "into the void")
				to.wantInjected()
				to.wantDrop(DropUnknownSession, 1)
				err := from.abortedWith(id)
				if c.reset != errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s, by the initiator %v: aborted with %v", c.name, initiator, err)
				}
				if err := p.a.abortedWith(other); err != nil {
					t.Errorf("%s: another session was aborted: %v", c.name, err)
				}
			})
		}
	}
}

// TestWhoKeepsSessionsLongerIsTold: the two sides were apart for longer than one
// of them keeps sessions.
func TestWhoKeepsSessionsLongerIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSide(t, "laptop-1", Config{SessionGrace: time.Hour}), newSide(t, "edge", Config{SessionGrace: time.Minute})
		b.run()
		peer := a.node.AddPeer(PeerConfig{Name: "edge", Endpoints: []string{"x"}, Dial: func(context.Context, *Peer, string) (*Link, error) {
			return nil, errors.New("the test dials")
		}})
		a.run()
		p := &pair{a: a, b: b, peer: peer}
		p.pa, p.pb = connect(a, b, peer)
		synctest.Wait()
		ida, idb := p.open()
		p.pa.Close(errors.New("gone"))
		time.Sleep(2 * time.Minute)
		if err := b.abortedWith(idb); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("the side that forgets: %v", err)
		}
		p.pa, p.pb = connect(a, b, peer)
		synctest.Wait()
		if err := a.abortedWith(ida); err != nil {
			t.Fatalf("before a word was said: %v", err)
		}
		a.send(ida, tcpACK, "are you there?")
		if err := a.abortedWith(ida); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the side that kept it: %v", err)
		}
	})
}

func TestUnknownOfAnotherPeerIsIgnored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, idb := p.open()
		_, pm := join(p.b, "mallory")
		pm.link.Load().control(&control{typ: ctlUnknown, session: ida})
		p.b.wantDrop(DropUnknownSession, 1)
		p.pa.link.Load().control(&control{typ: ctlUnknown, session: ida ^ 1}) // none of ours
		p.b.wantDrop(DropUnknownSession, 2)
		if err := p.b.abortedWith(idb); err != nil {
			t.Errorf("aborted with %v", err)
		}
		p.b.node.Release(idb)
		p.pa.link.Load().control(&control{typ: ctlUnknown, session: ida})
		p.b.wantDrop(DropClosedSession, 1)
		if err := p.b.abortedWith(idb); err != nil {
			t.Errorf("a session that had ended was aborted with %v", err)
		}
	})
}

// TestForeignSegmentIsNotAnswered: whether a session exists is its owner's affair.
func TestForeignSegmentIsNotAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		_, idb := p.open()
		mallory, pm := join(p.b, "mallory")
		before := mallory.node.Stats().ControlIn
		pm.raw(encap(0, idb, nil, tcpACK))
		p.b.wantDrop(DropForeignSession, 1)
		if n := mallory.node.Stats().ControlIn - before; n != 0 {
			t.Errorf("%d answers", n)
		}
	})
}

func TestAnswersToUnknownSessionsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newSide(t, "edge", Config{})
		b.run()
		c, p := join(b, "laptop-1")
		answers := func(f func()) uint64 {
			synctest.Wait()
			before := c.node.Stats().ControlIn
			f()
			synctest.Wait()
			return c.node.Stats().ControlIn - before
		}
		if n := answers(func() {
			for range 100 {
				p.raw(encap(0, 77, nil, tcpACK))
			}
		}); n != 1 {
			t.Errorf("%d answers to a run of one session", n)
		}
		if n := answers(func() {
			for i := range 2 * unknownBurst {
				p.raw(encap(0, uint64(1000+i), nil, tcpACK))
			}
		}); n < unknownBurst-1 || n > unknownBurst {
			t.Errorf("%d answers at once, want %d", n, unknownBurst)
		}
		time.Sleep(10 * unknownEvery)
		if n := answers(func() {
			for i := range 100 {
				p.raw(encap(0, uint64(5000+i), nil, tcpACK))
			}
		}); n != 10 {
			t.Errorf("%d answers after %v, want 10", n, 10*unknownEvery)
		}
		time.Sleep(unknownAgain)
		if n := answers(func() { p.raw(encap(0, 5009, nil, tcpACK)) }); n != 1 {
			t.Error("a session is told only once")
		}
	})
}

// TestRemoteIDsAreForgotten with their sessions.
func TestRemoteIDsAreForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, idb := p.open()
		ids := func() int {
			p.a.node.mu.RLock()
			defer p.a.node.mu.RUnlock()
			return len(p.a.node.byRemote)
		}
		if n := ids(); n != 1 {
			t.Fatalf("%d ids of the peer", n)
		}
		p.a.node.Release(ida)
		p.b.node.Release(idb)
		time.Sleep(2 * tombstone)
		if n := ids(); n != 0 {
			t.Errorf("%d ids of the peer left", n)
		}
	})
}
