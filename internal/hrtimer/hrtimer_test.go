package hrtimer_test

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/hrtimer"
)

func open(t testing.TB) *hrtimer.Timer {
	t.Helper()
	timer, err := hrtimer.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { timer.Close() })
	return timer
}

// TestFires does so once, and not before its time; the last setting counts.
func TestFires(t *testing.T) {
	timer := open(t)
	for _, d := range []time.Duration{time.Millisecond, -time.Second, 0, 200 * time.Microsecond} {
		begun := time.Now()
		timer.Set(time.Hour)
		timer.Set(d)
		if err := timer.Wait(); err != nil {
			t.Fatal(err)
		}
		if passed := time.Since(begun); passed < d {
			t.Errorf("%v: after %v", d, passed)
		}
	}
	fired := make(chan error, 1)
	go func() { fired <- timer.Wait() }()
	select {
	case err := <-fired:
		t.Fatalf("it fired again: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	timer.Set(time.Microsecond)
	if err := <-fired; err != nil {
		t.Fatal(err)
	}
}

func TestClose(t *testing.T) {
	timer := open(t)
	waited := make(chan error, 1)
	go func() { waited <- timer.Wait() }()
	time.Sleep(5 * time.Millisecond)
	if err := timer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Wait: %v", err)
	}
	timer.Set(time.Microsecond)
	if err := timer.Wait(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Wait after Close: %v", err)
	}
}

func TestNoAllocation(t *testing.T) {
	timer := open(t)
	if n := testing.AllocsPerRun(100, func() {
		timer.Set(0)
		_ = timer.Wait()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkLate tells how late a timer of 200 µs is beside that of the runtime.
func BenchmarkLate(b *testing.B) {
	const d = 200 * time.Microsecond
	timer := open(b)
	late := func(wait func()) func(b *testing.B) {
		return func(b *testing.B) {
			var all []time.Duration
			for b.Loop() {
				begun := time.Now()
				wait()
				all = append(all, time.Since(begun)-d)
			}
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs-p50")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "µs-p99")
		}
	}
	b.Run("kernel", late(func() { timer.Set(d); _ = timer.Wait() }))
	b.Run("runtime", late(func() { time.Sleep(d) }))
}
