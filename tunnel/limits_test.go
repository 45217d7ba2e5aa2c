package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// syns has the peer behind p send n SYNs with source ids from first on.
func syns(p *pipe, first uint64, n int) {
	for i := range n {
		p.raw(encap(first+uint64(i), 0, addrsV4(), tcpSYN))
	}
}

// join attaches a new side of that name to b, as if it had dialled.
func join(b *side, name string) (*side, *pipe) {
	c := newSide(b.t, name, Config{})
	pc, _ := connect(c, b, c.node.AddPeer(PeerConfig{Name: "edge"}))
	synctest.Wait()
	return c, pc
}

func TestOnePeerLeavesSessionsToTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newSide(t, "edge", Config{MaxSessions: 90})
		b.run()
		_, greedy := join(b, "greedy")
		syns(greedy, 1, 200)
		if n := len(b.take()); n != 80 {
			t.Fatalf("one identity got %d of 90 sessions, want 80", n)
		}
		b.wantDrop(DropSessionLimit, 120)
		_, again := join(b, "greedy") // another instance is the same peer
		syns(again, 1, 10)
		b.wantInjected()
		_, modest := join(b, "modest")
		syns(modest, 1, 8)
		if n := len(b.take()); n != 8 {
			t.Fatalf("the next peer got %d sessions, want 8", n)
		}
	})
}

func TestInstancesOfAnIdentityShareItsOpenings(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newSide(t, "edge", Config{MaxOpening: 10})
		b.run()
		_, p1 := join(b, "laptop-1")
		_, p2 := join(b, "laptop-1")
		syns(p1, 1, 6)
		syns(p2, 1, 6)
		got := b.take()
		if len(got) != 10 {
			t.Fatalf("%d sessions are being opened, want 10", len(got))
		}
		b.node.Established(got[0].id)
		b.node.Refuse(got[1].id, syscall.ECONNREFUSED)
		b.node.Release(got[2].id)
		b.node.Release(got[2].id) // counts once
		syns(p2, 100, 6)
		if n := len(b.take()); n != 3 {
			t.Fatalf("%d more sessions, want 3", n)
		}
	})
}

// A stack may drop a SYN without a word: nobody ends the session then.
func TestForgottenOpeningsEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newSide(t, "edge", Config{MaxOpening: 5})
		b.run()
		_, p := join(b, "laptop-1")
		syns(p, 1, 5)
		ids := b.take()
		for range 5 { // the first is still wanted
			time.Sleep(time.Minute)
			p.raw(encap(1, 0, addrsV4(), tcpSYN))
		}
		if err := b.abortedWith(ids[0].id); err != nil {
			t.Fatalf("a session whose SYN is repeated was ended: %v", err)
		}
		for _, in := range ids[1:] {
			if err := b.abortedWith(in.id); !errors.Is(err, syscall.ETIMEDOUT) {
				t.Fatalf("a forgotten session: %v", err)
			}
		}
		b.take()
		syns(p, 100, 5)
		if n := len(b.take()); n != 4 {
			t.Fatalf("%d sessions can be opened, want 4", n)
		}
	})
}

func TestEndedSessionsDoNotCount(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{MaxSessions: 20})
		for i := range minTombstones + 100 {
			ida, idb := p.open()
			p.a.node.Release(ida)
			p.b.node.Release(idb)
			if n := p.b.node.SessionCount(); n > minTombstones {
				t.Fatalf("%d sessions mapped after %d short flows", n, i)
			}
		}
		time.Sleep(2 * tombstone)
		for _, s := range []*side{p.a, p.b} {
			s.node.mu.Lock()
			if len(s.node.sessions)+len(s.node.bySource)+s.node.live+s.node.tombs.len() != 0 {
				t.Errorf("left: %d sessions, %d sources, %d alive, %d tombstones", len(s.node.sessions), len(s.node.bySource),
					s.node.live, s.node.tombs.len())
			}
			s.node.mu.Unlock()
		}
	})
}

func TestAssociationsOfAnIdentityAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newSide(t, "edge", Config{})
		b.run()
		var pipes []*pipe
		for range maxIdentityLinks + 5 { // all say nothing
			c := newSide(t, "greedy", Config{})
			pc, _ := connect(c, b, nil)
			pipes = append(pipes, pc)
		}
		alive := 0
		for _, p := range pipes {
			if !p.ended() {
				alive++
			}
		}
		if alive != maxIdentityLinks {
			t.Fatalf("%d associations, want %d", alive, maxIdentityLinks)
		}
		if _, p := join(b, "modest"); p.ended() {
			t.Fatal("another identity was refused")
		}
		time.Sleep(time.Minute)
		if _, p := join(b, "greedy"); p.ended() {
			t.Fatal("refused although the others have gone")
		}
		if n := len(b.node.accounts); n != 2 {
			t.Errorf("%d accounts, want those of the two peers that are there", n)
		}
	})
}

func TestAssociationsOfAnInstanceAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, c := newSide(t, "edge", Config{}), newSide(t, "laptop-1", Config{})
		b.run()
		var pipes []*pipe
		for range maxInstanceLinks + 2 {
			pc, _ := connect(c, b, c.node.AddPeer(PeerConfig{Name: "edge"}))
			synctest.Wait()
			pipes = append(pipes, pc)
		}
		for i, p := range pipes {
			if want := i < 2; p.ended() != want {
				t.Errorf("association %d ended: %v, want %v", i, p.ended(), want)
			}
		}
	})
}

func TestManyRestartsMakeRoomForTheLast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newSide(t, "edge", Config{SessionGrace: time.Hour})
		b.run()
		var first uint64
		for i := range maxInstances + 10 {
			_, p := join(b, "crashing")
			if p.ended() {
				t.Fatalf("run %d was refused", i)
			}
			syns(p, 7, 1)
			id := b.take()[0].id
			if i == 0 {
				first = id
			}
			time.Sleep(time.Second)
			p.Close(errors.New("crash"))
		}
		if err := b.abortedWith(first); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("flow of the oldest run: %v", err)
		}
		if n := len(b.node.Peers()); n > maxInstances {
			t.Errorf("%d instances", n)
		}
	})
}

// lines counts what is logged at info or above.
type lines struct {
	slog.Handler
	mu sync.Mutex
	n  int
}

func (*lines) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (h *lines) Handle(context.Context, slog.Record) error {
	h.mu.Lock()
	h.n++
	h.mu.Unlock()
	return nil
}
func (h *lines) count() int { h.mu.Lock(); defer h.mu.Unlock(); return h.n }

func TestAPeerCannotFloodTheLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log lines
		b := newSide(t, "edge", Config{Logger: slog.New(&log)})
		b.run()
		_, p := join(b, "chatty")
		before := log.count()
		for range 100 {
			p.link.Load().control(&control{typ: ctlDrain, seconds: 9})
			p.link.Load().control(&control{typ: 77})
			p.raw([]byte{1, 2, 3})
		}
		synctest.Wait()
		if n := log.count() - before; n > 1 {
			t.Errorf("%d lines for messages within an association", n)
		}
		c := newSide(t, "future", Config{})
		pc, pb := connect(c, b, nil)
		before = log.count()
		var h []byte
		pc.set(func(pc *pipe) { pc.drop = func(rec []byte) bool { h = rec; return true } })
		pc.link.Load().control(&control{typ: ctlHello, hello: hello{low: 2, high: 9, instance: InstanceID{1}}})
		run := make([][]byte, 50)
		for i := range run {
			run[i] = h
		}
		rx := b.node.NewReceiver(b)
		rx.Receive(pb.link.Load(), run)
		rx.Receive(pb.link.Load(), run)
		if n := log.count() - before; n != 1 {
			t.Errorf("%d lines for a hello that was repeated", n)
		}
		if !pc.ended() {
			t.Error("a peer of another version was kept")
		}
		b.wantDrop(DropEnded, 50)
	})
}
