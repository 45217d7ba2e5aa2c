package translate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
)

// losses says what a network loses now.
type losses int32

const (
	nothing losses = iota
	everything
	fromClient
	fromServer
	kindsOfLoss
)

// outages is a network in memory that can be cut.
type outages struct {
	*fabric
	lose atomic.Int32
}

// newOutages makes a network whose hosts give each other up after 100 ms.
func newOutages(t testing.TB) *outages {
	o := &outages{}
	network := &carrier.Network{Fate: func(from, _ netip.Addr, _ []byte) int {
		lose := losses(o.lose.Load())
		byClient := from == netip.MustParseAddr("10.0.0.1")
		if lose == everything || lose == fromClient && byClient || lose == fromServer && !byClient {
			return 0
		}
		return 1
	}}
	o.fabric = newFabric(t, network, homa.Config{Peer: homa.PeerConfig{TimeoutTicks: 100}})
	t.Cleanup(func() { o.lose.Store(int32(nothing)) })
	return o
}

// cut loses packets until so many calls have failed, or there are none any more.
func (o *outages) cut(t testing.TB, lose losses, calls uint64, over func() bool) {
	t.Helper()
	before := o.client.Stats().Timeouts
	o.lose.Store(int32(lose))
	eventually(t, "calls fail", func() bool { return o.client.Stats().Timeouts >= before+calls || over() })
	o.lose.Store(int32(nothing))
}

func never() bool { return false }

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	random := rand.New(rand.NewPCG(seed, seed))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// TestStreamOutlivesOutages moves much both ways at once while the network is cut again
// and again, both ways or one.
func TestStreamOutlivesOutages(t *testing.T) {
	o := newOutages(t)
	const size = 4_000_000
	up, down := noise(1, size), noise(2, size)
	talk := func(conn *net.TCPConn, out, in []byte) {
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := conn.Write(out); err != nil {
				t.Error(err)
			}
			if err := conn.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		got, err := io.ReadAll(conn)
		if err != nil {
			t.Errorf("after %d bytes: %v", len(got), err)
		}
		if !bytes.Equal(got, in) {
			t.Errorf("%d bytes came, and not the %d that were sent", len(got), len(in))
		}
		wg.Wait()
	}
	served := make(chan bool)
	server := serveTCP(t, func(conn *net.TCPConn) {
		defer close(served)
		talk(conn, down, up)
	})
	tracer := NewTracer(TracerConfig{})
	fw, r, addr := streams(t, o.fabric, server, tracer)
	done := make(chan bool)
	go func() {
		defer close(done)
		talk(dial(t, addr), up, down)
	}()
	ended := func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	for i := range 9 {
		from := uint64(i) * 2 * size / 10
		eventually(t, "bytes move", func() bool { s := fw.Stats(); return s.BytesIn+s.BytesOut >= from || ended() })
		if ended() {
			break
		}
		o.cut(t, everything+losses(i)%(kindsOfLoss-1), uint64(1+i%3), ended)
	}
	<-done
	<-served
	over(t, fw, r)
	records := tracer.Last(Filter{})
	if len(records) != 2 {
		t.Errorf("%d records", len(records))
	}
	for _, rec := range records {
		if rec.Result != OK || rec.RequestBytes != size || rec.ResponseBytes != size {
			t.Errorf("%+v", rec)
		}
		if rec.GrantsSent+rec.GrantsReceived == 0 {
			t.Errorf("of megabytes: %+v", rec)
		}
	}
}

// TestStreamIdleOutage cuts the network while nothing is sent, and when one side sends
// while it is cut.
func TestStreamIdleOutage(t *testing.T) {
	o := newOutages(t)
	fw, r, addr := streams(t, o.fabric, newEcho(t), nil)
	conn := dial(t, addr)
	for lose := everything; lose < kindsOfLoss; lose++ {
		write(t, conn, "before")
		expect(t, conn, "before")
		o.lose.Store(int32(lose))
		write(t, conn, "within")
		o.cut(t, lose, 3, never)
		expect(t, conn, "within")
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	over(t, fw, r)
}

// TestStreamOpensOnce cuts off the answer to the opening of a stream: the server has one
// connection in the end.
func TestStreamOpensOnce(t *testing.T) {
	o := newOutages(t)
	var conns atomic.Int32
	server := serveTCP(t, func(conn *net.TCPConn) {
		conns.Add(1)
		_, _ = io.Copy(conn, conn)
	})
	fw, r, addr := streams(t, o.fabric, server, nil)
	o.lose.Store(int32(fromServer))
	conn := dial(t, addr)
	eventually(t, "it connects", func() bool { return conns.Load() > 0 })
	o.cut(t, fromServer, 3, never)
	write(t, conn, "x")
	expect(t, conn, "x")
	conn.Close()
	over(t, fw, r)
	if n := conns.Load(); n != 1 || r.Stats().ConnsTotal != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestStreamEndsInOutage ends both directions while the network is cut.
func TestStreamEndsInOutage(t *testing.T) {
	for lose := everything; lose < kindsOfLoss; lose++ {
		o := newOutages(t)
		conns := make(chan *net.TCPConn, 1)
		end := make(chan bool)
		server := serveTCP(t, func(conn *net.TCPConn) {
			conns <- conn
			<-end
		})
		fw, r, addr := streams(t, o.fabric, server, nil)
		a := dial(t, addr)
		b := <-conns
		write(t, a, "x")
		expect(t, b, "x")
		o.lose.Store(int32(lose))
		for _, conn := range []*net.TCPConn{a, b} {
			write(t, conn, "bye")
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		o.cut(t, lose, 4, never)
		for _, conn := range []*net.TCPConn{a, b} {
			if got, err := io.ReadAll(conn); string(got) != "bye" || err != nil {
				t.Errorf("lost %d: %q, %v", lose, got, err)
			}
		}
		over(t, fw, r)
		for _, s := range []Stats{fw.Stats(), r.Stats()} {
			for result, n := range s.Failed {
				if n > 0 {
					t.Errorf("lost %d: %d %s", lose, n, result)
				}
			}
		}
		close(end)
	}
}

// TestStreamOutageEnds resets a client whose outage lasts longer than the rule allows, and
// closes the connection to the server, whose gateway hears of no end.
func TestStreamOutageEnds(t *testing.T) {
	o := newOutages(t)
	rule := framingOf(t, streamConfig)
	rule.Timeouts.Outage = 300 * time.Millisecond
	closed := make(chan error, 1)
	r := o.reverse(t, rule, nil, serveTCP(t, func(conn *net.TCPConn) {
		_, err := io.Copy(conn, conn)
		closed <- err
	}))
	r.hold, r.silence = 300*time.Millisecond, 600*time.Millisecond
	fw, addr := o.forward(t, rule, nil)
	conn := dial(t, addr)
	write(t, conn, "x")
	expect(t, conn, "x")
	o.lose.Store(int32(everything))
	if rest, err := io.ReadAll(conn); err == nil {
		t.Errorf("%q", rest)
	}
	if err := <-closed; err == nil {
		t.Error("it ended as if the client had")
	}
	eventually(t, "both count it", func() bool {
		a, b := fw.Stats(), r.Stats()
		return a.Failed[Timeout] == 1 && b.Failed[Timeout] == 1
	})
}

// TestStreamRepeats sends chunks twice.
func TestStreamRepeats(t *testing.T) {
	f := newFabric(t, nil, homa.Config{Peer: homa.PeerConfig{TimeoutTicks: 100}})
	conns := make(chan *net.TCPConn, 2)
	end := make(chan bool)
	r := f.reverse(t, framingOf(t, streamConfig), nil, serveTCP(t, func(conn *net.TCPConn) {
		conns <- conn
		<-end
	}))
	defer close(end)
	send := func(h framing.Chunk, data string) (framing.Chunk, string, error) {
		h.Length, h.Stream, h.Limit = uint32(len(data)), 1, 1000
		answer, err := f.call(t, string(h.Append(nil))+data)
		var got framing.Chunk
		if err == nil {
			err = got.Decode([]byte(answer), int64(len(answer)))
		}
		return got, string([]byte(answer)[min(len(answer), framing.ChunkHeaderLen):]), err
	}
	must := func(h framing.Chunk, data string, flags framing.ChunkFlags, offset, received uint64, want string) {
		t.Helper()
		got, text, err := send(h, data)
		if err != nil || got.Flags != flags || got.Offset != offset || got.Received != received || text != want {
			t.Errorf("%+v: %+v, %q, %v", h, got, text, err)
		}
	}
	must(framing.Chunk{Flags: framing.ChunkOpen}, "", 0, 0, 0, "")
	must(framing.Chunk{Flags: framing.ChunkOpen}, "", 0, 0, 0, "")
	conn := <-conns
	must(framing.Chunk{}, "abc", 0, 0, 3, "")
	must(framing.Chunk{}, "abc", 0, 0, 3, "")
	must(framing.Chunk{}, "abcde", 0, 0, 5, "")
	expect(t, conn, "abcde")
	write(t, conn, "hello")
	must(framing.Chunk{Flags: framing.ChunkPoll}, "", 0, 0, 5, "hello")
	must(framing.Chunk{Flags: framing.ChunkPoll, Offset: maxPollers}, "", 0, 0, 5, "hello")
	if _, _, err := send(framing.Chunk{Flags: framing.ChunkPoll}, ""); err == nil {
		t.Error("a poll that was repeated is answered")
	}
	write(t, conn, "again")
	must(framing.Chunk{Flags: framing.ChunkPoll, Offset: 1}, "", 0, 5, 5, "again")
	must(framing.Chunk{Flags: framing.ChunkPoll, Offset: 2 * maxPollers}, "", 0, 0, 5, "hello")
	must(framing.Chunk{Flags: framing.ChunkPoll, Offset: 1 + maxPollers, Received: 5}, "", 0, 5, 5, "again")
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for number := range uint64(3) {
		must(framing.Chunk{Flags: framing.ChunkPoll, Offset: number*maxPollers + 2, Received: 10}, "", framing.ChunkFin, 10, 5, "")
	}
	for range 2 {
		must(framing.Chunk{Flags: framing.ChunkFin, Offset: 5, Received: 11}, "", 0, 10, 6, "")
	}
	if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	must(framing.Chunk{Flags: framing.ChunkPoll, Offset: 3, Received: 11}, "", framing.ChunkFin, 10, 6, "")
	if s := r.Stats(); s.Streams != 0 || s.ConnsTotal != 1 || s.Requests != 1 {
		t.Errorf("%+v", s)
	}
}

// TestStreamIdleAtClient ends a stream by the idle time of its client's gateway, not when
// a poll happens to return.
func TestStreamIdleAtClient(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	r := f.reverse(t, framingOf(t, streamConfig), nil, newEcho(t))
	rule := framingOf(t, streamConfig)
	rule.Timeouts.Idle = 100 * time.Millisecond
	fw, addr := f.forward(t, rule, nil)
	conn := dial(t, addr)
	begun := time.Now()
	if rest, err := io.ReadAll(conn); err == nil {
		t.Errorf("%q", rest)
	}
	if d := time.Since(begun); d >= pollHold {
		t.Errorf("after %v", d)
	}
	over(t, fw, r)
	if fw.Stats().Failed[Timeout] != 1 {
		t.Errorf("%+v", fw.Stats())
	}
}

// TestStreamWriteTimeout resets a client that takes nothing.
func TestStreamWriteTimeout(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	r := f.reverse(t, framingOf(t, streamConfig), nil, serveTCP(t, func(conn *net.TCPConn) {
		for {
			if _, err := conn.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}))
	rule := framingOf(t, streamConfig)
	rule.Timeouts.Write = 200 * time.Millisecond
	fw, addr := f.forward(t, rule, nil)
	_ = dial(t, addr)
	eventually(t, "it is reset", func() bool { return fw.Stats().Failed[Timeout] == 1 })
	over(t, fw, r)
}

// slowConn takes ten bytes of what is written to it every 50 seconds, and nothing more
// after some.
type slowConn struct {
	net.Conn
	left int
	late chan struct{}
}

func (c *slowConn) Write(p []byte) (int, error) {
	for n := 0; ; {
		var tick <-chan time.Time
		if c.left > 0 {
			tick = time.After(50 * time.Second)
		}
		select {
		case <-tick:
			c.left -= 10
			if n += 10; n >= len(p) {
				return len(p), nil
			}
		case <-c.late:
			return n, os.ErrDeadlineExceeded
		}
	}
}

func (c *slowConn) SetWriteDeadline(t time.Time) error {
	if t == past {
		c.late <- struct{}{}
	}
	return nil
}

func (c *slowConn) Close() error { return nil }

// silentDialer counts the RPCs that are wanted of it.
type silentDialer struct{ wanted atomic.Int32 }

func (d *silentDialer) Open(context.Context, netip.AddrPort, int, rpc.OpenOptions) (Call, int, error) {
	d.wanted.Add(1)
	return nil, 0, rpc.ErrTimeout
}

// TestStreamWatch looks at the time-outs of the client's side by the clock: a client that
// takes a little is waited for, and the other gateway hears of it meanwhile.
func TestStreamWatch(t *testing.T) {
	begin := func(rule Rule, conn net.Conn) (*forwardStream, *silentDialer) {
		dialer := &silentDialer{}
		fw, err := NewForward(rule, serverHost, dialer, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := &forwardStream{f: fw, conn: conn, gone: make(chan struct{}), calls: map[Call]struct{}{}, credit: newCredit(&fw.buffered)}
		s.changed.L = &s.mu
		s.heard, s.moved = time.Now(), time.Now()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.timer = time.AfterFunc(min(pollHold, fw.idle, fw.write), s.watch)
		return s, dialer
	}
	synctest.Test(t, func(t *testing.T) {
		s, dialer := begin(framingOf(t, streamConfig), &slowConn{left: 100, late: make(chan struct{}, 1)})
		time.Sleep(7 * time.Second)
		begun := time.Now()
		s.mu.Lock()
		s.write(make([]byte, 100))
		if d := time.Since(begun); s.closed || s.received != 100 || d < 5*time.Minute {
			t.Errorf("%d bytes after %v; reset: %v", s.received, d, s.closed)
		}
		begun = time.Now()
		s.write(make([]byte, 100))
		if d := time.Since(begun); !s.closed || s.reason != framing.ResetTimeout || d < time.Minute || d > 61*time.Second {
			t.Errorf("after %v: reset: %v, %v", d, s.closed, s.reason)
		}
		s.mu.Unlock()
		s.wg.Wait()
		if dialer.wanted.Load() < 20 {
			t.Errorf("the other gateway heard %d times", dialer.wanted.Load())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		rule := framingOf(t, streamConfig)
		rule.Timeouts.Idle = 3 * time.Second
		s, _ := begin(rule, &slowConn{})
		begun := time.Now()
		time.Sleep(2 * time.Second)
		s.mu.Lock()
		s.moved = time.Now()
		s.mu.Unlock()
		<-s.gone
		if d := time.Since(begun); d != 5*time.Second {
			t.Errorf("idle after %v", d)
		}
	})
}

// TestStreamFinal tells what passes from what does not.
func TestStreamFinal(t *testing.T) {
	for err, want := range map[error]bool{
		rpc.ErrTimeout: true, rpc.ErrUnreachable: true, rpc.ErrRefused: false, rpc.ErrNotHoma: false, rpc.ErrAborted: false,
		net.ErrClosed: false, errors.New("x"): false, errRepeated: false, homa.ErrHostUnreachable: true,
	} {
		if passing(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}
