package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/probe"
	"github.com/tougw/tougw/internal/testnet"
)

var longAgo = time.Unix(1, 0)

// result is a line of the table. Times are microseconds, rates per second.
type result struct {
	Row       string  `json:"row"`
	Transport string  `json:"transport"`
	P50       float64 `json:"p50_us,omitempty"`
	P99       float64 `json:"p99_us,omitempty"`
	Calls     float64 `json:"calls_per_second,omitempty"`
	Bits      float64 `json:"bits_per_second,omitempty"`
	Failed    uint64  `json:"failed,omitempty"`
	// LongBits is the throughput of the long messages beside the short ones.
	LongBits float64 `json:"long_bits_per_second,omitempty"`
	// Missing says why there is no result.
	Missing string `json:"missing,omitempty"`
}

// contender is a transport and, where the link is shaped, the queue for it.
type contender struct {
	name  string
	make  func(shaped bool) transport
	leaf  func(o *options) string
	shape bool // takes part only where the link is shaped
}

// fifo is the queue that all but fq_codel use.
func fifo(o *options) string { return fmt.Sprintf("bfifo limit %d", o.queue) }

// What the goal compares, and where.
const (
	nameHoma  = "Homa"
	nameTCP   = "TCP cubic"
	rowBeside = "100 B beside 4 x 1 MB, shaped link"
)

// contenders are compared in each row.
func contenders(o *options) []contender {
	tcp := func(congestion string) func(bool) transport {
		return func(bool) transport { return &tcpTransport{congestion: congestion} }
	}
	return []contender{
		{name: nameHoma, make: func(shaped bool) transport { return &homaTransport{config: homaConfig(o, shaped)} }, leaf: fifo},
		{name: nameTCP, make: tcp("cubic"), leaf: fifo},
		{name: "TCP DCTCP", make: tcp("dctcp"), shape: true, leaf: func(o *options) string {
			// Marks above a tenth of the queue, as DCTCP wants.
			mark := o.queue / 10
			return fmt.Sprintf("red limit %d min %d max %d avpkt 1500 burst %d probability 1 bandwidth %dbit ecn",
				o.queue, mark, mark+1500, mark/1500+1, o.rate)
		}},
		{name: "TCP cubic, fq_codel", make: tcp("cubic"), shape: true, leaf: func(o *options) string {
			return fmt.Sprintf("fq_codel memory_limit %d", o.queue)
		}},
	}
}

// homaConfig fits the windows to the shaped link, as an administrator would: a
// millisecond of it is some round trips, with the time that processes wait for a
// processor, and fits the queues. Elsewhere the defaults count.
func homaConfig(o *options, shaped bool) homa.Config {
	if !shaped {
		return homa.Config{}
	}
	return homa.Config{
		GrantRate:   o.rate,
		MaxIncoming: min(int(o.rate/8/1000), 3*o.queue/4),
		Peer:        homa.PeerConfig{Unscheduled: 10_000},
	}
}

// row is a measurement that each contender goes through.
type row struct {
	name   string
	shaped bool
	run    func(ctx context.Context, l *lab, o *options, t transport) (result, error)
}

var rows = []row{
	{"100 B, one outstanding", false, func(ctx context.Context, l *lab, o *options, t transport) (result, error) {
		return single(ctx, l, o, t, 100, 1)
	}},
	{"100 B, 100 outstanding", false, func(ctx context.Context, l *lab, o *options, t transport) (result, error) {
		return single(ctx, l, o, t, 100, 100)
	}},
	{"500 KB, one outstanding", false, func(ctx context.Context, l *lab, o *options, t transport) (result, error) {
		return single(ctx, l, o, t, 500_000, 1)
	}},
	{"500 KB, 4 outstanding", false, func(ctx context.Context, l *lab, o *options, t transport) (result, error) {
		return single(ctx, l, o, t, 500_000, 4)
	}},
	{"100 B, shaped link, idle", true, func(ctx context.Context, l *lab, o *options, t transport) (result, error) {
		return contended(ctx, l, o, t, 0)
	}},
	{rowBeside, true, func(ctx context.Context, l *lab, o *options, t transport) (result, error) {
		return contended(ctx, l, o, t, 4)
	}},
}

// measure runs the rows that o asks for. Errors of one contender are in its
// result; what the kernel lacks as well.
func measure(ctx context.Context, o *options) ([]result, error) {
	l, err := newLab()
	if err != nil {
		return nil, err
	}
	results, err := l.measure(ctx, o)
	return results, errors.Join(err, l.close())
}

func (l *lab) measure(ctx context.Context, o *options) (results []result, err error) {
	for _, r := range rows {
		if !o.rows.MatchString(r.name) {
			continue
		}
		if err := l.segment(ctx, !r.shaped); err != nil {
			return nil, err
		}
		for _, c := range contenders(o) {
			if c.shape && !r.shaped {
				continue
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			fmt.Fprintf(os.Stderr, "%s: %s\n", r.name, c.name)
			res, err := l.one(ctx, o, r, c)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, errNoQueue) {
				res.Missing = "not in this kernel"
			} else if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", r.name, c.name, err)
			}
			res.Row, res.Transport = r.name, c.name
			results = append(results, res)
		}
	}
	return results, nil
}

// errNoQueue: the queueing discipline cannot be had.
var errNoQueue = errors.New("no such queueing discipline")

// one takes one contender through one row.
func (l *lab) one(ctx context.Context, o *options, r row, c contender) (res result, err error) {
	if r.shaped {
		if err := l.shape(ctx, o.rate, c.leaf(o)); err != nil {
			if l.shape(ctx, o.rate, fifo(o)) == nil {
				err = fmt.Errorf("%w: %w", errNoQueue, err) // it is the leaf
			}
			return res, err
		}
		defer func() { err = errors.Join(err, l.unshape(ctx)) }()
	}
	t := c.make(r.shaped)
	defer func() { err = errors.Join(err, t.close()) }()
	if err := t.serve(l.host); err != nil {
		return res, err
	}
	return r.run(ctx, l, o, t)
}

// single measures calls of one length from the neighbour.
func single(ctx context.Context, l *lab, o *options, t transport, size, calls int) (result, error) {
	rep, err := l.bench(ctx, o, t, l.port, size, calls, o.duration)
	if err != nil {
		return result{}, err
	}
	return result{P50: rep.Latency.P50, P99: rep.Latency.P99, Calls: rep.CallRate, Bits: 8 * rep.SendRate, Failed: rep.Failed}, nil
}

// contended measures 100-byte calls of one host while another keeps long calls of
// 1 MB outstanding.
func contended(ctx context.Context, l *lab, o *options, t transport, long int) (result, error) {
	var wg sync.WaitGroup
	var bulk *probe.Report
	var bulkErr error
	if long > 0 {
		// Long calls begin earlier and end later, so that they are there all the time.
		wg.Go(func() { bulk, bulkErr = l.bench(ctx, o, t, l.long, 1_000_000, long, o.duration+2*warmUp) })
		time.Sleep(warmUp)
	}
	rep, err := l.bench(ctx, o, t, l.short, 100, 1, o.duration)
	wg.Wait()
	if err = errors.Join(err, bulkErr); err != nil {
		return result{}, err
	}
	res := result{P50: rep.Latency.P50, P99: rep.Latency.P99, Calls: rep.CallRate, Failed: rep.Failed}
	if bulk != nil {
		res.LongBits = 8 * bulk.SendRate
		res.Failed += bulk.Failed
	}
	return res, nil
}

// warmUp is how long the link is saturated before it counts.
const warmUp = 500 * time.Millisecond

// bench measures calls from a host.
func (l *lab) bench(ctx context.Context, o *options, t transport, from *testnet.Namespace, size, calls int, duration time.Duration) (*probe.Report, error) {
	to := netip.AddrPortFrom(l.addr, port)
	l.mu.Lock()
	c, err := t.caller(from, calls, to)
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return probe.Bench(ctx, c, probe.BenchOptions{
		To: to, Workload: fmt.Sprintf("%d bytes", size), Length: func(float64) int { return size }, MaxLength: size,
		Concurrency: calls, Duration: duration,
	})
}
