// Package mmsg is what sockets that move many datagrams per system call share:
// recvmmsg(2) and sendmmsg(2), socket addresses, the control messages that carry
// local addresses, and the sizes of socket buffers. It knows the socket API and
// nothing of the protocol above. It is empty but on Linux.
//
// Nothing here allocates on the packet path. Functions work on memory of the
// caller, which must keep it reachable and in place until they return.
package mmsg
