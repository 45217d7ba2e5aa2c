package sim

import (
	"bufio"
	"bytes"
	"embed"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
)

// The tables hold the numbers that the authors of Homa publish in util/dist.cc
// of their Linux module (branch main, July 2026), regrouped by frequency; the
// lengths are those of the SIGCOMM'18 paper, except that W1 and W2 have no
// message below 8 bytes and W5 is in bytes, not packets.
//
//go:embed workloads/*.txt
var tables embed.FS

// Workloads names the message-length distributions of the Homa papers, from
// mostly short messages to mostly long ones.
var Workloads = []string{"W1", "W2", "W3", "W4", "W5"}

// Workload is a distribution of message lengths. It does not change and may be
// shared.
type Workload struct {
	Name    string
	lengths []int     // bytes, increasing
	upTo    []float64 // share of all messages that are no longer; the last is 1
}

// LoadWorkload gives one of Workloads, by name.
func LoadWorkload(name string) (*Workload, error) {
	data, err := tables.ReadFile("workloads/" + strings.ToLower(name) + ".txt")
	if err != nil {
		return nil, fmt.Errorf("workload %q is not one of %s", name, strings.Join(Workloads, ", "))
	}
	return parseWorkload(strings.ToUpper(name), data)
}

// parseWorkload reads lines of a relative frequency and the lengths, in bytes,
// that each have it.
func parseWorkload(name string, data []byte) (*Workload, error) {
	w := &Workload{Name: name}
	total := 0.0
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		weight, err := strconv.ParseFloat(fields[0], 64)
		if err != nil || !(weight > 0) || math.IsInf(weight, 0) {
			return nil, fmt.Errorf("workload %s, line %d: frequency %q is not a number above 0", name, n, fields[0])
		}
		for _, field := range fields[1:] {
			length, err := strconv.Atoi(field)
			if err != nil || length < 1 || length > math.MaxInt32 {
				return nil, fmt.Errorf("workload %s, line %d: length %q is not a number of bytes", name, n, field)
			}
			if k := len(w.lengths); k > 0 && length <= w.lengths[k-1] {
				return nil, fmt.Errorf("workload %s, line %d: length %d does not increase", name, n, length)
			}
			total += weight
			w.lengths = append(w.lengths, length)
			w.upTo = append(w.upTo, total)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("workload %s: %w", name, err)
	}
	if len(w.lengths) == 0 {
		return nil, fmt.Errorf("workload %s: no length", name)
	}
	for i := range w.upTo {
		w.upTo[i] /= total
	}
	w.upTo[len(w.upTo)-1] = 1
	return w, nil
}

// Quantile gives the shortest length that at least the share u, between 0 and
// 1, of all messages do not exceed.
func (w *Workload) Quantile(u float64) int {
	i := sort.SearchFloat64s(w.upTo, u)
	return w.lengths[min(i, len(w.lengths)-1)]
}

// Longest is the length of the longest message, in bytes.
func (w *Workload) Longest() int { return w.lengths[len(w.lengths)-1] }

// Mean is the expectation of f over the lengths of messages.
func (w *Workload) Mean(f func(length int) float64) float64 {
	sum, before := 0.0, 0.0
	for i, length := range w.lengths {
		sum += (w.upTo[i] - before) * f(length)
		before = w.upTo[i]
	}
	return sum
}
