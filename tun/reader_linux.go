package tun

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/tougw/tougw/internal/packet"
	"golang.org/x/sys/unix"
)

// reader reads one queue. The function that the runtime's poller calls back is
// bound once and works on the fields, so that a read allocates nothing.
type reader struct {
	mu   sync.Mutex // one read at a time; guards what follows
	raw  syscall.RawConn
	take func(fd uintptr) bool
	ps   []packet.In // of the caller, while a read lasts
	n    int         // of ps that are filled
	err  error
	hdr  [vnetHdrLen]byte
	iov  [2]unix.Iovec // [0] is hdr; used from iov[first]

	// first is 0 with a vnet header, 1 without; it does not change.
	first int

	packets, bytes, malformed atomic.Uint64
}

func newReader(raw syscall.RawConn, vnet bool) *reader {
	r := &reader{raw: raw, first: 1}
	if vnet {
		r.first = 0
		r.iov[0].Base = &r.hdr[0]
		r.iov[0].SetLen(vnetHdrLen)
	}
	r.take = r.takeAll
	return r
}

// read is Device.Read without the translation of errors.
func (r *reader) read(ps []packet.In) (int, error) {
	if len(ps) == 0 {
		return 0, nil
	}
	for i := range ps {
		if len(ps[i].Buf) < packet.Size {
			return 0, io.ErrShortBuffer
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ps, r.n, r.err = ps, 0, nil
	err := r.raw.Read(r.take)
	r.ps, r.iov[1].Base = nil, nil
	if r.n > 0 {
		return r.n, nil // an error that lasts shows again at the next call
	}
	if err == nil {
		err = r.err
	}
	return 0, err
}

// takeAll reads what is there. Reporting false makes the poller wait and call
// again.
func (r *reader) takeAll(fd uintptr) bool {
	for r.n < len(r.ps) {
		p := &r.ps[r.n]
		r.iov[1].Base = &p.Buf[0]
		r.iov[1].SetLen(len(p.Buf))
		n, _, errno := unix.Syscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&r.iov[r.first])), uintptr(len(r.iov)-r.first))
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return r.n > 0
		default:
			r.err = errno
			return true
		}
		if !r.accept(p, int(n)) {
			r.malformed.Add(1)
			continue
		}
		r.n++
		r.packets.Add(1)
		r.bytes.Add(uint64(p.N))
	}
	return true
}

// accept describes the packet that was read into p.Buf; n includes the vnet
// header where there is one.
func (r *reader) accept(p *packet.In, n int) bool {
	if r.first == 1 {
		p.Offload, p.N = packet.Offload{}, n
		return n > 0
	}
	p.N = n - vnetHdrLen
	return p.N > 0 && decodeVnet(&p.Offload, &r.hdr, p.Buf[:p.N])
}

// ioError translates what reading or writing a queue of d returned.
func (d *device) ioError(err error) error {
	switch {
	case err == nil:
		return nil
	case d.closed.Load():
		return os.ErrClosed
	case err == unix.EBADFD:
		return fmt.Errorf("tun: device %s was removed: %w", d.name, unix.EBADFD)
	}
	return err
}
