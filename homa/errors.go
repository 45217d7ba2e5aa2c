package homa

import "errors"

// Errors of RPCs and calls; match them with errors.Is.
var (
	// ErrTimeout: the peer was silent for the whole time-out.
	ErrTimeout = errors.New("homa: peer timed out")
	// ErrUnreachable: the network says that the peer cannot be reached. The next
	// three are kinds of it.
	ErrUnreachable = errors.New("homa: peer unreachable")
	// ErrPortUnreachable: nobody serves the port (Linux: ENOTCONN).
	ErrPortUnreachable error = &unreachableError{"homa: port unreachable"}
	// ErrProtocolUnreachable: the host does not speak Homa (EPROTONOSUPPORT).
	ErrProtocolUnreachable error = &unreachableError{"homa: host does not speak this protocol"}
	// ErrHostUnreachable: no path to the host (EHOSTUNREACH).
	ErrHostUnreachable error = &unreachableError{"homa: host unreachable"}
	// ErrAborted: this side gave up the RPC without naming a reason.
	ErrAborted = errors.New("homa: RPC aborted")
	// ErrAbandoned: the client has forgotten the RPC before it had the response.
	ErrAbandoned = errors.New("homa: client has given up the RPC")
	// ErrTooLong: a message length outside 1 to Config.MaxMessage.
	ErrTooLong = errors.New("homa: message length out of range")
	// ErrBusy: as many RPCs or peers as the configuration allows.
	ErrBusy = errors.New("homa: too many RPCs or peers")
	// ErrMemory: the bound on memory leaves no room for the message.
	ErrMemory = errors.New("homa: memory bound reached")
	// ErrState: the call does not fit the state of the RPC.
	ErrState = errors.New("homa: RPC is in another state")
	// ErrAddress: an address or port that cannot be called or served.
	ErrAddress = errors.New("homa: bad address or port")
)

type unreachableError struct{ text string }

func (e *unreachableError) Error() string { return e.text }

func (e *unreachableError) Is(target error) bool { return target == ErrUnreachable }
