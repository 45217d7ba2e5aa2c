package tunnel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tougw/tougw/gue"
)

// Defaults and fixed times of this package. None is from a document: the
// drafts define neither keepalive nor dead-peer detection.
const (
	// DefaultPathMTU is the outer packet size in bytes while the path is not
	// probed: it passes PPPoE, most tunnels and mobile networks.
	DefaultPathMTU = 1400
	// MinPathMTU is the smallest path MTU that is taken: the smallest packet
	// every IPv4 host must accept (RFC 791).
	MinPathMTU = 576

	// tick is how often links are watched. One timer serves all links.
	tick = 500 * time.Millisecond
	// probeAfter is how long an association may answer nothing while this side
	// sends, before it is asked for a sign of life.
	probeAfter = 1500 * time.Millisecond
	// suspectAfter is how long probes stay unanswered before the dialling side
	// starts a second association beside the silent one.
	suspectAfter = 1500 * time.Millisecond
	// tombstone is how long the ids of a closed session stay mapped after its
	// last segment: longer than the SYN retransmissions of the initiator's
	// stack (63 s with six of them).
	tombstone = 70 * time.Second
	// replaceGrace is how long a replaced association is kept for records that
	// are still on their way.
	replaceGrace = 2 * time.Second
)

var (
	errDead      = errors.New("tunnel: peer does not answer")
	errNoHello   = errors.New("tunnel: peer said no hello")
	errVersion   = errors.New("tunnel: no common protocol version")
	errStopped   = errors.New("tunnel: stopped")
	errReplaced  = errors.New("tunnel: replaced by a newer association")
	errInstance  = errors.New("tunnel: peer changed its instance within an association")
	errInstances = errors.New("tunnel: too many instances of one identity")

	// errPeerRestarted ends the flows of a peer that came back as another
	// instance: what it knew of them is gone.
	errPeerRestarted = fmt.Errorf("peer restarted: %w", syscall.ECONNRESET)
)

// ErrNoPeer says that no peer of that name is connected. It unwraps to
// EHOSTUNREACH.
var ErrNoPeer = &peerError{"no association with this peer"}

type peerError struct{ text string }

func (e *peerError) Error() string { return "tunnel: " + e.text }
func (e *peerError) Unwrap() error { return syscall.EHOSTUNREACH }

// Stack is the local transport stack, as far as the tunnel gives it orders.
type Stack interface {
	// Abort resets the local endpoint of session id; reason is what its user
	// sees. It must not block, and may be called for an id without endpoint.
	Abort(id uint64, reason error)
}

// Injector takes inbound segments to the local stack. It borrows them until
// Inject returns. One injector belongs to one goroutine.
type Injector interface {
	Inject(id uint64, segment []byte)
	Flush()
}

// Config configures a Node. Zero values stand for the defaults.
type Config struct {
	// Instance is this run's id; by default drawn at random.
	Instance InstanceID
	// Stack receives orders. Required.
	Stack Stack
	// PathMTU is the largest outer packet in bytes towards peers that dialled
	// this side, MinPathMTU to 65535; by default DefaultPathMTU. The smaller of
	// this and the peer's own is used.
	PathMTU int
	// Keepalive is the silence after which an association is asked for a sign
	// of life; by default 15 s (RFC 8085 section 3.5 allows no less).
	Keepalive time.Duration
	// DeadAfter is how long these questions stay unanswered before the
	// association is given up; by default 10 s.
	DeadAfter time.Duration
	// HelloTimeout bounds the wait for a peer's hello; by default 10 s.
	HelloTimeout time.Duration
	// SessionGrace is how long the sessions of an instance without an
	// association are kept; by default 5 minutes.
	SessionGrace time.Duration
	// MaxSessions bounds all sessions, closing ones included; by default 65536.
	MaxSessions int
	// MaxOpening bounds the sessions that one instance is opening here; by
	// default 1024.
	MaxOpening int
	// QueueBytes bounds the transmit queue of an association in bytes of
	// segments; by default 16 MiB, which is 64 flows with a full 256 KiB burst.
	QueueBytes int
	// Logger is used for peers and associations, never for packets.
	Logger *slog.Logger
}

func (c *Config) defaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	num := func(d *int, v int) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Keepalive, 15*time.Second)
	def(&c.DeadAfter, 10*time.Second)
	def(&c.HelloTimeout, 10*time.Second)
	def(&c.SessionGrace, 5*time.Minute)
	num(&c.PathMTU, DefaultPathMTU)
	num(&c.MaxSessions, 65536)
	num(&c.MaxOpening, 1024)
	num(&c.QueueBytes, 16<<20)
	if c.Instance == (InstanceID{}) {
		rand.Read(c.Instance[:]) // never fails since Go 1.24
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Node is this side of all tunnels: its peers, their associations and their
// sessions.
type Node struct {
	cfg      Config
	log      *slog.Logger
	start    time.Time
	echoMask uint64
	counters counters
	wg       sync.WaitGroup

	mu        sync.RWMutex
	closed    bool
	draining  bool
	sessions  map[uint64]*session
	bySource  map[sourceKey]*session // sessions that peers opened
	instances map[instanceKey]*instance
	links     map[*Link]struct{}
	peers     []*Peer
	changed   chan struct{} // closed and replaced when a link becomes ready
}

// sourceKey finds the session of a repeated SYN: by the peer's instance and
// the peer's own id.
type sourceKey struct {
	inst *instance
	id   uint64
}

// New makes a Node. It starts nothing.
func New(cfg Config) *Node {
	cfg.defaults()
	return &Node{
		cfg: cfg, log: cfg.Logger, start: time.Now(), echoMask: randomUint64(),
		sessions: map[uint64]*session{}, bySource: map[sourceKey]*session{},
		instances: map[instanceKey]*instance{}, links: map[*Link]struct{}{},
		changed: make(chan struct{}),
	}
}

// now returns the time since the node's start in nanoseconds.
func (n *Node) now() int64 { return int64(time.Since(n.start)) }

// Instance returns this run's id.
func (n *Node) Instance() InstanceID { return n.cfg.Instance }

// Run dials the configured peers and watches associations and sessions until
// ctx ends; then it ends every association and returns when all its
// goroutines have. It must be called once.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.mu.RLock()
	peers := slices.Clone(n.peers)
	n.mu.RUnlock()
	for _, p := range peers {
		n.wg.Add(1)
		go func() {
			defer n.wg.Done()
			p.run(ctx)
		}()
	}
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			n.sweep()
		case <-ctx.Done():
			n.stop()
			n.wg.Wait()
			return nil
		}
	}
}

func (n *Node) stop() {
	n.mu.Lock()
	n.closed = true
	links := make([]*Link, 0, len(n.links))
	for l := range n.links {
		links = append(links, l)
	}
	n.mu.Unlock()
	for _, l := range links {
		l.secure.Close(errStopped)
		l.Detach(errStopped)
	}
}

// Drain refuses new sessions from now on and tells every peer that this side
// stops within d.
func (n *Node) Drain(d time.Duration) {
	n.mu.Lock()
	n.draining = true
	links := n.liveLinks()
	n.mu.Unlock()
	for _, l := range links {
		l.control(&control{typ: ctlDrain, seconds: uint16(min(d/time.Second, 65535))})
	}
}

// liveLinks lists links that exchanged hellos. Node.mu is held.
func (n *Node) liveLinks() []*Link {
	var ls []*Link
	for l := range n.links {
		if l.inst.Load() != nil {
			ls = append(ls, l)
		}
	}
	return ls
}

// sweep watches links, and ends sessions and instances whose time is over.
func (n *Node) sweep() {
	now := n.now()
	n.mu.RLock()
	links := make([]*Link, 0, len(n.links))
	for l := range n.links {
		links = append(links, l)
	}
	n.mu.RUnlock()
	for _, l := range links {
		l.watch(now)
	}
	n.expire(now)
}

// expire frees tombstones, and the sessions of instances that stayed away.
func (n *Node) expire(now int64) {
	var orphans []uint64
	n.mu.Lock()
	for id, s := range n.sessions {
		if st := s.getState(); st == closing || st == refused {
			last := max(s.closedAt.Load(), s.lastUse.Load())
			if time.Duration(now-last) > tombstone {
				n.forget(id, s)
			}
		}
	}
	for key, inst := range n.instances {
		if inst.link.Load() != nil {
			continue
		}
		if inst.sessions.Load() == 0 || time.Since(inst.detached) > n.cfg.SessionGrace {
			orphans = append(orphans, n.orphan(inst)...)
			delete(n.instances, key)
		}
	}
	n.mu.Unlock()
	for _, id := range orphans {
		n.cfg.Stack.Abort(id, syscall.ECONNRESET)
	}
}

// forget removes a session from the tables. Node.mu is held.
func (n *Node) forget(id uint64, s *session) {
	delete(n.sessions, id)
	if !s.initiator {
		delete(n.bySource, sourceKey{s.inst, s.remote.Load()})
	}
	s.inst.sessions.Add(-1)
}

// orphan removes the sessions of inst and lists those that still have an
// endpoint. Node.mu is held.
func (n *Node) orphan(inst *instance) []uint64 {
	var ids []uint64
	for id, s := range n.sessions {
		if s.inst != inst {
			continue
		}
		if st := s.getState(); st == opening || st == open {
			ids = append(ids, id)
		}
		n.forget(id, s)
	}
	return ids
}

// Open makes a session for a flow from src to dst through the peer of that
// name: a dialled peer, or a name that a connected peer has proven. It waits
// for an association until ctx ends. The session's id is given to the stack
// for a connect, and must be given back by Release.
//
// Errors: ErrNoPeer when the name is not connected in time, ErrOverload at the
// limit of sessions, ErrDraining when this side or the peer is stopping.
func (n *Node) Open(ctx context.Context, peer string, src, dst netip.AddrPort) (uint64, error) {
	ends := gue.SessionAddrs{Src: src.Addr(), Dst: dst.Addr()}
	if ends.Len() == 0 {
		return 0, fmt.Errorf("tunnel: flow from %v to %v: %w", src, dst, syscall.EAFNOSUPPORT)
	}
	inst, err := n.waitInstance(ctx, peer)
	if err != nil {
		return 0, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed || n.draining:
		return 0, ErrDraining
	case len(n.sessions) >= n.cfg.MaxSessions:
		return 0, ErrOverload
	}
	s := n.newSession(inst)
	s.initiator, s.src, s.dst = true, src, dst
	n.counters.sessionsOpened.Add(1)
	return s.id, nil
}

// newSession draws an id and enters the session. Node.mu is held.
func (n *Node) newSession(inst *instance) *session {
	s := &session{inst: inst, opened: time.Now()}
	for {
		s.id = randomUint64()
		if _, taken := n.sessions[s.id]; s.id != 0 && !taken {
			break
		}
	}
	s.lastUse.Store(n.now())
	n.sessions[s.id] = s
	inst.sessions.Add(1)
	return s
}

// waitInstance finds the connected instance of a peer's name.
func (n *Node) waitInstance(ctx context.Context, name string) (*instance, error) {
	for {
		n.mu.RLock()
		inst := n.find(name)
		changed := n.changed
		closed := n.closed
		n.mu.RUnlock()
		if closed {
			return nil, ErrDraining
		}
		if inst != nil {
			if l := inst.link.Load(); l != nil {
				if l.draining.Load() {
					return nil, ErrDraining
				}
				return inst, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ErrNoPeer
		}
	}
}

// find picks the instance that carries for name: the dialled peer of that
// name first, else the newest association of an identity that has it. Node.mu
// is held for reading.
func (n *Node) find(name string) *instance {
	for _, p := range n.peers {
		if p.cfg.Name == name {
			return p.inst.Load()
		}
	}
	var best *instance
	var since time.Time
	for _, inst := range n.instances {
		l := inst.link.Load()
		if l != nil && inst.peer == nil && inst.identity.Has(name) && l.since.After(since) {
			best, since = inst, l.since
		}
	}
	return best
}

// Session returns what is known of the session with the own id.
func (n *Node) Session(id uint64) (SessionInfo, bool) {
	if s := n.session(id); s != nil {
		return s.info(), true
	}
	return SessionInfo{}, false
}

func (n *Node) session(id uint64) *session {
	n.mu.RLock()
	s := n.sessions[id]
	n.mu.RUnlock()
	return s
}

// Established marks a session as connected at both ends.
func (n *Node) Established(id uint64) {
	if s := n.session(id); s != nil && s.state.CompareAndSwap(uint32(opening), uint32(open)) && !s.initiator {
		s.inst.opening.Add(-1)
	}
}

// Release ends a session whose flow has ended here, however it ended. The ids
// stay mapped for late segments for a while. It is idempotent.
func (n *Node) Release(id uint64) { n.close(id, closing, refusedUnspecified) }

// Refuse ends a session that a peer opened, and tells it why: reason is
// compared with the errno values of a failed connect and with this package's
// errors. The reason is told again when the SYN is repeated.
func (n *Node) Refuse(id uint64, reason error) {
	r := refusalOf(reason)
	if s := n.close(id, refused, r); s != nil {
		n.tellRefused(s, r)
	}
}

func (n *Node) tellRefused(s *session, r refusal) {
	if l := s.inst.link.Load(); l != nil {
		l.control(&control{typ: ctlRefused, session: s.remote.Load(), reason: r})
	}
}

func (n *Node) close(id uint64, to sessionState, r refusal) *session {
	s := n.session(id)
	if s == nil {
		return nil
	}
	for {
		was := s.getState()
		if was == closing || was == refused {
			return nil
		}
		s.reason.Store(uint32(r))
		s.closedAt.Store(n.now())
		if s.state.CompareAndSwap(uint32(was), uint32(to)) {
			if was == opening && !s.initiator {
				s.inst.opening.Add(-1)
			}
			n.counters.sessionsClosed.Add(1)
			return s
		}
	}
}
