package tcpip

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"gvisor.dev/gvisor/pkg/buffer"
	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// outgoing makes a packet as the tunnel's stack sends it, with its payload in
// parts.
func outgoing(id uint64, flags uint8, seq uint32, options []byte, parts ...[]byte) *stack.PacketBuffer {
	var buf buffer.Buffer
	for _, p := range parts {
		v := buffer.NewViewWithData(p)
		// A view that is full cannot be appended to, so parts stay apart.
		_ = buf.Append(v)
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 40 + 20 + len(options), Payload: buf})
	th := header.TCP(pkt.TransportHeader().Push(20 + len(options)))
	pkt.TransportProtocolNumber = header.TCPProtocolNumber
	copy(th, segment(flags, seq, 7, options, nil))
	ip := pkt.NetworkHeader().Push(40)
	pkt.NetworkProtocolNumber = header.IPv6ProtocolNumber
	local := SessionLocal(id).As16()
	copy(ip[8:], local[:])
	return pkt
}

// TestCutReassembles cuts random segments at random sizes and puts the pieces
// together again.
func TestCutReassembles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		options := make([]byte, 4*rapid.IntRange(0, 10).Draw(t, "option words"))
		seq := rapid.Uint32().Draw(t, "seq")
		flags := rapid.SampledFrom([]uint8{FlagACK, FlagACK | FlagPSH, FlagACK | FlagPSH | FlagFIN, FlagACK | FlagCWR}).Draw(t, "flags")
		var parts [][]byte
		for range rapid.IntRange(0, 5).Draw(t, "parts") {
			parts = append(parts, rapid.SliceOfN(rapid.Byte(), 1, 4000).Draw(t, "part"))
		}
		want := bytes.Join(parts, nil)
		pkt := outgoing(0x1234_5678_9abc_def0, flags, seq, options, parts...)
		defer pkt.DecRef()
		s := newSegment(pkt)
		defer s.Release()
		if s.Session() != 0x1234_5678_9abc_def0 || s.Flags() != flags || s.HeaderLen() != 20+len(options) || s.Len() != s.HeaderLen()+len(want) {
			t.Fatalf("session %#x, flags %#x, header %d, length %d", s.Session(), s.Flags(), s.HeaderLen(), s.Len())
		}
		var got []byte
		dst := make([]byte, 1<<16)
		for first := true; s.Len() > 0; first = false {
			room := s.HeaderLen() + rapid.IntRange(1, 3000).Draw(t, "room")
			sum := rapid.Bool().Draw(t, "sum")
			n := s.Cut(dst[:room], sum)
			if n < s.HeaderLen() || n > room {
				t.Fatalf("cut %d bytes into %d", n, room)
			}
			p := dst[:n]
			field := binary.BigEndian.Uint16(p[16:])
			if sum && (field == 0 || checksum.Checksum(p, 0) != 0xffff) || !sum && field != 0 {
				t.Fatalf("checksum %#x, wanted %v", field, sum)
			}
			if at := binary.BigEndian.Uint32(p[4:]); at != seq+uint32(len(got)) {
				t.Fatalf("sequence number %d, want %d", at, seq+uint32(len(got)))
			}
			last := s.Len() == 0
			want := flags
			if !last {
				want &^= FlagPSH | FlagFIN
			}
			if !first {
				want &^= FlagCWR
			}
			if p[13] != want {
				t.Fatalf("flags %#x, want %#x", p[13], want)
			}
			got = append(got, p[s.HeaderLen():]...)
		}
		if s.Cut(dst, true) != 0 {
			t.Fatal("cut more than there is")
		}
		if !bytes.Equal(got, want) {
			t.Fatal("payload differs")
		}
	})
}

func TestCutNeedsRoom(t *testing.T) {
	pkt := outgoing(1, FlagACK, 1, nil, []byte("data"))
	defer pkt.DecRef()
	s := newSegment(pkt)
	defer s.Release()
	for n := range 21 {
		if k := s.Cut(make([]byte, n), true); k != 0 {
			t.Errorf("cut %d bytes into %d", k, n)
		}
	}
	if s.Len() != 24 {
		t.Errorf("length %d afterwards", s.Len())
	}
}

// sink is a network dispatcher that keeps what an Injector delivers.
type sink struct {
	pkts []sunk
}

type sunk struct {
	id      uint64
	tcp     []byte
	payload []byte
}

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (s *sink) DeliverNetworkPacket(_ gtcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	v := pkt.ToView()
	defer v.Release()
	b := append([]byte(nil), v.AsSlice()...)
	hlen := 40 + int(b[52]>>4)*4
	if int(binary.BigEndian.Uint16(b[4:])) != len(b)-40 || b[0] != 0x60 || b[6] != 6 {
		panic("wrong IPv6 header")
	}
	if binary.BigEndian.Uint64(b[8:]) != remotePrefix || binary.BigEndian.Uint64(b[24:]) != localPrefix {
		panic("wrong addresses")
	}
	s.pkts = append(s.pkts, sunk{binary.BigEndian.Uint64(b[16:]), b[40:hlen], b[hlen:]})
}

// DeliverLinkPacket implements stack.NetworkDispatcher.
func (s *sink) DeliverLinkPacket(gtcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// sinkTunnel gives a Tunnel whose injected packets end in a sink.
func sinkTunnel() (*Tunnel, *sink) {
	s := new(sink)
	t := &Tunnel{cfg: TunnelConfig{Turn: noTurn{}}, link: new(link), acks: newAckHold[uint64](func([]*Segment) {})}
	t.link.Attach(s)
	return t, s
}

// TestInjectorKeepsEachStream cuts the streams of several sessions at random,
// interleaves them, now and then with another acknowledgement or a bare one, and
// checks that each session's bytes arrive in order and complete.
func TestInjectorKeepsEachStream(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tun, got := sinkTunnel()
		in := tun.NewInjector()
		sessions := rapid.IntRange(1, 40).Draw(rt, "sessions")
		rnd := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(rt, "seed")))
		type state struct {
			start, seq, ack uint32
			sent            []byte
			segments        int
		}
		all := make([]state, sessions)
		for i := range all {
			all[i].start = rnd.Uint32()
			all[i].seq = all[i].start
		}
		for range rapid.IntRange(1, 600).Draw(rt, "segments") {
			i := rnd.IntN(sessions)
			s := &all[i]
			payload := make([]byte, rnd.IntN(1400))
			for k := range payload {
				payload[k] = byte(rnd.Uint32())
			}
			if rnd.IntN(20) == 0 {
				s.ack++
			}
			flags := FlagACK
			if rnd.IntN(10) == 0 {
				flags |= FlagPSH
			}
			in.Inject(uint64(i), segment(flags, s.seq, s.ack, make([]byte, 4*(i%3)), payload))
			s.seq += uint32(len(payload))
			s.sent = append(s.sent, payload...)
			s.segments++
			if rnd.IntN(100) == 0 {
				in.Flush()
			}
		}
		in.Flush()
		for i := range all {
			s := &all[i]
			seq, count := s.start, 0
			var data []byte
			for _, p := range got.pkts {
				if p.id != uint64(i) {
					continue
				}
				count++
				if at := binary.BigEndian.Uint32(p.tcp[4:]); at != seq {
					rt.Fatalf("session %d: sequence number %d, want %d", i, at, seq)
				}
				seq += uint32(len(p.payload))
				data = append(data, p.payload...)
			}
			if !bytes.Equal(data, s.sent) {
				rt.Fatalf("session %d: %d of %d bytes, or different ones", i, len(data), len(s.sent))
			}
			if count > s.segments {
				rt.Fatalf("session %d: %d packets of %d segments", i, count, s.segments)
			}
		}
	})
}

func TestInjectorCoalesces(t *testing.T) {
	payload := make([]byte, 1000)
	data := func(seq uint32) []byte { return segment(FlagACK, seq, 1, nil, payload) }
	narrow := data(1000)
	narrow[15] = 0 // low half of the window
	sum(narrow)
	for _, c := range []struct {
		name string
		segs [][]byte
		want []int // payload lengths of what is delivered
	}{
		{"in order", [][]byte{data(0), data(1000), data(2000)}, []int{3000}},
		{"across the wrap", [][]byte{data(0xffff_fc18), data(0)}, []int{2000}},
		{"gap", [][]byte{data(0), data(2000)}, []int{1000, 1000}},
		{"repeated", [][]byte{data(0), data(0)}, []int{1000, 1000}},
		{"overtaken", [][]byte{data(1000), data(0)}, []int{1000, 1000}},
		{"push in between", [][]byte{segment(FlagACK|FlagPSH, 0, 1, nil, payload), data(1000)}, []int{2000}},
		{"other acknowledgement", [][]byte{data(0), segment(FlagACK, 1000, 2, nil, payload)}, []int{1000, 1000}},
		{"other window", [][]byte{data(0), narrow}, []int{1000, 1000}},
		{"other options", [][]byte{segment(FlagACK, 0, 1, []byte{1, 1, 1, 1}, payload), segment(FlagACK, 1000, 1, []byte{1, 1, 1, 0}, payload)}, []int{1000, 1000}},
		{"options of other length", [][]byte{data(0), segment(FlagACK, 1000, 1, []byte{1, 1, 1, 0}, payload)}, []int{1000, 1000}},
		{"bare acknowledgement in between", [][]byte{data(0), segment(FlagACK, 1000, 1, nil, nil), data(1000)}, []int{1000, 0, 1000}},
		{"FIN", [][]byte{data(0), segment(FlagACK|FlagFIN, 1000, 1, nil, payload)}, []int{1000, 1000}},
		{"RST", [][]byte{data(0), segment(FlagRST, 1000, 1, nil, nil)}, []int{1000, 0}},
		{"CWR", [][]byte{data(0), segment(FlagACK|FlagCWR, 1000, 1, nil, payload)}, []int{1000, 1000}},
	} {
		tun, got := sinkTunnel()
		in := tun.NewInjector()
		for _, s := range c.segs {
			in.Inject(1, s)
		}
		in.Flush()
		var lens []int
		for _, p := range got.pkts {
			lens = append(lens, len(p.payload))
		}
		if len(lens) != len(c.want) {
			t.Errorf("%s: delivered %v, want %v", c.name, lens, c.want)
			continue
		}
		for i := range lens {
			if lens[i] != c.want[i] {
				t.Errorf("%s: delivered %v, want %v", c.name, lens, c.want)
			}
		}
	}
}

func TestInjectorDropsWhatIsMalformed(t *testing.T) {
	good := segment(FlagACK, 1, 1, []byte{1, 1, 1, 0}, []byte("payload"))
	change := func(f func(b []byte)) []byte {
		b := append([]byte(nil), good...)
		f(b)
		return b
	}
	tun, got := sinkTunnel()
	in := tun.NewInjector()
	for n := range good {
		in.Inject(1, good[:n])
	}
	in.Inject(1, change(func(b []byte) { b[12] = 0x40; sum(b) }))
	in.Inject(1, change(func(b []byte) { b[12] = 0xf0; sum(b) }))
	in.Inject(1, change(func(b []byte) { b[30]++ }))
	in.Inject(1, make([]byte, 1<<16+100))
	in.Flush()
	st := &tun.stats
	if st.dropMalformed.Load()+st.dropChecksum.Load() != uint64(len(good)+4) || len(got.pkts) != 0 {
		t.Errorf("%d malformed, %d with wrong checksum, %d delivered", st.dropMalformed.Load(), st.dropChecksum.Load(), len(got.pkts))
	}
	// No checksum is none that could be wrong.
	in.Inject(1, change(func(b []byte) { b[16], b[17] = 0, 0 }))
	in.Flush()
	if len(got.pkts) != 1 {
		t.Errorf("%d delivered of one without a checksum", len(got.pkts))
	}
}

func FuzzInject(f *testing.F) {
	f.Add([]byte{0, 0}, segment(FlagACK, 1, 1, nil, []byte("x")))
	f.Fuzz(func(t *testing.T, ids, b []byte) {
		tun, _ := sinkTunnel()
		in := tun.NewInjector()
		for _, id := range ids {
			in.Inject(uint64(id), b)
			if len(b) >= 20 {
				c := append([]byte(nil), b...)
				in.Inject(uint64(id), sum(c))
			}
		}
		in.Flush()
	})
}
