package dtls

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// plainRecord is an unprotected record.
func plainRecord(typ uint8, epoch uint16, seq uint64, body []byte) []byte {
	b := make([]byte, headerLen, headerLen+len(body))
	b[0], b[1], b[2] = typ, 0xfe, 0xfd
	binary.BigEndian.PutUint64(b[epochOffset:], uint64(epoch)<<48|seq)
	binary.BigEndian.PutUint16(b[11:], uint16(len(body)))
	return append(b, body...)
}

// cidRecord is a record of type 25.
func cidRecord(epoch uint16, seq uint64, cid uint64, body []byte) []byte {
	b := plainRecord(typeCID, epoch, seq, nil)[:11]
	b = binary.BigEndian.AppendUint64(b, cid)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

// alive exchanges one more record each way and checks that nothing else came.
func (w *world) alive(c, s *Association) {
	w.t.Helper()
	nc, ns := len(w.clientEvents.received(c)), len(w.serverEvents.received(s))
	check(w.t, sendRecord(c, []byte("still up")))
	check(w.t, sendRecord(s, []byte("still down")))
	eventually(w.t, "data both ways", func() bool {
		return len(w.clientEvents.received(c)) > nc && len(w.serverEvents.received(s)) > ns
	})
	if n := len(w.clientEvents.received(c)) - nc; n != 1 {
		w.t.Errorf("client got %d records, want 1", n)
	}
	if n := len(w.serverEvents.received(s)) - ns; n != 1 {
		w.t.Errorf("server got %d records, want 1", n)
	}
	if c.Err() != nil || s.Err() != nil {
		w.t.Errorf("ended: %v, %v", c.Err(), s.Err())
	}
}

// TestForgedHandshake sends 10,000 forged handshake records to an established
// association: they change nothing, and no record number is used twice (which
// every world checks).
func TestForgedHandshake(t *testing.T) {
	for _, cid := range []bool{false, true} {
		for _, victim := range []string{"server", "client"} {
			t.Run(fmt.Sprintf("cid=%v/%s", cid, victim), func(t *testing.T) {
				w := newWorld(t, func(w *world) { w.clientConfig.ConnectionID = cid })
				c, s := w.pair()
				v, vs, from := s, w.serverSock, netip.MustParseAddrPort(clientAddr)
				if victim == "client" {
					v, from = c, w.serverSock.addr
					w.net.mu.Lock()
					vs = w.net.socks[netip.MustParseAddrPort(clientAddr)]
					w.net.mu.Unlock()
				}
				r := rand.New(rand.NewPCG(5, 6))
				for i := range 10000 {
					body := make([]byte, 12+r.IntN(60))
					for j := range body {
						body[j] = byte(r.Uint32())
					}
					body[0] = []byte{0, 2, 3, 4, 11, 12, 13, 14, 15, 16, 20}[i%11]
					var b []byte
					switch i % 4 {
					case 0:
						b = plainRecord(typeHandshake, 0, uint64(i), body)
					case 1:
						b = plainRecord(typeHandshake, 1, uint64(i%200), body)
					case 2:
						b = cidRecord(1, uint64(i%200), v.localCID, body)
					case 3:
						b = append(plainRecord(typeChangeCipherSpec, 0, uint64(i), []byte{1}), plainRecord(typeHandshake, 1, uint64(i%3), body)...)
					}
					vs.push(from, b)
					if i%100 == 0 {
						check(t, sendRecord(c, []byte("x")))
						check(t, sendRecord(s, []byte("y")))
					}
				}
				eventually(t, "100 records each way", func() bool {
					return len(w.clientEvents.received(c)) == 100 && len(w.serverEvents.received(s)) == 100
				})
				w.alive(c, s)
				for _, e := range []*Endpoint{w.server, w.client} {
					if st := e.Stats(); st.LastFlights != 0 || st.NumberGuard != 0 || st.HandshakesStarted != 1 {
						t.Errorf("%+v", st)
					}
				}
			})
		}
	}
}

// TestForgedPlaintext sends what killed the handshake library's connection, and
// more, to both ends.
func TestForgedPlaintext(t *testing.T) {
	for _, cid := range []bool{false, true} {
		t.Run(fmt.Sprintf("cid=%v", cid), func(t *testing.T) {
			w := newWorld(t, func(w *world) { w.clientConfig.ConnectionID = cid })
			c, s := w.pair()
			w.alive(c, s)
			w.net.mu.Lock()
			cs := w.net.socks[netip.MustParseAddrPort(clientAddr)]
			w.net.mu.Unlock()
			for _, v := range []struct {
				a    *Association
				sock *memSock
				from netip.AddrPort
				ep   *Endpoint
			}{{s, w.serverSock, cs.addr, w.server}, {c, cs, w.serverSock.addr, w.client}} {
				for _, f := range []struct {
					name string
					b    []byte
					want Drop
				}{
					{"close_notify", plainRecord(typeAlert, 0, 9, []byte{1, 0}), DropPlaintext},
					{"fatal alert", plainRecord(typeAlert, 0, 9, []byte{2, 40}), DropPlaintext},
					{"truncated alert", plainRecord(typeAlert, 0, 9, []byte{2}), DropPlaintext},
					{"application data", plainRecord(typeApplicationData, 0, 9, []byte("hello")), DropPlaintext},
					{"change_cipher_spec", plainRecord(typeChangeCipherSpec, 0, 9, []byte{1}), DropPlaintext},
					{"bad change_cipher_spec", plainRecord(typeChangeCipherSpec, 0, 9, []byte{7, 7}), DropPlaintext},
					{"heartbeat", plainRecord(24, 0, 9, []byte{1, 0, 0}), DropPlaintext},
					{"unknown type", plainRecord(99, 0, 9, []byte{1}), DropPlaintext},
					{"handshake", plainRecord(typeHandshake, 0, 9, []byte{20, 0, 0, 12, 0, 7, 0, 0, 0, 0, 0, 12}), DropPlaintext},
					{"type 25 in epoch 0", cidRecord(0, 9, v.a.localCID, []byte("hello")), DropPlaintext},
					{"type 25 in epoch 1", cidRecord(1, 900, v.a.localCID, bytes.Repeat([]byte{3}, 60)), DropOpenFailed},
					{"type 25, unknown ID", cidRecord(1, 900, v.a.localCID^1, bytes.Repeat([]byte{3}, 60)), DropUnknownCID},
					{"type 25, ID 0", cidRecord(1, 900, 0, bytes.Repeat([]byte{3}, 60)), DropUnknownCID},
					{"type 25, last index", cidRecord(1, 900, ^uint64(0), bytes.Repeat([]byte{3}, 60)), DropUnknownCID},
					{"type 25, too short", cidRecord(1, 900, v.a.localCID, []byte{3}), DropOpenFailed},
					{"data in epoch 1", plainRecord(typeApplicationData, 1, 900, bytes.Repeat([]byte{3}, 60)), DropOpenFailed},
					{"alert in epoch 1", plainRecord(typeAlert, 1, 900, bytes.Repeat([]byte{3}, 26)), DropOpenFailed},
					{"data in epoch 1, too short", plainRecord(typeApplicationData, 1, 900, []byte{3}), DropOpenFailed},
					{"unknown type in epoch 1", plainRecord(77, 1, 900, []byte{3}), DropType},
					{"data in epoch 2", plainRecord(typeApplicationData, 2, 900, bytes.Repeat([]byte{3}, 60)), DropEpoch},
					{"garbage", []byte("GET / HTTP/1.1\r\n\r\n"), DropVersion},
					{"one byte", []byte{22}, DropMalformed},
				} {
					want := f.want
					switch h := f.b[0]; {
					case !cid && h == typeCID && want == DropOpenFailed:
						want = DropUnknownCID // ID 0
					case cid && h != typeCID && want == DropOpenFailed:
						want = DropType
					}
					before := v.ep.Stats()
					v.sock.push(v.from, f.b)
					eventually(t, f.name, func() bool { return v.ep.Stats().Drops != before.Drops })
					after := v.ep.Stats()
					if after.Drops[want] != before.Drops[want]+1 {
						t.Errorf("%s: counted %v, want one more %v", f.name, after.Drops, want)
					}
				}
				// Unknown sources get the same nothing.
				before := v.ep.Stats().Drops[DropUnknownPeer]
				v.sock.push(netip.MustParseAddrPort("203.0.113.5:1"), plainRecord(typeApplicationData, 1, 1, []byte("hi")))
				v.sock.push(netip.MustParseAddrPort("203.0.113.5:1"), plainRecord(typeAlert, 0, 1, []byte{1, 0}))
				eventually(t, "unknown peer", func() bool { return v.ep.Stats().Drops[DropUnknownPeer] == before+2 })
			}
			w.alive(c, s)
		})
	}
}

// TestReplayAndTampering sends each record three times, and each once with one
// bit flipped: all of that is counted and none of it delivered.
func TestReplayAndTampering(t *testing.T) {
	for _, cid := range []bool{false, true} {
		t.Run(fmt.Sprintf("cid=%v", cid), func(t *testing.T) {
			w := newWorld(t, func(w *world) { w.clientConfig.ConnectionID = cid })
			c, s := w.pair()
			const n = 500
			r := rand.New(rand.NewPCG(7, 8))
			var copies [][]byte
			w.net.setFilter(func(_, _ netip.AddrPort, b []byte) bool { copies = append(copies, slices.Clone(b)); return true })
			want := payloads(n)
			for _, p := range want {
				check(t, sendRecord(c, p))
			}
			w.net.setFilter(nil)
			for range 2 {
				for _, b := range copies {
					w.serverSock.push(netip.MustParseAddrPort(clientAddr), b)
				}
			}
			for i := range n {
				// A record that is new, so that only its bits are wrong.
				head, tail := c.Overhead()
				b := make([]byte, head+len(want[i])+tail)
				copy(b[head:], want[i])
				size, err := c.Seal(b, len(want[i]))
				check(t, err)
				at := headerLen
				if cid {
					at += cidLen
				}
				at += r.IntN(size - at)
				b[at] ^= 1 << r.IntN(8)
				w.serverSock.push(netip.MustParseAddrPort(clientAddr), b[:size])
			}
			eventually(t, "counters", func() bool {
				d := w.server.Stats().Drops
				return d[DropReplay] == 2*n && d[DropOpenFailed] == n
			})
			sameRecords(t, w.serverEvents.received(s), want)
			w.alive(c, s)
			if i := s.Info(); i.Replays != 2*n || i.OpenFailures != n {
				t.Errorf("%+v", i)
			}
		})
	}
}

// TestNumberGuard asks the handshake's writer for records with numbers that are
// not the library's.
func TestNumberGuard(t *testing.T) {
	h := &handshake{}
	for seq, want := range map[uint64]bool{0: true, firstNumber - 1: true, firstNumber: false, 1<<48 - 1: false} {
		for _, b := range [][]byte{
			plainRecord(typeAlert, 1, seq, make([]byte, 26)),
			cidRecord(1, seq, 7, make([]byte, 27)),
			append(plainRecord(typeChangeCipherSpec, 0, 5, []byte{1}), plainRecord(typeHandshake, 1, seq, make([]byte, 40))...),
		} {
			if got := h.inspect(b); got != want {
				t.Errorf("number %d, type %d: %v, want %v", seq, b[0], got, want)
			}
		}
	}
}
