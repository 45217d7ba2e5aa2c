package dtls

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	pion "github.com/pion/dtls/v3"
)

// Endpoint makes associations: it accepts them on sockets given to Serve and
// reaches out with Dial.
type Endpoint struct {
	cfg    Config
	events Events
	count  counters
	cids   cidTable
	caps   caps
	idents identities

	server []pion.ServerOption
	// decoy makes keys for unknown PSK identities, so that they fail like a
	// wrong key.
	decoy [32]byte

	ctx    context.Context
	cancel context.CancelCauseFunc
	// accepted counts accepted associations that exist now.
	accepted atomic.Int64

	mu      sync.Mutex
	closed  bool
	workers map[*worker]struct{}
	ids     [maxServed]bool // in use by sockets without a number
	// wg counts calls of Serve and dialled sockets.
	wg sync.WaitGroup
}

// New makes an Endpoint. It has no side effects; an error says what in cfg
// cannot work.
func New(cfg Config, ev Events) (*Endpoint, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if ev == nil {
		return nil, errors.New("dtls: no events")
	}
	e := &Endpoint{cfg: cfg, events: ev, workers: map[*worker]struct{}{}}
	e.idents.init(cfg.MaxPerIdentity)
	e.caps.init(cfg.MaxHalfOpen, cfg.MaxHalfOpenPerSource)
	if _, err := rand.Read(e.decoy[:]); err != nil {
		return nil, fmt.Errorf("dtls: random numbers: %w", err)
	}
	e.server = e.serverOptions()
	e.ctx, e.cancel = context.WithCancelCause(context.Background())
	return e, nil
}

// Stats is a snapshot of the counters.
func (e *Endpoint) Stats() Stats {
	s := e.count.snapshot()
	s.HalfOpen = e.caps.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for w := range e.workers {
		w.mu.RLock()
		s.Associations += len(w.assocs)
		w.mu.RUnlock()
	}
	return s
}

// Close ends every association with a close_notify, stops Serve and Dial, and
// waits until all goroutines have ended and all events were delivered. It must
// not be called from an event or a Receiver. A closed Endpoint stays closed.
func (e *Endpoint) Close() error {
	e.mu.Lock()
	e.closed = true
	ws := make([]*worker, 0, len(e.workers))
	for w := range e.workers {
		ws = append(ws, w)
	}
	e.mu.Unlock()
	e.cancel(errStopped)
	for _, w := range ws {
		w.shutdown()
	}
	e.wg.Wait()
	return nil
}

// maxServed is how many sockets the first byte of a Connection ID can name;
// the last value stands for dialled sockets.
const (
	maxServed    = 255
	dialedWorker = 255
)

// enter registers a worker; what it began must be ended by leave.
func (e *Endpoint) enter(sock Socket, dialed bool) (*worker, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, net.ErrClosed
	}
	id, own := dialedWorker, false
	if n, ok := sock.(numbered); !dialed && ok && n.Number() >= 0 && n.Number() < maxServed {
		id = n.Number() // as another may be in another group
	} else if !dialed {
		if id = slices.Index(e.ids[:], false); id < 0 {
			return nil, fmt.Errorf("more than %d sockets", maxServed)
		}
		e.ids[id], own = true, true
	}
	w := newWorker(e, sock, uint8(id), dialed)
	w.ownID = own
	e.workers[w] = struct{}{}
	e.wg.Add(1)
	return w, nil
}

func (e *Endpoint) leave(w *worker) {
	w.cancel(errStopped)
	e.mu.Lock()
	delete(e.workers, w)
	if w.ownID {
		e.ids[w.id] = false
	}
	e.mu.Unlock()
	e.wg.Done()
}

// Serve accepts associations on sock until ctx ends, the Endpoint is closed or
// the socket fails, and only in the last case returns an error. It takes sock:
// when it returns, the associations that were made on it have ended with a
// close_notify and sock is closed. Several sockets may be served at once. One
// that has a method Number gives out Connection IDs that begin with its result,
// if that is 0 to 254: see Steering.
func (e *Endpoint) Serve(ctx context.Context, sock Socket) error {
	if !e.cfg.hasCertificate() && e.cfg.LookupPSK == nil {
		_ = sock.Close() // taken, and of no use
		return errors.New("dtls: neither a certificate nor PSKs to serve with")
	}
	w, err := e.enter(sock, false)
	if err != nil {
		_ = sock.Close() // taken, and of no use
		return fmt.Errorf("dtls: serve: %w", err)
	}
	defer e.leave(w)
	stop := context.AfterFunc(ctx, w.shutdown)
	err = w.run()
	stop()
	stopped := w.stopping()
	w.shutdown()
	w.wg.Wait()
	if stopped || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("dtls: serve %v: %w", sock.LocalAddr(), err)
}

// Dial makes an association with the peer at remote, whom p says how to
// recognise. It takes sock: reads it until the association ends, then closes
// it. The handshake is bounded by ctx and by Config.HandshakeTimeout. Errors:
// *AlertError when the peer refused, ETIMEDOUT when it did not answer, those of
// crypto/x509 when its certificate was not believed, that of ctx.
func (e *Endpoint) Dial(ctx context.Context, sock Socket, remote netip.AddrPort, p DialParams) (*Association, error) {
	fail := func(err error) (*Association, error) {
		_ = sock.Close() // taken, and of no use
		return nil, err
	}
	if err := p.check(&e.cfg); err != nil {
		return fail(err)
	}
	w, err := e.enter(sock, true)
	if err != nil {
		return fail(fmt.Errorf("dtls: dial %v: %w", remote, err))
	}
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	h := newHandshake(w, tuple{remote: remote}, true)
	h.dial = &p
	w.addDialing(h)
	go func() {
		err := w.run()
		w.mu.RLock()
		var as []*Association
		for a := range w.assocs {
			as = append(as, a)
		}
		w.mu.RUnlock()
		for _, a := range as {
			// Only if the socket failed: otherwise the end came before.
			a.end(fmt.Errorf("dtls: socket: %w", err), 0, false)
		}
		h.cancel(fmt.Errorf("dtls: socket: %w", err))
		close(w.ended)
	}()
	stop := context.AfterFunc(ctx, func() { h.cancel(context.Cause(ctx)) })
	defer stop()
	a, err := h.run()
	if err != nil {
		_ = sock.Close() // the handshake's error is the one to report
		<-w.ended
		w.wg.Wait()
		e.leave(w)
		return nil, fmt.Errorf("dtls: handshake with %v: %w", remote, err)
	}
	return a, nil
}
