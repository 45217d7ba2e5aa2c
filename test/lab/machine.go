package lab

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, part of the kernel's ABI.
const ticksPerSecond = 100

// MachineTime is what all processors of the machine have done.
type MachineTime struct {
	// Busy is everything but waiting; SoftIRQ the kernel's packet work in it
	// that is charged to no process; Stolen was taken by the hypervisor.
	Busy, SoftIRQ, Stolen time.Duration
}

// Sub is what was done between u and t.
func (t MachineTime) Sub(u MachineTime) MachineTime {
	return MachineTime{t.Busy - u.Busy, t.SoftIRQ - u.SoftIRQ, t.Stolen - u.Stolen}
}

// ReadMachineTime reads /proc/stat.
func ReadMachineTime() (MachineTime, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return MachineTime{}, err
	}
	return parseMachineTime(string(text))
}

// parseMachineTime takes the line of all processors: user, nice, system, idle,
// iowait, irq, softirq, steal, then guests, which are part of user and nice.
func parseMachineTime(stat string) (t MachineTime, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return t, fmt.Errorf("cannot read /proc/stat: %q", line)
	}
	var n [8]time.Duration
	for i := range n {
		ticks, err := strconv.ParseInt(fields[1+i], 10, 64)
		if err != nil {
			return t, fmt.Errorf("cannot read /proc/stat: %w", err)
		}
		n[i] = time.Duration(ticks) * time.Second / ticksPerSecond
	}
	return MachineTime{Busy: n[0] + n[1] + n[2] + n[5] + n[6], SoftIRQ: n[6], Stolen: n[7]}, nil
}

// LoadAverage is that of the last minute; 0 when it is not known.
func LoadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, _ := strconv.ParseFloat(first, 64)
	return load
}

// A run during which the hypervisor took more than stolenShare of the processors
// tells about other machines, and is repeated, up to mostRepeats times, whatever
// it gave. It hits those most that have to wait for each other.
const (
	stolenShare = 0.03
	mostRepeats = 2
)

// Undisturbed does run until the hypervisor leaves it alone, or for the last time,
// which it is after the end of ctx, and when again says no. It returns the share of
// the processors' time that was used during the last one, 0 to 1, and how many were
// dropped before it.
func Undisturbed(ctx context.Context, run func() error, again func() bool) (busy float64, repeats int, err error) {
	for ; ; repeats++ {
		start := time.Now()
		before, err := ReadMachineTime()
		if err != nil {
			return 0, repeats, err
		}
		if err := run(); err != nil {
			return 0, repeats, err
		}
		after, err := ReadMachineTime()
		if err != nil {
			return 0, repeats, err
		}
		all := float64(time.Since(start)) * float64(runtime.NumCPU())
		used := after.Sub(before)
		if repeats == mostRepeats || ctx.Err() != nil || float64(used.Stolen) <= stolenShare*all || !again() {
			return min(1, float64(used.Busy)/all), repeats, nil
		}
	}
}
