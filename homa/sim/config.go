package sim

import (
	"fmt"
	"time"

	"github.com/tougw/tougw/homa"
)

// Scheme is what is varied while the traffic stays the same.
type Scheme struct {
	Name  string `json:"name"`  // in tables and files
	Title string `json:"title"` // in words
	// OneQueue makes the switches ignore priorities: one FIFO queue a port.
	OneQueue bool `json:"one_queue"`
	// FIFO makes hosts send and grant the oldest message first in place of the one
	// with the fewest bytes left.
	FIFO bool `json:"fifo"`
}

// Schemes are the ones that a figure compares.
var Schemes = []Scheme{
	{Name: "homa", Title: "Homa"},
	{Name: "nosrpt", Title: "without SRPT", FIFO: true},
	{Name: "onequeue", Title: "one FIFO queue a port", OneQueue: true},
}

// Config describes one run. All fields count as they are; DefaultConfig fills in
// the paper's.
type Config struct {
	Fabric   Fabric
	Workload *Workload
	Scheme   Scheme
	// Load is the share of the hosts' links that the traffic takes on average,
	// headers, grants and the gaps between packets included: above 0, below 1.
	Load float64
	// Seed decides about the traffic and the paths of packets.
	Seed uint64
	// Messages that begin between Warmup and Warmup+Measure are measured. New ones
	// keep coming until all of these have arrived, but no longer than Drain more.
	Warmup, Measure, Drain time.Duration
	// Unscheduled is how many bytes of a message leave at once, GrantWindow how many
	// bytes of one are granted ahead, Overcommit how many messages at a time; 0
	// means, in this order: Fabric.RTTBytes, the same, and the number of priority
	// levels for scheduled bytes.
	Unscheduled, GrantWindow, Overcommit int
	// FIFOShare, in per mille, goes to the oldest message, of grants and of what
	// hosts send. 0: none, as in the paper; the module's default is 50.
	FIFOShare int
}

// answers reports whether servers answer with messages of the workload. They do
// where messages are so short that a response of one byte to each would be a good
// part of the traffic, and of the most urgent kind: in W1 and W2. With longer
// messages the byte is no matter, and without answers all messages begin at
// times that nothing else decides about.
func (c *Config) answers() bool {
	const little = 20
	return c.Workload.Mean(func(length int) float64 { return float64(messageWire(length)) }) < float64(little*dataWire(1))
}

// meanService is the mean of the exponentially distributed time that a host takes
// to answer a request: much longer than what packets do to each other, so that
// responses begin as randomly as requests do.
const meanService = 50 * microsecond

// maxIncoming is the bound on granted bytes that have not arrived: none, as in
// the paper. (Windows bound them, but for messages that are granted whole.)
const maxIncoming = 1 << 30

// messagePort is where hosts receive messages.
const messagePort = 4000

// DefaultConfig is a run of the paper's simulation: its fabric, 80 % load. How
// long it is depends on the workload: enough for thousands of messages and for
// the longest ones to come and go, and about a minute's work.
func DefaultConfig(w *Workload) Config {
	c := Config{Fabric: PaperFabric(), Workload: w, Scheme: Schemes[0], Load: 0.8, Seed: 1}
	measure := 120 * time.Millisecond
	switch w.Name {
	case "W1":
		measure = 2 * time.Millisecond
	case "W2":
		measure = 6 * time.Millisecond
	case "W3":
		measure = 30 * time.Millisecond
	case "W4":
		measure = 60 * time.Millisecond
	}
	c.SetMeasure(measure)
	return c
}

// SetMeasure sets how long messages are measured, and in proportion the times before,
// which it takes until queues of long messages are as long as they get, and after.
func (c *Config) SetMeasure(d time.Duration) {
	c.Warmup, c.Measure, c.Drain = d, d, d/4
}

func (c *Config) unscheduled() int {
	if c.Unscheduled > 0 {
		return c.Unscheduled
	}
	return c.Fabric.RTTBytes()
}

// wire is the number of bytes that a message puts on the links into hosts: its own
// packets, its grants, and its response unless that is another message.
func (c *Config) wire(length int) float64 {
	scheduled := max(0, length-c.unscheduled())
	grants := (scheduled + maxData - 1) / maxData
	size := messageWire(length) + int64(grants)*grantWire
	if !c.answers() {
		size += dataWire(1)
	}
	return float64(size)
}

// rate is how many messages of the workload a second each host sends.
func (c *Config) rate() float64 {
	return c.Load * float64(c.Fabric.HostRate) / 8 / c.Workload.Mean(c.wire)
}

func (c *Config) check() error {
	switch {
	case c.Workload == nil:
		return fmt.Errorf("sim: no workload")
	case !(c.Load > 0 && c.Load < 1):
		return fmt.Errorf("sim: load %v is not between 0 and 1", c.Load)
	case c.Warmup < 0 || c.Measure <= 0 || c.Drain < 0 || c.Warmup+c.Measure+c.Drain > time.Hour:
		return fmt.Errorf("sim: warm-up %v, measurement %v and drain %v must be positive and at most an hour", c.Warmup, c.Measure, c.Drain)
	case c.Unscheduled < 0 || c.GrantWindow < 0 || c.Overcommit < 0:
		return fmt.Errorf("sim: unscheduled bytes %d, grant window %d and overcommitment %d must not be negative", c.Unscheduled, c.GrantWindow, c.Overcommit)
	case c.FIFOShare < 0 || c.FIFOShare > 500:
		return fmt.Errorf("sim: FIFO share %d is not 0 to 500 per mille", c.FIFOShare)
	}
	return c.Fabric.check()
}

// engine is the configuration of the hosts' engines.
func (c *Config) engine() homa.Config {
	unscheduled := c.unscheduled()
	priorities := Allocate(c.Workload, unscheduled)
	scheduled := len(priorities.Cutoffs) - priorities.Unscheduled
	window, overcommit := c.GrantWindow, c.Overcommit
	if window == 0 {
		window = c.Fabric.RTTBytes()
	}
	if overcommit == 0 {
		overcommit = scheduled
	}
	share := c.FIFOShare
	if share == 0 {
		share = -1
	}
	return homa.Config{
		Peer:              homa.PeerConfig{MaxData: maxData, Unscheduled: unscheduled},
		MaxMessage:        c.Workload.Longest(),
		FirstID:           firstID,
		MaxIncoming:       maxIncoming,
		GrantWindow:       window,
		MaxOvercommit:     overcommit,
		GrantRate:         c.Fabric.HostRate,
		FIFOGrantFraction: share,
		SendFIFOFraction:  share,
		MaxScheduled:      scheduled - 1,
		Cutoffs:           priorities.Cutoffs,
		MaxCalls:          1 << 24,
		MaxServed:         1 << 24,
		Virtual:           true,
		SendFIFO:          c.Scheme.FIFO,
		GrantFIFO:         c.Scheme.FIFO,
	}
}
