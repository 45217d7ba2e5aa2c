package tunnel

import (
	"github.com/tougw/tougw/gue"
)

// header writes the GUE header for the next wire segment of the session to h,
// which must hold gue.MaxSessionLen bytes, and returns its length. flags are
// those of the segment's TCP header. The ids that a segment carries follow
// from them (PROTOCOL.md, TOU sessions):
//
//	SYN             S and the addresses
//	SYN-ACK         S and D
//	first after it  S and D (initiator)
//	any other       D
//
// It returns 0 for a segment that cannot be sent: one before the peer's id is
// known.
func (s *session) header(h []byte, flags uint8) int {
	hdr := gue.Session{Proto: gue.ProtoTCP, Has: gue.FieldDestination, Destination: s.remote.Load()}
	var addrs [gue.NameAddrsLen]byte
	switch syn := flags&tcpSYN != 0; {
	case s.initiator && syn:
		a := gue.SessionAddrs{Src: s.src.Addr(), Dst: s.dst.Addr(), Name: s.name}
		n, err := a.Encode(addrs[:])
		if err != nil {
			return 0
		}
		hdr.Has, hdr.Source, hdr.Addresses = gue.FieldSource|gue.FieldAddresses, s.id, addrs[:n]
	case hdr.Destination == 0:
		return 0
	case syn, s.initiator && !s.answered.Load() && s.answered.CompareAndSwap(false, true):
		hdr.Has, hdr.Source = gue.FieldSource|gue.FieldDestination, s.id
	}
	n, err := hdr.Encode(h)
	if err != nil {
		return 0
	}
	return n
}
