package tcpip

import (
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/tougw/tougw/internal/packet"
)

// nowhere is a device that takes everything and gives nothing.
type nowhere struct{}

// Queues implements Device.
func (nowhere) Queues() int { return 1 }

// MTU implements Device.
func (nowhere) MTU() int { return 1500 }

// Read implements Device.
func (nowhere) Read(int, []packet.In) (int, error) { select {} }

// Write implements Device.
func (nowhere) Write(_ int, ps []packet.Out) (int, error) { return len(ps), nil }

// empty is a stack without connections and without goroutines.
var empty = stack.New(stack.Options{})

// input has a fresh edge handle one captured packet.
func input(t testing.TB, b []byte, o packet.Offload) *Edge {
	e, err := NewEdge(EdgeConfig{OnFlow: func(*Pending) {}}, nowhere{})
	if err != nil {
		t.Fatal(err)
	}
	e.link.Attach(drop{})
	e.stack = empty
	v := buffer.NewViewSize(packet.Size)
	in := packet.In{Offload: o, Buf: v.AsSlice(), N: copy(v.AsSlice(), b)}
	if !e.input(0, &in, v) {
		v.Release()
	}
	return e
}

// FuzzCaptured feeds the edge what a device might deliver.
func FuzzCaptured(f *testing.F) {
	a, b := netip.MustParseAddr("fd00:77::7"), netip.MustParseAddr("2001:db8::9")
	f.Add(tcp4(netip.MustParseAddrPort("10.77.0.7:1"), netip.MustParseAddrPort(dst4), FlagSYN, 1, nil))
	f.Add(ip6(a, b, packet.ProtoTCP, make([]byte, 20)))
	f.Add(ip6(a, b, 44, append([]byte{packet.ProtoTCP, 0, 0, 8, 0, 0, 0, 0}, make([]byte, 20)...)))
	f.Add(ip6(a, b, 0, append([]byte{packet.ProtoICMPv6, 0, 0, 0, 0, 0, 0, 0}, 128, 0, 0, 0)))
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, o := range []packet.Offload{{}, {Flags: packet.NeedsCsum}} {
			st := input(t, p, o).Stats()
			if n := st.DropMalformed + st.DropChecksum + st.DropFragment + st.UDP + st.ICMP + st.Other; n > 1 {
				t.Errorf("counted %d times: %+v", n, st)
			}
		}
	})
}

// TestCapturedDoesNotAllocate is the path of a 64 KiB segment and of a bare
// acknowledgement from the device to the stack.
func TestCapturedDoesNotAllocate(t *testing.T) {
	src, dst := netip.MustParseAddrPort("10.77.0.7:1"), netip.MustParseAddrPort(dst4)
	e := input(t, nil, packet.Offload{})
	for _, size := range []int{0, 1400, 60000} {
		p := tcp4(src, dst, FlagACK, 1, make([]byte, size))
		in := packet.In{Offload: packet.Offload{Flags: packet.NeedsCsum}}
		if n := testing.AllocsPerRun(100, func() {
			v := buffer.NewViewSize(packet.Size)
			in.Buf = v.AsSlice()
			in.N = copy(in.Buf, p)
			if !e.input(0, &in, v) {
				v.Release()
			}
		}); n != 0 && !raceEnabled {
			t.Errorf("%v allocations for %d bytes", n, size)
		}
	}
}
