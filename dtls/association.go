package dtls

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Association is one keyed DTLS relation with an authenticated peer. All
// methods are safe for concurrent use.
type Association struct {
	w        *worker
	identity Identity
	isClient bool
	suite    Suite
	limits   Limits
	since    time.Time
	// random is the client's random, by which a late copy of its ClientHello is
	// known.
	random [32]byte

	// Outbound.
	sealing  protector
	number   atomic.Uint64 // next record number
	outBytes atomic.Uint64
	paths    paths

	// Inbound. mu is held by the goroutine that delivers to the association,
	// from the first record of a run until the run has been handed over, and
	// makes the calls of Events for it follow one another.
	mu       sync.Mutex
	opening  protector
	window   window
	scratch  scratch
	in       inbound
	localCID uint64 // 0 when the peer sends plain records
	arrived  path   // of the run
	// lastFlight is what the handshake library sent last, to be repeated byte
	// for byte; nil on a client.
	lastFlight   [][]byte
	lastFlightAt time.Time
	lastWarning  time.Time

	// home is the route that leads here, or led before another took it. routeMu is
	// taken before the mu of its worker.
	routeMu sync.Mutex
	home    path
	// grace ends a replaced association; it belongs to w.mu.
	grace *time.Timer

	// published copies of in, for Info.
	inRecords, inBytes, replays, failures atomic.Uint64

	closed atomic.Bool
	err    error // valid once done is closed or closed is seen under mu
	errMu  sync.Mutex
	done   chan struct{}
}

// inbound counts what was received; it belongs to the holder of mu.
type inbound struct{ records, bytes, replays, failures uint64 }

// Info describes an association.
type Info struct {
	// Suite is the cipher suite.
	Suite Suite
	// Client says that this side dialled.
	Client bool
	// LocalCID and RemoteCID are the lengths in bytes of the Connection IDs in
	// received and in sent records; 0 means plain records.
	LocalCID, RemoteCID int
	// Established is when the handshake completed.
	Established time.Time
	// RecordsOut and BytesOut count sealed records and all their bytes. They
	// approach Limits.
	RecordsOut, BytesOut uint64
	// RecordsIn and BytesIn count records that were authentic and new, and all
	// their bytes.
	RecordsIn, BytesIn uint64
	// Replays and OpenFailures count records that were seen before (or too
	// old), and records that failed authentication.
	Replays, OpenFailures uint64
	// Moves counts changes of the path.
	Moves uint64
	// Limits are those in force.
	Limits Limits
}

// Usage says how far an association has used up its keys, for its owner to
// replace it in time. Reading it costs a handful of atomic loads.
type Usage struct {
	// Established is when the handshake completed.
	Established time.Time
	// RecordsOut, BytesOut, RecordsIn, BytesIn and OpenFailures are those of
	// Info.
	RecordsOut, BytesOut, RecordsIn, BytesIn, OpenFailures uint64
	// Limits are those in force. The peer's may be lower.
	Limits Limits
}

// Share is the part of the limits that is used, of whichever and in whichever
// direction most is: 1 when Seal refuses, or the peer's would if it had our
// limits. The integrity limit is among them.
func (u *Usage) Share() float64 {
	part := func(n, of uint64) float64 { return float64(n) / float64(of) }
	return max(
		part(max(u.RecordsOut, u.RecordsIn), u.Limits.Records),
		part(max(u.BytesOut, u.BytesIn), u.Limits.Bytes),
		part(u.OpenFailures, u.Limits.OpenFailures))
}

// Usage is how far the keys are used up. What was received shows at the end of
// the socket's read batch.
func (a *Association) Usage() Usage {
	return Usage{
		Established: a.since, Limits: a.limits,
		RecordsOut: a.number.Load() - firstNumber, BytesOut: a.outBytes.Load(),
		RecordsIn: a.inRecords.Load(), BytesIn: a.inBytes.Load(), OpenFailures: a.failures.Load(),
	}
}

// Identity is what the peer proved.
func (a *Association) Identity() Identity { return a.identity }

// Remote is the peer's present address.
func (a *Association) Remote() netip.AddrPort { return a.paths.current.Load().remote }

// Local is the address of this side; its IP address is unspecified when the
// kernel chooses it.
func (a *Association) Local() netip.AddrPort { return a.Path().Local }

// Info describes the association as it is now.
func (a *Association) Info() Info {
	u := a.Usage()
	return Info{
		Suite: a.suite, Client: a.isClient, RemoteCID: len(a.sealing.cid), LocalCID: len(a.opening.cid),
		Established: u.Established, Limits: u.Limits,
		RecordsOut: u.RecordsOut, BytesOut: u.BytesOut, RecordsIn: u.RecordsIn, BytesIn: u.BytesIn,
		Replays: a.replays.Load(), OpenFailures: u.OpenFailures,
		Moves: a.paths.moves.Load(),
	}
}

// Overhead is what a record adds before and after its plaintext, in bytes. It
// does not change.
func (a *Association) Overhead() (head, tail int) { return a.sealing.head(), a.sealing.tail() }

// Done is closed when the association has ended and Events.Closed returned.
func (a *Association) Done() <-chan struct{} { return a.done }

// Err is the reason of the end, nil while the association lives.
func (a *Association) Err() error {
	a.errMu.Lock()
	defer a.errMu.Unlock()
	return a.err
}

// CloseNotify ends the association with ErrClosedLocally; see Close.
func (a *Association) CloseNotify() error { return a.Close(nil) }

// Close ends the association: it sends a close_notify, and Events.Closed is
// called with reason, which defaults to ErrClosedLocally, from another
// goroutine. A dialled association closes its socket. Later calls do nothing.
// It does not wait; see Done. The peer loses what another goroutine sends at the
// same time, and this side what is on its way.
func (a *Association) Close(reason error) error {
	if reason == nil {
		reason = ErrClosedLocally
	}
	a.end(reason, AlertCloseNotify, true)
	return nil
}

// end ends the association once, with an alert to the peer if notify is set.
// It may be called with mu held.
func (a *Association) end(reason error, alert Alert, notify bool) {
	a.errMu.Lock()
	if a.err != nil {
		a.errMu.Unlock()
		return
	}
	a.err = reason
	a.errMu.Unlock()
	a.closed.Store(true) // before the alert, behind which the peer takes nothing
	if notify {
		a.sendAlert(alert)
	}
	// The holder of mu may be our caller, and Closed must wait for it.
	go a.finish(reason)
}

// finish forgets the association and reports its end. Its goroutine is counted
// in the worker's wait group since the association was established.
func (a *Association) finish(reason error) {
	e := a.w.e
	a.mu.Lock()
	a.w.forget(a)
	a.lastFlight = nil
	a.mu.Unlock()
	if a.w.dialed {
		_ = a.w.sock.Close() // nothing can be done about an error, and the association is gone
		<-a.w.ended
	}
	if !a.isClient {
		e.accepted.Add(-1)
	}
	e.count.closed.Add(1)
	e.events.Closed(a, reason)
	close(a.done)
	a.w.wg.Done()
	if a.w.dialed {
		e.leave(a.w)
	}
}
