package tunnel

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tougw/tougw/gue"
)

// Secure is an association as the tunnel needs it. All methods are safe for
// concurrent use.
type Secure interface {
	// Overhead is what a record adds before and after its plaintext, at most,
	// in bytes.
	Overhead() (head, tail int)
	// Seal protects b[head:head+n] in place and returns the record's length;
	// the record begins at b[0].
	Seal(b []byte, n int) (int, error)
	// Send sends b, which holds records of size bytes, the last of which may
	// be shorter. It borrows b.
	Send(b []byte, size int) error
	// Remote is the address of the peer.
	Remote() netip.AddrPort
	// Close ends the association and tells the peer. It is idempotent.
	Close(reason error) error
}

// Outer headers that a datagram adds to its payload, in bytes.
const (
	outerIPv4 = 20 + 8
	outerIPv6 = 40 + 8
)

// Link is one association with a peer, from the end of its handshake to its
// close. It carries sessions once hellos were exchanged.
type Link struct {
	node     *Node
	secure   Secure
	identity Identity
	peer     *Peer // when this side dialled, else nil
	since    time.Time

	head, tail int // overhead of a record
	maxPlain   int // largest plaintext that fits the path MTU; set before the link carries
	pathMTU    int

	inst  atomic.Pointer[instance] // nil until the hello
	queue *queue
	done  chan struct{} // closed when the association is gone
	ready chan struct{} // closed when the hello was received
	once  sync.Once
	err   error // why it ended; valid when done is closed

	lastRx, lastTx    atomic.Int64 // ticks of the node
	bytesIn, bytesOut atomic.Uint64
	rtt               atomic.Int64  // smoothed, in ns; 0 unknown
	probing           atomic.Int64  // tick of the first unanswered probe; 0 none
	draining          atomic.Bool   // the peer is stopping
	retired           atomic.Int64  // tick when a newer link took over; 0 never
	suspect           chan struct{} // holds a token while the link seems dead
}

// Attach takes a new association of a peer that proved identity. peer is the
// dialled peer, or nil when the peer dialled. The association's owner calls
// Detach when it has ended.
func (n *Node) Attach(secure Secure, identity Identity, peer *Peer) *Link {
	l := &Link{
		node: n, secure: secure, identity: identity, peer: peer, since: time.Now(),
		queue: newQueue(n.cfg.QueueBytes), done: make(chan struct{}), ready: make(chan struct{}),
		suspect: make(chan struct{}, 1),
	}
	l.head, l.tail = secure.Overhead()
	mtu := n.cfg.PathMTU
	if peer != nil && peer.cfg.PathMTU != 0 {
		mtu = peer.cfg.PathMTU
	}
	l.setPathMTU(mtu)
	now := n.now()
	l.lastRx.Store(now)
	l.lastTx.Store(now)
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		l.end(errStopped)
		secure.Close(errStopped)
		return l
	}
	n.links[l] = struct{}{}
	n.wg.Add(1)
	n.mu.Unlock()
	n.counters.linksUp.Add(1)
	go l.transmit()
	if peer != nil {
		l.sendHello(true)
	}
	return l
}

func (l *Link) setPathMTU(outer int) {
	over := outerIPv4
	if a := l.secure.Remote().Addr(); a.Is6() && !a.Is4In6() {
		over = outerIPv6
	}
	l.pathMTU = outer
	l.maxPlain = outer - over - l.head - l.tail
}

// Ready is closed when the link can carry sessions.
func (l *Link) Ready() <-chan struct{} { return l.ready }

// Done is closed when the link has ended.
func (l *Link) Done() <-chan struct{} { return l.done }

// Err says why the link ended. It is valid once Done is closed.
func (l *Link) Err() error { return l.err }

// Detach tells the link that its association has ended with err.
func (l *Link) Detach(err error) {
	n := l.node
	l.end(err)
	n.mu.Lock()
	_, known := n.links[l]
	delete(n.links, l)
	inst := l.inst.Load()
	var gone bool
	if inst != nil && inst.link.CompareAndSwap(l, nil) {
		inst.detached = time.Now()
		gone = true
	}
	n.mu.Unlock()
	if known {
		n.counters.linksDown.Add(1)
	}
	if gone {
		n.log.Info("peer is without an association", "peer", l.identity.Name(), "instance", inst.key.id, "err", err)
	}
}

func (l *Link) end(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.done)
	})
}

// control sends one control message at once, past the queue.
func (l *Link) control(c *control) {
	var buf [256]byte
	head, tail := l.head, l.tail
	// Neither call can fail: the buffer holds the largest message with the
	// largest overhead of a record.
	hlen, err := gue.Experiment{ExID: gue.ExIDTougw}.Encode(buf[head:])
	if err != nil || head+hlen+controlMax+tail > len(buf) {
		l.node.counters.drops.count(DropTooLarge)
		return
	}
	b := c.append(buf[:head+hlen])
	n, err := l.secure.Seal(buf[:], len(b)-head)
	if err != nil {
		l.node.counters.drops.count(DropSeal)
		return
	}
	if err := l.secure.Send(buf[:n], n); err != nil {
		l.node.counters.drops.count(DropSend)
	}
	l.lastTx.Store(l.node.now())
	l.bytesOut.Add(uint64(n))
	l.node.counters.controlOut.Add(1)
}

func (l *Link) sendHello(reply bool) {
	l.control(&control{typ: ctlHello, hello: hello{
		reply: reply, low: protocolVersion, high: protocolVersion,
		instance: l.node.cfg.Instance, pathMTU: uint16(l.pathMTU),
	}})
}

// sendEcho asks for a sign of life and measures the round trip by it. The
// token is the time of sending, under a mask that the peer does not know, so
// that a reply can be recognised without keeping state.
func (l *Link) sendEcho() {
	l.control(&control{typ: ctlEchoRequest, token: uint64(time.Since(l.node.start)) ^ l.node.echoMask})
}

func (l *Link) gotEcho(token uint64) {
	sample := time.Since(l.node.start) - time.Duration(token^l.node.echoMask)
	if sample <= 0 || sample > time.Minute {
		return // not an echo of ours, or a very late one
	}
	old := time.Duration(l.rtt.Load())
	if old == 0 {
		l.rtt.Store(int64(sample))
		return
	}
	l.rtt.Store(int64(old + (sample-old)/8)) // RFC 6298 section 2.3
}

// received notes a sign of life.
func (l *Link) received(now int64, bytes int) {
	l.lastRx.Store(now)
	l.bytesIn.Add(uint64(bytes))
	if l.probing.Load() != 0 {
		l.probing.Store(0)
		select {
		case <-l.suspect:
		default:
		}
	}
}

// watch is called on each tick: it keeps the association alive while it is
// silent, probes it when what was sent found no answer, and ends it when
// probes found none either.
func (l *Link) watch(now int64) {
	if l.inst.Load() == nil {
		l.watchHello()
		return
	}
	if at := l.retired.Load(); at != 0 {
		if time.Duration(now-at) >= replaceGrace {
			l.secure.Close(errReplaced)
		}
		return
	}
	cfg := &l.node.cfg
	silent := time.Duration(now - l.lastRx.Load())
	switch since := l.probing.Load(); {
	case since != 0:
		if time.Duration(now-since) >= cfg.DeadAfter {
			l.secure.Close(errDead)
			return
		}
		if time.Duration(now-since) >= suspectAfter {
			select {
			case l.suspect <- struct{}{}:
			default:
			}
		}
		l.sendEcho()
	case silent >= cfg.Keepalive, l.lastTx.Load() > l.lastRx.Load() && silent >= probeAfter:
		l.probing.Store(now)
		l.sendEcho()
	}
}

// watchHello repeats the hello of the dialling side until it is answered, and
// gives up on a peer that says none.
func (l *Link) watchHello() {
	if time.Since(l.since) > l.node.cfg.HelloTimeout {
		l.secure.Close(errNoHello)
		return
	}
	if l.peer != nil {
		l.sendHello(true)
	}
}

func randomUint64() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return binary.BigEndian.Uint64(b[:])
}
