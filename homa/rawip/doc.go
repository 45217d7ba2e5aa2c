// Package rawip carries Homa packets on raw IPv4 and IPv6 sockets, directly
// behind the IP header as hosts of the Linux Homa module send them. It knows the
// socket API, ICMP and path MTUs, and of Homa only where the ports and the type
// are in a packet. It needs CAP_NET_RAW, and Linux.
//
// Open gives a Conn, a carrier.Carrier with one receiver per address family.
// While it is open the kernel does not answer Homa packets with ICMP "protocol
// unreachable".
//
// Each packet carries its priority in the TOS byte or traffic class. IPv4
// packets have the don't-fragment bit; packets that arrived in fragments are
// dropped, since no Homa sender makes any. MaxData follows the MTU of the route
// to a peer, which the kernel lowers as ICMP tells it. Other ICMP errors come out
// of Receive as carrier.Trouble. Refuse sends ICMP "port unreachable".
//
// Buffers are borrowed for a call, and the packet path does not allocate.
//
// Left out: segmentation by the device, and reassembly of what it would segment;
// TCP hijacking; a path MTU discovery that works without ICMP.
package rawip
