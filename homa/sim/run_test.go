package sim

import (
	"context"
	"math"
	"reflect"
	"testing"
	"time"
)

// short is a run that takes a fraction of a second: 12 hosts.
func short(t *testing.T, workload string) Config {
	t.Helper()
	c := DefaultConfig(load(t, workload))
	c.Fabric.Racks, c.Fabric.HostsPerRack, c.Fabric.Spines = 3, 4, 1
	c.Warmup, c.Measure, c.Drain = 200*time.Microsecond, time.Millisecond, 100*time.Millisecond
	return c
}

func mustRun(t *testing.T, c Config) *Result {
	t.Helper()
	r, err := Run(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	r.Elapsed = 0
	return r
}

func TestSameSeedSameResult(t *testing.T) {
	c := short(t, "W3")
	c.Measure, c.Drain = 500*time.Microsecond, 0
	first := mustRun(t, c)
	if again := mustRun(t, c); !reflect.DeepEqual(first, again) {
		t.Errorf("two runs of one configuration differ:\n%+v\n%+v", first, again)
	}
	c.Seed = 2
	if other := mustRun(t, c); reflect.DeepEqual(first.Slices, other.Slices) {
		t.Error("another seed makes no difference")
	}
}

func TestSchemesGetTheSameTraffic(t *testing.T) {
	c := short(t, "W4")
	c.Drain = 0
	var first *run
	for _, scheme := range Schemes {
		c.Scheme = scheme
		r, err := newRun(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.begin(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := r.pass(context.Background(), r.to); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = r
			continue
		}
		for i, h := range r.hosts {
			if len(h.calls) != len(first.hosts[i].calls) {
				t.Fatalf("%s: host %d sends %d messages, %s has it send %d", scheme.Name, i, len(h.calls), Schemes[0].Name, len(first.hosts[i].calls))
			}
			for j, c := range h.calls {
				want := first.hosts[i].calls[j]
				if c.request.begun != want.request.begun || c.request.length != want.request.length ||
					c.response.length != want.response.length || c.service != want.service || c.to != want.to {
					t.Fatalf("%s: call %d of host %d is %+v, want %+v", scheme.Name, j, i, c, want)
				}
			}
		}
	}
}

// TestNothingIsLostOrDoubled relies on Run to fail if a message arrives twice or
// with another length.
func TestNothingIsLostOrDoubled(t *testing.T) {
	for _, workload := range Workloads {
		c := short(t, workload)
		c.Load = 0.5 // at more, shortest first, the longest may take very long
		switch workload {
		case "W1", "W2":
			c.Measure = 300 * time.Microsecond
		case "W5":
			c.Measure, c.Drain = 3*time.Millisecond, 200*time.Millisecond
		}
		r := mustRun(t, c)
		if r.Unfinished != 0 {
			t.Errorf("%s: %d of %d measured messages have not arrived", workload, r.Unfinished, r.All.Count)
		}
		if r.Completed > r.Messages || r.Completed < uint64(r.All.Count) {
			t.Errorf("%s: %d messages sent, %d arrived, %d measured", workload, r.Messages, r.Completed, r.All.Count)
		}
		if r.PacketsSent != r.PacketsDelivered+r.PacketsDropped+r.PacketsInFlight {
			t.Errorf("%s: %d packets sent, %d delivered, %d dropped, %d in flight", workload, r.PacketsSent, r.PacketsDelivered, r.PacketsDropped, r.PacketsInFlight)
		}
		if r.PacketsDropped != 0 || r.MaxQueuedTOR > int64(c.Fabric.PortBuffer) {
			t.Errorf("%s: %d packets dropped, %d bytes in a queue", workload, r.PacketsDropped, r.MaxQueuedTOR)
		}
		if r.All.P50 < 0.97 || r.Slices[0].P50 < 1 {
			t.Errorf("%s: slowdown %.3f at the median, %.3f for the shortest: faster than possible", workload, r.All.P50, r.Slices[0].P50)
		}
	}
}

func TestFullBuffersAreSurvived(t *testing.T) {
	c := short(t, "W3")
	c.Fabric.PortBuffer = 10_000
	// What is lost is asked for after 5 ms: at a high load, shortest first, the
	// longest messages would never have their turn.
	c.Load = 0.4
	r := mustRun(t, c)
	if r.PacketsDropped == 0 {
		t.Fatal("no packet was dropped from buffers of 10 kB: the test shows nothing")
	}
	if r.Unfinished != 0 || r.BytesResent == 0 {
		t.Errorf("%d packets dropped: %d messages have not arrived, %d bytes were sent again", r.PacketsDropped, r.Unfinished, r.BytesResent)
	}
	if r.MaxQueuedTOR > 10_000 || r.MaxQueuedCore > 10_000 {
		t.Errorf("%d and %d bytes were queued in buffers of 10,000", r.MaxQueuedTOR, r.MaxQueuedCore)
	}
}

func TestLoadIsAsAsked(t *testing.T) {
	for _, load := range []float64{0.3, 0.6} {
		c := short(t, "W2")
		c.Load = load
		c.Measure, c.Drain = 2*time.Millisecond, 0
		if r := mustRun(t, c); math.Abs(r.MeasuredLoad/load-1) > 0.06 {
			t.Errorf("the links are loaded to %.3f, asked for %.3f", r.MeasuredLoad, load)
		}
	}
}

// TestIdleFabric sends one message at a time: each must take the best possible
// time, also those that have to be granted.
func TestIdleFabric(t *testing.T) {
	c := short(t, "W3")
	for _, length := range []int{1, 100, 1424, 1425, 9968, 9969, 30_000, 400_000, 5_000_000} {
		for _, to := range []int{1, 11} {
			r, err := newRun(c)
			if err != nil {
				t.Fatal(err)
			}
			h := r.hosts[0]
			h.callTo(0, to, length, length, microsecond)
			best := c.Fabric.best(length, to == 1)
			if err := r.pass(context.Background(), 4*best+10*microsecond); err != nil {
				t.Fatal(err)
			}
			for i, m := range []message{h.calls[0].request, h.calls[0].response} {
				if slowdown := float64(m.took) / float64(best); m.took == 0 || slowdown < 0.97 || slowdown > 1.01 {
					t.Errorf("message %d of %d bytes with host %d took %v ns, best is %v", i, length, to, m.took/nanosecond, best/nanosecond)
				}
			}
		}
	}
}

func TestPrioritiesAndSRPTHelpShortMessages(t *testing.T) {
	c := short(t, "W4")
	c.Warmup, c.Measure, c.Drain = 2*time.Millisecond, 10*time.Millisecond, 0
	half := map[string]float64{}
	for _, scheme := range Schemes {
		c.Scheme = scheme
		half[scheme.Name] = mustRun(t, c).Half.P99
	}
	if half["homa"] > PaperBound || half["homa"]*2 > half["onequeue"] {
		t.Errorf("p99 slowdown of the shortest half: %v", half)
	}
}

func TestContextEndsARun(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, short(t, "W1")); err != context.Canceled {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestBadConfigurationsAreRefused(t *testing.T) {
	for _, change := range []func(*Config){
		func(c *Config) { c.Workload = nil },
		func(c *Config) { c.Load = 0 },
		func(c *Config) { c.Load = math.NaN() },
		func(c *Config) { c.Load = 1 },
		func(c *Config) { c.Measure = 0 },
		func(c *Config) { c.Drain = -1 },
		func(c *Config) { c.Warmup = 2 * time.Hour },
		func(c *Config) { c.Overcommit = -1 },
		func(c *Config) { c.Overcommit = 1000 },
		func(c *Config) { c.FIFOShare = 501 },
		func(c *Config) { c.Fabric.Racks = 0 },
	} {
		c := short(t, "W2")
		change(&c)
		if _, err := Run(context.Background(), c); err == nil {
			t.Errorf("accepted: %+v", c)
		}
	}
}
