package sim

import (
	"cmp"
	"math"
	"slices"

	"github.com/tougw/tougw/homa/wire"
)

// Slices is into how many parts of equal message count the messages are cut,
// shortest first: the x axis of the paper's figures.
const Slices = 10

// Result is what a run has measured.
type Result struct {
	Workload string  `json:"workload"`
	Scheme   Scheme  `json:"scheme"`
	Load     float64 `json:"load"` // asked for
	Seed     uint64  `json:"seed"`
	Hosts    int     `json:"hosts"`
	Racks    int     `json:"racks"`
	// Simulated seconds: before measured messages begin, while they begin, and in all.
	Warmup  float64 `json:"warmup_seconds"`
	Measure float64 `json:"measure_seconds"`
	Time    float64 `json:"time_seconds"`
	// Seconds that the run took, and the compiler it was made with.
	Elapsed float64 `json:"elapsed_seconds"`
	Go      string  `json:"go"`

	Unscheduled     int                        `json:"unscheduled_bytes"`
	GrantWindow     int                        `json:"grant_window_bytes"`
	Overcommit      int                        `json:"overcommit_messages"`
	FIFOShare       int                        `json:"fifo_per_mille"`
	Cutoffs         [wire.NumPriorities]uint32 `json:"cutoffs_bytes"`
	ScheduledLevels int                        `json:"scheduled_levels"`

	// OfferedLoad is what the measured messages put on the links into hosts, by the
	// estimate that Load is about: how much chance, with few long messages, has
	// made of it.
	OfferedLoad float64 `json:"offered_load"`
	// MeasuredLoad is the share of the links into hosts that was taken while the
	// measured messages began.
	MeasuredLoad float64 `json:"measured_load"`
	// Messages sent and arrived, in all; Unfinished measured ones, which count with
	// the slowdown that they had reached.
	Messages   uint64 `json:"messages"`
	Completed  uint64 `json:"completed"`
	Unfinished int    `json:"unfinished"`
	// Packets: sent = delivered + dropped + in flight at the end.
	PacketsSent      uint64 `json:"packets_sent"`
	PacketsDelivered uint64 `json:"packets_delivered"`
	PacketsDropped   uint64 `json:"packets_dropped"`
	PacketsInFlight  uint64 `json:"packets_in_flight"`
	// Packets sent, by the name of their type.
	PacketTypes map[string]uint64 `json:"packet_types"`
	// Bytes of messages and responses sent for the first time and again.
	BytesSent   uint64 `json:"bytes_sent"`
	BytesResent uint64 `json:"bytes_resent"`
	// The most bytes that waited at a port to a host, and at one between switches.
	MaxQueuedTOR  int64 `json:"max_queued_tor_bytes"`
	MaxQueuedCore int64 `json:"max_queued_core_bytes"`

	Slices []Slice `json:"slices"` // shortest messages first
	Half   Slice   `json:"shortest_half"`
	All    Slice   `json:"all"`
}

// Slice is the slowdown of some of the messages: the time that each took, over
// the best possible one for its length and its way.
type Slice struct {
	Count    int     `json:"count"`
	Shortest int     `json:"shortest_bytes"`
	Longest  int     `json:"longest_bytes"`
	Mean     float64 `json:"mean"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
	P999     float64 `json:"p999"`
	Max      float64 `json:"max"`
}

// sample is one measured message.
type sample struct {
	length   int32
	slowdown float32
}

// measure fills in the slowdowns. Messages of one length that fall into two slices
// are divided in the order in which hosts sent them.
func (r *Result) measure(samples []sample) {
	slices.SortStableFunc(samples, func(a, b sample) int { return cmp.Compare(a.length, b.length) })
	n := len(samples)
	scratch := make([]float64, 0, n)
	r.Slices = nil
	for i := range Slices {
		r.Slices = append(r.Slices, summarise(samples[i*n/Slices:(i+1)*n/Slices], scratch))
	}
	r.Half = summarise(samples[:n/2], scratch)
	r.All = summarise(samples, scratch)
}

// summarise describes samples that are sorted by length.
func summarise(samples []sample, scratch []float64) Slice {
	if len(samples) == 0 {
		return Slice{}
	}
	sum := 0.0
	for _, s := range samples {
		scratch = append(scratch, float64(s.slowdown))
		sum += float64(s.slowdown)
	}
	slices.Sort(scratch)
	return Slice{
		Count:    len(samples),
		Shortest: int(samples[0].length),
		Longest:  int(samples[len(samples)-1].length),
		Mean:     sum / float64(len(samples)),
		P50:      percentile(scratch, 0.5),
		P99:      percentile(scratch, 0.99),
		P999:     percentile(scratch, 0.999),
		Max:      scratch[len(scratch)-1],
	}
}

// percentile gives the smallest of the sorted values that at least the share p
// of them do not exceed.
func percentile(sorted []float64, p float64) float64 {
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}
