package tunnel

import (
	"sync"
	"sync/atomic"
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
	// The turn may have ended since its cork was looked at.
	if c.n.Load() == 0 {
		n.sendCorked()
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
		// If somebody else sends, that goes on until the queue is empty.
		if *batch = l.drain(*batch); l.queue.depth() > 0 {
			l.queue.signal()
		}
		links[i] = nil
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
