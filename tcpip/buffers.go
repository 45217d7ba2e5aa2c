package tcpip

// growAfter is how many bytes have to move in one direction of a stream
// before the buffers of that direction may grow. With the initial sizes below
// a pair of gateways lets at most 400 KiB pass for a reader that never reads, its
// own kernel included, so whoever moved more has a reader.
const growAfter = 512 << 10

// Default sizes of the buffers of a stream, in bytes. gVisor advertises half
// of a receive buffer as window, since it also accounts for its structures.
const (
	// A window of 32 KiB is some 5 Gbit/s over the tens of microseconds to
	// a kernel on the same machine.
	defaultEdgeRecv = 64 << 10
	defaultEdgeSend = 64 << 10

	// The tunnel's windows are the ones that a long path feels. gVisor
	// acknowledges before the reader has run, with a window that is smaller by
	// what just came, so the receive window has to be twice the send buffer for
	// the sender to fill it each round trip: the first MiB over 100 ms takes
	// 1.3 s, with half the receive buffer 2.2 s (BenchmarkTunnelFarAway).
	defaultTunnelRecv = 256 << 10
	defaultTunnelSend = 64 << 10

	// Ceilings of growth. On the same machine 256 KiB carry 20 to 22 Gbit/s
	// from an application that runs cubic, 8 MiB 24 to 26; 1 MiB leaves room
	// for hosts a millisecond away that route through us. A path of 100 ms
	// fills 8 MiB with 340 Mbit/s.
	defaultEdgeMax   = 1 << 20
	defaultTunnelMax = 8 << 20
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
	// InitialRecv and InitialSend are the sizes until 512 KiB have moved in that
	// direction. Zero: 64 KiB and 64 KiB in an Edge, 256 KiB and 64 KiB in a
	// Tunnel. Half of InitialRecv is the window that the peer sees.
	InitialRecv, InitialSend int
	// MaxRecv and MaxSend are the ceilings of automatic growth. Zero: 1 MiB in
	// an Edge, 8 MiB in a Tunnel.
	MaxRecv, MaxSend int
}

func (c BufferConfig) withDefaults(recv, send, most int) BufferConfig {
	fill := func(v *int, def, floor int) {
		if *v == 0 {
			*v = def
		}
		*v = min(max(*v, floor), maxBuffer)
	}
	fill(&c.InitialRecv, recv, minBuffer)
	fill(&c.InitialSend, send, minBuffer)
	fill(&c.MaxRecv, most, c.InitialRecv)
	fill(&c.MaxSend, most, c.InitialSend)
	return c
}
