package gateway

import (
	"time"

	"github.com/tougw/tougw/tcpip"
)

// Buffers of a flow at its start, in bytes. They hold little until the flow has
// been seen to have a reader, half a mebibyte later, since a sender with BBR
// keeps about five more bytes in its own kernel for each that is taken from it:
// measured over the whole path, kernels included, 0.94 to 0.97 MiB are absorbed
// for a reader that never reads, where plain TCP absorbs 0.72 to 0.82; with 64
// KiB everywhere it was 1.5. On a short path even 16 KiB are hundreds of Mbit/s,
// and startRate makes up for a long one.
const (
	edgeStartRecv   = 16 << 10 // from the application
	edgeStartSend   = 64 << 10 // to the application
	tunnelStartRecv = 32 << 10 // half of it is the window
	tunnelStartSend = 16 << 10
	kernelStart     = 16 << 10 // from and to the destination

	// startRate is what a flow may carry at its start over a path on which its
	// first buffers would be felt, in bytes per second: 20 Mbit/s, about what TCP
	// itself has reached after five round trips of slow start over 100 ms.
	startRate = 2_500_000
	// shortPath is a round trip up to which the first buffers are not felt, and
	// which a loaded host can take for a path of no length.
	shortPath = 10 * time.Millisecond
)

// widen raises the first buffers of a stream of the tunnel to what its path
// needs. gVisor advertises half of a receive buffer.
func widen(s *tcpip.Stream, rtt time.Duration) {
	if rtt > shortPath {
		n := int(rtt.Seconds() * startRate)
		s.SetBuffers(2*n, n)
	}
}
