package dtls

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// tuple is what tells peers without a Connection ID apart on one socket.
type tuple struct {
	remote netip.AddrPort
	// local is the address a datagram arrived at, to send from; zero on dialled
	// sockets, whose address the kernel chooses.
	local netip.Addr
}

// route is what a tuple leads to: an established association, and handshakes
// in the order in which they began.
type route struct {
	owner   *Association
	pending []*handshake
}

// maxPending bounds the handshakes of one tuple: a client that starts anew, and
// forged copies of its ClientHello, which never get past the cookie.
const maxPending = 4

// worker serves one socket: one goroutine receives, and the routes of the
// socket's peers are here.
//
// Locks are taken in the order Association.mu, Association.routeMu, worker.mu, then one of
// cidTable.mu, caps.mu, identities.mu, handshake.mu, paths.mu and Association.errMu.
type worker struct {
	e      *Endpoint
	sock   Socket
	addr   netip.AddrPort // of sock
	id     uint8          // which the Connection IDs begin with
	ownID  bool           // that is taken from Endpoint.ids
	dialed bool
	ctx    context.Context
	cancel context.CancelCauseFunc
	// ended is closed when the receive goroutine of a dialled socket ends.
	ended chan struct{}
	// wg counts handshakes and associations of the socket.
	wg sync.WaitGroup

	mu      sync.RWMutex
	closing bool
	routes  map[tuple]*route
	assocs  map[*Association]struct{}
	// gen changes with every change of routes.
	gen atomic.Uint64

	receive
}

func newWorker(e *Endpoint, sock Socket, id uint8, dialed bool) *worker {
	w := &worker{e: e, sock: sock, addr: sock.LocalAddr(), id: id, dialed: dialed, routes: map[tuple]*route{}, assocs: map[*Association]struct{}{}}
	w.ended = make(chan struct{})
	w.ctx, w.cancel = context.WithCancelCause(e.ctx)
	return w
}

// shutdown ends the worker's associations and handshakes; a served socket is
// closed, a dialled one closes with its association.
func (w *worker) shutdown() {
	w.mu.Lock()
	w.closing = true
	as := make([]*Association, 0, len(w.assocs))
	for a := range w.assocs {
		as = append(as, a)
	}
	w.mu.Unlock()
	for _, a := range as {
		a.end(ErrClosedLocally, AlertCloseNotify, true)
	}
	w.cancel(errStopped)
	if !w.dialed {
		_ = w.sock.Close() // unblocks the receive goroutine; idempotent
	}
}

func (w *worker) stopping() bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.closing
}

// at gives the route of a tuple, making one if there is none. The caller holds
// mu and changes the route afterwards.
func (w *worker) at(t tuple) *route {
	w.gen.Add(1)
	r := w.routes[t]
	if r == nil {
		r = &route{}
		w.routes[t] = r
	}
	return r
}

// tidy removes an empty route. The caller holds mu.
func (w *worker) tidy(t tuple) {
	w.gen.Add(1)
	if r := w.routes[t]; r != nil && r.owner == nil && len(r.pending) == 0 {
		delete(w.routes, t)
	}
}

// addDialing registers the handshake of a dialled socket.
func (w *worker) addDialing(h *handshake) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.at(h.from)
	r.pending = append(r.pending, h)
}

// dropPending forgets a handshake. The caller holds mu.
func (w *worker) dropPending(h *handshake) {
	r := w.routes[h.from]
	if r == nil {
		return
	}
	for i, p := range r.pending {
		if p == h {
			// A copy, because the receive goroutine may be reading the old one.
			r.pending = append(append([]*handshake(nil), r.pending[:i]...), r.pending[i+1:]...)
			break
		}
	}
	w.tidy(h.from)
}

// abandon forgets a handshake that failed.
func (w *worker) abandon(h *handshake) {
	w.mu.Lock()
	w.dropPending(h)
	w.mu.Unlock()
	w.e.cids.remove(h.cid)
}

// establish announces an association and puts it in the place of its
// handshake, for the holder of a.mu. It reports false if the worker is closing.
// An association that had the tuple before loses it, and ends: at once when it
// could only be reached by the tuple, else after a grace.
func (w *worker) establish(a *Association, h *handshake) bool {
	w.mu.Lock()
	if w.closing {
		w.mu.Unlock()
		return false
	}
	w.assocs[a] = struct{}{}
	w.wg.Add(1)
	w.mu.Unlock()
	if !a.isClient {
		w.e.accepted.Add(1)
	}

	w.e.events.Established(a)

	a.routeMu.Lock()
	a.home = path{h.from, w}
	a.routeMu.Unlock()
	// Should a have ended meanwhile, it is forgotten after us: that waits for
	// a.mu.
	w.mu.Lock()
	w.dropPending(h)
	if h.cid != 0 && a.localCID == 0 {
		w.e.cids.remove(h.cid) // not negotiated
	}
	r := w.at(h.from)
	old := r.owner
	r.owner = a
	if a.localCID != 0 {
		w.e.cids.establish(a.localCID, a)
	}
	if old != nil && old.localCID != 0 {
		old.grace = time.AfterFunc(w.e.cfg.ReplaceGrace, func() { old.end(ErrReplaced, AlertCloseNotify, true) })
	}
	w.mu.Unlock()
	if old != nil && old.localCID == 0 {
		old.end(ErrReplaced, 0, false)
	}
	if !a.isClient {
		if oldest := w.e.idents.add(a); oldest != nil {
			w.e.count.superseded.Add(1)
			oldest.end(ErrSuperseded, AlertCloseNotify, true)
		}
	}
	return true
}

// forget removes an association that has ended. The caller holds a.mu.
func (w *worker) forget(a *Association) {
	a.routeMu.Lock()
	a.home.w.unroute(a, a.home.tuple)
	a.routeMu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.assocs, a)
	if a.grace != nil {
		a.grace.Stop()
	}
	w.e.cids.remove(a.localCID)
	w.e.idents.remove(a)
}

// unroute takes a tuple away from a, if it is a's.
func (w *worker) unroute(a *Association, t tuple) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.routes[t]; r != nil && r.owner == a {
		r.owner = nil
		w.tidy(t)
	}
}

// adopt gives a the tuple that it has moved to, unless the tuple is the only way
// to another association.
func (w *worker) adopt(a *Association, t tuple) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.at(t); r.owner == nil || r.owner.localCID != 0 {
		r.owner = a
	}
}
