package translate

import (
	"net"
	"net/netip"
	"time"
)

// reset ends a connection at once, so that its peer sees that something failed.
func reset(conn net.Conn) {
	switch c := conn.(type) {
	case interface{ Reset() }:
		c.Reset()
	case interface{ SetLinger(int) error }:
		_ = c.SetLinger(0) // it is closed all the same
	}
	_ = conn.Close() // there is nobody to tell
}

// closeWrite ends our direction of a connection, if it can be half-closed.
func closeWrite(conn net.Conn) error {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// past is a deadline that is over: it makes a blocked call return.
var past = time.Unix(1, 0)

// addrPort is the address of one end of a connection, unmapped; invalid if it has
// none.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		p := t.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	if a == nil {
		return netip.AddrPort{}
	}
	p, _ := netip.ParseAddrPort(a.String())
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
