package wire

import "testing"

// benchPackets are what a long transfer is made of.
var benchPackets = []Packet{
	{Type: Data, SenderID: 2, Length: 100000, Incoming: 40000, Offset: 1424, Data: make([]byte, 1424)},
	{Type: Grant, SenderID: 3, Offset: 50000},
	{Type: Ack, SenderID: 2, NumAcks: 5},
}

func BenchmarkDecode(b *testing.B) {
	for _, p := range benchPackets {
		b.Run(p.Type.String(), func(b *testing.B) {
			packet := Main.Append(nil, &p)
			b.ReportAllocs()
			b.SetBytes(int64(len(packet)))
			var q Packet
			for b.Loop() {
				if err := Main.Decode(&q, packet); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, p := range benchPackets {
		b.Run(p.Type.String(), func(b *testing.B) {
			var packet []byte
			b.ReportAllocs()
			b.SetBytes(int64(len(Main.Append(nil, &p))))
			for b.Loop() {
				packet = Main.Append(packet[:0], &p)
			}
		})
	}
}

// TestAllocations: neither good packets nor bad ones cost memory.
func TestAllocations(t *testing.T) {
	for _, v := range allVersions {
		for typ := Data; typ <= Ack; typ++ {
			p := Packet{Type: typ, NumAcks: MaxAcks, Data: make([]byte, 1000)}
			buf := make([]byte, 0, 1500)
			packet := v.Append(nil, &p)
			bad := packet[:v.minSize(typ)-1]
			var q Packet
			var x Ignored
			if n := testing.AllocsPerRun(100, func() {
				buf = v.Append(buf[:0], &p)
				if v.Decode(&q, packet) != nil || v.Decode(&q, bad) == nil || v.DecodeExact(&q, &x, packet) != nil {
					t.Fatal("decoding")
				}
				buf = v.AppendExact(buf[:0], &q, &x)
				Detect(Protocol, packet)
			}); n != 0 {
				t.Errorf("%v %v: %v allocations", v, typ, n)
			}
		}
	}
}
