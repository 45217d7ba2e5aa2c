package simnet

import (
	"bytes"
	"net/netip"
	"slices"
	"sync"
)

// Datagram is a recorded or forged datagram.
type Datagram struct {
	Src, Dst netip.AddrPort
	Payload  []byte
}

// Tap sees each datagram that a socket sends, with its addresses as others see
// them, before anything happens to it on the path. It borrows payload, may
// change it in place, and returns whether the datagram goes on. It runs in the
// sender's goroutine, at the same time for several senders, and may call
// methods of the Net.
type Tap func(src, dst netip.AddrPort, payload []byte) (pass bool)

// SetTap installs t, or removes the tap if t is nil.
func (n *Net) SetTap(t Tap) {
	if t == nil {
		n.tap.Store(nil)
		return
	}
	n.tap.Store(&t)
}

// recorder keeps the first datagrams sent since Record.
type recorder struct {
	mu   sync.Mutex
	room int
	kept []Datagram
}

// Record forgets what was recorded and keeps copies of the next max datagrams
// that sockets send, as they are before the tap. Zero stops recording.
func (n *Net) Record(max int) {
	n.rec.mu.Lock()
	defer n.rec.mu.Unlock()
	n.rec.room, n.rec.kept = max, nil
}

// Recorded gives the datagrams kept since Record.
func (n *Net) Recorded() []Datagram {
	n.rec.mu.Lock()
	defer n.rec.mu.Unlock()
	return slices.Clone(n.rec.kept)
}

func (r *recorder) add(src, dst netip.AddrPort, payload []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) < r.room {
		r.kept = append(r.kept, Datagram{src, dst, bytes.Clone(payload)})
	}
}

// Inject delivers datagrams at once, past all properties of paths and the tap:
// recorded ones to replay them, or forged ones from any source. It borrows the
// payloads (at most 65535 bytes) and returns how many found room in the queue
// of a socket.
func (n *Net) Inject(ds ...Datagram) int {
	arrived := 0
	for _, d := range ds {
		n.loose.injected.Add(1)
		src := netip.AddrPortFrom(d.Src.Addr().Unmap(), d.Src.Port())
		dst := netip.AddrPortFrom(d.Dst.Addr().Unmap(), d.Dst.Port())
		if n.deliver(newBuffer(d.Payload), src, dst, &n.loose) {
			arrived++
		}
	}
	return arrived
}
