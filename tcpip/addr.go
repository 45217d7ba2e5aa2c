package tcpip

import (
	"encoding/binary"
	"net/netip"

	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// The two /64 prefixes of the tunnel stack, from a unique local range
// (RFC 4193) whose global id spells "tougw". They never leave the process.
const (
	localPrefix  uint64 = 0xfd74_6f75_6777_004c // …:4c, "L": this end
	remotePrefix uint64 = 0xfd74_6f75_6777_0052 // …:52, "R": the other end
)

// SessionLocal gives the address that this end of session id has inside the
// tunnel stack. id is the id that this side drew.
func SessionLocal(id uint64) netip.Addr { return sessionAddr(localPrefix, id) }

// SessionRemote gives the address that the other end of session id has inside
// the tunnel stack. id is the id that this side drew.
func SessionRemote(id uint64) netip.Addr { return sessionAddr(remotePrefix, id) }

func sessionAddr(prefix, id uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], prefix)
	binary.BigEndian.PutUint64(b[8:], id)
	return netip.AddrFrom16(b)
}

// sessionOf gives the session id in an address of the tunnel stack.
func sessionOf(a gtcpip.Address) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[8:])
}

func toStack(a netip.Addr) gtcpip.Address {
	if a.Is4() {
		return gtcpip.AddrFrom4(a.As4())
	}
	return gtcpip.AddrFrom16(a.As16())
}

func fromStack(a gtcpip.Address) netip.Addr {
	if a.Len() == 4 {
		return netip.AddrFrom4(a.As4())
	}
	return netip.AddrFrom16(a.As16())
}

// ends gives the two ends of a connection: remote is who sent the SYN.
func ends(id stack.TransportEndpointID) (local, remote netip.AddrPort) {
	return netip.AddrPortFrom(fromStack(id.LocalAddress), id.LocalPort),
		netip.AddrPortFrom(fromStack(id.RemoteAddress), id.RemotePort)
}
