package dtls

import "time"

// open opens a record in place, for the holder of mu. The drop is numDrops when
// the record is authentic and new; newest then says that its number is the
// highest so far.
func (a *Association) open(h header, rec []byte) (typ uint8, plain []byte, newest bool, drop Drop) {
	if a.closed.Load() {
		return 0, nil, false, DropClosed
	}
	if (h.typ == typeCID) != (a.localCID != 0) {
		return 0, nil, false, DropType
	}
	// A peer that repeats its last flight may repeat it byte for byte, with a
	// number that we know. Only then is a known number opened at all.
	fresh := a.window.fresh(h.seq)
	if !fresh && (a.lastFlight == nil || h.seq >= firstNumber) {
		a.in.replays++
		return 0, nil, false, DropReplay
	}
	typ, plain, ok := a.opening.open(&a.scratch, h, rec)
	if !ok {
		a.in.failures++
		if a.in.failures >= a.limits.OpenFailures {
			a.end(ErrForgery, AlertCloseNotify, true)
		}
		return 0, nil, false, DropOpenFailed
	}
	if !fresh {
		if typ == typeHandshake {
			return typ, plain, false, numDrops
		}
		a.in.replays++
		return 0, nil, false, DropReplay
	}
	newest = a.window.mark(h.seq)
	a.in.records++
	a.in.bytes += uint64(len(rec))
	return typ, plain, newest, numDrops
}

// publish makes the inbound counters visible to Info, for the holder of mu.
func (a *Association) publish() {
	a.inRecords.Store(a.in.records)
	a.inBytes.Store(a.in.bytes)
	a.replays.Store(a.in.replays)
	a.failures.Store(a.in.failures)
}

// Handshake message types (RFC 5246 section 7.4).
const (
	msgHelloRequest = 0
	msgClientHello  = 1
	msgFinished     = 20
)

// control handles an authenticated record that is not application data, for
// the holder of mu, and reports whether it had a use. repeat says that a
// Finished message asks for our last flight.
func (a *Association) control(typ uint8, plain []byte, repeat bool) bool {
	switch typ {
	case typeAlert:
		if len(plain) != 2 {
			return false
		}
		const fatal = 2
		switch al := Alert(plain[1]); {
		case al == AlertCloseNotify:
			// RFC 5246 section 7.2.1: answered with our own.
			a.end(ErrClosedByPeer, AlertCloseNotify, true)
		case plain[0] == fatal:
			a.end(&AlertError{Alert: al}, 0, false)
		default:
			return false
		}
		return true
	case typeHandshake:
		if len(plain) == 0 {
			return false
		}
		now := time.Now()
		switch plain[0] {
		case msgFinished:
			if !repeat || a.lastFlight == nil || now.Sub(a.lastFlightAt) < lastFlightEvery {
				return false
			}
			a.lastFlightAt = now
			a.w.e.count.lastFlights.Add(1)
			for _, d := range a.lastFlight {
				_ = a.write(d, 0) // counted; the peer asks again
			}
			return true
		case msgHelloRequest, msgClientHello:
			// Renegotiation: refused (RFC 5746 section 4.5).
			if now.Sub(a.lastWarning) < warningEvery {
				return false
			}
			a.lastWarning = now
			a.sendAlert(AlertNoRenegotiation)
			return true
		}
	}
	return false
}
