// Package sim runs Homa engines in a simulated data centre: hosts in racks, two
// levels of switches with priority queues and bounded buffers, links with rate
// and delay, packets sprayed over the uplinks. It is a discrete-event simulation
// on one goroutine, driven by a seed: the same Config gives the same Result.
//
// The engines are those of package homa, with Config.Virtual: headers travel,
// the bytes of messages do not, only their number. Traffic is that of the Homa
// papers: lengths from their workloads W1 to W5, receivers at random, Poisson
// arrivals at a given load of the network. The papers simulate messages in one
// direction; Homa only knows RPCs. In W3 to W5 a message is the request of an
// RPC whose response is one byte. In W1 and W2 such bytes would be a good part of the
// traffic, so half of the messages are requests, and each is answered after a
// random time (mean 50 µs) with another message of the
// workload; both count alike. The slowdown of a message is the time from the moment
// its sender has it until the receiver's software has the last byte, over the
// best possible time for its length and its way (Fabric.best). Lengths above the
// protocol's limit of 1,000,000 bytes are sent as one message: the limit is lifted.
//
// Run makes a Result; Table and Plot show several. A run is not safe for concurrent
// use with itself, but any number of runs may go on at once.
//
// Left out: loss other than by full buffers, corruption, failures, pause frames,
// cut-through switching, processor time of hosts beyond a fixed latency, other
// transports.
package sim
