package mmsg

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxBatch is the largest number of kernel messages in one system call. Our
// choice: beyond 32 to 64 the saving per message is below the noise.
const MaxBatch = 64

// Header is struct mmsghdr of recvmmsg(2). The compiler pads it as C does.
type Header struct {
	Hdr unix.Msghdr
	// N is the number of bytes that were moved.
	N uint32
}

// Send sends hs without waiting and returns how many were sent. An error
// concerns the first one that was not; with at least one sent there is none.
func Send(fd uintptr, hs []Header) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&hs[0])), uintptr(len(hs)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// Recv fills hs without waiting and returns how many were filled.
func Recv(fd uintptr, hs []Header) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&hs[0])), uintptr(len(hs)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// meminfoDrops is SK_MEMINFO_DROPS of linux/sock_diag.h: the index of the
// counter of dropped datagrams in what SO_MEMINFO returns.
const meminfoDrops = 8

// DropCounter widens the kernel's 32-bit counter of datagrams that it dropped at
// a socket. The zero value is ready; it is safe for concurrent use.
type DropCounter struct {
	mu    sync.Mutex
	last  uint32
	total atomic.Uint64
}

// Update asks the kernel (SO_MEMINFO). It must be called at least once in 2^32
// drops.
func (d *DropCounter) Update(fd uintptr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, ok := drops(fd); ok {
		d.total.Add(uint64(n - d.last))
		d.last = n
	}
}

// Total is the count of the last Update.
func (d *DropCounter) Total() uint64 { return d.total.Load() }

// drops returns how many datagrams the kernel dropped at this socket,
// modulo 2^32.
func drops(fd uintptr) (uint32, bool) {
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info[meminfoDrops], errno == 0 && size == uint32(unsafe.Sizeof(info))
}
