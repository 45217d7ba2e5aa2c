package tun

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/tougw/tougw/internal/packet"
	"golang.org/x/sys/unix"
)

// maxParts keeps a packet and its vnet header within the kernel's UIO_MAXIOV
// of 1024.
const maxParts = 1000

// writer writes one queue; like reader it is called back by the poller through
// a function that is bound once.
type writer struct {
	mu   sync.Mutex // one write at a time; guards what follows
	raw  syscall.RawConn
	put  func(fd uintptr) bool
	ps   []packet.Out // of the caller, still to be written
	n    int          // accepted by the kernel
	err  error        // the first
	hdr  [vnetHdrLen]byte
	iov  []unix.Iovec // grows to the largest number of parts seen
	used int          // of iov, at most, in this call
	size int          // of the packet in iov, without hdr

	// scratch holds a packet whose checksum is completed here; nil with a vnet
	// header. It does not change.
	scratch []byte
	vnet    bool

	packets, bytes, segmentation, invalid, refused atomic.Uint64
}

func newWriter(raw syscall.RawConn, vnet bool) *writer {
	w := &writer{raw: raw, vnet: vnet, iov: make([]unix.Iovec, 0, 8)}
	if !vnet {
		w.scratch = make([]byte, packet.Size)
	}
	w.put = w.putAll
	return w
}

// write is Device.Write without the translation of errors.
func (w *writer) write(ps []packet.Out) (int, error) {
	if len(ps) == 0 {
		return 0, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ps, w.n, w.err, w.used = ps, 0, nil, 0
	err := w.raw.Write(w.put)
	w.ps = nil
	clear(w.iov[:w.used]) // borrowed no longer
	if err == nil {
		err = w.err
	}
	return w.n, err
}

// putAll writes what is left. Reporting false makes the poller wait and call
// again.
func (w *writer) putAll(fd uintptr) bool {
	for len(w.ps) > 0 {
		if err := w.gather(&w.ps[0]); err != nil {
			w.skip(err)
			continue
		}
		_, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov[0])), uintptr(len(w.iov)))
		switch errno {
		case 0:
			w.n++
			w.packets.Add(1)
			w.bytes.Add(uint64(w.size))
			w.ps = w.ps[1:]
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		case unix.EBADFD: // the device is gone, for all that follow too
			w.refused.Add(uint64(len(w.ps)))
			w.ps, w.err = nil, errno
		default:
			w.refused.Add(1)
			w.skip(errno)
		}
	}
	return true
}

// skip passes over the next packet and keeps the first error.
func (w *writer) skip(err error) {
	switch err {
	case ErrSegmentation:
		w.segmentation.Add(1)
	case ErrPacket:
		w.invalid.Add(1)
	}
	if w.err == nil {
		w.err = err
	}
	w.ps = w.ps[1:]
}

// gather fills iov and size for p.
func (w *writer) gather(p *packet.Out) error {
	w.size = 0
	for _, b := range p.Parts {
		w.size += len(b)
	}
	if w.size == 0 || w.size > maxMTU || len(p.Parts) > maxParts {
		return ErrPacket
	}
	w.iov = w.iov[:0]
	if w.vnet {
		encodeVnet(&w.hdr, &p.Offload)
		w.add(w.hdr[:])
	} else if p.GSOType != packet.GSONone {
		return ErrSegmentation
	} else if p.Flags&packet.NeedsCsum != 0 {
		return w.gatherComplete(p)
	}
	for _, b := range p.Parts {
		if len(b) > 0 {
			w.add(b)
		}
	}
	return nil
}

// gatherComplete is gather for a device that takes only complete packets. The
// parts are lent to us, so the checksum goes into a copy.
func (w *writer) gatherComplete(p *packet.Out) error {
	n := 0
	for _, b := range p.Parts {
		n += copy(w.scratch[n:], b)
	}
	if !completeChecksum(w.scratch[:n], &p.Offload) {
		return ErrPacket
	}
	w.add(w.scratch[:n])
	return nil
}

func (w *writer) add(b []byte) {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	w.iov = append(w.iov, v)
	w.used = max(w.used, len(w.iov))
}
