package sim

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/tougw/tougw/homa/wire"
)

// run is a simulation under way.
type run struct {
	config    Config
	network   *network
	hosts     []*host
	answers   bool    // responses are messages of the workload
	rate      float64 // calls a second from each host
	from, to  picos   // when messages begin that are measured
	missing   int     // of these, on their way
	sent      uint64  // messages of any time
	completed uint64  // of these, arrived
	replies   []reply // by the argument of taskDue
	unused    []uint32
	err       error
}

// chunk is how much time passes between looks at the context.
const chunk = 20 * microsecond

// Run simulates. Its result depends on the configuration alone: the same one gives
// the same result on any machine. Runs share nothing and may run in parallel.
// An error is a bad configuration, the end of ctx, or a message that did not
// arrive as it must: twice, with another length, or failed by the engine.
func Run(ctx context.Context, config Config) (*Result, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	started := time.Now()
	r, err := newRun(config)
	if err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	if err := r.pass(ctx, r.from); err != nil {
		return nil, err
	}
	before := r.linkBytes()
	if err := r.pass(ctx, r.to); err != nil {
		return nil, err
	}
	result := r.result(before)
	end := r.to + picoseconds(config.Drain)
	for r.missing > 0 && r.network.now < end {
		if err := r.pass(ctx, min(end, r.network.now+chunk)); err != nil {
			return nil, err
		}
	}
	r.finish(result)
	result.Elapsed = time.Since(started).Round(time.Millisecond).Seconds()
	return result, nil
}

func newRun(config Config) (*run, error) {
	network, err := newNetwork(config.fabric(), config.Seed)
	if err != nil {
		return nil, err
	}
	r := &run{
		config: config, network: network, rate: config.rate(), answers: config.answers(),
	}
	if r.answers {
		r.rate /= 2
	}
	engine := config.engine()
	for i := range config.Fabric.Hosts() {
		h, err := newHost(r, i, engine)
		if err != nil {
			return nil, err
		}
		r.hosts = append(r.hosts, h)
		network.stations[i] = h
	}
	network.task = r.answer
	return r, nil
}

// begin introduces the hosts to each other, then starts the traffic. A host learns
// the cutoffs of another one when it has sent it a message; with 144 hosts
// and the long messages of W5 that would take seconds.
func (r *run) begin(ctx context.Context) error {
	for _, h := range r.hosts {
		h.introduce()
	}
	start := picos(len(r.hosts))*introduction + 50*microsecond
	r.from = start + picoseconds(r.config.Warmup)
	r.to = r.from + picoseconds(r.config.Measure)
	if err := r.pass(ctx, start); err != nil {
		return err
	}
	for _, h := range r.hosts {
		h.schedule(start)
	}
	return nil
}

// fabric is the configured one as the scheme has it.
func (c *Config) fabric() Fabric {
	f := c.Fabric
	f.OneQueue = f.OneQueue || c.Scheme.OneQueue
	return f
}

// pass lets time pass until the given instant.
func (r *run) pass(ctx context.Context, until picos) error {
	for r.network.now < until {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.network.run(min(until, r.network.now+chunk))
		if r.err != nil {
			return fmt.Errorf("sim: %s at %v, after %v: %w", r.config.Workload.Name, r.config.Scheme.Name,
				time.Duration(r.network.now/nanosecond), r.err)
		}
	}
	return nil
}

func (r *run) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// began counts a message that is handed to its sender.
func (r *run) began(now picos) {
	r.sent++
	if now >= r.from && now < r.to {
		r.missing++
	}
}

// measures reports whether the result counts the message.
func (r *run) measures(m *message) bool { return m.begun >= r.from && m.begun < r.to }

// linkBytes is the sum over all links into hosts.
func (r *run) linkBytes() (sum uint64) {
	hosts := len(r.hosts)
	for _, p := range r.network.ports[hosts : 2*hosts] {
		sum += p.Bytes
	}
	return sum
}

// capacity is how many bytes all links into hosts carry while messages are measured.
func (r *run) capacity() float64 {
	return float64(r.config.Fabric.HostRate) / 8 * r.config.Measure.Seconds() * float64(len(r.hosts))
}

// result says what is known at the end of the measurement.
func (r *run) result(before uint64) *Result {
	c := &r.config
	engine := c.engine()
	return &Result{
		Workload: c.Workload.Name, Scheme: c.Scheme, Load: c.Load, Seed: c.Seed,
		Hosts: len(r.hosts), Racks: c.Fabric.Racks,
		Warmup: c.Warmup.Seconds(), Measure: c.Measure.Seconds(),
		Unscheduled: engine.Peer.Unscheduled, GrantWindow: engine.GrantWindow, Overcommit: engine.MaxOvercommit,
		FIFOShare: c.FIFOShare, Cutoffs: engine.Cutoffs, ScheduledLevels: engine.MaxScheduled + 1,
		MeasuredLoad: float64(r.linkBytes()-before) / r.capacity(),
		Go:           runtime.Version(),
	}
}

// finish adds what is known when the messages have arrived.
func (r *run) finish(result *Result) {
	n := r.network
	result.Time = float64(n.now) / float64(second)
	result.PacketsSent, result.PacketsDelivered, result.PacketsDropped = n.sent, n.delivered, n.dropped
	result.PacketsInFlight = uint64(n.inFlight())
	for i, p := range n.ports[len(r.hosts):] {
		if i < len(r.hosts) {
			result.MaxQueuedTOR = max(result.MaxQueuedTOR, p.MaxQueued)
		} else {
			result.MaxQueuedCore = max(result.MaxQueuedCore, p.MaxQueued)
		}
	}
	result.PacketTypes = map[string]uint64{}
	for _, h := range r.hosts {
		s := h.engine.Stats()
		result.BytesSent += s.BytesSent
		result.BytesResent += s.BytesResent
		for i, count := range s.Sent {
			if count > 0 {
				result.PacketTypes[(wire.Data + wire.Type(i)).String()] += count
			}
		}
	}
	result.Messages, result.Completed = r.sent, r.completed
	result.Unfinished = r.missing
	samples := r.samples()
	for _, m := range samples {
		result.OfferedLoad += r.config.wire(int(m.length))
	}
	result.OfferedLoad /= r.capacity()
	result.measure(samples)
}

// samples gives the measured messages. One that has not arrived counts with the
// time that it has taken so far, which is less than the truth.
func (r *run) samples() []sample {
	var list []sample
	perRack := r.config.Fabric.HostsPerRack
	for client, h := range r.hosts {
		for _, c := range h.calls {
			sameRack := client/perRack == int(c.to)/perRack
			for _, m := range []*message{&c.request, &c.response} {
				if !r.measures(m) || m == &c.response && !r.answers {
					continue
				}
				took := m.took
				if took == 0 {
					took = r.network.now - m.begun
				}
				best := r.config.Fabric.best(int(m.length), sameRack)
				list = append(list, sample{m.length, float32(float64(took) / float64(best))})
			}
		}
	}
	return list
}
