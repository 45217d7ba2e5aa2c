package gue

import "net/netip"

// ChecksumState is what is known of a datagram's UDP checksum.
type ChecksumState uint8

// States of the outer UDP checksum. A socket does not tell a zero checksum
// over IPv4 from a verified one: who reads datagrams from a socket says
// ChecksumZero there, and ChecksumVerified over IPv6, where the kernel drops
// zero checksums unless told otherwise.
const (
	// ChecksumZero: the sender computed none, or it is not known.
	ChecksumZero ChecksumState = iota
	// ChecksumVerified: present and right.
	ChecksumVerified
	// ChecksumBad: present and wrong.
	ChecksumBad
)

// Outer is what Sender and Receiver need to know of the packet around a GUE
// message.
type Outer struct {
	// Src and Dst are the outer addresses and UDP ports. IPv4-mapped IPv6
	// addresses count as IPv4.
	Src, Dst netip.AddrPort
	// TOS is the type of service or traffic class; its low two bits are ECN.
	TOS uint8
	// Checksum is the state of the UDP checksum.
	Checksum ChecksumState
}

// putAddrs writes the raw source and destination address to b and returns how
// many bytes they are: 8 or 32. Invalid addresses are left out.
func (o *Outer) putAddrs(b *[32]byte) int {
	n := 0
	for _, a := range [2]netip.Addr{o.Src.Addr().Unmap(), o.Dst.Addr().Unmap()} {
		switch {
		case a.Is4():
			v := a.As4()
			n += copy(b[n:], v[:])
		case a.Is6():
			v := a.As16()
			n += copy(b[n:], v[:])
		}
	}
	return n
}
