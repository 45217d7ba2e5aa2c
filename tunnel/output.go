package tunnel

// Output takes a segment of the local stack and queues it for the peer of its
// session, or sends it at once if it is small and nothing else is under way. It
// waits for nobody, but for room in a full socket, as long as the association's
// Send does. What finds no place is dropped and counted, and left to the
// transport to repeat.
func (n *Node) Output(seg Segment) {
	c := &n.counters
	s := n.session(seg.Session())
	if s == nil {
		c.drops.count(DropNoSession)
		seg.Release()
		return
	}
	l := s.inst.link.Load()
	if l == nil {
		c.drops.count(DropNoAssociation)
		seg.Release()
		return
	}
	s.lastUse.Store(n.now())
	o := outbound{seg, s}
	switch l.queue.put(o, n.corks.n.Load() > 0) {
	case direct:
		l.sendNow(o)
	case corked:
		n.cork(l)
	case dropped:
		c.drops.count(DropQueueFull)
		seg.Release()
	}
}
