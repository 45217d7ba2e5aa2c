//go:build !linux

package hrtimer

import (
	"os"
	"sync"
	"time"
)

// Timer is one timer, which is not set at first. Set is for one goroutine at a time,
// Wait for one too; Close may be called at any time.
type Timer struct {
	timer *time.Timer
	done  chan struct{}
	once  sync.Once
}

// New makes a timer.
func New() (*Timer, error) {
	t := &Timer{timer: time.NewTimer(time.Hour), done: make(chan struct{})}
	t.timer.Stop()
	return t, nil
}

// Set makes the timer fire once after d, at once if d is not positive, in place of
// what was set before. After Close it has no effect.
func (t *Timer) Set(d time.Duration) { t.timer.Reset(d) }

// Wait waits until the timer has fired since Wait returned, or was closed:
// os.ErrClosed.
func (t *Timer) Wait() error {
	select {
	case <-t.timer.C:
	case <-t.done:
	}
	select {
	case <-t.done:
		return os.ErrClosed
	default:
		return nil
	}
}

// Close releases the timer and ends Wait.
func (t *Timer) Close() error {
	t.once.Do(func() { close(t.done) })
	t.timer.Stop()
	return nil
}
