package homa

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/tougw/tougw/homa/wire"
)

// CallOptions say what to call.
type CallOptions struct {
	To     netip.AddrPort // server
	From   uint16         // source port; 0: Config.ClientPort
	Length int            // of the request in bytes, 1 to Config.MaxMessage
	Value  any            // initial RPC.Value
}

// Engine is one Homa endpoint: an address (or several that peers take for one
// host) with its ports. It is not safe for concurrent use.
type Engine struct {
	config     Config
	configured map[netip.Addr]PeerConfig
	ports      map[uint16]struct{} // served
	peers      map[netip.Addr]*peer
	last       *peer // the peer looked up last
	idle       peer  // head of the list of idle peers, longest idle first
	calls      map[uint64]*RPC
	nextID     uint64
	numServed  int
	unread     int
	birth      uint64 // counts messages
	tombstones ring[buried]
	graves     map[grave]remains
	graveEnds  ring[buriedGrave]

	// Time, see timer.go.
	now     Instant
	base    Instant // of tick 1
	started bool
	tick    int64
	fired   int64         // ticks up to this one have had their timers
	busy    time.Duration // that data received has taken on a link of GrantRate
	wheel   wheel
	askers  []*peer // with RPCs that wait to ask
	// askersServed is the tick when they were served.
	askersServed int64

	chunks        chunkStore
	receive, send memory
	grants        granter
	numGaps       int // of all messages

	sendable      heap[*RPC]
	sendableByAge heap[*RPC]
	fifoCredit    int // bytes times per mille that the oldest message has to get
	linkIdle      Instant
	controls      ring[controlItem]
	numRaw        int

	events ring[Event]
	in     wire.Packet // decoded, valid during Receive
	packet []byte      // the same as it came
	out    wire.Packet // to be encoded
	stats  Stats
}

// New returns an Engine at rest. Errors name the field of config that is out of
// range.
func New(config Config) (*Engine, error) {
	c := config.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	e := &Engine{
		config:     c,
		configured: make(map[netip.Addr]PeerConfig),
		ports:      make(map[uint16]struct{}),
		peers:      make(map[netip.Addr]*peer),
		calls:      make(map[uint64]*RPC),
		graves:     make(map[grave]remains),
		nextID:     c.FirstID,
	}
	if e.nextID == 0 {
		e.nextID = 1<<32 + rand.Uint64N(1<<62)&^1
	}
	e.idle.idlePrev, e.idle.idleNext = &e.idle, &e.idle
	e.sendable.id, e.sendableByAge.id = heapSend, heapSendAge
	e.receive = memory{limit: c.ReceiveMemory, peerLimit: c.PeerReceiveMemory, admitted: e.receiveAdmitted}
	e.send = memory{limit: c.SendMemory, peerLimit: c.PeerSendMemory, admitted: e.sendAdmitted}
	e.receive.waiting.id, e.send.waiting.id = heapReceive, heapTransmit
	e.grants.init(e)
	return e, nil
}

// SetPeer sets what is particular about a peer, for RPCs and packets from now on.
// The engine keeps it until ClearPeer.
func (e *Engine) SetPeer(addr netip.Addr, config PeerConfig) error {
	addr = addr.Unmap()
	if err := config.over(e.config.Peer).check(); err != nil {
		return fmt.Errorf("peer %v: %w", addr, err)
	}
	e.configured[addr] = config
	if p := e.lookup(addr); p != nil {
		e.reconfigure(p)
	}
	return nil
}

// ClearPeer returns a peer to the defaults.
func (e *Engine) ClearPeer(addr netip.Addr) {
	addr = addr.Unmap()
	delete(e.configured, addr)
	if p := e.lookup(addr); p != nil {
		e.reconfigure(p)
	}
}

// reconfigure follows a change of what is set for a peer.
func (e *Engine) reconfigure(p *peer) {
	p.versions, p.looked, p.against = wire.AllVersions, 0, 0
	if e.fixedVersion(p.addr) {
		p.versions = 0
	}
	p.config = e.peerConfig(p.addr, e.config.Peer.Version)
}

// Listen serves a port: requests to it become Request events. Linux hosts call
// ports 1 to 32767; any but 0 will do. A port already served is ErrAddress.
func (e *Engine) Listen(port uint16) error {
	if _, ok := e.ports[port]; ok || port == 0 {
		return fmt.Errorf("%w: port %d is 0 or served already", ErrAddress, port)
	}
	e.ports[port] = struct{}{}
	return nil
}

// Called returns the RPC of this side as a client with an id; nil when there is
// none.
func (e *Engine) Called(id uint64) *RPC { return e.calls[id] }

// Served returns the RPC that this side serves for a client under the id that the
// client has for it; nil when there is none.
func (e *Engine) Served(client netip.Addr, id uint64) *RPC {
	if p := e.lookup(client); p != nil {
		if r := p.served[id^1]; !isTombstone(r) {
			return r
		}
	}
	return nil
}

// Unlisten ends that. RPCs that have begun go on.
func (e *Engine) Unlisten(port uint16) { delete(e.ports, port) }

// Call begins an RPC: it reserves memory for the request, which Write then
// supplies. Errors: ErrTooLong, ErrAddress, ErrBusy, ErrMemory.
func (e *Engine) Call(now Instant, options CallOptions) (*RPC, error) {
	if options.Length < 1 || options.Length > e.config.MaxMessage {
		return nil, fmt.Errorf("%w: request of %d bytes, must be 1 to %d", ErrTooLong, options.Length, e.config.MaxMessage)
	}
	addr := options.To.Addr().Unmap()
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || options.To.Port() == 0 {
		return nil, fmt.Errorf("%w: cannot call %v", ErrAddress, options.To)
	}
	e.touch(now)
	if len(e.calls) >= e.config.MaxCalls {
		return nil, fmt.Errorf("%w: %d calls wait for responses", ErrBusy, len(e.calls))
	}
	p := e.obtain(addr)
	if p == nil {
		return nil, fmt.Errorf("%w: %d peers have RPCs", ErrBusy, len(e.peers))
	}
	share := shareOf(options.Length)
	if !e.config.Virtual && !e.send.fits(&p.send, share) {
		return nil, fmt.Errorf("%w: request of %d bytes to %v", ErrMemory, options.Length, addr)
	}
	r := &RPC{engine: e, peer: p, id: e.nextID, local: options.From, remote: options.To.Port(), client: true, value: options.Value}
	e.nextID += 2
	if r.local == 0 {
		r.local = e.config.ClientPort
	}
	r.in.slot, r.stats.Begun = -1, e.now
	e.setState(r, Sending)
	e.ref(p)
	e.calls[r.id] = r
	p.link(r)
	e.stats.Called++
	e.beginSend(r, options.Length)
	if !e.config.Virtual {
		e.send.take(&p.send, &r.out.memory)
	}
	e.listen(r)
	e.schedule(r, e.tick+int64(p.config.ResendTicks))
	return r, nil
}

// Advance runs the timers that are due. Time by which the owner is late for
// Deadline does not count as silence of peers.
func (e *Engine) Advance(now Instant) {
	e.touch(now)
	e.runTimers()
	if at, ok := e.sweepAt(); ok && at <= e.now {
		e.sweep()
	}
}

// Room gives the time when the backlog of the pacer has fallen to Config.MinBacklog,
// and false if no data waits for it. Transmit gives data then at the latest. It is
// part of Deadline, and no timer: no packet that arrives can make it needless.
func (e *Engine) Room() (Instant, bool) {
	return e.linkIdle.Add(-e.config.MinBacklog), e.config.LinkRate > 0 && e.sendable.len() > 0
}

// Deadline is when Advance must be called, or Transmit because the pacer then
// has room; false if there is nothing to wait for. It may be in the past.
func (e *Engine) Deadline() (at Instant, ok bool) {
	at, ok = e.sweepAt()
	earlier := func(t Instant) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	if e.wheel.count > 0 {
		earlier(e.instantOf(e.wheel.next()))
	}
	if len(e.askers) > 0 {
		earlier(e.instantOf(e.fired + 1))
	}
	if at, ok := e.Room(); ok {
		earlier(at)
	}
	return at, ok
}

// Event returns the next event, or false. At most one Readable and one Writable
// of an RPC wait at a time.
func (e *Engine) Event() (Event, bool) {
	for e.events.len() > 0 {
		event := e.events.pop()
		r := event.RPC
		switch event.Kind {
		case Readable:
			r.readableWaits = false
			if r.state != Receiving || r.Buffered() == 0 {
				continue
			}
		case Writable:
			r.writableWaits = false
			if r.state != Sending {
				continue
			}
		case Complete:
			if r.err != nil {
				continue // Failed follows, or Abort was called
			}
		}
		return event, true
	}
	return Event{}, false
}

func (e *Engine) pushEvent(r *RPC, kind EventKind, err error) {
	switch kind {
	case Readable:
		if r.readableWaits {
			return
		}
		r.readableWaits = true
	case Writable:
		if r.writableWaits {
			return
		}
		r.writableWaits = true
	}
	e.events.push(Event{kind, r, err})
}

// Stats returns counters and levels. It does not allocate.
func (e *Engine) Stats() Stats {
	s := e.stats
	s.Tombstones, s.Peers, s.Unread = e.tombstones.len()+e.graveEnds.len(), len(e.peers), e.unread
	s.WaitingReceive, s.WaitingSend = e.receive.numWaiting, e.send.numWaiting
	s.HeldReceive, s.HeldSend = e.receive.held, e.send.held
	s.ReservedReceive, s.ReservedSend = e.receive.reserved, e.send.reserved
	s.GrantActive, s.GrantWaiting, s.Incoming = len(e.grants.active), e.grants.numWait, e.grants.incoming
	return s
}
