package tunnel

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// sessionState is the life of a session: opening, open, closing.
type sessionState uint32

const (
	// opening: a SYN was seen and the far side is not connected yet.
	opening sessionState = iota
	// open: both ends are connected.
	open
	// closing: the flow has ended here. The ids stay mapped so that late
	// segments find their answer, and the id refuses a new SYN.
	closing
	// refused: as closing, but no transport connection was ever made; a
	// repeated SYN is answered with the reason again.
	refused
)

// session is one TOU session: one flow in the tunnel.
type session struct {
	id        uint64        // own session id, drawn here
	remote    atomic.Uint64 // the peer's session id; 0 while unknown
	inst      *instance     // whose session it is
	initiator bool          // this side sent the SYN
	src, dst  netip.AddrPort
	name      string // target name, when the initiator sent one instead of an address
	opened    time.Time

	state    atomic.Uint32
	reason   atomic.Uint32 // refusal, valid in state refused
	answered atomic.Bool   // the initiator's first segment after the SYN-ACK went out
	// flow is what waits of it in the transmit queue that it last used; nil until
	// something had to wait.
	flow atomic.Pointer[flow]
	// lastUse is when a segment of the session last went either way, in
	// coarse ticks of the node.
	lastUse atomic.Int64
	// closedAt is when it ended, in ticks of the node; guarded by Node.mu.
	closedAt int64
}

// getState reads the state, which changes under Node.mu only.
func (s *session) getState() sessionState { return sessionState(s.state.Load()) }

// alive reports whether the session has not ended.
func (s *session) alive() bool { return s.getState() < closing }

// SessionInfo describes a session for policy, status and logs.
type SessionInfo struct {
	// Peer is the proven identity of the peer whose session it is.
	Peer Identity
	// Src and Dst are the flow's own ends. Src is the peer's claim when the
	// peer opened the session: shown and logged, never a basis of policy. Dst
	// has an invalid address when Name is set.
	Src, Dst netip.AddrPort
	// Name is the target's name, to be resolved on this side.
	Name string
	// Initiator is true when this side opened the session.
	Initiator bool
	// RTT is the shortest round trip to the peer by this association, 0 while
	// unknown.
	RTT time.Duration
}

func (s *session) info() SessionInfo {
	info := SessionInfo{Peer: s.inst.identity, Src: s.src, Dst: s.dst, Name: s.name, Initiator: s.initiator}
	if l := s.inst.link.Load(); l != nil {
		info.RTT = time.Duration(l.leastRTT.Load())
	}
	return info
}
