package bridge

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

// Defaults of Config. All are our choices.
const (
	// DefaultMaxFlows bounds the table of flows.
	DefaultMaxFlows = 65536
	// DefaultResetLinger is how long an end that is to be reset may stand still
	// before it has acknowledged what the failed end had sent.
	DefaultResetLinger = 5 * time.Second
	// DefaultGrowAfter is more than a path of two gateways takes for a program
	// that never reads while all buffers have their start sizes; 128 KiB of it
	// are the reader's own kernel. Whoever lets more pass reads.
	DefaultGrowAfter = 512 << 10
	// startRead is how many bytes a pump reads at a time before that, because
	// what it has read and cannot write is absorbed too.
	startRead = 16 << 10

	never = math.MaxUint64
)

// Errors of Join.
var (
	// ErrFull says that Config.MaxFlows flows exist.
	ErrFull = errors.New("bridge: too many flows")
	// ErrClosed says that the Bridge was closed.
	ErrClosed = errors.New("bridge: closed")
)

// Keepalive has the TCP keepalive of both ends of each flow.
type Keepalive struct {
	// Idle is the silence before the first probe. Zero: no keepalive.
	Idle time.Duration
	// Interval is the time between probes. Used only with Idle.
	Interval time.Duration
	// Count is how many unanswered probes fail the end. Used only with Idle.
	Count int
}

// Config has the bounds of a Bridge. The zero value is usable.
type Config struct {
	// MaxFlows is how many flows there may be. Zero: DefaultMaxFlows.
	MaxFlows int
	// IdleTimeout resets a flow over which no byte went either way for so long.
	// Zero: never.
	IdleTimeout time.Duration
	// Keepalive is set on both ends of a new flow.
	Keepalive Keepalive
	// ResetLinger is how long, without progress, the reset of one end waits until
	// the other end has acknowledged what came before it; twelve times as long
	// with progress. Zero: DefaultResetLinger.
	ResetLinger time.Duration
	// BufferMax is up to what size in bytes the buffers of each stream grow, in
	// each direction. Zero: they are left alone.
	BufferMax int
	// GrowAfter is how many bytes a direction has to move before its buffers
	// grow: until then a reader that never reads costs what the streams were
	// made with. From then on they may be as large as what has been moved. Used
	// only with BufferMax. Zero: DefaultGrowAfter.
	GrowAfter int
	// OnEnd, if set, is called once for each flow after its streams and buffers
	// are released. It must not block.
	OnEnd func(FlowInfo)
}

func (c *Config) growAfter() uint64 {
	if c.BufferMax <= 0 {
		return never
	}
	return uint64(c.GrowAfter)
}

// Bridge is a table of flows. Its goroutines, twice as many as processors at
// most, begin with the first flows and end with Close.
type Bridge struct {
	cfg     Config
	epoch   time.Time
	workers *workers

	mu        sync.Mutex
	flows     Flow // sentinel of the ring of flows, oldest first
	count     int
	lastID    uint64 // also counts the flows that were joined
	rejected  uint64
	ended     [numCauses]uint64
	bytesUp   uint64 // of ended flows
	bytesDown uint64
	closed    bool
	empty     chan struct{} // made by Close, closed when closed and count is 0
}

// New returns a Bridge without flows.
func New(cfg Config) *Bridge {
	if cfg.MaxFlows <= 0 {
		cfg.MaxFlows = DefaultMaxFlows
	}
	if cfg.ResetLinger <= 0 {
		cfg.ResetLinger = DefaultResetLinger
	}
	if cfg.GrowAfter <= 0 {
		cfg.GrowAfter = DefaultGrowAfter
	}
	b := &Bridge{cfg: cfg, epoch: time.Now(), workers: newWorkers()}
	b.flows.prev, b.flows.next = &b.flows, &b.flows
	return b
}

func (b *Bridge) now() int64 { return int64(time.Since(b.epoch)) }

// Join takes the connected streams a, the end that opened the flow, and o, the
// end that was dialled for it, and moves bytes between them until the flow has
// ended. It returns at once. On ErrFull and ErrClosed both are reset.
func (b *Bridge) Join(a, o Stream, meta Meta) (*Flow, error) {
	f := newFlow(b, a, o, meta)
	if err := b.add(f); err != nil {
		a.Reset()
		o.Reset()
		return nil, err
	}
	if k := b.cfg.Keepalive; k.Idle > 0 {
		a.SetKeepalive(k.Idle, k.Interval, k.Count)
		o.SetKeepalive(k.Idle, k.Interval, k.Count)
	}
	f.start()
	return f, nil
}

func (b *Bridge) add(f *Flow) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		b.rejected++
		return ErrClosed
	}
	if b.count >= b.cfg.MaxFlows {
		b.rejected++
		return ErrFull
	}
	b.count++
	b.lastID++
	f.id = b.lastID
	f.prev, f.next = b.flows.prev, &b.flows
	f.prev.next, f.next.prev = f, f
	return nil
}

func (b *Bridge) remove(f *Flow) {
	info := f.info(b.now())
	if b.cfg.OnEnd != nil {
		b.cfg.OnEnd(info)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	f.prev.next, f.next.prev = f.next, f.prev
	b.count--
	b.ended[info.Cause]++
	b.bytesUp += info.BytesUp
	b.bytesDown += info.BytesDown
	if b.closed && b.count == 0 {
		close(b.empty)
	}
}

// Begin begins a turn of the calling goroutine, which brings events of streams.
// What the events wake is done by this goroutine, in Step and in End, where
// another would have to be woken for it. It must not hold a lock then that a
// stream takes, and must not block for long before End. Several goroutines may have
// their turn at a time.
func (b *Bridge) Begin() { b.workers.begin() }

// Step does what the events of the turn so far have woken.
func (b *Bridge) Step() { b.workers.help() }

// End does the same and ends the turn.
func (b *Bridge) End() { b.workers.end() }

// Full reports whether Join would refuse, so that a caller need not dial first.
func (b *Bridge) Full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed || b.count >= b.cfg.MaxFlows
}

// Len returns the number of flows.
func (b *Bridge) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

// Flows describes up to limit flows, the oldest first; a limit of 0 or less
// means all. Len says how many there are.
func (b *Bridge) Flows(limit int) []FlowInfo {
	fs := b.snapshot(limit)
	now := b.now()
	infos := make([]FlowInfo, len(fs))
	for i, f := range fs {
		infos[i] = f.info(now)
	}
	return infos
}

func (b *Bridge) snapshot(limit int) []*Flow {
	b.mu.Lock()
	defer b.mu.Unlock()
	if limit <= 0 || limit > b.count {
		limit = b.count
	}
	fs := make([]*Flow, 0, limit)
	for f := b.flows.next; f != &b.flows && len(fs) < limit; f = f.next {
		fs = append(fs, f)
	}
	return fs
}

// Abort resets both ends of every flow that match is true for and returns how
// many those were.
func (b *Bridge) Abort(match func(id uint64, m *Meta) bool) int {
	n := 0
	for _, f := range b.snapshot(0) {
		if !f.over.Load() && match(f.id, &f.meta) {
			f.Abort()
			n++
		}
	}
	return n
}

// Close refuses new flows and waits for the existing ones to end until ctx is
// done; those that are left then are reset, and ctx's error is returned. When
// it returns there are no flows. It is idempotent; of concurrent calls the
// first context that is done counts for all.
func (b *Bridge) Close(ctx context.Context) error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		b.empty = make(chan struct{})
		if b.count == 0 {
			close(b.empty)
		}
	}
	b.mu.Unlock()
	defer b.workers.close() // the flows will be gone, and with them all pumps
	select {
	case <-b.empty:
		return nil
	case <-ctx.Done():
	}
	n := b.Abort(func(uint64, *Meta) bool { return true })
	<-b.empty
	if n == 0 {
		return nil
	}
	return ctx.Err()
}
