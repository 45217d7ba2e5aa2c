package translate

import (
	"context"
	"errors"
	"net"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa/rpc"
)

// Faults that this package tells clients of.
var (
	errBuffered   = &framing.Error{Fault: framing.Overloaded, Reason: "too many unfinished messages"}
	errStopped    = &framing.Error{Fault: framing.Truncated, Reason: "the client stopped sending"}
	errNoResponse = &framing.Error{Fault: framing.Timeout, Reason: "the server did not answer in time"}
	errSilent     = &framing.Error{Fault: framing.Timeout, Reason: "the server is silent"}
	errForsaken   = &framing.Error{Fault: framing.Timeout, Reason: "the other gateway is silent"}
	errIdle       = &framing.Error{Fault: framing.Timeout, Reason: "nothing was sent for too long"}
	errNoService  = &framing.Error{Fault: framing.Unreachable, Reason: "the service is not running"}
	errNoRoute    = &framing.Error{Fault: framing.Unreachable, Reason: "the server cannot be reached"}
	errEnding     = &framing.Error{Fault: framing.Unreachable, Reason: "the gateway is ending"}
	errTooMany    = &framing.Error{Fault: framing.Overloaded, Reason: "the gateway has too many requests"}
	errTooLong    = &framing.Error{Fault: framing.TooLarge, Reason: "the message is longer than Homa allows"}
)

// faultOf is the failure of an RPC in words for its TCP client.
func faultOf(err error) *framing.Error {
	var fault *framing.Error
	switch {
	case errors.As(err, &fault):
		return fault
	case errors.Is(err, rpc.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return errSilent
	case errors.Is(err, rpc.ErrRefused):
		return errNoService
	case errors.Is(err, rpc.ErrUnreachable), errors.Is(err, rpc.ErrAddress):
		return errNoRoute
	case errors.Is(err, net.ErrClosed):
		return errEnding
	case errors.Is(err, rpc.ErrBusy), errors.Is(err, rpc.ErrMemory):
		return errTooMany
	case errors.Is(err, rpc.ErrTooLong):
		return errTooLong
	}
	return &framing.Error{Fault: framing.BadResponse, Reason: "the call failed"}
}

// badResponse is an error about a response as the client of the response sees it.
func badResponse(err error) *framing.Error {
	var fault *framing.Error
	if !errors.As(err, &fault) {
		return faultOf(err)
	}
	return &framing.Error{Fault: framing.BadResponse, Reason: fault.Reason}
}

// resultOf is the result of a request that failed with a fault.
func resultOf(fault *framing.Error) Result {
	switch fault.Fault {
	case framing.Malformed:
		return Malformed
	case framing.TooLarge, framing.HeadTooLarge:
		return TooLarge
	case framing.Truncated:
		return Truncated
	case framing.Unsupported:
		return Unsupported
	case framing.Unreachable:
		return Unreachable
	case framing.Timeout:
		return Timeout
	case framing.Overloaded:
		return Overloaded
	}
	return BadResponse
}
