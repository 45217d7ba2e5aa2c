package tunnel

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/tougw/tougw/gue"
)

// letters is a taker of datagrams that keeps them.
type letters struct {
	mu      sync.Mutex
	got     []Datagram
	refused []error
	calls   []uint64
}

func (l *letters) Datagram(d *Datagram) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, Datagram{Peer: d.Peer, Target: d.Target, Payload: bytes.Clone(d.Payload)})
}

func (l *letters) CallRefused(_ PeerRef, call uint64, reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls, l.refused = append(l.calls, call), append(l.refused, reason)
}

func (l *letters) take() []Datagram {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.got
	l.got = nil
	return got
}

func homaPair(t *testing.T) (p *pair, box *letters, ref PeerRef) {
	box = &letters{} // both sides': what is sent to one is not sent to the other
	p = newPair(t, Config{Datagrams: box, DatagramProtocols: []gue.Protocol{gue.ProtoHoma}})
	ref, err := p.a.node.PeerRef(context.Background(), "edge")
	if err != nil {
		t.Fatal(err)
	}
	return p, box, ref
}

func TestDatagramsArrive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, box, ref := homaPair(t)
		path, ok := p.a.node.PeerPath(ref)
		if !ok || path.Identity.Name() != "edge" || path.MaxPayload < 1000 {
			t.Fatalf("%+v, %v", path, ok)
		}
		v4, v6 := netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd00::5")
		ds := []Datagram{
			{Peer: ref, Payload: []byte("plain")},
			{Peer: ref, Target: v4, Payload: []byte("four")},
			{Peer: ref, Target: v6, Payload: bytes.Repeat([]byte("x"), path.MaxPayload)},
			{Peer: ref, Target: v6, Payload: bytes.Repeat([]byte("x"), path.MaxPayload+1)},
			{Peer: ref + 1, Payload: []byte("nobody")},
			{Peer: ref, Payload: []byte("last")},
		}
		p.a.node.SendDatagrams(gue.ProtoHoma, ds)
		for i, want := range []DatagramFailure{DatagramSent, DatagramSent, DatagramSent, DatagramTooLarge, DatagramNoPeer, DatagramSent} {
			if ds[i].Failed != want {
				t.Errorf("datagram %d: failure %d, want %d", i, ds[i].Failed, want)
			}
		}
		got := box.take()
		want := []Datagram{ds[0], ds[1], ds[2], ds[5]}
		if len(got) != len(want) {
			t.Fatalf("%d datagrams came, want %d; drops %v", len(got), len(want), p.b.dropped())
		}
		for i := range want {
			if got[i].Target != want[i].Target || !bytes.Equal(got[i].Payload, want[i].Payload) {
				t.Errorf("datagram %d came as %v %.20q", i, got[i].Target, got[i].Payload)
			}
		}
		// The receiver can answer to the reference that it was given.
		p.b.node.SendDatagrams(gue.ProtoHoma, []Datagram{{Peer: got[0].Peer, Payload: []byte("answer")}})
		if got := box.take(); len(got) != 1 || string(got[0].Payload) != "answer" || got[0].Peer != ref {
			t.Errorf("answer %+v", got)
		}
		p.b.node.RefuseCall(want[0].Peer, 8, syscall.EACCES) // not a reference of b
		p.b.node.RefuseCall(got[0].Peer, 10, syscall.EACCES)
		synctest.Wait()
		if len(box.calls) != 1 || box.calls[0] != 10 || !errors.Is(box.refused[0], syscall.EACCES) {
			t.Errorf("refused %v %v", box.calls, box.refused)
		}
	})
}

func TestDatagramsThatAreNotTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, box, ref := homaPair(t)
		p.a.node.SendDatagrams(gue.ProtoUDP, []Datagram{{Peer: ref, Payload: []byte("x")}})
		for _, h := range []gue.Session{
			{Proto: gue.ProtoHoma, Has: gue.FieldSource, Source: 1},
			{Proto: gue.ProtoHoma, Has: gue.FieldDestination, Destination: 1},
		} {
			b := make([]byte, gue.MaxSessionLen+1)
			n, err := h.Encode(b)
			if err != nil {
				t.Fatal(err)
			}
			p.pa.raw(b[:n+1])
		}
		if got := box.take(); len(got) != 0 {
			t.Errorf("%d datagrams taken", len(got))
		}
		if d := p.b.node.Stats().Drops; d["protocol"] != 1 || d["bad_ids"] != 2 {
			t.Errorf("drops %v", d)
		}
	})
}

func TestSendingDatagramsAllocatesNothing(t *testing.T) {
	n := New(Config{Stack: &side{}})
	sec := &nullSecure{}
	l := &Link{node: n, secure: sec, queue: newQueue(1 << 20), done: make(chan struct{})}
	l.head, l.tail = sec.Overhead()
	l.setPathMTU(1400)
	inst := &instance{}
	inst.link.Store(l)
	n.newRef(inst)
	ds := make([]Datagram, 64)
	for i := range ds {
		ds[i] = Datagram{Peer: inst.ref, Target: netip.MustParseAddr("10.0.0.1"), Payload: make([]byte, 1200)}
	}
	if a := testing.AllocsPerRun(100, func() { n.SendDatagrams(gue.ProtoHoma, ds) }); a > 0 {
		t.Errorf("%v allocations for 64 datagrams", a)
	}
}
