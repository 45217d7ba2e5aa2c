package dtls

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// keyed makes the two ends of one direction.
func keyed(t testing.TB, s Suite, cid []byte) *protector {
	t.Helper()
	p := suites[s]
	key, iv := bytes.Repeat([]byte{7}, p.key), bytes.Repeat([]byte{9}, p.iv)
	pr, err := newProtector(p, key, iv)
	check(t, err)
	pr.cid = cid
	return &pr
}

func TestSealOpen(t *testing.T) {
	for s := range suites {
		for _, cid := range [][]byte{nil, {0, 0, 0, 1, 5, 6, 7, 8}} {
			t.Run(fmt.Sprintf("%v/cid=%d", s, len(cid)), func(t *testing.T) {
				p := keyed(t, s, cid)
				var sc scratch
				for _, n := range []int{0, 1, 100, 1431, maxPlaintext} {
					plain := make([]byte, n)
					for i := range plain {
						plain[i] = byte(i * 7)
					}
					b := bytes.Repeat([]byte{0xaa}, p.head()+n+p.tail()) // dirty
					copy(b[p.head():], plain)
					seq := uint64(n) + 1<<40
					size := p.seal(&sc, typeApplicationData, seq, b, n)
					if size != len(b) {
						t.Fatalf("record of %d bytes, want %d", size, len(b))
					}
					h, l, drop := parseHeader(b)
					if drop != numDrops || l != size || h.seq != seq || h.epoch != 1 {
						t.Fatalf("header %+v, length %d, drop %v", h, l, drop)
					}
					for i := 0; i < size; i += 1 + size/97 { // every part is authenticated
						bad := bytes.Clone(b)
						bad[i] ^= 1
						hb, lb, drop := parseHeader(bad)
						if drop != numDrops || lb != size || (hb.typ == typeCID) != (cid != nil) {
							continue // not even a record of this direction
						}
						if _, _, ok := p.open(&sc, hb, bad); ok && i != 11 && i != 12 || ok && cid == nil {
							// A changed Connection ID is refused by the table before.
							if cid == nil || i < 11 || i >= 11+cidLen {
								t.Fatalf("record with bit flipped in byte %d opened", i)
							}
						}
					}
					typ, got, ok := p.open(&sc, h, b)
					if !ok || typ != typeApplicationData || !bytes.Equal(got, plain) {
						t.Fatalf("opened: %v, type %d, %d bytes", ok, typ, len(got))
					}
				}
			})
		}
	}
}

// TestInnerPadding opens records with the zeros that RFC 9146 allows after the
// real type, and one that is nothing but zeros.
func TestInnerPadding(t *testing.T) {
	p := keyed(t, ECDHEECDSAWithAES128GCM, []byte{0, 0, 0, 1, 5, 6, 7, 8})
	var sc scratch
	for _, c := range []struct {
		inner string
		typ   uint8
		plain string
	}{
		{"data\x17\x00\x00\x00", typeApplicationData, "data"},
		{"da\x00\x17", typeApplicationData, "da\x00"},
		{"\x17\x00", typeApplicationData, ""},
		{"\x00\x00\x00", 0, ""},
	} {
		n := len(c.inner) - 1
		b := make([]byte, p.head()+n+p.tail())
		copy(b[p.head():], c.inner)
		size := p.seal(&sc, c.inner[n], 1, b, n) // the last byte takes the place of the type
		h, _, _ := parseHeader(b[:size])
		typ, plain, ok := p.open(&sc, h, b[:size])
		if !ok || typ != c.typ || string(plain) != c.plain {
			t.Errorf("%q: type %d, %q, %v", c.inner, typ, plain, ok)
		}
	}
}

func TestParseHeader(t *testing.T) {
	ok := []byte{23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 3, 1, 2, 3}
	withCID := []byte{25, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0, 3, 1, 2, 3}
	edit := func(b []byte, i int, v byte) []byte { b = bytes.Clone(b); b[i] = v; return b }
	for _, c := range []struct {
		name string
		b    []byte
		want Drop
	}{
		{"plain", ok, numDrops},
		{"with CID", withCID, numDrops},
		{"followed by another", append(bytes.Clone(ok), ok...), numDrops},
		{"TLS version", edit(ok, 1, 3), DropVersion},
		{"DTLS 1.0 in epoch 1", edit(ok, 2, 0xff), DropVersion},
		{"DTLS 1.0 in epoch 0", edit(edit(ok, 2, 0xff), 4, 0), numDrops},
		{"epoch 2", edit(ok, 4, 2), DropEpoch},
		{"epoch 257", edit(ok, 3, 1), DropEpoch},
		{"empty", edit(ok, 12, 0), DropMalformed},
		{"length beyond the end", edit(ok, 12, 4), DropMalformed},
		{"length beyond the limit", append(edit(ok, 11, 0x42), make([]byte, 1<<15)...), DropMalformed},
	} {
		if _, n, got := parseHeader(c.b); got != c.want || got == numDrops && n != min(len(c.b), 24-8*b2i(c.b[0] == 23)) {
			t.Errorf("%s: %v, length %d, want %v", c.name, got, n, c.want)
		}
	}
	for _, b := range [][]byte{ok, withCID} {
		for n := range b {
			if _, _, got := parseHeader(b[:n]); got != DropMalformed {
				t.Errorf("cut to %d of %d bytes: %v", n, len(b), got)
			}
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte{23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 3, 1, 2, 3})
	f.Add([]byte{25, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0, 3, 1, 2, 3})
	p := keyed(f, ECDHEECDSAWithAES128GCM, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		var sc scratch
		h, n, drop := parseHeader(b)
		if drop != numDrops {
			return
		}
		if n > len(b) || h.start >= n {
			t.Fatalf("header %+v, length %d of %d bytes", h, n, len(b))
		}
		plainAllowed(h, b[:n])
		if _, _, ok := p.open(&sc, h, b[:n]); ok {
			t.Fatal("opened")
		}
	})
}

func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		seen := map[uint64]bool{}
		next := uint64(0)
		base := rapid.Uint64Range(0, 1<<47).Draw(t, "base")
		for range rapid.IntRange(1, 300).Draw(t, "n") {
			var seq uint64
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				seq = next + uint64(rapid.IntRange(0, 3*windowSize).Draw(t, "ahead"))
			case 1:
				seq = next + uint64(rapid.IntRange(0, 70).Draw(t, "near"))
			default:
				seq = next - min(next, uint64(rapid.IntRange(1, windowSize+100).Draw(t, "behind")))
			}
			if next == 0 {
				seq = base
			}
			tooOld := next > seq && next-seq > span
			if got, want := w.fresh(seq), !seen[seq] && !tooOld; got != want {
				t.Fatalf("fresh(%d) = %v with next %d, want %v", seq, got, next, want)
			}
			if !w.fresh(seq) {
				continue
			}
			if got, want := w.mark(seq), seq >= next; got != want {
				t.Fatalf("mark(%d) = %v with next %d", seq, got, next)
			}
			seen[seq] = true
			next = max(next, seq+1)
		}
	})
}

// TestWindowReordering shuffles numbers within a distance that a path with
// segmentation offload shows: none is lost, and every copy is refused.
func TestWindowReordering(t *testing.T) {
	const n, distance = 50000, 4096
	seqs := make([]uint64, n)
	for i := range seqs {
		seqs[i] = uint64(i)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i+distance <= n; i += distance {
		r.Shuffle(distance, func(a, b int) { seqs[i+a], seqs[i+b] = seqs[i+b], seqs[i+a] })
	}
	var w window
	for _, s := range seqs {
		if !w.fresh(s) {
			t.Fatalf("%d refused, next is %d", s, w.next)
		}
		w.mark(s)
		if w.fresh(s) {
			t.Fatalf("%d accepted twice", s)
		}
	}
}
