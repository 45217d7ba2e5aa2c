package dtls

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A record from another path than the association's changes nothing by itself:
// whoever copies a record and is faster than the original can make it come from
// any address. So an authentic record with the newest number only makes its
// path a candidate; an owner that speaks with the peer inside the association
// sends an echo there (SendVia), and when the answer came by that very path
// (Arrived) switches (Validate). Until then the association stays where it was.

// Path is a pair of addresses between which records of an association travel.
// It is another name for an unnamed type, so that a package that does not
// import this one can name it as well. It is comparable.
type Path = struct {
	// Remote is the peer's address.
	Remote netip.AddrPort
	// Local is the address on this side. Its IP address is unspecified where
	// the kernel chooses it.
	Local netip.AddrPort
}

// Our choices; RFC 9146 section 6 leaves them open.
const (
	// maxCandidates is how many new paths an association has at once.
	maxCandidates = 2
	// candidateLife is how long a path stays a candidate: a few tries of an echo
	// over a slow path. If the peer still sends from there, it becomes one
	// again, and is reported again.
	candidateLife = 5 * time.Second
	// candidateHold is how long a candidate keeps its place against a further
	// path, so that copies of records from many addresses leave an echo time to
	// be answered.
	candidateHold = time.Second
	// amplification is how many bytes may be sent to a candidate for each that
	// came from it (as in RFC 9000 section 8).
	amplification = 3
)

// Errors of SendVia.
var (
	errNoPath    = fmt.Errorf("dtls: neither the path of the association nor a candidate: %w", syscall.EHOSTUNREACH)
	errPathLimit = fmt.Errorf("dtls: candidate path may not get more before it is validated: %w", syscall.EAGAIN)
)

// path is a Path with the worker whose socket it uses.
type path struct {
	tuple
	w *worker
}

// public gives the addresses in full.
func (p *path) public() Path {
	l := p.w.addr
	if p.local.IsValid() {
		l = netip.AddrPortFrom(p.local, l.Port())
	}
	return Path{Remote: p.remote, Local: l}
}

// write sends b as datagrams of size bytes.
func (p *path) write(b []byte, size int) error { return p.w.write(b, size, p.remote, p.local) }

// candidate is a path that is not validated yet.
type candidate struct {
	path
	since time.Time
	// in and out count bytes of authentic records from there, and bytes sent.
	in, out uint64
	// answered says that a record came from there after one was sent.
	answered bool
}

// paths is where the records of an association go.
type paths struct {
	// current is changed with mu held, or by compare-and-swap.
	current atomic.Pointer[path]
	moves   atomic.Uint64

	// mu is a leaf of the lock order and guards the candidates.
	mu         sync.Mutex
	candidates [maxCandidates]*candidate
}

// find gives the live candidate with these addresses, or nil, and forgets those
// whose time is over. The caller holds mu.
func (ps *paths) find(p Path, now time.Time) (found *candidate) {
	for i, c := range ps.candidates {
		switch {
		case c == nil:
		case now.Sub(c.since) >= candidateLife:
			ps.candidates[i] = nil
		case c.public() == p:
			found = c
		}
	}
	return found
}

// place makes room for one more candidate: an unused place, or that of the
// oldest. It gives nil while all are needed. The caller holds mu.
func (ps *paths) place(now time.Time) **candidate {
	oldest := &ps.candidates[0]
	for i := range ps.candidates {
		c := &ps.candidates[i]
		if *c == nil {
			return c
		}
		if (*c).since.Before((*oldest).since) {
			oldest = c
		}
	}
	if now.Sub((*oldest).since) < candidateHold {
		return nil
	}
	return oldest
}

// elsewhere takes note of n bytes of an authentic new record that came by
// another path than the association's, for the holder of a.mu; newest says that
// its number is the highest so far. A path that became a candidate is reported.
func (a *Association) elsewhere(from path, newest bool, n int) {
	if a.noteElsewhere(from, newest, n) {
		if f := a.w.e.cfg.PathCandidate; f != nil {
			f(a, from.public())
		}
	}
}

func (a *Association) noteElsewhere(from path, newest bool, n int) (made bool) {
	ps := &a.paths
	p := from.public()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.current.Load().public() == p {
		// The same addresses at another socket of a SO_REUSEPORT group, or
		// the path was validated a moment ago.
		if newest {
			to := from // from itself would be allocated for every record
			ps.current.Store(&to)
		}
		return false
	}
	now := time.Now()
	if c := ps.find(p, now); c != nil {
		c.in += uint64(n)
		c.answered = c.out > 0
		return false
	}
	if !newest {
		return false // on its way since before the peer was where it is now
	}
	slot := ps.place(now)
	if slot == nil {
		a.w.e.count.crowded.Add(1)
		return false
	}
	*slot = &candidate{path: from, since: now, in: uint64(n)}
	a.w.e.count.candidates.Add(1)
	return true
}

// Path is where the association's records go now, and where they are expected
// from.
func (a *Association) Path() Path { return a.paths.current.Load().public() }

// Arrived is the path by which the records came that Receiver.Receive is being
// given; all of one run came by the same. It may be called only from within
// Receive, for the association that is delivered to.
func (a *Association) Arrived() Path { return a.arrived.public() }

// SendVia sends sealed records like Send, by a path that is a candidate, for an
// echo that shall validate it or the answer to one that came from there. At
// most three times the bytes of the authentic records that came by a candidate
// are sent to it; beyond, the error wraps EAGAIN. It wraps EHOSTUNREACH when p
// is not, or no longer, a candidate. By the association's own path everything
// is sent. What is refused is lost, as its record numbers are used.
func (a *Association) SendVia(b []byte, size int, p Path) error {
	if a.closed.Load() {
		return a.Err()
	}
	if len(b) == 0 {
		return nil
	}
	to, err := a.via(p, uint64(len(b)))
	if err != nil {
		return err
	}
	return to.write(b, size)
}

// via finds the path p and takes n bytes of what may be sent there.
func (a *Association) via(p Path, n uint64) (*path, error) {
	ps := &a.paths
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if cur := ps.current.Load(); cur.public() == p {
		return cur, nil
	}
	c := ps.find(p, time.Now())
	switch {
	case c == nil:
		return nil, errNoPath
	case c.out+n > amplification*c.in:
		a.w.e.count.pathRefusals.Add(1)
		return nil, errPathLimit
	}
	c.out += n
	return &c.path, nil
}

// Validate moves the association to p, remote and local address and socket, and
// reports whether it is there. The caller vouches that the peer has answered,
// by that path, something unpredictable that was sent to it by SendVia. It
// reports false when p is not, or no longer, a candidate, and when no record
// came by it since something was sent. Other candidates are forgotten.
func (a *Association) Validate(p Path) bool {
	if a.closed.Load() {
		return false
	}
	to, there := a.move(p)
	if to != nil {
		a.reroute(to)
	}
	return there
}

// reroute gives a the route of its new path in the place of the one before, whose
// address may become another peer's: so a handshake from there is known for one of
// the peer that starts anew.
func (a *Association) reroute(to *path) {
	a.routeMu.Lock()
	defer a.routeMu.Unlock()
	a.home.w.unroute(a, a.home.tuple)
	if a.closed.Load() {
		return // forgotten already, or soon
	}
	to.w.adopt(a, to.tuple)
	a.home = *to
}

// move makes the candidate with the addresses of p the association's path, and
// reports whether that is so; to is the path if it was not before.
func (a *Association) move(p Path) (to *path, there bool) {
	ps := &a.paths
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.current.Load().public() == p {
		return nil, true
	}
	c := ps.find(p, time.Now())
	if c == nil || !c.answered {
		return nil, false
	}
	to = &c.path
	ps.current.Store(to)
	ps.candidates = [maxCandidates]*candidate{}
	ps.moves.Add(1)
	a.w.e.count.migrated.Add(1)
	return to, true
}

// write sends b by the association's path.
func (a *Association) write(b []byte, size int) error {
	p := a.paths.current.Load()
	err := p.write(b, size)
	if err != nil {
		a.fallBack(p, err)
	}
	return err
}

// fallBack returns to the association's own socket when that which the peer had
// moved to is no longer served, as err of sending by p says.
func (a *Association) fallBack(p *path, err error) {
	if p.w != a.w && errors.Is(err, net.ErrClosed) {
		a.paths.current.CompareAndSwap(p, &path{tuple{remote: p.remote}, a.w})
	}
}
