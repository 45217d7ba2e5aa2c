package tcpip

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	// minPatience is how long a Pending lives after a SYN at least. The first
	// repetition comes after 1 s (RFC 6298 section 2.1), in old stacks 3 s.
	minPatience = 8 * time.Second
	// maxPatience bounds the wait for the next SYN: Linux leaves 64 s between
	// its last two.
	maxPatience = 150 * time.Second
)

// patience gives how long to wait for another SYN when the last two came gap
// apart, at least least. Openers double their interval (RFC 6298 section 5.5);
// half a gap more is for delay on the way.
func patience(gap, least time.Duration) time.Duration {
	return min(max(gap*5/2, least), maxPatience)
}

// Pending is a SYN whose handshake waits for the far side. Exactly one of
// Accept and Refuse decides it; what comes later, also after Done, has no
// effect. It is safe for concurrent use.
type Pending struct {
	host     pendingHost
	stack    *stack.Stack
	key      stack.TransportEndpointID
	src, dst netip.AddrPort
	session  uint64
	least    time.Duration // patience at least
	quote    []byte        // headers of the SYN, for an ICMP error; edge only
	done     chan struct{}

	mu      sync.Mutex
	state   pendingState
	req     *tcp.ForwarderRequest // nil until the handler runs
	cause   error                 // why it ended, once settled without a stream
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	lastSYN time.Time
}

type pendingState uint8

const (
	pendingOpen pendingState = iota
	pendingAccepting
	pendingSettled
)

// pendingHost is the stack that a Pending belongs to.
type pendingHost interface {
	// newStream makes the stream that p becomes, without an endpoint.
	newStream(p *Pending) *Stream
	// settle takes p out of the tables. s is nil when nothing came of it.
	settle(p *Pending, s *Stream)
	// refuse answers the SYN for reason and reports whether it did; if not, an
	// RST is to be sent.
	refuse(p *Pending, reason syscall.Errno) bool
}

func newPending(h pendingHost, s *stack.Stack, key stack.TransportEndpointID, least time.Duration) *Pending {
	p := &Pending{host: h, stack: s, key: key, least: least, done: make(chan struct{}), lastSYN: time.Now()}
	p.dst, p.src = ends(key)
	p.timer = time.AfterFunc(least, func() { p.end(syscall.ETIMEDOUT) })
	return p
}

// Src gives who wants to connect: in an Edge the application's address, in a
// Tunnel SessionRemote and the port.
func (p *Pending) Src() netip.AddrPort { return p.src }

// Dst gives whom it wants to reach: in an Edge the real destination, in a
// Tunnel SessionLocal and the port.
func (p *Pending) Dst() netip.AddrPort { return p.dst }

// Session gives the session id that this side drew; zero in an Edge.
func (p *Pending) Session() uint64 { return p.session }

// Done gives a channel that is closed when the opener gave up: it sent RST, it
// stopped repeating its SYN, Tunnel.Abort was called, or the stack is closing.
// Accept then gives an error. The channel is not closed by Accept or Refuse.
func (p *Pending) Done() <-chan struct{} { return p.done }

// start gives p the request that its handler goroutine runs for. It reports
// false when p is decided already.
func (p *Pending) start(req *tcp.ForwarderRequest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != pendingOpen || p.req != nil {
		return false
	}
	p.req = req
	return true
}

// again notes another SYN. It reports whether a handler already runs.
func (p *Pending) again() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.state == pendingOpen {
		p.timer.Reset(patience(now.Sub(p.lastSYN), p.least))
		p.lastSYN = now
	}
	return p.req != nil
}

// end settles p without a stream because the opener, or we, gave up.
func (p *Pending) end(reason error) {
	p.mu.Lock()
	switch p.state {
	case pendingSettled:
		p.mu.Unlock()
		return
	case pendingAccepting:
		p.cancel(reason) // Accept settles it
		p.mu.Unlock()
		return
	}
	p.state, p.cause = pendingSettled, reason
	p.timer.Stop()
	req := p.req
	close(p.done)
	p.mu.Unlock()
	if req != nil {
		req.Complete(false)
	}
	p.host.settle(p, nil)
}

// Refuse answers the SYN without a connection. In an Edge, ECONNREFUSED sends an
// RST; EHOSTUNREACH, ENETUNREACH and EACCES send the ICMP error that means it
// (RFC 792, RFC 4443 section 3.1: type 3 code 1, 0, 13; type 1 code 3, 0, 1).
// In a Tunnel all four send an RST. Any other reason is answered by silence, so
// that the opener runs into its own time-out. The errno may be wrapped.
func (p *Pending) Refuse(reason error) {
	p.mu.Lock()
	if p.state != pendingOpen {
		p.mu.Unlock()
		return
	}
	p.state, p.cause = pendingSettled, asErrno(reason)
	p.timer.Stop()
	req := p.req
	p.mu.Unlock()

	var no syscall.Errno
	errors.As(reason, &no)
	rst := false
	switch no {
	case syscall.ECONNREFUSED:
		rst = true
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES:
		rst = !p.host.refuse(p, no)
	}
	req.Complete(rst)
	p.host.settle(p, nil)
}

// Accept completes the handshake and gives the stream, which the caller has to
// Close or Reset. It blocks until the opener has answered the SYN-ACK. Errors:
// the cause of ctx; ECONNRESET when the opener reset; ETIMEDOUT when it fell
// silent; the reason of Tunnel.Abort; the reason of an earlier Refuse.
func (p *Pending) Accept(ctx context.Context) (*Stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.mu.Lock()
	if p.state != pendingOpen {
		defer p.mu.Unlock()
		if p.cause == nil {
			return nil, syscall.EALREADY
		}
		return nil, p.cause
	}
	p.state, p.cancel = pendingAccepting, cancel
	p.timer.Stop()
	req := p.req
	p.mu.Unlock()

	s := p.host.newStream(p)
	finished, aborted := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(aborted)
		p.abortHandshake(finished)
	})
	ep, terr := req.CreateEndpoint(&s.wq)
	close(finished)
	if !stop() {
		<-aborted
	}
	req.Complete(false)

	var failed error
	if terr != nil {
		failed = errno(terr)
		if failed == syscall.ECONNREFUSED { // what gVisor calls an RST now
			failed = syscall.ECONNRESET
		}
		s = nil
	} else {
		s.bind(ep)
	}
	p.host.settle(p, s)
	err := p.settled(ctx, failed)
	if s == nil {
		return nil, err
	}
	s.watch()
	if err != nil {
		s.Reset()
		return nil, err
	}
	return s, nil
}

// settled marks the end of Accept, whose handshake failed with failed, and gives
// the error of it all; that of ctx goes before. It comes after the stream is in
// the tables, so that whoever means p or the stream finds one of them. Whoever
// watches Done learns of a failure.
func (p *Pending) settled(ctx context.Context, failed error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		failed = err
	}
	p.state, p.cause = pendingSettled, failed
	if failed != nil {
		close(p.done)
	}
	return failed
}

// abortHandshake ends the endpoint that waits for the last ACK of the
// handshake, which gVisor has no context for. The endpoint may not yet be
// registered when the context ends, hence the loop.
func (p *Pending) abortHandshake(finished <-chan struct{}) {
	proto := header.IPv6ProtocolNumber
	if p.key.LocalAddress.Len() == header.IPv4AddressSize {
		proto = header.IPv4ProtocolNumber
	}
	for wait := time.Millisecond; ; wait = min(2*wait, time.Second) {
		if ep := p.stack.FindTransportEndpoint(proto, tcp.ProtocolNumber, p.key, nicID); ep != nil {
			ep.Abort()
		}
		select {
		case <-finished:
			return
		case <-time.After(wait):
		}
	}
}
