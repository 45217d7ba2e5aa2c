// Package translate carries the requests of TCP connections as Homa RPCs, and
// Homa RPCs as requests on TCP connections.
//
//	TCP client --> Forward --> RPC --> Homa server
//	Homa client --> RPC --> Reverse --> TCP server
//	TCP client --> Forward --> RPC --> Reverse --> TCP server
//
// [Forward] serves TCP clients, [Reverse] is a handler of RPCs that has TCP
// servers behind it. Package framing finds the messages of both in the bytes; a
// [Rule] says which framing, and every bound.
package translate
