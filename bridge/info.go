package bridge

import "time"

// Cause says why a flow has ended.
type Cause uint8

// Causes.
const (
	// Open: it has not ended.
	Open Cause = iota
	// Finished: both directions ended with FIN, and all was acknowledged.
	Finished
	// ResetByA: the end that opened the flow was reset by its program.
	ResetByA
	// ResetByB: the end that was dialled was reset by its program.
	ResetByB
	// BothFailed: both ends failed.
	BothFailed
	// Failed: an end failed for another reason than a reset, such as silence.
	Failed
	// Idle: no byte for Config.IdleTimeout.
	Idle
	// Aborted: ended from this side by Abort or Close.
	Aborted

	numCauses
)

var causeNames = [numCauses]string{
	"open", "finished", "reset_by_a", "reset_by_b", "both_failed", "failed", "idle", "aborted",
}

// String returns the cause as a word of a metric label.
func (c Cause) String() string {
	if c < numCauses {
		return causeNames[c]
	}
	return "unknown"
}

// State is what a flow does at a moment.
type State uint8

// States.
const (
	// StateOpen: both directions may carry bytes.
	StateOpen State = iota
	// StateHalfClosedA: A has sent FIN and B may go on.
	StateHalfClosedA
	// StateHalfClosedB: B has sent FIN and A may go on.
	StateHalfClosedB
	// StateClosing: both have sent FIN, and not all of it is acknowledged.
	StateClosing
	// StateResetting: an end has failed; what came from it before is on its way.
	StateResetting
	// StateEnded: both ends are released.
	StateEnded

	numStates
)

var stateNames = [numStates]string{"open", "half-closed-a", "half-closed-b", "closing", "resetting", "ended"}

// String returns the state as a word for people and programs.
func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return "unknown"
}

// FlowInfo describes a flow at a moment.
type FlowInfo struct {
	ID uint64
	Meta
	Opened time.Time
	Age    time.Duration
	State  State
	// BytesUp went from A, the end that opened the flow, to B, BytesDown back.
	// Both count what the receiving end has taken.
	BytesUp, BytesDown uint64
	// StalledUp and StalledDown say that the direction waits for its reader.
	StalledUp, StalledDown bool
	// Cause is Open until the flow has ended. ErrA and ErrB are what its ends
	// failed with, if they did.
	Cause      Cause
	ErrA, ErrB error
}

func (f *Flow) info(now int64) FlowInfo {
	up, down := &f.pump[0], &f.pump[1]
	i := FlowInfo{
		ID:          f.id,
		Meta:        f.meta,
		Opened:      f.opened,
		Age:         max(0, time.Duration(now)-f.opened.Sub(f.b.epoch)),
		BytesUp:     up.bytes.Load(),
		BytesDown:   down.bytes.Load(),
		StalledUp:   up.state.Load() == stalled,
		StalledDown: down.state.Load() == stalled,
	}
	f.mu.Lock()
	i.Cause, i.ErrA, i.ErrB = f.cause, f.err[0], f.err[1]
	f.mu.Unlock()
	switch {
	case i.Cause != Open:
		i.State = StateEnded
	case i.ErrA != nil || i.ErrB != nil:
		i.State = StateResetting
	case up.done.Load() && down.done.Load():
		i.State = StateClosing
	case up.done.Load():
		i.State = StateHalfClosedA
	case down.done.Load():
		i.State = StateHalfClosedB
	}
	return i
}

// Stats are the counters of a Bridge since its start. Flows that exist are
// Opened less all of Ended.
type Stats struct {
	// Opened counts flows that were joined, Rejected those that Join refused.
	Opened, Rejected uint64
	// Ended counts flows by what ended them.
	Ended map[Cause]uint64
	// BytesUp and BytesDown are those of FlowInfo over all flows, ended and
	// existing.
	BytesUp, BytesDown uint64
}

// Stats returns the counters.
func (b *Bridge) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Stats{
		Opened:    b.lastID,
		Rejected:  b.rejected,
		Ended:     make(map[Cause]uint64, numCauses),
		BytesUp:   b.bytesUp,
		BytesDown: b.bytesDown,
	}
	for c := Finished; c < numCauses; c++ {
		s.Ended[c] = b.ended[c]
	}
	for f := b.flows.next; f != &b.flows; f = f.next {
		s.BytesUp += f.pump[0].bytes.Load()
		s.BytesDown += f.pump[1].bytes.Load()
	}
	return s
}
