package packet

import (
	"sync"
	"sync/atomic"
)

// Size is the capacity of a pooled buffer in bytes: the largest IP packet and
// the largest UDP datagram both fit.
const Size = 1 << 16

// Buffer is a pooled buffer of Size bytes with one owner at a time.
type Buffer struct {
	// B is the whole buffer; len(B) == Size whenever Get returns it.
	B []byte

	free atomic.Bool
}

var pool = sync.Pool{New: func() any { return &Buffer{B: make([]byte, Size)} }}

// Get gives a buffer of Size bytes whose content is undefined. It is safe for
// concurrent use.
func Get() *Buffer {
	b := pool.Get().(*Buffer)
	b.free.Store(false)
	return b
}

// Release returns the buffer to the pool; the caller must not touch it again.
// A second release of the same buffer is a defect of ours and panics.
func (b *Buffer) Release() {
	if b.free.Swap(true) {
		panic("packet: buffer released twice")
	}
	pool.Put(b)
}
