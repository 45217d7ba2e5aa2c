package udp

import "net/netip"

// Message is one unit of a batch: a datagram or, with segmentation offload, a
// run of datagrams of one size to or from one address.
type Message struct {
	// Buf holds the payload. A reader lends a buffer of packet.Size bytes and
	// finds the payload in Buf[:N]; a writer's payload is Buf[:N].
	Buf []byte
	// N is the number of payload bytes.
	N int
	// Segment is the size in bytes of each datagram of a run but the last,
	// which may be shorter. Zero means that Buf[:N] is one datagram.
	Segment int
	// Addr is the remote address.
	Addr netip.AddrPort
	// Local is the local address that a datagram arrived at, or is to be sent
	// from. The zero Addr leaves the choice to the kernel.
	Local netip.Addr
}
