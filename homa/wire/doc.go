// Package wire encodes and decodes Homa packets as the Linux kernel module puts
// them behind an IP header, in each of the forms that are in use.
//
// It keeps no state and knows no time, socket or RPC. Decode and Append are what
// a peer needs: Decode resolves where data belongs and hides what receivers
// ignore, Append writes the form that every version accepts. DecodeExact and
// AppendExact are for tools and tests: what they read they write back byte by
// byte. Detect says which versions a received packet can have come from.
//
// All integers on the wire are big endian. The protocol has no version field,
// no checksum of its own, and no length field for the data of a packet: the
// length of the slice given to Decode must be that of the IP payload, without
// any padding of the link.
package wire
