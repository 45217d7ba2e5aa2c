package rawip

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/internal/mmsg"
)

// ICMP types and codes (RFC 792, RFC 1122, RFC 4443).
const (
	icmpUnreachable         = 3
	icmpProtocolUnreachable = 2
	icmpPortUnreachable     = 3
	icmpTooBig              = 4

	icmp6Unreachable      = 1
	icmp6PortUnreachable  = 4
	icmp6TooBig           = 2
	icmp6ParameterProblem = 4
	icmp6UnknownHeader    = 1
)

// errorQueue reads what the kernel kept of received ICMP errors.
type errorQueue struct {
	s *socket
	// control has room for struct sock_extended_err (16), the address of who sent
	// the error (28) and a local address; quoted for the start of the packet that
	// it is about.
	control [32]uint64
	quoted  [64]byte
}

func (q *errorQueue) init(s *socket) { q.s = s }

// drain turns reports into entries from the start of batch and returns how many.
// It reads the queue until it is empty or the batch is full.
func (q *errorQueue) drain(fd uintptr, batch []carrier.Packet) int {
	oob := unsafe.Slice((*byte)(unsafe.Pointer(&q.control)), unsafe.Sizeof(q.control))
	told := 0
	for told < len(batch) {
		n, oobn, _, from, err := unix.Recvmsg(int(fd), q.quoted[:], oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return told
		}
		peer := q.addrOf(from)
		e, ok := extendedError(oob[:oobn])
		if !ok || !peer.IsValid() {
			continue
		}
		trouble, port := q.classify(e, q.quoted[:n])
		if trouble == carrier.None {
			continue
		}
		if trouble == carrier.MTUChanged {
			q.s.c.peers.forgetMTU(peer)
		}
		buf := batch[told].Buf
		batch[told] = carrier.Packet{
			Addr: peer, Trouble: trouble, Port: port, Err: unix.Errno(e.Errno), Buf: buf, Data: buf[:copy(buf, q.quoted[:n])],
		}
		told++
	}
	return told
}

// addrOf is the destination of the packet that the error is about.
func (q *errorQueue) addrOf(sa unix.Sockaddr) netip.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr)
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			a = a.WithZone(q.s.c.zones.Name(sa.ZoneId))
		}
		return a
	}
	return netip.Addr{}
}

// extendedError finds struct sock_extended_err among control messages.
func extendedError(b []byte) (e unix.SockExtendedErr, ok bool) {
	for {
		level, typ, d, rest, more := mmsg.NextCmsg(b)
		if !more {
			return e, false
		}
		ours := level == unix.IPPROTO_IP && typ == unix.IP_RECVERR || level == unix.IPPROTO_IPV6 && typ == unix.IPV6_RECVERR
		if ours && len(d) >= int(unsafe.Sizeof(e)) {
			return *(*unix.SockExtendedErr)(unsafe.Pointer(&d[0])), true
		}
		b = rest
	}
}

// classify says what an error means for RPCs with the peer, as the module takes
// it, and counts it. But for the MTU, which the kernel is asked for, it must quote
// a whole common header: what does not is easily forged.
func (q *errorQueue) classify(e unix.SockExtendedErr, quoted []byte) (trouble carrier.Trouble, port uint16) {
	st := &q.s.c.stats
	switch {
	case e.Origin == unix.SO_EE_ORIGIN_LOCAL:
		return carrier.None, 0 // Send saw it as well
	case e.Origin == unix.SO_EE_ORIGIN_ICMP && e.Type == icmpUnreachable:
		switch e.Code {
		case icmpPortUnreachable:
			trouble = carrier.PortUnreachable
		case icmpProtocolUnreachable:
			trouble = carrier.ProtocolUnreachable
		case icmpTooBig:
			trouble = carrier.MTUChanged
		default:
			trouble = carrier.HostUnreachable
		}
	case e.Origin == unix.SO_EE_ORIGIN_ICMP6 && e.Type == icmp6Unreachable:
		trouble = carrier.HostUnreachable
		if e.Code == icmp6PortUnreachable {
			trouble = carrier.PortUnreachable
		}
	case e.Origin == unix.SO_EE_ORIGIN_ICMP6 && e.Type == icmp6TooBig:
		trouble = carrier.MTUChanged
	case e.Origin == unix.SO_EE_ORIGIN_ICMP6 && e.Type == icmp6ParameterProblem && e.Code == icmp6UnknownHeader:
		trouble = carrier.ProtocolUnreachable
	}
	switch {
	case trouble == carrier.MTUChanged:
	case len(quoted) < smallest:
		trouble = carrier.None
	case trouble == carrier.PortUnreachable:
		if port = binary.BigEndian.Uint16(quoted[offsetDstPort:]); port == 0 {
			trouble = carrier.None
		}
	}
	switch trouble {
	case carrier.PortUnreachable:
		st.portUnreachable.Add(1)
	case carrier.ProtocolUnreachable:
		st.protocolUnreachable.Add(1)
	case carrier.HostUnreachable:
		st.hostUnreachable.Add(1)
	case carrier.MTUChanged:
		st.tooBig.Add(1)
	default:
		st.icmpIgnored.Add(1)
	}
	return trouble, port
}
