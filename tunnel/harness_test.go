package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tougw/tougw/gue"
)

// side is one gateway of a test: a node with a stack that only records.
type side struct {
	t    *testing.T
	node *Node
	name Identity

	mu       sync.Mutex
	injected []injected
	aborted  map[uint64]error
	stop     func() // ends Run and waits for it
}

type injected struct {
	id  uint64
	seg []byte
}

func (s *side) Inject(id uint64, seg []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.injected = append(s.injected, injected{id, append([]byte(nil), seg...)})
}
func (s *side) Flush() {}

func (s *side) Abort(id uint64, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted[id] = reason
}

// take returns what was injected since the last call.
func (s *side) take() []injected {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.injected
	s.injected = nil
	return got
}

func (s *side) wantInjected(want ...uint64) []injected {
	s.t.Helper()
	got := s.take()
	if len(got) != len(want) {
		s.t.Fatalf("%d segments injected, want %d; drops %v", len(got), len(want), s.dropped())
	}
	for i := range want {
		if got[i].id != want[i] {
			s.t.Fatalf("segment %d injected for session %x, want %x", i, got[i].id, want[i])
		}
	}
	return got
}

func (s *side) abortedWith(id uint64) error {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aborted[id]
}

// dropped returns the drop counters that are not zero.
func (s *side) dropped() map[string]uint64 {
	m := s.node.Stats().Drops
	for k, v := range m {
		if v == 0 {
			delete(m, k)
		}
	}
	return m
}

func (s *side) wantDrop(d Drop, n uint64) {
	s.t.Helper()
	synctest.Wait()
	if got := s.node.Stats().Drops[d.String()]; got != n {
		s.t.Fatalf("%d drops of %v, want %d; all: %v", got, d, n, s.dropped())
	}
}

func newSide(t *testing.T, name string, cfg Config) *side {
	s := &side{t: t, name: Identity{Key: "certificate:" + name, Names: []string{name}}, aborted: map[uint64]error{}}
	cfg.Stack = s
	s.node = New(cfg)
	return s
}

// run runs the node until the test ends.
func (s *side) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.node.Run(ctx); err != nil {
			s.t.Errorf("Run: %v", err)
		}
	}()
	s.stop = func() { cancel(); <-done }
	s.t.Cleanup(s.stop)
}

// Overhead of the pipe's records: a mark before and a mark after, so that a
// record that is cut wrong is seen.
const (
	pipeHead = 7
	pipeTail = 5
)

// pipe is one end of an association in memory. Delivery is in order, and
// synchronous with a goroutine per end.
type pipe struct {
	remote netip.AddrPort
	to     *pipe
	link   atomic.Pointer[Link]
	owner  *side
	out    chan []byte
	done   chan struct{}
	once   sync.Once

	mu             sync.Mutex
	via, validated []Path
	from           Path
	usage          float64
	sizes          []int // of the records of each Send, in order
	drop           func(record []byte) bool
	sealErr        error
	dead           bool          // records vanish
	slow           time.Duration // each Send takes so long
}

// set changes what the pipe does.
func (p *pipe) set(f func(p *pipe)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

// ended reports whether the association has ended.
func (p *pipe) ended() bool {
	synctest.Wait()
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *pipe) Overhead() (int, int)   { return pipeHead, pipeTail }
func (p *pipe) Remote() netip.AddrPort { return p.remote }

func (p *pipe) Seal(b []byte, n int) (int, error) {
	p.mu.Lock()
	err := p.sealErr
	p.mu.Unlock()
	if err != nil {
		return 0, err
	}
	for i := range pipeHead {
		b[i] = 0xaa
	}
	for i := range pipeTail {
		b[pipeHead+n+i] = 0xbb
	}
	return pipeHead + n + pipeTail, nil
}

func (p *pipe) Send(b []byte, size int) error {
	p.mu.Lock()
	slow := p.slow
	p.mu.Unlock()
	time.Sleep(slow)
	for len(b) > 0 {
		n := min(size, len(b))
		rec := append([]byte(nil), b[:n]...)
		b = b[n:]
		if rec[0] != 0xaa || rec[pipeHead-1] != 0xaa || rec[n-1] != 0xbb || rec[n-pipeTail] != 0xbb {
			p.owner.t.Errorf("record of %d bytes was not sealed or cut wrong", n)
		}
		p.mu.Lock()
		p.sizes = append(p.sizes, n)
		dropIt := p.dead || p.drop != nil && p.drop(rec[pipeHead:n-pipeTail])
		p.mu.Unlock()
		if dropIt {
			continue
		}
		select {
		case p.out <- rec[pipeHead : n-pipeTail]:
		case <-p.done:
			return errors.New("closed")
		}
	}
	return nil
}

func (p *pipe) SendRuns(b []byte, runs []Run) (lost int) {
	for _, r := range runs {
		if p.Send(b[:r.Len], r.Size) != nil {
			lost += (r.Len + r.Size - 1) / r.Size
		}
		b = b[r.Len:]
	}
	if len(b) > 0 {
		p.owner.t.Errorf("%d bytes belong to no run", len(b))
	}
	return lost
}

// Close ends both ends, as a close_notify does.
func (p *pipe) Close(reason error) error {
	for _, e := range []*pipe{p, p.to} {
		e.once.Do(func() {
			close(e.done)
			if l := e.link.Load(); l != nil {
				l.Detach(reason)
			}
		})
	}
	return nil
}

// SendVia, Arrived and Validate: a pipe has one path, or another that the test
// sets in from.
func (p *pipe) SendVia(b []byte, size int, to Path) error {
	p.mu.Lock()
	p.via = append(p.via, to)
	p.mu.Unlock()
	return p.Send(b, size)
}

func (p *pipe) Arrived() Path {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.from
}

func (p *pipe) Validate(to Path) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.validated = append(p.validated, to)
	return true
}

func (p *pipe) deliver() {
	rx := p.owner.node.NewReceiver(p.owner)
	take := func(rec []byte) {
		rx.Receive(p.link.Load(), [][]byte{rec})
		rx.Flush()
	}
	for {
		select {
		case rec := <-p.to.out:
			take(rec)
		case <-p.done:
			for { // what was sent before the end arrives before it
				select {
				case rec := <-p.to.out:
					take(rec)
				default:
					return
				}
			}
		}
	}
}

var (
	addrA = netip.MustParseAddrPort("192.0.2.1:4000")
	addrB = netip.MustParseAddrPort("192.0.2.2:443")
)

// connect joins a to b by a fresh association that a dialled as peer p (which
// may be nil when no dialler is wanted).
func connect(a, b *side, p *Peer) (pa, pb *pipe) {
	pa = &pipe{remote: addrB, owner: a, out: make(chan []byte, 4096), done: make(chan struct{})}
	pb = &pipe{remote: addrA, owner: b, out: make(chan []byte, 4096), done: make(chan struct{})}
	pa.to, pb.to = pb, pa
	pb.link.Store(b.node.Attach(pb, a.name, nil))
	pa.link.Store(a.node.Attach(pa, b.name, p))
	for _, e := range []*pipe{pa, pb} {
		select {
		case <-e.done: // refused: its owner says so once there is a link
			e.link.Load().Detach(errStopped)
		default:
		}
	}
	go pa.deliver()
	go pb.deliver()
	a.t.Cleanup(func() { pa.Close(errStopped) })
	return pa, pb
}

// segment is an outbound segment of a scripted stack.
type segment struct {
	id       uint64
	flags    uint8
	left     []byte
	first    bool
	released *int
}

const testHeader = 20

func newSegment(id uint64, flags uint8, payload []byte) *segment {
	return &segment{id: id, flags: flags, left: payload, first: true, released: new(int)}
}

func (s *segment) Session() uint64 { return s.id }
func (s *segment) Flags() uint8    { return s.flags }
func (s *segment) Len() int {
	if !s.first && len(s.left) == 0 {
		return 0
	}
	return testHeader + len(s.left)
}
func (s *segment) Cut(dst []byte, sum bool) int {
	if len(dst) < testHeader || s.Len() == 0 {
		return 0
	}
	clear(dst[:testHeader])
	binary.BigEndian.PutUint16(dst, 40000)
	binary.BigEndian.PutUint16(dst[2:], 443)
	dst[12], dst[13] = 5<<4, s.flags
	if sum {
		dst[16] = 1 // stands for a checksum
	}
	n := copy(dst[testHeader:], s.left)
	s.left, s.first = s.left[n:], false
	return testHeader + n
}
func (s *segment) Release() { *s.released++ }

// send gives a segment to the node and returns it.
func (s *side) send(id uint64, flags uint8, payload string) *segment {
	seg := newSegment(id, flags, []byte(payload))
	s.node.Output(seg)
	synctest.Wait()
	return seg
}

var (
	flowSrc = netip.MustParseAddrPort("10.0.0.5:40000")
	flowDst = netip.MustParseAddrPort("198.51.100.9:443")
)

// pair is a client a and a gateway b with an association between them.
type pair struct {
	a, b   *side
	peer   *Peer
	pa, pb *pipe // the newest association; changes while time passes
	dials  atomic.Int32
}

func newPair(t *testing.T, cfg Config) *pair {
	p := &pair{a: newSide(t, "laptop-1", cfg), b: newSide(t, "edge", cfg)}
	p.peer = p.a.node.AddPeer(PeerConfig{Name: "edge", Endpoints: []string{addrB.String()},
		Dial: func(ctx context.Context, peer *Peer, _ string) (*Link, error) {
			p.pa, p.pb = connect(p.a, p.b, peer)
			p.dials.Add(1)
			return p.pa.link.Load(), nil
		}})
	p.a.run()
	p.b.run()
	synctest.Wait()
	return p
}

// open opens a session from a to b up to the end of the handshake, and returns
// the ids of both sides.
func (p *pair) open() (ida, idb uint64) {
	p.a.t.Helper()
	ida, err := p.a.node.Open(context.Background(), "edge", flowSrc, flowDst)
	if err != nil {
		p.a.t.Fatalf("Open: %v", err)
	}
	p.a.send(ida, tcpSYN, "")
	got := p.b.take()
	if len(got) != 1 {
		p.a.t.Fatalf("%d segments injected for a SYN; drops %v", len(got), p.b.dropped())
	}
	idb = got[0].id
	p.b.send(idb, tcpSYN|tcpACK, "")
	p.a.wantInjected(ida)
	p.b.node.Established(idb)
	p.a.send(ida, tcpACK, "")
	p.a.node.Established(ida)
	p.b.wantInjected(idb)
	return ida, idb
}

// raw sends one plaintext record over the pipe, as a peer that forges would.
func (p *pipe) raw(plain []byte) {
	b := make([]byte, pipeHead+len(plain)+pipeTail)
	copy(b[pipeHead:], plain)
	n, _ := p.Seal(b, len(plain))
	p.Send(b[:n], n)
	synctest.Wait()
}

// encap builds a plaintext record with the given ids (0: absent).
func encap(src, dst uint64, addrs []byte, flags uint8) []byte {
	h := gue.Session{Proto: gue.ProtoTCP, Source: src, Destination: dst, Addresses: addrs}
	if src != 0 {
		h.Has |= gue.FieldSource
	}
	if dst != 0 {
		h.Has |= gue.FieldDestination
	}
	if addrs != nil {
		h.Has |= gue.FieldAddresses
	}
	b := make([]byte, gue.MaxSessionLen+testHeader)
	n, err := h.Encode(b)
	if err != nil {
		panic(err)
	}
	newSegment(0, flags, nil).Cut(b[n:n+testHeader], true)
	return b[:n+testHeader]
}

func addrsV4() []byte {
	b := make([]byte, 8)
	a := gue.SessionAddrs{Src: flowSrc.Addr(), Dst: flowDst.Addr()}
	if _, err := a.Encode(b); err != nil {
		panic(err)
	}
	return b
}

// nullSecure seals to nothing and sends nowhere.
type nullSecure struct{}

func (*nullSecure) Overhead() (int, int)              { return 22, 24 }
func (*nullSecure) Seal(b []byte, n int) (int, error) { return 22 + n + 24, nil }
func (*nullSecure) Send([]byte, int) error            { return nil }
func (*nullSecure) SendRuns([]byte, []Run) int        { return 0 }
func (*nullSecure) Remote() netip.AddrPort            { return addrB }
func (*nullSecure) Close(error) error                 { return nil }
func (*nullSecure) SendVia([]byte, int, Path) error   { return nil }
func (*nullSecure) Arrived() Path                     { return Path{} }
func (*nullSecure) Validate(Path) bool                { return false }

type nullInjector struct{}

func (nullInjector) Inject(uint64, []byte) {}
func (nullInjector) Flush()                {}
