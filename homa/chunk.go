package homa

// Messages are held in chunks. A message of up to chunkSize bytes has one chunk,
// of the smallest class that fits; a longer one has chunks of chunkSize, each
// allocated when its first byte arrives and freed when its last is read.
const (
	chunkSize  = 16 << 10
	numClasses = 4
)

var classSizes = [numClasses]int{256, 1 << 10, 4 << 10, chunkSize}

// maxFree bounds the bytes of chunks that are kept for reuse.
const maxFree = 16 << 20

func classOf(length int) int {
	for c, size := range classSizes {
		if length <= size {
			return c
		}
	}
	return numClasses - 1
}

// shareOf is the memory in bytes that the chunks of a message of the length take.
func shareOf(length int) int64 {
	if length <= chunkSize {
		return int64(classSizes[classOf(length)])
	}
	return int64(length+chunkSize-1) / chunkSize * chunkSize
}

// receiveShare is the memory that a message to be received is admitted with: a
// window that does not begin at a chunk's start touches one chunk more.
func (c *Config) receiveShare(length int) int64 {
	if length <= c.ReceiveWindow {
		return shareOf(length)
	}
	return min(shareOf(length), shareOf(c.ReceiveWindow)+chunkSize)
}

// chunkStore hands out chunks and keeps those returned.
type chunkStore struct {
	free      [numClasses][][]byte
	freeBytes int
}

func (s *chunkStore) get(class int) []byte {
	list := s.free[class]
	if n := len(list) - 1; n >= 0 {
		chunk := list[n]
		list[n] = nil
		s.free[class] = list[:n]
		s.freeBytes -= len(chunk)
		return chunk
	}
	return make([]byte, classSizes[class])
}

func (s *chunkStore) put(class int, chunk []byte) {
	if s.freeBytes+len(chunk) > maxFree {
		return
	}
	s.freeBytes += len(chunk)
	s.free[class] = append(s.free[class], chunk)
}

// content holds bytes of one message, at their offsets.
type content struct {
	store  *chunkStore
	held   *int64 // the direction's total, in bytes of chunks
	class  int
	chunks [][]byte // nil: not allocated
	single [1][]byte
}

func (c *content) init(store *chunkStore, held *int64, length int) {
	c.store, c.held, c.class = store, held, classOf(length)
	if length <= chunkSize {
		c.chunks = c.single[:]
	} else {
		c.chunks = make([][]byte, (length+chunkSize-1)/chunkSize)
	}
}

// put copies b to the offset, which lies with all of b inside the message.
func (c *content) put(offset int, b []byte) {
	for len(b) > 0 {
		i := offset / chunkSize
		if c.chunks[i] == nil {
			c.chunks[i] = c.store.get(c.class)
			*c.held += int64(len(c.chunks[i]))
		}
		n := copy(c.chunks[i][offset%chunkSize:], b)
		b = b[n:]
		offset += n
	}
}

// get copies len(b) bytes from the offset; they were put there.
func (c *content) get(b []byte, offset int) {
	for len(b) > 0 {
		n := copy(b, c.chunks[offset/chunkSize][offset%chunkSize:])
		b = b[n:]
		offset += n
	}
}

// appendTo appends n bytes from the offset to b.
func (c *content) appendTo(b []byte, offset, n int) []byte {
	for n > 0 {
		from := c.chunks[offset/chunkSize][offset%chunkSize:]
		from = from[:min(n, len(from))]
		b = append(b, from...)
		n -= len(from)
		offset += len(from)
	}
	return b
}

// share is the memory of the chunks that the bytes from read on still touch.
func (c *content) share(read, length int) int64 {
	if length <= chunkSize {
		return int64(classSizes[c.class])
	}
	return int64(len(c.chunks)-read/chunkSize) * chunkSize
}

// drop frees the chunks that lie wholly in front of offset end and behind start.
func (c *content) drop(start, end int) {
	for i := start / chunkSize; i < end/chunkSize && i < len(c.chunks); i++ {
		c.free(i)
	}
}

// dropAll frees everything.
func (c *content) dropAll() {
	for i := range c.chunks {
		c.free(i)
	}
	c.chunks = nil
}

func (c *content) free(i int) {
	if chunk := c.chunks[i]; chunk != nil {
		c.chunks[i] = nil
		*c.held -= int64(len(chunk))
		c.store.put(c.class, chunk)
	}
}
