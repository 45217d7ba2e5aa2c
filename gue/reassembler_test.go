package gue

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func key(id uint64) FragmentKey {
	return FragmentKey{Src: outer4.Src, Dst: outer4.Dst, OrigProto: ProtoIPv4, ID: id}
}

// piece makes the fragment data[start:end] of a packet.
func piece(k FragmentKey, data []byte, start, end int) *Piece {
	p := &Piece{
		Key:        k,
		ProtoCtype: k.OrigProto,
		Fragment:   Fragment{Offset: uint16(start / FragmentUnit), More: end < len(data), OrigProto: k.OrigProto, ID: k.ID},
		Data:       data[start:end],
	}
	if start > 0 {
		p.ProtoCtype = none(k.Control)
	}
	return p
}

func newReassembler(t testing.TB, cfg ReassemblerConfig) *Reassembler {
	t.Helper()
	r, err := NewReassembler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func (r *Reassembler) mustHold(t *testing.T, now time.Time, p *Piece) {
	t.Helper()
	if got, _, drop := r.Add(now, p); got != nil || drop != DropNone {
		t.Fatalf("fragment at %d: %d bytes, %v", p.Fragment.Offset, len(got), drop)
	}
}

func (r *Reassembler) mustDrop(t *testing.T, now time.Time, p *Piece, want Drop) {
	t.Helper()
	if got, _, drop := r.Add(now, p); got != nil || drop != want {
		t.Fatalf("fragment at %d: %d bytes, %v, want %v", p.Fragment.Offset, len(got), drop, want)
	}
}

// TestReassembleAnyOrder cuts packets of many sizes with a Fragmenter, shuffles
// and interleaves the fragments, and expects the packets.
func TestReassembleAnyOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(21, 22))
	r := newReassembler(t, ReassemblerConfig{})
	for round := range 200 {
		var all []*Piece
		packets := make(map[uint64][]byte)
		for i := range uint64(4) {
			id := uint64(round)<<8 | i
			data := counting(1 + rnd.IntN(6000))
			if rnd.IntN(20) == 0 {
				data = counting(MaxPacket - rnd.IntN(9))
			}
			control := rnd.IntN(2) == 0
			f, err := NewFragmenter(control, ProtoIPv4, id, len(data), 8+rnd.IntN(1500))
			if err != nil {
				t.Fatal(err)
			}
			packets[id] = data
			at := 0
			for {
				var h Header
				start, end, ok := f.Next(&h)
				if !ok {
					break
				}
				if start != at || h.Control != control || h.Has != FieldFragment {
					t.Fatalf("fragment from %d, want %d: %+v", start, at, h)
				}
				at = end
				k := key(id)
				k.Control = control
				all = append(all, &Piece{Key: k, ProtoCtype: h.ProtoCtype, Fragment: h.Fragment, Data: data[start:end]})
			}
			if at != len(data) {
				t.Fatalf("fragments end at %d of %d", at, len(data))
			}
		}
		rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, p := range all {
			got, _, drop := r.Add(epoch, p)
			if drop != DropNone {
				t.Fatal(drop)
			}
			if got == nil {
				continue
			}
			if !bytes.Equal(got, packets[p.Key.ID]) {
				t.Fatalf("packet %d of %d bytes came back different", p.Key.ID, len(got))
			}
			delete(packets, p.Key.ID)
		}
		if len(packets) != 0 || r.Pending() != 0 {
			t.Fatalf("%d packets missing, %d pending", len(packets), r.Pending())
		}
		if r.bytes > DefaultMaxBytes {
			t.Fatalf("%d bytes of buffers", r.bytes)
		}
	}
}

// TestReassembleKey keeps fragments apart that differ in any part of the key.
func TestReassembleKey(t *testing.T) {
	data := counting(24)
	base := key(1)
	other := []func(*FragmentKey){
		func(k *FragmentKey) { k.Src = netip.MustParseAddrPort("192.0.2.9:50000") },
		func(k *FragmentKey) { k.Src = netip.MustParseAddrPort("192.0.2.1:50001") },
		func(k *FragmentKey) { k.Dst = netip.MustParseAddrPort("192.0.2.9:6080") },
		func(k *FragmentKey) { k.Dst = netip.MustParseAddrPort("192.0.2.2:6081") },
		func(k *FragmentKey) { k.Control = true },
		func(k *FragmentKey) { k.HasGroup = true },
		func(k *FragmentKey) { k.HasGroup, k.Group = true, 1 },
		func(k *FragmentKey) { k.OrigProto = ProtoIPv6 },
		func(k *FragmentKey) { k.ID = 2 },
		func(k *FragmentKey) { k.Source = 1 },
		func(k *FragmentKey) { k.Destination = 1 },
	}
	r := newReassembler(t, ReassemblerConfig{})
	r.mustHold(t, epoch, piece(base, data, 0, 16))
	for _, change := range other {
		k := base
		change(&k)
		r.mustHold(t, epoch, piece(k, data, 16, 24))
	}
	if got, _, _ := r.Add(epoch, piece(base, data, 16, 24)); !bytes.Equal(got, data) {
		t.Errorf("own fragment: %x", got)
	}
	if r.Pending() != len(other) {
		t.Errorf("%d pending, want %d", r.Pending(), len(other))
	}
}

func TestReassembleRules(t *testing.T) {
	data := counting(64)
	k := key(1)
	t.Run("overlap", func(t *testing.T) {
		r := newReassembler(t, ReassemblerConfig{})
		r.mustHold(t, epoch, piece(k, data, 16, 32))
		bad := bytes.Repeat([]byte{0xee}, 64)
		for _, at := range [][2]int{{16, 32}, {8, 24}, {24, 40}, {16, 24}, {24, 32}, {8, 40}, {0, 64}} {
			if at == [2]int{0, 64} {
				continue // whole, see below
			}
			r.mustDrop(t, epoch, piece(k, bad, at[0], at[1]), DropFragmentOverlap)
		}
		// a packet in one piece stands for itself
		if got, _, drop := r.Add(epoch, piece(k, bad, 0, 64)); !bytes.Equal(got, bad) || drop != DropNone {
			t.Errorf("whole packet: %x, %v", got, drop)
		}
		r.mustHold(t, epoch, piece(k, data, 0, 16))
		if got, _, _ := r.Add(epoch, piece(k, data, 32, 64)); !bytes.Equal(got, data) {
			t.Errorf("packet %x", got)
		}
	})
	t.Run("end", func(t *testing.T) {
		r := newReassembler(t, ReassemblerConfig{})
		r.mustHold(t, epoch, piece(k, data[:44], 40, 44))                  // the packet has 44 bytes
		r.mustDrop(t, epoch, piece(k, data[:30], 24, 30), DropFragmentEnd) // no, 30
		r.mustDrop(t, epoch, piece(k, data, 48, 56), DropFragmentEnd)      // behind the end
		r.mustDrop(t, epoch, piece(k, data, 40, 48), DropFragmentOverlap)  // shares its last unit
		r.mustHold(t, epoch, piece(k, data, 8, 40))                        //
		if got, _, _ := r.Add(epoch, piece(k, data, 0, 8)); !bytes.Equal(got, data[:44]) {
			t.Errorf("packet %x", got)
		}
		r.mustHold(t, epoch, piece(k, data, 48, 56))
		r.mustDrop(t, epoch, piece(k, data[:44], 40, 44), DropFragmentEnd) // ends before what is held
	})
	t.Run("form", func(t *testing.T) {
		r := newReassembler(t, ReassemblerConfig{MaxPacket: 1500, MinFirst: 16})
		p := piece(k, data, 0, 16)
		p.Fragment.Reserved = 2
		r.mustDrop(t, epoch, p, DropFragmentReserved)
		p = piece(k, data, 0, 16)
		p.ProtoCtype = ProtoNone
		r.mustDrop(t, epoch, p, DropFragmentProto)
		p = piece(k, data, 16, 24)
		p.ProtoCtype = ControlContext
		r.mustDrop(t, epoch, p, DropFragmentProto)
		r.mustDrop(t, epoch, piece(k, data, 16, 28), DropFragmentLength)
		r.mustDrop(t, epoch, piece(k, data, 16, 16), DropFragmentLength)
		r.mustDrop(t, epoch, piece(k, data, 64, 64), DropFragmentLength)
		r.mustDrop(t, epoch, piece(k, data, 0, 8), DropFragmentFirst)
		big := counting(1504)
		r.mustDrop(t, epoch, piece(k, big, 1496, 1504), DropFragmentSize)
		r.mustHold(t, epoch, piece(k, big[:1500], 1496, 1500))
		// nothing but the last one is held
		if r.Pending() != 1 {
			t.Errorf("%d pending", r.Pending())
		}
	})
}

func TestReassembleExpiry(t *testing.T) {
	data := counting(24)
	r := newReassembler(t, ReassemblerConfig{})
	if _, ok := r.Deadline(); ok {
		t.Error("deadline without a packet")
	}
	r.mustHold(t, epoch, piece(key(1), data, 0, 8))
	r.mustHold(t, epoch.Add(time.Second), piece(key(2), data, 0, 8))
	// a later fragment does not extend the time
	r.mustHold(t, epoch.Add(59*time.Second), piece(key(1), data, 8, 16))
	if d, ok := r.Deadline(); !ok || !d.Equal(epoch.Add(60*time.Second)) {
		t.Errorf("deadline %v, %t", d, ok)
	}
	if n := r.Expire(epoch.Add(60*time.Second - 1)); n != 0 {
		t.Errorf("%d expired early", n)
	}
	if n := r.Expire(epoch.Add(60 * time.Second)); n != 1 || r.Pending() != 1 {
		t.Errorf("%d expired, %d pending", n, r.Pending())
	}
	// Add expires too, so the rest of packet 2 comes too late
	r.mustHold(t, epoch.Add(61*time.Second), piece(key(2), data, 8, 24))
	if r.Pending() != 1 {
		t.Errorf("%d pending", r.Pending())
	}
	// and what an expired packet held does not show in the next one
	if got, _, _ := r.Add(epoch.Add(62*time.Second), piece(key(2), data, 0, 8)); !bytes.Equal(got, data) {
		t.Errorf("packet %x", got)
	}
}

func TestReassembleLimits(t *testing.T) {
	data := counting(24)
	from := func(host byte, id uint64) FragmentKey {
		k := key(id)
		k.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, host}), uint16(id))
		return k
	}
	r := newReassembler(t, ReassemblerConfig{MaxPackets: 3, MaxPerSource: 2})
	r.mustHold(t, epoch, piece(from(1, 1), data, 0, 8))
	r.mustHold(t, epoch, piece(from(1, 2), data, 0, 8))
	r.mustDrop(t, epoch, piece(from(1, 3), data, 0, 8), DropFragmentLimit)
	r.mustHold(t, epoch, piece(from(2, 1), data, 0, 8))
	r.mustDrop(t, epoch, piece(from(3, 1), data, 0, 8), DropFragmentLimit)
	// packets that are held go on
	if got, _, _ := r.Add(epoch, piece(from(1, 1), data, 8, 24)); !bytes.Equal(got, data) {
		t.Errorf("packet %x", got)
	}
	r.mustHold(t, epoch, piece(from(3, 1), data, 0, 8))

	r = newReassembler(t, ReassemblerConfig{MaxBytes: 8192})
	large := counting(8000)
	r.mustHold(t, epoch, piece(key(1), large, 0, 8))
	r.mustHold(t, epoch, piece(key(2), large, 0, 8))
	r.mustDrop(t, epoch, piece(key(1), large, 7000, 7200), DropFragmentLimit) // 2048 + 8192
	r.mustDrop(t, epoch, piece(key(3), large, 7000, 7200), DropFragmentLimit)
	if r.Pending() != 2 || r.bytes != 4096 {
		t.Errorf("%d pending, %d bytes", r.Pending(), r.bytes)
	}
	// buffers of finished packets make room
	r.Expire(epoch.Add(time.Hour))
	r.mustHold(t, epoch.Add(time.Hour), piece(key(1), large, 7000, 7200))
	if r.bytes != 8192 {
		t.Errorf("%d bytes of buffers", r.bytes)
	}
}

// TestReassembleStale wants no byte of an earlier packet in a later one.
func TestReassembleStale(t *testing.T) {
	r := newReassembler(t, ReassemblerConfig{})
	old := bytes.Repeat([]byte{0xee}, 4000)
	r.mustHold(t, epoch, piece(key(1), old, 0, 2000))
	if got, _, _ := r.Add(epoch, piece(key(1), old, 2000, 4000)); !bytes.Equal(got, old) {
		t.Fatal("first packet")
	}
	data := counting(100)
	r.mustHold(t, epoch, piece(key(1), data, 48, 100))
	if got, _, _ := r.Add(epoch, piece(key(1), data, 0, 48)); !bytes.Equal(got, data) {
		t.Errorf("packet %x", got)
	}
}

func TestReassembleECN(t *testing.T) {
	data := counting(24)
	for _, c := range []struct{ a, b, want ECN }{
		{NotECT, NotECT, NotECT}, {ECT0, ECT0, ECT0}, {ECT0, CE, CE}, {CE, ECT0, CE}, {ECT1, ECT0, ECT1},
	} {
		r := newReassembler(t, ReassemblerConfig{})
		first, last := piece(key(1), data, 0, 8), piece(key(1), data, 8, 24)
		first.ECN, last.ECN = c.a, c.b
		r.mustHold(t, epoch, last)
		if _, got, _ := r.Add(epoch, first); got != c.want {
			t.Errorf("%d and %d: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestReassemblerConfigRefused(t *testing.T) {
	for _, cfg := range []ReassemblerConfig{
		{Timeout: -1}, {MaxPacket: 1499}, {MaxPacket: 65536}, {MinFirst: -1}, {MaxPackets: -1},
		{MaxPerSource: -1}, {MaxBytes: -1}, {MaxBytes: 2047},
	} {
		if _, err := NewReassembler(cfg); err == nil {
			t.Errorf("%+v accepted", cfg)
		}
	}
}

func TestFragmenterRefuses(t *testing.T) {
	for _, c := range [][2]int{{0, 8}, {-1, 8}, {MaxPacket + 1, 8}, {100, 7}} {
		if _, err := NewFragmenter(false, ProtoTCP, 1, c[0], c[1]); !errors.Is(err, ErrHeader) {
			t.Errorf("%v: %v", c, err)
		}
	}
}
