package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// DefaultNotSent is how many written bytes the kernel may hold before it has
// sent them. Our choice: with up to 1 MiB BenchmarkKernelFlow is no faster and
// needs no less CPU time per byte.
const DefaultNotSent = 64 << 10

// Turn is told when the goroutine that serves the events of streams begins with
// a batch of them, after each, and when it is done. A Bridge is one.
type Turn interface {
	Begin()
	Step()
	End()
}

type noTurn struct{}

func (noTurn) Begin() {}
func (noTurn) Step()  {}
func (noTurn) End()   {}

// DialerConfig has the properties of the connections of a Dialer. The zero value
// is usable.
type DialerConfig struct {
	// Mark is set on each packet (SO_MARK), so that policy rules can keep it out
	// of the tunnel; it needs CAP_NET_ADMIN. Zero: none. Linux only.
	Mark uint32
	// NotSent is how many written bytes the kernel may hold before it has sent
	// them (TCP_NOTSENT_LOWAT), up to one segment of 64 KiB more. It bounds what
	// is absorbed for a server that does not read, and not the throughput: what is
	// on its way does not count. Zero: DefaultNotSent. Linux only.
	NotSent int
	// Turn is told about the turns of the goroutine that serves the events. Nil:
	// nobody.
	Turn Turn
	// StartBuffer is the receive window of a new connection in bytes, and how
	// much it may hold unsent if that is less than NotSent. It stays so until
	// Stream.SetBuffers raises it; from then on the kernel tunes the window within
	// the size given there. The kernel's accounting lets up to twice as much in.
	// Zero: the kernel tunes from its own start size without a bound of ours. Linux
	// 5.14 or newer; older ones do as with zero.
	StartBuffer int
	// UserTimeout is how long sent data may stay unacknowledged
	// (TCP_USER_TIMEOUT, RFC 5482), in whole milliseconds. Zero: the system's 15
	// retransmissions. Mind that a server that does not read, but is well, is given
	// up too. Linux only.
	UserTimeout time.Duration
}

// dialError gives err, the answer of the system to a connection attempt, one of
// the meanings that callers tell apart.
func dialError(dst netip.AddrPort, err error) error {
	return fmt.Errorf("bridge: connect to %v: %w", dst, dialMeaning(err))
}

// dialMeaning maps what connect(2) may say. Some ICMP codes come with an errno
// of their own (icmp_err_convert in the kernel's net/ipv4/icmp.c).
func dialMeaning(err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	case errors.As(err, &errno):
	case isTimeout(err):
		return syscall.ETIMEDOUT
	default:
		return err
	}
	switch errno {
	case syscall.ECONNRESET: // RST that crossed our SYN's acknowledgement
		return syscall.ECONNREFUSED
	case syscall.EHOSTDOWN, syscall.ENOPROTOOPT, syscall.EOPNOTSUPP:
		return syscall.EHOSTUNREACH
	case syscall.ENETDOWN, syscall.EAFNOSUPPORT:
		return syscall.ENETUNREACH
	case syscall.EPERM: // a local filter, or a rule of type prohibit
		return syscall.EACCES
	case syscall.EINVAL: // a route of type blackhole
		return syscall.ETIMEDOUT
	}
	return errno
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
