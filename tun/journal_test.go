package tun

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestJournalRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "when missing")
	l, err := openLedger(dir, "tou0")
	if err != nil {
		t.Fatal(err)
	}
	if j, err := l.read(); j != nil || err != nil {
		t.Errorf("no journal reads as %v, %v", j, err)
	}
	want := &journal{Version: journalVersion, Boot: "b", Device: "tou0", Alias: "a", Sysctls: []sysctl{{rpFilterAll, "1", "2"}}}
	want.Rules, want.Routes = planRoutes(normalize(DefaultRoutes()), 0, 1)
	for range 2 { // the second replaces the first
		if err := l.write(want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.read()
	if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); err != nil || a != b {
		t.Errorf("read %s, %v; want %s", a, err, b)
	}
	if err := errors.Join(l.remove(), l.remove(), l.close()); err != nil {
		t.Error(err)
	}
	emptyDir(t, dir)
}

// TestJournalOfOthers: a journal that we cannot have written is not acted on,
// stays, and is named in the error.
func TestJournalOfOthers(t *testing.T) {
	edit := func(f func(*journal)) []byte {
		j := &journal{Version: journalVersion, Boot: bootID(), Device: "tou0"}
		f(j)
		b, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"empty":           {},
		"cut":             edit(func(*journal) {})[:20],
		"newer version":   edit(func(j *journal) { j.Version++ }),
		"too long":        bytes.Repeat([]byte(" "), maxJournal+1),
		"foreign rule":    edit(func(j *journal) { j.Rules = []rule{{Priority: 32766, Table: tableMain}} }),
		"foreign table":   edit(func(j *journal) { j.Rules = []rule{{Priority: firstPriority, Table: 100}} }),
		"route in main":   edit(func(j *journal) { j.Routes = []route{{prefixes("10.0.0.0/8")[0], tableMain}} }),
		"route to nobody": edit(func(j *journal) { j.Routes = []route{{Table: firstPriority}} }),
		"foreign sysctl":  edit(func(j *journal) { j.Sysctls = []sysctl{{"../kernel/panic", "1", "0"}} }),
	} {
		t.Run(name, func(t *testing.T) {
			namespace(t)
			before, dir := hostState(t), t.TempDir()
			l, err := openLedger(dir, "tou0")
			if err == nil {
				err = errors.Join(os.WriteFile(l.path, b, 0o600), l.close())
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Open(captureAll(dir, BackendAuto)); err == nil || !strings.Contains(err.Error(), l.path) {
				t.Errorf("error is %v", err)
			}
			if got, err := os.ReadFile(l.path); err != nil || !bytes.Equal(got, b) {
				t.Errorf("the journal has changed: %v", err)
			}
			sameState(t, before)
		})
	}
}

// TestJournalOfAnotherBoot lists what is long gone; what now has the same
// numbers is not ours.
func TestJournalOfAnotherBoot(t *testing.T) {
	namespace(t)
	dir := t.TempDir()
	l, err := openLedger(dir, "tou0")
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{Version: journalVersion, Boot: "another", Device: "tou0", Sysctls: []sysctl{{rpFilterAll, "1", "0"}}}
	if err := errors.Join(l.write(j), writeSysctl(rpFilterAll, "0"), l.close()); err != nil {
		t.Fatal(err)
	}
	before := hostState(t)
	d := open(t, captureAll(dir, BackendAuto))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	sameState(t, before)
	emptyDir(t, dir)
}

// TestLockExcludes: at most one holder at any time, each waiter gets it, and
// no file stays.
func TestLockExcludes(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lock")
	var inside sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				f, err := lockFile(path, time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				if !inside.TryLock() {
					t.Error("two holders")
					return
				}
				inside.Unlock()
				if err := unlockFile(f); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	emptyDir(t, dir)

	f, err := lockFile(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFile(path, 0); !errors.Is(err, unix.EBUSY) {
		t.Errorf("second lock: %v", err)
	}
	if err := unlockFile(f); err != nil {
		t.Error(err)
	}
	if err := os.Symlink("/dev/null", path); err != nil {
		t.Fatal(err)
	}
	if _, err := lockFile(path, 0); !errors.Is(err, unix.ELOOP) {
		t.Errorf("lock through a link: %v", err)
	}
}

// TestKilledAnywhere kills a run at many moments of its start; the next one
// cleans up whatever was done by then.
func TestKilledAnywhere(t *testing.T) {
	namespace(t)
	uplink(t)
	before, dir := hostState(t), t.TempDir()
	left := 0
	for i := range 16 {
		cmd := helper(t, dir, BackendAuto)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Not to wait for anything: the moment of the kill is what varies.
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		kill(t, cmd)
		if hostState(t) != before {
			left++
		}
		d, err := Open(captureAll(dir, BackendAuto))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		sameState(t, before)
		emptyDir(t, dir)
	}
	t.Logf("%d of 16 killed runs left something", left)
}
