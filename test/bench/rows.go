package main

import "slices"

// Units of rows.
const (
	gbps    = "Gbit/s"
	cpuGB   = "s/GB"
	percent = "%"
	micros  = "us"
	perS    = "/s"
	mib     = "MiB"
	kib     = "KiB/flow"
	millis  = "ms"
)

// row is one line of the table, in each of the modes that it was measured in.
type row struct {
	// key is its name in results.json; title has at most 30 characters.
	key, title, unit string
	// less is better than more.
	less bool
	// remark rows explain others: there is no better or worse.
	remark bool
}

// section is a group of rows with a heading.
type section struct {
	title string
	rows  []row
}

// flowCounts are the numbers of idle flows that memory is measured at; the last
// is an experiment, for ours and with -full only. Each flow needs a descriptor
// in the gateway: where the limit is lower and may not be raised, the experiment
// has fewer, and its rows say how many.
var flowCounts = []int{1000, 10_000, experimentFlows(20_000)}

// experimentFlows is how many flows, at most want, the limit of descriptors
// allows, with some left for other files.
func experimentFlows(want int) int {
	const others = 200
	limit, err := raiseFileLimit()
	if err != nil || limit > uint64(want+others) {
		return want
	}
	return max(0, int(limit)-others)
}

// parts of the benchmark that can be chosen.
const (
	partMemory      = "memory"
	partIdle        = "idle"
	partThroughput  = "throughput"
	partLatency     = "latency"
	partConnections = "connections"
)

var partNames = []string{partMemory, partIdle, partThroughput, partLatency, partConnections}

// bulk are the rows of iperf3.
var bulk = []struct {
	key, title string
	streams    int
	down       bool
}{
	{"up1", "1 stream up", 1, false},
	{"down1", "1 stream down", 1, true},
	{"up4", "4 streams up", 4, false},
	{"down4", "4 streams down", 4, true},
}

// sections of the table, in its order.
func sections() []section {
	rate, cpu := section{title: "Throughput"}, section{title: "Processor time for each GB that arrived"}
	for _, b := range bulk {
		rate.rows = append(rate.rows, row{b.key, b.title, gbps, false, false})
		cpu.rows = append(cpu.rows,
			row{b.key + "-cpu-client", b.title + ", client", cpuGB, true, false},
			row{b.key + "-cpu-gateway", b.title + ", gateway", cpuGB, true, false},
			row{b.key + "-cpu-machine", b.title + ", machine", cpuGB, true, false},
			row{b.key + "-softirq", b.title + ", softirq", percent, false, true},
		)
	}
	small := section{title: "Requests and replies of 100 bytes, one under way on each connection"}
	for _, n := range []string{"1", "64"} {
		small.rows = append(small.rows,
			row{"rr" + n + "-p50", n + " conn., p50", micros, true, false},
			row{"rr" + n + "-p99", n + " conn., p99", micros, true, false},
			row{"rr" + n + "-rate", n + " conn., requests", perS, false, false},
		)
	}
	opened := section{"Connections opened, one byte echoed, and closed, 64 at a time", []row{
		{"open-rate", "new connections", perS, false, false},
		{"open-p50", "until the echo, p50", micros, true, false},
		{"open-p99", "until the echo, p99", micros, true, false},
	}}
	memory := section{title: "Resident memory"}
	for _, end := range endNames {
		memory.rows = append(memory.rows, row{"rss-" + end.key, end.title + ", idle", mib, true, false})
		for _, n := range flowCounts {
			memory.rows = append(memory.rows, row{rssKey(end.key, n), end.title + ", " + thousands(n) + " flows", mib, true, false})
		}
		for _, n := range flowCounts {
			memory.rows = append(memory.rows, row{flowKey(end.key, n), end.title + ", at " + thousands(n), kib, true, false})
		}
	}
	idle := section{"Processor time of 60 s without traffic", []row{
		{"idle-client", "client gateway", millis, true, false},
		{"idle-gateway", "gateway", millis, true, false},
	}}
	return []section{rate, cpu, small, opened, memory, idle}
}

// endNames are the two gateways, in the order of stand.usage.
var endNames = []struct{ key, title string }{{"client", "client gw"}, {"gateway", "gateway"}}

// suffixes of the keys of the rows that one measurement gives.
var (
	bulkRows    = []string{"", "-cpu-client", "-cpu-gateway", "-cpu-machine", "-softirq"}
	requestRows = []string{"p50", "p99", "rate"}
	openRows    = []string{"open-rate", "open-p50", "open-p99"}
)

// memoryRows are the keys of what memory gives.
func memoryRows(counts []int, perFlow bool) (keys []string) {
	for _, end := range endNames {
		keys = append(keys, "rss-"+end.key)
		for _, n := range counts {
			keys = append(keys, rssKey(end.key, n))
			if perFlow {
				keys = append(keys, flowKey(end.key, n))
			}
		}
	}
	return keys
}

// withPrefix puts a prefix before each suffix.
func withPrefix(prefix string, suffixes []string) (keys []string) {
	for _, s := range suffixes {
		keys = append(keys, prefix+s)
	}
	return keys
}

func rssKey(end string, flows int) string  { return "rss-" + end + "-" + thousands(flows) }
func flowKey(end string, flows int) string { return "flow-" + end + "-" + thousands(flows) }

// findRow returns the row of a key.
func findRow(key string) (row, bool) {
	for _, s := range sections() {
		if i := slices.IndexFunc(s.rows, func(r row) bool { return r.key == key }); i >= 0 {
			return s.rows[i], true
		}
	}
	return row{}, false
}
