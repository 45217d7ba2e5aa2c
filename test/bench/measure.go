package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

const (
	// requestSize is the size of requests and replies, in bytes.
	requestSize = 100
	// parallel is the number of connections of the busy rows.
	parallel = 64
	// smallWarmUp comes before each run of small messages.
	smallWarmUp = 200 * time.Millisecond
	// iperfPatience is what iperf3 may take beyond its time.
	iperfPatience = 15 * time.Second
)

// mode says whether the links between the gateways carry batches of datagrams
// whole.
type mode string

const (
	offloadOn  mode = "on"
	offloadOff mode = "off"
	// anyMode is for what does not depend on it.
	anyMode mode = ""
)

// sample is one measured value.
type sample struct {
	row   string // key
	value float64
}

// measurement is one thing that is done to each contender in turn.
type measurement struct {
	part, title string
	// rows are the keys of what it gives.
	rows []string
	run  func(context.Context, *stand) ([]sample, error)
}

// measurements lists what is done in one round in a mode. Without -full, fewer
// are done with the offload off.
func measurements(o options, m mode) (list []measurement) {
	short := time.Second
	if o.full {
		short = 3 * time.Second
	}
	for _, b := range bulk {
		if m == offloadOff && b.streams > 1 && !o.full {
			continue
		}
		list = append(list, measurement{partThroughput, b.title, withPrefix(b.key, bulkRows), func(ctx context.Context, s *stand) ([]sample, error) {
			return throughput(ctx, s, b.key, lab.IperfOptions{
				To: testnet.ServerAddr, Seconds: max(1, int(o.time.Seconds())), Streams: b.streams, Down: b.down, Congestion: congestion,
			})
		}})
	}
	if m == offloadOff && !o.full {
		return list
	}
	for _, n := range []int{1, parallel} {
		list = append(list, measurement{partLatency, fmt.Sprintf("requests, %d connections", n), withPrefix(fmt.Sprintf("rr%d-", n), requestRows), func(ctx context.Context, s *stand) ([]sample, error) {
			return requests(ctx, s, n, short)
		}})
	}
	return append(list, measurement{partConnections, "new connections", openRows, func(ctx context.Context, s *stand) ([]sample, error) {
		return connections(ctx, s, short)
	}})
}

// throughput runs iperf3 and counts the processor time of both gateways and of
// the machine.
func throughput(ctx context.Context, s *stand, key string, test lab.IperfOptions) ([]sample, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(test.Seconds)*time.Second+iperfPatience)
	defer cancel()
	machineBefore, err := lab.ReadMachineTime()
	if err != nil {
		return nil, err
	}
	before, err := s.usage()
	if err != nil {
		return nil, err
	}
	r, err := lab.Iperf(ctx, s.app(), test)
	if err != nil {
		return nil, err
	}
	after, err := s.usage()
	if err != nil {
		return nil, err
	}
	machineAfter, err := lab.ReadMachineTime()
	if err != nil {
		return nil, err
	}
	gigabytes := float64(r.Bytes) / 1e9
	samples := []sample{{key, r.Gbps()}}
	if s.ends.client != nil {
		for i, end := range endNames {
			samples = append(samples, sample{key + "-cpu-" + end.key, (after[i].CPU - before[i].CPU).Seconds() / gigabytes})
		}
	}
	used := machineAfter.Sub(machineBefore)
	samples = append(samples, sample{key + "-cpu-machine", used.Busy.Seconds() / gigabytes})
	if used.Busy > 0 {
		samples = append(samples, sample{key + "-softirq", 100 * used.SoftIRQ.Seconds() / used.Busy.Seconds()})
	}
	return samples, nil
}

// requests over n connections at a time.
func requests(ctx context.Context, s *stand, n int, length time.Duration) ([]sample, error) {
	r, err := loadClient(ctx, s.app(), "requests", n, requestSize, smallWarmUp, length)
	if err != nil {
		return nil, err
	}
	if r.Errors > 0 {
		return nil, fmt.Errorf("%d of %d connections failed: %s", r.Errors, n, r.Error)
	}
	key := fmt.Sprintf("rr%d-", n)
	return []sample{{key + "p50", r.P50}, {key + "p99", r.P99}, {key + "rate", r.Rate()}}, nil
}

// connections opened and closed.
func connections(ctx context.Context, s *stand, length time.Duration) ([]sample, error) {
	r, err := loadClient(ctx, s.app(), "connections", parallel, 1, smallWarmUp, length)
	if err != nil {
		return nil, err
	}
	if r.Errors > 0 {
		return nil, fmt.Errorf("%d connections failed besides %d that did not: %s", r.Errors, r.Count, r.Error)
	}
	return []sample{{"open-rate", r.Rate()}, {"open-p50", r.P50}, {"open-p99", r.P99}}, nil
}

const (
	// settle is how long a contender is left alone before its memory is read.
	settle = 3 * time.Second
	// openPatience is how long it may take to open idle flows, each step.
	openPatience = 60 * time.Second
	// idleTime is what the rows of idle processor time say.
	idleTime = 60 * time.Second
)

// memory of both gateways, idle and with flows.
func memory(ctx context.Context, s *stand, counts []int, perFlow bool) (samples []sample, err error) {
	if err := wait(ctx, settle); err != nil {
		return nil, err
	}
	idle, err := s.usage()
	if err != nil {
		return nil, err
	}
	for i, end := range endNames {
		samples = append(samples, sample{"rss-" + end.key, float64(idle[i].RSS) / (1 << 20)})
	}
	flows, err := startIdle(s.app())
	if err != nil {
		return samples, err
	}
	defer func() {
		if closeErr := flows.close(); err == nil {
			err = closeErr
		}
	}()
	for _, n := range counts {
		if err := flows.open(n, openPatience); err != nil {
			return samples, err
		}
		if err := wait(ctx, settle); err != nil {
			return samples, err
		}
		now, err := s.usage()
		if err != nil {
			return samples, err
		}
		for i, end := range endNames {
			samples = append(samples, sample{rssKey(end.key, n), float64(now[i].RSS) / (1 << 20)})
			if perFlow {
				samples = append(samples, sample{flowKey(end.key, n), float64(now[i].RSS-idle[i].RSS) / 1024 / float64(n)})
			}
		}
	}
	return samples, nil
}

// idleCPU lets all stands idle at once and returns what each end used, in
// milliseconds for idleTime.
func idleCPU(ctx context.Context, stands map[string]*stand) (map[string][]sample, error) {
	if err := wait(ctx, settle); err != nil {
		return nil, err
	}
	before := map[string][2]lab.Usage{}
	for name, s := range stands {
		if s.ends.client == nil {
			continue
		}
		u, err := s.usage()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		before[name] = u
	}
	if err := wait(ctx, idleTime); err != nil {
		return nil, err
	}
	samples := map[string][]sample{}
	for name := range before {
		after, err := stands[name].usage()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for i, end := range endNames {
			used := after[i].CPU - before[name][i].CPU
			samples[name] = append(samples[name], sample{"idle-" + end.key, float64(used.Milliseconds())})
		}
	}
	return samples, nil
}

// wait lets time pass, or returns what ended ctx.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// brief renders samples for the progress line.
func brief(samples []sample) string {
	var words []string
	for _, s := range samples {
		if r, ok := findRow(s.row); ok && len(words) < 4 {
			words = append(words, figure(s.value)+" "+r.unit)
		}
	}
	return strings.Join(words, ", ")
}
