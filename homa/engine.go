package homa

import (
	"net/netip"

	"github.com/tougw/tougw/homa/wire"
)

// Outgoing is a packet to send.
type Outgoing struct {
	// To is the peer's address; an IPv4 address is plain, not mapped into IPv6.
	To netip.Addr
	// Priority is the level at which switches should serve it: 0 to 7, the highest.
	Priority uint8
	// Packet is the Homa packet, from its common header on: the buffer given to
	// Transmit with the packet appended. It is the caller's.
	Packet []byte
	// Type is the packet's, and DataLength the number of message bytes in it.
	Type       wire.Type
	DataLength int
	// Version is the peer's; it decides the IP protocol number.
	Version wire.Version
	// RPC is the one it belongs to, nil if none. First: it holds byte 0 of a request.
	RPC   *RPC
	First bool
}

// CallOptions say what to call.
type CallOptions struct {
	To     netip.AddrPort // server
	From   uint16         // source port; 0: Config.ClientPort
	Length int            // of the request in bytes, 1 to Config.MaxMessage
	Value  any            // initial RPC.Value
}

// Engine is one Homa endpoint: an address (or several that peers take for one
// host) with its ports. It is not safe for concurrent use.
type Engine struct {
	config Config
}

// New returns an Engine at rest. Errors name the field of config that is out of
// range.
func New(config Config) (*Engine, error) { return nil, nil }

// SetPeer sets what is particular about a peer, for RPCs and packets from now on.
// The engine keeps it until ClearPeer.
func (e *Engine) SetPeer(addr netip.Addr, config PeerConfig) error { return nil }

// ClearPeer returns a peer to the defaults.
func (e *Engine) ClearPeer(addr netip.Addr) {}

// Listen serves a port: requests to it become Request events. Linux hosts call
// ports 1 to 32767; any but 0 will do. A port already served is ErrAddress.
func (e *Engine) Listen(port uint16) error { return nil }

// Unlisten ends that. RPCs that have begun go on.
func (e *Engine) Unlisten(port uint16) {}

// Receive takes a packet from the peer at from: the payload of an IP packet of
// the peer's protocol number. The packet is borrowed. Whatever is wrong with it
// is counted in Stats and has no other effect.
func (e *Engine) Receive(now Instant, from netip.Addr, packet []byte) {}

// ReceiveVirtual is Receive for Config.Virtual: packet is as Transmit gave it,
// and dataLength is Outgoing.DataLength.
func (e *Engine) ReceiveVirtual(now Instant, from netip.Addr, packet []byte, dataLength int) {}

// Unreachable takes the news that packets do not get through: it fails the
// calls to port of the peer and forgets RPCs served to that port; port 0 means
// all RPCs with the peer. err is the error of Failed, usually
// ErrPortUnreachable, ErrProtocolUnreachable or ErrHostUnreachable.
func (e *Engine) Unreachable(now Instant, peer netip.Addr, port uint16, err error) {}

// Advance runs the timers that are due. Time by which the owner is late for
// Deadline does not count as silence of peers.
func (e *Engine) Advance(now Instant) {}

// Deadline is when Advance must be called, or Transmit because the pacer then
// has room; false if there is nothing to wait for. It may be in the past.
func (e *Engine) Deadline() (Instant, bool) { return 0, false }

// Call begins an RPC: it reserves memory for the request, which Write then
// supplies. Errors: ErrTooLong, ErrAddress, ErrBusy, ErrMemory.
func (e *Engine) Call(now Instant, options CallOptions) (*RPC, error) { return nil, nil }

// Transmit appends the next packet that may leave to buf and describes it, or
// returns false. Control packets come first, then data: the message with the
// fewest bytes left first, save for the share of the oldest.
func (e *Engine) Transmit(now Instant, buf []byte) (Outgoing, bool) { return Outgoing{}, false }

// Event returns the next event, or false. At most one Readable and one Writable
// of an RPC wait at a time.
func (e *Engine) Event() (Event, bool) { return Event{}, false }

// Stats returns counters and levels. It does not allocate.
func (e *Engine) Stats() Stats { return Stats{} }
