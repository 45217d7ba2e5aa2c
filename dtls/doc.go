// Package dtls secures datagrams between two peers with DTLS 1.2 (RFC 6347),
// AEAD cipher suites with forward secrecy only, and Connection IDs (RFC 9146).
//
// The handshake is that of github.com/pion/dtls/v3, which sees nothing but
// what the demultiplexer of this package lets through to it. When a handshake
// is complete its keys are taken over, the library's connection is closed, and
// from then on records are protected here: in place, many per call, without
// allocation. What is on the wire stays ordinary DTLS 1.2.
//
// The entry type is Endpoint: New makes one, Serve accepts peers on a socket
// and Dial reaches one. An Association is one keyed relation with a peer that
// proved an Identity, by a certificate or by a pre-shared key. Received data is
// handed to a Receiver, everything else that happens to Events.
//
// Left out: renegotiation (refused with an alert), session resumption, DTLS
// 1.0 and 1.3, CBC and CCM suites, and suites without forward secrecy. A
// peer that moves to another address is followed once the new path has been
// validated (RFC 9146 section 6); the echo that this takes is sent by the owner
// of the association: see Config.PathCandidate.
//
// All exported methods are safe for concurrent use. Send and Seal borrow their
// buffers; what a Receiver is given is borrowed by it until it returns.
package dtls
