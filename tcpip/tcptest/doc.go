// Package tcptest puts an application host in memory in front of a
// tcpip.Edge: NewPair gives a Device for the Edge and the Host on its other
// side, which has a TCP/IP stack of its own and can dial, listen, send raw
// packets and see what comes back. It is for tests only.
//
// The Device is lossless up to its queue length and checks what is written to
// it: a wrong length, offload description or checksum is counted as Bad.
package tcptest
