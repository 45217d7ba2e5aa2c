package tunnel

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/tougw/tougw/gue"
	"github.com/tougw/tougw/internal/packet"
)

// Datagrams are packets of another transport than TCP, which the programs on both
// sides speak with each other: nothing is kept of them here, and what is lost is
// theirs to repeat. Each is a record of its own, a GUE data message with the
// protocol's number and without session ids (PROTOCOL.md, Homa between
// gateways). They do not pass the transmit queue of the segments: their transport
// decides itself what goes first.

// PeerRef names a connected instance of a peer, as long as it is known; 0 is none.
// Another run of the same peer has another.
type PeerRef uint64

// Datagram is one packet on its way.
type Datagram struct {
	// Peer is who it goes to or comes from.
	Peer PeerRef
	// Target is an address beside it, for what the transports make of it; zero for
	// none. An IPv4 address is not mapped, and there is no zone.
	Target netip.Addr
	// Payload is the packet, from its transport header on.
	Payload []byte
	// Failed is set by SendDatagrams on what was not sent.
	Failed DatagramFailure
}

// DatagramFailure says why a datagram was not sent.
type DatagramFailure uint8

// The failures of a datagram.
const (
	DatagramSent     DatagramFailure = iota
	DatagramNoPeer                   // the instance is gone, or has no association
	DatagramTooLarge                 // for the path, see PeerPath.MaxPayload
	DatagramRefused                  // by the socket or the limits of the association's keys
)

// Datagrams takes what comes from peers.
type Datagrams interface {
	// Datagram takes a datagram, which it borrows. It is called by receive goroutines,
	// several at a time, and must not block.
	Datagram(d *Datagram)
	// CallRefused is told that a peer cannot have a request answered that was sent to
	// it: by what name its sender knows the request, and why.
	CallRefused(peer PeerRef, call uint64, reason error)
}

// PeerPath is what a transport needs to know of the way to a peer.
type PeerPath struct {
	// Identity is what the peer has proven.
	Identity Identity
	// RTT is the smoothed round trip, 0 while it is unknown.
	RTT time.Duration
	// MaxPayload is the longest Datagram.Payload in bytes that one record carries
	// now, with or without a Target.
	MaxPayload int
}

// PeerRef waits for the peer of that name, a dialled one or one that has proven the
// name, to be connected, until ctx ends. Its errors are those of Open.
func (n *Node) PeerRef(ctx context.Context, name string) (PeerRef, error) {
	inst, err := n.waitInstance(ctx, name)
	if err != nil {
		return 0, err
	}
	return inst.ref, nil
}

// PeerPath describes the way to an instance. It reports false when the instance is
// not known any more or has no association.
func (n *Node) PeerPath(ref PeerRef) (PeerPath, bool) {
	inst, l := n.byRef(ref)
	if l == nil {
		return PeerPath{}, false
	}
	room := int(l.maxPlain.Load()) - gue.BaseLen - gue.IPv6AddrsLen
	return PeerPath{Identity: inst.identity, RTT: time.Duration(l.rtt.Load()), MaxPayload: max(room, 0)}, true
}

// byRef finds an instance and the association that carries it.
func (n *Node) byRef(ref PeerRef) (*instance, *Link) {
	n.mu.RLock()
	inst := n.refs[ref]
	n.mu.RUnlock()
	if inst == nil {
		return nil, nil
	}
	return inst, inst.link.Load()
}

// newRef draws the reference of an instance and enters it. Node.mu is held.
func (n *Node) newRef(inst *instance) {
	for inst.ref == 0 || n.refs[inst.ref] != nil {
		inst.ref = PeerRef(rand.Uint64())
	}
	n.refs[inst.ref] = inst
}

// RefuseCall tells a peer that a request of its cannot be answered, and why. The
// message may be lost.
func (n *Node) RefuseCall(ref PeerRef, call uint64, reason error) {
	if _, l := n.byRef(ref); l != nil {
		l.control(&control{typ: ctlCallRefused, session: call, reason: refusalOf(reason)})
	}
}

// SendDatagrams sends packets of a protocol in order, those to the same peer in
// batches of the socket, and sets Failed of each. It borrows the payloads, and
// waits only for room in a full socket, as long as the association's Send does.
func (n *Node) SendDatagrams(proto gue.Protocol, ds []Datagram) {
	if len(ds) == 0 {
		return
	}
	buf := packet.Get()
	defer buf.Release()
	r := datagramRun{buf: buf.B[:maxRunBytes]}
	for i := range ds {
		d := &ds[i]
		if r.link == nil || d.Peer != r.peer {
			r.flush()
			r.peer = d.Peer
			_, r.link = n.byRef(d.Peer)
		}
		d.Failed = r.add(proto, d)
	}
	r.flush()
}

// datagramRun is a batch of records being built: all of one size but the last.
type datagramRun struct {
	peer  PeerRef
	link  *Link
	buf   []byte
	n     int // bytes of finished records
	size  int // size of the first record
	count int
	plain int // bytes of plaintext in it
}

// add seals d behind what is there.
func (r *datagramRun) add(proto gue.Protocol, d *Datagram) DatagramFailure {
	l := r.link
	if l == nil {
		return DatagramNoPeer
	}
	c := &l.node.counters
	var h [gue.BaseLen + gue.IPv6AddrsLen]byte
	hlen, ok := datagramHeader(h[:], proto, d.Target)
	if !ok {
		c.drops.count(DropNoAddresses)
		return DatagramRefused
	}
	plain := hlen + len(d.Payload)
	if plain > int(l.maxPlain.Load()) {
		c.drops.count(DropTooLarge)
		return DatagramTooLarge
	}
	size := l.head + plain + l.tail
	if r.count > 0 && (size > r.size || r.count == maxRun || r.n+size > len(r.buf)) {
		r.flush()
	}
	rec := r.buf[r.n : r.n+size]
	copy(rec[l.head:], h[:hlen])
	copy(rec[l.head+hlen:], d.Payload)
	got, err := l.secure.Seal(rec, plain)
	if err != nil {
		c.drops.count(DropSeal)
		l.exhausted()
		return DatagramRefused
	}
	c.datagramsOut.Add(1)
	r.plain += plain
	if r.count == 0 {
		r.size = got
	}
	r.n += got
	r.count++
	if got < r.size { // a shorter record closes the run
		r.flush()
	}
	return DatagramSent
}

// flush sends the run. That the socket refuses it is a loss like any other.
func (r *datagramRun) flush() {
	if r.count == 0 {
		return
	}
	l := r.link
	if err := l.secure.Send(r.buf[:r.n], r.size); err != nil {
		l.node.counters.drops[DropSend].Add(uint64(r.count))
	}
	l.lastTx.Store(l.node.now())
	if inst := l.inst.Load(); inst != nil {
		inst.bytesOut.Add(uint64(r.plain))
	}
	r.n, r.size, r.count, r.plain = 0, 0, 0, 0
}

// datagramHeader writes the GUE header to h and returns its length.
func datagramHeader(h []byte, proto gue.Protocol, target netip.Addr) (int, bool) {
	hdr := gue.Session{Proto: proto}
	var addrs [gue.IPv6AddrsLen]byte
	if target.IsValid() {
		a := gue.SessionAddrs{Src: netip.IPv6Unspecified(), Dst: target}
		if target.Is4() {
			a.Src = netip.IPv4Unspecified() // the caller is the peer, not a host behind it
		}
		n, err := a.Encode(addrs[:])
		if err != nil {
			return 0, false
		}
		hdr.Has, hdr.Addresses = gue.FieldAddresses, addrs[:n]
	}
	n, err := hdr.Encode(h)
	return n, err == nil
}

// datagram takes a record of a protocol that has a taker.
func (r *Receiver) datagram(l *Link, payload []byte) {
	n := r.node
	c := &n.counters
	inst := l.inst.Load()
	if inst == nil {
		c.drops.count(DropNoHello)
		return
	}
	d := &r.dgram
	*d = Datagram{Peer: inst.ref, Payload: payload}
	if r.hdr.Has&gue.FieldAddresses != 0 {
		var a gue.SessionAddrs
		if _, drop := a.Decode(r.hdr.Addresses); drop != gue.DropNone || a.Name != "" {
			c.drops.count(DropNoAddresses)
			return
		}
		d.Target = a.Dst
	}
	if r.hdr.Has&^gue.FieldAddresses != 0 {
		c.drops.count(DropBadIDs)
		return
	}
	c.datagramsIn.Add(1)
	n.cfg.Datagrams.Datagram(d)
	d.Payload = nil
}

// takes reports whether datagrams of a protocol have a taker.
func (n *Node) takes(proto gue.Protocol) bool {
	return n.cfg.Datagrams != nil && slices.Contains(n.cfg.DatagramProtocols, proto)
}
