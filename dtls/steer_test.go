package dtls

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"github.com/tougw/tougw/internal/udp"
)

func TestSteeringProgram(t *testing.T) {
	vm, err := bpf.NewVM(Steering())
	check(t, err)
	record := func(typ byte, n int) []byte {
		b := make([]byte, 40)
		b[0], b[1], b[2], b[4], b[cidOffset] = typ, 0xfe, 0xfd, 1, 7
		return b[:n]
	}
	for _, c := range []struct {
		name string
		b    []byte
		want int
	}{
		{"record with a Connection ID", record(typeCID, 40), 7},
		{"the shortest that has its first byte", record(typeCID, cidOffset+1), 7},
		{"cut before it", record(typeCID, cidOffset), dialedWorker},
		{"one byte", record(typeCID, 1), dialedWorker},
		{"empty", nil, dialedWorker},
		{"handshake", record(typeHandshake, 40), dialedWorker},
		{"data without Connection ID", record(typeApplicationData, 40), dialedWorker},
	} {
		if got, err := vm.Run(c.b); err != nil || got != c.want {
			t.Errorf("%s: socket %d, %v; want %d", c.name, got, err, c.want)
		}
	}
}

// countingSock counts the datagrams with a Connection ID that arrive at it.
type countingSock struct {
	*udp.Conn
	withID atomic.Int64
}

func (s *countingSock) ReadBatch(ms []udp.Message) (int, error) {
	n, err := s.Conn.ReadBatch(ms)
	for i := range ms[:n] {
		if ms[i].N > 0 && ms[i].Buf[0] == typeCID {
			s.withID.Add(1)
		}
	}
	return n, err
}

// restlessSock is a client's socket behind a translator that forgets it: each
// move gives it another port.
type restlessSock struct {
	t    *testing.T
	addr netip.AddrPort // of the first, as Socket wants it

	mu  sync.Mutex
	cur *udp.Conn
}

func openLoopback(t *testing.T) *udp.Conn {
	c, err := udp.Listen(udp.Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	check(t, err)
	return c
}

func (s *restlessSock) conn() *udp.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cur
}

func (s *restlessSock) move() {
	next := openLoopback(s.t)
	s.mu.Lock()
	old := s.cur
	s.cur = next
	s.mu.Unlock()
	check(s.t, old.Close())
}

// again repeats what a move interrupted.
func (s *restlessSock) again(f func(*udp.Conn) (int, error)) (int, error) {
	for {
		c := s.conn()
		if n, err := f(c); !errors.Is(err, net.ErrClosed) || s.conn() == c {
			return n, err
		}
	}
}

func (s *restlessSock) ReadBatch(ms []udp.Message) (int, error) {
	return s.again(func(c *udp.Conn) (int, error) { return c.ReadBatch(ms) })
}

func (s *restlessSock) WriteBatch(ms []udp.Message) (int, error) {
	return s.again(func(c *udp.Conn) (int, error) { return c.WriteBatch(ms) })
}

func (s *restlessSock) LocalAddr() netip.AddrPort { return s.addr }
func (s *restlessSock) Close() error              { return s.conn().Close() }

// TestMovedClientStaysWithItsSocket serves a real group: a client that changes its
// port arrives at the socket where its association was made, if the kernel steers,
// and at any other if it does not.
func TestMovedClientStaysWithItsSocket(t *testing.T) {
	for _, steer := range []bool{true, false} {
		name := map[bool]string{true: "steered", false: "not steered"}[steer]
		t.Run(name, func(t *testing.T) {
			cfg := udp.Config{Bind: netip.MustParseAddrPort("127.0.0.1:0")}
			if steer {
				cfg.Steer = Steering()
			}
			conns, err := udp.ListenGroup(cfg, 4)
			check(t, err)
			if k := conns[0].Capabilities(); k.Steering != steer {
				for _, c := range conns {
					check(t, c.Close())
				}
				t.Skip(k.SteeringReason)
			}
			ca := newAuthority(t)
			serverEvents, clientEvents := newRecorder(t), newRecorder(t)
			ec := Config{Roots: ca.pool, ConnectionID: true, Certificate: ca.issue(t, "edge", false, nil)}
			prober, candidate := attach(t, serverEvents)
			prober.overtaken, ec.PathCandidate = true, candidate
			server, err := New(ec, serverEvents)
			check(t, err)
			ec.Certificate = ca.issue(t, "laptop-7", false, nil)
			_, ec.PathCandidate = attach(t, clientEvents)
			client, err := New(ec, clientEvents)
			check(t, err)
			var wg sync.WaitGroup
			socks := make([]*countingSock, len(conns))
			for i, c := range conns {
				socks[i] = &countingSock{Conn: c}
			}
			for _, s := range slices.Backward(socks) { // in whatever order they are served
				wg.Go(func() {
					if err := server.Serve(context.Background(), s); err != nil {
						t.Error(err)
					}
				})
			}
			t.Cleanup(func() {
				check(t, client.Close())
				check(t, server.Close())
				wg.Wait()
			})
			const moves = 24 // without steering all end at one socket once in 4^24 times
			for range 3 {
				first := openLoopback(t)
				sock := &restlessSock{t: t, cur: first, addr: first.LocalAddr()}
				n := serverEvents.count()
				c, err := client.Dial(context.Background(), sock, conns[0].LocalAddr(), DialParams{ServerName: "edge"})
				check(t, err)
				eventually(t, "association", func() bool { return serverEvents.count() > n })
				s := serverEvents.last()
				if got := s.localCID >> 56; int(got) != int(s.w.id) || s.w.sock.(*countingSock).Number() != int(got) {
					t.Fatalf("Connection ID of socket %d names %d", s.w.sock.(*countingSock).Number(), got)
				}
				for _, k := range socks {
					k.withID.Store(0)
				}
				for range moves {
					sock.move()
					before, sent := len(serverEvents.received(s)), time.Time{}
					// Sent again, since a first record that comes from elsewhere while the
					// handshake is handed over is dropped.
					eventually(t, "arrival", func() bool {
						if time.Since(sent) > 100*time.Millisecond {
							sent = time.Now()
							check(t, sendRecord(c, []byte("where am I?")))
						}
						return len(serverEvents.received(s)) > before
					})
				}
				elsewhere := int64(0)
				for _, k := range socks {
					if Socket(k) != s.w.sock {
						elsewhere += k.withID.Load()
					}
				}
				if steer != (elsewhere == 0) {
					t.Errorf("%d datagrams arrived at another socket", elsewhere)
				}
			}
		})
	}
}
