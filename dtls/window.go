package dtls

// windowSize is the number of recent record numbers that are told apart, a
// power of two. The 64 of RFC 6347 section 4.1.2.6 are fewer than one batch of
// segmentation offload; with 8192 a path may reorder some 100 such batches.
const windowSize = 8192

const windowWords = windowSize / 64

// window is a sliding replay window: a ring of bits addressed by record number,
// of which one word is always the one being cleared (as in RFC 6479).
type window struct {
	bits [windowWords]uint64
	// next is one more than the highest number seen.
	next uint64
}

// span is how far below next a number may be.
const span = windowSize - 64

// fresh reports whether seq has not been marked and is not too old.
func (w *window) fresh(seq uint64) bool {
	if seq >= w.next {
		return true
	}
	if w.next-seq > span {
		return false
	}
	return w.bits[seq/64%windowWords]&(1<<(seq%64)) == 0
}

// mark records seq, which must be fresh, and reports whether it is the highest
// number so far.
func (w *window) mark(seq uint64) (newest bool) {
	if seq >= w.next {
		newest = true
		last := w.next / 64
		if w.next > 0 {
			last = (w.next - 1) / 64
		}
		ahead := min(seq/64-last, windowWords)
		for i := uint64(1); i <= ahead; i++ {
			w.bits[(last+i)%windowWords] = 0
		}
		w.next = seq + 1
	}
	w.bits[seq/64%windowWords] |= 1 << (seq % 64)
	return newest
}
