// Package tunnel joins two gateways: it knows peers, the associations that
// carry them, TOU sessions, and the GUE header between the two. It moves
// transport segments between a local transport stack and the records of an
// association, and knows nothing of what the segments mean beyond the SYN and
// ACK flags that the TOU draft (draft-herbert-transports-over-udp-01) ties the
// session ids to. What it puts on the wire is written down in PROTOCOL.md.
//
// The entry type is Node. Three identities are kept apart:
//
//   - a peer is a gateway: one that this side dials (Peer), or an identity that
//     dialled this side;
//   - an instance is one run of a peer's program, named by the random id in its
//     hello. Sessions belong to an instance and to nothing less: a new
//     association of the same proven identity and the same instance takes them
//     up again, anything else cannot reach them;
//   - a Link is one association with an instance. The newest one carries.
//
// # Concurrency and locks
//
// All methods of Node, Peer and Link are safe for concurrent use. A Receiver
// belongs to one goroutine. There are these locks: Node.mu guards the tables,
// queue.mu the transmit queue of a link, Link.pathMu its candidates for a new
// path, toldUnknown.mu what an instance was told; none is held while another is
// taken, nor while a method of Stack or Secure is called.
//
// # Buffers
//
// Output takes a Segment and releases it when its last byte is sealed or
// dropped. Receive borrows records until it returns; the Injector copies.
package tunnel
