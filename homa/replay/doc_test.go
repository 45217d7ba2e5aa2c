// Package replay holds the engine against recorded traffic of Linux Homa hosts.
//
// Each capture is replayed twice: with the engine in the place of the client, then
// in that of the server. The other host's packets arrive when they were
// recorded; the application calls and replies when the recorded one did, with the same
// bytes; and the device takes a DATA packet whenever the recorded host sent one.
// What the engine then sends is compared with what the recorded host sent:
//
//   - Messages: every byte, the same packet boundaries, priorities, unscheduled
//     bytes and cutoff versions; what arrives is complete and right.
//   - RESEND and NEED_ACK: the same ones, at the same time, give or take a tick.
//   - BUSY, RPC_UNKNOWN, ACK, CUTOFFS: the same ones in answer to the same packets.
//   - GRANT: the sender may send at least as much as the recorded host let it at the
//     time, at the same priority where only one message is granted.
//   - Data sent again: what was asked for, all of it, and nothing that the
//     recorded host did not send again.
//
// The clock of the recording is not quite that of the engine: a tick of the
// emulated hosts lasted 1.1 ms and more, at an unknown phase. So each time both sent
// the same timed packet, the rest of the recording is moved to that time.
//
// Every difference must be one of those in exceptions_test.go, which say why
// the protocol allows them.
package replay
