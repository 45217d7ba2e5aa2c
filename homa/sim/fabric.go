package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Fabric describes a two-level data-centre network: hosts in racks, each rack
// with a switch of its own (TOR), and spine switches, each with one link to
// every TOR. Every packet that leaves its rack goes through a spine drawn at
// random. Switches store a packet and then forward it; each output port serves
// its highest non-empty priority first, within a priority in order of arrival,
// and drops what does not fit its buffer.
type Fabric struct {
	Racks, HostsPerRack, Spines int
	// HostRate is the rate of the links between hosts and TORs, UplinkRate of those
	// between TORs and spines, in bit/s; a byte must take whole picoseconds.
	HostRate, UplinkRate int64
	// SwitchDelay passes between a packet's last bit entering a switch and its
	// being queued at the output port, LinkDelay on the way through any link.
	SwitchDelay, LinkDelay time.Duration
	// SendDelay passes between the host's choice of a packet and its first bit on
	// the link, ReceiveDelay between the last bit and the receiver's software.
	// Both are latency alone: packets follow each other at the link's rate.
	SendDelay, ReceiveDelay time.Duration
	// PortBuffer is what an output port of a switch holds, in bytes on the link,
	// the packet that is being sent not counted.
	PortBuffer int
	// OneQueue makes switches ignore priorities.
	OneQueue bool
}

// PaperFabric is the network of the SIGCOMM'18 paper's simulations: 144 hosts
// in 9 racks, 10 Gbit/s to each, 4 spines at 40 Gbit/s, 250 ns in each switch,
// 1.5 µs in the two hosts. The buffer of 500 kB at each port is ours.
func PaperFabric() Fabric {
	return Fabric{
		Racks: 9, HostsPerRack: 16, Spines: 4,
		HostRate: 10_000_000_000, UplinkRate: 40_000_000_000,
		SwitchDelay: 250 * time.Nanosecond,
		SendDelay:   time.Microsecond, ReceiveDelay: 500 * time.Nanosecond,
		PortBuffer: 500_000,
	}
}

// Hosts is the number of hosts.
func (f Fabric) Hosts() int { return f.Racks * f.HostsPerRack }

// maxHosts bounds the fabric; addresses of hosts have 16 bits to tell them apart.
const maxHosts = 4096

func (f Fabric) check() error {
	if f.Racks < 1 || f.HostsPerRack < 1 || f.Racks > maxHosts || f.HostsPerRack > maxHosts || f.Hosts() < 2 || f.Hosts() > maxHosts {
		return fmt.Errorf("fabric: %d racks of %d hosts; there must be 2 to %d hosts", f.Racks, f.HostsPerRack, maxHosts)
	}
	if f.Spines < 0 || f.Spines > maxHosts || f.Racks > 1 && f.Spines == 0 {
		return fmt.Errorf("fabric: %d spines do not join %d racks", f.Spines, f.Racks)
	}
	for _, rate := range []int64{f.HostRate, f.UplinkRate} {
		if rate < 1_000_000 || byteSecond%rate != 0 {
			return fmt.Errorf("fabric: at %d bit/s a byte does not take whole picoseconds, or more than 8 µs", rate)
		}
	}
	for _, delay := range []time.Duration{f.SwitchDelay, f.LinkDelay, f.SendDelay, f.ReceiveDelay} {
		if delay < 0 || delay > time.Second {
			return fmt.Errorf("fabric: delay %v is not between 0 and 1 s", delay)
		}
	}
	if f.PortBuffer < 0 {
		return fmt.Errorf("fabric: a buffer of %d bytes", f.PortBuffer)
	}
	return nil
}

const (
	// byteSecond is what a rate in bit/s divides to give the time of a byte.
	byteSecond = 8 * int64(second)
	// Bytes that a packet takes on a link beside the Homa packet: IPv4 header,
	// Ethernet header and checksum, preamble, gap between packets.
	overheadIP       = 20
	overheadEthernet = 14 + 4 + 8 + 12
	// headBytes are what is kept of a packet: all but the data of DATA.
	headBytes = 96
)

// packet is a Homa packet on its way. Data are not carried, only their number.
type packet struct {
	head     [headBytes]byte
	headSize int32
	dataSize int32
	src, dst int32 // hosts
	next     int32 // the packet behind it in a queue, -1: none
	port     int32 // where it is, or was last, sent
	priority uint8 // 7 highest
}

// wire is the number of bytes that the packet takes on a link.
func (p *packet) wire() int64 {
	return int64(p.headSize) + int64(p.dataSize) + overheadIP + overheadEthernet
}

// station is what is attached to the fabric at a host's place.
type station interface {
	// receive handles a packet, which is the fabric's again on return.
	receive(now picos, p *packet)
	// send fills in the next packet to be sent, except its source; false: none.
	send(now picos, p *packet) bool
	// alarm is called at the times asked for with fabric.wake, for that reason.
	alarm(now picos, reason eventKind)
}

const (
	packetArrives eventKind = iota // arg: packet
	portFree                       // arg: port
	hostTimer                      // arg: host
	hostSends                      // arg: host; its application sends a message
	taskDue                        // arg: what network.task gets
)

// port sends packets over one link. Ports 0 to H-1 are the hosts', H to 2H-1
// lead from TORs to hosts; behind these come the uplinks of the TORs, rack by
// rack, and the links down from the spines, spine by spine.
type port struct {
	queues   [8]queue
	waiting  uint8 // bit i: queue i is not empty
	woken    bool  // a portFree event is pending
	byteTime picos
	delay    picos // from the last bit sent to the packet's arrival
	free     picos // when the link is free again
	queued   int64 // bytes in queues
	limit    int64
	PortStats
}

type queue struct{ first, last int32 }

// PortStats counts what happened at a port.
type PortStats struct {
	Packets, Bytes uint64 // sent; bytes on the link
	Dropped        uint64 // packets that found the buffer full
	MaxQueued      int64  // the most bytes that waited
}

// network is a fabric at work.
type network struct {
	Fabric
	calendar  calendar
	now       picos
	ports     []port
	stations  []station
	task      func(now picos, arg uint32) // called for taskDue
	packets   []packet
	unused    []int32
	spray     *rand.Rand
	sent      uint64 // by hosts
	delivered uint64 // to hosts
	dropped   uint64
}

func newNetwork(f Fabric, seed uint64) (*network, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	hosts := f.Hosts()
	n := &network{
		Fabric:   f,
		ports:    make([]port, 2*hosts+2*f.Racks*f.Spines),
		stations: make([]station, hosts),
		spray:    rand.New(rand.NewPCG(seed, streamSpray)),
	}
	toSwitch := picoseconds(f.SwitchDelay + f.LinkDelay)
	for i := range n.ports {
		p := &n.ports[i]
		p.byteTime, p.delay, p.limit = picos(byteSecond/f.HostRate), toSwitch, int64(f.PortBuffer)
		switch {
		case i < hosts:
			p.delay += picoseconds(f.SendDelay)
		case i < 2*hosts:
			p.delay = picoseconds(f.LinkDelay + f.ReceiveDelay)
		default:
			p.byteTime = picos(byteSecond / f.UplinkRate)
		}
		for j := range p.queues {
			p.queues[j] = queue{-1, -1}
		}
	}
	return n, nil
}

func picoseconds(d time.Duration) picos { return picos(d) * nanosecond }

// run lets time pass up to and including the instant until.
func (n *network) run(until picos) {
	for {
		e, ok := n.calendar.pop(until)
		if !ok {
			n.now = max(n.now, until)
			return
		}
		n.now = e.at
		switch e.kind {
		case packetArrives:
			n.arrive(int32(e.arg))
		case portFree:
			n.portFree(int32(e.arg))
		case taskDue:
			n.task(e.at, e.arg)
		default:
			n.stations[e.arg].alarm(e.at, e.kind)
		}
	}
}

// wake asks for a call of the host's alarm.
func (n *network) wake(host int, at picos, reason eventKind) {
	n.calendar.push(max(at, n.now), reason, uint32(host))
}

// arrive takes a packet off a link, to the next port or to its host.
func (n *network) arrive(id int32) {
	p := &n.packets[id]
	hosts := int32(len(n.stations))
	if p.port >= hosts && p.port < 2*hosts {
		n.delivered++
		n.stations[p.dst].receive(n.now, p)
		n.unused = append(n.unused, id)
		return
	}
	n.enqueue(n.nextPort(p, hosts), id)
}

// nextPort routes a packet that has come over the link of p.port to a switch.
func (n *network) nextPort(p *packet, hosts int32) int32 {
	perRack, spines, racks := int32(n.HostsPerRack), int32(n.Spines), int32(n.Racks)
	uplinks := 2 * hosts
	downlinks := uplinks + racks*spines
	rack := p.dst / perRack
	switch {
	case p.port < hosts && p.port/perRack != rack: // at the sender's TOR
		return uplinks + p.port/perRack*spines + int32(n.spray.Uint32N(uint32(spines)))
	case p.port >= uplinks && p.port < downlinks: // at a spine
		return downlinks + (p.port-uplinks)%spines*racks + rack
	default: // at the receiver's TOR
		return hosts + p.dst
	}
}

// enqueue brings a packet to a port of a switch.
func (n *network) enqueue(number, id int32) {
	p := &n.packets[id]
	o := &n.ports[number]
	p.port = number
	if o.waiting == 0 && n.now >= o.free {
		n.transmit(o, id)
		return
	}
	size := p.wire()
	if o.queued+size > o.limit {
		o.Dropped++
		n.dropped++
		n.unused = append(n.unused, id)
		return
	}
	o.queued += size
	o.MaxQueued = max(o.MaxQueued, o.queued)
	level := p.priority & 7
	if n.OneQueue {
		level = 0
	}
	q := &o.queues[level]
	p.next = -1
	if q.last < 0 {
		q.first = id
	} else {
		n.packets[q.last].next = id
	}
	q.last = id
	o.waiting |= 1 << level
	if !o.woken {
		o.woken = true
		n.calendar.push(o.free, portFree, uint32(number))
	}
}

// transmit puts a packet on the link of a port, which must be free.
func (n *network) transmit(o *port, id int32) {
	size := n.packets[id].wire()
	o.free = n.now + picos(size)*o.byteTime
	o.Packets++
	o.Bytes += uint64(size)
	n.calendar.push(o.free+o.delay, packetArrives, uint32(id))
}
