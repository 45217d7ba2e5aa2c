package homa

import (
	"fmt"
	"io"
	"net/netip"
	"time"
)

// State is the state of an RPC.
type State uint8

const (
	// Sending: this side sends its message. On a client until the first byte of the
	// response, on a server until the acknowledgement.
	Sending State = iota + 1
	// Receiving: on a server the request arrives, on a client the response.
	Receiving
	// InService: the server has the request and has not begun the response.
	InService
	// Finished: a client has the response.
	Finished
	// Dead: it failed, was aborted or was acknowledged.
	Dead
)

var stateNames = [...]string{"new", "sending", "receiving", "in service", "finished", "dead"}

// String returns the state's name in lower case.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// control is a set of control packets that an RPC has to send.
type control uint8

const (
	controlBusy control = 1 << iota
	controlGrant
	controlResend  // for each gap and what is missing at the end
	controlRestart // RESEND of everything, after the wait for memory
	controlNeedAck
)

// RPC is one remote procedure call, on either side. Its methods are calls of its
// Engine: not safe for concurrent use with it.
type RPC struct {
	engine        *Engine
	peer          *peer
	id            uint64
	local, remote uint16
	client        bool
	announced     bool // a server's owner knows of it
	inUnread      bool // counts in Engine.unread
	state         State
	err           error
	value         any
	in            inbound
	out           outbound
	stats         RPCStats

	pos [numHeaps]int32

	// Control packets that wait in Engine.controls.
	controls      control
	queued        bool
	grantPriority uint8
	asked         int64 // tick of the last request for what is missing

	// Events that wait.
	readableWaits, writableWaits bool

	// Timer, see timer.go. All in ticks.
	timerNext, timerPrev *RPC
	timerAt              int64 // 0: not armed
	heard                int64 // silence counts from here
	resendAt             int64
	credited             int64         // tick up to which busy time was credited
	busy                 time.Duration // Engine.busy at that tick
	rest                 time.Duration // that makes no whole tick yet
	needAckAt            int64
	needAcks             int   // asked since the client was last heard
	restarted            int64 // when everything was last sent again
	withheldAt           int64 // when the server was last told that nothing is granted; 0: something is

	// See asking.go: while it waits, it is linked by timerNext and timerPrev.
	place, waits         bool
	placeEnds, waitSince int64

	// Links of peer.rpcs.
	peerNext, peerPrev *RPC
}

func (r *RPC) position(id heapID) *int32 { return &r.pos[id] }

func (r *RPC) memoryPart(id heapID) (*peerMemory, *reservation) {
	if id == heapReceive {
		return &r.peer.receive, &r.in.memory
	}
	return &r.peer.send, &r.out.memory
}

// ID is the id as this side sees it: even on a client, odd on a server.
func (r *RPC) ID() uint64 { return r.id }

// Client reports whether this side is the client.
func (r *RPC) Client() bool { return r.client }

// Peer is the address and port of the other side.
func (r *RPC) Peer() netip.AddrPort { return netip.AddrPortFrom(r.peer.addr, r.remote) }

// Port is the port of this side.
func (r *RPC) Port() uint16 { return r.local }

// State is the RPC's state.
func (r *RPC) State() State { return r.state }

// Err is the reason of Failed or Abort, nil before.
func (r *RPC) Err() error { return r.err }

// SetValue attaches a value of the owner's; Value returns it.
func (r *RPC) SetValue(v any) { r.value = v }

// Value returns what SetValue or CallOptions attached.
func (r *RPC) Value() any { return r.value }

// SendLength is the length in bytes of the message this side sends, 0 if it is
// not known yet.
func (r *RPC) SendLength() int { return r.out.length }

// ReceiveLength is the length in bytes of the message this side receives, 0 if it
// is not known yet.
func (r *RPC) ReceiveLength() int { return r.in.length }

// Stats returns the RPC's trace.
func (r *RPC) Stats() RPCStats { return r.stats }

// Write supplies the next bytes of the message this side sends and copies them. It
// takes fewer, or none, while the message waits for memory or is Config.SendAhead
// ahead of what may leave; Writable then says when to go on. More bytes than are
// missing of the message are ErrTooLong, with none taken. On a client the message
// is over when the response begins: ErrState.
func (r *RPC) Write(now Instant, p []byte) (int, error) {
	e, m := r.engine, &r.out
	if r.state != Sending {
		return 0, r.stateError("Write")
	}
	if len(p) > m.length-m.written {
		return 0, fmt.Errorf("%w: Write of %d bytes, %d are left of the message", ErrTooLong, len(p), m.length-m.written)
	}
	e.touch(now)
	if e.config.Virtual {
		return len(p), nil
	}
	n := 0
	if m.memory.admitted {
		n = min(len(p), max(0, m.granted+e.config.SendAhead-m.written))
		m.content.put(m.written, p[:n])
		m.written += n
		e.updateSend(r)
	}
	m.short = n < len(p)
	return n, nil
}

// Unwritten is the number of bytes of the message this side sends that Write has
// not been given yet.
func (r *RPC) Unwritten() int { return r.out.length - r.out.written }

// Reply begins the response, of length bytes, which Write then supplies. Bytes of
// the request that were not read are dropped. Errors: ErrState unless the request
// is complete and unanswered, ErrTooLong.
func (r *RPC) Reply(now Instant, length int) error {
	e := r.engine
	if r.client || r.state != InService {
		return r.stateError("Reply")
	}
	if length < 1 || length > e.config.MaxMessage {
		return fmt.Errorf("%w: response of %d bytes, must be 1 to %d", ErrTooLong, length, e.config.MaxMessage)
	}
	e.touch(now)
	e.releaseReceive(r)
	e.setState(r, Sending)
	e.beginSend(r, length)
	if !e.config.Virtual {
		e.send.reserve(r, &r.peer.send, &r.out.memory, r.out.birth)
		r.out.short = !r.out.memory.admitted
	}
	r.heard = e.tick
	e.schedule(r, e.tick+int64(r.peer.config.ResendTicks))
	return nil
}

// Buffered is the number of bytes that Read can return now.
func (r *RPC) Buffered() int {
	if r.in.length == 0 || r.engine.config.Virtual || r.in.content.chunks == nil {
		return 0
	}
	return r.in.inOrder() - r.in.read
}

// SetLowWater makes Readable wait until n bytes can be read, but for no longer than 5
// ticks, and for a quarter of Config.ReceiveWindow at most. Whoever has to be woken up
// for each part of a long message saves most of that. The default, 0, tells of each
// part.
func (r *RPC) SetLowWater(n int) { r.in.lowWater = max(n, 0) }

// LowWater reports whether there is enough to read for Readable: as much as
// SetLowWater wants, the end of the message, or what has waited for long.
func (r *RPC) LowWater() bool {
	m := &r.in
	n := r.Buffered()
	return n > 0 && (n >= m.enough() || m.complete() || m.read < m.announced)
}

// Read returns the next bytes, in order, of the message this side receives, 0 if
// none are here yet, io.EOF after the last, Err if the RPC failed.
func (r *RPC) Read(now Instant, p []byte) (int, error) {
	if n := min(len(p), r.Buffered()); n > 0 {
		r.in.content.get(p[:n], r.in.read)
		r.consume(now, n)
		return n, nil
	}
	switch {
	case r.in.length > 0 && r.in.read == r.in.length:
		return 0, io.EOF
	case r.err != nil:
		return 0, r.err
	case r.state == Sending && !r.client || r.state == Dead:
		return 0, r.stateError("Read")
	}
	return 0, nil
}

// Discard is Read without a destination: it drops up to n bytes and returns how many.
func (r *RPC) Discard(now Instant, n int) int {
	if n = min(n, r.Buffered()); n > 0 {
		r.consume(now, n)
	}
	return n
}

// consume counts n bytes as read and makes use of the room.
func (r *RPC) consume(now Instant, n int) {
	e, m := r.engine, &r.in
	e.touch(now)
	m.content.drop(m.read, m.read+n)
	m.read += n
	if m.read == m.length {
		e.releaseReceive(r)
		return
	}
	e.receive.shrink(&r.peer.receive, &m.memory, m.content.share(m.read, m.length))
	if m.complete() {
		return
	}
	if m.dropped && m.read+m.window >= min(m.length, m.end+m.window/2) {
		// The sender believes these bytes delivered; it would be silent until asked.
		m.dropped = false
		e.queueResend(r)
	}
	if m.parked && (m.limit() == m.length || m.grantLimit()-m.granted >= m.window/4) {
		m.parked = false
		e.grants.manage(r)
		e.grants.issue()
	}
}

// Abort gives the RPC up and releases what it holds: nothing of it is sent any
// more. There is no cancel on the wire. A client's peer learns when it asks. On a
// server it refuses the request: the client is not answered and times out; the
// request is not executed again within the life of tombstones. On a complete
// response it drops what was not read. It makes no event; err, or ErrAborted if
// nil, is what Err then returns. A second call does nothing.
func (r *RPC) Abort(now Instant, err error) {
	e := r.engine
	if r.state == Dead {
		return
	}
	e.touch(now)
	if err == nil {
		err = ErrAborted
	}
	if r.state == Finished {
		if r.in.memory.admitted {
			r.err = err
			e.releaseReceive(r)
		}
		return
	}
	r.err = err
	e.end(r)
}

func (r *RPC) stateError(call string) error {
	if r.err != nil {
		return r.err
	}
	return fmt.Errorf("%w: %s of an RPC that is %s", ErrState, call, r.state)
}
