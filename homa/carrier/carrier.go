// Package carrier is the interface between a Homa node and what moves its
// packets: raw IP sockets (homa/rawip), a tunnel, or memory (Network, for
// tests). It knows packets as bytes and peers as addresses, and nothing of the
// protocol.
package carrier

import (
	"errors"
	"fmt"
	"net/netip"
)

// MaxPacket is the largest packet in bytes, with its IP header, that carriers
// move; where the MTU is larger, as on a loopback device, this counts. Our
// choice: it covers the jumbo frames of all common switches.
const MaxPacket = 9216

// MaxBatch is how many packets one call of Send or Receive should be offered;
// more is allowed and gains nothing.
const MaxBatch = 64

// Packet is a Homa packet on its way, or what became of one.
type Packet struct {
	// Addr is the peer's address; IPv4 is not mapped.
	Addr netip.Addr
	// Local is the address of ours that a packet came to. On Send the zero Addr
	// leaves the choice to the carrier: the address that the peer last used, else
	// that of the route.
	Local netip.Addr
	// Priority is 0 to 7, the highest. Receive does not set it.
	Priority uint8
	// Data is the packet behind the IP header. Receive is lent a buffer of
	// MaxPacket bytes in Buf and makes Data a part of it; Send only looks at Data.
	Data, Buf []byte

	// Target is where a gateway at Addr is to take the request that this packet
	// holds the first byte of; zero means Addr itself. A carrier that knows no
	// gateways leaves it alone.
	Target netip.Addr

	// Trouble is not None when Data did not reach the peer. Send sets it on
	// packets that it could not send. Receive returns a Packet with it when the
	// network reports it of an earlier packet to Addr: Data then is the start of
	// that one, so that it can be told whether it was sent; without Data the
	// carrier vouches for the report.
	Trouble Trouble
	// Port is the peer's Homa port that PortUnreachable is about, Call the id of
	// the RPC that CallRefused is about, as its client has it.
	Port uint16
	Call uint64
	// Err says more about Trouble; it may be nil.
	Err error
}

// Trouble is a reason why packets to a peer do not arrive, other than loss.
type Trouble uint8

// Troubles that a carrier can tell.
const (
	None                Trouble = iota
	PortUnreachable             // nobody serves the port
	ProtocolUnreachable         // the host does not know Homa
	HostUnreachable             // there is no path to the host
	MTUChanged                  // MaxData of the peer has changed
	CallRefused                 // a gateway cannot have one call answered; Err says why
	NoRoute                     // this host cannot send there now; Send alone gives it
)

// String returns a short text, such as "port unreachable".
func (t Trouble) String() string {
	switch t {
	case None:
		return "none"
	case PortUnreachable:
		return "port unreachable"
	case ProtocolUnreachable:
		return "protocol unreachable"
	case HostUnreachable:
		return "host unreachable"
	case MTUChanged:
		return "packet too big"
	case CallRefused:
		return "call refused"
	case NoRoute:
		return "no route"
	}
	return fmt.Sprintf("trouble %d", uint8(t))
}

// Carrier moves Homa packets. Send, Waiting, MaxData and Refuse are safe for
// concurrent use.
type Carrier interface {
	// Send sends a batch in order, and is done with its buffers when it returns.
	// It may wait a bounded time for room in a queue. Packets that it could not
	// send have their Trouble set, or are counted as lost. An error means that the
	// carrier is of no use any more; after Close it is net.ErrClosed.
	Send(batch []Packet) error
	// Receivers is how many goroutines should wait in Receive, each with its own
	// number from 0. It does not change.
	Receivers() int
	// Receive waits for packets, fills the batch from its start and returns how
	// many there are. An error ends the carrier; after Close it is net.ErrClosed.
	Receive(receiver int, batch []Packet) (int, error)
	// Waiting reports whether packets wait that Receive would return at once to a
	// receiver. It is cheap, and may be wrong in either direction.
	Waiting(receiver int) bool
	// MaxData is the most bytes of message data that a DATA packet to peer may
	// hold now. It is cheap: a caller may ask before each message.
	MaxData(peer netip.Addr) int
	// Refuse tells the sender of a received packet that nobody serves its port,
	// if the carrier has a way and not too often.
	Refuse(p *Packet)
	// Close ends the carrier; calls that wait return. A second call returns what
	// the first one did.
	Close() error
}

// ErrClaimed says that another process has the port.
var ErrClaimed = errors.New("served by another process of this host")

// Ports is a Carrier whose addresses other processes use as well.
type Ports interface {
	Carrier
	// Claim makes a port this node's until release is called. It fails with an error
	// that wraps ErrClaimed while another node has it.
	Claim(port uint16) (release func(), err error)
	// Foreign reports whether another node has claimed the port by now. It is asked for
	// packets that this node does not know.
	Foreign(port uint16) bool
}

// Refuser is a Carrier that can tell a client why its call has no response,
// which Homa itself cannot.
type Refuser interface {
	Carrier
	// RefuseCall tells the client at to that its call, by the id that it has
	// there, has failed with err. It may be lost: then the call times out.
	RefuseCall(to netip.Addr, call uint64, err error)
}
