package translate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// linger is how long a client may go on sending behind a last answer before it is
// reset, which might take the answer away from it. Our choice.
const linger = 2 * time.Second

// Meta says who a TCP client is.
type Meta struct {
	// Client is its address for records. The zero value means that of the
	// connection.
	Client netip.AddrPort
	// Peer is the tunnel peer whose flow it is; empty for none.
	Peer string
}

// Forward serves TCP clients from a Homa server. Its methods are safe for
// concurrent use.
//
// Each client has two goroutines and, while nothing happens, 2 KiB of buffer.
type Forward struct {
	rule                 Rule
	to                   netip.AddrPort
	dial                 Dialer
	tracer               *ruleTracer
	idle, request, write time.Duration
	outage               time.Duration

	clients chan struct{} // a token for each client
	places  chan struct{} // a token for each request under way
	room    room
	large   *buffers
	counters
}

// NewForward returns a Forward to the Homa server. A tracer may be shared, and
// nil. The error names what is wrong with the rule.
func NewForward(rule Rule, to netip.AddrPort, dial Dialer, tracer *Tracer) (*Forward, error) {
	rule, err := rule.complete()
	if err != nil {
		return nil, err
	}
	if !to.IsValid() || to.Port() == 0 {
		return nil, fmt.Errorf("translate: rule %s: %s is no address of a server", rule.Name, to)
	}
	if dial == nil {
		return nil, fmt.Errorf("translate: rule %s: no Homa to call with", rule.Name)
	}
	traits := rule.Framing.Traits()
	usual := defaultIdle
	if traits.Stream {
		usual = forever
	}
	f := &Forward{
		rule: rule, to: to, dial: dial, tracer: tracer.of(rule.Name),
		idle:    orUsual(rule.Timeouts.Idle, usual),
		request: orUsual(rule.Timeouts.Request, defaultRequest),
		write:   orUsual(rule.Timeouts.Write, defaultWrite),
		outage:  orUsual(rule.Timeouts.Outage, defaultOutage),
		clients: make(chan struct{}, rule.Limits.Conns),
		places:  make(chan struct{}, rule.Limits.OutstandingAll),
		large:   &buffers{size: max(traits.Window, largeBuffer)},
	}
	f.buffered.limit = rule.Limits.Buffered
	return f, nil
}

// Serve accepts clients until ctx ends or the listener fails, closes the listener,
// resets the clients that are left, and returns why after all have ended. It does
// not serve more than Limits.Conns, and accepts one more.
func (f *Forward) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // Accept returns it
	defer stop()
	for pause := time.Duration(0); ; {
		conn, err := l.Accept()
		if err == nil {
			pause = 0
			if !f.admit(ctx, conn) {
				reset(conn)
				return context.Cause(ctx)
			}
			wg.Go(func() {
				defer func() { <-f.clients }()
				f.serve(ctx, conn, Meta{})
			})
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		// Too many open files, or a client that left at once: the next may be well.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// admit waits until conn may be served, and returns false if ctx ends before.
func (f *Forward) admit(ctx context.Context, conn net.Conn) bool {
	select {
	case f.clients <- struct{}{}:
		return true
	default:
	}
	f.connsWaited.Add(1)
	f.connsWaiting.Add(1)
	defer f.connsWaiting.Add(-1)
	f.full(conn, Meta{})
	select {
	case f.clients <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// full tells of a client for which there is no place.
func (f *Forward) full(conn net.Conn, meta Meta) {
	if f.rule.Full == nil {
		return
	}
	if !meta.Client.IsValid() {
		meta.Client = addrPort(conn.RemoteAddr())
	}
	f.rule.Full(meta.Client)
}

// ServeConn serves one client, which may be a kernel connection or any other that
// can be half-closed (CloseWrite), and returns when the connection is closed, which
// it has done. The end of ctx resets it. A reset is Reset() if the connection has
// that, else Close, after SetLinger(0) if it has that.
func (f *Forward) ServeConn(ctx context.Context, conn net.Conn, meta Meta) {
	select {
	case f.clients <- struct{}{}:
		defer func() { <-f.clients }()
		f.serve(ctx, conn, meta)
	default:
		f.connsRefused.Add(1)
		f.full(conn, meta)
		reset(conn)
	}
}

func (f *Forward) serve(ctx context.Context, conn net.Conn, meta Meta) {
	f.conns.Add(1)
	defer f.conns.Add(-1)
	f.connsTotal.Add(1)
	if !meta.Client.IsValid() {
		meta.Client = addrPort(conn.RemoteAddr())
	}
	if f.rule.ProxyIn {
		proxied, source, err := readProxy(ctx, conn, orUsual(f.rule.Timeouts.Connect, defaultConnect))
		if err != nil {
			f.connsRefused.Add(1)
			reset(conn)
			return
		}
		conn = proxied
		if source.IsValid() {
			meta.Client = source
		}
	}
	if f.rule.Framing.Traits().Stream {
		f.serveStream(ctx, conn, meta)
		return
	}
	c := &client{
		f: f, conn: conn, meta: meta, base: time.Now(),
		in: window{large: f.large}, response: window{large: f.large},
		scanner: f.rule.Framing.Requests(), encoder: f.rule.Framing.ResponseEncoder(),
		held: collector{budget: &f.buffered},
	}
	c.serve(ctx)
}

// Stats returns the counters.
func (f *Forward) Stats() Stats { return f.stats() }

// record tells of an exchange that has ended, if anybody is interested.
func (f *Forward) record(c *client, ex *exchange, end time.Duration) {
	result := OK
	switch {
	case ex.aborted:
		result = Aborted
	case ex.fault != nil:
		result = resultOf(ex.fault)
	}
	f.ended(result)
	total := end - ex.begun
	if f.rule.AccessLog == nil && !f.tracer.wants(total, result, c.base.Add(end)) {
		return
	}
	r := &Record{
		Time: c.base.Add(ex.begun), Rule: f.rule.Name, Direction: "tcp-homa",
		Framing: f.rule.Type, Name: ex.req.Name, Client: c.meta.Client, Server: f.to, Peer: c.meta.Peer,
		RequestBytes: ex.length, ResponseBytes: ex.answer,
		Total: total, Retries: ex.retries, Result: result,
	}
	if ex.fault != nil {
		r.Error = ex.fault.Reason
	}
	if ex.call != nil {
		r.homa(ex.call.ID(), ex.call.Stats())
		r.Queue = ex.opened - ex.begun
		r.Service = service(ex.sent, ex.answered, end)
		r.Transport = total - r.Queue - r.Service
	} else {
		r.Queue = total
	}
	f.tell(r)
}

// tell hands a record to the access log and the tracer.
func (f *Forward) tell(r *Record) {
	if f.rule.AccessLog != nil {
		f.rule.AccessLog(r)
	}
	f.tracer.add(r)
}
