package simnet

import "sync"

// Capacities of pooled buffers: most datagrams are those of an Ethernet path,
// and a queue of them must not cost 64 KiB each.
const (
	smallSize = 2048
	largeSize = 1 << 16
)

// buffer is a copy of a datagram on its way, with one owner.
type buffer struct {
	payload []byte // of the whole capacity's beginning
}

var (
	small = sync.Pool{New: func() any { return &buffer{make([]byte, 0, smallSize)} }}
	large = sync.Pool{New: func() any { return &buffer{make([]byte, 0, largeSize)} }}
)

// newBuffer gives a copy of p, which is at most largeSize bytes.
func newBuffer(p []byte) *buffer {
	pool := &small
	if len(p) > smallSize {
		pool = &large
	}
	b := pool.Get().(*buffer)
	b.payload = append(b.payload[:0], p...)
	return b
}

func (b *buffer) release() {
	if cap(b.payload) == smallSize {
		small.Put(b)
	} else {
		large.Put(b)
	}
}
