package packet

// Flags of Offload, with the values of struct virtio_net_hdr in the kernel's
// uapi linux/virtio_net.h.
const (
	// NeedsCsum says that the checksum field at CsumStart+CsumOffset holds only
	// the folded pseudo-header sum and is to be completed by whoever is next.
	NeedsCsum = 1
	// DataValid says that the checksum was verified.
	DataValid = 2
)

// Segmentation types of Offload, with the values of struct virtio_net_hdr.
const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOUDP   = 3
	GSOTCPv6 = 4
	GSOUDPL4 = 5
	// GSOECN is or-ed to a TCP type when the segments carry CWR.
	GSOECN = 0x80
)

// Offload describes the work that is still to be done on a packet: it is what
// the kernel passes through a TUN device in struct virtio_net_hdr. The zero
// value describes a packet that is complete. All lengths and offsets are in
// bytes from the first byte of the IP header.
type Offload struct {
	Flags      uint8  // NeedsCsum, DataValid
	GSOType    uint8  // GSONone … GSOTCPv6
	HdrLen     uint16 // IP and transport headers together
	GSOSize    uint16 // payload of each segment; 0 when GSOType is GSONone
	CsumStart  uint16
	CsumOffset uint16 // from CsumStart
}

// In is a packet read from a device. Buf is lent by the caller of a read and
// must hold the largest packet (Size bytes); the device fills Buf[:N].
type In struct {
	Offload
	Buf []byte
	N   int
}

// Out is a packet to be written to a device: the concatenation of Parts, the
// first of which begins with the IP header. The writer borrows Parts until it
// returns.
type Out struct {
	Offload
	Parts [][]byte
}
