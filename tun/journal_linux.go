package tun

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// journalVersion is raised when an older program could not undo what the
// entries mean.
const journalVersion = 1

// maxJournal bounds the file that is read back, in bytes; maxRoutes routes of
// some 80 bytes are below it.
const maxJournal = 1 << 20

// journal lists what a run has changed on the host or is about to.
type journal struct {
	Version int
	// Boot is the kernel's boot id: nothing that is listed survives another.
	Boot string
	// Device and Alias name the device. The alias is random and set on the
	// device, so a device of the same name without it is not ours.
	Device, Alias string
	Rules         []rule   `json:",omitempty"`
	Routes        []route  `json:",omitempty"`
	Sysctls       []sysctl `json:",omitempty"`
}

// ledger is the place of a device's journal, held under a lock.
type ledger struct {
	path string
	lock *os.File
}

// openLedger locks the ledger of the device in the current network namespace.
// The lock belongs to the open file, so it ends with the process whatever ends
// it. The error wraps unix.EBUSY when a live process (or this one) has it.
func openLedger(dir, device string) (*ledger, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("tun: folder of the journal: %w", err)
	}
	ns, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("tun: network namespace: %w", err)
	}
	// One host may have the same device name in several namespaces.
	ino := ns.Sys().(*syscall.Stat_t).Ino
	base := filepath.Join(dir, device+"."+strconv.FormatUint(ino, 10))
	f, err := lockFile(base+".lock", 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("tun: device %q is in use by %s (%s.lock): %w", device, holder(base+".lock"), base, unix.EBUSY)
	}
	if err != nil {
		return nil, err
	}
	l := &ledger{path: base + ".journal", lock: f}
	// For people, and for the message above.
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return nil, errors.Join(fmt.Errorf("tun: lock of the journal: %w", err), l.close())
	}
	return l, nil
}

// read gives the journal that an earlier run left, or nil.
func (l *ledger) read() (*journal, error) {
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tun: journal of an earlier run: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxJournal+1))
	if err != nil {
		return nil, fmt.Errorf("tun: journal of an earlier run: %w", err)
	}
	j := new(journal)
	if len(b) > maxJournal {
		err = fmt.Errorf("is longer than %d bytes", maxJournal)
	} else if err = json.Unmarshal(b, j); err == nil {
		err = j.check()
	}
	if err != nil {
		return nil, fmt.Errorf("tun: journal of an earlier run cannot be used; undo by hand what %s lists and remove it: %w", l.path, err)
	}
	return j, nil
}

// check accepts what this program could have written and no more: the file
// decides what is removed.
func (j *journal) check() error {
	if j.Version != journalVersion {
		return fmt.Errorf("version is %d, not %d", j.Version, journalVersion)
	}
	last := firstPriority + slots*slotSize
	ours := func(n int) bool { return n >= firstPriority && n < last }
	for _, r := range j.Rules {
		if !ours(r.Priority) || r.Table != tableMain && !ours(r.Table) {
			return fmt.Errorf("rule %d of table %d is not ours", r.Priority, r.Table)
		}
	}
	for _, r := range j.Routes {
		if !ours(r.Table) || !r.Dst.IsValid() {
			return fmt.Errorf("route %v of table %d is not ours", r.Dst, r.Table)
		}
	}
	for _, s := range j.Sysctls {
		if s.Path != rpFilterAll {
			return fmt.Errorf("sysctl %s is not ours", s.Path)
		}
	}
	return nil
}

// write replaces the journal by j, all or nothing, readable by the owner only.
func (l *ledger) write(j *journal) (err error) {
	b, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return fmt.Errorf("tun: journal: %w", err)
	}
	tmp := l.path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("tun: journal: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, l.path)
	}
	if err != nil {
		return fmt.Errorf("tun: journal: %w", errors.Join(err, os.Remove(tmp)))
	}
	return nil
}

// remove forgets the journal: all that it lists is undone.
func (l *ledger) remove() error {
	if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tun: journal: %w", err)
	}
	return nil
}

// close gives up the lock and leaves no lock file behind.
func (l *ledger) close() error {
	return unlockFile(l.lock)
}

// lockFile opens and locks the file at path, which unlockFile removes again.
// It waits at most patience for another holder; then the error wraps
// unix.EBUSY.
func lockFile(path string, patience time.Duration) (*os.File, error) {
	deadline := time.Now().Add(patience)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("tun: lock: %w", err)
		}
		err = control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
		if err == nil && sameFile(f, path) {
			return f, nil
		}
		f.Close() // nothing was written
		switch {
		case err == nil: // the holder removed the file between open and lock
			continue
		case err == unix.EINTR:
			continue
		case err != unix.EWOULDBLOCK:
			return nil, fmt.Errorf("tun: lock %s: %w", path, err)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("tun: lock %s is held by %s: %w", path, holder(path), unix.EBUSY)
		}
		time.Sleep(10 * time.Millisecond) // flock cannot wait with a limit
	}
}

// unlockFile removes the file while it is still locked, so that whoever waits
// for the lock finds out that it is of no use any more, and closes it.
func unlockFile(f *os.File) error {
	err := errors.Join(os.Remove(f.Name()), f.Close())
	if err != nil {
		return fmt.Errorf("tun: lock: %w", err)
	}
	return nil
}

// sameFile reports whether path still leads to f.
func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// holder describes the process that wrote its number into the lock at path.
func holder(path string) string {
	b, err := os.ReadFile(path)
	pid, err2 := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || err2 != nil {
		return "another process"
	}
	return "process " + strconv.Itoa(pid)
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// bootID gives the kernel's id of this boot, or "" where it is hidden.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
