package tunnel

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// PeerInfo describes a peer for status.
type PeerInfo struct {
	// Name is the configured name of a dialled peer, else the first name that
	// the peer has proven.
	Name string
	// Identity is what the peer has proven; empty while it is not connected.
	Identity string
	// Instance is the start of the peer's instance id.
	Instance string
	// Dialled is true for a peer that this side dials.
	Dialled bool
	// State is "up", "connecting", "waiting" (for the next attempt), "down"
	// or "draining".
	State string
	// Endpoint is the peer's address now; for a dialled peer without an
	// association, the zero value.
	Endpoint netip.AddrPort
	// Endpoints are the configured ones of a dialled peer.
	Endpoints []string
	// PathMTU is the largest outer packet in bytes.
	PathMTU int
	// RTT is the smoothed round trip of echoes; 0 while unknown.
	RTT time.Duration
	// Sessions counts the sessions of the instance, those that are closing
	// included.
	Sessions int
	// BytesIn and BytesOut count what the instance sent and was sent over all
	// its associations: bytes of GUE packets, control messages included.
	BytesIn, BytesOut uint64
	// Queued is what waits to be sent, in bytes.
	Queued int
	// LastHandshake is when the present association was made.
	LastHandshake time.Time
	// LastReceived is the age of the last sign of life.
	LastReceived time.Duration
	// Err is the last failure of a dialled peer that is not up. It may quote
	// what the peer said.
	Err string
	// Secure is the association, for its owner to say more of it; nil without.
	Secure Secure
}

// Peers lists dialled peers, and peers that dialled this side, by name.
func (n *Node) Peers() []PeerInfo {
	n.mu.RLock()
	peers := slices.Clone(n.peers)
	insts := make([]*instance, 0, len(n.instances))
	for _, inst := range n.instances {
		if inst.peer == nil {
			insts = append(insts, inst)
		}
	}
	n.mu.RUnlock()
	infos := make([]PeerInfo, 0, len(peers)+len(insts))
	for _, p := range peers {
		infos = append(infos, p.info())
	}
	for _, inst := range insts {
		info := PeerInfo{Name: inst.identity.Name(), State: "down"}
		n.describe(&info, inst)
		infos = append(infos, info)
	}
	slices.SortStableFunc(infos, func(a, b PeerInfo) int { return strings.Compare(a.Name, b.Name) })
	return infos
}

func (p *Peer) info() PeerInfo {
	p.mu.Lock()
	info := PeerInfo{Name: p.cfg.Name, Dialled: true, State: p.state, Endpoints: p.cfg.Endpoints}
	if p.state != "up" && p.lastErr != nil {
		info.Err = p.lastErr.Error()
	}
	p.mu.Unlock()
	if inst := p.inst.Load(); inst != nil {
		p.node.describe(&info, inst)
	}
	if info.Secure == nil && info.State == "up" {
		info.State = "down" // its dialler has not noticed yet, or is busy with a rival
	}
	return info
}

// describe adds what is known of an instance and its link.
func (n *Node) describe(info *PeerInfo, inst *instance) {
	info.Identity, info.Instance = inst.identity.Key, inst.key.id.String()
	info.Sessions = int(inst.sessions.Load())
	info.BytesIn, info.BytesOut = inst.bytesIn.Load(), inst.bytesOut.Load()
	l := inst.link.Load()
	if l == nil {
		return
	}
	info.State = "up"
	if l.draining.Load() {
		info.State = "draining"
	}
	info.Endpoint, info.PathMTU, info.RTT = l.secure.Remote(), l.pathMTU, time.Duration(l.rtt.Load())
	info.Queued, info.LastHandshake = l.queue.depth(), l.since
	info.LastReceived = time.Duration(n.now() - l.lastRx.Load())
	info.Secure = l.secure
}
