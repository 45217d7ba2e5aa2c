package replay

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/wire"
)

// kind is how the engine differs from the recorded host.
type kind string

const (
	missing kind = "missing" // the recorded host sent it, the engine did not
	extra   kind = "extra"   // the other way round
	behind  kind = "behind"  // the engine had granted less
	other   kind = "other"   // a field of DATA
)

// difference is one packet that is not as recorded.
type difference struct {
	kind   kind
	homa   wire.Packet // the recorded one, or the extra one
	asked  bool        // it answers NEED_ACK
	amount int         // behind: by how many bytes
	fields []string    // other: which differ
	detail string
}

func (p *player) differ(k kind, packet *wire.Packet, detail string) *difference {
	detail = fmt.Sprintf("%s %s %s at %v (recording %v)", k, describe(packet), detail, p.now, p.now-p.shift)
	p.diffs = append(p.diffs, difference{kind: k, homa: *packet, detail: detail})
	return &p.diffs[len(p.diffs)-1]
}

// is reports whether the scene is one of those whose names begin so.
func (s *scene) is(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(s.name(), name) })
}

// compare judges what a replay left: messages, acknowledgements, ends.
func (p *player) compare() {
	for _, c := range p.calls {
		if p.role == client {
			p.compareData(c.id, len(c.request.content))
			p.compareClient(c)
		} else {
			p.compareData(c.id|1, len(c.response.content))
			p.compareServer(c)
		}
	}
	p.compareAcks()
	p.compareGrants()
	for i := range p.out {
		if o := &p.out[i]; !o.matched && o.homa.Type != wire.Data && o.homa.Type != wire.Grant {
			p.now = o.at
			p.differ(extra, &o.homa, "").asked = o.asked
		}
	}
}

// form is what a DATA packet that is sent for the first time must have in common.
type form struct {
	length, incoming uint32
	size             int
	cutoffs          uint16
	priority         uint8 // of unscheduled bytes
}

// differs names the fields that are not the same.
func (f form) differs(g form) (fields []string) {
	for _, c := range []struct {
		name string
		same bool
	}{
		{"length", f.length == g.length}, {"incoming", f.incoming == g.incoming}, {"size", f.size == g.size},
		{"cutoffs", f.cutoffs == g.cutoffs}, {"priority", f.priority == g.priority},
	} {
		if !c.same {
			fields = append(fields, c.name)
		}
	}
	return fields
}

// sending is what one host sent of a message.
type sending struct {
	packets []wire.Packet // for the first time, in order
	forms   map[uint32]form
	again   []bool // bytes that were sent again
}

func newSending(length int) *sending {
	return &sending{forms: map[uint32]form{}, again: make([]bool, length)}
}

func (x *sending) add(k *wire.Packet, priority uint8, v wire.Version) {
	if k.Retransmit {
		for i := range k.Data {
			x.again[int(k.Offset)+i] = true
		}
		return
	}
	if k.Offset >= k.Incoming && v != wire.Stripped {
		priority = 0 // scheduled, as the last GRANT says
	}
	x.packets = append(x.packets, *k)
	x.forms[k.Offset] = form{k.Length, k.Incoming, len(k.Data), k.CutoffVersion, priority}
}

// compareData compares what was sent of the message with the id as it stands in
// its packets.
func (p *player) compareData(id uint64, length int) {
	want, got := newSending(length), newSending(length)
	for i := range p.events {
		if ev := &p.events[i]; ev.own && ev.homa.Type == wire.Data && ev.homa.SenderID == id {
			want.add(&ev.homa, ev.priority, p.version)
		}
	}
	covered := 0
	for i := range p.out {
		o := &p.out[i]
		k := &o.homa
		if k.Type != wire.Data || k.SenderID != id {
			continue
		}
		if !k.Retransmit {
			if int(k.Offset) != covered {
				p.Errorf("%s follows %d", describe(k), covered)
			}
			covered += len(k.Data)
			if k.Offset >= k.Incoming && o.priority != o.level {
				p.Errorf("%s at priority %d, granted at %d", describe(k), o.priority, o.level)
			}
		}
		if !bytes.Equal(k.Data, p.sent(k)) {
			p.Errorf("wrong bytes in %s", describe(k))
		}
		got.add(k, o.priority, p.version)
	}
	p.compareForms(want, got)
	p.compareAgain(id, want, got)
}

// compareForms: the same packets, but for those sent again.
func (p *player) compareForms(want, got *sending) {
	for i := range want.packets {
		k := &want.packets[i]
		f := want.forms[k.Offset]
		switch g, ok := got.forms[k.Offset]; {
		case !ok:
			p.differ(missing, k, "")
		case g != f:
			p.differ(other, k, fmt.Sprintf("%+v, recorded %+v", g, f)).fields = g.differs(f)
		}
	}
	for i := range got.packets {
		if _, ok := want.forms[got.packets[i].Offset]; !ok {
			p.differ(extra, &got.packets[i], "")
		}
	}
}

// compareAgain: what was sent again is what was asked for, and nothing that the
// recorded host did not send again.
func (p *player) compareAgain(id uint64, want, got *sending) {
	report := func(k kind, wrong func(i int) bool, what string) {
		for i := range got.again {
			if wrong(i) {
				p.differ(k, &wire.Packet{Type: wire.Data, SenderID: id, Offset: uint32(i), Retransmit: true, Length: uint32(len(got.again))}, what)
				return
			}
		}
	}
	wanted := p.wanted[id]
	report(extra, func(i int) bool { return got.again[i] && !want.again[i] }, "first byte of those not recorded")
	report(missing, func(i int) bool { return i < len(wanted) && wanted[i] && !got.again[i] }, "first byte of those asked for")
}

func (p *player) compareClient(c *call) {
	end := p.ended[c.id]
	if c.response.content == nil {
		want := p.wantEnd()
		if want == nil {
			if end.Kind != 0 {
				p.Errorf("call %d: %v, want it to wait", c.id, end.Kind)
			}
		} else if end.Kind != homa.Failed || !errors.Is(end.Err, want) {
			p.Errorf("call %d ends with %v %v, want %v", c.id, end.Kind, end.Err, want)
		}
		return
	}
	if end.Kind != homa.Complete || !bytes.Equal(p.got[c.id], c.response.content) {
		p.Errorf("call %d: %v, %v, %d bytes", c.id, end.Kind, end.Err, len(p.got[c.id]))
	}
}

func (p *player) compareServer(c *call) {
	end := p.ended[c.id]
	switch {
	case p.is("dead_server", "no_port"):
		if p.rpcs[c.id] != nil {
			p.Errorf("request %d arrived", c.id)
		}
	case p.is("never_reply"):
		if end.Kind != homa.Complete {
			p.Errorf("request %d: %v, want it in service", c.id, end.Kind)
		}
	case p.is("client_closes_early"):
		if end.Kind != homa.Failed || !errors.Is(end.Err, homa.ErrPortUnreachable) {
			p.Errorf("request %d: %v %v, want it to end with %v", c.id, end.Kind, end.Err, homa.ErrPortUnreachable)
		}
	default:
		if end.Kind != homa.Acked || !bytes.Equal(p.got[c.id], c.request.content) {
			p.Errorf("request %d: %v, %v, %d bytes", c.id, end.Kind, end.Err, len(p.got[c.id]))
		}
	}
}

// acked returns the ids that a client's packets acknowledge.
func acked(k *wire.Packet, ids map[uint64]bool) {
	switch k.Type {
	case wire.Data:
		ids[k.Ack.ClientID] = k.Ack.ClientID != 0
	case wire.Ack:
		ids[k.SenderID] = true
		for _, a := range k.Acks[:k.NumAcks] {
			ids[a.ClientID] = a.ClientID != 0
		}
	}
}

// compareAcks: the engine acknowledges every RPC that the recorded client did,
// and no other than those it completed.
func (p *player) compareAcks() {
	want, got := map[uint64]bool{}, map[uint64]bool{}
	for i := range p.events {
		if ev := &p.events[i]; ev.own {
			acked(&ev.homa, want)
		}
	}
	for i := range p.out {
		acked(&p.out[i].homa, got)
	}
	for id, yes := range want {
		if yes && !got[id] && p.find(id) != nil { // others were before the capture
			p.differ(missing, &wire.Packet{Type: wire.Ack, SenderID: id}, "acknowledgement in any packet")
		}
	}
	for id, yes := range got {
		if yes && p.role == client && p.ended[id].Kind != homa.Complete {
			p.Errorf("%d is acknowledged, but not complete", id)
		}
	}
}

// compareGrants: offsets do not fall, and priorities are among the recorded host's.
func (p *player) compareGrants() {
	levels := map[uint8]bool{}
	for i := range p.events {
		if ev := &p.events[i]; ev.own && ev.homa.Type == wire.Grant {
			levels[ev.homa.Priority] = true
		}
	}
	last := map[uint64]uint32{}
	for i := range p.out {
		k := &p.out[i].homa
		if k.Type != wire.Grant {
			continue
		}
		if k.Offset < last[k.SenderID] {
			p.Errorf("%s is below %d", describe(k), last[k.SenderID])
		}
		last[k.SenderID] = k.Offset
		if !levels[k.Priority] {
			p.differ(other, k, fmt.Sprintf("priorities recorded: %v", levels)).fields = []string{"priority"}
		}
	}
}

// wantWhole: the request is there, after one RESEND of all that was misplaced.
func (p *player) wantWhole(c *call) {
	resends := 0
	for _, o := range p.out {
		if o.homa.Type == wire.Resend {
			resends++
		}
	}
	r := p.rpcs[c.id]
	if r == nil || r.State() != homa.InService || resends != 1 {
		p.Fatalf("request %v after %d RESENDs, want it whole after one", r, resends)
	}
	p.read(r)
	if !bytes.Equal(p.got[c.id], c.request.content) {
		p.Error("request arrived with wrong bytes")
	}
}

// wantExact: RESEND of a range is answered with that range, so that a receiver
// which refuses overlapping packets takes it.
func (p *player) wantExact() {
	var ranges, answers []string
	for i := range p.events {
		if k := &p.events[i].homa; !p.events[i].own && k.Type == wire.Resend {
			ranges = append(ranges, fmt.Sprint(k.Offset, k.RangeLength))
		}
	}
	end := uint32(0)
	size := 0
	for i := range p.out {
		k := &p.out[i].homa
		if k.Type != wire.Data || !k.Retransmit {
			continue
		}
		if k.Offset == end && size > 0 && k.Offset != 1400 {
			answers = answers[:len(answers)-1] // goes on where the last one ended
		} else {
			size = 0
		}
		size += len(k.Data)
		end = k.Offset + uint32(len(k.Data))
		answers = append(answers, fmt.Sprint(int(end)-size, size))
	}
	if fmt.Sprint(answers) != fmt.Sprint(ranges) {
		p.Errorf("sent again %q, asked for %q", answers, ranges)
	}
}
