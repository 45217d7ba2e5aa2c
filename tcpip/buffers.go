package tcpip

// growAfter is how many bytes have to move in one direction of a stream
// before the buffers of that direction may grow. All that a path absorbs for a
// reader that never reads, kernels included, is below 1 MiB, so whoever moved
// more has a reader.
const growAfter = 1 << 20

// Default sizes of the buffers of a stream, in bytes. gVisor advertises half
// of a receive buffer as window, since it also accounts for its structures.
const (
	// A window of 32 KiB is some 5 Gbit/s over the tens of microseconds to
	// a kernel on the same machine.
	defaultEdgeRecv = 64 << 10
	defaultEdgeSend = 64 << 10

	// The tunnel's receive window is the one that a long path feels: 64 KiB is
	// three round trips of slow start from ten segments.
	defaultTunnelRecv = 128 << 10
	defaultTunnelSend = 64 << 10

	defaultMaxBuffer = 8 << 20
)

// minBuffer keeps a window open for one full segment; maxBuffer is the largest
// window that TCP can express (RFC 7323 section 2.3) with room for gVisor's
// factor of two.
const (
	minBuffer = 16 << 10
	maxBuffer = 1 << 30
)

// BufferConfig sizes the buffers of each stream of a stack, in bytes. A zero
// field takes the default of the stack; values are clamped to 16 KiB…1 GiB and
// a ceiling is never below its initial size.
type BufferConfig struct {
	// InitialRecv and InitialSend are the sizes until 1 MiB has moved in that
	// direction. Zero: 64 KiB and 64 KiB in an Edge, 128 KiB and 64 KiB in a
	// Tunnel. Half of InitialRecv is the window that the peer sees.
	InitialRecv, InitialSend int
	// MaxRecv and MaxSend are the ceilings of automatic growth. Zero: 8 MiB.
	MaxRecv, MaxSend int
}

func (c BufferConfig) withDefaults(recv, send int) BufferConfig {
	fill := func(v *int, def, floor int) {
		if *v == 0 {
			*v = def
		}
		*v = min(max(*v, floor), maxBuffer)
	}
	fill(&c.InitialRecv, recv, minBuffer)
	fill(&c.InitialSend, send, minBuffer)
	fill(&c.MaxRecv, defaultMaxBuffer, c.InitialRecv)
	fill(&c.MaxSend, defaultMaxBuffer, c.InitialSend)
	return c
}
