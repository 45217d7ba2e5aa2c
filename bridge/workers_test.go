package bridge

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/tougw/tougw/internal/packet"
)

// TestTurnRunsPumps has the goroutine that brings an event do what it wakes.
func TestTurnRunsPumps(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.b.Begin()
		s.a.says("one")
		synctest.Wait()
		s.o.wantGot("")
		s.b.Step()
		s.o.wantGot("one") // no other goroutine had a chance
		s.o.says("two")
		s.b.End()
		s.a.wantGot("two")

		// A second pump does not wait for the first one's turn.
		s.b.Begin()
		s.a.says("three")
		s.o.says("four")
		synctest.Wait()
		s.o.wantGot("onethree")
		s.a.wantGot("twofour")
		s.b.End()

		// More than one turn is left to the workers.
		big := strings.Repeat("x", yieldAfter+packet.Size)
		s.b.Begin()
		s.a.says(big)
		s.b.Step()
		synctest.Wait()
		s.o.wantGot("onethree" + big)
		s.b.End()

		s.a.sendsFIN()
		s.o.sendsFIN()
		s.wantEnd(Finished)
	})
}

// TestTurnsLoseNothing brings events from several goroutines, within turns and
// outside of them.
func TestTurnsLoseNothing(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		var wg sync.WaitGroup
		for w, end := range []*fake{s.a, s.o, s.a, s.o} {
			wg.Go(func() {
				for i := range 300 {
					if (i+w)%3 > 0 {
						s.b.Begin()
					}
					end.says(fmt.Sprint(w))
					if (i+w)%3 > 1 {
						s.b.Step()
					}
					if (i+w)%3 > 0 {
						s.b.End()
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		for i, end := range []*fake{s.o, s.a} {
			if got := end.got(); strings.Count(got, fmt.Sprint(i)) != 300 || strings.Count(got, fmt.Sprint(i+2)) != 300 {
				t.Errorf("%s got %d bytes of 600", end.name, len(got))
			}
		}
		s.a.sendsFIN()
		s.o.sendsFIN()
		s.wantEnd(Finished)
	})
}
