package homa

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// lengthFor draws a message length: most are short, some need grants.
func lengthFor(r *rand.Rand) int {
	switch r.IntN(10) {
	case 0:
		return 1 + r.IntN(150_000)
	case 1, 2, 3:
		return 1 + r.IntN(20_000)
	}
	return 1 + r.IntN(1500)
}

// chaosConfig draws bounds that are tight now and then.
func chaosConfig(r *rand.Rand) Config {
	c := Config{
		Peer:              PeerConfig{Unscheduled: 1 + r.IntN(40_000)},
		TombstoneLife:     time.Second,
		ReceiveMemory:     1 << 20,
		PeerReceiveMemory: 1 << 20,
		SendMemory:        4 << 20,
		PeerSendMemory:    4 << 20,
		MaxMessage:        200_000,
		SendAhead:         1 + r.IntN(100_000),
	}
	switch r.IntN(4) {
	case 0:
		c.ReceiveWindow = 16<<10 + r.IntN(60_000)
		c.ReceiveMemory, c.PeerReceiveMemory = 300_000, 200_000
	case 1:
		c.MaxIncoming = 1 + r.IntN(50_000)
		c.MaxOvercommit = 1 + r.IntN(3)
	case 2:
		c.LinkRate = 1_000_000_000
		c.MaxServed = 3
		c.NoUnscheduled = true
	}
	return c
}

// chaos runs calls through a bad network and checks what must hold whatever
// happens: drain and handle check contents, memory and the order of events.
func chaos(t *testing.T, seed uint64, f faults) {
	r := rand.New(rand.NewPCG(seed, 1))
	client, server := chaosConfig(r), chaosConfig(r)
	if f.delay > ms { // what takes several round trips needs patience
		client.Peer.TimeoutTicks, server.Peer.TimeoutTicks = 400, 400
	}
	p := newPair(t, client, server, seed)
	p.faults = f
	p.check = f.corrupt == 0
	p.service = Instant(r.IntN(3)) * 8 * ms
	calls := 1 + r.IntN(20)
	for range calls {
		p.call(lengthFor(r), lengthFor(r))
		if r.IntN(2) == 0 {
			p.run(Instant(r.IntN(20)) * ms)
		}
	}
	p.finish()
	if p.completed+p.failed != calls {
		t.Fatalf("of %d calls %d completed and %d failed", calls, p.completed, p.failed)
	}
	if f == (faults{delay: f.delay}) && p.failed > 0 {
		t.Fatalf("%d calls failed without a fault", p.failed)
	}
	if f.corrupt == 0 {
		for id, n := range p.executed {
			if n != 1 {
				t.Fatalf("request %d was executed %d times", id, n)
			}
		}
	}
}

func TestChaos(t *testing.T) {
	cases := []struct {
		name  string
		seeds int
		faults
	}{
		{"clean", 60, faults{delay: 30_000}},
		{"far", 20, faults{delay: 20 * ms}},
		{"loss", 120, faults{delay: 30_000, loss: 10}},
		{"heavy loss", 60, faults{delay: 30_000, loss: 50}},
		{"duplicates", 60, faults{delay: 30_000, duplicate: 40}},
		{"reordering", 60, faults{delay: 30_000, jitter: 3 * ms}},
		{"late", 60, faults{delay: 30_000, late: 20, duplicate: 20}},
		{"everything", 120, faults{delay: 30_000, loss: 10, duplicate: 10, jitter: ms, late: 5}},
		{"corruption", 150, faults{delay: 30_000, loss: 5, duplicate: 5, jitter: ms, corrupt: 10}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			seeds := c.seeds
			if raceEnabled {
				seeds /= 2
			}
			for seed := range uint64(seeds) {
				if !t.Run(fmt.Sprint(seed), func(t *testing.T) { chaos(t, seed, c.faults) }) {
					return
				}
			}
		})
	}
}
