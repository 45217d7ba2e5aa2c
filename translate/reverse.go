package translate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa/rpc"
)

// Dial connects to a TCP server.
type Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)

// Reverse answers RPCs from TCP servers. It is an rpc.Handler. Its methods are safe
// for concurrent use.
//
// It has no goroutine for a connection: the handler of a request writes it, waits
// for its turn, and reads the response. Only a request that does not fit one buffer
// has a goroutine of its own, because its response may come before its end.
type Reverse struct {
	rule                   Rule
	traits                 framing.Traits
	dial                   Dial
	tracer                 *ruleTracer
	connect, request, idle time.Duration
	hold                   time.Duration // of polls
	silence                time.Duration // after which a stream is forsaken
	base                   time.Time
	large                  *buffers
	spare                  sync.Pool // of *exec
	counters

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // probes

	mu      sync.Mutex
	servers []*server
	queue   []*applicant // wait for a connection
	open    map[*serverConn]struct{}
	streams map[streamKey]*reverseStream
	timer   *time.Timer // calls tick; nil while there is nothing to look at
	checked time.Time   // when streams were looked at
	closed  bool
}

var _ rpc.Handler = (*Reverse)(nil)

// NewReverse returns a Reverse to one or several servers of the same content; nil for
// dial means TCP of this host. A tracer may be shared, and nil. The error names
// what is wrong.
func NewReverse(rule Rule, servers []netip.AddrPort, dial Dial, tracer *Tracer) (*Reverse, error) {
	rule, err := rule.complete()
	if err != nil {
		return nil, err
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("translate: rule %s has no server", rule.Name)
	}
	if dial == nil {
		var d net.Dialer
		dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", to.String())
		}
	}
	traits := rule.Framing.Traits()
	usual := defaultServerIdle
	if traits.Stream {
		usual = forever
	}
	r := &Reverse{
		rule: rule, traits: traits, dial: dial, tracer: tracer.of(rule.Name),
		connect: orUsual(rule.Timeouts.Connect, defaultConnect),
		request: orUsual(rule.Timeouts.Request, defaultRequest),
		idle:    orUsual(rule.Timeouts.Idle, usual),
		hold:    pollHold,
		silence: orUsual(rule.Timeouts.Outage, defaultOutage) + pollHold,
		base:    time.Now(),
		large:   &buffers{size: max(traits.Window, largeBuffer)},
		open:    map[*serverConn]struct{}{},
		streams: map[streamKey]*reverseStream{},
	}
	r.buffered.limit = rule.Limits.Buffered
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for _, addr := range servers {
		if !addr.IsValid() || addr.Port() == 0 {
			return nil, fmt.Errorf("translate: rule %s: %s is no address of a server", rule.Name, addr)
		}
		r.servers = append(r.servers, &server{addr: addr, up: true})
	}
	return r, nil
}

// Concurrency is what rpc.ServeConfig.Concurrency should be: requests above it wait
// without using anything but Homa's memory.
func (r *Reverse) Concurrency() int {
	if r.traits.Stream {
		return streamRPCs * r.rule.Limits.ServerConns
	}
	return r.rule.Limits.OutstandingAll
}

// Errors of requests to TCP servers. A Homa client sees them with
// Rule.AnswerFailures only: else its RPC is aborted.
var (
	errClosed  = fmt.Errorf("translate: %w", net.ErrClosed)
	errAllDown = &framing.Error{Fault: framing.Unreachable, Reason: "no server can be reached"}

	errNotConnected = &framing.Error{Fault: framing.Unreachable, Reason: "connecting to the server failed"}
	errLateConnect  = &framing.Error{Fault: framing.Timeout, Reason: "connecting to the server took too long"}

	errLateTCP  = &framing.Error{Fault: framing.Timeout, Reason: "the server did not answer in time"}
	errHungUp   = &framing.Error{Fault: framing.BadResponse, Reason: "the server closed the connection"}
	errEarlyEnd = &framing.Error{Fault: framing.Truncated, Reason: "the client gave up within the request"}
)

// ServeRPC implements rpc.Handler.
func (r *Reverse) ServeRPC(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
	if r.traits.Stream {
		return r.serveChunk(ctx, req, w)
	}
	r.outstanding.Add(1)
	defer r.outstanding.Add(-1)
	x := r.begin(ctx, req, w)
	err := x.serve()
	explained := err != nil && x.explain(err)
	r.record(x, err)
	x.release()
	if explained {
		return nil
	}
	return err
}

// record tells of a request that has ended, if anybody is interested.
func (r *Reverse) record(x *exec, err error) {
	result := OK
	if err != nil {
		result = r.resultOf(x.ctx, err)
	}
	r.ended(result)
	total := x.now()
	if r.rule.AccessLog == nil && !r.tracer.wants(total, result, x.base.Add(total)) {
		return
	}
	rec := &Record{
		Time: x.base, Rule: r.rule.Name, Direction: "homa-tcp",
		Framing: r.rule.Type, Name: x.meta().Name, Client: x.rpc.Client(), Server: x.server,
		RequestBytes: int64(x.rpc.Len()), ResponseBytes: x.answer,
		Total: total, Retries: x.tries - min(x.tries, 1), Result: result,
	}
	rec.homa(x.rpc.ID(), x.rpc.Stats())
	rec.Queue = x.started - x.arrived
	if x.started == 0 {
		rec.Queue = total - x.arrived
	}
	rec.Service = service(x.sentAt(), x.answered, total)
	rec.Transport = total - rec.Queue - rec.Service
	if err != nil {
		rec.Error = err.Error()
	}
	if r.rule.AccessLog != nil {
		r.rule.AccessLog(rec)
	}
	r.tracer.add(rec)
}

// resultOf is the result of a request that failed with err.
func (r *Reverse) resultOf(ctx context.Context, err error) Result {
	var fault *framing.Error
	switch {
	case errors.Is(err, errClosed), errors.Is(err, rpc.ErrAbandoned), ctx.Err() != nil:
		return Aborted
	case errors.As(err, &fault):
		return resultOf(fault)
	}
	return BadResponse
}

// Close closes all connections to servers, fails the requests under way, and waits
// until nothing of the Reverse is left but handlers that are about to return. Call
// it before the rpc.Server or its Node is closed, which wait for handlers.
func (r *Reverse) Close() error {
	r.mu.Lock()
	r.closed = true
	r.cancel()
	for _, a := range r.queue {
		a.end(errClosed)
	}
	r.queue = nil
	for c := range r.open {
		c.fail(errClosed)
		if c.depth == 0 {
			c.drop()
		}
	}
	streams := r.streams
	r.streams = map[streamKey]*reverseStream{}
	for _, s := range r.servers {
		s.stopProbe()
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	r.mu.Unlock()
	for _, s := range streams {
		s.reset(framing.ResetUnspecified, errClosed)
	}
	r.wg.Wait()
	return nil
}

// Stats returns the counters.
func (r *Reverse) Stats() Stats {
	s := r.stats()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, server := range r.servers {
		s.Servers = append(s.Servers, server.stats())
	}
	return s
}
