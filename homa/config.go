package homa

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/tougw/tougw/homa/wire"
)

// Instant is a point in time: nanoseconds on a monotonic clock of the owner's
// choosing. It never goes back from one call of an Engine to the next.
type Instant int64

// Add returns the instant d after t.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns the time from u to t.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// Bounds of parameters.
const (
	maxOvercommit = 64
	minMaxData    = 64
	maxMaxData    = 65535 - 40 - 56
	// maxLength keeps offsets of a message inside 31 bits with room to add.
	maxLength = 1 << 30
	// defaultResponseTimeout is that of PeerConfig.ResponseTimeoutTicks.
	defaultResponseTimeout = 10_000
)

// PeerConfig is what differs from peer to peer. A zero field means the value in
// Config.Peer, and there the module's default.
type PeerConfig struct {
	// Version is the form of the protocol that the peer speaks, if VersionSet is
	// true. If not, it is the one in Config.Peer until the peer's packets tell
	// another (wire.Detect), of those with the same IP protocol number.
	Version    wire.Version
	VersionSet bool
	// MaxData is the most bytes of data in a packet to the peer: the path MTU
	// less IP header (20 or 40) and 56. 64 to 65439; default 1424 for IPv4 and
	// 1404 for IPv6. A change counts from the next packet.
	MaxData int
	// Unscheduled is how many bytes of each message to the peer leave without a
	// grant (unsched_bytes, default 40,000; 10,000 for wire.Linux61; whole
	// messages for wire.Stripped, which never grants). For none at all see
	// Config.NoUnscheduled.
	Unscheduled int
	// Time-outs, in ticks of Config.Tick. Silence is reset by DATA, GRANT and
	// BUSY alone. Of the time in which data of whatever message kept a link of
	// Config.GrantRate busy, a sixteenth counts as silence.
	ResendTicks    int // silence before the first RESEND: 5
	ResendInterval int // between RESENDs: 5
	TimeoutTicks   int // silence before the RPC is given up: 100
	// ResendLimit is how many RPCs with the peer may have a RESEND unanswered at a
	// time: 2. The others wait, so that a host that is slow to serve many is not
	// kept busy with being asked.
	ResendLimit int
	AckTicks    int // from the last byte of a response to NEED_ACK: 2
	// AckTimeoutTicks is how long a client may leave NEED_ACK unanswered before
	// the server forgets the RPC: 500, or twice TimeoutTicks if that is more. The
	// module asks for ever.
	AckTimeoutTicks int
	// ResponseTimeoutTicks is how long a client may stay silent that has not yet
	// granted the whole response: 10,000, or twice TimeoutTicks if that is more. (A
	// Linux client that waits for buffers says nothing. An Engine sends BUSY four times in this time, or every 2,500
	// ticks if that is more often.)
	ResponseTimeoutTicks int
}

// Config is the configuration of an Engine. The zero value of a field means the
// default that its comment names; defaults are those of the module's branch
// main unless the comment says otherwise.
type Config struct {
	// Peer holds the defaults for all peers.
	Peer PeerConfig
	// Tick is the unit of all time-outs: 1 ms, at least 1 µs.
	Tick time.Duration
	// MaxMessage is the longest message in bytes, either way: 1,000,000, the
	// protocol's limit. More (up to 1<<30) is for simulation.
	MaxMessage int
	// FirstID is the id of the first RPC called, even; 0: a random one above 1<<32,
	// so that a restarted engine does not meet what servers keep of the last one.
	FirstID uint64
	// ClientPort is the source port of calls that name none: 0x8000.
	ClientPort uint16

	// MaxIncoming bounds the bytes granted and not yet received, over all messages:
	// 400,000.
	MaxIncoming int
	// GrantWindow is how far a message is granted beyond what has arrived; 0:
	// MaxIncoming / (messages being granted + 1).
	GrantWindow int
	// GrantStep is by how many bytes more a message is granted at a time, at least: 0.
	// Half of its window suffices always. Each step is a packet to the sender; a large
	// one only does no harm where windows are several times what the path holds, and
	// it is as late in telling the sender of a new priority.
	GrantStep int
	// MaxOvercommit is how many messages are granted at a time: 8, at most 64.
	MaxOvercommit int
	// FIFOGrantIncrement bytes go to the oldest message, in intervals such that
	// they are FIFOGrantFraction per mille of GrantRate: 50,000 bytes, 50 per
	// mille (at most 500; -1 for none), 25,000,000,000 bit/s. GrantRate is the rate
	// of the link that brings messages; see PeerConfig for what else follows from it.
	FIFOGrantIncrement int
	FIFOGrantFraction  int
	GrantRate          int64
	// MaxScheduled is the highest priority of scheduled data. 0 derives it from
	// Cutoffs: one below the lowest level that unscheduled data use.
	MaxScheduled int
	// Cutoffs are sent to peers: entry i is the longest message in bytes that may
	// use priority i when unscheduled. All zero means
	// {∞, 0, 0, 0, 1000000, 15000, 2800, 200}. CutoffVersion names them: 1.
	Cutoffs       [wire.NumPriorities]uint32
	CutoffVersion uint16
	// CutoffInterval is the least time between two CUTOFFS to a peer: 4 ms.
	CutoffInterval time.Duration

	// LinkRate in bit/s makes Transmit pace data: it gives none while it estimates
	// that more than MaxBacklog (5 µs) of what it gave before still waits in the
	// device. 0 does not pace; then Transmit gives everything that may leave.
	LinkRate   int64
	MaxBacklog time.Duration
	// MinBacklog, at most MaxBacklog, is what it has to fall to before Engine.Room and
	// Deadline tell that there is room: MaxBacklog. With less, whoever wakes a paced
	// owner for it lets the difference leave at once, if there is so much. Transmit
	// itself does not wait for it.
	MinBacklog time.Duration
	// LinkOverhead is added to each packet when time on the link is estimated: 38
	// bytes of Ethernet framing and 20 of IP.
	LinkOverhead int
	// DeferMin: a message with at most so many bytes left is not paced: 1000.
	DeferMin int
	// SendFIFOFraction is the share of data, per mille, that the oldest message gets
	// whatever its length: 50, at most 500; -1 for none.
	SendFIFOFraction int

	// ReceiveMemory and SendMemory bound the bytes held for received and for sent
	// messages: 64 MiB each. PeerReceiveMemory and PeerSendMemory bound those of
	// one peer: half of that, or enough for one message. Shares are rounded up to chunks of 256 bytes to
	// 16 KiB.
	ReceiveMemory, SendMemory         int64
	PeerReceiveMemory, PeerSendMemory int64
	// ReceiveWindow bounds the bytes of one message that are held for a reader: 0
	// means whole messages. With less (at least 16 KiB), a reader that waits for
	// Complete before it reads a longer message waits for ever.
	ReceiveWindow int
	// SendAhead is how many bytes beyond those that may leave Write takes of one
	// message: 256 KiB.
	SendAhead int
	// MaxCalls bounds the calls that wait for a response, MaxServed the RPCs
	// being served: 65,536 each. MaxServedPerPeer bounds those of one client host: a
	// quarter of MaxServed. Clients over the bound are told BUSY until there is room.
	MaxCalls, MaxServed, MaxServedPerPeer int
	// MaxPeers bounds peers that have state: 5000. A peer without RPCs is forgotten
	// after PeerIdle (120 s), or earlier when the bound is reached.
	MaxPeers int
	PeerIdle time.Duration
	// TombstoneLife is how long a served RPC is remembered so that a late duplicate
	// of its request is dropped, not executed: 1 s, or twice Peer.TimeoutTicks if
	// that is more, since a client that has no answer sends its request again until
	// its time-out; negative: not at all. As long as a client, whose time-out may be
	// longer, sends data of the request again, it lives on. It also is the time after which a client may reuse an id, which a Linux
	// host does when it reboots. MaxTombstones (65,536) bounds them; the oldest go
	// first.
	TombstoneLife time.Duration
	MaxTombstones int
	// UnackedLife is the same for RPCs that ended without a word of their client, be it
	// an acknowledgement or that it has given up: 10 min, and at least TombstoneLife. A
	// client that was suspended, or whose owner paused in the middle of a request,
	// goes on after any time, and would have it executed again. MaxTombstones bounds
	// these for themselves, and they leave the id free for another port or length.
	UnackedLife time.Duration

	// OnUnknownPort, if set, is called for each packet that a client sends to a port
	// that is not served, so that the owner may answer with ICMP port unreachable. The
	// packet is borrowed. It must not call the engine.
	OnUnknownPort func(from netip.Addr, packet []byte)

	// AnyPort takes requests to every port, served by Listen or not: those to a
	// gateway that passes them on.
	AnyPort bool

	// Foreign, if set, reports whether a local port is another process's, whose
	// packets come here as well. It is asked before an unknown RPC or port is
	// answered for; then nothing is said. It must not call the engine.
	Foreign func(port uint16) bool

	// What follows is for simulation and experiments.

	// Virtual messages have lengths but no bytes: nothing is stored or bounded
	// by memory, Write and Read are not needed (a message counts as written by
	// Call and Reply, and as read when it arrives), Outgoing.Packet of DATA is
	// the header alone with Outgoing.DataLength saying how many bytes belong
	// behind it, and received packets go to ReceiveVirtual. Both ends must be
	// virtual.
	Virtual bool
	// SendFIFO sends the oldest message first in place of the one with the fewest
	// bytes left; GrantFIFO grants so.
	SendFIFO, GrantFIFO bool
	// NoPriorities gives every packet priority 0.
	NoPriorities bool
	// NoUnscheduled lets no byte leave without a grant, whatever Unscheduled says.
	NoUnscheduled bool
}

func setInt[T int | int64 | uint16 | time.Duration](p *T, value T) {
	if *p == 0 {
		*p = value
	}
}

// withDefaults returns c with every zero field set.
func (c Config) withDefaults() Config {
	setInt(&c.Tick, time.Millisecond)
	setInt(&c.MaxMessage, wire.MaxMessageLength)
	setInt(&c.ClientPort, 0x8000)
	setInt(&c.MaxIncoming, 400_000)
	setInt(&c.MaxOvercommit, 8)
	setInt(&c.FIFOGrantIncrement, 50_000)
	setInt(&c.FIFOGrantFraction, 50)
	setInt(&c.GrantRate, 25_000_000_000)
	if c.Cutoffs == ([wire.NumPriorities]uint32{}) {
		c.Cutoffs = [wire.NumPriorities]uint32{0, 0, 0, 0, 1_000_000, 15_000, 2800, 200}
	}
	setInt(&c.CutoffVersion, 1)
	setInt(&c.CutoffInterval, 4*time.Millisecond)
	if c.MaxScheduled == 0 {
		for i := 1; i < wire.NumPriorities && c.Cutoffs[i] == 0; i++ {
			c.MaxScheduled = i
		}
	}
	setInt(&c.MaxBacklog, 5*time.Microsecond)
	setInt(&c.MinBacklog, c.MaxBacklog)
	setInt(&c.LinkOverhead, 58)
	setInt(&c.DeferMin, 1000)
	setInt(&c.SendFIFOFraction, 50)
	setInt(&c.ReceiveMemory, 64<<20)
	setInt(&c.SendMemory, 64<<20)
	setInt(&c.ReceiveWindow, c.MaxMessage)
	setInt(&c.PeerReceiveMemory, max(c.ReceiveMemory/2, min(c.ReceiveMemory, c.receiveShare(c.MaxMessage))))
	setInt(&c.PeerSendMemory, max(c.SendMemory/2, min(c.SendMemory, shareOf(c.MaxMessage))))
	setInt(&c.SendAhead, 256<<10)
	setInt(&c.MaxCalls, 65_536)
	setInt(&c.MaxServed, 65_536)
	setInt(&c.MaxServedPerPeer, max(c.MaxServed/4, 1))
	setInt(&c.MaxPeers, 5000)
	setInt(&c.PeerIdle, 120*time.Second)
	setInt(&c.MaxTombstones, 65_536)
	c.Peer = c.Peer.over(PeerConfig{
		ResendTicks: 5, ResendInterval: 5, TimeoutTicks: 100, ResendLimit: 2, AckTicks: 2,
		AckTimeoutTicks: 500, ResponseTimeoutTicks: defaultResponseTimeout,
	})
	setInt(&c.TombstoneLife, max(time.Second, 2*time.Duration(c.Peer.TimeoutTicks)*c.Tick))
	setInt(&c.UnackedLife, max(10*time.Minute, c.TombstoneLife))
	return c
}

// over returns p with zero fields taken from base.
func (p PeerConfig) over(base PeerConfig) PeerConfig {
	patience := 2 * p.TimeoutTicks // an outage that calls survive must not end their responses
	if !p.VersionSet {
		p.Version, p.VersionSet = base.Version, base.VersionSet
	}
	setInt(&p.MaxData, base.MaxData)
	setInt(&p.Unscheduled, base.Unscheduled)
	setInt(&p.ResendTicks, base.ResendTicks)
	setInt(&p.ResendInterval, base.ResendInterval)
	setInt(&p.TimeoutTicks, base.TimeoutTicks)
	setInt(&p.ResendLimit, base.ResendLimit)
	setInt(&p.AckTicks, base.AckTicks)
	setInt(&p.AckTimeoutTicks, max(base.AckTimeoutTicks, patience))
	setInt(&p.ResponseTimeoutTicks, max(base.ResponseTimeoutTicks, patience))
	return p
}

// bound is a named value with its range.
type bound struct {
	name      string
	value     int64
	low, high int64
}

func checkBounds(bounds []bound) error {
	for _, b := range bounds {
		if b.value < b.low || b.value > b.high {
			return fmt.Errorf("homa: %s is %d, must be %d to %d", b.name, b.value, b.low, b.high)
		}
	}
	return nil
}

// check reports the first field of a merged PeerConfig that is out of range.
func (p PeerConfig) check() error {
	const most = 1 << 24
	if p.MaxData != 0 && (p.MaxData < minMaxData || p.MaxData > maxMaxData) {
		return fmt.Errorf("homa: MaxData is %d, must be %d to %d", p.MaxData, minMaxData, maxMaxData)
	}
	return checkBounds([]bound{
		{"Version", int64(p.Version), 0, int64(wire.Linux61)},
		{"Unscheduled", int64(p.Unscheduled), 0, maxLength},
		{"ResendTicks", int64(p.ResendTicks), 1, most},
		{"ResendInterval", int64(p.ResendInterval), 1, most},
		{"TimeoutTicks", int64(p.TimeoutTicks), 1, most},
		{"ResendLimit", int64(p.ResendLimit), 1, maxLength},
		{"AckTicks", int64(p.AckTicks), 1, most},
		{"AckTimeoutTicks", int64(p.AckTimeoutTicks), 1, most},
		{"ResponseTimeoutTicks", int64(p.ResponseTimeoutTicks), 1, most},
	})
}

// check reports the first field of a completed Config that is out of range.
func (c *Config) check() error {
	const many = 1 << 40
	if c.FirstID%2 != 0 {
		return fmt.Errorf("homa: FirstID %d is odd", c.FirstID)
	}
	window := c.receiveShare(c.MaxMessage)
	if c.Virtual {
		window = 0
	}
	share := shareOf(c.MaxMessage)
	if c.Virtual {
		share = 0
	}
	minBacklog := int64(time.Second)
	if c.LinkRate > 0 {
		minBacklog = int64(c.MaxBacklog)
	}
	if err := checkBounds([]bound{
		{"Tick", int64(c.Tick), int64(time.Microsecond), int64(time.Minute)},
		{"MaxMessage", int64(c.MaxMessage), 1, maxLength},
		{"ClientPort", int64(c.ClientPort), 1, 0xffff},
		{"MaxIncoming", int64(c.MaxIncoming), 1, maxLength},
		{"GrantWindow", int64(c.GrantWindow), 0, maxLength},
		{"GrantStep", int64(c.GrantStep), 0, maxLength},
		{"MaxOvercommit", int64(c.MaxOvercommit), 1, maxOvercommit},
		{"FIFOGrantIncrement", int64(c.FIFOGrantIncrement), 1, maxLength},
		{"FIFOGrantFraction", int64(c.FIFOGrantFraction), -1, 500},
		{"GrantRate", c.GrantRate, 1, many},
		{"MaxScheduled", int64(c.MaxScheduled), 0, wire.NumPriorities - 1},
		{"CutoffInterval", int64(c.CutoffInterval), 0, int64(time.Hour)},
		{"LinkRate", c.LinkRate, 0, many},
		{"MaxBacklog", int64(c.MaxBacklog), 0, int64(time.Second)},
		{"MinBacklog", int64(c.MinBacklog), 0, minBacklog},
		{"LinkOverhead", int64(c.LinkOverhead), 0, 1000},
		{"DeferMin", int64(c.DeferMin), 0, maxLength},
		{"SendFIFOFraction", int64(c.SendFIFOFraction), -1, 500},
		{"ReceiveWindow", int64(c.ReceiveWindow), int64(min(c.MaxMessage, chunkSize)), maxLength},
		{"PeerReceiveMemory", c.PeerReceiveMemory, window, many},
		{"ReceiveMemory", c.ReceiveMemory, window, many},
		{"PeerSendMemory", c.PeerSendMemory, share, many},
		{"SendMemory", c.SendMemory, share, many},
		{"SendAhead", int64(c.SendAhead), 1, maxLength},
		{"MaxCalls", int64(c.MaxCalls), 1, maxLength},
		{"MaxServed", int64(c.MaxServed), 1, maxLength},
		{"MaxServedPerPeer", int64(c.MaxServedPerPeer), 1, maxLength},
		{"MaxPeers", int64(c.MaxPeers), 1, maxLength},
		{"PeerIdle", int64(c.PeerIdle), 1, int64(24 * time.Hour)},
		{"TombstoneLife", int64(c.TombstoneLife), -1 << 62, int64(24 * time.Hour)},
		{"UnackedLife", int64(c.UnackedLife), int64(c.TombstoneLife), int64(24 * time.Hour)},
		{"MaxTombstones", int64(c.MaxTombstones), 1, 1 << 24},
	}); err != nil {
		return err
	}
	return c.Peer.check()
}
