//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxMessage = 1_000_000
	pageSize   = 1 << 16 // unit in which the kernel hands out the receive region
	maxPages   = (maxMessage + pageSize - 1) / pageSize
	regionSize = 64 * pageSize

	optionRegion = 10 // setsockopt: where received messages are put
)

// socket is a Homa socket of the kernel with its receive region. It is for one
// goroutine at a time, except that send may be called beside receive.
type socket struct {
	fd     int
	old    bool // socket API and protocol number of the module's branch linux_6.1.38
	region []byte
	// pages are those of the last message; the next receive hands them back.
	pages [maxPages]uint32
	held  uint32
}

// The argument blocks that msg_control points to.
type (
	sendArgs struct { // the old API ends after cookie
		id, cookie      uint64
		flags, reserved uint32
	}
	receiveArgs struct {
		id, cookie uint64
		pages      uint32
		reserved   uint32
		page       [maxPages]uint32
	}
	oldReceiveArgs struct {
		id, cookie uint64
		flags      int32
		peer       [28]byte
		pages      uint32
		pad        uint32
		page       [maxPages]uint32
	}
)

// newSocket opens a socket for the addresses of one family.
func newSocket(ipv6, old bool) (*socket, error) {
	family, protocol := unix.AF_INET, 146
	if ipv6 {
		family = unix.AF_INET6
	}
	if old {
		protocol = 253
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("socket of protocol Homa: %w (is the module loaded?)", err)
	}
	region, err := unix.Mmap(-1, 0, regionSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("receive region: %w", err)
	}
	argument := struct {
		start  unsafe.Pointer
		length uint64
	}{unsafe.Pointer(&region[0]), regionSize}
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(protocol), optionRegion,
		uintptr(unsafe.Pointer(&argument)), unsafe.Sizeof(argument), 0); errno != 0 {
		unix.Munmap(region)
		unix.Close(fd)
		return nil, fmt.Errorf("receive region: %w", errno)
	}
	return &socket{fd: fd, old: old, region: region}, nil
}

func (s *socket) close() {
	unix.Close(s.fd)
	unix.Munmap(s.region)
}

// bind makes s the server of a port.
func (s *socket) bind(ipv6 bool, port uint16) error {
	var address unix.Sockaddr = &unix.SockaddrInet4{Port: int(port)}
	if ipv6 {
		address = &unix.SockaddrInet6{Port: int(port)}
	}
	return unix.Bind(s.fd, address)
}

// send sends a message: a request if id is 0, else the response to that request.
func (s *socket) send(to *unix.RawSockaddrInet6, id uint64, message []byte) error {
	arguments := sendArgs{id: id}
	iov := unix.Iovec{Base: &message[0]}
	iov.SetLen(len(message))
	header := unix.Msghdr{
		Name: (*byte)(unsafe.Pointer(to)), Namelen: nameLength(to), Iov: &iov,
		Control: (*byte)(unsafe.Pointer(&arguments)),
	}
	header.SetIovlen(1)
	for {
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&header)), 0)
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// receive waits for a message (on the old API: a request or a response, as asked
// for), puts it into buffer, which has room for maxMessage bytes, and returns it with
// its id and where it came from.
func (s *socket) receive(buffer []byte, request bool) ([]byte, uint64, unix.RawSockaddrInet6, error) {
	for {
		message, id, from, err := s.receiveOnce(buffer, request)
		if err != unix.EINTR { // the runtime's signals
			return message, id, from, err
		}
	}
}

func (s *socket) receiveOnce(buffer []byte, request bool) ([]byte, uint64, unix.RawSockaddrInet6, error) {
	var from unix.RawSockaddrInet6
	now := receiveArgs{pages: s.held, page: s.pages}
	old := oldReceiveArgs{flags: 2, pages: s.held, page: s.pages}
	if request {
		old.flags = 1
	}
	header := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&from)), Namelen: unix.SizeofSockaddrInet6}
	if s.old {
		header.Control = (*byte)(unsafe.Pointer(&old))
		header.SetControllen(int(unsafe.Sizeof(old)))
	} else {
		header.Control = (*byte)(unsafe.Pointer(&now))
		header.SetControllen(int(unsafe.Sizeof(now)))
	}
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&header)), 0)
	if s.old {
		now = receiveArgs{id: old.id, pages: old.pages, page: old.page}
	}
	s.pages, s.held = now.page, min(now.pages, maxPages)
	if errno != 0 {
		return nil, now.id, from, errno
	}
	if n > maxMessage || (n+pageSize-1)/pageSize > uintptr(s.held) {
		return nil, now.id, from, errors.New("the kernel gave a message without its pages")
	}
	message := buffer[:n]
	for i, rest := 0, message; len(rest) > 0; i++ {
		rest = rest[copy(rest[:min(len(rest), pageSize)], s.region[s.pages[i]:]):]
	}
	return message, now.id, from, nil
}

// address is to as the kernel wants it; IPv4 in the leading bytes.
func address(to netip.AddrPort) *unix.RawSockaddrInet6 {
	var raw unix.RawSockaddrInet6
	port := to.Port()<<8 | to.Port()>>8
	if to.Addr().Is4() {
		raw4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&raw))
		*raw4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: to.Addr().As4()}
	} else {
		raw = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: to.Addr().As16()}
	}
	return &raw
}

func nameLength(a *unix.RawSockaddrInet6) uint32 {
	if a.Family == unix.AF_INET {
		return unix.SizeofSockaddrInet4
	}
	return unix.SizeofSockaddrInet6
}
