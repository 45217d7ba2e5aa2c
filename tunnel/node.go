package tunnel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
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
	// openingIdle is how long a session that a peer opens may stay without a
	// segment: longer than the 64 s between the last two SYNs of Linux, and than
	// any stack waits for the next one. Beyond it nobody works on the session:
	// its SYN was refused by the stack, or never reached it.
	openingIdle = 3 * time.Minute
	// openingCheck is how often such sessions are looked for.
	openingCheck = 10 * time.Second
	// minTombstones is how many ended sessions are kept mapped however few may be
	// open: about a minute of 60 short flows a second.
	minTombstones = 4096
	// replaceGrace is how long a replaced association is kept for records that
	// are still on their way.
	replaceGrace = 2 * time.Second
	// rekeyShare is the part of the limits of its keys at which an association
	// is replaced in any case. At 10 Gbit/s the other half lasts three minutes.
	rekeyShare = 0.5
)

var (
	errDead      = errors.New("tunnel: peer does not answer")
	errNoHello   = errors.New("tunnel: peer said no hello")
	errVersion   = errors.New("tunnel: no common protocol version")
	errStopped   = errors.New("tunnel: stopped")
	errReplaced  = errors.New("tunnel: replaced by a newer association")
	errInstance  = errors.New("tunnel: peer changed its instance within an association")
	errInstances = errors.New("tunnel: too many instances of one identity")
	errLinks     = errors.New("tunnel: too many associations of one identity")
	errSpent     = errors.New("tunnel: the association protects no more records")

	// errPeerRestarted ends the flows of a peer that came back as another
	// instance: what it knew of them is gone.
	errPeerRestarted = fmt.Errorf("peer restarted: %w", syscall.ECONNRESET)

	// errUnknown ends a flow whose session the peer does not know any more.
	errUnknown = fmt.Errorf("peer does not know the session: %w", syscall.ECONNRESET)
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
	// Datagrams takes packets of DatagramProtocols, which are no segments of Stack.
	// Nil: they are dropped.
	Datagrams         Datagrams
	DatagramProtocols []gue.Protocol
	// PathMTU is the largest outer packet in bytes, MinPathMTU to 65535. The
	// smaller of this and the peer's own is used; a side that says nothing takes
	// the peer's, and both take DefaultPathMTU when neither does.
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
	// MaxSessions bounds the sessions that have not ended; by default 65536. As
	// many ended ones, and 4096 at least, are kept mapped for late segments, the newest. An identity
	// may open sessions here until it holds eight times what is left free, which
	// alone is eight ninths of all: nobody takes the last place from the others.
	MaxSessions int
	// MaxOpening bounds the sessions that one identity is opening here; by
	// default 1024.
	MaxOpening int
	// QueueBytes bounds the transmit queue of an association in bytes of
	// segments; by default 16 MiB, which is 64 flows with a full 256 KiB burst. A
	// flow alone gets eight ninths of it, and flows that have nothing waiting one
	// segment each up to an eighth above it.
	QueueBytes int
	// RekeyAfter and RekeyBytes are the age of an association, and the bytes of
	// its records in the direction that has more, after which the dialling side
	// makes a new one and lets that take over; by default an hour and 64 GiB.
	// Whatever they say, it does so at half of the limits of the keys.
	RekeyAfter time.Duration
	RekeyBytes uint64
	// Usage tells the bytes of an association's records in the direction that
	// has more, and which part of the limits of its keys is used, from 0 to 1. By
	// default nothing is known, and age alone counts.
	Usage func(Secure) (bytes uint64, share float64)
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
	def(&c.RekeyAfter, time.Hour)
	if c.RekeyBytes == 0 {
		c.RekeyBytes = 64 << 30
	}
	if c.Usage == nil {
		c.Usage = func(Secure) (uint64, float64) { return 0, 0 }
	}
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
	corks    corks

	mu        sync.RWMutex
	closed    bool
	draining  bool
	sessions  map[uint64]*session
	bySource  map[sourceKey]*session // sessions that peers opened
	byRemote  map[sourceKey]*session // sessions that this side opened, once the peer's id is known
	live      int                    // sessions that have not ended
	tombs     fifo                   // sessions that have, by the time of their end
	instances map[instanceKey]*instance
	refs      map[PeerRef]*instance
	accounts  map[string]*account // by the key of the identity
	links     map[*Link]struct{}
	peers     []*Peer
	changed   chan struct{} // closed and replaced when a link becomes ready

	checked int64 // when openings were last looked through; belongs to Run
}

// New makes a Node. It starts nothing.
func New(cfg Config) *Node {
	cfg.defaults()
	return &Node{
		cfg: cfg, log: cfg.Logger, start: time.Now(), echoMask: randomUint64(),
		sessions: map[uint64]*session{}, bySource: map[sourceKey]*session{}, byRemote: map[sourceKey]*session{},
		instances: map[instanceKey]*instance{}, refs: map[PeerRef]*instance{}, accounts: map[string]*account{}, links: map[*Link]struct{}{},
		changed: make(chan struct{}),
	}
}

// now returns the time since the node's start in nanoseconds. It is never 0,
// which stands for never.
func (n *Node) now() int64 { return int64(time.Since(n.start)) + 1 }

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

// stop ends every link once what waits in its queue is sent: among it are the
// resets of flows that end with this side.
func (n *Node) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for l := range n.links {
		close(l.quit) // once: no link is added any more, and nobody else closes it
	}
	close(n.changed) // whoever waits for a peer waits in vain
	n.changed = make(chan struct{})
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
	if time.Duration(now-n.checked) >= openingCheck {
		n.checked = now
		n.abandon(now)
	}
}
