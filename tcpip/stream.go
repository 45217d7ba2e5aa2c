package tcpip

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Ready says what a stream may be ready for.
type Ready uint8

const (
	// Readable: Read will give data, io.EOF or an error.
	Readable Ready = 1 << iota
	// Writable: Write will take data or give an error.
	Writable
	// Hup: the connection is over in both directions, orderly or not (Err).
	Hup
)

// Stream is one end of a TCP connection. It is non-blocking and has no
// goroutine: Read and Write do what they can and give EAGAIN, and the function
// set by SetNotify learns when to try again. All methods are safe for
// concurrent use; concurrent Reads (and concurrent Writes) take turns.
//
// Close or Reset must be called in the end.
type Stream struct {
	wq    waiter.Queue
	user  waiter.Entry // fn of SetNotify
	life  waiter.Entry // tells owner when the endpoint is gone
	ep    *tcp.Endpoint
	owner streamOwner
	id    uint64 // session, in a Tunnel
	mss   int    // payload of a full segment, for sizing buffers
	buf   BufferConfig

	local, remote netip.AddrPort

	rmu  sync.Mutex // one reader at a time
	sink sliceSink
	read atomic.Uint64
	eof  bool

	wmu     sync.Mutex // one writer at a time
	source  sliceSource
	written atomic.Uint64
	sendBuf int
	growAt  uint64 // written bytes at which growing is looked at again

	nmu    sync.Mutex // guards user and notify
	notify func(Ready)

	gone  atomic.Bool // owner was told
	cause atomic.Pointer[error]
	emu   sync.Mutex // one at a time asks the endpoint for its error
}

// streamOwner is told once that a stream's endpoint left the stack.
type streamOwner interface{ streamGone(*Stream) }

// newStream makes a stream without an endpoint: bind gives it one, and watch
// completes it.
func newStream(owner streamOwner, b BufferConfig, mss int) *Stream {
	s := &Stream{owner: owner, buf: b, mss: mss, sendBuf: b.InitialSend, growAt: growAfter}
	s.user.Init((*userListener)(s), waiter.ReadableEvents|waiter.WritableEvents|waiter.EventHUp|waiter.EventErr)
	s.life.Init((*lifeListener)(s), waiter.EventHUp)
	return s
}

// bind attaches the endpoint, whose waiter queue is s.wq.
func (s *Stream) bind(ep gtcpip.Endpoint) {
	s.ep = ep.(*tcp.Endpoint)
	// Setting the size explicitly ends gVisor's own tuning of the send buffer,
	// which follows the congestion window from the first segment on and so
	// would take in more than a reader who never reads is worth.
	s.ep.SocketOptions().SetSendBufferSize(int64(s.sendBuf), true)
}

// watch starts reporting the end of the endpoint to the owner.
func (s *Stream) watch() {
	s.wq.EventRegister(&s.life)
	s.checkGone()
}

// lifeListener watches for the end of the endpoint.
type lifeListener Stream

// NotifyEvent implements waiter.EventListener. The endpoint's lock may be held.
func (l *lifeListener) NotifyEvent(waiter.EventMask) { (*Stream)(l).checkGone() }

// userListener passes events on to the function of SetNotify.
type userListener Stream

// NotifyEvent implements waiter.EventListener. The endpoint's lock may be held.
func (l *userListener) NotifyEvent(m waiter.EventMask) {
	s := (*Stream)(l)
	if r := s.ready(m); r != 0 {
		s.notify(r) // not nil while the entry is registered
	}
}

func (s *Stream) ready(m waiter.EventMask) Ready {
	var r Ready
	if m&waiter.ReadableEvents != 0 {
		r |= Readable
	}
	if m&waiter.WritableEvents != 0 {
		r |= Writable
	}
	if m&(waiter.EventHUp|waiter.EventErr) != 0 && s.over() {
		r |= Readable | Writable | Hup
	}
	return r
}

// over reports whether no more data can move in either direction.
func (s *Stream) over() bool {
	switch s.state() {
	case tcp.StateClose, tcp.StateError, tcp.StateTimeWait:
		return true
	}
	return false
}

func (s *Stream) state() tcp.EndpointState { return tcp.EndpointState(s.ep.State()) }

// checkGone tells the owner once the endpoint has left the stack.
func (s *Stream) checkGone() {
	switch s.state() {
	case tcp.StateClose, tcp.StateError:
		if !s.gone.Swap(true) {
			s.owner.streamGone(s)
		}
	}
}

// SetNotify makes fn the function that is called when the stream becomes
// readable or writable, or ends; nil removes it, and no call follows or is
// still running when SetNotify(nil) returns. Before it returns, SetNotify(fn)
// itself calls fn with what the stream is ready for at that moment, so nothing
// has to be polled; from then on calls are edge-triggered: after EAGAIN, and at
// the end. Calls may be spurious.
//
// fn is called from any goroutine, several at a time, and with locks of the
// stack held: it must not block and must not call any method of a Stream, this
// one or another; it should only schedule work. Whoever calls SetNotify or
// Close must not hold a lock that fn takes.
func (s *Stream) SetNotify(fn func(ev Ready)) {
	s.nmu.Lock()
	defer s.nmu.Unlock()
	if s.notify != nil {
		s.wq.EventUnregister(&s.user) // waits for calls that are running
	}
	s.notify = fn
	if fn == nil {
		return
	}
	s.wq.EventRegister(&s.user)
	const all = waiter.ReadableEvents | waiter.WritableEvents | waiter.EventHUp | waiter.EventErr
	if r := s.ready(s.ep.Readiness(all)); r != 0 {
		fn(r)
	}
}

// sliceSink is the writer that the stack fills under the endpoint's lock.
type sliceSink struct{ p []byte }

// Write implements io.Writer; a short count leaves the rest in the stack.
func (w *sliceSink) Write(b []byte) (int, error) {
	n := copy(w.p, b)
	w.p = w.p[n:]
	if n < len(b) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

// Read copies received data to p, which it borrows. It gives a positive count
// and no error, or: EAGAIN when there is no data yet; io.EOF after the peer's
// FIN once all data was read; ECONNRESET after the peer's RST and ETIMEDOUT
// when the peer fell silent, both once all data was read; the reason given to
// Tunnel.Abort; net.ErrClosed after Close or Reset. These are final and
// repeated. An empty p gives 0 and no error.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.eof {
		return 0, io.EOF
	}
	s.sink.p = p
	res, err := s.ep.Read(&s.sink, gtcpip.ReadOptions{})
	s.sink.p = nil
	if res.Count > 0 {
		s.moderate(res.Count)
		return res.Count, nil
	}
	if _, ok := err.(*gtcpip.ErrWouldBlock); ok {
		return 0, syscall.EAGAIN
	}
	if end := s.ended(err); end != nil {
		return 0, end
	}
	s.eof = true
	return 0, io.EOF
}

// moderate lets the receive buffer grow once the stream has earned it.
func (s *Stream) moderate(n int) {
	before := s.read.Add(uint64(n)) - uint64(n)
	if before+uint64(n) < growAfter {
		return
	}
	if before < growAfter {
		// Not through the option's own hook, which would end moderation.
		o := s.ep.SocketOptions()
		if next := min(4*s.buf.InitialRecv, s.buf.MaxRecv); int64(next) > o.GetReceiveBufferSize() {
			o.SetReceiveBufferSize(int64(next), false)
		}
	}
	s.ep.ModerateRecvBuf(n)
}

// sliceSource is the gtcpip.Payloader over the slice given to Write.
type sliceSource struct{ p []byte }

// Len implements gtcpip.Payloader.
func (r *sliceSource) Len() int { return len(r.p) }

// Read implements io.Reader.
func (r *sliceSource) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if len(r.p) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.p)
	r.p = r.p[n:]
	return n, nil
}

// Write copies p, which it borrows, to the send buffer. It gives the number of
// bytes taken, with EAGAIN when that is less than all. After the end it gives
// the error that ended the connection (ECONNRESET, ETIMEDOUT, the reason given
// to Tunnel.Abort), or EPIPE after CloseWrite or an orderly end, or
// net.ErrClosed after Close or Reset.
func (s *Stream) Write(p []byte) (int, error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	done := 0
	for done < len(p) {
		s.source.p = p[done:]
		n, err := s.ep.Write(&s.source, gtcpip.WriteOptions{})
		s.source.p = nil
		done += int(n)
		s.written.Add(uint64(n))
		if _, full := err.(*gtcpip.ErrWouldBlock); full || err == nil && n == 0 {
			if s.growSend() {
				continue
			}
			return done, syscall.EAGAIN
		}
		if err != nil {
			if end := s.ended(err); end != nil {
				return done, end
			}
			return done, syscall.EPIPE
		}
	}
	return done, nil
}

var infoPool = sync.Pool{New: func() any { return new(gtcpip.TCPInfoOption) }}

// growSend lets the send buffer follow the congestion window, as the stack's
// own tuning would, once the stream has earned it. It reports whether there is
// room now. s.wmu is held.
func (s *Stream) growSend() bool {
	written := s.written.Load()
	if written < s.growAt || s.sendBuf >= s.buf.MaxSend {
		return false
	}
	s.growAt = written + uint64(s.sendBuf)/2
	info := infoPool.Get().(*gtcpip.TCPInfoOption)
	defer infoPool.Put(info)
	if err := s.ep.GetSockOpt(info); err != nil {
		return false
	}
	// Twice the window: one window under way and one waiting.
	want := min(2*int(info.SndCwnd)*s.mss, s.buf.MaxSend, 4*s.sendBuf)
	if want <= s.sendBuf {
		return false
	}
	s.sendBuf = want
	s.ep.SocketOptions().SetSendBufferSize(int64(want), false)
	return true
}

// SetBuffers raises the receive and the send buffer to the given sizes in
// bytes, at most to the ceilings of the BufferConfig. Buffers never shrink;
// zero leaves one as it is.
func (s *Stream) SetBuffers(recv, send int) {
	o := s.ep.SocketOptions()
	if recv = min(recv, s.buf.MaxRecv); int64(recv) > o.GetReceiveBufferSize() {
		o.SetReceiveBufferSize(int64(recv), false)
	}
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if send = min(send, s.buf.MaxSend); send > s.sendBuf {
		s.sendBuf = send
		o.SetSendBufferSize(int64(send), true) // wakes a waiting writer
	}
}

// CloseWrite sends FIN after all that was written. Reading goes on. It gives
// the error that ended the connection if there is one; a second call does
// nothing.
func (s *Stream) CloseWrite() error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if err := s.ep.Shutdown(gtcpip.ShutdownWrite); err != nil {
		return s.Err()
	}
	return nil
}

// Reset ends the connection with an RST and releases the stream. What was
// written and not yet delivered is lost.
func (s *Stream) Reset() { s.abort(net.ErrClosed) }

// abort resets the connection; reason is what Read and Write give from now on.
func (s *Stream) abort(reason error) {
	s.fail(reason)
	s.ep.Abort()
	s.checkGone()
}

// Close ends the connection in order and releases the stream: received data
// that was not read is discarded, FIN is sent after all that was written, and
// the endpoint stays in the stack, without the stream, until the peer has all
// of it or TCP gives up. A peer that goes on sending gets an RST. Close gives
// the error that ended the connection before, or nil; a second call does
// nothing.
func (s *Stream) Close() error {
	err := s.Err()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	s.SetNotify(nil)
	// gVisor answers a close with unread data by an RST (RFC 2525 section
	// 2.17), which would take what we wrote with it.
	for s.ep.Shutdown(gtcpip.ShutdownWrite); ; {
		if _, err := s.ep.Read(io.Discard, gtcpip.ReadOptions{}); err != nil {
			break
		}
	}
	s.fail(net.ErrClosed)
	s.ep.Close()
	s.checkGone()
	return err
}

// fail records why the stream ended, if nothing did before.
func (s *Stream) fail(err error) { s.cause.CompareAndSwap(nil, &err) }

// Err gives what ended the connection: ECONNRESET, ETIMEDOUT, the reason given
// to Tunnel.Abort, net.ErrClosed after Close or Reset. It is nil while the
// connection lives and after it ended in order.
func (s *Stream) Err() error {
	if c := s.cause.Load(); c != nil {
		return *c
	}
	st := s.state()
	if st != tcp.StateClose && st != tcp.StateError {
		return nil
	}
	// gVisor gives its error once, to whoever asks first.
	s.emu.Lock()
	defer s.emu.Unlock()
	if err := s.ep.LastError(); err != nil {
		s.fail(errno(err))
	} else if st == tcp.StateError {
		// A Read or Write that runs at this moment got it and is about to
		// record it. No end in order leads to this state, and an RST must never
		// look like one.
		s.fail(syscall.ECONNRESET)
	}
	if c := s.cause.Load(); c != nil {
		return *c
	}
	return nil
}

// ended gives the final error behind err, which Read or Write of the endpoint
// returned; nil when the direction only ended in order.
func (s *Stream) ended(err gtcpip.Error) error {
	switch err.(type) {
	case *gtcpip.ErrClosedForReceive, *gtcpip.ErrClosedForSend, *gtcpip.ErrNotConnected:
		return s.Err()
	}
	s.fail(errno(err))
	return *s.cause.Load()
}

// Local gives this end's address: in an Edge the destination that the
// application called, in a Tunnel SessionLocal and a port.
func (s *Stream) Local() netip.AddrPort { return s.local }

// Remote gives the other end's address: in an Edge the application's, in a
// Tunnel SessionRemote and a port.
func (s *Stream) Remote() netip.AddrPort { return s.remote }

// Session gives the session id that this side drew; zero in an Edge.
func (s *Stream) Session() uint64 { return s.id }

// SetKeepalive makes TCP probe a connection that was silent for idle, every
// interval, and end it with ETIMEDOUT after count probes without an answer. Idle
// zero turns probing off, which is the state of a new stream.
func (s *Stream) SetKeepalive(idle, interval time.Duration, count int) {
	if idle <= 0 {
		s.ep.SocketOptions().SetKeepAlive(false)
		return
	}
	i, v := gtcpip.KeepaliveIdleOption(idle), gtcpip.KeepaliveIntervalOption(interval)
	// A TCP endpoint knows these options; none of the calls can fail.
	s.ep.SetSockOpt(&i)
	s.ep.SetSockOpt(&v)
	s.ep.SetSockOptInt(gtcpip.KeepaliveCountOption, count)
	s.ep.SocketOptions().SetKeepAlive(true)
}

// StreamInfo is a snapshot of a stream.
type StreamInfo struct {
	// State is TCP's name of the state ("ESTABLISHED", "FIN-WAIT1", …).
	State string
	// RTT and RTTVar are the smoothed round trip time and its variation.
	RTT, RTTVar time.Duration
	// Cwnd is the congestion window in segments.
	Cwnd uint32
	// Retransmits counts segments sent again.
	Retransmits uint64
	// Read and Written count the bytes that Read gave and Write took.
	Read, Written uint64
	// RecvBuffer and SendBuffer are the present sizes in bytes.
	RecvBuffer, SendBuffer int
}

// Info gives a snapshot of the stream.
func (s *Stream) Info() StreamInfo {
	var o gtcpip.TCPInfoOption
	info := StreamInfo{
		State:      s.state().String(),
		Read:       s.read.Load(),
		Written:    s.written.Load(),
		RecvBuffer: int(s.ep.SocketOptions().GetReceiveBufferSize()),
		SendBuffer: int(s.ep.SocketOptions().GetSendBufferSize()),
	}
	if err := s.ep.GetSockOpt(&o); err == nil {
		info.RTT, info.RTTVar, info.Cwnd = o.RTT, o.RTTVar, o.SndCwnd
	}
	if st, ok := s.ep.Stats().(*tcp.Stats); ok {
		info.Retransmits = st.SendErrors.Retransmits.Value()
	}
	return info
}
