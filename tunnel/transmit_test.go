package tunnel

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestShortRunsAreSentTogether: in order, and without tearing a large segment.
func TestShortRunsAreSentTogether(t *testing.T) {
	_, l := benchLink()
	sec := &recordingSecure{}
	l.secure = sec
	s := &session{id: 1, inst: &instance{}}
	s.remote.Store(2)
	l.queue.busy = true
	total := 0
	put := func(size int) {
		total += size
		if l.queue.put(outbound{newSegment(1, tcpACK, make([]byte, size-testHeader)), s}, false) != queued {
			t.Fatal("not queued")
		}
	}
	put(100)
	put(200) // larger: another run
	put(200)
	put(150) // closes it
	put(120)
	put(50_000) // 38 records
	put(60_000) // has no place beside them
	for i := range maxRuns + 1 {
		put(1000 + i)
	}
	l.queue.busy = false
	l.drain(nil)
	const over = 22 + 12 + 24
	full := 1400 - outerIPv4
	want := [][]Run{
		{{100 + over, 100 + over}, {200 + 200 + 150 + 3*over, 200 + over}, {120 + over, 120 + over}, {0, full}},
		{{0, full}},
	}
	for i, w := range want {
		if len(sec.sends[i]) < len(w) {
			t.Fatalf("send %d has %d runs: %v", i, len(sec.sends[i]), sec.sends[i])
		}
		for j, r := range w {
			if got := sec.sends[i][j]; got.Size != r.Size || r.Len != 0 && got != r {
				t.Errorf("send %d, run %d: %v, want %v", i, j, got, r)
			}
		}
	}
	sent := 0
	for i, runs := range sec.sends {
		if len(runs) > maxRuns {
			t.Errorf("send %d has %d runs", i, len(runs))
		}
		n := 0
		for _, r := range runs {
			if records := (r.Len + r.Size - 1) / r.Size; records > maxRun || r.Len == 0 {
				t.Errorf("send %d has a run of %d records", i, records)
			} else {
				sent += r.Len - records*over
			}
			n += r.Len
		}
		if n > maxRunBytes {
			t.Errorf("send %d has %d bytes", i, n)
		}
	}
	if sent < total {
		t.Errorf("%d of %d bytes were sent", sent, total)
	}
}

// recordingSecure remembers what it was given to send.
type recordingSecure struct {
	nullSecure
	sends [][]Run
}

func (s *recordingSecure) SendRuns(b []byte, runs []Run) int {
	n := 0
	for _, r := range runs {
		n += r.Len
	}
	if n != len(b) {
		panic("runs do not cover what is sent")
	}
	s.sends = append(s.sends, append([]Run(nil), runs...))
	return 0
}

// slowSocket is what links share that are served by one socket: one of those
// that wait may send at a time, in the order of their coming.
type slowSocket struct {
	turn chan struct{}
	rate int // bytes a second
}

// slowSecure is an association that sends by such a socket.
type slowSecure struct {
	nullSecure
	sock *slowSocket
	sent atomic.Int64
}

func (s *slowSecure) SendRuns(b []byte, _ []Run) int {
	s.sock.turn <- struct{}{}
	time.Sleep(time.Duration(len(b)) * time.Second / time.Duration(s.sock.rate))
	s.sent.Add(int64(len(b)))
	<-s.sock.turn
	return 0
}

// windowed is a segment of a flow that always has the same number of them under
// way: the next comes when one was sent.
type windowed struct {
	*segment
	node *Node
	size func() int
	stop *atomic.Bool
}

func (w windowed) Release() {
	if !w.stop.Load() {
		w.segment = newSegment(w.id, tcpACK, make([]byte, w.size()-testHeader))
		w.node.Output(w)
	}
}

// TestPeersShareAlike: what a peer gets of a socket does not depend on how many
// flows it has, nor on the size of their segments.
func TestPeersShareAlike(t *testing.T) {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(3, 4))
	upTo := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return 60 + r.IntN(n)
	}
	for _, c := range []struct {
		name string
		size func() int
	}{
		{"large segments", func() int { return 60000 }},
		{"segments of all sizes", func() int { return upTo(30000) }},
		{"small segments", func() int { return upTo(1400) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newSide(t, "edge", Config{})
				b.run()
				sock := &slowSocket{turn: make(chan struct{}, 1), rate: 10e6}
				var stop atomic.Bool
				start := func(name string, flows int, size func() int) *slowSecure {
					sec := &slowSecure{sock: sock}
					id := Identity{Key: "certificate:" + name, Names: []string{name}}
					l := b.node.Attach(sec, id, nil)
					b.node.hello(l, hello{low: 1, high: 1, instance: InstanceID{byte(len(name))}})
					for range flows {
						own, err := b.node.Open(context.Background(), name, flowSrc, flowDst)
						if err != nil {
							t.Fatal(err)
						}
						b.node.session(own).remote.Store(own)
						for range 2 { // all of them fit the queue
							go windowed{newSegment(own, tcpACK, nil), b.node, size, &stop}.Release()
						}
					}
					return sec
				}
				many := start("greedy", 100, c.size)
				one := start("modest", 1, func() int { return 60000 })
				time.Sleep(5 * time.Second)
				stop.Store(true)
				synctest.Wait()
				got, all := one.sent.Load(), one.sent.Load()+many.sent.Load()
				if share := float64(got) / float64(all); share < 0.4 || share > 0.6 {
					t.Errorf("the peer with one flow got %.0f%% of what was sent (%d of %d bytes)", 100*share, got, all)
				}
			})
		})
	}
}
