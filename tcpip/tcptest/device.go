package tcptest

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/tougw/tougw/internal/packet"
)

// queueLength bounds the packets between host and Edge; like a network
// interface, the Device drops what does not fit.
const queueLength = 4096

// Device is the in-memory device between a Host and an Edge. It implements
// tcpip.Device and is safe for concurrent use.
type Device struct {
	mtu    int
	tso    bool
	queues []*queue
	host   *Host

	// Dropped counts packets of the host that did not fit the queue; Bad those
	// that the Edge wrote and that were malformed. FirstBad says what was wrong
	// with the first.
	Dropped, Bad atomic.Uint64
	FirstBad     atomic.Pointer[string]
}

type queued struct {
	packet.Offload
	b []byte
}

type queue struct {
	mu     sync.Mutex
	filled sync.Cond
	list   []queued
	closed bool
}

func newDevice(mtu, queues int, tso bool) *Device {
	d := &Device{mtu: mtu, tso: tso}
	for range queues {
		q := new(queue)
		q.filled.L = &q.mu
		d.queues = append(d.queues, q)
	}
	return d
}

// Name gives a name.
func (d *Device) Name() string { return "mem0" }

// MTU implements tcpip.Device.
func (d *Device) MTU() int { return d.mtu }

// Queues implements tcpip.Device.
func (d *Device) Queues() int { return len(d.queues) }

// Read implements tcpip.Device. After Close it gives os.ErrClosed.
func (d *Device) Read(q int, ps []packet.In) (int, error) {
	qu := d.queues[q]
	qu.mu.Lock()
	defer qu.mu.Unlock()
	for len(qu.list) == 0 {
		if qu.closed {
			return 0, os.ErrClosed
		}
		qu.filled.Wait()
	}
	n := min(len(ps), len(qu.list))
	for i := range n {
		ps[i].Offload = qu.list[i].Offload
		ps[i].N = copy(ps[i].Buf, qu.list[i].b)
	}
	qu.list = append(qu.list[:0], qu.list[n:]...)
	return n, nil
}

// Write implements tcpip.Device: it gives the packets to the host.
func (d *Device) Write(q int, ps []packet.Out) (int, error) {
	for i := range ps {
		var b []byte
		for _, p := range ps[i].Parts {
			b = append(b, p...)
		}
		if what := d.complete(b, ps[i].Offload); what != "" {
			d.Bad.Add(1)
			d.FirstBad.CompareAndSwap(nil, &what)
			continue
		}
		d.host.deliver(b)
	}
	return len(ps), nil
}

// Close unblocks the readers.
func (d *Device) Close() error {
	for _, q := range d.queues {
		q.mu.Lock()
		q.closed = true
		q.filled.Broadcast()
		q.mu.Unlock()
	}
	return nil
}

// put queues a packet of the host for the Edge and takes it.
func (d *Device) put(hash uint32, p queued) {
	q := d.queues[int(hash%uint32(len(d.queues)))]
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) >= queueLength || q.closed {
		d.Dropped.Add(1)
		return
	}
	q.list = append(q.list, p)
	q.filled.Signal()
}

// complete checks b against its offload description and finishes its checksum.
// It gives what is wrong, or nothing.
func (d *Device) complete(b []byte, o packet.Offload) string {
	t, ok := packet.ParseTuple(b)
	if !ok {
		return "not an IP packet"
	}
	size, l4 := 40+int(binary.BigEndian.Uint16(b[4:])), 40
	if b[0]>>4 == 4 {
		size, l4 = int(binary.BigEndian.Uint16(b[2:])), int(b[0]&0xf)*4
	}
	if size != len(b) {
		return fmt.Sprintf("%d bytes with a length field for %d", len(b), size)
	}
	if o == (packet.Offload{}) {
		if len(b) > d.mtu {
			return fmt.Sprintf("%d bytes without segmentation, MTU %d", len(b), d.mtu)
		}
		return ""
	}
	if !d.tso {
		return "offload on a device without"
	}
	if t.Proto != packet.ProtoTCP || o.Flags != packet.NeedsCsum || int(o.CsumStart) != l4 || o.CsumOffset != 16 {
		return fmt.Sprintf("offload %+v for protocol %d with header at %d", o, t.Proto, l4)
	}
	hdrs := l4 + int(b[l4+12]>>4)*4
	want := map[bool]uint8{true: packet.GSOTCPv4, false: packet.GSOTCPv6}[l4 != 40]
	switch {
	case int(o.HdrLen) != hdrs:
		return fmt.Sprintf("header length %d, want %d", o.HdrLen, hdrs)
	case o.GSOType == packet.GSONone && len(b) > d.mtu:
		return fmt.Sprintf("%d bytes without segmentation, MTU %d", len(b), d.mtu)
	case o.GSOType != packet.GSONone && (o.GSOType != want || hdrs+int(o.GSOSize) > d.mtu || o.GSOSize == 0):
		return fmt.Sprintf("segmentation type %d size %d, MTU %d", o.GSOType, o.GSOSize, d.mtu)
	}
	binary.BigEndian.PutUint16(b[l4+16:], ^checksum.Checksum(b[l4:], 0))
	return ""
}
