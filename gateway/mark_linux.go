package gateway

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// setMark marks what a socket sends (SO_MARK).
func setMark(c syscall.RawConn, mark uint32) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	}); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("SO_MARK %#x: %w", mark, err)
	}
	return nil
}
