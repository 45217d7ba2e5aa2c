package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

const (
	// requestSize is the size of requests and replies, in bytes.
	requestSize = 100
	// requests are made one after another on one connection.
	requests, warmUp = 4000, 400
	// openers open connections at a time, for openTime.
	openers  = 16
	openTime = 2 * time.Second
)

// figure is one measured value.
type figure struct {
	Row  string  `json:"row"`
	Unit string  `json:"unit"`
	V    float64 `json:"value"`
}

// String prints the value with its unit.
func (f figure) String() string { return fmt.Sprintf("%.*f %s", digits(f.Unit), f.V, f.Unit) }

// digits after the point that make sense for a unit.
func digits(unit string) int {
	switch unit {
	case "Gbit/s", "s/GB":
		return 2
	}
	return 0
}

// measurement is one thing that is done to each contender in turn.
type measurement struct {
	name string
	run  func(context.Context, *contender) ([]figure, error)
}

// measurements lists what is done in one round.
func measurements(o options) []measurement {
	list := []measurement{
		throughput(o, "1 stream up", lab.IperfOptions{To: testnet.ServerAddr}),
		throughput(o, "1 stream down", lab.IperfOptions{To: testnet.ServerAddr, Down: true}),
		throughput(o, "4 streams up", lab.IperfOptions{To: testnet.ServerAddr, Streams: 4}),
		throughput(o, "4 streams down", lab.IperfOptions{To: testnet.ServerAddr, Streams: 4, Down: true}),
		{"request and reply, 100 bytes", latency},
		{"connections", connections},
	}
	if o.full {
		list = append(list,
			throughput(o, "1 stream up, IPv6", lab.IperfOptions{To: testnet.ServerAddr6}),
			throughput(o, "1 stream down, IPv6", lab.IperfOptions{To: testnet.ServerAddr6, Down: true}),
			cut(throughput(o, "1 stream up, datagrams cut", lab.IperfOptions{To: testnet.ServerAddr})),
			cut(throughput(o, "1 stream down, datagrams cut", lab.IperfOptions{To: testnet.ServerAddr, Down: true})),
		)
	}
	return append(list, measurement{"memory", memory})
}

// throughput runs iperf3 and counts the processor time of both gateways.
func throughput(o options, name string, test lab.IperfOptions) measurement {
	test.Seconds = o.seconds
	return measurement{name, func(ctx context.Context, c *contender) ([]figure, error) {
		before, err := c.usage()
		if err != nil {
			return nil, err
		}
		r, err := lab.Iperf(ctx, c.app(), test)
		if err != nil {
			return nil, err
		}
		after, err := c.usage()
		if err != nil {
			return nil, err
		}
		figures := []figure{{name, "Gbit/s", r.Gbps()}}
		for i, end := range []string{"client", "gateway"} {
			cpu := (after[i].CPU - before[i].CPU).Seconds()
			figures = append(figures, figure{name + ", CPU of " + end, "s/GB", cpu / (float64(r.Bytes) / 1e9)})
		}
		return figures, nil
	}}
}

// cut does a measurement with UDP segmentation offload off on the Internet: what
// a network card without it sees. (Between namespaces a batch of datagrams is
// otherwise never cut at all.)
func cut(m measurement) measurement {
	return measurement{m.name, func(ctx context.Context, c *contender) (figures []figure, err error) {
		ends := []*testnet.Namespace{c.Sites[0].Gateway, c.Gateway}
		for _, ns := range ends {
			if err := ns.SetSegmentation("wan0", false); err != nil {
				return nil, err
			}
		}
		figures, err = m.run(ctx, c)
		for _, ns := range ends {
			if onErr := ns.SetSegmentation("wan0", true); onErr != nil {
				return nil, onErr
			}
		}
		return figures, err
	}}
}

// usage of both gateways, zero where there is no process.
func (c *contender) usage() (u [2]lab.Usage, err error) {
	for i, pid := range []int{c.client, c.gateway} {
		if pid != 0 {
			if u[i], err = lab.UsageOf(pid); err != nil {
				return u, err
			}
		}
	}
	return u, nil
}

// exchange sends a request and reads the reply, of the same size.
func exchange(conn net.Conn, buf []byte) error {
	if _, err := conn.Write(buf); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, buf)
	return err
}

// latency of requests on one open connection.
func latency(ctx context.Context, c *contender) ([]figure, error) {
	conn, err := c.dialEcho(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	buf := make([]byte, requestSize)
	took := make([]time.Duration, 0, requests)
	for i := range warmUp + requests {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		start := time.Now()
		if err := exchange(conn, buf); err != nil {
			return nil, err
		}
		if i >= warmUp {
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	micros := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Nanoseconds()) / 1e3
	}
	return []figure{{"request and reply, half below", "us", micros(0.5)}, {"request and reply, 99% below", "us", micros(0.99)}}, nil
}

// connections opened, used for one request and closed, a second.
func connections(ctx context.Context, c *contender) ([]figure, error) {
	var (
		wg    sync.WaitGroup
		count atomic.Int64
		once  sync.Once
		fail  error
	)
	start := time.Now()
	end := start.Add(openTime)
	for range openers {
		wg.Go(func() {
			buf := make([]byte, requestSize)
			for time.Now().Before(end) && ctx.Err() == nil {
				conn, err := c.dialEcho(ctx)
				if err == nil {
					_ = conn.SetDeadline(end.Add(5 * time.Second))
					err = exchange(conn, buf)
					_ = conn.Close()
				}
				if err != nil {
					once.Do(func() { fail = err })
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	if fail != nil {
		return nil, fail
	}
	return []figure{{"new connections", "/s", float64(count.Load()) / time.Since(start).Seconds()}}, ctx.Err()
}

// memory of both gateways after all that.
func memory(_ context.Context, c *contender) (figures []figure, err error) {
	u, err := c.usage()
	for i, end := range []string{"client", "gateway"} {
		figures = append(figures, figure{"memory of " + end, "MiB", float64(u[i].RSS) / (1 << 20)})
	}
	return figures, err
}
