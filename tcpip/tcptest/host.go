package tcptest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/tougw/tougw/internal/packet"
)

// Config configures a pair.
type Config struct {
	// Addresses are the host's. Empty: 10.77.0.7 and fd00:77::7.
	Addresses []netip.Addr
	// MTU of the device in bytes. Zero: 1500.
	MTU int
	// Queues of the device. Zero: 1.
	Queues int
	// TSO has both sides use segments of up to 64 KiB and checksum offload, as
	// a TUN with a vnet header.
	TSO bool
	// Tap, if not nil, sees each packet that reaches the host, which it
	// borrows. It is called from any goroutine.
	Tap func(p []byte)
}

// Host is an application host in memory.
type Host struct {
	cfg   Config
	dev   *Device
	stack *stack.Stack
	disp  atomic.Pointer[stack.NetworkDispatcher]
	icmp  chan ICMPError
}

// ICMPError is an ICMP error that the host received.
type ICMPError struct {
	Src, Dst   netip.Addr
	Type, Code uint8
	Quote      []byte // what it says about
}

const hostNIC = 1

// NewPair makes a host and the device that connects it to an Edge: everything
// that is not for one of its own addresses goes there. Close the host in the
// end; that closes the device.
func NewPair(cfg Config) (*Device, *Host) {
	if len(cfg.Addresses) == 0 {
		cfg.Addresses = []netip.Addr{netip.MustParseAddr("10.77.0.7"), netip.MustParseAddr("fd00:77::7")}
	}
	if cfg.MTU == 0 {
		cfg.MTU = 1500
	}
	d := newDevice(cfg.MTU, max(cfg.Queues, 1), cfg.TSO)
	h := &Host{cfg: cfg, dev: d, icmp: make(chan ICMPError, 256)}
	d.host = h
	h.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	timeWait := gtcpip.TCPTimeWaitTimeoutOption(0)
	must(h.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &timeWait))
	must(h.stack.CreateNIC(hostNIC, hostLink{h}))
	for _, a := range cfg.Addresses {
		must(h.stack.AddProtocolAddress(hostNIC, gtcpip.ProtocolAddress{
			Protocol:          protocol(a),
			AddressWithPrefix: gtcpip.AddrFromSlice(a.AsSlice()).WithPrefix(),
		}, stack.AddressProperties{}))
	}
	h.stack.SetRouteTable([]gtcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: hostNIC},
		{Destination: header.IPv6EmptySubnet, NIC: hostNIC},
	})
	return d, h
}

func must(err gtcpip.Error) {
	if err != nil {
		panic("tcptest: " + err.String())
	}
}

func protocol(a netip.Addr) gtcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

// Close resets all connections, closes the device and waits for the stack.
func (h *Host) Close() {
	h.dev.Close()
	h.stack.Destroy()
}

// Dial connects to dst. Errors wrap errno values, as those of the connection do.
func (h *Host) Dial(ctx context.Context, dst netip.AddrPort) (*Conn, error) {
	return h.DialFrom(ctx, netip.AddrPort{}, dst)
}

// DialFrom is Dial from a given address; the zero value lets the host choose.
func (h *Host) DialFrom(ctx context.Context, src, dst netip.AddrPort) (*Conn, error) {
	var wq waiter.Queue
	ep, err := h.stack.NewEndpoint(tcp.ProtocolNumber, protocol(dst.Addr()), &wq)
	if err != nil {
		return nil, asError("socket", err)
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if src.IsValid() {
		if err := ep.Bind(full(src)); err != nil {
			ep.Close()
			return nil, asError("bind", err)
		}
	}
	err = ep.Connect(full(dst))
	if _, ok := err.(*gtcpip.ErrConnectStarted); ok {
		select {
		case <-ready:
			err = ep.LastError()
		case <-ctx.Done():
			ep.Close()
			return nil, ctx.Err()
		}
	}
	if err != nil {
		ep.Close()
		return nil, asError("connect", err)
	}
	return &Conn{TCPConn: gonet.NewTCPConn(&wq, ep), ep: ep}, nil
}

// Listen listens at addr, one of the host's addresses.
func (h *Host) Listen(addr netip.AddrPort) (net.Listener, error) {
	return gonet.ListenTCP(h.stack, full(addr), protocol(addr.Addr()))
}

// Send gives the Edge a raw IP packet, which it takes, with no offload flags.
func (h *Host) Send(p []byte) { h.dev.put(0, queued{b: p}) }

// SendOffload is Send with an offload description.
func (h *Host) SendOffload(p []byte, o packet.Offload) { h.dev.put(0, queued{o, p}) }

// ICMP gives the ICMP errors that arrive; they are dropped when 256 wait.
func (h *Host) ICMP() <-chan ICMPError { return h.icmp }

func full(a netip.AddrPort) gtcpip.FullAddress {
	return gtcpip.FullAddress{NIC: hostNIC, Addr: gtcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

// Conn is a TCP connection of a Host. Its errors wrap errno values.
type Conn struct {
	*gonet.TCPConn
	ep gtcpip.Endpoint
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	return n, withErrno(err)
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	return n, withErrno(err)
}

// SetBuffers sets both buffers of the connection, in bytes.
func (c *Conn) SetBuffers(recv, send int) {
	c.ep.SocketOptions().SetReceiveBufferSize(int64(recv), true)
	c.ep.SocketOptions().SetSendBufferSize(int64(send), true)
}

// Reset closes the connection by RST.
func (c *Conn) Reset() {
	c.ep.SocketOptions().SetLinger(gtcpip.LingerOption{Enabled: true})
	c.ep.Close()
}

var errnos = map[string]syscall.Errno{
	(&gtcpip.ErrConnectionRefused{}).String():  syscall.ECONNREFUSED,
	(&gtcpip.ErrConnectionReset{}).String():    syscall.ECONNRESET,
	(&gtcpip.ErrConnectionAborted{}).String():  syscall.ECONNABORTED,
	(&gtcpip.ErrAborted{}).String():            syscall.EPIPE,
	(&gtcpip.ErrTimeout{}).String():            syscall.ETIMEDOUT,
	(&gtcpip.ErrHostUnreachable{}).String():    syscall.EHOSTUNREACH,
	(&gtcpip.ErrNetworkUnreachable{}).String(): syscall.ENETUNREACH,
	(&gtcpip.ErrClosedForSend{}).String():      syscall.EPIPE,
}

func asError(op string, err gtcpip.Error) error {
	if no, ok := errnos[err.String()]; ok {
		return fmt.Errorf("%s: %w", op, no)
	}
	return fmt.Errorf("%s: %s", op, err)
}

// withErrno adds the errno that gonet turned into text.
func withErrno(err error) error {
	if op, ok := err.(*net.OpError); ok {
		if no, ok := errnos[op.Err.Error()]; ok {
			op.Err = no
		}
	}
	return err
}
