package tunnel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Back-off of a dialler: doubled after each failure from first to last, and
// drawn evenly between half of it and all of it so that clients of one gateway
// do not return together. A link that lived longer than settled starts anew,
// one that ended sooner counts as a failure.
const (
	backoffFirst = 250 * time.Millisecond
	backoffLast  = 30 * time.Second
	settled      = 20 * time.Second
)

// PeerConfig describes a peer that this side dials.
type PeerConfig struct {
	// Name is what rules call it.
	Name string
	// Endpoints are tried in turn, at least one; their form is the Dial
	// function's affair.
	Endpoints []string
	// PathMTU is the largest outer packet in bytes; by default the node's.
	PathMTU int
	// Dial makes an association with an endpoint and attaches it to the node
	// with this peer. It returns when the handshake is over or ctx ends.
	Dial func(ctx context.Context, p *Peer, endpoint string) (*Link, error)
}

// Peer is a gateway that this side dials, and keeps dialled.
type Peer struct {
	node *Node
	cfg  PeerConfig

	inst    atomic.Pointer[instance] // the newest instance met
	mu      sync.Mutex
	state   string
	lastErr error
	dialled int // attempts since the last success
}

// AddPeer adds a peer; it is dialled by Run, and must be added before.
func (n *Node) AddPeer(cfg PeerConfig) *Peer {
	p := &Peer{node: n, cfg: cfg, state: "idle"}
	n.mu.Lock()
	n.peers = append(n.peers, p)
	n.mu.Unlock()
	return p
}

// Name returns the peer's configured name.
func (p *Peer) Name() string { return p.cfg.Name }

func (p *Peer) set(state string, err error) {
	p.mu.Lock()
	p.state = state
	if err != nil {
		p.lastErr = err
	}
	p.mu.Unlock()
}

// run keeps one association alive until ctx ends. While an association is
// silent, it makes another beside it and lets that take over.
func (p *Peer) run(ctx context.Context) {
	log := p.node.log.With("peer", p.cfg.Name)
	backoff := backoffFirst
	next := 0
	for ctx.Err() == nil {
		endpoint := p.cfg.Endpoints[next%len(p.cfg.Endpoints)]
		p.set("connecting", nil)
		l, err := p.connect(ctx, endpoint)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			next++
			p.mu.Lock()
			p.dialled++
			p.mu.Unlock()
			wait := backoff/2 + rand.N(backoff/2)
			p.set("waiting", err)
			log.Warn("no association with peer", "endpoint", endpoint, "err", err, "retry_in", wait.Round(time.Millisecond))
			backoff = min(2*backoff, backoffLast)
			if !pause(ctx, wait) {
				return
			}
			continue
		}
		p.mu.Lock()
		p.dialled, p.lastErr = 0, nil
		p.mu.Unlock()
		p.set("up", nil)
		log.Info("association with peer is up", "endpoint", endpoint, "remote", l.secure.Remote(), "identity", l.identity.Name())
		up := time.Now()
		l, failed := p.guard(ctx, l, endpoint)
		if ctx.Err() != nil {
			return
		}
		log.Warn("association with peer ended", "err", l.Err())
		p.set("down", l.Err())
		if failed {
			next++ // nobody answers there: do not wait for that once more
		}
		if time.Since(up) > settled {
			backoff = backoffFirst
		}
		if !pause(ctx, rand.N(backoff)) {
			return
		}
		backoff = min(2*backoff, backoffLast)
	}
}

// guard waits until the link has ended, and returns the last link. A silent
// link gets a rival at the same endpoint, which takes over once it is there.
// failed says that the last rival found nobody.
func (p *Peer) guard(ctx context.Context, l *Link, endpoint string) (last *Link, failed bool) {
	for {
		select {
		case <-l.done:
			return l, failed && l.doubtful()
		case <-ctx.Done():
			return l, false
		case <-l.suspect:
		}
		select {
		case <-l.done:
			continue // first, though both are due
		default:
		}
		if !l.doubtful() {
			continue // it has answered since
		}
		rival, cancel := context.WithTimeout(ctx, p.node.cfg.HelloTimeout)
		fresh, err := p.connect(rival, endpoint)
		cancel()
		if failed = err != nil; failed {
			continue // the silent link either answers again or ends by itself
		}
		p.node.log.Info("a new association takes over", "peer", p.cfg.Name, "rekey", l.worn.Load())
		l = fresh
	}
}

// connect dials and waits for the hello.
func (p *Peer) connect(ctx context.Context, endpoint string) (*Link, error) {
	l, err := p.cfg.Dial(ctx, p, endpoint)
	if err != nil {
		return nil, err
	}
	select {
	case <-l.ready:
		return l, nil
	case <-l.done:
		if err := l.Err(); err != nil {
			return nil, err
		}
		return nil, errors.New("tunnel: association ended before the hello")
	case <-ctx.Done():
		l.close(ctx.Err())
		return nil, fmt.Errorf("tunnel: waiting for the hello: %w", ctx.Err())
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
