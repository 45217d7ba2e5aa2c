package tunnel

import "sync/atomic"

// Drop says why a packet, a segment or a control message was not carried.
type Drop uint8

// Reasons of a drop, in the order of their counters.
const (
	DropMalformed      Drop = iota // GUE header that does not decode
	DropProtocol                   // inner protocol that is not carried
	DropNoHello                    // data before the hello of its association
	DropUnknownSession             // destination session id that is not ours
	DropForeignSession             // session of another identity or instance
	DropBadIDs                     // session ids do not fit the segment's flags
	DropNoAddresses                // SYN without addresses
	DropClosedSession              // SYN or refusal of a session that was closed
	DropSessionLimit               // SYN beyond the limit of sessions
	DropOpeningLimit               // SYN beyond the limit of sessions being opened
	DropDraining                   // SYN while this side is stopping
	DropShort                      // transport header cut short
	DropControl                    // control message that does not decode
	DropControlUnknown             // control message of an unknown type, skipped
	DropNoAssociation              // outbound, while the peer has no association
	DropNoSession                  // outbound, of a session that is gone
	DropQueueFull                  // outbound, transmit queue at its bound
	DropSeal                       // outbound, the association refused to protect it
	DropTooLarge                   // outbound, does not fit the path MTU
	DropSend                       // outbound, the socket refused it
	DropEnded                      // on an association that this side has ended, or of an instance that it has given up
	DropPathReply                  // path reply that answers nothing, or by another way
	numDrops
)

var dropNames = [numDrops]string{
	"malformed", "protocol", "no_hello", "unknown_session", "foreign_session", "bad_ids", "no_addresses",
	"closed_session", "session_limit", "opening_limit", "draining", "short", "control", "control_unknown",
	"no_association", "no_session", "queue_full", "seal", "too_large", "send", "ended", "path_reply",
}

// String returns the reason as a word of a metric label.
func (d Drop) String() string {
	if d < numDrops {
		return dropNames[d]
	}
	return "unknown"
}

type drops [numDrops]atomic.Uint64

func (d *drops) count(r Drop) { d[r].Add(1) }

// Stats are the counters of a Node since its start. Work in progress shows as
// the difference of a started and an ended counter.
type Stats struct {
	SessionsOpened, SessionsClosed uint64 // sessions, by either side
	LinksUp, LinksDown             uint64 // associations
	SegmentsIn, SegmentsOut        uint64 // segments on the wire
	BytesIn, BytesOut              uint64 // bytes of these segments, transport header included
	ControlIn, ControlOut          uint64 // control messages
	DatagramsIn, DatagramsOut      uint64 // packets of other transports
	PathMoves                      uint64 // associations that followed their peer to a new path
	Drops                          map[string]uint64
}

type counters struct {
	sessionsOpened, sessionsClosed atomic.Uint64
	linksUp, linksDown             atomic.Uint64
	segmentsIn, segmentsOut        atomic.Uint64
	bytesIn, bytesOut              atomic.Uint64
	controlIn, controlOut          atomic.Uint64
	datagramsIn, datagramsOut      atomic.Uint64
	pathMoves                      atomic.Uint64
	drops                          drops
}

// Stats returns a snapshot of the counters.
func (n *Node) Stats() Stats {
	c := &n.counters
	s := Stats{
		SessionsOpened: c.sessionsOpened.Load(), SessionsClosed: c.sessionsClosed.Load(),
		LinksUp: c.linksUp.Load(), LinksDown: c.linksDown.Load(),
		SegmentsIn: c.segmentsIn.Load(), SegmentsOut: c.segmentsOut.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
		ControlIn: c.controlIn.Load(), ControlOut: c.controlOut.Load(),
		DatagramsIn: c.datagramsIn.Load(), DatagramsOut: c.datagramsOut.Load(), PathMoves: c.pathMoves.Load(),
		Drops: make(map[string]uint64, numDrops),
	}
	for i := range c.drops {
		s.Drops[dropNames[i]] = c.drops[i].Load()
	}
	return s
}
