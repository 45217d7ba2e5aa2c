package homa

import (
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

// BenchmarkUnreachable: what is over costs nothing when an ICMP error comes.
func BenchmarkUnreachable(b *testing.B) {
	e, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	if err := e.Listen(4000); err != nil {
		b.Fatal(err)
	}
	for id := uint64(2); id < 40_000; id += 2 {
		for _, k := range []wire.Packet{
			{Type: wire.Data, SenderID: id, Length: 1, Incoming: 1, Data: []byte{1}},
			{Type: wire.Ack, SenderID: id},
		} {
			k.SrcPort, k.DstPort = 0x8000, 4000
			e.Receive(0, serverAddr, wire.Main.Append(nil, &k))
		}
	}
	for b.Loop() {
		e.Unreachable(0, serverAddr, 0, ErrHostUnreachable)
	}
}
