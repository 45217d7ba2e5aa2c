package homa

// memory is a bound on the bytes of one direction, in all and per peer. Messages
// reserve their share before they hold anything; those that find no room wait,
// the shortest first: in their peer's heap while it is the peer's bound that
// stops them, else in the common one. Nobody holds a part of a share, so
// waiting messages never block each other.
type memory struct {
	limit, peerLimit int64
	reserved         int64
	held             int64 // bytes of chunks
	waiting          heap[*RPC]
	numWaiting       int
	admitted         func(*RPC) // called for each RPC that had to wait
}

// peerMemory is a peer's part of a memory.
type peerMemory struct {
	reserved int64
	waiting  heap[*RPC]
}

// reservation is a message's part.
type reservation struct {
	bytes    int64 // 0: nothing to reserve
	admitted bool
}

func (m *memory) fits(p *peerMemory, bytes int64) bool {
	return m.reserved+bytes <= m.limit && p.reserved+bytes <= m.peerLimit
}

// reserve admits r's message with its share, or lets it wait. A message that is
// not shorter than the first that waits does not overtake it.
func (m *memory) reserve(r *RPC, p *peerMemory, v *reservation, tie uint64) bool {
	first := func(h *heap[*RPC]) bool { return h.len() == 0 || v.bytes < h.items[0].key }
	if m.fits(p, v.bytes) && first(&m.waiting) && first(&p.waiting) {
		m.take(p, v)
		return true
	}
	m.enqueue(r, p, v, tie)
	return false
}

func (m *memory) take(p *peerMemory, v *reservation) {
	m.reserved += v.bytes
	p.reserved += v.bytes
	v.admitted = true
}

func (m *memory) enqueue(r *RPC, p *peerMemory, v *reservation, tie uint64) {
	m.numWaiting++
	if p.reserved+v.bytes > m.peerLimit {
		p.waiting.set(r, v.bytes, tie)
	} else {
		m.waiting.set(r, v.bytes, tie)
	}
}

// cancel ends the wait or returns the share of r's message.
func (m *memory) cancel(r *RPC, p *peerMemory, v *reservation) {
	switch {
	case v.admitted:
		m.reserved -= v.bytes
		p.reserved -= v.bytes
		*v = reservation{}
		m.wake(p)
	case *r.position(m.waiting.id) != 0:
		// The position tells the index, not the heap; the element at it does.
		if at := int(*r.position(m.waiting.id)) - 1; at < m.waiting.len() && m.waiting.items[at].elem == r {
			m.waiting.remove(r)
		} else {
			p.waiting.remove(r)
		}
		m.numWaiting--
		*v = reservation{}
		m.wake(p)
	}
}

// shrink returns what a message holds beyond bytes of its share.
func (m *memory) shrink(p *peerMemory, v *reservation, bytes int64) {
	if !v.admitted || bytes >= v.bytes {
		return
	}
	m.reserved -= v.bytes - bytes
	p.reserved -= v.bytes - bytes
	v.bytes = bytes
	m.wake(p)
}

// wake admits what fits now, after memory of the peer was returned.
func (m *memory) wake(p *peerMemory) {
	if m.numWaiting == 0 {
		return
	}
	// What the peer's bound stopped competes with all others from now on.
	for p.waiting.len() > 0 {
		item := p.waiting.items[0]
		if p.reserved+item.key > m.peerLimit {
			break
		}
		p.waiting.remove(item.elem)
		if m.reserved+item.key > m.limit {
			m.waiting.set(item.elem, item.key, item.tie)
			break
		}
		m.admit(item.elem, p)
	}
	for m.waiting.len() > 0 {
		item := m.waiting.items[0]
		if m.reserved+item.key > m.limit {
			break
		}
		m.waiting.remove(item.elem)
		q, _ := item.elem.memoryPart(m.waiting.id)
		if q.reserved+item.key > m.peerLimit {
			q.waiting.set(item.elem, item.key, item.tie)
			continue
		}
		m.admit(item.elem, q)
	}
}

func (m *memory) admit(r *RPC, p *peerMemory) {
	_, v := r.memoryPart(m.waiting.id)
	m.numWaiting--
	m.take(p, v)
	m.admitted(r)
}
