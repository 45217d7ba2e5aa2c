package dtls

import (
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	pion "github.com/pion/dtls/v3"
)

// TestConcurrentSeal seals from many goroutines: every record arrives once, and
// no number repeats (which every world checks).
func TestConcurrentSeal(t *testing.T) {
	w := newWorld(t, nil)
	w.serverSock.mu.Lock()
	w.serverSock.gro = true
	w.serverSock.mu.Unlock()
	c, s := w.pair()
	const workers, each = 8, 500
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for j := range each {
				if err := sendRecord(c, binary.BigEndian.AppendUint32(nil, uint32(i*each+j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all records", func() bool { return len(w.serverEvents.received(s)) == workers*each })
	seen := map[uint32]bool{}
	for _, b := range w.serverEvents.received(s) {
		seen[binary.BigEndian.Uint32(b)] = true
	}
	if len(seen) != workers*each {
		t.Errorf("%d different records of %d", len(seen), workers*each)
	}
	if i := c.Info(); i.RecordsOut != workers*each {
		t.Errorf("%+v", i)
	}
}

// TestLargeCertificate sends certificates of several datagrams: none is above
// 1200 bytes.
func TestLargeCertificate(t *testing.T) {
	t.Parallel()
	many := func(c *x509.Certificate) {
		for i := range 120 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("a-rather-long-alternative-name-%d.example.net", i))
		}
	}
	w := newWorld(t, func(w *world) {
		w.serverConfig.Certificate = w.ca.issue(t, "edge", true, many)
		w.clientConfig.Certificate = w.ca.issue(t, "laptop-7", true, many)
	})
	var largest atomic.Int64
	w.net.setFilter(func(_, _ netip.AddrPort, b []byte) bool {
		for n := largest.Load(); int64(len(b)) > n && !largest.CompareAndSwap(n, int64(len(b))); n = largest.Load() {
		}
		return true
	})
	c, s := w.pair()
	if n := largest.Load(); n > 1200 || n < 1100 {
		t.Errorf("largest handshake datagram has %d bytes", n)
	}
	w.alive(c, s)
	if n := len(s.Identity().Names); n != 121 {
		t.Errorf("%d names", n)
	}
}

// TestFragmentFlood sends fragments of handshake messages without end: what is
// kept of them is bounded.
func TestFragmentFlood(t *testing.T) {
	w := newWorld(t, nil)
	hello := helloRecord(t, w)
	from := netip.MustParseAddrPort("203.0.113.5:1000")
	w.serverSock.push(from, hello)
	body := make([]byte, 1100)
	body[0] = msgClientHello
	body[1] = 0x10 // of a megabyte
	for i := range 300 {
		b := slices.Clone(body)
		binary.BigEndian.PutUint16(b[4:], uint16(1+i/4))
		off := 1 + i%4*1088
		b[6], b[7], b[8] = 0, byte(off>>8), byte(off)
		binary.BigEndian.PutUint16(b[10:], 1088)
		w.serverSock.push(from, plainRecord(typeHandshake, 0, uint64(i+1), b))
	}
	c, s := w.pair()
	w.alive(c, s)
	if n := w.server.Stats().Drops[DropHandshakeQueue]; n < 300-acceptBudget/1100 {
		t.Errorf("%d fragments refused", n)
	}
}

// TestLocalAddress answers from the address that was asked.
func TestLocalAddress(t *testing.T) {
	local := netip.MustParseAddr("192.0.2.200")
	w := newWorld(t, nil)
	w.serverSock.mu.Lock()
	w.serverSock.local, w.serverSock.record = local, true
	w.serverSock.mu.Unlock()
	c, s := w.pair()
	w.alive(c, s)
	if got, want := s.Local(), netip.AddrPortFrom(local, 443); got != want {
		t.Errorf("local address %v, want %v", got, want)
	}
	w.serverSock.mu.Lock()
	defer w.serverSock.mu.Unlock()
	if len(w.serverSock.batches) == 0 {
		t.Error("nothing sent")
	}
	for _, b := range w.serverSock.batches {
		if b[0].Local != local {
			t.Errorf("sent from %v", b[0].Local)
		}
	}
}

// TestReplayOfLowNumbers replays data of a peer whose numbers begin at 1, where
// ours still look for repeated Finished messages.
func TestReplayOfLowNumbers(t *testing.T) {
	w := newWorld(t, nil)
	conn := w.libraryClient(pion.WithCertificates(w.clientConfig.Certificate), pion.WithRootCAs(w.ca.pool), pion.WithServerName("edge"))
	eventually(t, "association", func() bool { return w.serverEvents.last() != nil })
	s := w.serverEvents.last()
	var mu sync.Mutex
	var copies [][]byte
	w.net.setFilter(func(_, _ netip.AddrPort, b []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		copies = append(copies, slices.Clone(b))
		return true
	})
	const n = 20
	for range n {
		_, err := conn.Write([]byte("once"))
		check(t, err)
	}
	w.net.setFilter(nil)
	for _, b := range copies {
		w.serverSock.push(netip.MustParseAddrPort(clientAddr), b)
	}
	eventually(t, "replays", func() bool { return w.server.Stats().Drops[DropReplay] == n })
	if got := len(w.serverEvents.received(s)); got != n {
		t.Errorf("%d records delivered, want %d", got, n)
	}
}
