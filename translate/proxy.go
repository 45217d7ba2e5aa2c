package translate

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
)

// readProxy reads the header of the PROXY protocol, version 1 or 2, that a
// connection begins with, and returns the connection behind it and whom it names:
// nobody when the proxy speaks for itself (LOCAL, UNKNOWN). The protocol is
// haproxy's doc/proxy-protocol.txt.
func readProxy(ctx context.Context, conn net.Conn, patience time.Duration) (net.Conn, netip.AddrPort, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(past) }) // reading ends with it, or by itself
	defer stop()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, netip.AddrPort{}, err
	}
	reader := bufio.NewReaderSize(conn, smallBuffer)
	header, err := proxyproto.Read(reader)
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("translate: PROXY header: %w", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, netip.AddrPort{}, err
	}
	var source netip.AddrPort
	if !header.Command.IsLocal() {
		source = addrPort(header.SourceAddr)
	}
	rest, err := reader.Peek(reader.Buffered())
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return &proxied{Conn: conn, rest: append([]byte(nil), rest...)}, source, nil
}

// proxied is a connection whose first bytes were read with its header.
type proxied struct {
	net.Conn
	rest []byte
}

// Read implements net.Conn.
func (p *proxied) Read(b []byte) (int, error) {
	if len(p.rest) > 0 {
		n := copy(b, p.rest)
		if p.rest = p.rest[n:]; len(p.rest) == 0 {
			p.rest = nil
		}
		return n, nil
	}
	return p.Conn.Read(b)
}

// CloseWrite ends our direction.
func (p *proxied) CloseWrite() error { return closeWrite(p.Conn) }

// Reset ends the connection at once.
func (p *proxied) Reset() { reset(p.Conn) }

// proxyHeader is a header of version 2 that names a client and the address that it
// reached.
func proxyHeader(client, server netip.AddrPort) ([]byte, error) {
	header := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(client), net.TCPAddrFromAddrPort(server))
	return header.Format()
}
