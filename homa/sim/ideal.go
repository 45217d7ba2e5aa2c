package sim

import "github.com/tougw/tougw/homa/wire"

// What a packet of the simulated hosts holds: IPv4 with an MTU of 1500 bytes.
const (
	mtu        = 1500
	dataHeader = 56
	maxData    = mtu - overheadIP - dataHeader
)

// dataWire is the number of bytes on a link of a DATA packet with n bytes of data.
func dataWire(n int) int64 { return int64(n) + dataHeader + overheadIP + overheadEthernet }

// grantWire is the same of a GRANT packet.
const grantWire = 34 + overheadIP + overheadEthernet

// messageWire is the number of bytes on a link of all DATA packets of a message.
func messageWire(length int) int64 {
	size := int64(length/maxData) * dataWire(maxData)
	if rest := length % maxData; rest > 0 {
		size += dataWire(rest)
	}
	return size
}

// best is the time from a message's being handed to its sender to its last byte
// in the receiver's software if nothing else is on the network and nothing has
// to be asked for: the sender's link works without a gap, and the first packet,
// which is as long as any, passes each further link in its turn. (A short last
// packet may overtake its predecessor over another spine; then the message
// arrives up to 92 ns earlier in the paper's fabric.)
func (f Fabric) best(length int, sameRack bool) picos {
	host, up := picos(byteSecond/f.HostRate), picos(byteSecond/f.UplinkRate)
	first := picos(dataWire(min(length, maxData)))
	t := picoseconds(f.SendDelay+f.ReceiveDelay) + picos(messageWire(length))*host + first*host
	links, switches := 2, 1
	if !sameRack {
		t += 2 * first * up
		links, switches = 4, 3
	}
	return t + picos(links)*picoseconds(f.LinkDelay) + picos(switches)*picoseconds(f.SwitchDelay)
}

// RTTBytes is how much data a host sends in the time from the first bit of a
// full packet's leaving to the arrival of the grant that it causes, between
// racks, in whole packets: what must be unscheduled, and granted ahead, so
// that a link need not rest.
func (f Fabric) RTTBytes() int {
	host, up := picos(byteSecond/f.HostRate), picos(byteSecond/f.UplinkRate)
	t := 2 * (picoseconds(f.SendDelay+f.ReceiveDelay) + 4*picoseconds(f.LinkDelay) + 3*picoseconds(f.SwitchDelay))
	t += picos(dataWire(maxData)+grantWire) * (2*host + 2*up)
	packet := picos(dataWire(maxData)) * host
	return int((t+packet-1)/packet) * maxData
}

// Priorities is how the eight priorities are divided, as the paper has it: as
// many levels for unscheduled bytes as is their share of all bytes, at least one
// and at most seven, and cutoffs between these so that each level carries the
// same number of bytes. Bytes are those on links.
type Priorities struct {
	Unscheduled int // levels, the highest ones
	// Cutoffs has for each level the longest message in bytes that may use it
	// for its unscheduled bytes.
	Cutoffs [wire.NumPriorities]uint32
}

// Allocate divides the priorities for a workload.
func Allocate(w *Workload, unscheduled int) Priorities {
	blind := func(length int) float64 { return float64(messageWire(min(length, unscheduled))) }
	all := w.Mean(func(length int) float64 { return float64(messageWire(length)) })
	total := w.Mean(blind)
	var p Priorities
	p.Unscheduled = min(max(int(wire.NumPriorities*total/all+0.5), 1), wire.NumPriorities-1)

	lowest := wire.NumPriorities - p.Unscheduled
	level, sum, before := wire.NumPriorities-1, 0.0, 0.0
	full := total / float64(p.Unscheduled)
	for i, length := range w.lengths {
		sum += (w.upTo[i] - before) * blind(length)
		before = w.upTo[i]
		if level > lowest && sum >= full {
			p.Cutoffs[level] = uint32(length)
			// One length may hold more than a level's part: share what is left.
			full = sum + (total-sum)/float64(level-lowest)
			level--
		}
	}
	p.Cutoffs[level] = uint32(w.Longest())
	return p
}
