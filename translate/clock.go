package translate

import (
	"sync/atomic"
	"time"
)

// clock notes what a client is waited for, for one lazy timer in place of a deadline
// at each read and write. Times count from the client's base; 0 is never.
type clock struct {
	readSince  atomic.Int64 // since when the reader waits for the client
	writeSince atomic.Int64 // since when a write goes on
	progress   atomic.Int64 // when a byte of a response came, or an answer was over
}

// stamp sets one of the times.
func stamp(at *atomic.Int64, now time.Duration) { at.Store(max(1, int64(now))) }

// watch ends what takes too long, and looks again when the next time-out may be due.
func (c *client) watch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted || c.over {
		return
	}
	now := c.now()
	next := now + min(c.f.idle, c.f.request, c.f.write)
	// late reports that something that began at since takes too long.
	late := func(since, patience time.Duration) bool {
		if now >= since+patience {
			return true
		}
		next = min(next, since+patience)
		return false
	}
	read := time.Duration(c.clock.readSince.Load())
	write := time.Duration(c.clock.writeSince.Load())
	progress := time.Duration(c.clock.progress.Load())
	var head *exchange
	if len(c.queue) > 0 {
		head = c.queue[0]
	}
	if write > 0 && late(write, c.f.write) {
		go c.abort() // it needs mu
		return
	}
	if write == 0 && head != nil && head.call != nil && head.sent > 0 && !head.expired {
		blocks := head.req.Blocks && progress <= head.sent
		if !blocks && late(max(head.sent, progress), c.f.request) {
			head.expired = true
			_ = head.call.Close() // it returns nil
		}
	}
	if read > 0 && (head == nil || head.sent == 0) && late(max(read, progress), c.f.idle) {
		_ = c.conn.SetReadDeadline(past) // if it fails, so does reading
	}
	c.timer.Reset(next - now)
}
