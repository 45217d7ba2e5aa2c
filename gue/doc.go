// Package gue encodes and decodes Generic UDP Encapsulation: the base header
// of draft-ietf-intarea-gue-09 in its variants 0 and 1, every extension of
// draft-ietf-intarea-gue-extensions-06, the session identifiers of
// draft-herbert-transports-over-udp-01, and the private flags of the Linux
// kernel's fou module. It knows bytes, and neither sockets nor clocks nor who
// carries them.
//
// There are two ways in. A tunnel whose integrity is somebody else's business
// (GUE inside DTLS) uses Session and Experiment, which read and write the few
// header forms it needs in a handful of nanoseconds. GUE in the clear uses
// Sender and Receiver, which apply the extensions in the order the draft asks
// for (extensions-06 §11) under a configured policy. Both stand on Header, the
// plain codec of everything that can be in a variant 0 header, and Receiver
// uses Reassembler for fragments.
//
// The drafts number no flags for session identifiers, and the positions they
// draw collide with those that extensions-06 assigned later. A Profile says
// which meaning the flags of one peer have; profiles are never mixed.
//
// Nothing is allocated for a header in either direction. Byte fields of a
// decoded struct (Security, Addresses, Surplus) borrow from the decoded slice
// and are valid as long as its content. What arrives malformed is answered by a
// Drop, a small integer, rather than by an error. Values of this package are not
// safe for concurrent use, with the exception of functions without receiver;
// a Receiver, Sender or Reassembler belongs to one goroutine.
//
// Left out: negotiation (the drafts define none), source port entropy, the
// payload transform itself (Transform is an interface; the DTLS one lives with
// DTLS), and HMACs with hashes other than SHA-256.
package gue
