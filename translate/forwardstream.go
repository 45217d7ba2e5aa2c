package translate

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/tougw/tougw/framing"
)

// forwardStream is a TCP client whose bytes go to another gateway. One goroutine reads
// the client; each poll that waits has another.
type forwardStream struct {
	f    *Forward
	conn net.Conn
	meta Meta
	base time.Time
	id   uint64
	open Call // the first RPC, which names the stream in records
	up   []Call
	wg   sync.WaitGroup

	mu       sync.Mutex
	changed  sync.Cond
	calls    map[Call]struct{} // under way
	limit    uint64            // up to where the other side takes bytes
	sent     uint64
	received uint64 // and written to the client
	credit   credit
	pollers  int
	upFin    bool // and answered
	downFin  bool // and passed on
	closed   bool
	told     bool // by the other side, or by nobody who is to be told
	aborted  bool // by this side
	reason   framing.ResetReason
	moved    time.Time
	gone     chan struct{} // closed with closed
}

func (f *Forward) serveStream(ctx context.Context, conn net.Conn, meta Meta) {
	s := &forwardStream{
		f: f, conn: conn, meta: meta, base: time.Now(), moved: time.Now(), id: rand.Uint64(),
		gone:  make(chan struct{}),
		calls: map[Call]struct{}{}, credit: newCredit(&f.buffered),
	}
	s.changed.L = &s.mu
	f.streams.Add(1)
	defer f.streams.Add(-1)
	stop := context.AfterFunc(ctx, func() { s.fail(framing.ResetUnspecified, false, true) })
	defer stop()
	if s.begin() {
		s.pollers = 1
		s.wg.Go(s.poll)
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
	h.Limit = s.received + uint64(s.credit.window)
	s.mu.Unlock()
	h.Append(buf[:0])
	c, err := s.f.open(len(buf), s.gone)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.calls[c] = struct{}{}
	closed := s.closed && h.Flags&framing.ChunkReset == 0
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
	s.mu.Unlock()
	if c != s.open {
		_ = c.Close() // it returns nil
	}
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
	s.mu.Unlock()
	if h.Flags&framing.ChunkReset != 0 {
		giveChunkBuffer(buf, lent)
		s.fail(h.Reason, true, false)
		return h, nil, false, errHungUp
	}
	return h, buf, lent, nil
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
	c, err := s.call(framing.Chunk{Flags: framing.ChunkOpen}, make([]byte, framing.ChunkHeaderLen))
	if err != nil {
		s.broken(err)
		return false
	}
	s.open = c
	_, buf, lent, err := s.answer(c)
	s.done(c)
	if err != nil {
		s.broken(err)
		return false
	}
	giveChunkBuffer(buf, lent)
	return true
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
		n, err := s.conn.Read(buf[framing.ChunkHeaderLen:])
		s.f.bytesIn.Add(uint64(n))
		if n > 0 {
			ok := s.chunk(0, buf[:framing.ChunkHeaderLen+n])
			giveChunkBuffer(buf, lent)
			if !ok {
				return
			}
			size = readSize(n, size)
			continue
		}
		giveChunkBuffer(buf, lent)
		if err == io.EOF {
			if s.chunk(framing.ChunkFin, make([]byte, framing.ChunkHeaderLen)) {
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

// chunk sends bytes of the client, or its end.
func (s *forwardStream) chunk(flags framing.ChunkFlags, buf []byte) bool {
	s.mu.Lock()
	at := s.sent
	s.sent += uint64(len(buf) - framing.ChunkHeaderLen)
	s.moved = time.Now()
	s.mu.Unlock()
	c, err := s.call(framing.Chunk{Flags: flags, Offset: at}, buf)
	if err != nil {
		s.broken(err)
		return false
	}
	s.up = append(s.up, c)
	for len(s.up) > 0 && (len(s.up) >= maxChunks || s.up[0].Ready()) {
		if !s.collect() {
			return false
		}
	}
	return true
}

// collect takes the oldest answer.
func (s *forwardStream) collect() bool {
	c := s.up[0]
	s.up = s.up[1:]
	_, buf, lent, err := s.answer(c)
	s.done(c)
	if err != nil {
		s.broken(err)
		return false
	}
	giveChunkBuffer(buf, lent)
	return true
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

// poll asks for bytes of the server until there are no more, or others do.
func (s *forwardStream) poll() {
	for {
		s.mu.Lock()
		at, over := s.sent, s.downFin && s.upFin || s.closed
		s.mu.Unlock()
		if over {
			return
		}
		c, err := s.call(framing.Chunk{Flags: framing.ChunkPoll, Offset: at}, make([]byte, framing.ChunkHeaderLen))
		if err != nil {
			s.broken(err)
			return
		}
		h, buf, lent, err := s.answer(c)
		s.done(c)
		if err != nil {
			s.broken(err)
			return
		}
		more := s.deliver(&h, buf[framing.ChunkHeaderLen:])
		giveChunkBuffer(buf, lent)
		if !more {
			return
		}
	}
}

// deliver writes bytes of the server to the client when those before them were, and
// reports whether the poller goes on.
func (s *forwardStream) deliver(h *framing.Chunk, data []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(data) >= maxChunk/2 && s.pollers < maxPollers && !s.closed {
		s.pollers++
		s.wg.Go(s.poll)
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
		s.mu.Unlock()
		n, err := s.conn.Write(data)
		s.f.bytesOut.Add(uint64(n))
		s.mu.Lock()
		if err != nil {
			s.end(resetReason(err), false, false)
		}
		s.received += uint64(n)
		s.credit.wrote(n)
		s.moved = time.Now()
		s.changed.Broadcast()
	case !fin && s.f.idle < forever && time.Since(s.moved) >= s.f.idle:
		s.end(framing.ResetTimeout, false, false)
	}
	if fin && !s.downFin {
		s.downFin = true
		_ = closeWrite(s.conn) // if it fails, so does reading
	}
	if s.pollers > 1 && len(data) < maxChunk/4 {
		s.pollers--
		return false
	}
	return !s.closed
}

// finish closes the client and tells the other side of a failure that it does not
// know of.
func (s *forwardStream) finish() {
	for _, c := range s.up {
		s.done(c)
	}
	s.mu.Lock()
	closed, told, aborted, reason := s.closed, s.told, s.aborted, s.reason
	s.closed = true
	s.mu.Unlock()
	if !closed {
		_ = s.conn.Close() // both directions have ended
	} else if !told {
		s.sendReset(reason)
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
		if s.open != nil {
			r.homa(s.open.ID(), s.open.Stats())
		}
		s.f.tell(r)
	}
	if s.open != nil {
		_ = s.open.Close() // it returns nil
	}
}

// sendReset tells the other side that the stream has ended.
func (s *forwardStream) sendReset(reason framing.ResetReason) {
	s.mu.Lock()
	at := s.sent
	s.mu.Unlock()
	c, err := s.call(framing.Chunk{Flags: framing.ChunkReset, Reason: reason, Offset: at}, make([]byte, framing.ChunkHeaderLen))
	if err != nil {
		return // it will notice the silence
	}
	timer := time.AfterFunc(resetPatience, func() { _ = c.Close() })
	_, _ = c.Response() // either way it is over
	timer.Stop()
	s.done(c)
}
