// Package tcpip ends TCP in user space, on gVisor's network stack, twice.
//
// An Edge ends captured connections: packets that a device (a TUN) delivers,
// IPv4 and IPv6, to whatever destination. A Tunnel speaks TCP over TOU
// sessions (draft-herbert-tou-01): its "wire" is a function that takes
// Segments, and Injectors that are fed received ones. Both hand new
// connections to a callback as Pending, before the handshake is completed, so
// that the far side can be reached first, and both give Streams:
// non-blocking, event-driven, without a goroutine of their own.
//
// The two stacks are separate because they want opposite settings. The edge
// stack faces a kernel on the same machine: no loss, no delay. The tunnel stack
// faces the Internet: its recovery, windows and congestion control decide
// the throughput.
//
// # Session ids as addresses
//
// Inside the tunnel stack a session id is an address. Both addresses of a
// session are made from the id that this side drew (SessionLocal and
// SessionRemote), since a stack fixes the remote address at connect, when the
// other side's id is still unknown. They never leave the process; whoever owns
// the Tunnel translates ids. For the same reason the TCP checksum of the
// tunnel covers the TCP header and data alone, without a pseudo-header
// (draft-herbert-tou-01 section 2.2), and is made and verified here, not by
// the stack.
//
// # Large segments
//
// Both stacks exchange segments of up to 64 KiB with their links. The edge
// passes them to the device whole, with the offload description of package
// packet; the tunnel gives them out as a Segment, which its owner cuts to the
// size the path carries at that moment (Segment.Cut), and coalesces received
// segments before the stack sees them (Injector).
//
// # Buffers
//
// What a connection absorbs for a reader that never reads is bounded by small
// initial buffers (BufferConfig). They grow, up to a ceiling, only after half a
// mebibyte has moved in that direction, which only happens when somebody reads.
//
// # Locks
//
// gVisor calls back with an endpoint's lock held: SetNotify functions, the
// out function of a Tunnel and the Write of a Device. None of them may block
// or call into a Stream. The tables of this package are leaf locks: taken
// inside an endpoint's lock, never the other way round.
//
// Packages that use this one see no gVisor type. Errors are errno values of
// package syscall, io.EOF and net.ErrClosed.
package tcpip
