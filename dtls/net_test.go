package dtls

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tougw/tougw/internal/udp"
)

// memNet is a network of sockets in memory. Delivery is immediate and in order;
// a filter may drop, change or delay datagrams.
type memNet struct {
	mu     sync.Mutex
	socks  map[netip.AddrPort]*memSock
	filter func(from, to netip.AddrPort, b []byte) bool // false drops
	tap    func(from, to netip.AddrPort, b []byte)      // sees what was sent, also if dropped
}

func newMemNet() *memNet { return &memNet{socks: map[netip.AddrPort]*memSock{}} }

// memSock is a socket of a memNet, both as a Socket and as a net.PacketConn for
// the handshake library as a peer.
type memSock struct {
	n     *memNet
	addr  netip.AddrPort
	gro   bool       // ReadBatch coalesces
	whole bool       // runs travel in one piece, past the filter
	local netip.Addr // what ReadBatch says datagrams arrived at

	mu      sync.Mutex
	wake    sync.Cond
	queue   []memDatagram
	closed  bool
	expired bool
	werr    error
	batches [][]udp.Message // kept when record is set
	record  bool
}

type memDatagram struct {
	from    netip.AddrPort
	b       []byte
	segment int // of a run
}

func (n *memNet) socket(addr string) *memSock {
	s := &memSock{n: n, addr: netip.MustParseAddrPort(addr)}
	s.wake.L = &s.mu
	n.mu.Lock()
	defer n.mu.Unlock()
	n.socks[s.addr] = s
	return s
}

func (n *memNet) setFilter(f func(from, to netip.AddrPort, b []byte) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.filter = f
}

// send carries a datagram; the caller keeps b.
func (n *memNet) send(from, to netip.AddrPort, b []byte) {
	b = slices.Clone(b)
	n.mu.Lock()
	s, filter, tap := n.socks[to], n.filter, n.tap
	n.mu.Unlock()
	if tap != nil {
		tap(from, to, b)
	}
	if filter != nil && !filter(from, to, b) {
		return
	}
	s.push(from, b)
}

// push delivers a datagram past the filter, also a forged one.
func (s *memSock) push(from netip.AddrPort, b []byte) {
	if s == nil {
		return
	}
	s.enqueue(memDatagram{from: from, b: slices.Clone(b)})
}

func (s *memSock) enqueue(d memDatagram) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.queue = append(s.queue, d)
		s.wake.Broadcast()
	}
}

// sendRun carries a run of datagrams in one piece.
func (n *memNet) sendRun(from, to netip.AddrPort, b []byte, segment int) {
	b = slices.Clone(b)
	n.mu.Lock()
	s, tap := n.socks[to], n.tap
	n.mu.Unlock()
	if tap != nil {
		for c := range slices.Chunk(b, segment) {
			tap(from, to, c)
		}
	}
	if s != nil {
		s.enqueue(memDatagram{from, b, segment})
	}
}

func (s *memSock) ReadBatch(ms []udp.Message) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && !s.closed {
		s.wake.Wait()
	}
	if s.closed {
		return 0, net.ErrClosed
	}
	n := 0
	for n < len(ms) && len(s.queue) > 0 {
		m := &ms[n]
		n++
		d := s.queue[0]
		s.queue = s.queue[1:]
		m.N, m.Segment, m.Addr, m.Local = copy(m.Buf, d.b), d.segment, d.from, s.local
		for s.gro && d.segment == 0 && len(s.queue) > 0 && s.queue[0].from == d.from && len(s.queue[0].b) <= len(d.b) && m.N+len(s.queue[0].b) <= len(m.Buf) {
			m.Segment = len(d.b)
			l := copy(m.Buf[m.N:], s.queue[0].b)
			m.N += l
			s.queue = s.queue[1:]
			if l < m.Segment {
				break
			}
		}
	}
	return n, nil
}

func (s *memSock) WriteBatch(ms []udp.Message) (int, error) {
	s.mu.Lock()
	closed, err, whole := s.closed, s.werr, s.whole
	if s.record {
		for _, m := range ms {
			m.Buf = slices.Clone(m.Buf[:m.N])
			s.batches = append(s.batches, []udp.Message{m})
		}
	}
	s.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	if err != nil {
		return 0, err
	}
	for _, m := range ms {
		size := m.Segment
		if size == 0 {
			size = m.N
		} else if whole {
			s.n.sendRun(s.addr, m.Addr, m.Buf[:m.N], size)
			continue
		}
		for b := m.Buf[:m.N]; len(b) > 0; {
			n := min(size, len(b))
			s.n.send(s.addr, m.Addr, b[:n])
			b = b[n:]
		}
	}
	return len(ms), nil
}

func (s *memSock) failWrites(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.werr = err
}

func (s *memSock) LocalAddr() netip.AddrPort { return s.addr }

func (s *memSock) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *memSock) Close() error {
	s.n.mu.Lock()
	if s.n.socks[s.addr] == s {
		delete(s.n.socks, s.addr)
	}
	s.n.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.wake.Broadcast()
	return nil
}

// peerConn is a memSock as the handshake library wants it.
type peerConn struct{ *memSock }

func (p peerConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(p.addr) }

func (p peerConn) ReadFrom(b []byte) (int, net.Addr, error) {
	s := p.memSock
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && !s.closed && !s.expired {
		s.wake.Wait()
	}
	switch {
	case s.closed:
		return 0, nil, net.ErrClosed
	case s.expired:
		return 0, nil, os.ErrDeadlineExceeded
	}
	d := s.queue[0]
	s.queue = s.queue[1:]
	return copy(b, d.b), net.UDPAddrFromAddrPort(d.from), nil
}

func (p peerConn) WriteTo(b []byte, to net.Addr) (int, error) {
	p.n.send(p.addr, to.(*net.UDPAddr).AddrPort(), b)
	return len(b), nil
}

func (p peerConn) SetReadDeadline(t time.Time) error {
	s := p.memSock
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = !t.IsZero() && time.Until(t) <= 0
	s.wake.Broadcast()
	return nil
}
func (p peerConn) SetWriteDeadline(time.Time) error { return nil }
func (p peerConn) SetDeadline(t time.Time) error    { return p.SetReadDeadline(t) }
