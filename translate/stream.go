package translate

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/tougw/tougw/framing"
)

// With stream framing a TCP connection between two gateways is a sequence of RPCs,
// all from the gateway of the client, each with a framing.Chunk at the front of
// request and response:
//
//   - ChunkOpen makes the other gateway connect. Its response says that it is.
//   - A chunk with data, or ChunkFin, is answered when it was written to the server,
//     in the order of offsets. The limit in the answer allows further bytes.
//   - ChunkPoll is answered with the next bytes of the server, with its ChunkFin, or
//     with nothing after pollHold. There always is one; while much comes there are
//     more, up to maxPollers.
//   - ChunkReset, in either, ends the stream.
//
// A receiver reads each message at once into a buffer of its own, so that a slow
// connection holds up nothing in Homa; its limit bounds how much that can be.
const (
	// maxChunk is the most data in a chunk. Our choice: a message of it is a few
	// round trips of a fast link.
	maxChunk = 64 << 10
	// maxPollers and maxChunks bound the RPCs of one stream that carry data. Our
	// choice: half a megabyte each way fills a link of 10 Gbit/s at 0.4 ms.
	maxPollers = 8
	maxChunks  = 8
	// streamRPCs is how many a Reverse should serve for each stream on average.
	streamRPCs = 4
	// pollHold is how long a poll waits for bytes, and streamSilence how long a stream
	// may be without any RPC before its client's gateway counts as dead.
	pollHold      = 20 * time.Second
	streamSilence = 60 * time.Second
	// firstWindow, lastWindow and leastWindow are how many bytes a receiver allows
	// ahead: at first, at most, and where Limits.Buffered is used up.
	firstWindow = maxChunk
	lastWindow  = maxPollers * maxChunk
	leastWindow = 8 << 10
	// resetPatience is how long the other gateway is given to take a reset.
	resetPatience = 500 * time.Millisecond
)

// credit is how far a receiver lets its sender go ahead of what was written.
type credit struct {
	budget *budget
	taken  int64 // of the budget
	window int64
	fresh  int64 // bytes written since the window grew
}

func newCredit(b *budget) credit {
	c := credit{budget: b, window: leastWindow}
	c.grow(firstWindow)
	return c
}

// wrote counts n bytes as written. A receiver that has written a whole window may be
// sent more at once.
func (c *credit) wrote(n int) {
	if c.fresh += int64(n); c.fresh >= c.window && c.window < lastWindow {
		c.grow(2 * c.window)
		c.fresh = 0
	}
}

func (c *credit) grow(to int64) {
	to = min(to, lastWindow)
	more := to - c.window
	if to > firstWindow && c.budget.used.Load()+more > c.budget.limit/2 {
		return // the other half is for those that begin
	}
	if more > 0 && c.budget.take(more) {
		c.taken += more
		c.window = to
	}
}

func (c *credit) release() {
	c.budget.give(c.taken)
	c.taken = 0
}

// chunkBuffers lends room for a header and a full chunk.
var chunkBuffers = buffers{size: framing.ChunkHeaderLen + maxChunk}

// chunkBuffer returns room for a header and n bytes, and whether it is lent.
func chunkBuffer(n int) (b []byte, lent bool) {
	if n > maxChunk/2 && n <= maxChunk {
		return chunkBuffers.get()[:framing.ChunkHeaderLen+n], true
	}
	return make([]byte, framing.ChunkHeaderLen+n), false
}

func giveChunkBuffer(b []byte, lent bool) {
	if lent {
		chunkBuffers.put(b)
	}
}

// readSize is how much to read at once from a connection, after n bytes of most came
// the last time: little until it is known that much comes.
func readSize(n, last int) int {
	if n > 0 && n == last {
		return maxChunk
	}
	return smallBuffer
}

// resetReason is why a TCP connection failed.
func resetReason(err error) framing.ResetReason {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return framing.ResetRefused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return framing.ResetByPeer
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return framing.ResetTimeout
	case errors.Is(err, errTooMany):
		return framing.ResetOverloaded
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, errAllDown):
		return framing.ResetUnreachable
	}
	return framing.ResetUnspecified
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// streamFault is a reset as the failure of a stream, for records.
func streamFault(reason framing.ResetReason) *framing.Error {
	fault := framing.BadResponse
	switch reason {
	case framing.ResetRefused, framing.ResetUnreachable:
		fault = framing.Unreachable
	case framing.ResetTimeout:
		fault = framing.Timeout
	case framing.ResetOverloaded:
		fault = framing.Overloaded
	}
	return &framing.Error{Fault: fault, Reason: "stream reset: " + reason.String()}
}

// readChunk reads a whole message of length bytes, its header into h.
func readChunk(r io.Reader, length int, h *framing.Chunk) (buf []byte, lent bool, err error) {
	if length < framing.ChunkHeaderLen || length > framing.ChunkHeaderLen+lastWindow {
		return nil, false, &framing.Error{Fault: framing.Malformed, Reason: "a message is no chunk of a stream"}
	}
	buf, lent = chunkBuffer(length - framing.ChunkHeaderLen)
	if _, err = io.ReadFull(r, buf); err == nil {
		err = h.Decode(buf, int64(length))
	}
	if err != nil {
		giveChunkBuffer(buf, lent)
		return nil, false, err
	}
	return buf, lent, nil
}

// waitUntil waits on changed, with its lock, until done or ctx ends or patience is over.
func waitUntil(ctx context.Context, changed *sync.Cond, patience time.Duration, done func() bool) {
	if done() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		changed.L.Lock()
		defer changed.L.Unlock()
		changed.Broadcast()
	})
	defer stop()
	for !done() && ctx.Err() == nil {
		changed.Wait()
	}
}
