package homa

// heapID names a kind of heap, so that an element can be in several.
type heapID uint8

const (
	heapSend     heapID = iota // RPCs with data that may leave
	heapSendAge                // the same, oldest first
	heapGrant                  // of a peer: RPCs that wait to be granted
	heapGrantAge               // RPCs that may be granted, oldest first
	heapReceive                // RPCs that wait for receive memory
	heapTransmit               // RPCs that wait for send memory
	heapPeers                  // peers that have RPCs in heapGrant
	numHeaps
)

// positioned is an element that remembers where in each heap it is: index + 1,
// 0 if it is not there.
type positioned interface {
	comparable
	position(heapID) *int32
}

type heapItem[T positioned] struct {
	key  int64
	tie  uint64
	elem T
}

// heap is a binary heap of elements with keys, smallest first; of equal keys the
// one with the smaller tie.
type heap[T positioned] struct {
	id    heapID
	items []heapItem[T]
}

func (h *heap[T]) len() int { return len(h.items) }

// top returns the first element; the heap must not be empty.
func (h *heap[T]) top() T { return h.items[0].elem }

func (h *heap[T]) has(x T) bool { return *x.position(h.id) != 0 }

func (h *heap[T]) less(a, b *heapItem[T]) bool {
	return a.key < b.key || a.key == b.key && a.tie < b.tie
}

// set puts x into the heap, or moves it to where its new key belongs.
func (h *heap[T]) set(x T, key int64, tie uint64) {
	at := int(*x.position(h.id)) - 1
	if at < 0 {
		at = len(h.items)
		h.items = append(h.items, heapItem[T]{key, tie, x})
		*x.position(h.id) = int32(at + 1)
		h.up(at)
		return
	}
	h.items[at].key, h.items[at].tie = key, tie
	if !h.up(at) {
		h.down(at)
	}
}

// remove takes x out; it need not be there.
func (h *heap[T]) remove(x T) {
	p := x.position(h.id)
	at := int(*p) - 1
	if at < 0 {
		return
	}
	*p = 0
	last := len(h.items) - 1
	moved := h.items[last]
	h.items[last] = heapItem[T]{}
	h.items = h.items[:last]
	if at == last {
		return
	}
	h.items[at] = moved
	*moved.elem.position(h.id) = int32(at + 1)
	if !h.up(at) {
		h.down(at)
	}
}

func (h *heap[T]) up(at int) bool {
	item := h.items[at]
	start := at
	for at > 0 {
		parent := (at - 1) / 2
		if !h.less(&item, &h.items[parent]) {
			break
		}
		h.put(at, h.items[parent])
		at = parent
	}
	if at == start {
		return false
	}
	h.put(at, item)
	return true
}

func (h *heap[T]) down(at int) {
	item := h.items[at]
	start := at
	for {
		child := 2*at + 1
		if child >= len(h.items) {
			break
		}
		if child+1 < len(h.items) && h.less(&h.items[child+1], &h.items[child]) {
			child++
		}
		if !h.less(&h.items[child], &item) {
			break
		}
		h.put(at, h.items[child])
		at = child
	}
	if at != start {
		h.put(at, item)
	}
}

func (h *heap[T]) put(at int, item heapItem[T]) {
	h.items[at] = item
	*item.elem.position(h.id) = int32(at + 1)
}
