package udp

import (
	"fmt"
	"net/netip"
	"testing"
)

// BenchmarkBatch moves runs of 44 datagrams of 1472 bytes, what one Ethernet
// path carries of 64 KiB, over loopback within one goroutine.
func BenchmarkBatch(b *testing.B) {
	for _, off := range []struct{ noGSO, noGRO bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		b.Run(fmt.Sprintf("gso=%v,gro=%v", !off.noGSO, !off.noGRO), func(b *testing.B) {
			const size = 44 * 1472
			r := listen(b, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), NoGRO: off.noGRO})
			s := listen(b, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), NoGSO: off.noGSO})
			out := []Message{{Buf: make([]byte, size), N: size, Segment: 1472, Addr: r.LocalAddr()}}
			in := newBatch(8)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.WriteBatch(out); err != nil {
					b.Fatal(err)
				}
				for left := size; left > 0; {
					n, err := r.ReadBatch(in)
					if err != nil {
						b.Fatal(err)
					}
					for i := range in[:n] {
						left -= in[i].N
					}
				}
			}
		})
	}
}

// BenchmarkPingPong is the round trip of one small datagram between two
// goroutines that sleep between datagrams.
func BenchmarkPingPong(b *testing.B) {
	far := listen(b, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	near := listen(b, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	done := make(chan struct{})
	go func() {
		defer close(done)
		in := newBatch(8)
		for {
			n, err := far.ReadBatch(in)
			if err != nil {
				return
			}
			if _, err := far.WriteBatch(in[:n]); err != nil {
				return
			}
		}
	}()
	out := []Message{{Buf: make([]byte, 100), N: 100, Addr: far.LocalAddr()}}
	in := newBatch(8)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := near.WriteBatch(out); err != nil {
			b.Fatal(err)
		}
		if _, err := near.ReadBatch(in); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	_ = far.Close()
	<-done
}

// BenchmarkWriteSmall sends batches of small datagrams to a socket that
// nobody reads, from as many goroutines as there are cores.
func BenchmarkWriteSmall(b *testing.B) {
	sink := listen(b, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0"), RecvBuffer: 4096})
	for _, size := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			s := listen(b, Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
			buf := make([]byte, 100)
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				ms := make([]Message, size)
				for i := range ms {
					ms[i] = Message{Buf: buf, N: len(buf), Addr: sink.LocalAddr()}
				}
				for p.Next() {
					if _, err := s.WriteBatch(ms); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/datagram")
		})
	}
}
