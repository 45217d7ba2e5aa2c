package dtls

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tougw/tougw/internal/simnet"
)

// TestHostilePath connects over seeded paths that lose, duplicate and reorder,
// and later corrupt (a handshake has no integrity until its end). Every handshake succeeds in its time, no number is used for two
// records, and data arrives unchanged and at most once.
func TestHostilePath(t *testing.T) {
	t.Parallel()
	// The bubble's clock begins in the year 2000.
	ca := newAuthority(t)
	server, client := ca.issue(t, "edge", false, nil), ca.issue(t, "laptop-7", false, nil)
	for seed := range int64(40) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				link := simnet.Link{Loss: 0.1, Duplicate: 0.1, Reorder: 0.2, Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, MTU: 1400}
				n := simnet.New(simnet.Config{Seed: seed, Coalesce: seed%2 == 0, Link: link})
				defer n.Close()
				var seen numbers
				n.SetTap(func(from, to netip.AddrPort, b []byte) bool {
					seen.see(t, from, to, append([]byte(nil), b...))
					return true
				})
				cfg := Config{Roots: ca.pool, Certificate: server, ConnectionID: seed%3 != 0, HandshakeTimeout: 60 * time.Second, HelloTimeout: 30 * time.Second}
				cfg.LookupPSK = func(id string) ([]byte, bool) { return testPSK, id == "laptop" }
				sev, cev := newRecorder(t), newRecorder(t)
				se, err := New(cfg, sev)
				check(t, err)
				cfg.Certificate = client
				ce, err := New(cfg, cev)
				check(t, err)
				sAddr, cAddr := netip.MustParseAddrPort(serverAddr), netip.MustParseAddrPort(clientAddr)
				ss, err := n.Socket(sAddr)
				check(t, err)
				cs, err := n.Socket(cAddr)
				check(t, err)
				done := make(chan error, 1)
				go func() { done <- se.Serve(context.Background(), ss) }()
				p := DialParams{ServerName: "edge"}
				if seed%4 == 1 {
					p = DialParams{PSK: &PreShared{"laptop", testPSK}}
				}
				c, err := ce.Dial(context.Background(), cs, sAddr, p)
				check(t, err)
				synctest.Wait()
				s := sev.last()
				link.Corrupt = 0.05
				n.SetDefault(link)
				const records = 400
				for i := range uint32(records) {
					for _, a := range []*Association{c, s} {
						b := make([]byte, 1000)
						for j := 0; j < len(b); j += 4 {
							binary.BigEndian.PutUint32(b[j:], i)
						}
						check(t, sendRecord(a, b))
					}
					time.Sleep(time.Millisecond) // of the bubble's clock
				}
				time.Sleep(time.Second)
				for a, ev := range map[*Association]*recorder{s: sev, c: cev} {
					got := map[uint32]bool{}
					for _, b := range ev.received(a) {
						i := binary.BigEndian.Uint32(b)
						for j := 0; j < 1000; j += 4 {
							if len(b) != 1000 || binary.BigEndian.Uint32(b[j:]) != i {
								t.Fatal("record changed on its way")
							}
						}
						if got[i] {
							t.Errorf("record %d delivered twice", i)
						}
						got[i] = true
					}
					if len(got) < records*7/10 {
						t.Errorf("%d of %d records arrived", len(got), records)
					}
					if a.Err() != nil {
						t.Errorf("ended with: %v", a.Err())
					}
				}
				check(t, ce.Close())
				check(t, se.Close())
				check(t, <-done)
			})
		})
	}
}
