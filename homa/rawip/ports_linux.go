package rawip

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa/carrier"
)

// Every raw socket of a host gets every packet, so that a process would answer
// what is another's: a Linux server that is told RPC_UNKNOWN forgets an RPC which
// the other process waits for. Processes therefore claim their ports, by datagram
// sockets with abstract names (unix(7)): these are as many as network namespaces,
// need no file, and end with the process.

const (
	// foreignLife is how long an answer about a port is remembered: asking takes
	// three system calls, and anybody can send packets.
	foreignLife = 50 * time.Millisecond
	// maxForeign bounds the ports that are remembered.
	maxForeign = 1024
)

// ports are the claims of a Conn.
type ports struct {
	scopes []string // one for all addresses, or one for each

	mu     sync.Mutex
	claims map[uint16][]int // descriptors
	asked  map[uint16]asked
}

type asked struct {
	foreign bool
	at      time.Time
}

// newPorts is called in the network namespace of the sockets. Its number is in the
// names, since later calls may come from another.
func newPorts(protocol uint8, local []netip.Addr) *ports {
	p := &ports{claims: map[uint16][]int{}, asked: map[uint16]asked{}}
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
	delete(p.asked, port)
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
	if _, ok := p.claims[port]; ok {
		return false
	}
	now := time.Now()
	if a, ok := p.asked[port]; ok && now.Sub(a.at) < foreignLife {
		return a.foreign
	}
	if len(p.asked) >= maxForeign {
		clear(p.asked)
	}
	a := asked{at: now}
	for _, scope := range p.scopes {
		a.foreign = a.foreign || claimed(portName(scope, port))
	}
	p.asked[port] = a
	return a.foreign
}

// claimed reports whether somebody has bound the name.
func claimed(name *unix.SockaddrUnix) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Connect(fd, name) == nil
}
