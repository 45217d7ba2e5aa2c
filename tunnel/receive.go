package tunnel

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"github.com/tougw/tougw/gue"
)

// Receiver takes the records of associations to the stack. It belongs to one
// goroutine: that of one socket.
type Receiver struct {
	node *Node
	inj  Injector
	hdr  gue.Session
	last *session // the session of the record before: runs are of one session
	asks int      // echo requests in this run

	dgram Datagram
}

// NewReceiver makes a receiver that injects through inj.
func (n *Node) NewReceiver(inj Injector) *Receiver { return &Receiver{node: n, inj: inj} }

// Receive takes a run of opened records of one association, in their order of
// arrival. It borrows them.
func (r *Receiver) Receive(l *Link, records [][]byte) {
	if l.closing.Load() {
		r.node.counters.drops[DropEnded].Add(uint64(len(records)))
		return
	}
	now := r.node.now()
	var bytes int
	r.asks = 0
	for _, rec := range records {
		bytes += len(rec)
		r.record(l, rec, now)
	}
	l.received(now, bytes, r.asks == len(records))
}

// Flush ends a batch: what was staged goes into the stack.
func (r *Receiver) Flush() {
	r.inj.Flush()
	r.last = nil // a session is not kept alive by an idle receiver
}

func (r *Receiver) record(l *Link, rec []byte, now int64) {
	c := &r.node.counters
	n, d := r.hdr.Decode(rec)
	switch {
	case d == gue.DropControl:
		r.control(l, rec)
	case d != gue.DropNone:
		c.drops.count(DropMalformed)
	case r.hdr.Proto != gue.ProtoTCP:
		if !r.node.takes(r.hdr.Proto) {
			c.drops.count(DropProtocol)
			return
		}
		r.datagram(l, rec[n:])
	default:
		r.segment(l, rec[n:], now)
	}
}

// segment takes a transport segment to its session.
func (r *Receiver) segment(l *Link, seg []byte, now int64) {
	c := &r.node.counters
	inst := l.inst.Load()
	if inst == nil {
		c.drops.count(DropNoHello)
		return
	}
	if len(seg) < 20 {
		c.drops.count(DropShort)
		return
	}
	flags := seg[13]
	var s *session
	if r.hdr.Has&gue.FieldDestination != 0 {
		s = r.lookup(l, inst, flags)
	} else {
		s = r.syn(l, inst, seg)
	}
	if s == nil {
		return
	}
	s.lastUse.Store(now)
	c.segmentsIn.Add(1)
	c.bytesIn.Add(uint64(len(seg)))
	r.inj.Inject(s.id, seg)
}

// lookup finds the session of a segment that carries a destination id, and
// nothing unless the association's proven identity and instance are those
// whose session it is.
func (r *Receiver) lookup(l *Link, inst *instance, flags uint8) *session {
	c := &r.node.counters
	id := r.hdr.Destination
	s := r.last
	if s == nil || s.id != id {
		if s = r.node.session(id); s == nil {
			c.drops.count(DropUnknownSession)
			l.tellUnknown(inst, id, flags)
			return nil
		}
		r.last = s
	}
	if s.inst != inst {
		c.drops.count(DropForeignSession)
		return nil
	}
	remote := s.remote.Load()
	switch {
	case !s.initiator:
		// Only the initiator's own id may accompany ours: in its first segment
		// after the handshake, in both forms that the draft gives it. Its SYN
		// came without ours, and it sends no SYN-ACK.
		if r.hdr.Has&gue.FieldSource != 0 && r.hdr.Source != remote || flags&tcpSYN != 0 {
			c.drops.count(DropBadIDs)
			return nil
		}
	case r.hdr.Has&gue.FieldSource != 0:
		if flags&(tcpSYN|tcpACK) != tcpSYN|tcpACK || r.hdr.Source == 0 {
			c.drops.count(DropBadIDs)
			return nil
		}
		if remote == 0 && !r.node.answer(s, r.hdr.Source) {
			remote = s.remote.Load()
		}
		if remote != 0 && remote != r.hdr.Source {
			c.drops.count(DropBadIDs)
			return nil
		}
	case remote == 0 && flags&tcpRST == 0:
		// Before the SYN-ACK only a reset makes sense.
		c.drops.count(DropBadIDs)
		return nil
	}
	return s
}

// syn finds or makes the session of a segment without a destination id, which
// can only be the SYN of a session that the peer opens.
func (r *Receiver) syn(l *Link, inst *instance, seg []byte) *session {
	n := r.node
	c := &n.counters
	flags := seg[13]
	if r.hdr.Has&gue.FieldSource == 0 || r.hdr.Source == 0 || flags&(tcpSYN|tcpACK|tcpRST) != tcpSYN {
		c.drops.count(DropBadIDs)
		return nil
	}
	id := r.hdr.Source
	n.mu.RLock()
	s := n.bySource[sourceKey{inst, id}]
	n.mu.RUnlock()
	if s == nil {
		return r.admit(l, inst, id, seg)
	}
	switch s.getState() {
	case refused:
		n.tellRefused(s, refusal(s.reason.Load()))
		c.drops.count(DropClosedSession)
		return nil
	case closing:
		c.drops.count(DropClosedSession)
		return nil
	}
	return s
}

// admit makes the session of a new SYN, unless a limit stands against it:
// then the peer is told so, and nothing is kept.
func (r *Receiver) admit(l *Link, inst *instance, id uint64, seg []byte) *session {
	n := r.node
	src, dst, name, ok := r.addresses(seg)
	if !ok {
		n.counters.drops.count(DropNoAddresses)
		return nil
	}
	refuse := func(d Drop, why refusal) *session {
		n.counters.drops.count(d)
		l.control(&control{typ: ctlRefused, session: id, reason: why})
		return nil
	}
	n.mu.Lock()
	if s := n.bySource[sourceKey{inst, id}]; s != nil { // another receive goroutine was first
		n.mu.Unlock()
		return s
	}
	a := inst.account
	switch free := n.cfg.MaxSessions - n.live; {
	case n.closed || n.draining:
		n.mu.Unlock()
		return refuse(DropDraining, refusedDraining)
	case inst.gone:
		n.mu.Unlock()
		n.counters.drops.count(DropEnded)
		return nil
	case free <= 0 || a.held >= share*free:
		n.mu.Unlock()
		return refuse(DropSessionLimit, refusedOverload)
	case a.opening >= n.cfg.MaxOpening:
		n.mu.Unlock()
		return refuse(DropOpeningLimit, refusedOverload)
	}
	s := n.newSession(inst)
	s.src, s.dst, s.name = src, dst, name
	s.remote.Store(id)
	n.bySource[sourceKey{inst, id}] = s
	a.held++
	a.opening++
	n.mu.Unlock()
	return s
}

// control takes a control message.
func (r *Receiver) control(l *Link, b []byte) {
	n := r.node
	var c control
	var e gue.Experiment
	o, d := e.Decode(b)
	if d != gue.DropNone || e.ExID != gue.ExIDTougw {
		n.counters.drops.count(DropControl)
		return
	}
	switch err := c.decode(b[o:]); err {
	case nil:
	case errControlUnknown:
		n.counters.drops.count(DropControlUnknown)
		return
	default:
		n.counters.drops.count(DropControl)
		return
	}
	n.counters.controlIn.Add(1)
	if c.typ == ctlHello {
		n.hello(l, c.hello)
		return
	}
	inst := l.inst.Load()
	if inst == nil {
		n.counters.drops.count(DropNoHello)
		return
	}
	switch c.typ {
	case ctlEchoRequest:
		r.asks++
		l.control(&control{typ: ctlEchoReply, token: c.token})
	case ctlEchoReply:
		l.gotEcho(c.token)
	case ctlPathProbe:
		l.answerProbe(c.token)
	case ctlPathReply:
		l.gotPathReply(c.token)
	case ctlUnknown:
		n.isUnknown(inst, c.session)
	case ctlRefused:
		n.wasRefused(inst, c.session, c.reason)
	case ctlCallRefused:
		if n.cfg.Datagrams != nil {
			n.cfg.Datagrams.CallRefused(inst.ref, c.session, c.reason.error())
		}
	case ctlDrain:
		if l.draining.Swap(true) {
			return
		}
		n.log.Info("peer is stopping", "peer", l.identity.Name(), "seconds", c.seconds)
	}
}

// wasRefused ends a session that the peer did not open.
func (n *Node) wasRefused(inst *instance, id uint64, why refusal) {
	s := n.session(id)
	switch {
	case s == nil:
		n.counters.drops.count(DropUnknownSession)
	case s.inst != inst:
		n.counters.drops.count(DropForeignSession)
	case !s.initiator:
		n.counters.drops.count(DropBadIDs)
	case s.getState() == open:
		// Our stack had the SYN-ACK, and the peer gave up before it had our
		// acknowledgement: nobody is there, and without a word of ours nobody
		// would ever tell.
		n.cfg.Stack.Abort(id, syscall.ECONNRESET)
	case !s.alive():
		n.counters.drops.count(DropClosedSession) // told again, or given up here meanwhile
	default:
		n.cfg.Stack.Abort(id, why.error())
	}
}

// hello binds a link to the instance that speaks on it. From then on the link
// carries the instance's sessions, in the place of the link before.
func (n *Node) hello(l *Link, h hello) {
	if protocolVersion < h.low || protocolVersion > h.high {
		if l.close(errVersion) {
			n.log.Warn("peer speaks another version", "peer", l.identity.Name(), "low", h.low, "high", h.high)
		}
		return
	}
	key := instanceKey{l.identity.Key, h.instance}
	if inst := l.inst.Load(); inst != nil {
		if inst.key != key {
			l.close(errInstance)
			return
		}
		if h.reply {
			l.sendHello(false)
		}
		return
	}
	// A side that knows nothing of the path believes the other.
	if h.pathMTU >= MinPathMTU && (l.ownMTU == 0 || int(h.pathMTU) < l.pathMTU) {
		l.setPathMTU(int(h.pathMTU))
	}
	l.noSum.Store(h.capabilities&capNoChecksum != 0)
	b, err := n.bind(l, key)
	if err != nil {
		if l.close(err) {
			n.log.Warn("peer is refused", "peer", l.identity.Name(), "err", err)
		}
		return
	}
	if h.reply {
		l.sendHello(false)
	}
	if b.surplus != nil {
		b.surplus.close(errReplaced)
	}
	n.abort(b.ended, errPeerRestarted)
	n.abort(b.evicted, syscall.ECONNRESET)
	if len(b.ended) > 0 {
		n.log.Warn("peer is a new instance, its old flows are reset", "peer", l.identity.Name(), "flows", len(b.ended))
	}
	n.log.Info("peer connected", "peer", l.identity.Name(), "instance", key.id, "remote", l.secure.Remote(), "known", b.had)
	l.sendEcho()
}

// addresses reads the flow's ends: the addresses from the header of a SYN, the
// ports from the transport header.
func (r *Receiver) addresses(seg []byte) (src, dst netip.AddrPort, name string, ok bool) {
	var a gue.SessionAddrs
	if _, d := a.Decode(r.hdr.Addresses); d != gue.DropNone {
		return src, dst, "", false
	}
	sport, dport := binary.BigEndian.Uint16(seg), binary.BigEndian.Uint16(seg[2:])
	return netip.AddrPortFrom(a.Src, sport), netip.AddrPortFrom(a.Dst, dport), a.Name, true
}
