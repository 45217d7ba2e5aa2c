// Package bridge joins two byte streams into one flow and knows how their ends
// close. It knows nothing of packets, of the transport under a stream, or of
// who may open a flow.
//
// The entry type is Bridge: Join takes two streams and moves bytes both ways
// until both directions have ended. Dialer connects flows to servers by the
// TCP of this host and gives streams of its own kind.
//
// # How ends close
//
// FIN and RST travel as separate signals in each direction, so that the two
// programs see what they would see without us (RFC 9293 sections 3.6 and
// 3.10.7):
//
//   - io.EOF of one end becomes CloseWrite of the other once every byte before
//     it was written. The opposite direction goes on for as long as it likes.
//   - Both ends are closed when both directions have ended, and not before.
//   - An end that fails (ECONNRESET, ETIMEDOUT) ends the flow: what was received
//     from it before is delivered, the other end is given time to have it
//     acknowledged, and is then reset. A failure is noticed while a direction
//     stands still, without reading.
//
// # Memory and goroutines
//
// A flow that moves nothing has no goroutine, no timer (unless an idle time-out
// is set) and no buffer. An event queues its direction for one of a few
// goroutines that serve all flows; there it borrows one packet.Buffer and moves
// until it would block. A direction whose reader stands still keeps at most that one buffer. Nothing is read
// while a rest is unwritten, so that back-pressure passes from one stream to the
// other.
//
// # Concurrency
//
// All exported methods are safe for concurrent use. Locks are taken in the
// order Flow.mu, then the locks of a stream. A stream calls back holding
// whatever it likes, because the callback takes no lock but that of the queue.
package bridge
