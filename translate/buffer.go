package translate

import (
	"sync"
	"sync/atomic"
)

const (
	// smallBuffer is what a connection keeps while nothing happens on it, largeBuffer
	// what it borrows while bytes pass. Our choice: a large one holds what a read
	// of a busy socket gives.
	smallBuffer = 2 << 10
	largeBuffer = 32 << 10
	// lowWater is how much of a long message is handed on at a time, if it comes in
	// time: half of a large buffer. With each packet by itself, the goroutine, the
	// socket and the application behind it were woken for each.
	lowWater = largeBuffer / 2
)

// buffers lends large buffers, all of one size.
type buffers struct {
	size int
	pool sync.Pool
}

func (b *buffers) get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, b.size)
}

func (b *buffers) put(p []byte) {
	p = p[:cap(p)]
	b.pool.Put(&p)
}

// window is the bytes that have arrived and are not done with. Its buffer is small
// until a read fills it, and is given back when it is empty.
type window struct {
	large    *buffers
	small    []byte
	buf      []byte
	r, w     int
	borrowed bool
	filled   bool // the last read filled the room
}

// bytes are those that are not done with.
func (w *window) bytes() []byte { return w.buf[w.r:w.w] }

// advance drops n bytes.
func (w *window) advance(n int) {
	if w.r += n; w.r == w.w {
		w.r, w.w = 0, 0
	}
}

// room is where to read to; it is not empty unless as many bytes are held as a large
// buffer has.
func (w *window) room() []byte {
	switch {
	case w.r == w.w && w.borrowed && !w.filled:
		w.release()
		w.buf = w.smallest()
	case w.buf == nil:
		w.buf = w.smallest()
	case !w.borrowed && (w.filled || w.r == 0 && w.w == len(w.buf)):
		large := w.large.get()
		w.w = copy(large, w.buf[w.r:w.w])
		w.r, w.buf, w.borrowed = 0, large, true
	case w.r > 0 && len(w.buf)-w.w < len(w.buf)/2:
		w.w = copy(w.buf, w.buf[w.r:w.w])
		w.r = 0
	}
	return w.buf[w.w:]
}

func (w *window) smallest() []byte {
	if w.small == nil {
		w.small = make([]byte, smallBuffer)
	}
	return w.small
}

// fill counts n bytes as read into the room.
func (w *window) fill(n int) {
	w.w += n
	w.filled = w.w == len(w.buf)
}

// release gives the buffer back and drops what it holds.
func (w *window) release() {
	if w.borrowed {
		w.large.put(w.buf)
	}
	w.buf, w.r, w.w, w.borrowed, w.filled = nil, 0, 0, false, false
}

// budget bounds bytes.
type budget struct {
	limit int64
	used  atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// collector holds the first bytes of a message until its length is known.
type collector struct {
	budget *budget
	buf    []byte
	taken  int64
}

// add appends p, and reports whether the budget had room for it.
func (c *collector) add(p []byte) bool {
	need := len(c.buf) + len(p)
	if need > cap(c.buf) {
		size := max(need, 2*cap(c.buf), 512)
		if !c.budget.take(int64(size) - c.taken) {
			if size = need; !c.budget.take(int64(size) - c.taken) {
				return false
			}
		}
		c.taken = int64(size)
		grown := make([]byte, len(c.buf), size)
		copy(grown, c.buf)
		c.buf = grown
	}
	c.buf = append(c.buf, p...)
	return true
}

// release drops what is held.
func (c *collector) release() {
	if c.taken > 0 {
		c.budget.give(c.taken)
	}
	c.buf, c.taken = nil, 0
}
