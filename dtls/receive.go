package dtls

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/tougw/tougw/internal/packet"
	"github.com/tougw/tougw/internal/udp"
)

// Inbound, in order: run reads a batch, message cuts a run of datagrams,
// datagram cuts records, record finds whose each is, accept opens it for an
// association, and hand delivers what has gathered.

const (
	// readBatch is the number of messages per read, each of packet.Size bytes:
	// 8 runs of coalesced datagrams gave the best throughput of 1, 8 and 32.
	readBatch = 8
	// maxRun bounds the records of one call of Receive.
	maxRun = 1024
	// maxReadErrors is how many errors in a row end a socket.
	maxReadErrors = 100
	// lastFlightEvery bounds how often the last flight is repeated.
	lastFlightEvery = 50 * time.Millisecond
	// warningEvery bounds how often a renegotiation is refused.
	warningEvery = time.Second
)

// receive is the state of a worker's receive goroutine.
type receive struct {
	rcv Receiver
	// cur is the association whose mu is held, and recs the run.
	cur   *Association
	recs  [][]byte
	bytes uint64
	flush bool
	// feedTo is the handshake for which feed gathers the datagram's records.
	feedTo *handshake
	feed   []byte
	spare  []byte

	// The last look-ups, valid while the tables' gen is unchanged.
	lastTuple tuple
	lastRoute route
	lastGen   uint64
	lastCID   cidOwner
	cidGen    uint64
}

// run receives until the socket is closed or fails, and gives the reason.
func (w *worker) run() error {
	w.rcv = w.e.events.NewReceiver()
	w.lastGen, w.cidGen = ^uint64(0), ^uint64(0)
	ms := make([]udp.Message, readBatch)
	for i := range ms {
		b := packet.Get()
		defer b.Release()
		ms[i].Buf = b.B
	}
	for failed := 0; ; {
		n, err := w.sock.ReadBatch(ms)
		for i := range ms[:n] {
			w.message(&ms[i])
		}
		w.hand()
		if w.flush {
			w.rcv.Flush()
			w.flush = false
		}
		switch {
		case err == nil:
			failed = 0
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			// Refused and unreachable come back from earlier sends.
			w.e.count.readErrors.Add(1)
			if failed++; failed >= maxReadErrors {
				return err
			}
		}
	}
}

// message takes a run of datagrams from one address.
func (w *worker) message(m *udp.Message) {
	t := tuple{remote: m.Addr, local: m.Local}
	if w.dialed {
		t.local = netip.Addr{}
	}
	b := m.Buf[:m.N]
	size := m.Segment
	if size <= 0 {
		size = len(b)
	}
	for len(b) > 0 {
		n := min(size, len(b))
		w.datagram(b[:n], t)
		b = b[n:]
	}
}

// datagram takes the records of one datagram.
func (w *worker) datagram(b []byte, from tuple) {
	for len(b) > 0 {
		h, n, drop := parseHeader(b)
		if drop != numDrops {
			w.e.count.drop(drop)
			break
		}
		w.record(h, b[:n], from)
		b = b[n:]
	}
	w.endFeed()
}

// record finds whose a record is. Nothing of it has been verified.
func (w *worker) record(h header, rec []byte, from tuple) {
	switch {
	case h.epoch == 1 && h.typ == typeCID:
		switch o := w.byCID(h.cid); {
		case o.a != nil:
			w.accept(o.a, h, rec, from)
		case o.h != nil:
			w.feedProtected(o.h, h, rec, from)
		default:
			w.e.count.drop(DropUnknownCID)
		}
	case h.epoch == 1 && h.typ >= typeChangeCipherSpec && h.typ <= typeApplicationData:
		w.byTuple(h, rec, from, w.lookup(from))
	case h.epoch == 0 && h.typ == typeHandshake && rec[h.start] == msgClientHello:
		if w.dialed {
			w.e.count.drop(DropNotServing)
			return
		}
		w.hello(h, rec, from)
	case h.epoch == 0 && plainAllowed(h, rec):
		r := w.lookup(from)
		switch p := r.talking(); {
		case p != nil:
			w.feedPlain(p, h, rec)
		case r.owner != nil:
			w.e.count.drop(DropPlaintext)
		default:
			w.e.count.drop(DropUnknownPeer)
		}
	default:
		if r := w.lookup(from); h.epoch == 0 && r.owner != nil {
			w.e.count.drop(DropPlaintext)
			return
		}
		w.e.count.drop(DropType)
	}
}

// plainAllowed reports whether a record of epoch 0 is one that the handshake
// library survives: it ends over application data, unknown types, type 25 and
// malformed alerts and change_cipher_spec messages, all of which anyone can
// forge.
func plainAllowed(h header, rec []byte) bool {
	body := rec[h.start:]
	switch h.typ {
	case typeHandshake:
		return true
	case typeAlert:
		return len(body) == 2
	case typeChangeCipherSpec:
		return len(body) == 1 && body[0] == 1
	}
	return false
}

// byTuple takes a protected record without Connection ID: the association that
// has the tuple tries it first, then a handshake.
func (w *worker) byTuple(h header, rec []byte, from tuple, r route) {
	p := r.talking()
	switch {
	case r.owner == nil && p == nil:
		w.e.count.drop(DropUnknownPeer)
	case r.owner == nil:
		w.feedProtected(p, h, rec, from)
	case p == nil:
		w.accept(r.owner, h, rec, from)
	case r.owner.localCID != 0:
		w.feedProtected(p, h, rec, from)
	default:
		w.spare = append(w.spare[:0], rec...) // a failed opening destroys the record
		if w.try(r.owner, h, rec, from) == DropOpenFailed {
			w.feedProtected(p, h, w.spare, from)
		}
	}
}

// lookup gives a copy of the tuple's route.
func (w *worker) lookup(t tuple) route {
	if gen := w.gen.Load(); gen != w.lastGen || t != w.lastTuple {
		w.mu.RLock()
		var r route
		if p := w.routes[t]; p != nil {
			r = *p
		}
		w.lastRoute, w.lastTuple, w.lastGen = r, t, w.gen.Load()
		w.mu.RUnlock()
	}
	return w.lastRoute
}

// byCID finds the owner of a Connection ID.
func (w *worker) byCID(cid uint64) cidOwner {
	t := &w.e.cids
	if gen := t.gen.Load(); gen != w.cidGen || cid != w.lastCID.cid {
		o, _ := t.get(cid)
		// Any change after Load makes the next look-up miss.
		w.lastCID, w.cidGen = o, gen
	}
	return w.lastCID
}

// talking is the newest handshake that is to get records other than
// ClientHello: one whose peer has echoed our cookie, or that is ours.
func (r *route) talking() *handshake {
	for i := len(r.pending) - 1; i >= 0; i-- {
		if p := r.pending[i]; p.client || p.proven.Load() {
			return p
		}
	}
	return nil
}

// accept opens a record for an association.
func (w *worker) accept(a *Association, h header, rec []byte, from tuple) {
	if d := w.try(a, h, rec, from); d == DropOpenFailed {
		w.e.count.drop(d)
	}
}

// try opens a record for an association and uses it. It gives DropOpenFailed
// when that failed, which the caller counts, and numDrops otherwise.
func (w *worker) try(a *Association, h header, rec []byte, from tuple) Drop {
	if w.cur != a {
		w.hand()
		a.mu.Lock()
		w.cur = a
	}
	typ, plain, newest, drop := a.open(h, rec)
	if drop != numDrops {
		if drop == DropOpenFailed {
			return drop
		}
		w.e.count.drop(drop)
		return numDrops
	}
	here := path{from, w}
	if a.arrived != here {
		w.deliver() // a run came by one path
		a.arrived = here
	}
	if *a.paths.current.Load() != here {
		a.elsewhere(here, newest, len(rec))
	}
	if typ == typeApplicationData {
		if len(plain) > 0 {
			w.recs = append(w.recs, plain)
			w.bytes += uint64(len(plain))
			if len(w.recs) == maxRun {
				w.deliver()
			}
		}
		return numDrops
	}
	w.deliver() // what came before, comes before
	if !a.control(typ, plain, true) {
		w.e.count.drop(DropUnexpected)
	}
	return numDrops
}

// deliver gives the run to the receiver; cur's mu stays held.
func (w *worker) deliver() {
	if len(w.recs) == 0 {
		return
	}
	w.e.count.records.Add(uint64(len(w.recs)))
	w.e.count.bytes.Add(w.bytes)
	w.rcv.Receive(w.cur, w.recs)
	clear(w.recs)
	w.recs, w.bytes, w.flush = w.recs[:0], 0, true
}

// hand delivers the run and lets go of its association.
func (w *worker) hand() {
	if w.cur == nil {
		return
	}
	w.deliver()
	w.cur.publish()
	w.cur.mu.Unlock()
	w.cur = nil
}
