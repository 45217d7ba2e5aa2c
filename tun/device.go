package tun

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/tougw/tougw/internal/packet"
)

// Device is an open TUN device, safe for concurrent use.
type Device interface {
	// Name is the device's name.
	Name() string
	// MTU is the device's MTU in bytes.
	MTU() int
	// Queues is the number of queues; they are numbered from zero.
	Queues() int
	// Capabilities says what the device can do and why it cannot do more.
	Capabilities() Capabilities

	// Read waits until queue q has a packet, then takes those that are there,
	// at most len(ps), and gives their number, which is at least one unless
	// there is an error. It borrows ps and the buffers in it, each of
	// packet.Size bytes or more (io.ErrShortBuffer otherwise). With a vnet
	// header a packet may be a TCP super-packet, whose Offload.HdrLen then
	// really is the length of its headers, and may have an open checksum;
	// without, every packet is complete. The error is os.ErrClosed after Close
	// and wraps unix.EBADFD when somebody removed the device.
	Read(q int, ps []packet.In) (int, error)

	// Write writes all of ps to queue q and gives the number of packets that
	// the kernel accepted. A packet that cannot be written is counted and
	// skipped, and the first such error is returned: ErrSegmentation, ErrPacket,
	// or the kernel's errno (unix.EINVAL for an offload it does not believe,
	// unix.EIO for a device that is down). Only os.ErrClosed, and unix.EBADFD
	// for a device that was removed, end the call early. It borrows ps and all
	// it refers to, and does not change it.
	Write(q int, ps []packet.Out) (int, error)

	// CheckLoop reports, as a LoopError, the first of the addresses that
	// marked packets would reach through the device. An address without any
	// route is not a loop.
	CheckLoop(endpoints []netip.Addr) error

	// Stats gives what was counted since Open.
	Stats() Stats

	// Close takes back what Open changed on the host, unblocks Read and
	// Write, and removes the device. It is idempotent and gives the same
	// error each time. After an error the journal is kept, so that the next
	// Open can try again.
	Close() error
}

// Capabilities says what a device can do.
type Capabilities struct {
	// Backend is the one that made the device, never BackendAuto.
	Backend Backend
	// VnetHdr says that packets carry struct virtio_net_hdr.
	VnetHdr bool
	// TSO4 and TSO6 say that TCP super-packets are read and may be written.
	TSO4, TSO6 bool
	// Csum says that packets with open checksums are read. They may be written
	// in any case.
	Csum bool
	// Queues is the number of queues.
	Queues int
	// Fallback says why BackendAuto did not take BackendNetlink, else "".
	Fallback string
}

// Stats counts packets and bytes of IP since Open. Each packet that was not
// passed on is in exactly one of the fields that name a reason.
type Stats struct {
	ReadPackets, ReadBytes       uint64
	WrittenPackets, WrittenBytes uint64

	// ReadMalformed: the offload header did not fit the packet, or asked for
	// something that was not agreed on.
	ReadMalformed uint64
	// ReadOverflow: the kernel found the queue full; these were never read.
	// Zero after Close.
	ReadOverflow uint64
	// WriteSegmentation: ErrSegmentation.
	WriteSegmentation uint64
	// WriteInvalid: ErrPacket.
	WriteInvalid uint64
	// WriteRefused: the kernel returned an error.
	WriteRefused uint64
}

// ErrSegmentation refuses a packet that is still to be cut into segments
// (Offload.GSOType) on a device whose Capabilities have no TSO.
var ErrSegmentation = errors.New("tun: packet is to be segmented, but this device has no TSO")

// ErrPacket refuses a packet that is empty, longer than 65535 bytes, in more
// than 1000 parts, or whose open checksum lies outside of it.
var ErrPacket = errors.New("tun: packet or its offload description is malformed")

// LoopError says that our own packets to a peer would enter the device again.
type LoopError struct {
	Device   string
	Endpoint netip.Addr
	// Route describes the route that leads back.
	Route string
}

// Error names endpoint, device and route.
func (e *LoopError) Error() string {
	return fmt.Sprintf("tun: packets to peer endpoint %v would loop into %s by %s", e.Endpoint, e.Device, e.Route)
}
