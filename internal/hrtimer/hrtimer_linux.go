package hrtimer

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Timer is one timer, which is not set at first. Set is for one goroutine at a time,
// Wait for one too; Close may be called at any time.
type Timer struct {
	file *os.File
	rc   syscall.RawConn
	// set is bound once: a closure made for each call would be allocated.
	set  func(fd uintptr)
	spec unix.ItimerSpec
	err  error
	buf  [8]byte
}

// New makes a timer. It fails when the process may not open more files.
func New() (*Timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("hrtimer: timerfd_create: %w", err)
	}
	t := &Timer{file: os.NewFile(uintptr(fd), "timerfd")}
	if t.rc, err = t.file.SyscallConn(); err != nil {
		_ = t.file.Close()
		return nil, fmt.Errorf("hrtimer: %w", err)
	}
	t.set = func(fd uintptr) { t.err = unix.TimerfdSettime(int(fd), 0, &t.spec, nil) }
	return t, nil
}

// Set makes the timer fire once after d, at once if d is not positive, in place of
// what was set before. It does not allocate. After Close it does nothing.
func (t *Timer) Set(d time.Duration) {
	t.spec.Value = unix.NsecToTimespec(int64(max(d, 1))) // zero would disarm it
	if t.rc.Control(t.set) == nil && t.err != nil {
		panic(t.err) // the arguments are right
	}
}

// Wait waits until the timer has fired since Wait returned, or was closed:
// os.ErrClosed.
func (t *Timer) Wait() error {
	_, err := t.file.Read(t.buf[:])
	return err
}

// Close releases the timer and ends Wait.
func (t *Timer) Close() error { return t.file.Close() }
