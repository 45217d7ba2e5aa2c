package tcpip

import (
	"errors"
	"fmt"
	"syscall"

	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
)

// errno turns an error of the stack into an errno. What has no errno of its
// own keeps its text.
func errno(err gtcpip.Error) error {
	switch err.(type) {
	case nil:
		return nil
	case *gtcpip.ErrWouldBlock:
		return syscall.EAGAIN
	case *gtcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	case *gtcpip.ErrConnectionReset, *gtcpip.ErrAborted, *gtcpip.ErrConnectionAborted:
		return syscall.ECONNRESET
	case *gtcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	case *gtcpip.ErrHostUnreachable, *gtcpip.ErrHostDown, *gtcpip.ErrNoNet:
		return syscall.EHOSTUNREACH
	case *gtcpip.ErrNetworkUnreachable:
		return syscall.ENETUNREACH
	case *gtcpip.ErrClosedForSend:
		return syscall.EPIPE
	case *gtcpip.ErrPortInUse, *gtcpip.ErrDuplicateAddress:
		return syscall.EADDRINUSE
	}
	return errors.New("tcpip: " + err.String())
}

// asErrno reduces a reason to the errno in it; a reason without one becomes
// ECONNRESET, which is what the user of a stream can act upon.
func asErrno(reason error) error {
	var no syscall.Errno
	if errors.As(reason, &no) {
		return no
	}
	if reason == nil {
		return syscall.ECONNRESET
	}
	return fmt.Errorf("%w: %w", syscall.ECONNRESET, reason)
}
