package tunnel

import (
	"fmt"
	"testing"
)

// benchLink is a link whose records go nowhere.
func benchLink() (*Node, *Link) {
	n := New(Config{Stack: &side{}})
	sec := &nullSecure{}
	l := &Link{node: n, secure: sec, queue: newQueue(16 << 20), done: make(chan struct{})}
	l.head, l.tail = sec.Overhead()
	l.setPathMTU(1400)
	return n, l
}

// BenchmarkQueue puts rounds of segments of several flows into a transmit queue
// and drains it: 64 KiB ones of bulk, and small ones of many flows.
func BenchmarkQueue(b *testing.B) {
	for _, c := range []struct{ flows, each, bytes int }{
		{1, 1, 64000}, {1, 16, 64000}, {16, 1, 64000}, {1, 64, 52}, {64, 1, 52}, {256, 4, 1300},
	} {
		b.Run(fmt.Sprintf("flows=%d/each=%d/bytes=%d", c.flows, c.each, c.bytes), func(b *testing.B) {
			_, l := benchLink()
			payload := make([]byte, c.bytes)
			var segs []*segment
			var sess []*session
			for i := range c.flows * c.each {
				if i%c.each == 0 {
					s := &session{id: uint64(i + 1), inst: &instance{}}
					s.remote.Store(2)
					sess = append(sess, s)
				}
				segs = append(segs, newSegment(1, tcpACK, nil))
			}
			var spare []outbound
			b.SetBytes(int64(len(segs) * c.bytes))
			b.ReportAllocs()
			for b.Loop() {
				l.queue.busy = true // nothing is sent by who brings it
				for i, s := range segs {
					s.left, s.first = payload, true
					if l.queue.put(outbound{s, sess[i/c.each]}, false) != queued {
						b.Fatal("not queued")
					}
				}
				l.queue.busy = false
				for l.queue.depth() > 0 {
					spare = l.drain(spare)
				}
				select {
				case <-l.queue.wake:
				default:
				}
			}
			if l.queue.depth() != 0 {
				b.Fatal("not drained")
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(segs)), "ns/segment")
		})
	}
}

// BenchmarkOutputSmall is a small segment that finds nothing under way.
func BenchmarkOutputSmall(b *testing.B) {
	n, l := benchLink()
	inst := &instance{}
	inst.link.Store(l)
	s := &session{id: 1, inst: inst}
	s.remote.Store(2)
	n.sessions[1] = s
	seg := newSegment(1, tcpACK, nil)
	payload := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		seg.left, seg.first = payload, true
		n.Output(seg)
	}
}
