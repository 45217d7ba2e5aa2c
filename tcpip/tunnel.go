package tcpip

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// minTunnelMTU: below it IPv6 refuses the interface and flows hang
	// without a word (RFC 8200 section 5).
	minTunnelMTU     = 1280
	defaultTunnelMTU = 1420
	defaultMaxRTO    = 2 * time.Second

	defaultTunnelPending = 16384

	// gsoHeadroom is what gVisor takes off GSOMaxSize for headers.
	gsoHeadroom = header.TCPTotalHeaderMaximumSize + 1
	maxGSO      = math.MaxUint16
	// maxSegment is the largest payload of a Segment.
	maxSegment = maxGSO - gsoHeadroom
)

// TunnelConfig configures a Tunnel. Every zero field but OnFlow has a default.
type TunnelConfig struct {
	// OnFlow is called, in a goroutine of its own, for each SYN that opens a
	// session. It decides p and returns soon after p.Done is closed; returning
	// without a decision is silence. Nil: every SYN gets an RST.
	OnFlow func(p *Pending)
	// Admit is asked once for each SYN that would open a session, before
	// OnFlow. False drops the SYN. It must not block. Nil admits all.
	Admit func(id uint64) bool
	// MTU is that of the stack's interface, in bytes with the IPv6 header that
	// exists only inside: 1280 to 65535. It only sets the MSS and what the
	// congestion window counts in, so it need not follow the path. Zero: 1420.
	MTU int
	// MaxSegment is the most payload, in bytes, that a Segment has: best a
	// multiple of what Cut gets into a record. Zero, and the most: 65374.
	MaxSegment int
	// MaxPending bounds the sessions that are being opened from outside; a SYN
	// beyond it is dropped. Zero: 16384.
	MaxPending int
	// MaxRTO bounds the back-off of retransmission, and so the wait after an
	// outage; a path slower than it is useless. At least 200 ms. Zero: 2 s.
	MaxRTO time.Duration
	// Turn is told about the turns of the goroutines that flush an Injector.
	// Nil: nobody.
	Turn Turn
	// Buffers sizes the buffers of each stream.
	Buffers BufferConfig
	// Logger gets what is worth a line, nothing per packet. Nil: nothing.
	Logger *slog.Logger
}

func (c TunnelConfig) withDefaults() (TunnelConfig, error) {
	if c.MTU == 0 {
		c.MTU = defaultTunnelMTU
	}
	if c.MTU < minTunnelMTU || c.MTU > math.MaxUint16 {
		return c, fmt.Errorf("tcpip: tunnel MTU %d is not within %d…%d", c.MTU, minTunnelMTU, math.MaxUint16)
	}
	if c.MaxSegment == 0 {
		c.MaxSegment = maxSegment
	}
	if c.MaxSegment < minTunnelMTU || c.MaxSegment > maxSegment {
		return c, fmt.Errorf("tcpip: largest segment %d is not within %d…%d", c.MaxSegment, minTunnelMTU, maxSegment)
	}
	if c.MaxPending == 0 {
		c.MaxPending = defaultTunnelPending
	}
	if c.MaxRTO == 0 {
		c.MaxRTO = defaultMaxRTO
	}
	if c.MaxRTO < tcp.MinRTO {
		return c, fmt.Errorf("tcpip: longest retransmission time-out %v is below %v", c.MaxRTO, tcp.MinRTO)
	}
	if c.Turn == nil {
		c.Turn = noTurn{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Buffers = c.Buffers.withDefaults(defaultTunnelRecv, defaultTunnelSend, defaultTunnelMax)
	return c, nil
}

// Tunnel is the stack that speaks TCP over sessions. It is safe for concurrent
// use.
type Tunnel struct {
	cfg   TunnelConfig
	out   func([]*Segment)
	acks  *ackHold[uint64, *Segment]
	link  *link
	stack *stack.Stack
	fwd   *tcp.Forwarder
	stats tunnelStats

	handlers sync.WaitGroup
	patience time.Duration // with one SYN

	mu      sync.Mutex
	closed  bool
	live    map[uint64]session
	pending int
	past    pastSet
}

// session is who has an id: a Pending, or a Stream.
type session struct {
	p *Pending
	s *Stream
}

// NewTunnel makes a Tunnel and starts the goroutines of its stack, which run
// until Close. out is called with segments that leave; it takes them (Release)
// and borrows the slice. It is called from any goroutine, several at a time,
// with an endpoint's lock held: it must not block, nor call into the Tunnel or a
// Stream; best it only appends to a queue.
func NewTunnel(cfg TunnelConfig, out func(segs []*Segment)) (*Tunnel, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &Tunnel{cfg: cfg, out: out, live: make(map[uint64]session), patience: minPatience, acks: newAckHold[uint64](out)}
	t.link = &link{
		mtu: uint32(cfg.MTU),
		// The pseudo-headers of the two ends differ: checksums are made and
		// verified by Segment and Injector.
		caps:  stack.CapabilityTXChecksumOffload | stack.CapabilityRXChecksumOffload,
		gso:   uint32(cfg.MaxSegment + gsoHeadroom),
		write: t.write,
	}
	if t.stack, err = newTunnelStack(t.link, cfg); err != nil {
		return nil, err
	}
	// The Forwarder's own limit is global and silent; ours comes first.
	t.fwd = tcp.NewForwarder(t.stack, cfg.Buffers.InitialRecv, math.MaxInt, t.handle)
	t.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, t.unknown)
	return t, nil
}

// Close resets every stream, ends what is pending and waits for the handlers
// and the goroutines of the stack. out may be called until it returns. A second
// call does nothing.
func (t *Tunnel) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	all := make([]session, 0, len(t.live))
	for _, e := range t.live {
		all = append(all, e)
	}
	t.mu.Unlock()
	for _, e := range all {
		e.abort(syscall.ECONNABORTED)
	}
	t.handlers.Wait()
	t.acks.close()
	t.stack.Destroy()
	return nil
}

// abort ends whatever has the id. No lock of the Tunnel is held.
func (e session) abort(reason error) {
	switch {
	case e.p != nil:
		e.p.end(reason)
	case e.s != nil:
		e.s.abort(reason)
	}
}

// Dial opens session id, which this side drew, with the given TCP ports, and
// waits for the handshake. Errors: the cause of ctx; ECONNREFUSED when the peer
// answered by RST; ETIMEDOUT when it did not answer for two minutes;
// EADDRINUSE when id is in use or was before; the reason given to Abort;
// net.ErrClosed after Close.
func (t *Tunnel) Dial(ctx context.Context, id uint64, localPort, remotePort uint16) (*Stream, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	s := t.stream(id, localPort, remotePort)
	ep, terr := t.stack.NewEndpoint(tcp.ProtocolNumber, ipv6.ProtocolNumber, &s.wq)
	if terr != nil {
		return nil, errno(terr)
	}
	s.bind(ep)
	if err := t.enter(id, s); err != nil {
		ep.Close()
		return nil, err
	}
	entry, connected := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	s.wq.EventRegister(&entry)
	defer s.wq.EventUnregister(&entry)
	s.watch()

	terr = ep.Bind(gtcpip.FullAddress{NIC: nicID, Addr: toStack(s.local.Addr()), Port: localPort})
	if terr == nil {
		terr = ep.Connect(gtcpip.FullAddress{NIC: nicID, Addr: toStack(s.remote.Addr()), Port: remotePort})
	}
	if _, started := terr.(*gtcpip.ErrConnectStarted); terr != nil && !started {
		s.abort(errno(terr))
		return nil, s.Err()
	}
	select {
	case <-connected:
	case <-ctx.Done():
		s.abort(context.Cause(ctx))
		return nil, s.Err()
	}
	if s.state() == tcp.StateError || s.state() == tcp.StateClose {
		err := s.Err()
		if err == nil {
			err = syscall.ECONNRESET
		}
		s.abort(err)
		return nil, err
	}
	return s, nil
}

// stream makes the Stream of session id.
func (t *Tunnel) stream(id uint64, localPort, remotePort uint16) *Stream {
	s := newStream(t, t.cfg.Buffers, t.cfg.MTU-header.IPv6MinimumSize-header.TCPMinimumSize)
	s.id = id
	s.local = netip.AddrPortFrom(SessionLocal(id), localPort)
	s.remote = netip.AddrPortFrom(SessionRemote(id), remotePort)
	return s
}

// enter records a stream that dials.
func (t *Tunnel) enter(id uint64, s *Stream) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("tcpip: dial: %w", net.ErrClosed)
	}
	if _, ok := t.live[id]; ok || t.past.has(id) {
		return fmt.Errorf("tcpip: dial session %#x: %w", id, syscall.EADDRINUSE)
	}
	t.live[id] = session{s: s}
	t.stats.opened.Add(1)
	return nil
}

// Abort resets whatever has session id: a stream gives reason from then on, Dial
// and Accept return it, a Pending is done. reason is best an errno. An unknown
// id is ignored.
func (t *Tunnel) Abort(id uint64, reason error) {
	t.mu.Lock()
	e := t.live[id]
	t.mu.Unlock()
	e.abort(reason)
}

// unknown takes a segment for which the stack has no endpoint, from the
// goroutine that injected it. False has the stack answer with an RST.
func (t *Tunnel) unknown(key stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	th := header.TCP(pkt.TransportHeader().Slice())
	if len(th) < header.TCPMinimumSize || uint8(th.Flags())&(FlagSYN|FlagACK|FlagRST|FlagFIN) != FlagSYN {
		t.rstPending(key, th)
		return false
	}
	id := sessionOf(key.LocalAddress)
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return true
	}
	if e, ok := t.live[id]; ok {
		t.mu.Unlock()
		// A handler that has not begun is asked for again: the Forwarder
		// ignores a SYN while an earlier request for it is not completed.
		if e.p != nil && !e.p.again() {
			t.fwd.HandlePacket(key, pkt)
		}
		return true
	}
	if t.past.has(id) {
		t.mu.Unlock()
		t.stats.dropPast.Add(1)
		return true
	}
	if t.cfg.OnFlow == nil {
		t.mu.Unlock()
		return false
	}
	if t.pending >= t.cfg.MaxPending {
		t.mu.Unlock()
		t.stats.dropPending.Add(1)
		return true
	}
	if t.cfg.Admit != nil && !t.cfg.Admit(id) {
		t.mu.Unlock()
		t.stats.dropNotAdmitted.Add(1)
		return true
	}
	p := newPending(t, t.stack, key, t.patience)
	p.session = id
	t.live[id] = session{p: p}
	t.pending++
	t.mu.Unlock()
	t.stats.offered.Add(1)
	if !t.fwd.HandlePacket(key, pkt) {
		p.end(io.ErrUnexpectedEOF)
		t.stats.dropMalformed.Add(1)
	}
	return true
}

// rstPending lets an RST end the Pending that it is for.
func (t *Tunnel) rstPending(key stack.TransportEndpointID, th header.TCP) {
	if len(th) < header.TCPMinimumSize || uint8(th.Flags())&FlagRST == 0 {
		return
	}
	t.mu.Lock()
	e := t.live[sessionOf(key.LocalAddress)]
	t.mu.Unlock()
	if e.p != nil {
		e.p.end(syscall.ECONNRESET)
	}
}

// handle runs OnFlow for a SYN that unknown let through.
func (t *Tunnel) handle(req *tcp.ForwarderRequest) {
	t.mu.Lock()
	p := t.live[sessionOf(req.ID().LocalAddress)].p
	if t.closed || p == nil || !p.start(req) {
		t.mu.Unlock()
		req.Complete(false)
		return
	}
	t.handlers.Add(1)
	t.mu.Unlock()
	defer t.handlers.Done()
	t.cfg.OnFlow(p)
	p.Refuse(syscall.ETIMEDOUT) // no decision is silence
}

// newStream implements pendingHost.
func (t *Tunnel) newStream(p *Pending) *Stream {
	return t.stream(p.session, p.dst.Port(), p.src.Port())
}

// settle implements pendingHost.
func (t *Tunnel) settle(p *Pending, s *Stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live[p.session].p != p {
		return
	}
	t.pending--
	if s == nil {
		delete(t.live, p.session)
		t.past.add(p.session)
		t.stats.unopened.Add(1)
		return
	}
	t.live[p.session] = session{s: s}
	t.stats.opened.Add(1)
}

// refuse implements pendingHost: the reason travels in a message of the
// tunnel's, TCP has only RST.
func (t *Tunnel) refuse(*Pending, syscall.Errno) bool { return false }

// streamGone implements streamOwner.
func (t *Tunnel) streamGone(s *Stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live[s.id].s != s {
		return
	}
	delete(t.live, s.id)
	t.past.add(s.id)
	t.stats.ended.Add(1)
}

// outPool holds the slices that write hands to out.
var outPool = sync.Pool{New: func() any { return new([]*Segment) }}

// write gives packets of the stack to out.
func (t *Tunnel) write(pkts stack.PacketBufferList) int {
	list := outPool.Get().(*[]*Segment)
	segs := (*list)[:0]
	for _, pkt := range pkts.AsSlice() {
		seg := newSegment(pkt)
		if seg == nil {
			t.stats.dropNotTCP.Add(1)
			continue
		}
		t.stats.segmentsOut.Add(1)
		t.stats.bytesOut.Add(uint64(seg.Len()))
		segs = append(segs, seg)
	}
	full := segs
	if segs = t.acks.pass(segs); len(segs) > 0 {
		t.out(segs)
	}
	clear(full)
	*list = full
	outPool.Put(list)
	return pkts.Len()
}
