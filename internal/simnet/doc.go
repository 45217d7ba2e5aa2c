// Package simnet is a network in memory, for tests: sockets with the methods of
// udp.Conn, and between any two hosts a path with loss, duplication,
// reordering, corruption, delay, jitter, a rate with a queue, an MTU, a switch
// that swallows everything, and a translator of addresses that forgets. All of
// these can change while datagrams fly. A tap sees and may alter what is sent;
// recorded or forged datagrams can be injected.
//
// New makes a Net, Net.Socket its sockets. Everything is safe for concurrent
// use, except that one goroutine at a time reads a socket.
//
// The fate of the k-th datagram of a direction depends only on the seed, the
// two addresses, k and the properties in force, not on other traffic; what
// several goroutines send in one direction is ordered as they happen to run.
// There is no goroutine but that of a timer while it delivers, so that tests
// may run under testing/synctest, where delays take no time: make the Net
// inside the bubble.
//
// Left out: ECN, fragmentation, ICMP, sockets bound to a wildcard, and
// translators that filter by remote address.
package simnet
