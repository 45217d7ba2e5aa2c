package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tougw/tougw/test/lab"
)

// ticksPerSecond is USER_HZ, part of the kernel's ABI.
const ticksPerSecond = 100

// usageOfTree sums what a process and all its descendants hold and have used.
// Memory that they share counts once for each.
func usageOfTree(root int) (sum lab.Usage, err error) {
	parents, err := parents()
	if err != nil {
		return sum, err
	}
	for _, pid := range tree(root, parents) {
		u, err := lab.UsageOf(pid)
		if err != nil {
			if pid == root {
				return sum, err
			}
			continue // ended meanwhile
		}
		sum.CPU += u.CPU
		sum.RSS += u.RSS
		sum.Descriptors += u.Descriptors
	}
	return sum, nil
}

// tree is root with its descendants, parents before children.
func tree(root int, parents map[int]int) []int {
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		for pid, parent := range parents {
			if parent == pids[i] && pid != root {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// parents of all processes.
func parents() (map[int]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := map[int]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if text, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat")); err == nil {
			if parent, err := parentOf(string(text)); err == nil {
				all[pid] = parent
			}
		}
	}
	return all, nil
}

// parentOf reads the parent from the text of /proc/PID/stat. The name, in
// parentheses, may hold anything; the parent is the second field behind it.
func parentOf(stat string) (int, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, fmt.Errorf("no parent in %q", stat)
	}
	return strconv.Atoi(fields[1])
}

// machineTime is what all processors of the machine have done.
type machineTime struct {
	// Busy is everything but waiting; SoftIRQ the kernel's packet work in it
	// that is charged to no process; Stolen was taken by the hypervisor.
	Busy, SoftIRQ, Stolen time.Duration
}

func (t machineTime) minus(u machineTime) machineTime {
	return machineTime{t.Busy - u.Busy, t.SoftIRQ - u.SoftIRQ, t.Stolen - u.Stolen}
}

// readMachineTime reads /proc/stat.
func readMachineTime() (machineTime, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machineTime{}, err
	}
	return parseMachineTime(string(text))
}

// parseMachineTime takes the line of all processors: user, nice, system, idle,
// iowait, irq, softirq, steal, then guests, which are part of user and nice.
func parseMachineTime(stat string) (t machineTime, err error) {
	line := firstLine(stat)
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
	return machineTime{Busy: n[0] + n[1] + n[2] + n[5] + n[6], SoftIRQ: n[6], Stolen: n[7]}, nil
}

// loadAverage is that of the last minute, or 0.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, _ := strconv.ParseFloat(first, 64)
	return load
}

// firstLine of a text.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimSpace(line)
}
