package translate

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/rpc"
)

const (
	// streamCheck is how often streams are looked at.
	streamCheck = 5 * time.Second
	// streamTombstone is how long a stream that has ended is remembered at least for
	// the chunks that were on their way, unless they are too many. Our choice: more
	// than a message lives. Those that are repeated may come as long as a stream is
	// not forsaken.
	streamTombstone = 10 * time.Second
)

// streamKey names a stream: by the number that its opener drew, and the opener.
type streamKey struct {
	client netip.AddrPort
	id     uint64
}

// errRepeated ends a handler whose RPC its client has repeated, and does not wait for.
var errRepeated = &framing.Error{Fault: framing.Truncated, Reason: "the chunk was sent again"}

// segment is bytes of the server on their way: a whole response, header and data.
type segment struct {
	buf     []byte
	lent    bool
	end     uint64 // offset behind the data
	users   int    // handlers that send it
	dropped bool
}

// release gives the buffer back if nobody needs it. It needs mu of the stream.
func (g *segment) release() {
	if g.dropped && g.users == 0 {
		giveChunkBuffer(g.buf, g.lent)
		g.buf, g.lent = nil, false
	}
}

// reversePlace is one of those that polls have.
type reversePlace struct {
	number uint64         // of the latest poll
	latest *framing.Chunk // and its handler's
	sent   *segment       // in answer to it or one before it; nil when it was received
}

// reverseStream is a connection to a TCP server whose bytes go to another gateway. It
// has no goroutine: handlers of chunks write to the connection, and those of polls
// read from it.
type reverseStream struct {
	r      *Reverse
	key    streamKey
	server *server
	conn   net.Conn
	base   time.Time
	ready  chan struct{} // closed when conn is there, or closed set

	mu       sync.Mutex
	rpc      uint64        // the id of the RPC that opened it
	trace    homa.RPCStats // of all RPCs that are over
	changed  sync.Cond
	credit   credit
	up       uint64 // written to the server
	writing  bool
	takers   map[uint64]*framing.Chunk // the latest with bytes at an offset, of those that wait
	upFin    bool
	down     uint64 // read from the server
	received uint64 // by the client's side; one more than down with the end
	limit    uint64 // up to where it takes them
	places   [maxPollers]reversePlace
	pending  *segment // read, in answer to no poll yet
	reading  bool
	size     int  // of the next read
	downFin  bool // read
	finTold  bool
	closed   bool // reset
	over     bool // reset, or both directions have ended
	reason   framing.ResetReason
	handlers int
	entered  time.Time // when the last handler began
	heard    time.Time // and when one left
	moved    time.Time
}

// serveChunk answers an RPC of stream framing.
func (r *Reverse) serveChunk(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
	var h framing.Chunk
	buf, lent, err := readChunk(req, req.Len(), &h)
	if err != nil {
		return err
	}
	defer giveChunkBuffer(buf, lent)
	key := streamKey{req.Client(), h.Stream}
	r.mu.Lock()
	s := r.streams[key]
	r.mu.Unlock()
	reason := framing.ResetUnknownStream
	if s == nil && h.Flags&framing.ChunkOpen != 0 {
		if s, err = r.openStream(req, &h); err != nil {
			reason = resetReason(err)
		}
	}
	if s == nil {
		return respond(w, &framing.Chunk{Flags: framing.ChunkReset, Reason: reason, Stream: h.Stream}, nil)
	}
	s.enter(req, &h)
	defer s.leave(req)
	select {
	case <-s.ready:
	case <-ctx.Done():
		return errRepeated
	}
	if h.Flags&framing.ChunkReset != 0 {
		s.reset(h.Reason, nil)
		return respond(w, &framing.Chunk{Stream: h.Stream}, nil)
	}
	if h.Flags&framing.ChunkPoll != 0 {
		return s.poll(ctx, w, &h)
	}
	if h.Length > 0 || h.Flags&framing.ChunkFin != 0 {
		if err := s.take(ctx, &h, buf[framing.ChunkHeaderLen:]); err != nil {
			return err
		}
	}
	answer := s.header()
	return respond(w, &answer, nil)
}

// respond sends a chunk whose data, if any, is in buf behind room for the header.
func respond(w *rpc.ResponseWriter, h *framing.Chunk, buf []byte) error {
	if buf == nil {
		buf = make([]byte, framing.ChunkHeaderLen)
	}
	h.Length = uint32(len(buf) - framing.ChunkHeaderLen)
	h.Append(buf[:0])
	return respondWith(w, buf)
}

// respondWith sends a whole response.
func respondWith(w *rpc.ResponseWriter, buf []byte) error {
	if err := w.SetLength(len(buf)); err != nil {
		return err
	}
	_, err := w.Write(buf)
	return err
}

// openStream connects a new stream to the server with the fewest of them. The RPC may
// be repeated meanwhile, and must not connect twice: hence what it fails with is the
// stream's, and its end is not that of the connecting.
func (r *Reverse) openStream(req *rpc.Request, h *framing.Chunk) (*reverseStream, error) {
	now := time.Now()
	s := &reverseStream{
		r: r, key: streamKey{req.Client(), h.Stream}, base: now, rpc: req.ID(), ready: make(chan struct{}),
		size: smallBuffer, entered: now, heard: now, moved: now,
	}
	s.changed.L = &s.mu
	if int(r.counters.streams.Add(1)) > r.rule.Limits.ServerConns {
		r.counters.streams.Add(-1)
		s.report(errTooMany)
		return nil, errTooMany
	}
	if other, err := r.enroll(s); other != s {
		r.counters.streams.Add(-1)
		return other, err
	}
	defer close(s.ready)
	server, conn, err := s.connect()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = time.Now()
	if err == nil && s.closed {
		reset(conn)
		err = errClosed
	}
	if err != nil {
		if !s.closed {
			s.closed, s.reason = true, resetReason(err)
		}
		s.over = true
		r.counters.streams.Add(-1)
		s.report(err)
		return s, nil
	}
	s.server, s.conn = server, conn
	s.credit = newCredit(&r.buffered)
	server.streams.Add(1)
	r.conns.Add(1)
	r.connsTotal.Add(1)
	return s, nil
}

// enroll makes a stream known to the RPCs that follow, and returns it, unless another
// RPC has done so with the same or the Reverse is closed.
func (r *Reverse) enroll(s *reverseStream) (*reverseStream, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errClosed
	}
	if other := r.streams[s.key]; other != nil {
		return other, nil
	}
	for _, age := range []time.Duration{streamTombstone, 0} {
		if len(r.streams) >= 2*r.rule.Limits.ServerConns {
			maps.DeleteFunc(r.streams, func(_ streamKey, s *reverseStream) bool { return s.overSince(age) })
		}
	}
	r.streams[s.key] = s
	r.arm()
	return s, nil
}

// overSince reports that the stream has ended that long ago.
func (s *reverseStream) overSince(d time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over && time.Since(s.heard) >= d
}

// checkStreams forgets streams that have ended and ends those that were left alone.
// It needs mu.
func (r *Reverse) checkStreams() {
	if time.Since(r.checked) < min(streamCheck, r.idle/4, r.silence/4) {
		return
	}
	r.checked = time.Now()
	maps.DeleteFunc(r.streams, func(_ streamKey, s *reverseStream) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.conn == nil: // it is being connected, or could not be
		case s.handlers == 0 && time.Since(s.heard) >= r.silence:
			s.end(framing.ResetTimeout, errForsaken)
		case time.Since(s.moved) >= r.idle:
			s.end(framing.ResetTimeout, errIdle)
		}
		return s.over && time.Since(s.heard) >= max(streamTombstone, r.silence)
	})
}

// connect tries the servers that are up, the one with the fewest streams first.
func (s *reverseStream) connect() (*server, net.Conn, error) {
	r := s.r
	r.mu.Lock()
	up := append([]*server(nil), r.byWork()...)
	if len(up) == 0 {
		defer r.mu.Unlock()
		return nil, nil, r.allFailed()
	}
	r.mu.Unlock()
	var failed *connectError
	for _, server := range up {
		r.mu.Lock()
		server.dialing++
		r.mu.Unlock()
		conn, err := r.dialServer(r.ctx, server, s.key.client)
		r.mu.Lock()
		err = r.dialed(r.ctx, server, conn, err)
		r.mu.Unlock()
		switch err {
		case nil:
			return server, conn, nil
		case errClosed:
			return nil, nil, err
		}
		if failed = failed.and(server.addr, err); r.ctx.Err() != nil {
			break
		}
	}
	return nil, nil, failed
}

// enter counts a handler and takes note of its chunk.
func (s *reverseStream) enter(req *rpc.Request, h *framing.Chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers++
	s.entered = time.Now()
	if h.Flags&framing.ChunkOpen != 0 {
		s.rpc = req.ID()
	}
	if h.Limit > s.limit {
		s.limit = h.Limit
		s.changed.Broadcast()
	}
	if h.Received > s.received {
		s.receive(h.Received)
	}
}

// receive forgets bytes that have arrived. It needs mu.
func (s *reverseStream) receive(to uint64) {
	if to > s.down && !(s.downFin && to == s.down+1) {
		s.end(framing.ResetProtocol, nil)
		return
	}
	s.received = to
	for i := range s.places {
		if p := &s.places[i]; p.sent != nil && p.sent.end <= to {
			p.sent.dropped = true
			p.sent.release()
			p.sent = nil
		}
	}
	s.changed.Broadcast()
}

func (s *reverseStream) leave(req *rpc.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	addRPC(&s.trace, req.Stats())
	s.handlers--
	s.heard = time.Now()
}

// header is what a chunk without data tells now.
func (s *reverseStream) header() framing.Chunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.headerLocked()
}

func (s *reverseStream) headerLocked() framing.Chunk {
	if s.closed {
		return framing.Chunk{Flags: framing.ChunkReset, Reason: s.reason, Stream: s.key.id}
	}
	h := framing.Chunk{Stream: s.key.id, Offset: s.down, Limit: s.up + uint64(s.credit.window), Received: s.up}
	if s.upFin {
		h.Received++
	}
	return h
}

// take writes bytes of the client, or passes its end on, when what is before them was.
// What was written already it leaves out. An error means that nobody waits for an
// answer.
func (s *reverseStream) take(ctx context.Context, h *framing.Chunk, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	turn := func() bool { return s.closed || s.up >= h.Offset && !s.writing }
	if !turn() && !s.await(ctx, h, turn) {
		return errRepeated
	}
	end := h.Offset + uint64(len(data))
	fin := h.Flags&framing.ChunkFin != 0
	switch {
	case s.closed:
		return nil
	case fin && end < s.up, s.upFin && end > s.up:
		s.end(framing.ResetProtocol, nil)
		return nil
	}
	if end > s.up {
		data = data[s.up-h.Offset:]
		s.writing = true
		s.mu.Unlock()
		n, err := s.conn.Write(data)
		s.r.bytesOut.Add(uint64(n))
		s.mu.Lock()
		s.writing = false
		s.up += uint64(n)
		s.credit.wrote(n)
		s.moved = time.Now()
		s.changed.Broadcast()
		if err != nil {
			s.end(resetReason(err), err)
			return nil
		}
	}
	if fin && !s.upFin && !s.closed {
		s.upFin = true
		if err := closeWrite(s.conn); err != nil {
			s.end(resetReason(err), err)
			return nil
		}
		s.changed.Broadcast()
		s.finished()
	}
	return nil
}

// await waits until it is the turn of a chunk with bytes of the client, or reports that
// it is nobody's any more. It needs mu.
func (s *reverseStream) await(ctx context.Context, h *framing.Chunk, turn func() bool) bool {
	if s.takers == nil {
		s.takers = map[uint64]*framing.Chunk{}
	}
	s.takers[h.Offset] = h
	s.changed.Broadcast() // one that was repeated leaves
	defer func() {
		if s.takers[h.Offset] == h {
			delete(s.takers, h.Offset)
		}
	}()
	repeated := func() bool { return s.takers[h.Offset] != h }
	// The one before it may take any time: Homa prefers short messages, and servers may
	// be slow. If it has failed, its gateway says so, unless that is gone.
	for {
		waitUntil(ctx, &s.changed, s.r.silence, func() bool { return turn() || repeated() })
		switch {
		case repeated() || ctx.Err() != nil:
			return false
		case turn():
			return true
		case !s.writing && time.Since(s.entered) >= s.r.silence:
			s.end(framing.ResetTimeout, errForsaken)
			return true
		}
	}
}

// poll answers with bytes of the server, or its end. Bytes that an earlier poll in the
// same place was answered with come first, unless they were received.
func (s *reverseStream) poll(ctx context.Context, w *rpc.ResponseWriter, h *framing.Chunk) error {
	until := time.Now().Add(s.r.hold)
	s.mu.Lock()
	p := &s.places[h.Offset%maxPollers]
	if h.Offset < p.number {
		s.mu.Unlock()
		return errRepeated
	}
	p.number, p.latest = h.Offset, h
	s.changed.Broadcast() // a handler that was here before leaves
	for {
		end := func() bool { return s.closed || s.downFin && (s.received <= s.down || s.upFin) }
		readable := func() bool { return !s.reading && !s.downFin && s.limit > s.down }
		waitUntil(ctx, &s.changed, time.Until(until), func() bool {
			return p.latest != h || end() || p.sent != nil || s.pending != nil || readable()
		})
		switch {
		case p.latest != h || ctx.Err() != nil:
			s.mu.Unlock()
			return errRepeated
		case !s.closed && p.sent == nil && s.pending != nil:
			p.sent, s.pending = s.pending, nil
			fallthrough
		case !s.closed && p.sent != nil:
			return s.answerSegment(w, p.sent)
		case !end() && readable() && time.Now().Before(until):
			s.read(until)
		default:
			return s.answerEnd(w)
		}
	}
}

// read waits for bytes of the server until a time, and makes them the pending ones. It
// needs mu, and releases it meanwhile.
func (s *reverseStream) read(until time.Time) {
	s.reading = true
	at, size := s.down, min(s.size, int(s.limit-s.down), int(s.r.traits.Max)-framing.ChunkHeaderLen)
	s.mu.Unlock()
	buf, lent := chunkBuffer(size)
	_ = s.conn.SetReadDeadline(until) // if it fails, so does reading
	n, err := s.conn.Read(buf[framing.ChunkHeaderLen:])
	s.r.bytesIn.Add(uint64(n))
	s.mu.Lock()
	s.reading = false
	s.size = readSize(n, size)
	s.changed.Broadcast()
	if n > 0 && !s.closed {
		s.down += uint64(n)
		s.moved = time.Now()
		h := s.headerLocked()
		h.Offset, h.Length = at, uint32(n)
		buf = buf[:framing.ChunkHeaderLen+n]
		h.Append(buf[:0])
		s.pending = &segment{buf: buf, lent: lent, end: s.down}
		return
	}
	giveChunkBuffer(buf, lent)
	switch {
	case err == io.EOF:
		s.downFin = true
	case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
		s.end(resetReason(err), err)
	}
}

// answerSegment answers a poll with bytes, which stay until they were received. It needs
// mu, and releases it.
func (s *reverseStream) answerSegment(w *rpc.ResponseWriter, g *segment) error {
	g.users++
	buf := g.buf
	s.mu.Unlock()
	err := respondWith(w, buf)
	s.mu.Lock()
	defer s.mu.Unlock()
	g.users--
	g.release()
	return err
}

// answerEnd answers a poll without data. It needs mu, and releases it.
func (s *reverseStream) answerEnd(w *rpc.ResponseWriter) error {
	h := s.headerLocked()
	fin := s.downFin && !s.closed
	if fin {
		h.Flags = framing.ChunkFin
	}
	s.mu.Unlock()
	if err := respond(w, &h, nil); err != nil {
		return err
	}
	if fin {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.finTold = true
		s.finished()
	}
	return nil
}

// reset ends the stream at once.
func (s *reverseStream) reset(reason framing.ResetReason, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(reason, err)
}

// end is reset with mu.
func (s *reverseStream) end(reason framing.ResetReason, err error) {
	if s.over {
		return
	}
	s.closed, s.reason = true, reason
	if s.conn == nil {
		return // who connects it sees to the rest
	}
	reset(s.conn)
	if err == nil {
		err = streamFault(reason)
	}
	s.close(err)
}

// finished ends the stream when both directions have. It needs mu.
func (s *reverseStream) finished() {
	if s.upFin && s.finTold && !s.over {
		_ = s.conn.Close() // everything was written
		s.close(nil)
	}
}

// close gives back what the stream used. It needs mu.
func (s *reverseStream) close(err error) {
	s.over = true
	s.heard = time.Now()
	s.credit.release()
	if s.closed {
		s.pending = nil
		for i := range s.places {
			s.places[i].sent = nil
		}
	}
	s.r.counters.streams.Add(-1)
	s.r.conns.Add(-1)
	s.server.streams.Add(-1)
	s.changed.Broadcast()
	s.report(err)
}

// report tells of a stream that has ended, or could not be opened because of err.
func (s *reverseStream) report(err error) {
	r := s.r
	result, text := OK, ""
	var fault *framing.Error
	switch {
	case err == nil:
	case s.closed && s.reason == framing.ResetByPeer, errors.Is(err, errClosed):
		result = Aborted
	case errors.As(err, &fault):
		result = resultOf(fault)
	default:
		result = resultOf(streamFault(resetReason(err)))
	}
	if err != nil {
		text = err.Error()
	}
	r.ended(result)
	end := time.Now()
	total := end.Sub(s.base)
	if r.rule.AccessLog == nil && !r.tracer.wants(total, result, end) {
		return
	}
	rec := &Record{
		Time: s.base, Rule: r.rule.Name, Direction: "homa-tcp", Framing: r.rule.Type, Client: s.key.client,
		RequestBytes: int64(s.up), ResponseBytes: int64(s.down),
		Total: total, Transport: total, Result: result, Error: text,
	}
	if rec.Server = tried(err); s.server != nil {
		rec.Server = s.server.addr
	}
	rec.homa(s.rpc, s.trace)
	if r.rule.AccessLog != nil {
		r.rule.AccessLog(rec)
	}
	r.tracer.add(rec)
}
