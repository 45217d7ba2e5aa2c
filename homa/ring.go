package homa

// ring is a first-in first-out queue that grows as needed and keeps its storage.
type ring[T any] struct {
	items []T // length a power of two
	head  int
	count int
}

func (q *ring[T]) len() int { return q.count }

func (q *ring[T]) push(x T) {
	if q.count == len(q.items) {
		grown := make([]T, max(16, 2*len(q.items)))
		n := copy(grown, q.items[q.head:])
		copy(grown[n:], q.items[:q.head])
		q.items, q.head = grown, 0
	}
	q.items[(q.head+q.count)&(len(q.items)-1)] = x
	q.count++
}

// front is the oldest element; the ring must not be empty.
func (q *ring[T]) front() *T { return &q.items[q.head] }

func (q *ring[T]) pop() T {
	var zero T
	x := q.items[q.head]
	q.items[q.head] = zero
	q.head = (q.head + 1) & (len(q.items) - 1)
	q.count--
	return x
}
