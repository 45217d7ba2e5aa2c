package homa

import (
	"net/netip"
)

// State is the state of an RPC.
type State uint8

const (
	// Outgoing of the protocol: this side sends its message. On a client until the
	// first byte of the response, on a server until the acknowledgement.
	Sending State = iota + 1
	// Receiving: this side receives; on a server the request, on a client the response.
	Receiving
	// InService: the server has the request and has not begun the response.
	InService
	// Finished: a client has the response.
	Finished
	// Dead: it failed, was aborted or was acknowledged.
	Dead
)

// RPC is one remote procedure call, on either side. Its methods are calls of its
// Engine: not safe for concurrent use with it.
type RPC struct{}

// ID is the id as this side sees it: even on a client, odd on a server.
func (r *RPC) ID() uint64 { return 0 }

// Client reports whether this side is the client.
func (r *RPC) Client() bool { return false }

// Peer is the address and port of the other side.
func (r *RPC) Peer() netip.AddrPort { return netip.AddrPort{} }

// Port is the port of this side.
func (r *RPC) Port() uint16 { return 0 }

// State is the RPC's state.
func (r *RPC) State() State { return 0 }

// Err is the reason of Failed, nil before.
func (r *RPC) Err() error { return nil }

// SetValue attaches a value of the owner's; Value returns it.
func (r *RPC) SetValue(v any) {}

// Value returns what SetValue or CallOptions attached.
func (r *RPC) Value() any { return nil }

// SendLength is the length in bytes of the message this side sends, 0 if it is
// not known yet.
func (r *RPC) SendLength() int { return 0 }

// ReceiveLength is the length in bytes of the message this side receives, 0 if it
// is not known yet.
func (r *RPC) ReceiveLength() int { return 0 }

// Stats returns the RPC's trace.
func (r *RPC) Stats() RPCStats { return RPCStats{} }

// Write supplies the next bytes of the message this side sends and copies them. It
// takes fewer, or none, while the message waits for memory or is Config.SendAhead
// ahead of what may leave; Writable then says when to go on. Bytes beyond the
// message's length are ErrTooLong. On a client the message is over when the
// response begins: ErrState.
func (r *RPC) Write(now Instant, p []byte) (int, error) { return 0, nil }

// Unwritten is the number of bytes of the message this side sends that Write has
// not been given yet.
func (r *RPC) Unwritten() int { return 0 }

// Reply begins the response, of length bytes, which Write then supplies. Bytes of
// the request that were not read are dropped. Errors: ErrState unless the request
// is complete and unanswered, ErrTooLong.
func (r *RPC) Reply(now Instant, length int) error { return nil }

// Buffered is the number of bytes that Read can return now.
func (r *RPC) Buffered() int { return 0 }

// Read returns the next bytes, in order, of the message this side receives, 0 if
// none are here yet, io.EOF after the last, Err if the RPC failed.
func (r *RPC) Read(now Instant, p []byte) (int, error) { return 0, nil }

// Discard is Read without a destination: it drops up to n bytes and returns how many.
func (r *RPC) Discard(now Instant, n int) int { return 0 }

// Abort gives the RPC up and releases what it holds: nothing of it is sent any
// more. There is no cancel on the wire. A client's peer learns when it asks. On a
// server it refuses the request: the client is not answered and times out; the
// request is not executed again within the life of tombstones. On a complete
// response it drops what was not read. It makes no event; err, or ErrAborted if
// nil, is what Err then returns. A second call does nothing.
func (r *RPC) Abort(now Instant, err error) {}
