package dtls

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	pion "github.com/pion/dtls/v3"
)

// flightOf names the part of the handshake that a datagram belongs to, by its
// first record.
func flightOf(b []byte) string {
	h, n, drop := parseHeader(b)
	if drop != numDrops {
		return "?"
	}
	if h.epoch == 1 {
		return "protected"
	}
	switch h.typ {
	case typeChangeCipherSpec:
		return "ccs"
	case typeHandshake:
		body := b[h.start:n]
		if body[0] == msgClientHello {
			if body[helloRandom+32+1] == 0 && body[helloRandom+32] == 0 { // session id, cookie
				return "hello"
			}
			return "hello2"
		}
		return map[byte]string{2: "server hello", 3: "verify request", 11: "certificate", 16: "key exchange"}[body[0]]
	}
	return "?"
}

// TestLoss drops the first copies of each flight in turn, both ways; the
// handshake recovers, with every Connection ID setting, and data flows. Who repeats
// a last flight, the handshake or the records, depends on which of them it meets.
func TestLoss(t *testing.T) {
	t.Parallel()
	for _, psk := range []bool{false, true} {
		for _, cid := range []bool{false, true} {
			for _, flight := range []string{"hello", "verify request", "hello2", "server hello", "certificate", "key exchange", "ccs"} {
				if psk && flight == "certificate" {
					continue // the client's flight then begins with the key exchange
				}
				if !psk && flight == "key exchange" {
					continue
				}
				for _, copies := range []int{1, 3} {
					t.Run(fmt.Sprintf("psk=%v/cid=%v/%s/%d", psk, cid, flight, copies), func(t *testing.T) {
						t.Parallel()
						w := newWorld(t, func(w *world) {
							w.clientConfig.ConnectionID = cid
							w.clientConfig.FlightInterval = 30 * time.Millisecond
							w.serverConfig.FlightInterval = 30 * time.Millisecond
							if psk {
								w.dial.PSK = &PreShared{"laptop", testPSK}
							}
						})
						var mu sync.Mutex
						left := copies
						w.net.setFilter(func(_, _ netip.AddrPort, b []byte) bool {
							mu.Lock()
							defer mu.Unlock()
							if left > 0 && flightOf(b) == flight {
								left--
								return false
							}
							return true
						})
						c, s := w.pair()
						mu.Lock()
						defer mu.Unlock()
						if left != 0 {
							t.Fatalf("%d copies of the flight were not seen", left)
						}
						w.net.setFilter(nil)
						want := payloads(20)
						for _, p := range want {
							check(t, sendRecord(c, p))
							check(t, sendRecord(s, p))
						}
						eventually(t, "data", func() bool {
							return len(w.serverEvents.received(s)) == 20 && len(w.clientEvents.received(c)) == 20
						})
						if n := w.serverEvents.count() + w.clientEvents.count(); n != 2 {
							t.Errorf("%d associations", n)
						}
					})
				}
			}
		}
	}
}

// TestEarlyData lets the server's data overtake its last flight.
func TestEarlyData(t *testing.T) {
	for _, cid := range []bool{false, true} {
		t.Run(fmt.Sprintf("cid=%v", cid), func(t *testing.T) {
			w := newWorld(t, func(w *world) { w.clientConfig.ConnectionID = cid })
			want := payloads(10)
			var mu sync.Mutex
			var held [][]byte
			overtaken := 0
			w.net.setFilter(func(from, to netip.AddrPort, b []byte) bool {
				mu.Lock()
				defer mu.Unlock()
				if from != w.serverSock.addr || overtaken == len(want) {
					return true
				}
				switch flightOf(b) {
				case "ccs":
					held = append(held, slices.Clone(b))
					return false
				case "protected":
					if overtaken++; overtaken == len(want) {
						// Behind this record come the held ones.
						w.net.mu.Lock()
						s := w.net.socks[to]
						w.net.mu.Unlock()
						s.push(from, b)
						for _, h := range held {
							s.push(from, h)
						}
						return false
					}
				}
				return true
			})
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				eventually(t, "server's association", func() bool { return w.serverEvents.last() != nil })
				for _, p := range want {
					check(t, sendRecord(w.serverEvents.last(), p))
				}
			}()
			c, err := w.connect(clientAddr)
			check(t, err)
			<-sent
			eventually(t, "early data", func() bool { return len(w.clientEvents.received(c)) == len(want) })
			sameRecords(t, w.clientEvents.received(c), want)
		})
	}
}

// TestEarlyDataIsBounded floods a client whose handshake cannot end.
func TestEarlyDataIsBounded(t *testing.T) {
	w := newWorld(t, nil)
	w.net.setFilter(func(from, _ netip.AddrPort, b []byte) bool {
		return from != w.serverSock.addr || flightOf(b) != "ccs"
	})
	done := make(chan error, 1)
	go func() { _, err := w.connect(clientAddr); done <- err }()
	eventually(t, "server's association", func() bool { return w.serverEvents.last() != nil })
	for range 10 * earlyRecords {
		check(t, sendRecord(w.serverEvents.last(), []byte("early")))
	}
	eventually(t, "drops", func() bool { return w.client.Stats().Drops[DropEarly] >= 9*earlyRecords })
	w.net.setFilter(nil)
	check(t, <-done)
	c := w.clientEvents.last()
	eventually(t, "what was kept", func() bool { return len(w.clientEvents.received(c)) == earlyRecords })
}

// TestLibraryClientLosesLastFlight is the loss of our last flight with a peer
// that numbers each repetition anew, or repeats byte for byte (with a
// Connection ID).
func TestLibraryClientLosesLastFlight(t *testing.T) {
	t.Parallel()
	for cid, gen := range libraryCIDs {
		t.Run(cid, func(t *testing.T) {
			w := newWorld(t, nil)
			var mu sync.Mutex
			left := 3
			w.net.setFilter(func(from, _ netip.AddrPort, b []byte) bool {
				mu.Lock()
				defer mu.Unlock()
				if from == w.serverSock.addr && left > 0 && flightOf(b) == "ccs" {
					left--
					return false
				}
				return true
			})
			opts := []pion.ClientOption{
				pion.WithCertificates(w.clientConfig.Certificate), pion.WithRootCAs(w.ca.pool), pion.WithServerName("edge"),
				pion.WithFlightInterval(60 * time.Millisecond),
			}
			if gen != nil {
				opts = append(opts, pion.WithConnectionIDGenerator(gen))
			}
			conn := w.libraryClient(opts...)
			mu.Lock()
			lost := 3 - left
			mu.Unlock()
			// The client is there, so the flight came after all. The handshake may have
			// repeated it too, before it handed over; those are not counted here.
			if n := w.server.Stats().LastFlights; lost != 3 || n == 0 || n > 3 {
				t.Errorf("%d last flights lost, want 3, and %d repeated by the records, want 1 to 3", lost, n)
			}
			exchange(t, w.serverEvents.last(), w.serverEvents, conn)
		})
	}
}

// TestLastFlightIsBounded repeats the client's Finished message, which is
// authentic, very often.
func TestLastFlightIsBounded(t *testing.T) {
	w := newWorld(t, nil)
	var mu sync.Mutex
	var finished []byte
	w.net.setFilter(func(from, _ netip.AddrPort, b []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		for rest := b; from != w.serverSock.addr && len(rest) > 0 && finished == nil; {
			h, n, drop := parseHeader(rest)
			if drop != numDrops {
				break
			}
			if h.epoch == 1 {
				finished = slices.Clone(rest[:n])
			}
			rest = rest[n:]
		}
		return true
	})
	c, s := w.pair()
	began := time.Now()
	const copies = 2000
	for range copies {
		w.serverSock.push(netip.MustParseAddrPort(clientAddr), finished)
	}
	check(t, sendRecord(c, []byte("end")))
	eventually(t, "data", func() bool { return len(w.serverEvents.received(s)) == 1 })
	if n, most := w.server.Stats().LastFlights, uint64(time.Since(began)/lastFlightEvery)+1; n == 0 || n > most {
		t.Errorf("last flight repeated %d times, want 1 to %d", n, most)
	}
}
