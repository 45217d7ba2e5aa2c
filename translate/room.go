package translate

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/tougw/tougw/homa/rpc"
)

// roomInterval is how often one that waits for room in Homa tries again although no
// request of its rule has ended: other rules may have made room.
const roomInterval = 100 * time.Millisecond

// room is those that wait until Homa, whose memory is bounded, takes another message.
type room struct {
	mu      sync.Mutex
	waiting []chan struct{}
}

// wait waits until the room was freed for the caller, or it may have been, or gone.
func (r *room) wait(gone <-chan struct{}) {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	r.waiting = append(r.waiting, c)
	r.mu.Unlock()
	timer := time.NewTimer(roomInterval)
	defer timer.Stop()
	select {
	case <-c:
		return
	case <-timer.C:
	case <-gone:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.waiting, c); i >= 0 {
		r.waiting = slices.Delete(r.waiting, i, i+1)
	} else {
		r.wakeOne() // it was for us, and others may need it
	}
}

// freed wakes the one that has waited longest.
func (r *room) freed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakeOne()
}

func (r *room) wakeOne() {
	if len(r.waiting) > 0 {
		r.waiting[0] <- struct{}{}
		r.waiting = slices.Delete(r.waiting, 0, 1)
	}
}

// open opens an RPC when Homa has room for it, for which it waits as long as for a
// response. The caller closes it when gone is.
func (f *Forward) open(length int, gone <-chan struct{}) (Call, error) {
	call, _, err := f.openWith(length, rpc.OpenOptions{}, gone)
	return call, err
}

// openWith is open with options. It returns how many bytes of the first ones it took.
func (f *Forward) openWith(length int, o rpc.OpenOptions, gone <-chan struct{}) (Call, int, error) {
	var begun time.Time
	for {
		call, n, err := f.dial.Open(context.Background(), f.to, length, o)
		if err == nil || !errors.Is(err, rpc.ErrMemory) && !errors.Is(err, rpc.ErrBusy) {
			return call, n, err
		}
		if begun.IsZero() {
			begun = time.Now()
			f.waiting.Add(1)
			defer f.waiting.Add(-1)
		} else if time.Since(begun) >= f.request {
			return nil, 0, err
		}
		f.room.wait(gone)
		select {
		case <-gone:
			return nil, 0, err
		default:
		}
	}
}
