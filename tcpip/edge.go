package tcpip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/tougw/tougw/internal/packet"
)

const (
	defaultEdgePending          = 4096
	defaultEdgePendingPerSource = 1024

	// icmpRate and icmpBurst bound the ICMP errors for captured packets that
	// are not TCP (RFC 4443 section 2.4 (f) wants a bound), per second and at
	// once, for all sources together.
	icmpRate  = 200
	icmpBurst = 200
)

// Device is what an Edge reads captured packets from and writes its own to; a
// tun.Device is one.
type Device interface {
	// Queues gives the number of queues, at least 1.
	Queues() int
	// MTU gives the largest packet in bytes that is not to be cut.
	MTU() int
	// Read fills at least one of ps from queue q and gives how many; it blocks
	// until then. It borrows ps. Each queue has one reader. An error is final.
	Read(q int, ps []packet.In) (int, error)
	// Write sends ps on queue q and borrows it. It must not block for long: an
	// endpoint's lock is held. It is never called twice at a time for one
	// queue.
	Write(q int, ps []packet.Out) (int, error)
}

// EdgeConfig configures an Edge. Every zero field but OnFlow has a default.
type EdgeConfig struct {
	// OnFlow is called, in a goroutine of its own, for each captured SYN that
	// opens a flow. It decides p and returns soon after p.Done is closed;
	// returning without a decision is silence.
	OnFlow func(p *Pending)
	// MaxPending and MaxPendingPerSource bound the flows that are being opened,
	// in all and per source address. A SYN beyond them is dropped, not answered
	// by RST: the application repeats it, and by then there may be room. Zero:
	// 4096 and 1024.
	MaxPending, MaxPendingPerSource int
	// TSO says that the device takes segments of up to 64 KiB and packets whose
	// checksum is to be completed (packet.Offload).
	TSO bool
	// Turn is told about the turns of the goroutines that read the device. Nil:
	// nobody.
	Turn Turn
	// Buffers sizes the buffers of each stream.
	Buffers BufferConfig
	// Logger gets what is worth a line, nothing per packet. Nil: nothing.
	Logger *slog.Logger
}

// Edge ends captured TCP connections, IPv4 and IPv6, to whatever destination.
// What is captured and not TCP is answered by an ICMP error and counted.
type Edge struct {
	cfg   EdgeConfig
	dev   Device
	mtu   int
	link  *link
	tx    []txQueue
	icmp  *rate.Limiter
	stats edgeStats
	acks  *ackHold[edgeFlow, edgePacket]

	stack    *stack.Stack // from Run on
	fwd      *tcp.Forwarder
	handlers sync.WaitGroup
	patience time.Duration // with one SYN

	mu      sync.Mutex
	running bool
	closed  bool
	pending map[stack.TransportEndpointID]*Pending
	sources map[netip.Addr]int // pending ones per source
}

// NewEdge makes an Edge over dev. It starts nothing and does not touch dev but
// for its constants.
func NewEdge(cfg EdgeConfig, dev Device) (*Edge, error) {
	if cfg.OnFlow == nil {
		return nil, errors.New("tcpip: edge without OnFlow")
	}
	if cfg.MaxPending == 0 {
		cfg.MaxPending = defaultEdgePending
	}
	if cfg.MaxPendingPerSource == 0 {
		cfg.MaxPendingPerSource = defaultEdgePendingPerSource
	}
	if cfg.Turn == nil {
		cfg.Turn = noTurn{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Buffers = cfg.Buffers.withDefaults(defaultEdgeRecv, defaultEdgeSend, defaultEdgeMax)
	mtu, queues := dev.MTU(), dev.Queues()
	if mtu < header.IPv4MinimumMTU || mtu > math.MaxUint16 {
		return nil, fmt.Errorf("tcpip: device MTU %d is not within %d…%d", mtu, header.IPv4MinimumMTU, math.MaxUint16)
	}
	if queues < 1 {
		return nil, fmt.Errorf("tcpip: device with %d queues", queues)
	}
	e := &Edge{
		cfg: cfg, dev: dev, mtu: mtu,
		tx:       make([]txQueue, queues),
		icmp:     rate.NewLimiter(icmpRate, icmpBurst),
		patience: minPatience,
		pending:  make(map[stack.TransportEndpointID]*Pending),
		sources:  make(map[netip.Addr]int),
	}
	e.acks = newAckHold[edgeFlow](func(ps []edgePacket) {
		for _, p := range ps {
			e.writeNow([]*stack.PacketBuffer{p.PacketBuffer})
			p.Release()
		}
	})
	e.link = &link{
		mtu: uint32(mtu),
		// Received checksums are verified by the Edge, where the device did
		// not (rx.go). Sent ones are left to the device only in GSO packets:
		// gVisor's SYN and RST carry no GSO description, so the capability for
		// sending would leave them without any.
		caps:  stack.CapabilityRXChecksumOffload,
		write: e.write,
	}
	if cfg.TSO {
		e.link.gso = maxGSO
	}
	return e, nil
}

// Run reads the device, one goroutine per queue, and serves flows until ctx
// ends or a read fails. Then it resets all streams, ends what is pending, and
// waits for the handlers, the stack and the readers. It does not close the
// device: its owner has to when ctx ends, since that is what unblocks the
// readers. It gives nil when ctx ended, else the read error. It may be called
// once.
func (e *Edge) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.running {
		e.mu.Unlock()
		return errors.New("tcpip: edge runs already")
	}
	e.running = true
	e.mu.Unlock()

	var err error
	if e.stack, err = newEdgeStack(e.link, e.cfg.Buffers); err != nil {
		return err
	}
	// The Forwarder's own limit is global and silent; ours comes first.
	e.fwd = tcp.NewForwarder(e.stack, e.cfg.Buffers.InitialRecv, math.MaxInt, e.handle)
	e.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, e.unknown)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var readers sync.WaitGroup
	for q := range e.tx {
		readers.Go(func() { cancel(e.receive(q)) })
	}
	<-ctx.Done()
	e.stop()
	readers.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// stop ends everything but the readers.
func (e *Edge) stop() {
	e.mu.Lock()
	e.closed = true
	all := make([]*Pending, 0, len(e.pending))
	for _, p := range e.pending {
		all = append(all, p)
	}
	e.mu.Unlock()
	for _, p := range all {
		p.end(syscall.ECONNABORTED)
	}
	e.handlers.Wait()
	e.acks.close()
	e.stack.Destroy()
}

// unknown takes a segment for which the stack has no endpoint, from a reader.
// False has the stack answer with an RST.
func (e *Edge) unknown(key stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	th := header.TCP(pkt.TransportHeader().Slice())
	switch flags := uint8(th.Flags()); {
	case flags&FlagRST != 0:
		// The application gave up while we were connecting for it.
		e.mu.Lock()
		p := e.pending[key]
		e.mu.Unlock()
		if p != nil {
			p.end(syscall.ECONNRESET)
		}
		return true
	case flags&(FlagSYN|FlagACK|FlagFIN) != FlagSYN:
		return false
	}
	p, fresh := e.admit(key, pkt)
	if p == nil {
		return true
	}
	// A handler that has not begun is asked for again: the Forwarder ignores a
	// SYN while an earlier request for it is not completed.
	if !fresh && p.again() {
		return true
	}
	if !e.fwd.HandlePacket(key, pkt) {
		p.end(io.ErrUnexpectedEOF)
		e.stats.dropMalformed.Add(1)
	}
	return true
}

// admit gives the Pending of a SYN, a fresh one if there is none yet; nil when
// there is no room for it.
func (e *Edge) admit(key stack.TransportEndpointID, pkt *stack.PacketBuffer) (p *Pending, fresh bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.pending[key]; p != nil {
		return p, false
	}
	src := fromStack(key.RemoteAddress)
	switch {
	case e.closed:
		return nil, false
	case len(e.pending) >= e.cfg.MaxPending:
		e.stats.dropPending.Add(1)
		return nil, false
	case e.sources[src] >= e.cfg.MaxPendingPerSource:
		e.stats.dropPendingSource.Add(1)
		return nil, false
	}
	p = newPending(e, e.stack, key, e.patience)
	ip, th := pkt.NetworkHeader().Slice(), pkt.TransportHeader().Slice()
	p.quote = append(append(make([]byte, 0, len(ip)+len(th)), ip...), th...)
	e.pending[key] = p
	e.sources[src]++
	e.stats.offered.Add(1)
	return p, true
}

// handle runs OnFlow for a SYN that unknown let through.
func (e *Edge) handle(req *tcp.ForwarderRequest) {
	e.mu.Lock()
	p := e.pending[req.ID()]
	if e.closed || p == nil || !p.start(req) {
		e.mu.Unlock()
		req.Complete(false)
		return
	}
	e.handlers.Add(1)
	e.mu.Unlock()
	defer e.handlers.Done()
	e.cfg.OnFlow(p)
	p.Refuse(syscall.ETIMEDOUT) // no decision is silence
}

// newStream implements pendingHost.
func (e *Edge) newStream(p *Pending) *Stream {
	s := newStream(e, e.cfg.Buffers, e.mtu-header.IPv6MinimumSize-header.TCPMinimumSize)
	s.local, s.remote = p.dst, p.src
	return s
}

// settle implements pendingHost.
func (e *Edge) settle(p *Pending, s *Stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pending[p.key] != p {
		return
	}
	delete(e.pending, p.key)
	src := p.src.Addr()
	if e.sources[src]--; e.sources[src] == 0 {
		delete(e.sources, src)
	}
	if s == nil {
		e.stats.unopened.Add(1)
	} else {
		e.stats.opened.Add(1)
	}
}

// streamGone implements streamOwner.
func (e *Edge) streamGone(*Stream) { e.stats.ended.Add(1) }

// refuse implements pendingHost.
func (e *Edge) refuse(p *Pending, reason syscall.Errno) bool {
	e.sendUnreachable(0, p.quote, reason)
	return true
}
