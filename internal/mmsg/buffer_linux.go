package mmsg

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Buffers are the sizes of a socket's buffers in bytes. The kernel books twice
// as much, to cover its own overhead.
type Buffers struct {
	Recv, Send int
	// Reason says why a buffer is smaller than wanted; empty otherwise.
	Reason string
}

// SetBuffers asks for buffers of want and returns those in force; a size of zero
// keeps the kernel's default. With CAP_NET_ADMIN they may exceed
// net.core.rmem_max and wmem_max; without it they are cut to these.
func SetBuffers(fd int, want Buffers) (Buffers, error) {
	var have Buffers
	for _, b := range []struct {
		name, limit string
		force, opt  int
		want        int
		have        *int
	}{
		{"receive", "net.core.rmem_max", unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, want.Recv, &have.Recv},
		{"send", "net.core.wmem_max", unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, want.Send, &have.Send},
	} {
		if b.want > 0 && unix.SetsockoptInt(fd, unix.SOL_SOCKET, b.force, b.want) != nil {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, b.opt, b.want); err != nil {
				return have, fmt.Errorf("%s buffer of %d bytes: %w", b.name, b.want, err)
			}
		}
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, b.opt)
		if err != nil {
			return have, fmt.Errorf("size of %s buffer: %w", b.name, err)
		}
		*b.have = v / 2
		if *b.have < b.want {
			if have.Reason != "" {
				have.Reason += "; "
			}
			have.Reason += fmt.Sprintf("%s buffer is %d of %d bytes: grant CAP_NET_ADMIN or raise %s",
				b.name, *b.have, b.want, b.limit)
		}
	}
	return have, nil
}
