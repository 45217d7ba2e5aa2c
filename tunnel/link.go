package tunnel

import (
	"cmp"
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
	// SendRuns sends the runs that b holds one behind the other, and returns how
	// many of their records are known to be lost. It borrows both.
	SendRuns(b []byte, runs []Run) (lost int)
	// Remote is the address of the peer.
	Remote() netip.AddrPort
	// Close ends the association and tells the peer. It is idempotent.
	Close(reason error) error

	// SendVia is Send by another path on which the peer was heard, within the
	// bounds of what may be sent to an address that is not proven.
	SendVia(b []byte, size int, p Path) error
	// Arrived is the path of the records that are being delivered; it is asked
	// only then.
	Arrived() Path
	// Validate moves the association to a path on which the peer has answered,
	// and reports whether it is there.
	Validate(p Path) bool
}

// maxPlaintext is the most a record may protect, in bytes, however much the path
// carries: 2^14 (RFC 6347 section 4.1) less the content type that a record with a
// Connection ID has inside (RFC 9146 section 4).
const maxPlaintext = 1<<14 - 1

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

	head, tail int          // overhead of a record
	ownMTU     int          // path MTU that this side is configured for, 0 when it is not
	pathMTU    int          // the smaller of that and the peer's; set before the link carries
	maxPlain   atomic.Int64 // largest plaintext that fits it
	noSum      atomic.Bool  // the peer does without transport checksums: the record protects the segment

	inst    atomic.Pointer[instance] // nil until the hello
	queue   *queue
	out     burst         // of whoever sends what is queued
	done    chan struct{} // closed when the association is gone
	ready   chan struct{} // closed when the hello was received
	quit    chan struct{} // closed when the node stops
	closing atomic.Bool   // this side has ended it, and done will be closed
	once    sync.Once
	err     error // why it ended; valid when done is closed

	lastRx   atomic.Int64  // tick of the last sign of life
	lastTx   atomic.Int64  // tick of the last segments sent: control messages do not ask for an answer
	rtt      atomic.Int64  // smoothed, in ns; 0 unknown
	leastRTT atomic.Int64  // shortest, in ns; 0 unknown
	probing  atomic.Int64  // tick of the first unanswered probe; 0 none
	spent    atomic.Bool   // nothing can be sent any more
	draining atomic.Bool   // the peer is stopping
	retired  atomic.Int64  // tick when a newer link took over; 0 never
	worn     atomic.Bool   // its keys are due for replacement
	suspect  chan struct{} // holds a token while the link is to be replaced

	pathMu     sync.Mutex
	candidates []*candidate
}

// Attach takes a new association of a peer that proved identity. peer is the
// dialled peer, or nil when the peer dialled. The association's owner calls
// Detach when it has ended.
func (n *Node) Attach(secure Secure, identity Identity, peer *Peer) *Link {
	l := &Link{
		node: n, secure: secure, identity: identity, peer: peer, since: time.Now(),
		queue: newQueue(n.cfg.QueueBytes), done: make(chan struct{}), ready: make(chan struct{}),
		quit: make(chan struct{}), suspect: make(chan struct{}, 1),
	}
	l.head, l.tail = secure.Overhead()
	mtu := n.cfg.PathMTU
	if peer != nil && peer.cfg.PathMTU != 0 {
		mtu = peer.cfg.PathMTU
	}
	l.ownMTU = mtu
	l.setPathMTU(cmp.Or(mtu, DefaultPathMTU))
	now := n.now()
	l.lastRx.Store(now)
	l.lastTx.Store(now)
	if err := n.enter(l); err != nil {
		l.end(err)
		l.close(err)
		return l
	}
	n.counters.linksUp.Add(1)
	go l.transmit()
	if peer != nil {
		l.sendHello(true)
	}
	return l
}

// enter records a new link, unless there are too many.
func (n *Node) enter(l *Link) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errStopped
	}
	if l.peer == nil {
		a := n.account(l.identity.Key)
		if a.links >= maxIdentityLinks {
			return errLinks
		}
		a.links++
	}
	n.links[l] = struct{}{}
	n.wg.Add(1)
	return nil
}

// leave takes a link out. It reports whether the link was in, and its instance
// if that has no association any more.
func (n *Node) leave(l *Link) (known bool, lost *instance) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known = n.links[l]; !known {
		return false, nil
	}
	delete(n.links, l)
	if l.peer == nil {
		n.accounts[l.identity.Key].links--
		n.settle(l.identity.Key)
	}
	inst := l.inst.Load()
	if inst == nil {
		return true, nil
	}
	inst.unlink(l)
	if inst.link.Load() != nil || inst.gone {
		return true, nil
	}
	return true, inst
}

func (l *Link) setPathMTU(outer int) {
	l.pathMTU = outer
	l.fitPath()
}

// fitPath derives the room of a record from the path MTU and the family of the
// path.
func (l *Link) fitPath() {
	over := outerIPv4
	if a := l.secure.Remote().Addr(); a.Is6() && !a.Is4In6() {
		over = outerIPv6
	}
	l.maxPlain.Store(int64(min(l.pathMTU-over-l.head-l.tail, maxPlaintext)))
}

// Ready is closed when the link can carry sessions.
func (l *Link) Ready() <-chan struct{} { return l.ready }

// Done is closed when the link has ended.
func (l *Link) Done() <-chan struct{} { return l.done }

// Err says why the link ended. It is valid once Done is closed.
func (l *Link) Err() error { return l.err }

// Detach tells the link that its association has ended with err. It is
// idempotent.
func (l *Link) Detach(err error) {
	n := l.node
	l.end(err)
	known, lost := n.leave(l)
	if known {
		n.counters.linksDown.Add(1)
	}
	if lost != nil {
		n.log.Info("peer is without an association", "peer", l.identity.Name(), "instance", lost.key.id, "err", err)
	}
}

// close has the association ended and reports whether this is the first time;
// its owner detaches the link then. What still comes is ignored.
func (l *Link) close(err error) bool {
	first := !l.closing.Swap(true)
	// The error would only say that records or the alert were lost.
	_ = l.secure.Close(err)
	return first
}

// exhausted is called when the association refused to protect a record: it has
// used up its key. A dialled one is replaced by its dialler, which the other
// side can do no more than ask for, by ending it.
func (l *Link) exhausted() {
	if l.spent.Swap(true) {
		return
	}
	if l.peer == nil {
		l.close(errSpent)
		return
	}
	l.suspected()
}

// suspected wakes the dialler for a second association.
func (l *Link) suspected() {
	select {
	case l.suspect <- struct{}{}:
	default:
	}
}

// doubtful reports whether the link still deserves the token in suspect.
func (l *Link) doubtful() bool {
	at := l.probing.Load()
	return l.spent.Load() || l.worn.Load() || at != 0 && time.Duration(l.node.now()-at) >= suspectAfter
}

func (l *Link) end(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.done)
	})
}

// control sends one control message at once, past the queue.
func (l *Link) control(c *control) { l.sendControl(c, l.secure.Send) }

// controlVia sends one by a path that need not be the association's.
func (l *Link) controlVia(c *control, p Path) {
	l.sendControl(c, func(b []byte, size int) error { return l.secure.SendVia(b, size, p) })
}

func (l *Link) sendControl(c *control, send func(b []byte, size int) error) {
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
		l.exhausted()
		return
	}
	if err := send(buf[:n], n); err != nil {
		l.node.counters.drops.count(DropSend)
	}
	if inst := l.inst.Load(); inst != nil {
		inst.bytesOut.Add(uint64(len(b) - head))
	}
	l.node.counters.controlOut.Add(1)
}

func (l *Link) sendHello(reply bool) {
	l.control(&control{typ: ctlHello, hello: hello{
		reply: reply, low: protocolVersion, high: protocolVersion, capabilities: capNoChecksum,
		instance: l.node.cfg.Instance, pathMTU: uint16(l.ownMTU),
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
	if sample < 0 || sample > time.Minute {
		return // not an echo of ours, or a very late one
	}
	l.probing.Store(0)
	sample = max(sample, 1)
	if least := l.leastRTT.Load(); least == 0 || int64(sample) < least {
		l.leastRTT.Store(int64(sample)) // of two at once either will do
	}
	old := time.Duration(l.rtt.Load())
	if old == 0 {
		l.rtt.Store(int64(sample))
		return
	}
	l.rtt.Store(int64(old + (sample-old)/8)) // RFC 6298 section 2.3
}

// received notes a sign of life. The dialling side, which has to replace an
// association that is dead, takes none in being asked for one: that comes also
// from a peer whom nothing reaches any more.
func (l *Link) received(now int64, bytes int, asked bool) {
	if !asked || l.peer == nil {
		l.lastRx.Store(now)
	}
	if inst := l.inst.Load(); inst != nil {
		inst.bytesIn.Add(uint64(bytes))
	}
}

// watch is called on each tick: it keeps the association alive while it is
// silent, probes it when segments that were sent found no answer, and ends it
// when probes found none either. Only the answer to a probe counts as one: what
// else comes says nothing of the way there.
func (l *Link) watch(now int64) {
	if l.inst.Load() == nil {
		l.watchHello()
		return
	}
	if at := l.retired.Load(); at != 0 {
		if time.Duration(now-at) >= replaceGrace {
			l.close(errReplaced)
		}
		return
	}
	cfg := &l.node.cfg
	if l.peer != nil {
		bytes, share := cfg.Usage(l.secure)
		if time.Since(l.since) >= cfg.RekeyAfter || bytes >= cfg.RekeyBytes || share >= rekeyShare {
			l.worn.Store(true)
		}
		if l.worn.Load() || l.spent.Load() {
			l.suspected() // until a rival is there
		}
	}
	l.askAgain()
	silent := time.Duration(now - l.lastRx.Load())
	switch since := l.probing.Load(); {
	case since != 0:
		if time.Duration(now-since) >= cfg.DeadAfter {
			l.close(errDead)
			return
		}
		if l.doubtful() {
			l.suspected()
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
		l.close(errNoHello)
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
