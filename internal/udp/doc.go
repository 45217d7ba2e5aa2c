// Package udp is a batched UDP socket: many datagrams per system call, and,
// where the kernel has it, runs of equal datagrams that the kernel cuts
// (UDP_SEGMENT, "GSO") or joins (UDP_GRO). It knows the socket API and nothing
// of what a datagram holds.
//
// Listen opens a Conn. One goroutine reads it with ReadBatch; any number write
// to it with WriteBatch. Both borrow their buffers until they return and
// allocate nothing. Offloads are probed once at Listen; a kernel or device that
// refuses a run later makes the Conn send that run, and after proof all others,
// as single datagrams. Capabilities says what is in use and why something is
// not.
//
// On Linux the package uses recvmmsg(2) and sendmmsg(2) directly. Elsewhere it
// moves one datagram per call, without offloads, marks, source addresses or
// shared ports; that is enough to build and test the rest of the program.
//
// Left out: connected sockets, multicast, ECN, and the error queue. ICMP errors
// are therefore never seen by a writer: a peer that is gone is silent.
package udp
