//go:build unix

package translate

import "syscall"

// stale reports that the server has closed a connection that nobody uses, or has
// sent something nobody asked for.
func (c *serverConn) stale() bool {
	if c.raw == nil {
		return false
	}
	stale := false
	err := c.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		stale = err != syscall.EAGAIN && err != syscall.EINTR
		return true
	})
	return stale || err != nil
}
