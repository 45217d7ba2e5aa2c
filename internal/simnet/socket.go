package simnet

import (
	"net/netip"
	"sync"
	"syscall"

	"github.com/tougw/tougw/internal/udp"
)

// Socket is a socket of a Net, with the methods of udp.Conn and their meaning.
type Socket struct {
	net    *Net
	local  netip.AddrPort
	public netip.AddrPort // what others see; guarded by Net.mu

	mu     sync.Mutex
	ready  sync.Cond // something was queued, or closed
	ring   []arrival // a power of two long
	head   int
	queued int
	closed bool
}

// arrival is a datagram that waits to be read.
type arrival struct {
	buf *buffer
	src netip.AddrPort
}

// LocalAddr returns the address the socket was opened at, also after Rebind.
func (s *Socket) LocalAddr() netip.AddrPort { return s.local }

// PublicAddr returns the address that others see.
func (s *Socket) PublicAddr() netip.AddrPort {
	s.net.mu.RLock()
	defer s.net.mu.RUnlock()
	return s.public
}

// Close closes the socket; calls that wait return net.ErrClosed. Later calls do
// nothing.
func (s *Socket) Close() error {
	s.net.remove(s)
	s.shut()
	return nil
}

func (s *Socket) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for s.queued > 0 {
		s.pop().buf.release()
	}
	s.ready.Broadcast()
}

// ReadBatch waits until at least one datagram is there, reads at most len(ms)
// of those that are, and returns how many. It borrows the Buf of each message
// and sets all other fields. With Config.Coalesce a message may be a run. A
// datagram that does not fit its Buf is counted and has N zero. After Close it
// returns net.ErrClosed. One goroutine at a time may call it.
func (s *Socket) ReadBatch(ms []udp.Message) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.queued == 0 && !s.closed {
		s.ready.Wait()
	}
	if s.closed {
		return 0, errClosed
	}
	n := 0
	for n < len(ms) && s.queued > 0 {
		s.read(&ms[n])
		n++
	}
	return n, nil
}

// read fills m with the first datagram in the queue, and with what can follow
// it in a run.
func (s *Socket) read(m *udp.Message) {
	a := s.pop()
	m.N, m.Segment, m.Addr, m.Local = len(a.buf.payload), 0, a.src, s.local.Addr()
	if m.N > len(m.Buf) {
		s.net.loose.tooShort.Add(1)
		m.N = 0
	} else {
		copy(m.Buf, a.buf.payload)
	}
	a.buf.release()
	if !s.net.cfg.Coalesce || m.N == 0 {
		return
	}
	segment := m.N
	for last, count := segment, 1; s.queued > 0 && last == segment && count < udp.MaxSegments; count++ {
		next := &s.ring[s.head]
		last = len(next.buf.payload)
		if next.src != m.Addr || last == 0 || last > segment || m.N+last > min(len(m.Buf), udp.MaxPayload) {
			return
		}
		copy(m.Buf[m.N:], next.buf.payload)
		m.N += last
		m.Segment = segment
		s.pop().buf.release()
	}
}

// WriteBatch sends ms in order and returns how many it sent; a run is cut into
// its datagrams. It borrows the buffers and never waits. An error concerns
// ms[n] alone: EINVAL (N, Segment, port or Local), EMSGSIZE (a datagram above
// udp.MaxPayload), EAFNOSUPPORT (no address, or of another family), or
// net.ErrClosed. It is safe for concurrent use.
func (s *Socket) WriteBatch(ms []udp.Message) (int, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return 0, errClosed
	}
	for i := range ms {
		if err := s.write(&ms[i]); err != nil {
			return i, err
		}
	}
	return len(ms), nil
}

func (s *Socket) write(m *udp.Message) error {
	if m.N < 0 || m.N > len(m.Buf) || m.Segment < 0 {
		return syscall.EINVAL
	}
	dst := netip.AddrPortFrom(m.Addr.Addr().Unmap(), m.Addr.Port())
	if !dst.Addr().IsValid() || dst.Addr().Is4() != s.local.Addr().Is4() {
		return syscall.EAFNOSUPPORT
	}
	if dst.Port() == 0 || m.Local.IsValid() && m.Local.Unmap() != s.local.Addr() {
		return syscall.EINVAL
	}
	b, segment := m.Buf[:m.N], m.N
	if m.Segment > 0 {
		segment = min(m.Segment, m.N)
	}
	if segment > udp.MaxPayload {
		return syscall.EMSGSIZE
	}
	src, d := s.net.route(s, dst)
	if d == nil {
		d = s.net.direction(s.net.hostsOf(s, dst))
	}
	for more := true; more; more = len(b) > 0 {
		n := min(segment, len(b))
		s.net.send(b[:n], src, dst, d)
		b = b[n:]
	}
	return nil
}

// send copies one datagram and lets the recorder, the tap and the path have it.
func (n *Net) send(payload []byte, src, dst netip.AddrPort, d *direction) {
	d.sent.Add(1)
	d.sentBytes.Add(uint64(len(payload)))
	n.rec.add(src, dst, payload)
	b := newBuffer(payload)
	if t := n.tap.Load(); t != nil && !(*t)(src, dst, b.payload) {
		d.tapped.Add(1)
		b.release()
		return
	}
	d.send(b, src, dst)
}

// enqueue takes b. It reports whether there was room.
func (s *Socket) enqueue(b *buffer, src netip.AddrPort, c *counters) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		c.noSocket.Add(1)
	case s.queued >= s.net.cfg.QueueDatagrams:
		c.overflow.Add(1)
	default:
		c.delivered.Add(1)
		s.push(arrival{b, src})
		s.ready.Signal()
		return true
	}
	b.release()
	return false
}

func (s *Socket) push(a arrival) {
	if s.queued == len(s.ring) {
		ring := make([]arrival, max(16, 2*len(s.ring)))
		for i := range s.queued {
			ring[i] = s.ring[(s.head+i)&(len(s.ring)-1)]
		}
		s.ring, s.head = ring, 0
	}
	s.ring[(s.head+s.queued)&(len(s.ring)-1)] = a
	s.queued++
}

func (s *Socket) pop() arrival {
	a := s.ring[s.head]
	s.ring[s.head] = arrival{}
	s.head = (s.head + 1) & (len(s.ring) - 1)
	s.queued--
	return a
}
