package gateway

import (
	"errors"
	"syscall"

	"github.com/tougw/tougw/bridge"
	"github.com/tougw/tougw/tunnel"
)

// failures are the reasons why a flow was not opened, most special first. What
// fits none is other, the last.
var failures = [...]struct {
	reason string
	errs   []error
}{
	{"overload", []error{tunnel.ErrOverload, bridge.ErrFull}},
	{"draining", []error{tunnel.ErrDraining, bridge.ErrClosed}},
	{"no_peer", []error{tunnel.ErrNoPeer}},
	{"name", []error{tunnel.ErrName}},
	{"prohibited", []error{syscall.EACCES, syscall.EPERM}},
	{"refused", []error{syscall.ECONNREFUSED}},
	{"host_unreachable", []error{syscall.EHOSTUNREACH, syscall.EHOSTDOWN}},
	{"net_unreachable", []error{syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT}},
	{"timeout", []error{syscall.ETIMEDOUT}},
	{"reset", []error{syscall.ECONNRESET, syscall.ECONNABORTED}},
	{"other", nil},
}

const numFailures = len(failures)

// countFailed counts a flow that was not opened because of err.
func (g *Gateway) countFailed(err error) {
	for i := range failures {
		for _, e := range failures[i].errs {
			if errors.Is(err, e) {
				g.failed[i].Add(1)
				return
			}
		}
	}
	g.failed[numFailures-1].Add(1)
}

// failedFlows counts the flows that were not opened, for whatever reason.
func (g *Gateway) failedFlows() (n uint64) {
	for i := range g.failed {
		n += g.failed[i].Load()
	}
	return n
}
