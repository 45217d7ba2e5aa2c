package dtls

// Offsets in a ClientHello, from the handshake header (RFC 6347 section 4.2.2).
const (
	helloFragOffset = 6      // 3 bytes
	helloRandom     = 12 + 2 // after the handshake header and the version
	helloMinLen     = helloRandom + 32
)

// hello takes a ClientHello. Copies of one that is being answered go to its
// handshake; any other begins a new one, which disturbs neither an established
// association nor the other handshakes of the tuple. Nothing here waits.
func (w *worker) hello(h header, rec []byte, key tuple) {
	body := rec[h.start:]
	if len(body) < helloFragOffset+3 {
		w.e.count.drop(DropMalformed)
		return
	}
	r := w.lookup(key)
	if body[helloFragOffset]|body[helloFragOffset+1]|body[helloFragOffset+2] != 0 {
		// A later fragment does not say whose it is.
		if n := len(r.pending); n > 0 {
			w.feedPlain(r.pending[n-1], h, rec)
			return
		}
		w.e.count.drop(DropUnknownPeer)
		return
	}
	if len(body) < helloMinLen {
		w.e.count.drop(DropMalformed)
		return
	}
	random := [32]byte(body[helloRandom:])
	if r.owner != nil && r.owner.random == random {
		w.e.count.drop(DropStaleHello)
		return
	}
	for _, p := range r.pending {
		if p.random == random {
			w.feedPlain(p, h, rec)
			return
		}
	}
	if p := w.admit(key, random, len(r.pending)); p != nil {
		w.feedPlain(p, h, rec)
	}
}

// admit begins a handshake with the client at key, unless a bound forbids it.
func (w *worker) admit(key tuple, random [32]byte, pending int) *handshake {
	e := w.e
	if pending >= maxPending {
		e.count.drop(DropHalfOpenSource)
		return nil
	}
	if e.accepted.Load() >= int64(e.cfg.MaxAssociations) {
		e.count.drop(DropAssociations)
		return nil
	}
	if d, ok := e.caps.take(key.remote.Addr()); !ok {
		e.count.drop(d)
		return nil
	}
	h := newHandshake(w, key, false)
	h.random = random
	w.mu.Lock()
	if w.closing {
		w.mu.Unlock()
		h.cancel(errStopped)
		e.caps.release(key.remote.Addr())
		return nil
	}
	r := w.at(key)
	r.pending = append(r.pending, h)
	w.mu.Unlock()
	w.wg.Go(func() {
		_, _ = h.run() // run has counted and reported the error
		e.caps.release(key.remote.Addr())
	})
	return h
}

// feedPlain gathers an unprotected record for a handshake.
func (w *worker) feedPlain(p *handshake, h header, rec []byte) {
	if h.typ == typeAlert {
		p.alerted(Alert(rec[h.start+1]), rec[h.start])
	}
	w.gather(p, rec)
}

// feedProtected gives a protected record to a handshake: to the library what
// may be a Finished message or an alert, and a copy to us of what may be data,
// which the library would lose. If the handshake has completed meanwhile, its
// association gets the record.
func (w *worker) feedProtected(p *handshake, h header, rec []byte, from tuple) {
	if h.typ != typeHandshake && h.typ != typeChangeCipherSpec {
		a, kept := p.keep(rec, path{from, w})
		if a != nil {
			w.accept(a, h, rec, from)
			return
		}
		if !kept {
			w.e.count.drop(DropEarly)
		}
	}
	if h.typ == typeHandshake {
		if a := p.established(); a != nil {
			w.accept(a, h, rec, from)
			return
		}
	}
	if h.typ != typeApplicationData && h.typ != typeChangeCipherSpec {
		p.sawProtected()
		w.gather(p, rec)
	}
}

// gather adds a record to what the handshake gets of this datagram.
func (w *worker) gather(p *handshake, rec []byte) {
	if w.feedTo != p {
		w.endFeed()
		w.feedTo = p
	}
	w.feed = append(w.feed, rec...)
}

// endFeed hands the gathered records over as one datagram.
func (w *worker) endFeed() {
	if w.feedTo == nil {
		return
	}
	if !w.feedTo.conn.push(w.feed) {
		w.e.count.drop(DropHandshakeQueue)
	}
	w.feedTo, w.feed = nil, w.feed[:0]
}
