package tunnel

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
)

// records counts what a pipe was given to send.
func (p *pipe) records() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sizes)
}

// TestCork has small segments wait for the end of the turn, and large ones not.
func TestCork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, _ := p.open()
		before := p.pa.records()
		p.a.node.Cork()
		p.a.node.Cork() // of another goroutine
		for range 3 {
			p.a.send(ida, tcpACK, "x")
		}
		if n := p.pa.records() - before; n != 0 {
			t.Errorf("%d records left under a cork", n)
		}
		p.a.node.Uncork()
		if n := p.pa.records() - before; n != 3 {
			t.Errorf("%d records after the end of a turn, want 3", n)
		}
		p.a.send(ida, tcpACK, "x")
		p.a.send(ida, tcpACK, string(make([]byte, 3*smallSegment)))
		if n := p.pa.records() - before; n < 3+1+5 {
			t.Errorf("%d records: a large segment waits, or what came before it", n)
		}
		n := p.pa.records()
		p.a.node.Uncork()
		p.a.send(ida, tcpACK, "x")
		if got := p.pa.records(); got != n+1 {
			t.Errorf("%d records for a segment without a cork", got-n)
		}
	})
}

// TestCorkLosesNothing has turns begin and end around segments of all sizes, from
// several goroutines.
func TestCorkLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, Config{})
		ida, _ := p.open()
		p.b.take()
		const workers, each = 8, 200
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(1, uint64(w)))
				for range each {
					cork := rnd.IntN(3) > 0
					if cork {
						p.a.node.Cork()
					}
					p.a.node.Output(newSegment(ida, tcpACK, make([]byte, rnd.IntN(1200))))
					if cork {
						p.a.node.Uncork()
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if n := len(p.b.take()); n != workers*each {
			t.Errorf("%d segments arrived of %d", n, workers*each)
		}
	})
}
