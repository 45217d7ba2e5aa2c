//go:build !linux

package gateway

import (
	"errors"
	"syscall"
)

// setMark fails: only Linux has marks, and only there something is captured.
func setMark(syscall.RawConn, uint32) error { return errors.ErrUnsupported }
