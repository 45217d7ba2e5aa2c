package bridge

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Acknowledgements have no event to wait for, so a flow that waits for the last
// ones looks again after pauses. Before a reset they go from lingerFirst, doubled
// up to lingerLast, and progress prolongs the wait up to lingerTimes the
// configured time. After both FINs they are a quarter of the time waited so far,
// from lingerFirst to finishLast, and the wait has no bound of its own.
const (
	lingerFirst = time.Millisecond
	lingerLast  = 50 * time.Millisecond
	lingerTimes = 12
	finishLast  = time.Second
)

// Meta describes a flow for status and logs. The bridge does not act on it.
type Meta struct {
	// Peer is the peer that the flow goes to or comes from, by its identity;
	// empty for a flow that uses no tunnel.
	Peer string
	// Session is the id of its session in the tunnel; 0 without one.
	Session uint64
	// Src and Dst are the ends as the program that opened the flow sees them. The
	// address of Dst is invalid while Name is all that is known.
	Src, Dst netip.AddrPort
	// Name is the name by which the flow was opened, if it was by name.
	Name string
}

// Flow is two joined streams. A is the end that opened the flow, B the end that
// was dialled.
type Flow struct {
	b      *Bridge
	id     uint64
	meta   Meta
	opened time.Time

	end  [2]Stream
	pump [2]pump

	over   atomic.Bool    // the streams are released
	broken [2]atomic.Bool // err[i] != nil
	last   atomic.Int64   // time of the last byte, in ns since b.epoch; only with an idle time-out
	alive  atomic.Int32   // pumps that are not dead

	mu       sync.Mutex
	err      [2]error
	cause    Cause
	linger   *time.Timer // waits for acknowledgements; nil until an end fails or both have sent FIN
	finished time.Time   // when both had sent FIN
	pause    time.Duration
	until    time.Time // when waiting without progress ends
	limit    time.Time // when all waiting ends
	progress uint64    // bytes and outstanding bytes at the last look, combined
	idleT    *time.Timer

	prev, next *Flow // list of b, guarded by b.mu
}

// ID returns the number of the flow, unique in its Bridge and never 0.
func (f *Flow) ID() uint64 { return f.id }

// Abort resets both ends. It is idempotent, and must not be called from within a
// callback of a stream.
func (f *Flow) Abort() { f.stop(Aborted) }

func newFlow(b *Bridge, a, o Stream, meta Meta) *Flow {
	f := &Flow{b: b, meta: meta, opened: time.Now(), end: [2]Stream{a, o}}
	f.alive.Store(2)
	for i := range f.pump {
		f.pump[i].init(f, i)
	}
	return f
}

// start begins to move bytes. The flow is in the table already and may have
// been stopped.
func (f *Flow) start() {
	f.end[0].SetNotify(func(readable, writable, failed bool) { f.event(0, readable, writable, failed) })
	f.end[1].SetNotify(func(readable, writable, failed bool) { f.event(1, readable, writable, failed) })
	if d := f.b.cfg.IdleTimeout; d > 0 {
		f.last.Store(f.b.now())
		f.mu.Lock()
		if !f.over.Load() {
			f.idleT = time.AfterFunc(d, f.idleCheck)
		}
		f.mu.Unlock()
	}
	f.pump[0].wakeAny()
	f.pump[1].wakeAny()
}

// event is called by the stream end[i]. It takes no lock.
func (f *Flow) event(i int, readable, writable, failed bool) {
	if failed {
		f.pump[0].wakeAny()
		f.pump[1].wakeAny()
		return
	}
	if readable {
		f.pump[i].wake(idle)
	}
	if writable {
		f.pump[1-i].wake(stalled)
	}
}

// touch restarts the idle time-out after n bytes.
func (f *Flow) touch(n int) {
	if n > 0 && f.b.cfg.IdleTimeout > 0 {
		f.last.Store(f.b.now())
	}
}

// fail notes that end[i] failed with err. The first error counts.
func (f *Flow) fail(i int, err error) {
	f.mu.Lock()
	f.failLocked(i, err)
	f.mu.Unlock()
}

func (f *Flow) failLocked(i int, err error) {
	// The streams of a flow that is over answer every call with an error.
	if err == nil || f.err[i] != nil || f.over.Load() {
		return
	}
	if err == syscall.EPIPE {
		// A stream says so when it learns of the reset by writing.
		err = syscall.ECONNRESET
	}
	f.err[i] = err
	f.broken[i].Store(true)
}

// settle looks whether the flow has come to its end and ends it. Each pump
// calls it after each run. It reports whether the flow is over.
func (f *Flow) settle() bool {
	if f.over.Load() {
		return true
	}
	e0, e1 := f.end[0].Err(), f.end[1].Err()
	finished := f.pump[0].done.Load() && f.pump[1].done.Load()
	if e0 == nil && e1 == nil && !finished && !f.broken[0].Load() && !f.broken[1].Load() {
		return false
	}
	f.mu.Lock()
	if f.over.Load() {
		f.mu.Unlock()
		return true
	}
	if !finished {
		f.failLocked(0, e0)
		f.failLocked(1, e1)
	}
	switch {
	case finished:
		f.settleFinished()
	case f.err[0] != nil && f.err[1] != nil:
		f.finish(BothFailed)
	case f.err[0] != nil:
		f.settleFailed(0, ResetByA)
	case f.err[1] != nil:
		f.settleFailed(1, ResetByB)
	}
	over := f.over.Load()
	f.mu.Unlock()
	if over {
		f.kill()
	}
	return over
}

// settleFinished ends the flow after both directions have, as soon as both ends
// have acknowledged everything. Until then it stays in the table: what its
// streams hold is bounded with it, and draining waits for it. f.mu is held.
func (f *Flow) settleFinished() {
	out := uint64(f.end[0].Outstanding() + f.end[1].Outstanding())
	if out == 0 {
		f.finish(Finished)
		return
	}
	now := time.Now()
	if f.finished.IsZero() {
		f.finished = now
	}
	if out != f.progress {
		f.progress = out
		f.touch(1)
	}
	pause := min(max(now.Sub(f.finished)/4, lingerFirst), finishLast)
	if f.linger == nil {
		f.linger = time.AfterFunc(pause, f.pump[0].wakeAny)
		return
	}
	f.linger.Reset(pause)
}

// settleFailed ends the flow after end[x] alone has failed, as soon as what had
// come from it is acknowledged by the other end. f.mu is held.
func (f *Flow) settleFailed(x int, cause Cause) {
	if f.err[x] != syscall.ECONNRESET {
		cause = Failed
	}
	out := f.end[1-x].Outstanding()
	if f.pump[x].drained.Load() && out == 0 {
		f.finish(cause)
		return
	}
	now := time.Now()
	progress := f.pump[x].bytes.Load()<<32 ^ uint64(out)
	if f.linger == nil {
		f.pause = lingerFirst
		f.limit = now.Add(lingerTimes * f.b.cfg.ResetLinger)
		f.progress = ^progress
		// The failure may have been seen by writing or by Err: the direction
		// out of x has to be read to its end, and that into x to be dropped.
		f.linger = time.AfterFunc(f.pause, f.pump[x].wakeAny)
		f.pump[0].wakeAny()
		f.pump[1].wakeAny()
	} else {
		f.linger.Reset(f.pause)
	}
	if progress != f.progress {
		f.progress = progress
		f.until = now.Add(f.b.cfg.ResetLinger)
	}
	if !now.Before(f.until) || !now.Before(f.limit) {
		f.finish(cause)
		return
	}
	f.pause = min(2*f.pause, lingerLast)
}

func (f *Flow) idleCheck() {
	d := f.b.cfg.IdleTimeout
	silent := time.Duration(f.b.now() - f.last.Load())
	if silent >= d {
		f.stop(Idle)
		return
	}
	f.mu.Lock()
	if !f.over.Load() {
		f.idleT.Reset(d - silent)
	}
	f.mu.Unlock()
}

// stop ends the flow from outside.
func (f *Flow) stop(cause Cause) {
	f.mu.Lock()
	f.finish(cause)
	f.mu.Unlock()
	f.kill()
}

// finish releases both streams. f.mu is held; kill must follow without it.
func (f *Flow) finish(cause Cause) {
	if f.over.Swap(true) {
		return
	}
	f.cause = cause
	if f.linger != nil {
		f.linger.Stop()
	}
	if f.idleT != nil {
		f.idleT.Stop()
	}
	for _, s := range f.end {
		s.SetNotify(nil)
		if cause == Finished {
			// Both directions have ended, so nothing can be lost, and an error
			// of close leaves nothing to be done about it.
			_ = s.Close()
		} else {
			s.Reset()
		}
	}
}

func (f *Flow) kill() {
	f.pump[0].kill()
	f.pump[1].kill()
}

// pumpEnded is called once by each pump; the second call ends the flow.
func (f *Flow) pumpEnded() {
	if f.alive.Add(-1) == 0 {
		f.b.remove(f)
	}
}
