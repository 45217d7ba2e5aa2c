package tunnel

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// mostInline is how many bytes may wait that are sent by whoever ends a turn.
	mostInline = 16 << 10
	// longSend is after how long he leaves other links to their goroutines.
	longSend = time.Millisecond
)

// corks are the turns that are under way: while there are any, small segments
// wait for others, and leave together with them when a turn ends.
type corks struct {
	n atomic.Int32

	mu    sync.Mutex
	links []*Link // whose queues nobody was told to drain
	spare []*Link
}

// Cork begins a turn of the calling goroutine, which brings a batch of whatever
// has small segments sent. Until Uncork they are not sent one by one. Several
// goroutines may have their turn at a time; each must end it soon.
func (n *Node) Cork() { n.corks.n.Add(1) }

// Uncork ends the turn and sends what waits, at once and in this goroutine.
func (n *Node) Uncork() {
	n.corks.n.Add(-1)
	n.sendCorked()
}

// cork notes a link whose queue has begun to fill under a cork.
func (n *Node) cork(l *Link) {
	c := &n.corks
	c.mu.Lock()
	c.links = append(c.links, l)
	c.mu.Unlock()
	// The turn may have ended since its cork was looked at. The caller may hold
	// locks, so the link's goroutine has to send.
	if c.n.Load() == 0 {
		l.queue.signal()
	}
}

// sendCorked drains the queues that have begun to fill under a cork.
func (n *Node) sendCorked() {
	c := &n.corks
	c.mu.Lock()
	links := c.links
	c.links, c.spare = c.spare[:0], nil
	c.mu.Unlock()
	if len(links) == 0 {
		c.keep(links)
		return
	}
	batch := outbounds.Get().(*[]outbound)
	for i, l := range links {
		links[i] = nil
		// Bulk has joined what waits: its sender is awake, and may have to wait
		// for a socket, which this goroutine should not.
		if l.queue.depth() > mostInline {
			l.queue.signal()
			continue
		}
		// If somebody else sends, that goes on until the queue is empty.
		start := n.now()
		if *batch = l.drain(*batch); l.queue.depth() > 0 {
			l.queue.signal()
		}
		if n.now()-start > int64(longSend) { // a full socket: the others need not wait for it
			for k, l := range links[i+1:] {
				l.queue.signal()
				links[i+1+k] = nil
			}
			break
		}
	}
	outbounds.Put(batch)
	c.keep(links)
}

// keep keeps the memory of a list for the next one.
func (c *corks) keep(links []*Link) {
	c.mu.Lock()
	c.spare = links[:0]
	c.mu.Unlock()
}

var outbounds = sync.Pool{New: func() any { return new([]outbound) }}
