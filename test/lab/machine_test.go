package lab

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestParseMachineTime(t *testing.T) {
	got, err := parseMachineTime("cpu  100 20 300 4000 50 6 70 8 9 10\ncpu0 1 2 3\n")
	want := MachineTime{Busy: 4960 * time.Millisecond, SoftIRQ: 700 * time.Millisecond, Stolen: 80 * time.Millisecond}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if d := got.Sub(MachineTime{Busy: time.Second, SoftIRQ: time.Second, Stolen: time.Second}); d.Busy != 3960*time.Millisecond {
		t.Errorf("difference %+v", d)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 x 6 7 8"} {
		if _, err := parseMachineTime(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := ReadMachineTime(); err != nil {
		t.Error(err)
	}
}

func TestUndisturbed(t *testing.T) {
	runs := 0
	busy, repeats, err := Undisturbed(context.Background(), func() error {
		runs++
		for start := time.Now(); time.Since(start) < 100*time.Millisecond; {
			// One processor works: ticks are of 10 ms.
		}
		return nil
	}, func() bool { return true })
	if err != nil || busy <= 0 || busy > 1 || repeats != runs-1 {
		t.Errorf("busy %v, %d repeats of %d runs, %v", busy, repeats, runs, err)
	}
	fault := errors.New("x")
	if _, _, err := Undisturbed(context.Background(), func() error { return fault }, nil); err != fault {
		t.Error(err)
	}
}
