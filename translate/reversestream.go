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
	// streamTombstone is how long a stream that has ended is remembered for the polls
	// that were on their way. Our choice: more than a message lives.
	streamTombstone = 10 * time.Second
)

// streamKey names a stream: by the number that its opener drew, and the opener.
type streamKey struct {
	client netip.AddrPort
	id     uint64
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
	rpc    uint64 // the id of the RPC that opened it
	trace  homa.RPCStats

	mu       sync.Mutex
	changed  sync.Cond
	credit   credit
	up       uint64 // written to the server
	writing  bool
	upFin    bool
	down     uint64 // read from the server
	limit    uint64 // up to where the client's side takes them
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
	switch {
	case h.Flags&framing.ChunkOpen != 0:
		if s != nil {
			s.reset(framing.ResetProtocol, nil)
			return respond(w, &framing.Chunk{Flags: framing.ChunkReset, Reason: framing.ResetProtocol, Stream: h.Stream}, nil)
		}
		if s, err = r.openStream(ctx, req, &h); err != nil {
			return respond(w, &framing.Chunk{Flags: framing.ChunkReset, Reason: resetReason(err), Stream: h.Stream}, nil)
		}
	case s == nil:
		return respond(w, &framing.Chunk{Flags: framing.ChunkReset, Reason: framing.ResetUnknownStream, Stream: h.Stream}, nil)
	}
	s.enter(&h)
	defer s.leave()
	if h.Flags&framing.ChunkReset != 0 {
		s.reset(h.Reason, nil)
		return respond(w, &framing.Chunk{Stream: h.Stream}, nil)
	}
	if h.Length > 0 || h.Flags&framing.ChunkFin != 0 {
		s.take(ctx, &h, buf[framing.ChunkHeaderLen:])
	}
	if h.Flags&framing.ChunkPoll != 0 {
		return s.poll(ctx, w)
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
	if err := w.SetLength(len(buf)); err != nil {
		return err
	}
	_, err := w.Write(buf)
	return err
}

// openStream connects a new stream to the server with the fewest of them.
func (r *Reverse) openStream(ctx context.Context, req *rpc.Request, h *framing.Chunk) (*reverseStream, error) {
	s := &reverseStream{
		r: r, key: streamKey{req.Client(), h.Stream}, base: time.Now(), rpc: req.ID(), trace: req.Stats(),
		size: smallBuffer, entered: time.Now(), heard: time.Now(), moved: time.Now(),
	}
	s.changed.L = &s.mu
	var err error
	if int(r.counters.streams.Add(1)) > r.rule.Limits.ServerConns {
		err = errTooMany
	} else {
		err = s.connect(ctx)
	}
	if err == nil {
		s.credit = newCredit(&r.buffered)
		s.server.streams.Add(1)
		r.conns.Add(1)
		r.connsTotal.Add(1)
		if !r.enroll(s) {
			s.reset(framing.ResetUnspecified, errClosed)
			return nil, errClosed
		}
		return s, nil
	}
	r.counters.streams.Add(-1)
	s.report(err)
	return nil, err
}

// enroll makes a stream known to the RPCs that follow, unless the Reverse is closed.
func (r *Reverse) enroll(s *reverseStream) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.streams[s.key] != nil { // another RPC opened it at the same time
		return false
	}
	if len(r.streams) >= 2*r.rule.Limits.ServerConns {
		maps.DeleteFunc(r.streams, func(_ streamKey, s *reverseStream) bool { return s.overSince(0) })
	}
	r.streams[s.key] = s
	r.arm()
	return true
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
	if time.Since(r.checked) < min(streamCheck, r.idle/4) {
		return
	}
	r.checked = time.Now()
	maps.DeleteFunc(r.streams, func(_ streamKey, s *reverseStream) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.handlers == 0 && time.Since(s.heard) >= streamSilence:
			s.end(framing.ResetTimeout, errForsaken)
		case time.Since(s.moved) >= r.idle:
			s.end(framing.ResetTimeout, errIdle)
		}
		return s.over && time.Since(s.heard) >= streamTombstone
	})
}

// connect tries the servers that are up, the one with the fewest streams first.
func (s *reverseStream) connect(ctx context.Context) error {
	r := s.r
	r.mu.Lock()
	up := append([]*server(nil), r.byWork()...)
	if len(up) == 0 {
		defer r.mu.Unlock()
		return r.allFailed()
	}
	r.mu.Unlock()
	var failed *connectError
	for _, server := range up {
		r.mu.Lock()
		server.dialing++
		r.mu.Unlock()
		conn, err := r.dialServer(ctx, server, s.key.client)
		r.mu.Lock()
		err = r.dialed(ctx, server, conn, err)
		r.mu.Unlock()
		switch err {
		case nil:
			s.server, s.conn = server, conn
			return nil
		case errClosed:
			return err
		}
		if failed = failed.and(server.addr, err); ctx.Err() != nil {
			break
		}
	}
	return failed
}

// enter counts a handler and takes note of its chunk.
func (s *reverseStream) enter(h *framing.Chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers++
	s.entered = time.Now()
	if h.Limit > s.limit {
		s.limit = h.Limit
		s.changed.Broadcast()
	}
}

func (s *reverseStream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
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
	return framing.Chunk{Stream: s.key.id, Offset: s.down, Limit: s.up + uint64(s.credit.window)}
}

// take writes bytes of the client, or passes its end on, when what is before them was.
func (s *reverseStream) take(ctx context.Context, h *framing.Chunk, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	turn := func() bool { return s.closed || s.up >= h.Offset && !s.writing }
	// The one before it may take any time: Homa prefers short messages, and servers may
	// be slow. If it has failed, its gateway says so, unless that is gone.
	for !turn() && ctx.Err() == nil {
		waitUntil(ctx, &s.changed, streamSilence, turn)
		if !turn() && !s.writing && time.Since(s.entered) >= streamSilence {
			break
		}
	}
	switch {
	case s.closed:
		return
	case !turn() && ctx.Err() != nil:
		s.end(framing.ResetUnspecified, errEarlyEnd)
		return
	case !turn():
		s.end(framing.ResetTimeout, errForsaken)
		return
	case s.up != h.Offset || s.upFin:
		s.end(framing.ResetProtocol, nil)
		return
	}
	if len(data) > 0 {
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
			return
		}
	}
	if h.Flags&framing.ChunkFin != 0 {
		s.upFin = true
		if err := closeWrite(s.conn); err != nil {
			s.end(resetReason(err), err)
			return
		}
		s.changed.Broadcast()
		s.finished()
	}
}

// poll answers with bytes of the server, or its end.
func (s *reverseStream) poll(ctx context.Context, w *rpc.ResponseWriter) error {
	until := time.Now().Add(pollHold)
	s.mu.Lock()
	waitUntil(ctx, &s.changed, pollHold, func() bool {
		if s.downFin && !s.closed {
			return !s.finTold || s.upFin
		}
		return s.closed || !s.reading && s.limit > s.down
	})
	if s.closed || s.downFin || s.reading || s.limit <= s.down || ctx.Err() != nil {
		return s.answerEnd(w)
	}
	s.reading = true
	at, size := s.down, min(s.size, int(s.limit-s.down), int(s.r.traits.Max)-framing.ChunkHeaderLen)
	s.mu.Unlock()
	buf, lent := chunkBuffer(size)
	defer giveChunkBuffer(buf, lent)
	_ = s.conn.SetReadDeadline(until) // if it fails, so does reading
	n, err := s.conn.Read(buf[framing.ChunkHeaderLen:])
	s.r.bytesIn.Add(uint64(n))
	s.mu.Lock()
	s.reading = false
	s.size = readSize(n, size)
	s.changed.Broadcast()
	if n > 0 {
		s.down += uint64(n)
		s.moved = time.Now()
		h := s.headerLocked()
		s.mu.Unlock()
		if h.Flags&framing.ChunkReset != 0 {
			return respond(w, &h, nil)
		}
		h.Offset = at
		if err := respond(w, &h, buf[:framing.ChunkHeaderLen+n]); err != nil {
			s.reset(framing.ResetTimeout, err) // the bytes are lost
			return err
		}
		return nil
	}
	switch {
	case err == io.EOF:
		s.downFin = true
	case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
		s.end(resetReason(err), err)
	}
	return s.answerEnd(w)
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
