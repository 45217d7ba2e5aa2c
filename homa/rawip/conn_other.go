//go:build !linux

package rawip

import (
	"errors"
	"net"
	"net/netip"

	"github.com/tougw/tougw/homa/carrier"
)

// Conn cannot be had on this system.
type Conn struct{}

var _ carrier.Carrier = (*Conn)(nil)

// Open checks cfg and returns errors.ErrUnsupported.
func Open(cfg Config) (*Conn, error) {
	if _, err := cfg.complete(); err != nil {
		return nil, err
	}
	return nil, errors.Join(errors.New("rawip: raw Homa sockets exist only on Linux"), errors.ErrUnsupported)
}

// Receivers returns 0.
func (c *Conn) Receivers() int { return 0 }

// Send returns net.ErrClosed.
func (c *Conn) Send([]carrier.Packet) error { return net.ErrClosed }

// Receive returns net.ErrClosed.
func (c *Conn) Receive(int, []carrier.Packet) (int, error) { return 0, net.ErrClosed }

// Waiting returns false.
func (c *Conn) Waiting(int) bool { return false }

// MaxData returns 0.
func (c *Conn) MaxData(netip.Addr) int { return 0 }

// Refuse does nothing.
func (c *Conn) Refuse(*carrier.Packet) {}

// Close does nothing.
func (c *Conn) Close() error { return nil }

// Stats returns nothing.
func (c *Conn) Stats() Stats { return Stats{} }

// BufferReason returns nothing.
func (c *Conn) BufferReason() string { return "" }

// CheckRoute returns errors.ErrUnsupported.
func (c *Conn) CheckRoute(netip.Addr) error { return errors.ErrUnsupported }

// Claim fails.
func (c *Conn) Claim(uint16) (func(), error) { return nil, errors.ErrUnsupported }

// Foreign returns false.
func (c *Conn) Foreign(uint16) bool { return false }
