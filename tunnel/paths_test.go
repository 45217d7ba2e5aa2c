package tunnel

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var otherPath = Path{Remote: netip.MustParseAddrPort("192.0.2.99:5000"), Local: addrB}

func (p *pipe) probes() (via, validated []Path) {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.via, p.validated
}

func (p *pipe) arriveBy(path Path) {
	p.mu.Lock()
	p.from = path
	p.mu.Unlock()
}

func TestNewPathIsBelievedOnceItAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		p.pb.arriveBy(otherPath)
		p.pb.link.Load().Candidate(otherPath)
		via, validated := p.pb.probes()
		if len(via) != 1 || via[0] != otherPath || len(validated) != 1 || validated[0] != otherPath {
			t.Fatalf("probed %v, validated %v", via, validated)
		}
		if n := p.b.node.Stats().PathMoves; n != 1 {
			t.Errorf("%d moves counted", n)
		}
		time.Sleep(10 * tick)
		if via, _ := p.pb.probes(); len(via) != 1 {
			t.Errorf("a validated path was probed again: %v", via)
		}
	})
}

func TestAnswerByAnotherPathProvesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		p.pb.link.Load().Candidate(otherPath) // the peer answers from where it always was
		_, validated := p.pb.probes()
		if len(validated) != 0 {
			t.Fatalf("validated %v", validated)
		}
		p.b.wantDrop(DropPathReply, 1)
		time.Sleep(20 * tick)
		via, validated := p.pb.probes()
		if len(validated) != 0 || len(via) != maxProbes {
			t.Errorf("validated %v after %d probes, want none after %d", validated, len(via), maxProbes)
		}
	})
}

func TestForgedTokenProvesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		p.pa.mu.Lock()
		p.pa.dead = true // the answer never comes
		p.pa.mu.Unlock()
		p.pb.arriveBy(otherPath)
		p.pb.link.Load().Candidate(otherPath)
		synctest.Wait()
		p.pa.mu.Lock()
		p.pa.dead = false
		p.pa.mu.Unlock()
		p.pa.link.Load().control(&control{typ: ctlPathReply, token: 12345})
		if _, validated := p.pb.probes(); len(validated) != 0 {
			t.Fatalf("validated %v by a guess", validated)
		}
	})
}

func TestCandidatesAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, Config{})
		l := p.pb.link.Load()
		for i := range 50 {
			l.Candidate(Path{Remote: netip.AddrPortFrom(otherPath.Remote.Addr(), uint16(1000+i)), Local: addrB})
			l.Candidate(Path{Remote: netip.AddrPortFrom(otherPath.Remote.Addr(), uint16(1000+i)), Local: addrB})
		}
		synctest.Wait()
		l.pathMu.Lock()
		n := len(l.candidates)
		l.pathMu.Unlock()
		if n != maxCandidates {
			t.Errorf("%d candidates", n)
		}
		if via, _ := p.pb.probes(); len(via) != 50 {
			t.Errorf("%d probes for 50 paths", len(via))
		}
	})
}

func TestRekeyByAgeAndByUse(t *testing.T) {
	share := func(s Secure) (uint64, float64) {
		p := s.(*pipe)
		p.mu.Lock()
		defer p.mu.Unlock()
		return uint64(p.usage * 1000), p.usage
	}
	for _, c := range []struct {
		name  string
		cfg   Config
		usage float64
		after time.Duration
		want  int32
	}{
		{"age", Config{RekeyAfter: time.Minute}, 0, 61 * time.Second, 2},
		{"not yet", Config{RekeyAfter: time.Minute}, 0, 58 * time.Second, 1},
		{"bytes", Config{RekeyBytes: 100}, 0.11, 2 * time.Second, 2},
		{"keys", Config{}, 0.51, 2 * time.Second, 2},
		{"unused keys", Config{}, 0.49, 2 * time.Second, 1},
	} {
		bubble(t, func(t *testing.T) {
			c.cfg.Usage = share
			p := newPair(t, c.cfg)
			ida, idb := p.open()
			first := p.pa
			first.mu.Lock()
			first.usage = c.usage
			first.mu.Unlock()
			time.Sleep(c.after)
			synctest.Wait()
			if n := p.dials.Load(); n != c.want {
				t.Fatalf("%s: %d associations, want %d", c.name, n, c.want)
			}
			// Nothing is lost on the way over, also what the old one still brings.
			p.a.send(ida, tcpACK, "after")
			p.b.wantInjected(idb)
			first.raw(encap(0, idb, nil, tcpACK))
			p.b.wantInjected(idb)
		})
	}
}
