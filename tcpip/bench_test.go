package tcpip

import (
	"fmt"
	"io"
	"testing"
	"time"

	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tougw/tougw/tcpip/tcptest"
)

// drop is a network dispatcher that takes packets and forgets them.
type drop struct{}

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (drop) DeliverNetworkPacket(gtcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// DeliverLinkPacket implements stack.NetworkDispatcher.
func (drop) DeliverLinkPacket(gtcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// record is what a segment is cut to: outer MTU 1500 and 12 bytes of options.
const record = 1431

func TestCutDoesNotAllocate(t *testing.T) {
	pkt := outgoing(1, FlagACK|FlagPSH, 1, make([]byte, 12), make([]byte, 65000))
	defer pkt.DecRef()
	dst := make([]byte, record)
	if n := testing.AllocsPerRun(100, func() {
		s := newSegment(pkt)
		for s.Cut(dst, true) > 0 {
		}
		s.Release()
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations for a segment", n)
	}
}

func TestInjectDoesNotAllocate(t *testing.T) {
	tun, _ := sinkTunnel()
	tun.link.Attach(drop{})
	in := tun.NewInjector()
	segs := batch(40)
	if n := testing.AllocsPerRun(100, func() {
		for id := range uint64(4) {
			for _, s := range segs {
				in.Inject(id, s)
			}
		}
		in.Flush()
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations for a batch", n)
	}
}

// batch gives n segments in a row.
func batch(n int) [][]byte {
	var segs [][]byte
	for i := range n {
		segs = append(segs, segment(FlagACK, uint32(i*1399), 1, make([]byte, 12), make([]byte, 1399)))
	}
	return segs
}

// TestSteadyStateAllocations moves data through a pair of tunnel stacks and
// bounds what is allocated for each 64 KiB, both stacks, their acknowledgements
// and this test's wire together. Ours is none of it: gVisor allocates four
// times for each IPv6 packet it parses and once for each it sends.
func TestSteadyStateAllocations(t *testing.T) {
	accepted := make(chan *Stream, 1)
	w := newWire(t, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(t, accepted)}, &wire{})
	a, b := w.connect(t, 1, accepted)
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(io.Discard, b)
	}()
	buf := make([]byte, 64<<10)
	for range 200 {
		a.Write(buf)
	}
	if n := testing.AllocsPerRun(300, func() { a.Write(buf) }); n > 40 && !raceEnabled {
		t.Errorf("%v allocations for 64 KiB through both stacks", n)
	}
	a.CloseWrite()
	<-done
}

func BenchmarkCut(b *testing.B) {
	pkt := outgoing(1, FlagACK|FlagPSH, 1, make([]byte, 12), make([]byte, 65000))
	defer pkt.DecRef()
	dst := make([]byte, record)
	b.SetBytes(65000)
	b.ReportAllocs()
	for b.Loop() {
		s := newSegment(pkt)
		for s.Cut(dst, true) > 0 {
		}
		s.Release()
	}
}

func BenchmarkInject(b *testing.B) {
	for _, sessions := range []int{1, 8} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			tun, _ := sinkTunnel()
			tun.link.Attach(drop{})
			in := tun.NewInjector()
			segs := batch(40)
			b.SetBytes(int64(sessions * 40 * 1399))
			b.ReportAllocs()
			for b.Loop() {
				for _, s := range segs {
					for id := range sessions {
						in.Inject(uint64(id), s)
					}
				}
				in.Flush()
			}
		})
	}
}

// BenchmarkTunnel moves bytes in one stream through both stacks, cut to
// records.
func BenchmarkTunnel(b *testing.B) {
	accepted := make(chan *Stream, 1)
	w := newWire(b, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(b, accepted)}, &wire{size: record})
	s, d := w.connect(b, 1, accepted)
	s.deadline = time.Now().Add(time.Hour)
	d.deadline = s.deadline
	pump(b, s, d)
}

// BenchmarkTunnelFarAway moves 64 MiB in one stream of its own over a round
// trip of 20 and 100 ms: how soon buffers and congestion window grow.
func BenchmarkTunnelFarAway(b *testing.B) {
	for _, delay := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond} {
		for _, size := range []int{1 << 20, 64 << 20} {
			b.Run(fmt.Sprintf("RTT=%v,MiB=%d", 2*delay, size>>20), func(b *testing.B) {
				accepted := make(chan *Stream, 1)
				w := newWire(b, TunnelConfig{}, TunnelConfig{OnFlow: acceptTo(b, accepted)}, &wire{size: record, delay: delay})
				b.SetBytes(int64(size))
				for id := uint64(1); b.Loop(); id++ {
					s, d := w.connect(b, id, accepted)
					transfer(b, s, d, size)
					s.Reset()
					d.Reset()
				}
			})
		}
	}
}

func BenchmarkEdgeUp(b *testing.B) {
	r := newRig(b, EdgeConfig{}, tcptest.Config{TSO: true}, nil)
	c, s := r.connect(dst4)
	c.SetBuffers(1<<20, 1<<20)
	c.SetDeadline(time.Time{})
	s.deadline = time.Now().Add(time.Hour)
	pump(b, c, s)
}

func BenchmarkEdgeDown(b *testing.B) {
	r := newRig(b, EdgeConfig{}, tcptest.Config{TSO: true}, nil)
	c, s := r.connect(dst4)
	c.SetBuffers(1<<20, 1<<20)
	c.SetDeadline(time.Time{})
	s.deadline = time.Now().Add(time.Hour)
	pump(b, s, c)
}

// pump writes 256 KiB per iteration to w and reads them from r.
func pump(b *testing.B, w io.Writer, r io.Reader) {
	const size = 256 << 10
	buf, rbuf := make([]byte, size), make([]byte, size)
	done := make(chan struct{})
	total := 0
	want := make(chan int, 1)
	go func() {
		defer close(done)
		goal := -1
		for goal < 0 || total < goal {
			n, err := r.Read(rbuf)
			if err != nil {
				b.Error(err)
				return
			}
			total += n
			select {
			case goal = <-want:
			default:
			}
		}
	}()
	b.SetBytes(size)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, err := w.Write(buf); err != nil {
			b.Fatal(err)
		}
		n += size
	}
	want <- n + 1
	w.Write(buf[:1])
	<-done
}
