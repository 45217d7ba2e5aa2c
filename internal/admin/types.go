package admin

import (
	"errors"
	"time"
)

// Status is the document of `tougw status --json`. Fields are only added.
type Status struct {
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	Instance string    `json:"instance"` // start of the instance id
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	UptimeS  float64   `json:"uptime_s"`
	Draining bool      `json:"draining"`

	Tun     *Tun     `json:"tun,omitempty"`
	Sockets []Socket `json:"sockets"`
	Peers   []Peer   `json:"peers"`

	Flows    FlowCounts `json:"flows"`
	Sessions int        `json:"sessions"` // TOU sessions, closing ones included

	Homa         *Homa         `json:"homa,omitempty"`
	Translations []Translation `json:"translations,omitempty"`

	// Drops has every reason of every part with its count, also when zero.
	Drops []Drop `json:"drops"`
}

// Tun describes the capturing device.
type Tun struct {
	Name     string   `json:"name"`
	Backend  string   `json:"backend"`
	MTU      int      `json:"mtu"`
	Queues   int      `json:"queues"`
	VnetHdr  bool     `json:"vnet_hdr"`
	TSO      bool     `json:"tso"`
	Fallback string   `json:"fallback,omitempty"` // why not the first choice
	Routes   []string `json:"routes"`
}

// Socket describes a UDP socket.
type Socket struct {
	Address    string `json:"address"`
	Role       string `json:"role"` // "listen", or the name of the dialled peer
	GSO        bool   `json:"gso"`
	GRO        bool   `json:"gro"`
	Steering   bool   `json:"steering"` // one of several, and peers that move stay with theirs by Connection ID
	RecvBuffer int    `json:"recv_buffer_bytes"`
	SendBuffer int    `json:"send_buffer_bytes"`
	Fallback   string `json:"fallback,omitempty"`
}

// Peer describes a peer gateway.
type Peer struct {
	Name          string    `json:"name"`
	State         string    `json:"state"` // up, connecting, waiting, down, draining
	Dialled       bool      `json:"dialled"`
	Identity      string    `json:"identity,omitempty"`
	Instance      string    `json:"instance,omitempty"`
	Endpoint      string    `json:"endpoint,omitempty"`
	Endpoints     []string  `json:"endpoints,omitempty"`
	Suite         string    `json:"suite,omitempty"`
	ConnectionID  bool      `json:"connection_id"`
	PathMTU       int       `json:"path_mtu,omitempty"`
	RTTMs         float64   `json:"rtt_ms,omitempty"`
	Sessions      int       `json:"sessions"`
	BytesIn       uint64    `json:"bytes_in"`
	BytesOut      uint64    `json:"bytes_out"`
	QueuedBytes   int       `json:"queued_bytes"`
	LastHandshake time.Time `json:"last_handshake,omitzero"`
	LastReceivedS float64   `json:"last_received_s,omitempty"`
	Error         string    `json:"error,omitempty"`
}

// FlowCounts counts flows.
type FlowCounts struct {
	Active  int    `json:"active"`
	Opening int    `json:"opening"`
	Opened  uint64 `json:"opened"`
	Failed  uint64 `json:"failed"`
	Closed  uint64 `json:"closed"`
}

// Drop is one counter of things that were not carried.
type Drop struct {
	Where  string `json:"where"`
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// Flow describes one flow.
type Flow struct {
	ID        uint64    `json:"id"`
	Direction string    `json:"direction"` // outbound (captured here), inbound (from a peer), direct
	Peer      string    `json:"peer,omitempty"`
	Src       string    `json:"src"` // as captured; as claimed by the peer when inbound
	Dst       string    `json:"dst"`
	Session   string    `json:"session,omitempty"` // own TOU session id, hexadecimal
	State     string    `json:"state"`
	Opened    time.Time `json:"opened"`
	AgeS      float64   `json:"age_s"`
	BytesUp   uint64    `json:"bytes_up"`   // from the end that opened the flow
	BytesDown uint64    `json:"bytes_down"` // to it
}

// ErrNoRule says that a RequestFilter names a rule that there is not.
var ErrNoRule = errors.New("no such rule")

// Source gives the snapshots that the server shows. Its methods are called
// from many goroutines.
type Source interface {
	Status() Status
	Flows() []Flow
	// LastRequests returns the slow and the failed requests that are kept, the
	// oldest first; Requests those that end from now on. The error says why there
	// are none, and wraps ErrNoRule if the filter's rule is not one of the source.
	LastRequests(RequestFilter) ([]Request, error)
	Requests(RequestFilter) (RequestFeed, error)
	// Ready reports whether the daemon can carry flows, and if not, why.
	Ready() (bool, string)
}
