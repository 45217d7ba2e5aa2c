package rawip

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/internal/mmsg"
)

// ipv6RecvFragSize and ipRecvFragSize are IPV6_RECVFRAGSIZE and IP_RECVFRAGSIZE
// (linux/in6.h, linux/in.h): a control message with packets that arrived in
// fragments.
const (
	ipRecvFragSize   = 25
	ipv6RecvFragSize = 77
)

// socket is a raw socket of one family.
type socket struct {
	c    *Conn
	v6   bool
	file *os.File
	rc   syscall.RawConn
	// locals are the addresses allowed; empty for all. A single one is bound.
	locals  []netip.Addr
	buffers mmsg.Buffers
	route   *route
	icmp    *icmpSocket
	r       reader
	w       writerPool
	drops   mmsg.DropCounter
	// roomMu is held by the one sender that waits for room in the send buffer and
	// owns the write deadline meanwhile.
	roomMu sync.Mutex
	// linkMu is held while packets of one priority are sent, if Config.LinkPriority
	// is set: the priority then belongs to the socket.
	linkMu sync.Mutex
	// erred says that Send was told of an ICMP error, which only the error queue still
	// has.
	erred atomic.Bool
	// level is the priority in force plus one.
	level int
}

// newSocket opens the socket of one family and its helpers.
func newSocket(c *Conn, v6 bool) (*socket, error) {
	s := &socket{c: c, v6: v6, locals: c.cfg.locals(v6)}
	fd, err := unix.Socket(s.family(), unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(c.cfg.Protocol))
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("rawip: raw %s socket: %w: CAP_NET_RAW is needed (run as root, or setcap cap_net_raw+ep)", s.name(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("rawip: raw %s socket: %w", s.name(), err)
	}
	if err := s.setup(fd); err != nil {
		_ = unix.Close(fd) // nothing was sent
		return nil, fmt.Errorf("rawip: %s: %w", s.name(), err)
	}
	// An os.File, because package net makes no raw sockets of any protocol.
	s.file = os.NewFile(uintptr(fd), "homa-"+s.name())
	if s.rc, err = s.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("rawip: %w", err), s.file.Close())
	}
	if s.route, err = newRoute(v6, c.cfg.Device, c.cfg.Mark); err != nil {
		return nil, errors.Join(fmt.Errorf("rawip: %w", err), s.file.Close())
	}
	if s.icmp, err = newICMPSocket(v6, c.cfg.Device, c.cfg.Mark); err != nil {
		return nil, errors.Join(fmt.Errorf("rawip: ICMP: %w", err), s.route.close(), s.file.Close())
	}
	s.r.init(s)
	s.w.s = s
	return s, nil
}

func (s *socket) close() error {
	return errors.Join(s.file.Close(), s.route.close(), s.icmp.close())
}

func (s *socket) family() int { return familyOf(s.v6) }

func familyOf(v6 bool) int {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func (s *socket) name() string {
	if s.v6 {
		return "IPv6"
	}
	return "IPv4"
}

// option is a socket option with an integer.
type option struct {
	name              string
	level, opt, value int
}

func setAll(fd int, options []option) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	return nil
}

// setup sets the options of a new socket, and binds it where one address is to
// be used.
func (s *socket) setup(fd int) error {
	options := []option{
		{"IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
		{"IP_RECVERR", unix.IPPROTO_IP, unix.IP_RECVERR, 1},
		{"IP_RECVFRAGSIZE", unix.IPPROTO_IP, ipRecvFragSize, 1},
		// Sets DF, and refuses what exceeds the MTU of the route.
		{"IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO},
	}
	if s.v6 {
		options = []option{
			{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
			{"IPV6_RECVERR", unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1},
			{"IPV6_RECVFRAGSIZE", unix.IPPROTO_IPV6, ipv6RecvFragSize, 1},
			{"IPV6_MTU_DISCOVER", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO},
			{"IPV6_DONTFRAG", unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1},
			// Homa has no checksum: the kernel must not write one.
			{"IPV6_CHECKSUM", unix.IPPROTO_IPV6, unix.IPV6_CHECKSUM, -1},
		}
	}
	if err := setAll(fd, options); err != nil {
		return err
	}
	if err := setCommon(fd, s.c.cfg.Device, s.c.cfg.Mark); err != nil {
		return err
	}
	if err := attachFilter(fd, s.v6); err != nil {
		return fmt.Errorf("packet filter: %w", err)
	}
	var err error
	if s.buffers, err = mmsg.SetBuffers(fd, mmsg.Buffers{Recv: s.c.cfg.RecvBuffer, Send: s.c.cfg.SendBuffer}); err != nil {
		return err
	}
	if len(s.locals) == 1 {
		if err := unix.Bind(fd, sockaddr(s.locals[0], &s.c.zones)); err != nil {
			return fmt.Errorf("bind %s: %w", s.locals[0], err)
		}
	}
	return nil
}

// allows reports whether local may be used.
func (s *socket) allows(local netip.Addr) bool {
	return len(s.locals) == 0 || slices.Contains(s.locals, local)
}

// setCommon sets what all sockets of a Conn share.
func setCommon(fd int, device string, mark uint32) error {
	if device != "" {
		if err := unix.BindToDevice(fd, device); err != nil {
			return fmt.Errorf("bind to device %q: %w", device, err)
		}
	}
	if mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			return fmt.Errorf("SO_MARK %#x: %w", mark, err)
		}
	}
	return nil
}

// sockaddr is addr for system calls off the packet path.
func sockaddr(addr netip.Addr, zones *mmsg.Zones) unix.Sockaddr {
	if addr = addr.Unmap(); addr.Is4() {
		return &unix.SockaddrInet4{Addr: addr.As4()}
	}
	sa := &unix.SockaddrInet6{Addr: addr.As16()}
	if z := addr.Zone(); z != "" {
		sa.ZoneId = zones.Index(z)
	}
	return sa
}

// Where fields are in a Homa packet, and the types there are.
const (
	offsetType    = 11
	smallest      = 28
	firstType     = 0x10
	lastType      = 0x18
	dataHeader    = 56
	offsetDstPort = 2
)

// attachFilter keeps what cannot be Homa from waking us: packets without a whole
// common header, and types that no version knows. (Protocol 253 is for anybody's
// experiments.)
func attachFilter(fd int, v6 bool) error {
	// X is the length of the IP header in front: an IPv4 socket sees it, an IPv6
	// one does not.
	header := unix.SockFilter{Code: unix.BPF_LDX | unix.BPF_IMM, K: 0}
	if !v6 {
		header = unix.SockFilter{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0}
	}
	program := []unix.SockFilter{
		header,
		// A load behind the end rejects the packet.
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: smallest - 1},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: offsetType},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: firstType, Jf: 2},
		{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: lastType, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}
