package translate

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa"
)

// forwardStream is a TCP client whose bytes go to another gateway. One goroutine reads
// the client; each poll that waits has another. One timer looks after all time-outs.
type forwardStream struct {
	f    *Forward
	conn net.Conn
	meta Meta
	base time.Time
	id   uint64
	rpc  uint64 // id of the first RPC, which names the stream in records
	up   []*sentChunk
	// looking: the client is read with a deadline, for the sake of up.
	looking bool
	wg      sync.WaitGroup

	mu       sync.Mutex
	changed  sync.Cond
	calls    map[Call]struct{} // under way
	trace    homa.RPCStats     // of those that are over
	heard    time.Time         // when one was answered
	limit    uint64            // up to where the other side takes bytes
	sent     uint64
	received uint64 // and written to the client
	// confirmed is what of it the other side was told.
	confirmed uint64
	credit    credit
	pollers   int
	places    [maxPollers]pollPlace
	upFin     bool // and answered
	downFin   bool // and passed on
	closed    bool
	ending    bool // finish is at work
	told      bool // by the other side, or by nobody who is to be told
	aborted   bool // by this side
	reason    framing.ResetReason
	moved     time.Time
	writing   time.Time     // since when the client takes nothing; zero: nothing is written
	late      bool          // a write was ended by its deadline
	timer     *time.Timer   // calls watch
	gone      chan struct{} // closed with closed
}

// pollPlace is one of those that polls have.
type pollPlace struct {
	taken bool   // by a poller
	next  uint64 // number of its next poll
}

// sentChunk is a chunk of the client that is not answered, for which it may have to be
// sent again.
type sentChunk struct {
	h       framing.Chunk
	buf     []byte
	lent    bool
	opened  time.Time
	call    Call
	err     error // why there is no call
	trouble trouble
}

// trouble is since when an RPC has failed again and again.
type trouble struct {
	since time.Time
	pause time.Duration
}

func (f *Forward) serveStream(ctx context.Context, conn net.Conn, meta Meta) {
	s := &forwardStream{
		f: f, conn: conn, meta: meta, base: time.Now(), id: rand.Uint64(),
		gone:  make(chan struct{}),
		calls: map[Call]struct{}{}, credit: newCredit(&f.buffered),
	}
	s.changed.L = &s.mu
	f.streams.Add(1)
	defer f.streams.Add(-1)
	stop := context.AfterFunc(ctx, func() { s.fail(framing.ResetUnspecified, false, true) })
	defer stop()
	if s.begin() {
		s.mu.Lock()
		s.moved = time.Now()
		s.timer = time.AfterFunc(min(pollHold, f.idle, f.write), s.watch)
		for i := range s.places {
			s.places[i].next = uint64(i)
		}
		s.addPoller()
		s.mu.Unlock()
		s.send()
		s.wg.Wait()
	}
	s.finish()
}

// call sends a chunk, whose header goes to the front of buf, and keeps count of it.
func (s *forwardStream) call(h framing.Chunk, buf []byte) (Call, error) {
	h.Stream = s.id
	h.Length = uint32(len(buf) - framing.ChunkHeaderLen)
	s.mu.Lock()
	h.Limit, h.Received = s.received+uint64(s.credit.window), s.received
	if s.downFin {
		h.Received++
	}
	s.confirmed = max(s.confirmed, s.received)
	s.mu.Unlock()
	h.Append(buf[:0])
	c, err := s.f.open(len(buf), s.gone)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.calls[c] = struct{}{}
	closed := s.closed && !s.ending
	s.mu.Unlock()
	if closed {
		s.done(c)
		return nil, net.ErrClosed
	}
	if _, err := c.Write(buf); err != nil {
		s.done(c)
		return nil, err
	}
	return c, nil
}

// done forgets a call.
func (s *forwardStream) done(c Call) {
	s.mu.Lock()
	delete(s.calls, c)
	addRPC(&s.trace, c.Stats())
	s.mu.Unlock()
	_ = c.Close() // it returns nil
	s.f.room.freed()
}

// answer waits for the response to a chunk and takes note of its header.
func (s *forwardStream) answer(c Call) (h framing.Chunk, buf []byte, lent bool, err error) {
	n, err := c.Response()
	if err == nil {
		buf, lent, err = readChunk(c, n, &h)
	}
	if err != nil {
		return h, nil, false, err
	}
	s.mu.Lock()
	s.limit = max(s.limit, h.Limit)
	s.heard = time.Now()
	s.mu.Unlock()
	if h.Flags&framing.ChunkReset != 0 {
		giveChunkBuffer(buf, lent)
		s.fail(h.Reason, true, false)
		return h, nil, false, errHungUp
	}
	return h, buf, lent, nil
}

// exchange makes one RPC of a chunk without data.
func (s *forwardStream) exchange(h framing.Chunk) (answer framing.Chunk, buf []byte, lent bool, err error) {
	c, err := s.call(h, make([]byte, framing.ChunkHeaderLen))
	if err != nil {
		return answer, nil, false, err
	}
	if h.Flags&framing.ChunkOpen != 0 {
		s.rpc = c.ID()
	}
	defer s.done(c)
	return s.answer(c)
}

// again reports, after a pause, that an RPC that was opened at a time and has failed is
// to be repeated. Otherwise it ends the stream.
func (s *forwardStream) again(t *trouble, opened time.Time, err error) bool {
	now := time.Now()
	first := t.since.IsZero()
	if first {
		t.since = now
	}
	if !passing(err) || now.Sub(t.since) >= s.f.outage {
		s.broken(err)
		return false
	}
	s.mu.Lock()
	back := s.heard.After(opened)
	s.mu.Unlock()
	if first && back {
		return true // others are answered again
	}
	t.pause = min(max(2*t.pause, firstRepeat), lastRepeat)
	timer := time.NewTimer(t.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.gone:
		return false
	}
}

// broken ends the stream because of a call that failed.
func (s *forwardStream) broken(err error) {
	var fault *framing.Error
	switch {
	case errors.As(err, &fault) && fault.Fault == framing.Malformed:
		s.fail(framing.ResetProtocol, false, false)
	case faultOf(err).Fault == framing.Timeout:
		s.fail(framing.ResetTimeout, false, false)
	case faultOf(err).Fault == framing.Overloaded:
		s.fail(framing.ResetOverloaded, false, false)
	default:
		s.fail(framing.ResetUnreachable, true, false)
	}
}

// fail resets the client and ends all calls.
func (s *forwardStream) fail(reason framing.ResetReason, told, aborted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(reason, told, aborted)
}

// end is fail with mu.
func (s *forwardStream) end(reason framing.ResetReason, told, aborted bool) {
	if s.closed {
		return
	}
	close(s.gone)
	s.closed, s.reason, s.told, s.aborted = true, reason, told, aborted
	for c := range s.calls {
		_ = c.Close() // it returns nil
	}
	reset(s.conn)
	s.changed.Broadcast()
}

// begin opens the stream at the other gateway.
func (s *forwardStream) begin() bool {
	for t := (trouble{}); ; {
		opened := time.Now()
		_, buf, lent, err := s.exchange(framing.Chunk{Flags: framing.ChunkOpen})
		if err == nil {
			giveChunkBuffer(buf, lent)
			return true
		}
		if !s.again(&t, opened, err) {
			return false
		}
	}
}

// send reads the client until it ends.
func (s *forwardStream) send() {
	size := smallBuffer
	for {
		room := s.room()
		if room <= 0 {
			return
		}
		size = min(size, int(room), int(s.f.rule.Framing.Traits().Max)-framing.ChunkHeaderLen)
		buf, lent := chunkBuffer(size)
		n, err := s.read(buf[framing.ChunkHeaderLen:])
		s.f.bytesIn.Add(uint64(n))
		if n > 0 {
			if !s.chunk(0, buf[:framing.ChunkHeaderLen+n], lent) {
				return
			}
			size = readSize(n, size)
			continue
		}
		giveChunkBuffer(buf, lent)
		if err == io.EOF {
			if s.chunk(framing.ChunkFin, make([]byte, framing.ChunkHeaderLen), false) {
				for len(s.up) > 0 && s.collect() {
				}
				s.mu.Lock()
				s.upFin = true
				s.mu.Unlock()
			}
			return
		}
		if err != nil {
			s.fail(resetReason(err), false, false)
			return
		}
	}
}

// read reads the client, and looks after the chunks that are not answered when nothing
// comes: they may have to be sent again.
func (s *forwardStream) read(p []byte) (int, error) {
	for {
		if look := len(s.up) > 0; look || s.looking {
			var at time.Time
			if look {
				at = time.Now().Add(lookInterval)
			}
			s.looking = look
			_ = s.conn.SetReadDeadline(at) // if it fails, so does reading
		}
		n, err := s.conn.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if !s.collectReady() {
			return 0, net.ErrClosed
		}
	}
}

// chunk sends bytes of the client, or its end. It takes buf over.
func (s *forwardStream) chunk(flags framing.ChunkFlags, buf []byte, lent bool) bool {
	c := &sentChunk{h: framing.Chunk{Flags: flags}, buf: buf, lent: lent}
	s.mu.Lock()
	c.h.Offset = s.sent
	s.sent += uint64(len(buf) - framing.ChunkHeaderLen)
	s.moved = time.Now()
	s.mu.Unlock()
	s.transmit(c)
	s.up = append(s.up, c)
	if len(s.up) >= maxChunks && !s.collect() {
		return false
	}
	return s.collectReady()
}

// collectReady takes the answers that are here, in order.
func (s *forwardStream) collectReady() bool {
	for len(s.up) > 0 && (s.up[0].call == nil || s.up[0].call.Ready()) {
		if !s.collect() {
			return false
		}
	}
	return true
}

// transmit makes an RPC of a chunk.
func (s *forwardStream) transmit(c *sentChunk) {
	c.opened = time.Now()
	c.call, c.err = s.call(c.h, c.buf)
}

// collect takes the answer to the oldest chunk.
func (s *forwardStream) collect() bool {
	c := s.up[0]
	for {
		err := c.err
		if c.call != nil {
			var buf []byte
			var lent bool
			_, buf, lent, err = s.answer(c.call)
			s.done(c.call)
			c.call = nil
			giveChunkBuffer(buf, lent)
		}
		if err == nil {
			s.up = s.up[1:]
			giveChunkBuffer(c.buf, c.lent)
			return true
		}
		if !s.again(&c.trouble, c.opened, err) {
			return false
		}
		s.transmit(c)
	}
}

// room waits until the other side takes bytes and returns how many; 0 when the stream
// has ended.
func (s *forwardStream) room() int64 {
	for {
		s.mu.Lock()
		room, closed := int64(s.limit-s.sent), s.closed
		s.mu.Unlock()
		switch {
		case closed:
			return 0
		case room > 0:
			return room
		case len(s.up) == 0: // every answer allows more
			s.fail(framing.ResetProtocol, false, false)
			return 0
		case !s.collect():
			return 0
		}
	}
}

// addPoller starts a poller if a place is free. It needs mu.
func (s *forwardStream) addPoller() {
	for i := range s.places {
		if p := &s.places[i]; !p.taken && !s.closed {
			p.taken = true
			s.pollers++
			s.wg.Go(func() { s.poll(p) })
			return
		}
	}
}

// poll asks for bytes of the server until there are no more, or others do.
func (s *forwardStream) poll(place *pollPlace) {
	var t trouble
	for {
		s.mu.Lock()
		number, over := place.next, s.downFin && s.upFin || s.closed
		place.next += maxPollers
		s.mu.Unlock()
		if over {
			return
		}
		opened := time.Now()
		h, buf, lent, err := s.exchange(framing.Chunk{Flags: framing.ChunkPoll, Offset: number})
		if err != nil {
			if s.again(&t, opened, err) {
				continue
			}
			return
		}
		t = trouble{}
		more := s.deliver(place, &h, buf[framing.ChunkHeaderLen:])
		giveChunkBuffer(buf, lent)
		if !more {
			return
		}
	}
}

// deliver writes bytes of the server to the client when those before them were, and
// reports whether the poller goes on.
func (s *forwardStream) deliver(place *pollPlace, h *framing.Chunk, data []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(data) >= maxChunk/2 {
		s.addPoller()
	}
	fin := h.Flags&framing.ChunkFin != 0
	for (len(data) > 0 || fin) && s.received < h.Offset && !s.closed {
		s.changed.Wait()
	}
	switch {
	case s.closed:
		return false
	case len(data) > 0 && (s.received != h.Offset || s.downFin):
		s.end(framing.ResetProtocol, false, false)
		return false
	case len(data) > 0:
		s.write(data)
	}
	if fin && !s.downFin {
		s.downFin = true
		_ = closeWrite(s.conn) // if it fails, so does reading
	}
	if s.pollers > 1 && len(data) < maxChunk/4 {
		s.pollers--
		place.taken = false
		return false
	}
	return !s.closed
}

// write writes to the client, or ends the stream. It needs mu, and releases it
// meanwhile.
func (s *forwardStream) write(data []byte) {
	for len(data) > 0 && !s.closed {
		s.writing = time.Now()
		s.mu.Unlock()
		n, err := s.conn.Write(data)
		s.f.bytesOut.Add(uint64(n))
		s.mu.Lock()
		data = data[n:]
		s.received += uint64(n)
		s.credit.wrote(n)
		s.moved, s.writing = time.Now(), time.Time{}
		s.changed.Broadcast()
		late := s.late
		if s.late = false; late {
			_ = s.conn.SetWriteDeadline(time.Time{}) // if it fails, so does writing
		}
		if err != nil && !(late && n > 0) {
			s.end(resetReason(err), false, false)
		}
	}
}

// watch ends what takes too long, and looks again when the next time-out may be due.
func (s *forwardStream) watch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	now := time.Now()
	idle := now.Sub(s.moved)
	if idle >= s.f.idle {
		s.end(framing.ResetTimeout, false, false)
		return
	}
	next := min(pollHold, s.f.write, s.f.idle-idle)
	if !s.writing.IsZero() {
		if late := s.f.write - now.Sub(s.writing); late > 0 {
			next = min(next, late)
		} else if !s.late {
			// A client that has taken a part is given as long for the rest.
			s.late = true
			_ = s.conn.SetWriteDeadline(past) // if it fails, so does writing
		}
		if len(s.calls) == 0 && now.Sub(s.heard) >= pollHold {
			s.wg.Go(s.appear) // whoever writes is counted, too
		}
	}
	s.timer.Reset(next)
}

// appear lets the other gateway hear of a stream that asks for nothing, because its
// client does not read.
func (s *forwardStream) appear() {
	if _, buf, lent, err := s.exchange(framing.Chunk{}); err == nil {
		giveChunkBuffer(buf, lent)
	}
}

// finish closes the client and tells the other side of a failure that it does not
// know of.
func (s *forwardStream) finish() {
	for _, c := range s.up {
		if c.call != nil {
			s.done(c.call)
		}
		giveChunkBuffer(c.buf, c.lent)
	}
	s.mu.Lock()
	closed, told, aborted, reason := s.closed, s.told, s.aborted, s.reason
	s.closed, s.ending = true, true
	confirmed := s.confirmed == s.received
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	if !closed {
		_ = s.conn.Close() // both directions have ended
		if !confirmed {
			s.sendLast(framing.Chunk{}) // the bytes need not be kept
		}
	} else if !told {
		s.sendLast(framing.Chunk{Flags: framing.ChunkReset, Reason: reason})
	}
	s.credit.release()
	result, text := OK, ""
	if closed {
		fault := streamFault(reason)
		result, text = resultOf(fault), fault.Reason
		if aborted || reason == framing.ResetByPeer {
			result = Aborted
		}
	}
	end := time.Now()
	s.f.ended(result)
	if total := end.Sub(s.base); s.f.rule.AccessLog != nil || s.f.tracer.wants(total, result, end) {
		r := &Record{
			Time: s.base, Rule: s.f.rule.Name, Direction: "tcp-homa", Framing: s.f.rule.Type,
			Client: s.meta.Client, Server: s.f.to, Peer: s.meta.Peer,
			RequestBytes: int64(s.sent), ResponseBytes: int64(s.received),
			Total: total, Transport: total, Result: result, Error: text,
		}
		if s.rpc != 0 {
			r.homa(s.rpc, s.trace)
		}
		s.f.tell(r)
	}
}

// sendLast tells the other side how the stream has ended, which else notices the
// silence.
func (s *forwardStream) sendLast(h framing.Chunk) {
	h.Offset = s.sent
	end := time.Now().Add(resetPatience)
	for pause := firstRepeat; time.Now().Before(end); pause *= 2 {
		c, err := s.call(h, make([]byte, framing.ChunkHeaderLen))
		if err == nil {
			timer := time.AfterFunc(time.Until(end), func() { _ = c.Close() })
			_, err = c.Response()
			timer.Stop()
			s.done(c)
		}
		if err == nil || !passing(err) {
			return
		}
		time.Sleep(min(pause, time.Until(end)))
	}
}
