package udp

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/internal/mmsg"
)

const (
	// sendControlSize and recvControlSize hold all messages we send or asked
	// for, and the larger of the two kinds of packet information.
	sendControlSize = mmsg.SpaceInfo6 + mmsg.SpaceInt
	recvControlSize = mmsg.SpaceInfo6 + mmsg.SpaceInt
)

// The words give control buffers the alignment of struct cmsghdr.
type (
	sendControl [(sendControlSize + 7) / 8]uint64
	recvControl [(recvControlSize + 7) / 8]uint64
)

func (c *sendControl) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), sendControlSize)
}

func (c *recvControl) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), recvControlSize)
}

// putSegment writes the control message that asks for datagrams of size bytes
// and returns its length.
func putSegment(b []byte, size int) int {
	binary.NativeEndian.PutUint16(mmsg.PutCmsg(b, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2), uint16(size))
	return mmsg.SpaceInt
}

// parseControl reads the local address and the segment size (zero when absent)
// from received control messages.
func parseControl(b []byte, zones *mmsg.Zones) (local netip.Addr, segment int) {
	for {
		level, typ, d, rest, ok := mmsg.NextCmsg(b)
		if !ok {
			return local, segment
		}
		if a, ok := mmsg.ParseSource(level, typ, d, zones); ok {
			local = a
		} else if level == unix.IPPROTO_UDP && typ == unix.UDP_GRO && len(d) >= 4 {
			segment = int(binary.NativeEndian.Uint32(d))
		}
		b = rest
	}
}
