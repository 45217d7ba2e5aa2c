package rawip

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/internal/mmsg"
)

const (
	// defaultMTU is assumed while there is no route.
	defaultMTU = 1500
	// minData is what MaxData never falls below: IPv4 asks links for 68 bytes,
	// which would leave nothing.
	minData = 64
)

// route asks the kernel for the MTU of routes, with what it learned of the path,
// by a UDP socket that is connected and never sends. It is opened once, so that
// it stays in the network namespace of the others.
type route struct {
	v6 bool
	mu sync.Mutex
	fd *os.File
}

func newRoute(v6 bool, device string, mark uint32) (*route, error) {
	fd, err := unix.Socket(familyOf(v6), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket to ask for routes: %w", err)
	}
	if err := setCommon(fd, device, mark); err != nil {
		_ = unix.Close(fd) // nothing was sent
		return nil, err
	}
	return &route{v6: v6, fd: os.NewFile(uintptr(fd), "homa-route")}, nil
}

func (r *route) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fd.Close()
}

// mtu returns the MTU of the route to addr in bytes of IP packet.
func (r *route) mtu(addr netip.Addr, zones *mmsg.Zones) (mtu int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rc, err := r.fd.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := rc.Control(func(fd uintptr) {
		// Any port will do; an old connection would keep its source address.
		sa := sockaddr(addr, zones)
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			sa.Port = Protocol
		case *unix.SockaddrInet6:
			sa.Port = Protocol
		}
		if err = disconnect(int(fd)); err != nil {
			return
		}
		if err = unix.Connect(int(fd), sa); err != nil {
			return
		}
		if r.v6 {
			mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU)
		} else {
			mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU)
		}
	})
	if cerr != nil {
		return 0, errClosed
	}
	return mtu, err
}

// MaxData returns the bytes of message data that fit a packet to peer: the MTU
// of the route, at most carrier.MaxPacket, less the headers of IP and Homa.
func (c *Conn) MaxData(peer netip.Addr) int {
	peer = peer.Unmap()
	headers := 20 + dataHeader
	if peer.Is6() {
		headers = 40 + dataHeader
	}
	known := c.peers.get(peer)
	if known.mtu == 0 || time.Since(known.asked) > mtuLife {
		known.mtu = c.askMTU(peer)
		asked := time.Now()
		c.peers.update(peer, func(s *peerState) { s.mtu, s.asked = known.mtu, asked })
	}
	return max(min(known.mtu, carrier.MaxPacket)-headers, minData)
}

// askMTU asks the kernel; without an answer it is what links mostly have.
func (c *Conn) askMTU(peer netip.Addr) int {
	if s := c.socketOf(peer); s != nil {
		if mtu, err := s.route.mtu(peer, &c.zones); err == nil {
			return mtu
		}
	}
	return defaultMTU
}

// disconnect makes a connected UDP socket an unconnected one.
func disconnect(fd int) error {
	sa := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	if errno != 0 {
		return errno
	}
	return nil
}
