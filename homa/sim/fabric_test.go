package sim

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// source is a station that sends what it was given and records what it gets.
type source struct {
	net  *network
	host int
	todo []packet
	got  []arrival
}

type arrival struct {
	at       picos
	src      int32
	priority uint8
	data     int32
}

func (s *source) receive(now picos, p *packet) {
	s.got = append(s.got, arrival{now, p.src, p.priority, p.dataSize})
}

func (s *source) send(_ picos, p *packet) bool {
	if len(s.todo) == 0 {
		return false
	}
	*p = s.todo[0]
	s.todo = s.todo[1:]
	return true
}

func (s *source) alarm(picos, eventKind) { s.net.pull(s.host) }

// give lets a host send a packet when the fabric's time comes to at.
func (s *source) give(at picos, p packet) {
	s.todo = append(s.todo, p)
	s.net.wake(s.host, at, hostSends)
}

func newSources(t *testing.T, f Fabric) (*network, []*source) {
	t.Helper()
	n, err := newNetwork(f, 1)
	if err != nil {
		t.Fatal(err)
	}
	var list []*source
	for i := range n.stations {
		s := &source{net: n, host: i}
		n.stations[i] = s
		list = append(list, s)
	}
	return n, list
}

func data(to, size int, priority uint8) packet {
	return packet{headSize: dataHeader, dataSize: int32(size), dst: int32(to), priority: priority}
}

// small is a fabric for quick tests: 2 racks of 3 hosts, 2 spines.
func small() Fabric {
	f := PaperFabric()
	f.Racks, f.HostsPerRack, f.Spines = 2, 3, 2
	return f
}

func TestOnePacketTakesTheBestTime(t *testing.T) {
	f := small()
	f.LinkDelay = 30 * time.Nanosecond
	for _, c := range []struct {
		to       int
		sameRack bool
		want     picos
	}{
		// 1000 data + 56 + 20 + 38 = 1114 bytes: 891.2 ns at 10 Gbit/s, 222.8 ns at 40;
		// hosts 1.5 µs, switches 250 ns each, links 30 ns each.
		{1, true, 2*891200 + 1500000 + 250000 + 2*30000},
		{4, false, 2*891200 + 2*222800 + 1500000 + 3*250000 + 4*30000},
	} {
		n, hosts := newSources(t, f)
		hosts[0].give(0, data(c.to, 1000, 0))
		n.run(second)
		if got := hosts[c.to].got; len(got) != 1 || got[0].at != c.want {
			t.Errorf("to host %d: %v, want one packet after %d ps", c.to, got, c.want)
		}
		if best := f.best(1000, c.sameRack); best != c.want {
			t.Errorf("best time to host %d is %d ps, want %d", c.to, best, c.want)
		}
	}
}

func TestBestTimeIsReached(t *testing.T) {
	f := small()
	for _, length := range []int{1, 1423, 1424, 1425, 2848, 10_000, 100_001} {
		for _, to := range []int{1, 4} {
			n, hosts := newSources(t, f)
			for rest := length; rest > 0; rest -= maxData {
				hosts[0].give(0, data(to, min(rest, maxData), 0))
			}
			n.run(second)
			// On its way over another spine a short last packet may overtake a full one,
			// which saves part of its own time on the last link.
			got, best := hosts[to].got[len(hosts[to].got)-1].at, f.best(length, to == 1)
			if saved := best - got; saved < 0 || saved > picos(dataWire(1))*800 || saved > 0 && (to == 1 || length%maxData == 0) {
				t.Errorf("%d bytes to host %d took %d ps, the best time is %d", length, to, got, best)
			}
		}
	}
}

func TestHigherPrioritiesOvertake(t *testing.T) {
	for _, one := range []bool{false, true} {
		f := small()
		f.OneQueue = one
		n, hosts := newSources(t, f)
		// Two hosts send to a third at twice its rate, one urgently: a queue builds up
		// at the TOR.
		for i := range 30 {
			hosts[0].give(0, data(2, 1000, 2))
			hosts[1].give(0, data(2, 1000, uint8(5+i%2)))
		}
		n.run(second)
		got := hosts[2].got
		if len(got) != 60 {
			t.Fatalf("one queue %v: %d packets arrived, want 60", one, len(got))
		}
		// The first of the lower priority meets an empty port, or one that sends.
		last := slices.IndexFunc(got[2:], func(a arrival) bool { return a.priority == 2 })
		urgent := 0
		for _, a := range got[:32] {
			if a.priority > 2 {
				urgent++
			}
		}
		if !one && (urgent < 29 || last < 28) {
			t.Errorf("priorities: %d of the first 32 packets are urgent, the second other one is number %d", urgent, last+2)
		}
		if one && (urgent > 18 || urgent < 14) {
			t.Errorf("one queue: %d of the first 32 packets are urgent, want half", urgent)
		}
	}
}

func TestOrderWithinAPriority(t *testing.T) {
	n, hosts := newSources(t, small())
	for i := range 50 {
		hosts[0].give(0, data(2, 1+i, 3))
		hosts[1].give(0, data(2, 1001+i, 3))
	}
	n.run(second)
	next := map[int32]int32{0: 1, 1: 1001}
	for _, a := range hosts[2].got {
		if a.data != next[a.src] {
			t.Fatalf("packet %d of host %d arrives before %d", a.data, a.src, next[a.src])
		}
		next[a.src]++
	}
}

func TestBuffersAreBounded(t *testing.T) {
	f := small()
	f.PortBuffer = 10_000
	n, hosts := newSources(t, f)
	for i := range 5 {
		for range 100 {
			hosts[i].give(0, data(5, 1400, uint8(i)))
		}
	}
	n.run(second)
	if n.inFlight() != 0 || n.sent != 500 || n.delivered != uint64(len(hosts[5].got)) || n.delivered+n.dropped != n.sent {
		t.Errorf("%d sent, %d delivered, %d dropped, %d in flight", n.sent, n.delivered, n.dropped, n.inFlight())
	}
	if n.dropped == 0 {
		t.Error("nothing was dropped although five hosts sent to one")
	}
	var dropped uint64
	for i := range n.ports {
		p := &n.ports[i]
		dropped += p.Dropped
		if p.MaxQueued > 10_000 || p.queued != 0 || p.waiting != 0 {
			t.Errorf("port %d had %d bytes in a buffer of 10,000, has %d, levels %b", i, p.MaxQueued, p.queued, p.waiting)
		}
	}
	if most := n.ports[6+5].MaxQueued; most < 10_000-1514 {
		t.Errorf("the full port held %d bytes at most, want nearly 10,000", most)
	}
	if dropped != n.dropped {
		t.Errorf("ports dropped %d packets, the network %d", dropped, n.dropped)
	}
}

func TestUplinksShareTheLoad(t *testing.T) {
	f := small()
	f.Spines = 4
	n, hosts := newSources(t, f)
	for range 4000 {
		hosts[0].give(0, data(4, 100, 0))
	}
	n.run(second)
	for i := range 4 {
		if got := n.ports[2*6+i].Packets; got < 850 || got > 1150 {
			t.Errorf("uplink %d carried %d of 4000 packets, want about 1000", i, got)
		}
		// Down from spine i to rack 1.
		up, down := n.ports[2*6+i].Packets, n.ports[2*6+2*4+2*i+1].Packets
		if up != down {
			t.Errorf("spine %d got %d packets and sent %d to the rack", i, up, down)
		}
	}
}

func TestBadFabricsAreRefused(t *testing.T) {
	for _, change := range []func(*Fabric){
		func(f *Fabric) { f.Racks = 0 },
		func(f *Fabric) { f.Racks, f.HostsPerRack = 1, 1 },
		func(f *Fabric) { f.Racks, f.HostsPerRack = 1<<33, 1<<33 },
		func(f *Fabric) { f.Spines = 0 },
		func(f *Fabric) { f.HostRate = 0 },
		func(f *Fabric) { f.HostRate = 3_333_333_333 },
		func(f *Fabric) { f.SwitchDelay = -1 },
		func(f *Fabric) { f.PortBuffer = -1 },
	} {
		f := PaperFabric()
		change(&f)
		if n, err := newNetwork(f, 1); err == nil {
			t.Errorf("%+v is accepted: %d ports", f, len(n.ports))
		}
	}
}

func TestCalendarKeepsOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var c calendar
	var now picos
	var last event
	type key struct {
		at  picos
		seq uint32
	}
	pending := map[key]bool{}
	for step := range 200_000 {
		if len(pending) == 0 || step < 150_000 && random.IntN(9) < 5 {
			var delay picos
			switch random.IntN(10) {
			case 0: // beyond the year
				delay = picos(random.Int64N(int64(200 * microsecond)))
			case 1, 2: // at once
			default:
				delay = picos(random.Int64N(int64(2 * microsecond)))
			}
			at := now + delay/1000*1000
			pending[key{at, c.seq}] = true
			c.push(at, hostTimer, 0)
			continue
		}
		until := now + picos(random.Int64N(int64(100*nanosecond)))
		if random.IntN(100) == 0 {
			until += 100 * microsecond
		}
		e, ok := c.pop(until)
		if !ok {
			now = until
			continue
		}
		if e.at < now || e.at > until || e.before(&last) || !pending[key{e.at, e.seq}] {
			t.Fatalf("step %d: event %d at %d after event %d at %d, between %d and %d", step, e.seq, e.at, last.seq, last.at, now, until)
		}
		delete(pending, key{e.at, e.seq})
		now, last = e.at, e
	}
	for range len(pending) {
		e, ok := c.pop(now + second)
		if !ok || e.before(&last) || !pending[key{e.at, e.seq}] {
			t.Fatalf("%v: event %d at %d after event %d at %d", ok, e.seq, e.at, last.seq, last.at)
		}
		delete(pending, key{e.at, e.seq})
		last = e
	}
	if e, ok := c.pop(now + 2*second); ok {
		t.Errorf("an event at %d is left over", e.at)
	}
}

func TestNetworkDoesNotAllocate(t *testing.T) {
	n, hosts := newSources(t, small())
	todo, got := make([][]packet, len(hosts)), make([][]arrival, len(hosts))
	for i := range hosts {
		todo[i], got[i] = make([]packet, 0, 20), make([]arrival, 0, 20)
	}
	stream := func() {
		for i, h := range hosts {
			h.todo, h.got = todo[i][:0], got[i][:0]
			for range 20 {
				h.give(n.now, data((i+1)%len(hosts), 1400, 3))
			}
		}
		n.run(n.now + 100*microsecond)
	}
	stream()
	if allocs := testing.AllocsPerRun(20, stream); allocs > 0 {
		t.Errorf("%.0f allocations for 120 packets", allocs)
	}
}

// flood is a station that sends full packets to random hosts without end.
type flood struct {
	random *rand.Rand
	hosts  int
}

func (f *flood) receive(picos, *packet) {}

func (f *flood) send(_ picos, p *packet) bool {
	p.headSize, p.dataSize = dataHeader, maxData
	p.dst, p.priority = int32(f.random.IntN(f.hosts)), uint8(f.random.IntN(8))
	return true
}

func (f *flood) alarm(picos, eventKind) {}

// BenchmarkFabric is the cost of a packet's way through the paper's fabric,
// without the engines.
func BenchmarkFabric(b *testing.B) {
	n, err := newNetwork(PaperFabric(), 1)
	if err != nil {
		b.Fatal(err)
	}
	for i := range n.stations {
		n.stations[i] = &flood{rand.New(rand.NewPCG(1, uint64(i))), len(n.stations)}
		n.pull(i)
	}
	n.run(100 * microsecond)
	sent := n.sent
	b.ReportAllocs()
	for b.Loop() {
		n.run(n.now + 10*microsecond)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n.sent-sent), "ns/packet")
}
