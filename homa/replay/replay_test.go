package replay

import (
	"testing"

	captures "github.com/tougw/tougw/test/vectors/homa"
)

func TestReplay(t *testing.T) {
	all, err := captures.All()
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]int{}
	ran := 0
	for i := range all {
		for _, r := range []role{client, server} {
			t.Run(all[i].File+"/"+string(r), func(t *testing.T) {
				ran++
				replay(t, newScene(t, &all[i], r), used)
			})
		}
	}
	if ran < 2*len(all) {
		return // only some were asked for
	}
	for _, list := range [][]exception{exceptions, notReplayed} {
		for _, e := range list {
			if used[e.name] == 0 {
				t.Errorf("exception %q is not needed any more", e.name)
			}
			if testing.Verbose() {
				t.Logf("%5d %s: %s", used[e.name], e.name, e.reason)
			}
		}
	}
}

// replay plays a scene and reports differences that no exception covers.
func replay(t *testing.T, s *scene, used map[string]int) {
	for _, e := range notReplayed {
		if e.applies(s, nil) {
			used[e.name]++
			return
		}
	}
	p := newPlayer(t, s)
	p.play()
	p.compare()
differences:
	for i := range p.diffs {
		for _, e := range exceptions {
			if e.applies(s, &p.diffs[i]) {
				used[e.name]++
				continue differences
			}
		}
		t.Error(p.diffs[i].detail)
	}
}

// TestLivelock: the recorded hosts repeat themselves for ever; with the engine on
// either side they would not.
func TestLivelock(t *testing.T) {
	all, err := captures.All()
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if all[i].File != "v6138_trap_overlap_livelock_v6.pcap" {
			continue
		}
		for _, r := range []role{client, server} {
			t.Run(string(r), func(t *testing.T) {
				s := newScene(t, &all[i], r)
				p := newPlayer(t, s)
				p.play()
				if r == server {
					// It keeps the four bytes that the first repetition adds.
					p.wantWhole(s.calls[0])
				} else {
					p.wantExact()
				}
			})
		}
	}
}
