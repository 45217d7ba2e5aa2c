package load

import (
	"math/bits"
	"time"
)

const (
	// subBits sets the resolution: a value falls into a bucket that is at most
	// 1/128 of the value wide.
	subBits = 7
	sub     = 1 << subBits
	// topBits bounds what is told apart: longer ones count as 2^40 ns, 18
	// minutes.
	topBits = 40
	buckets = (topBits-subBits)*sub + 2*sub
)

// Histogram counts durations in buckets whose width grows with the value, so
// that percentiles are right within 1 % however many values there are. The zero
// value is empty. It is not safe for concurrent use.
type Histogram struct {
	counts [buckets]uint64
	n      uint64
	most   time.Duration
}

// bucket of a number of nanoseconds.
func bucket(v uint64) int {
	v = min(v, 1<<topBits)
	if v < 2*sub {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift*sub + int(v>>shift)
}

// middle of a bucket, in nanoseconds.
func middle(i int) uint64 {
	if i < 2*sub {
		return uint64(i)
	}
	shift := i/sub - 1
	return uint64(i-shift*sub)<<shift + 1<<(shift-1)
}

// Add counts a duration. A negative one counts as 0.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))]++
	h.n++
	h.most = max(h.most, d)
}

// Merge counts all that other has counted. It borrows other.
func (h *Histogram) Merge(other *Histogram) {
	for i, c := range other.counts {
		h.counts[i] += c
	}
	h.n += other.n
	h.most = max(h.most, other.most)
}

// Count is how many durations were added.
func (h *Histogram) Count() uint64 { return h.n }

// Max is the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return h.most }

// Quantile is the duration that a share q, 0 to 1, of all durations does not
// exceed, within 1 %; 0 when there is none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := min(uint64(q*float64(h.n)), h.n-1)
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen > rank {
			return min(time.Duration(middle(i)), h.most)
		}
	}
	return h.most
}
