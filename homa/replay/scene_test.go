package replay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tougw/tougw/homa/wire"
	captures "github.com/tougw/tougw/test/vectors/homa"
)

// role is the place that the engine takes.
type role string

const (
	client role = "client"
	server role = "server"
)

// event is a packet of a capture.
type event struct {
	at       time.Duration
	own      bool // sent by the host whose place the engine takes
	lost     bool // it did not arrive
	priority uint8
	raw      []byte // what arrives, filled up where the recording was cut
	icmp     bool
	homa     wire.Packet // unless icmp
}

// message is one of the two of an RPC, as the application knows it.
type message struct {
	content []byte // nil: nothing of it was recorded
}

// call is an RPC of a capture.
type call struct {
	id                uint64 // even
	port              uint16 // the client's
	to                netip.AddrPort
	at                time.Duration // when the client began
	request, response message
	header            captures.Header
}

// scene is a capture as one of its hosts took part.
type scene struct {
	*captures.Capture
	version wire.Version
	role    role
	own     netip.Addr
	peer    netip.Addr
	events  []event
	calls   []*call // in the order of their ids
}

func (s *scene) name() string {
	return strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(s.File, "main_"), "v6138_"), "nn_")
}

// newScene reads a capture. It knows the hosts by their addresses.
func newScene(t *testing.T, c *captures.Capture, r role) *scene {
	t.Helper()
	v, err := wire.ParseVersion(c.Version)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{Capture: c, version: v, role: r}
	frames, err := c.Frames()
	if err != nil {
		t.Fatal(err)
	}
	clientAddr := frames[0].Src // it begins every capture
	s.own, s.peer = clientAddr, frames[0].Dst
	if r == server {
		s.own, s.peer = s.peer, s.own
	}
	drop := newDropper(s.name())
	for _, f := range frames {
		e := event{at: f.At, own: f.Src == s.own, icmp: f.ICMP(), raw: f.Payload, priority: f.TrafficClass >> 5}
		if c.IP == 6 && v == wire.Linux61 {
			e.priority = f.TrafficClass >> 4
		}
		if !e.icmp {
			e.raw = append(slices.Clone(f.Payload), make([]byte, f.Length-len(f.Payload))...)
			if err := v.Decode(&e.homa, e.raw); err != nil {
				e.homa = wire.Packet{} // arrives all the same
			}
			e.lost = drop(&e.homa)
		} else if f.Src != clientAddr && f.Src != s.peer {
			e.own = r == server
		}
		s.events = append(s.events, e)
	}
	s.findCalls(clientAddr)
	s.fill(t)
	return s
}

// dropper says of each packet, in order, whether the bridge lost it.
type dropper func(*wire.Packet) bool

func newDropper(name string) dropper {
	once := func(match func(*wire.Packet) bool) dropper {
		done := false
		return func(p *wire.Packet) bool {
			if done || !match(p) {
				return false
			}
			done = true
			return true
		}
	}
	data := func(id uint64, offset uint32) dropper {
		return once(func(p *wire.Packet) bool {
			return p.Type == wire.Data && p.SenderID%2 == id && p.Offset == offset
		})
	}
	name = strings.TrimSuffix(strings.TrimSuffix(name, "_v4.pcap"), "_v6.pcap")
	switch {
	case strings.HasPrefix(name, "dead_server"):
		return func(*wire.Packet) bool { return true }
	case name == "loss_request_first_100", name == "loss_request_head_10k":
		return data(0, 0)
	case name == "loss_request_last_10k":
		return data(0, 9968)
	case name == "loss_request_middle_10k":
		return data(0, 2848)
	case name == "loss_response_100":
		return data(1, 0)
	case name == "loss_response_middle_10k":
		return data(1, 4272)
	case name == "loss_ack":
		return once(func(p *wire.Packet) bool { return p.Type == wire.Ack })
	case name == "loss_grant_100k":
		return once(func(p *wire.Packet) bool { return p.Type == wire.Grant })
	}
	return func(*wire.Packet) bool { return false }
}

// findCalls learns of the RPCs and their messages from DATA packets.
func (s *scene) findCalls(clientAddr netip.Addr) {
	byID := map[uint64]*call{}
	heads := map[uint64][]byte{}
	to := s.peer
	if s.role == server {
		to = s.own
	}
	lengths := map[uint64]uint32{}
	for _, e := range s.events {
		p := &e.homa
		if e.icmp || p.Type != wire.Data {
			continue
		}
		id := p.SenderID &^ 1
		c := byID[id]
		if c == nil {
			c = &call{id: id, port: p.SrcPort, to: netip.AddrPortFrom(to, p.DstPort), at: e.at}
			if p.SenderID != id {
				c.port, c.to = p.DstPort, netip.AddrPortFrom(to, p.SrcPort)
			}
			byID[id] = c
			s.calls = append(s.calls, c)
		}
		lengths[p.SenderID] = p.Length
		if p.Offset == 0 && heads[p.SenderID] == nil {
			heads[p.SenderID] = p.Data
		}
	}
	slices.SortFunc(s.calls, func(a, b *call) int { return int(a.id) - int(b.id) })
	// An engine numbers its calls in their order.
	for i := len(s.calls) - 2; i >= 0; i-- {
		s.calls[i].at = min(s.calls[i].at, s.calls[i+1].at)
	}
	for _, c := range s.calls {
		var head []byte
		c.request.content, head = content(int(lengths[c.id]), heads[c.id])
		if h, err := captures.ReadHeader(head); err == nil {
			c.header = h
		}
		if n := int(lengths[c.id|1]); n > 0 {
			var head []byte
			if c.header.Response == 0 {
				head = c.request.content
			}
			c.response.content, _ = content(n, head)
		}
	}
}

// content is a message of n bytes: by rule, but for the header if it has one.
func content(n int, head []byte) (b, header []byte) {
	b = make([]byte, n)
	for i := range b {
		b[i] = captures.Byte(i)
	}
	if _, err := captures.ReadHeader(head); err == nil && n >= captures.HeaderSize {
		header = b[:copy(b, head[:captures.HeaderSize])]
	}
	return b, header
}

// sent is what a DATA packet holds by rule, nil if it is none of a call.
func (s *scene) sent(p *wire.Packet) []byte {
	for _, c := range s.calls {
		if c.id == p.SenderID&^1 {
			m := c.request.content
			if p.SenderID%2 == 1 {
				m = c.response.content
			}
			if end := int(p.Offset) + len(p.Data); end <= len(m) {
				return m[p.Offset:end]
			}
		}
	}
	return nil
}

// fill completes the data of packets that were cut, and checks that of others.
func (s *scene) fill(t *testing.T) {
	t.Helper()
	for i := range s.events {
		e := &s.events[i]
		if e.icmp || e.homa.Type != wire.Data {
			continue
		}
		b := s.sent(&e.homa)
		if b == nil && len(e.homa.Data) > 0 {
			if !s.is("trap") { // there the sender put it elsewhere
				t.Fatalf("packet %d: no such data", i)
			}
			continue
		}
		if s.Cut {
			copy(e.homa.Data, b)
		} else if string(b) != string(e.homa.Data) {
			t.Fatalf("packet %d: data of [%d, %d) is not as the rule says", i, e.homa.Offset, int(e.homa.Offset)+len(b))
		}
	}
}

// describe writes a packet in short.
func describe(p *wire.Packet) string {
	s := fmt.Sprintf("%v of %d", p.Type, p.SenderID)
	switch p.Type {
	case wire.Data:
		s += fmt.Sprintf(" [%d:%d]/%d", p.Offset, int(p.Offset)+len(p.Data), p.Length)
		if p.Retransmit {
			s += " again"
		}
	case wire.Grant:
		s += fmt.Sprintf(" (%d, %d)", p.Offset, p.Priority)
	case wire.Resend:
		s += fmt.Sprintf(" (%d, %d, %d)", p.Offset, p.RangeLength, p.Priority)
	case wire.Ack:
		for _, a := range p.Acks[:p.NumAcks] {
			s += fmt.Sprintf(" %d", a.ClientID)
		}
	}
	return s
}
