package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tougw/tougw/test/lab"
)

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

// firstLine of a text.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimSpace(line)
}
