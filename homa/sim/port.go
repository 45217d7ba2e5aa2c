package sim

import "math/bits"

// portFree lets a port go on when its link has become free.
func (n *network) portFree(number int32) {
	o := &n.ports[number]
	o.woken = false
	if int(number) < len(n.stations) {
		n.pull(int(number))
		return
	}
	if o.waiting == 0 {
		return
	}
	level := bits.Len8(o.waiting) - 1
	q := &o.queues[level]
	id := q.first
	p := &n.packets[id]
	q.first = p.next
	if q.first < 0 {
		q.last = -1
		o.waiting &^= 1 << level
	}
	o.queued -= p.wire()
	n.transmit(o, id)
	if o.waiting != 0 {
		o.woken = true
		n.calendar.push(o.free, portFree, uint32(number))
	}
}

// pull asks a host for the next packet, unless its link is busy: then it asks
// when the link is free. Nothing ever waits between a host and its link, so the
// host's choice is the latest possible one.
func (n *network) pull(host int) {
	o := &n.ports[host]
	if o.woken {
		return
	}
	if n.now < o.free {
		o.woken = true
		n.calendar.push(o.free, portFree, uint32(host))
		return
	}
	id := n.take()
	p := &n.packets[id]
	if !n.stations[host].send(n.now, p) {
		n.unused = append(n.unused, id)
		return
	}
	p.src, p.port = int32(host), int32(host)
	n.sent++
	n.transmit(o, id)
	o.woken = true
	n.calendar.push(o.free, portFree, uint32(host))
}

// take gives a packet to fill in. It may move the others: no pointer to a
// packet is kept across a call.
func (n *network) take() int32 {
	if k := len(n.unused) - 1; k >= 0 {
		id := n.unused[k]
		n.unused = n.unused[:k]
		return id
	}
	n.packets = append(n.packets, packet{})
	return int32(len(n.packets) - 1)
}

// inFlight is the number of packets in the fabric.
func (n *network) inFlight() int { return len(n.packets) - len(n.unused) }
