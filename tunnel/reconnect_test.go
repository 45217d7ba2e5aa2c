package tunnel

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// On a real clock an answer is sent a moment after its question came, which
// must not look as if it were a question itself.
func TestAnswersAskForNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		// Not the same, so that questions do not cross.
		a, b := newSide(t, "laptop-1", Config{}), newSide(t, "edge", Config{Keepalive: 20 * time.Second})
		var dials []*pipe
		dialling(a, b, "edge", &dials)
		a.run()
		b.run()
		synctest.Wait()
		for _, e := range []*pipe{dials[0], dials[0].to} {
			e.set(func(e *pipe) { e.slow = time.Millisecond })
		}
		sent := a.node.Stats().ControlOut
		time.Sleep(10 * time.Minute)
		if n := a.node.Stats().ControlOut - sent; n < 30 || n > 90 {
			t.Errorf("%d control messages in ten idle minutes, want about 40", n)
		}
	})
}

// calls is a list of what was called.
type calls struct {
	mu  sync.Mutex
	all []string
}

func (c *calls) add(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, s)
}

func (c *calls) list() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

// dialling adds a peer to a that dials b, and counts.
func dialling(a, b *side, name string, dials *[]*pipe) *Peer {
	return a.node.AddPeer(PeerConfig{Name: name, Endpoints: []string{"x"}, Dial: func(_ context.Context, p *Peer, _ string) (*Link, error) {
		pa, _ := connect(a, b, p)
		*dials = append(*dials, pa)
		return pa.link.Load(), nil
	}})
}

func TestTwoGatewaysThatDialOneAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSide(t, "west", Config{}), newSide(t, "east", Config{})
		var fromA, fromB []*pipe
		dialling(a, b, "east", &fromA)
		dialling(b, a, "west", &fromB)
		a.run()
		b.run()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(fromA) != 1 || len(fromB) != 1 {
			t.Fatalf("%d and %d associations were dialled, want one each", len(fromA), len(fromB))
		}
		p := &pair{a: a, b: b}
		ida, err := a.node.Open(t.Context(), "east", flowSrc, flowDst)
		if err != nil {
			t.Fatal(err)
		}
		a.send(ida, tcpSYN, "")
		idb := b.take()[0].id
		p.b.send(idb, tcpSYN|tcpACK, "")
		a.wantInjected(ida)
		// The other association takes over at once when one ends, whichever.
		fromA[0].Close(errors.New("cable"))
		a.send(ida, tcpACK, "still here")
		b.wantInjected(idb)
		time.Sleep(time.Minute)
		synctest.Wait()
		fromB[0].Close(errors.New("cable"))
		a.send(ida, tcpACK, "still here")
		b.wantInjected(idb)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(fromA) != 2 || len(fromB) != 2 {
			t.Errorf("%d and %d associations were dialled, want two each", len(fromA), len(fromB))
		}
	})
}

func TestOneGatewayUnderTwoNames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSide(t, "laptop-1", Config{}), newSide(t, "edge", Config{})
		var first, second []*pipe
		dialling(a, b, "edge-v4", &first)
		dialling(a, b, "edge-v6", &second)
		a.run()
		b.run()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(first) != 1 || len(second) != 1 {
			t.Fatalf("%d and %d associations were dialled, want one each", len(first), len(second))
		}
		for _, name := range []string{"edge-v4", "edge-v6"} {
			id, err := a.node.Open(t.Context(), name, flowSrc, flowDst)
			if err != nil {
				t.Fatal(err)
			}
			a.send(id, tcpSYN, "")
			if n := len(b.take()); n != 1 {
				t.Errorf("%d SYNs by way of %s", n, name)
			}
		}
	})
}

// While the association with the old run of a dialled peer has not ended, that
// run can neither reach its old sessions nor leave new ones behind.
func TestOldInstanceOfADialledPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSide(t, "laptop-1", Config{}), newSide(t, "edge", Config{})
		peer := a.node.AddPeer(PeerConfig{Name: "edge", Endpoints: []string{"x"}, Dial: func(ctx context.Context, _ *Peer, _ string) (*Link, error) {
			<-ctx.Done() // the test dials
			return nil, ctx.Err()
		}})
		_, pb := connect(a, b, peer)
		synctest.Wait()
		id, err := a.node.Open(t.Context(), "edge", flowSrc, flowDst)
		if err != nil {
			t.Fatal(err)
		}
		fresh := newSide(t, "edge", Config{})
		connect(a, fresh, peer)
		synctest.Wait()
		if err := a.abortedWith(id); err == nil {
			t.Fatal("the flow of the old run was kept")
		}
		pb.raw(encap(9, 0, addrsV4(), tcpSYN))
		a.wantInjected()
		a.wantDrop(DropEnded, 1)
		if n := a.node.SessionCount(); n != 0 {
			t.Fatalf("%d sessions", n)
		}
		a.run()
		time.Sleep(replaceGrace + 2*tick)
		if !pb.ended() {
			t.Error("the association with the old run was kept")
		}
	})
}

func TestExhaustedAssociationIsReplacedAtOnce(t *testing.T) {
	for _, side := range []string{"dialled", "accepted"} {
		bubble(t, func(t *testing.T) {
			p := newPair(t, Config{})
			ida, idb := p.open()
			if side == "dialled" {
				p.pa.set(func(e *pipe) { e.sealErr = errors.New("key exhausted") })
				p.a.send(ida, tcpACK, "too much")
			} else {
				p.pb.set(func(e *pipe) { e.sealErr = errors.New("key exhausted") })
				p.b.send(idb, tcpACK, "too much")
			}
			time.Sleep(2 * backoffFirst)
			p.a.send(ida, tcpACK, "onwards")
			p.b.wantInjected(idb)
			p.b.send(idb, tcpACK, "and back")
			p.a.wantInjected(ida)
			if n := p.dials.Load(); n != 2 {
				t.Errorf("%s: %d associations, want 2", side, n)
			}
		})
	}
}

func TestWhatIsQueuedLeavesBeforeTheEnd(t *testing.T) {
	for range 10 { // chance decides what the transmitter sees first
		bubble(t, func(t *testing.T) {
			p := newPair(t, Config{})
			ida, idb := p.open()
			p.pa.set(func(e *pipe) { e.slow = time.Millisecond })
			const n = 50
			for range n { // as many flows that are reset when this side stops
				p.a.node.Output(newSegment(ida, tcpRST, nil))
				synctest.Wait() // the first is being sent meanwhile
			}
			p.a.stop()
			if got := p.b.take(); len(got) != n || got[0].id != idb {
				t.Fatalf("%d of %d segments left before the end", len(got), n)
			}
			if !p.pa.ended() {
				t.Error("the association was kept")
			}
		})
	}
}

func TestRecoveredAssociationNeedsNoRival(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSide(t, "laptop-1", Config{}), newSide(t, "edge", Config{})
		var pa *pipe
		var dials atomic.Int32
		a.node.AddPeer(PeerConfig{Name: "edge", Endpoints: []string{"x"}, Dial: func(ctx context.Context, p *Peer, _ string) (*Link, error) {
			if dials.Add(1) > 1 {
				time.Sleep(4 * time.Second)
				return nil, errors.New("no answer")
			}
			pa, _ = connect(a, b, p)
			return pa.link.Load(), nil
		}})
		a.run()
		b.run()
		synctest.Wait()
		pa.set(func(e *pipe) { e.dead = true })
		for dials.Load() == 1 {
			time.Sleep(tick)
		}
		time.Sleep(2 * time.Second) // the next token waits already
		pa.set(func(e *pipe) { e.dead = false })
		time.Sleep(5 * time.Minute)
		if dials := dials.Load(); dials != 2 || pa.ended() {
			t.Errorf("%d dials for an association that recovered (ended: %v)", dials, pa.link.Load().Err())
		}
	})
}

func TestDialledPeerThatHangsUpIsLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSide(t, "laptop-1", Config{}), newSide(t, "edge", Config{})
		var dials atomic.Int32
		a.node.AddPeer(PeerConfig{Name: "edge", Endpoints: []string{"x"}, Dial: func(_ context.Context, p *Peer, _ string) (*Link, error) {
			dials.Add(1)
			pa, _ := connect(a, b, p)
			time.AfterFunc(10*time.Millisecond, func() { pa.Close(errors.New("go away")) })
			return pa.link.Load(), nil
		}})
		a.run()
		b.run()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := dials.Load(); n > 20 {
			t.Errorf("%d associations in two minutes with a peer that ends each", n)
		}
		if s := a.node.Peers()[0].State; s == "up" {
			t.Errorf("the peer is %s", s)
		}
	})
}

func TestNextEndpointAfterADeadOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSide(t, "laptop-1", Config{}), newSide(t, "edge", Config{})
		var pa *pipe
		var tried calls
		var dead atomic.Bool
		a.node.AddPeer(PeerConfig{Name: "edge", Endpoints: []string{"x", "y"}, Dial: func(ctx context.Context, p *Peer, endpoint string) (*Link, error) {
			tried.add(endpoint)
			if dead.Load() && endpoint == "x" {
				time.Sleep(5 * time.Second)
				return nil, errors.New("no answer")
			}
			pa, _ = connect(a, b, p)
			return pa.link.Load(), nil
		}})
		a.run()
		b.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		dead.Store(true)
		pa.set(func(e *pipe) { e.dead = true })
		for start := time.Now(); !slices.Contains(tried.list(), "y"); {
			time.Sleep(tick)
			synctest.Wait()
			if time.Since(start) > time.Minute {
				t.Fatalf("tried %v in a minute", tried.list())
			}
		}
		if got := strings.Join(tried.list(), ""); got != "xxxy" {
			t.Errorf("tried %s", got)
		}
	})
}

func TestPathThatIsDeadOneWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, idb := p.open()
		p.pa.set(func(e *pipe) { e.dead = true })
		start := time.Now()
		for p.dials.Load() == 1 { // both stacks repeat what is not acknowledged
			p.b.node.Output(newSegment(idb, tcpACK, []byte("y")))
			time.Sleep(100 * time.Millisecond)
			p.a.node.Output(newSegment(ida, tcpACK, []byte("x")))
			time.Sleep(1900 * time.Millisecond)
			if d := time.Since(start); d > 8*time.Second {
				t.Fatalf("no second association within %v", d)
			}
		}
	})
}
