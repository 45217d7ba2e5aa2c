// Package homa is a Homa endpoint without input and output: the state machine
// that exchanges RPCs with unmodified hosts of the Linux Homa module, as client
// and as server.
//
// An Engine is fed received packets and the time, and gives packets to send,
// events for its owner, and the instant at which it wants to be called again. It
// has no goroutine, socket, clock or log. Its behaviour follows the module's
// branch main; peers of other versions are told apart by PeerConfig.Version.
// What it does otherwise than the module: it sends exactly the range that a RESEND
// asks for and takes packets that partly overlap what it has; it asks for little
// at a time, and for few RPCs of a peer at a time, so that a slow host is not
// kept busy with being asked; it gives up clients that never acknowledge; it
// keeps tombstones of RPCs that have ended, so that a late duplicate of a request,
// or a client that goes on after a pause, does not have it executed again; and its
// memory is bounded.
//
// # Use
//
// The owner serialises all calls, of the Engine and of its RPCs (one lock), and
// after each of them drains Transmit and Event:
//
//	engine.Receive(now, from, packet) // or Call, Write, Read, Reply, Advance …
//	for {
//		out, ok := engine.Transmit(now, buf[:0])
//		if !ok {
//			break
//		}
//		send(out)
//	}
//	for {
//		event, ok := engine.Event()
//		if !ok {
//			break
//		}
//		handle(event)
//	}
//	arm(engine.Deadline())
//
// A client calls Call, then Write until the request is written, and waits for
// Complete (or takes bytes on Readable); Read hands out the response. A server
// gets Request, reads, calls Reply after Complete, writes the response, and gets
// Acked when the client has it. Every client RPC ends with exactly one of
// Complete and Failed, every server RPC that was announced by Request with
// exactly one of Acked and Failed.
//
// # Memory
//
// What RPCs receive and what they send is held in chunks that count against two
// bounds, in all and per peer. A message is admitted when its share is free:
// its length, or Config.ReceiveWindow if that is less. Until then its packets
// are dropped, the peer is told BUSY when it asks, and everything is asked for
// again on admission. Inside the share, unread bytes stop grants. A request that
// does not fit the send bound is refused by Call, a response waits until its
// share is free. Sent bytes are kept until the response begins (requests) or
// the acknowledgement comes (responses), since the peer may ask for them again.
//
// # Buffers
//
// Receive, Write and Read borrow their arguments for the call. Transmit appends
// to the buffer it is given and keeps nothing of it. In steady state no call
// allocates for a packet; an RPC costs one object.
package homa
