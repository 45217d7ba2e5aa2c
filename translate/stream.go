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
	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/rpc"
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
// An RPC that fails because the other gateway is silent or cannot be reached is
// repeated as long as Timeouts.Outage. Therefore the client's side keeps what it has
// sent until it is answered, and the server's side what it has answered until a later
// chunk says that it was received; both have no more than the other's limit. A chunk
// that was taken already is answered as if it had come for the first time.
//
// A receiver reads each message at once into a buffer of its own, so that a slow
// connection holds up nothing in Homa; its limit bounds how much that can be.
const (
	// maxChunk is the most data in a chunk. Our choice: a message of it is a few
	// round trips of a fast link.
	maxChunk = 64 << 10
	// maxPollers and maxChunks bound the RPCs of one stream that carry data. Our
	// choice: half a megabyte each way fills a link of 10 Gbit/s at 0.4 ms.
	maxPollers = framing.ChunkPlaces
	maxChunks  = 8
	// streamRPCs is how many a Reverse should serve for each stream on average.
	streamRPCs = 4
	// pollHold is how long a poll waits for bytes, so that a stream is never longer
	// without an RPC. After as much more than an outage may last its client's gateway
	// counts as dead.
	pollHold = 20 * time.Second
	// firstWindow, lastWindow and leastWindow are how many bytes a receiver allows
	// ahead: at first, at most, and where Limits.Buffered is used up.
	firstWindow = maxChunk
	lastWindow  = maxPollers * maxChunk
	leastWindow = 8 << 10
	// resetPatience is how long the other gateway is given to take a reset.
	resetPatience = 500 * time.Millisecond
	// firstRepeat and lastRepeat are the pauses before an RPC that has failed is
	// repeated, which double.
	firstRepeat = 50 * time.Millisecond
	lastRepeat  = time.Second
	// lookInterval is how often one that waits for its client looks whether what it has
	// sent was answered.
	lookInterval = 250 * time.Millisecond
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

// passing reports that an RPC failed for a reason that may pass, and that the other
// gateway has not given.
func passing(err error) bool {
	for _, final := range []error{rpc.ErrRefused, rpc.ErrNotHoma, syscall.EACCES} {
		if errors.Is(err, final) {
			return false
		}
	}
	return errors.Is(err, rpc.ErrTimeout) || errors.Is(err, rpc.ErrUnreachable)
}

// addRPC adds the trace of one RPC of a stream to their sum. The priorities are those
// of the last that was longer than a packet.
func addRPC(sum *homa.RPCStats, s homa.RPCStats) {
	if s.PacketsSent > 1 || sum.PacketsSent == 0 {
		sum.UnscheduledPriority, sum.ScheduledPriority = s.UnscheduledPriority, s.ScheduledPriority
	}
	sum.GrantsSent += s.GrantsSent
	sum.GrantsReceived += s.GrantsReceived
	sum.ResendsSent += s.ResendsSent
	sum.ResendsReceived += s.ResendsReceived
	sum.BusyReceived += s.BusyReceived
	sum.PacketsSent += s.PacketsSent
	sum.BytesResent += s.BytesResent
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

// message is one that is being received: a Call's response or a Request.
type message interface {
	io.Reader
	SetLowWater(n int)
}

// readChunk reads a whole message of length bytes, its header into h.
func readChunk(r message, length int, h *framing.Chunk) (buf []byte, lent bool, err error) {
	if length < framing.ChunkHeaderLen || length > framing.ChunkHeaderLen+lastWindow {
		return nil, false, &framing.Error{Fault: framing.Malformed, Reason: "a message is no chunk of a stream"}
	}
	buf, lent = chunkBuffer(length - framing.ChunkHeaderLen)
	r.SetLowWater(len(buf))
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
