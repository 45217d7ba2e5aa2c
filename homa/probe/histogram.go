package probe

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// subBits is the precision of a Histogram: durations are told apart that differ by
// one part in 2^subBits.
const subBits = 10

// maxExact is how many durations a Histogram keeps as they are.
const maxExact = 1000

// Histogram counts durations in bounded memory (some 280 KB), to about 0.1 %;
// the extremes and the mean are exact, and percentiles of up to 1000 durations. The zero value is ready. It is for one
// goroutine at a time.
type Histogram struct {
	counts   []uint64
	exact    []time.Duration // all of them, up to maxExact
	count    uint64
	sum      float64 // ns
	min, max time.Duration
}

// bucket is where d is counted: durations below 2^(subBits+1) ns each have their
// own, above that each power of two has 2^subBits.
func bucket(d time.Duration) int {
	v := uint64(d)
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// middle is a duration that bucket i counts.
func middle(i int) time.Duration {
	const sub = 1 << subBits
	if i < 2*sub {
		return time.Duration(i)
	}
	shift := i>>subBits - 1
	return time.Duration(i-shift<<subBits)<<shift + time.Duration(1)<<shift/2
}

// Add counts a duration; negative ones count as 0, those above an hour as one.
func (h *Histogram) Add(d time.Duration) {
	d = min(max(d, 0), time.Hour)
	if h.counts == nil {
		h.counts = make([]uint64, bucket(time.Hour)+1)
	}
	h.counts[bucket(d)]++
	if len(h.exact) < maxExact {
		h.exact = append(h.exact, d)
	}
	if h.count == 0 || d < h.min {
		h.min = d
	}
	h.max = max(h.max, d)
	h.count++
	h.sum += float64(d)
}

// Count is how many durations were added.
func (h *Histogram) Count() uint64 { return h.count }

// Min, Max and Mean are those of all durations added; 0 if there are none.
func (h *Histogram) Min() time.Duration { return h.min }

// Max is the longest.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean is the average.
func (h *Histogram) Mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return time.Duration(h.sum / float64(h.count))
}

// Percentile is the shortest duration that p percent do not exceed, p from 0 to
// 100; 0 if there are none.
func (h *Histogram) Percentile(p float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	// The product may be a little above a whole number that it should be.
	rank := max(uint64(math.Ceil(p/100*float64(h.count)-1e-6)), 1)
	if h.count == uint64(len(h.exact)) {
		slices.Sort(h.exact)
		return h.exact[rank-1]
	}
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank {
			return min(max(middle(i), h.min), h.max)
		}
	}
	return h.max
}
