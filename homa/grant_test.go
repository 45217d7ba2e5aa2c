package homa

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/tougw/tougw/homa/wire"
)

// granting lists the GRANTs that leave: id, offset and priority of each.
func (s *scripted) granting() (list []string) {
	for {
		out, ok := s.e.Transmit(s.now, nil)
		if !ok {
			return list
		}
		var k wire.Packet
		if err := s.v.Decode(&k, out.Packet); err != nil {
			s.Fatal(err)
		}
		if k.Type == wire.Grant {
			list = append(list, fmt.Sprintf("%d:%d@%d", k.SenderID&^1, k.Offset, k.Priority))
		}
	}
}

func (s *scripted) wantGrants(want ...string) {
	s.Helper()
	if got := s.granting(); fmt.Sprint(got) != fmt.Sprint(want) {
		s.Fatalf("granted %v, want %v", got, want)
	}
}

// from feeds DATA from a numbered client host.
func (s *scripted) from(host int, k wire.Packet) {
	k.SrcPort, k.DstPort = 0x8000, 4000
	s.e.Receive(s.now, netip.AddrFrom4([4]byte{10, 0, 1, byte(host)}), s.v.Append(nil, &k))
}

// quiet is a configuration without FIFO grants and with a fixed window.
func quiet(window int) Config {
	return Config{GrantWindow: window, FIFOGrantFraction: -1, FIFOGrantIncrement: 1}
}

func TestGrantWindow(t *testing.T) {
	s := newScripted(t, quiet(50_000))
	s.from(1, data(200, 200_000, 0, 1000))
	s.wantGrants("200:51000@0")
	s.from(1, data(200, 200_000, 1000, 2000))
	s.from(1, data(200, 200_000, 2000, 3000))
	s.wantGrants("200:53000@0") // one for both
	s.from(1, data(200, 200_000, 2000, 3000))
	s.wantGrants()
	for at := 3000; at < 200_000; at += 1000 {
		s.from(1, data(200, 200_000, at, at+1000))
		for _, g := range s.granting() {
			var id, offset int
			if n, _ := fmt.Sscanf(g, "%d:%d@", &id, &offset); n != 2 || offset > 200_000 {
				t.Fatal(g)
			}
		}
	}
	if st := s.e.Stats(); st.Incoming != 0 || st.GrantActive != 0 || st.ServerInService != 1 {
		t.Fatalf("%+v", st)
	}
}

func TestGrantWindowShrinks(t *testing.T) {
	c := quiet(0)
	c.MaxIncoming = 300_000
	s := newScripted(t, c)
	s.from(1, data(200, 1_000_000, 0, 1000))
	s.wantGrants("200:151000@0")
	s.from(2, data(300, 900_000, 0, 1000))
	s.wantGrants("300:101000@1")
}

func TestNoGrantNeeded(t *testing.T) {
	for _, c := range []struct {
		name    string
		version wire.Version
		length  int
	}{{"all unscheduled", wire.Main, 40_000}, {"peer without grants", wire.Stripped, 500_000}} {
		s := newScripted(t, Config{Peer: PeerConfig{Version: c.version, VersionSet: true}})
		s.from(1, data(200, c.length, 0, 1000))
		s.wantGrants()
	}
}

// TestEmptyDataAsksForGrant: DATA without bytes announces a message.
func TestEmptyDataAsksForGrant(t *testing.T) {
	s := newScripted(t, quiet(10_000))
	k := data(200, 100_000, 0, 0)
	k.Incoming = 0
	s.from(1, k)
	s.wantGrants("200:10000@0")
}

// TestGrantOrder: the message with the fewest bytes missing comes first and gets the
// highest of the levels in use.
func TestGrantOrder(t *testing.T) {
	c := quiet(50_000)
	c.MaxOvercommit = 3
	s := newScripted(t, c)
	s.from(1, data(200, 500_000, 0, 1000))
	s.wantGrants("200:51000@0")
	s.from(2, data(300, 300_000, 0, 1000))
	s.wantGrants("300:51000@1")
	s.from(3, data(400, 400_000, 0, 1000))
	s.wantGrants("400:51000@1")
	s.from(1, data(200, 500_000, 1000, 2000))
	s.wantGrants("200:52000@0")
	s.from(2, data(300, 300_000, 1000, 2000))
	s.wantGrants("300:52000@2")
	// A fourth displaces the longest.
	s.from(4, data(500, 200_000, 0, 1000))
	s.wantGrants("500:51000@2")
	s.from(1, data(200, 500_000, 2000, 3000))
	s.wantGrants()
	if st := s.e.Stats(); st.GrantActive != 3 || st.GrantWaiting != 1 {
		t.Fatalf("%+v", st)
	}
	// One that ends lets it in again.
	s.from(4, wire.Packet{Type: wire.RPCUnknown, SenderID: 500})
	s.wantGrants("200:53000@0")
}

// TestGrantsSpreadOverPeers: a peer with many messages does not keep others out.
func TestGrantsSpreadOverPeers(t *testing.T) {
	c := quiet(50_000)
	c.MaxOvercommit = 2
	s := newScripted(t, c)
	for id := uint64(200); id < 210; id += 2 {
		s.from(1, data(id, 100_000, 0, 1000))
	}
	s.wantGrants("200:51000@0", "202:51000@0")
	s.from(2, data(300, 900_000, 0, 1000))
	s.wantGrants("300:51000@0")
}

func TestGrantFIFOOrder(t *testing.T) {
	c := quiet(50_000)
	c.MaxOvercommit, c.GrantFIFO = 1, true
	s := newScripted(t, c)
	s.from(1, data(200, 500_000, 0, 1000))
	s.from(2, data(300, 100_000, 0, 1000))
	s.wantGrants("200:51000@0")
	s.from(1, wire.Packet{Type: wire.RPCUnknown, SenderID: 200})
	s.wantGrants("300:51000@0")
}

func TestMaxIncoming(t *testing.T) {
	c := quiet(50_000)
	c.MaxIncoming = 120_000
	s := newScripted(t, c)
	s.from(1, data(200, 500_000, 0, 1000)) // unscheduled bytes count
	s.wantGrants("200:51000@0")
	s.from(2, data(300, 500_000, 0, 1000))
	s.wantGrants("300:51000@0")
	s.from(3, data(400, 500_000, 0, 1000)) // 39,000 unscheduled: the bound is passed
	s.wantGrants()
	if st := s.e.Stats(); st.Incoming != 139_000 {
		t.Fatalf("incoming %d", st.Incoming)
	}
	s.from(1, data(200, 500_000, 1000, 40_000))
	s.wantGrants("200:71000@2")
	if st := s.e.Stats(); st.Incoming != 120_000 {
		t.Fatalf("incoming %d", st.Incoming)
	}
}

// TestSenderAhead: a bound below the size of packets, which are sent whole, does not
// stop a sender that is ahead of its grant.
func TestSenderAhead(t *testing.T) {
	c := quiet(0)
	c.MaxIncoming = 1100
	s := newScripted(t, c)
	s.from(1, data(200, 100_000, 0, 40_000))
	s.wantGrants("200:40550@0")
	s.from(1, data(200, 100_000, 40_000, 41_400))
	s.wantGrants("200:41950@0")
	s.from(1, data(200, 100_000, 41_400, 60_000))
	s.wantGrants("200:60550@0")
}

// TestStalledSender: a message whose sender is silent makes way.
func TestStalledSender(t *testing.T) {
	c := quiet(50_000)
	c.MaxOvercommit = 1
	c.MaxIncoming = 60_000
	s := newScripted(t, c)
	s.from(1, data(200, 100_000, 0, 1000))
	s.wantGrants("200:51000@0")
	s.now += 3 * ms
	s.e.Advance(s.now)
	s.from(2, data(300, 500_000, 0, 1000))
	s.wantGrants()
	s.tick(2)
	s.wantGrants("200:51000@0", "300:51000@0") // the first beside a RESEND of a part
	s.from(1, data(200, 100_000, 1000, 2000))  // it is back, and shorter
	s.from(2, data(300, 500_000, 1000, 40_000))
	s.wantGrants()
	s.from(1, data(200, 100_000, 2000, 40_000))
	s.wantGrants("200:89000@0") // 60,000 less the 11,000 that are to come of the other
}

func TestFIFOGrants(t *testing.T) {
	c := Config{GrantWindow: 10_000, MaxOvercommit: 1, FIFOGrantIncrement: 5000, FIFOGrantFraction: 100, GrantRate: 400_000_000}
	s := newScripted(t, c) // 5000 bytes at 40 Mbit/s: each millisecond
	s.from(1, data(200, 900_000, 0, 40_000))
	s.granting()
	s.from(2, data(300, 100_000, 0, 40_000))
	s.granting() // the shorter one is active now
	count := 0
	for i := range 50 {
		s.now += ms / 4
		s.from(2, data(300, 100_000, 40_000+i*1000, 41_000+i*1000))
		for _, g := range s.granting() {
			var id, offset, priority int
			if _, err := fmt.Sscanf(g, "%d:%d@%d", &id, &offset, &priority); err != nil {
				t.Fatal(err)
			}
			if id == 200 {
				count++
				if priority != 6 {
					t.Fatalf("FIFO grant at priority %d", priority)
				}
			}
		}
	}
	// It does not answer: no more than its window and two increments beyond.
	if st := s.e.Stats(); count < 1 || count > 5 || st.Incoming > 100_000 {
		t.Fatalf("%d FIFO grants in 12 ms, incoming %d", count, st.Incoming)
	}
}

// TestGranter drives the granting with random arrivals, ends and silences and
// compares its counts with what the messages say.
func TestGranter(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 9))
		s := newScripted(t, Config{MaxOvercommit: 1 + r.IntN(4), MaxIncoming: 1000 + r.IntN(100_000), ReceiveWindow: 30_000, ReceiveMemory: 1 << 30, PeerReceiveMemory: 1 << 30})
		type message struct {
			host, at, length int
			rpc              *RPC
		}
		live := make(map[uint64]*message)
		next := uint64(200)
		for range 400 {
			switch {
			case len(live) < 12 && r.IntN(3) == 0:
				m := &message{host: 1 + r.IntN(3), length: 45_000 + r.IntN(10)*10_000}
				live[next] = m
				s.from(m.host, data(next, m.length, 0, 0))
				m.rpc = s.events()[0].RPC
				next += 2
			case r.IntN(30) == 0:
				s.tick(1)
			}
			for id, m := range live {
				end := min(m.at+1+r.IntN(20_000), m.length, max(m.rpc.in.expected(), m.at))
				switch r.IntN(20) {
				case 0:
					m.rpc.Abort(s.now, nil)
				case 1, 2, 3:
					m.rpc.Discard(s.now, 20_000)
				case 4, 5, 6, 7, 8:
					s.from(m.host, data(id, m.length, m.at, end))
					m.at = end
				}
				if m.at == m.length || m.rpc.State() == Dead {
					m.rpc.Abort(s.now, nil)
					delete(live, id)
				}
			}
			s.events()
			s.granting()
			var incoming int64
			active, waiting := 0, 0
			for _, m := range live {
				incoming += int64(m.rpc.in.incoming)
				if m.rpc.in.slot >= 0 {
					active++
					if s.e.grants.active[m.rpc.in.slot] != m.rpc {
						t.Fatal("slot is wrong")
					}
				} else if m.rpc.in.managed {
					waiting++
				}
				if m.rpc.in.granted > m.rpc.in.length {
					t.Fatalf("granted %d of %d", m.rpc.in.granted, m.rpc.in.length)
				}
			}
			g := &s.e.grants
			if incoming != g.incoming || active != len(g.active) || waiting != g.numWait {
				t.Fatalf("seed %d: incoming %d (%d), active %d (%d), waiting %d (%d)", seed, g.incoming, incoming, len(g.active), active, g.numWait, waiting)
			}
			for i := 1; i < len(g.active); i++ {
				if g.outranks(g.active[i], g.active[i-1]) {
					t.Fatal("active messages are out of order")
				}
			}
			if waiting > 0 && active < s.e.config.MaxOvercommit {
				t.Fatalf("%d messages wait with %d active", waiting, active)
			}
		}
		for _, m := range live {
			m.rpc.Abort(s.now, nil)
		}
		s.granting()
		s.wantIdle()
	}
}

// TestGrantStep grants in steps, and neither the sender nor the reader waits for one.
func TestGrantStep(t *testing.T) {
	c := quiet(50_000)
	c.GrantStep, c.ReceiveWindow = 20_000, 100_000
	s := newScripted(t, c)
	s.from(1, data(200, 75_000, 0, 9999)) // 40,000 need no grant
	s.wantGrants()
	s.from(1, data(200, 75_000, 9999, 10_000))
	s.wantGrants("200:60000@0")
	s.from(1, data(200, 75_000, 10_000, 24_999))
	s.wantGrants()
	s.from(1, data(200, 75_000, 24_999, 25_000)) // the rest is less than a step
	s.wantGrants("200:75000@0")

	for _, step := range []int{1, 20_000, 1 << 20} {
		c.GrantStep, c.ReceiveWindow = step, 16<<10
		s := newScripted(t, c)
		const length = 300_000
		granted := 40_000
		s.from(1, data(200, length, 0, 1000))
		for at := 1000; at < length; {
			for _, g := range s.granting() {
				var id int
				if n, _ := fmt.Sscanf(g, "%d:%d@", &id, &granted); n != 2 {
					t.Fatal(g)
				}
			}
			r := s.e.Served(netip.AddrFrom4([4]byte{10, 0, 1, 1}), 200)
			if at == granted {
				if r.Discard(s.now, length) == 0 {
					t.Fatalf("step %d: nothing granted or to be read at %d", step, at)
				}
				continue
			}
			end := min(at+1400, granted)
			s.from(1, data(200, length, at, end))
			if at = end; at < 40_000 {
				r.Discard(s.now, length) // these come in any case
			}
		}
	}
}
