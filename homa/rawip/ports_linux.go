package rawip

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa/carrier"
)

// Every raw socket of a host gets every packet, so that a process would answer
// what is another's: a Linux server that is told RPC_UNKNOWN forgets an RPC which
// the other process waits for. Processes therefore claim their ports, by datagram
// sockets with abstract names (unix(7)): these are as many as network namespaces,
// need no file, and end with the process.

// ports are the claims of a Conn.
type ports struct {
	scopes []string // one for all addresses, or one for each

	mu     sync.Mutex
	claims map[uint16][]int // descriptors
	asker  int              // the socket that asks, -1: none yet
	closed bool
}

// newPorts is called in the network namespace of the sockets. Its number is in the
// names, since later calls may come from another.
func newPorts(protocol uint8, local []netip.Addr) *ports {
	p := &ports{claims: map[uint16][]int{}, asker: -1}
	var st unix.Stat_t // without /proc all zero: one namespace
	_ = unix.Stat("/proc/thread-self/ns/net", &st)
	host := fmt.Sprintf("@tougw/homa/%d/%d", st.Ino, protocol)
	for _, a := range local {
		p.scopes = append(p.scopes, host+"/"+a.Unmap().String())
	}
	if p.scopes == nil {
		p.scopes = []string{host + "/any"}
	}
	return p
}

func portName(scope string, port uint16) *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: fmt.Sprintf("%s/%d", scope, port)}
}

// Claim implements carrier.Ports. Processes that use other addresses of the host
// may have the same port, unless one of them uses all.
func (c *Conn) Claim(port uint16) (func(), error) {
	p := c.ports
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.claims[port]; ok {
		return nil, fmt.Errorf("rawip: port %d: %w", port, carrier.ErrClaimed)
	}
	var fds []int
	for _, scope := range p.scopes {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			fds = append(fds, fd)
			err = unix.Bind(fd, portName(scope, port))
		}
		if err != nil {
			closeAll(fds)
			if errors.Is(err, unix.EADDRINUSE) {
				err = carrier.ErrClaimed
			}
			return nil, fmt.Errorf("rawip: port %d: %w", port, err)
		}
	}
	p.claims[port] = fds
	return func() { p.release(port) }, nil
}

func (p *ports) release(port uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	closeAll(p.claims[port])
	delete(p.claims, port)
}

// close gives all claims up.
func (p *ports) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, fds := range p.claims {
		closeAll(fds)
	}
	clear(p.claims)
	p.closed = true
	if p.asker >= 0 {
		unix.Close(p.asker)
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// Foreign implements carrier.Ports.
func (c *Conn) Foreign(port uint16) bool {
	p := c.ports
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.claims[port]; ok || p.closed {
		return false
	}
	for _, scope := range p.scopes {
		if p.claimed(scope, port) {
			return true
		}
	}
	return false
}

// claimed reports whether somebody has bound the name of a port. It asks each time, at
// the price of a system call: a server may have begun since the last one, and would
// be refused. It needs mu.
func (p *ports) claimed(scope string, port uint16) bool {
	if p.asker < 0 {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return false
		}
		p.asker = fd
	}
	return unix.Connect(p.asker, portName(scope, port)) == nil // it may be connected again
}
