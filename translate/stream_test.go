package translate

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
)

// streams is a Forward and a Reverse with stream framing in front of a server.
func streams(t *testing.T, f *fabric, server netip.AddrPort, tracer *Tracer) (*Forward, *Reverse, netip.AddrPort) {
	rule := framingOf(t, streamConfig)
	r := f.reverse(t, rule, tracer, server)
	fw, addr := f.forward(t, rule, tracer)
	return fw, r, addr
}

// over waits until no stream is left, and nothing is held for one.
func over(t *testing.T, fw *Forward, r *Reverse) {
	t.Helper()
	eventually(t, "no stream left", func() bool {
		a, b := fw.Stats(), r.Stats()
		return a.Streams+b.Streams+a.Conns+b.Conns == 0 && a.Buffered+b.Buffered == 0 && b.Servers[0].Conns == 0
	})
}

// TestStreamHalfClose ends each direction by itself, whichever comes first.
func TestStreamHalfClose(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	conns := make(chan *net.TCPConn)
	done := make(chan bool)
	server := serveTCP(t, func(conn *net.TCPConn) {
		conns <- conn
		<-done
	})
	tracer := NewTracer(TracerConfig{})
	fw, r, addr := streams(t, f, server, tracer)
	for _, clientFirst := range []bool{true, false} {
		a := dial(t, addr)
		b := <-conns
		name := "server"
		if clientFirst {
			name = "client"
		} else {
			a, b = b, a // the other way round
		}
		if err := a.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		write(t, a, "last words")
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); string(got) != "last words" || err != nil {
			t.Errorf("%s ends: %q, %v", name, got, err)
		}
		for range 3 {
			write(t, b, "still")
			expect(t, a, "still")
		}
		if err := b.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(a); len(rest) > 0 || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
	}
	over(t, fw, r)
	close(done)
	for _, s := range []Stats{fw.Stats(), r.Stats()} {
		if s.Requests != 2 || s.Failed[Aborted] != 0 {
			t.Errorf("%+v", s)
		}
	}
	byID := map[string]int{}
	for _, rec := range tracer.Last(Filter{}) {
		byID[rec.ID]++
		if rec.RequestBytes+rec.ResponseBytes != 25 {
			t.Errorf("%+v", rec)
		}
	}
	if len(byID) != 2 {
		t.Errorf("ids %v, want two, each at both sides", byID)
	}
}

// TestStreamServerSpeaksFirst passes a greeting on to a client that says nothing.
func TestStreamServerSpeaksFirst(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	fw, r, addr := streams(t, f, serveTCP(t, func(conn *net.TCPConn) {
		_, _ = io.WriteString(conn, "hello\n")
	}), nil)
	conn := dial(t, addr)
	expect(t, conn, "hello\n")
	if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	conn.Close()
	over(t, fw, r)
}

// TestStreamResets carries a failure of either end to the other.
func TestStreamResets(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	conns := make(chan *net.TCPConn)
	done := make(chan bool)
	defer close(done)
	server := serveTCP(t, func(conn *net.TCPConn) {
		conns <- conn
		<-done
	})
	fw, r, addr := streams(t, f, server, nil)
	for _, byClient := range []bool{true, false} {
		a, b := dial(t, addr), <-conns
		if !byClient {
			a, b = b, a
		}
		write(t, a, "x")
		expect(t, b, "x")
		if err := a.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		a.Close()
		if rest, err := io.ReadAll(b); err == nil {
			t.Errorf("reset by the client %v: the other end read %q", byClient, rest)
		}
		over(t, fw, r)
	}
	if a, b := fw.Stats(), r.Stats(); a.Failed[Aborted] == 0 || b.Failed[Aborted] == 0 {
		t.Errorf("%v, %v", a.Failed, b.Failed)
	}
}

// wantReset sees that a new connection is reset.
func wantReset(t testing.TB, addr netip.AddrPort) {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		return // the reset was faster than the system's answer to connect
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // else the test's own limit does
	if rest, err := io.ReadAll(c); err == nil {
		t.Errorf("%q", rest)
	}
}

// TestStreamRefused resets a client whose server does not listen, or whose gateway is
// not there.
func TestStreamRefused(t *testing.T) {
	f := newFabric(t, nil, homa.Config{Peer: homa.PeerConfig{TimeoutTicks: 100}})
	fw, addr := f.forward(t, framingOf(t, streamConfig), nil)
	refused := func() {
		t.Helper()
		wantReset(t, addr)
	}
	refused() // nobody serves the port
	l := listen(t)
	gone := addrPort(l.Addr())
	l.Close()
	f.reverse(t, framingOf(t, streamConfig), nil, gone)
	refused()
	eventually(t, "it counts", func() bool { return fw.Stats().Failed[Unreachable] == 2 })
}

// TestStreamLimit refuses streams above the bound.
func TestStreamLimit(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	rule := framingOf(t, streamConfig)
	rule.Limits.ServerConns = 2
	r := f.reverse(t, rule, nil, newEcho(t))
	fw, addr := f.forward(t, framingOf(t, streamConfig), nil)
	for range 2 {
		conn := dial(t, addr)
		write(t, conn, "x")
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
	wantReset(t, addr)
	eventually(t, "it counts", func() bool {
		a, b := fw.Stats(), r.Stats()
		return a.Failed[Overloaded] == 1 && b.Failed[Overloaded] == 1 && b.Streams == 2
	})
}

// TestStreamBulk moves much both ways at once, over a network that loses, repeats and
// reorders packets.
func TestStreamBulk(t *testing.T) {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(1, 2))
	network := &carrier.Network{Fate: func(netip.Addr, netip.Addr, []byte) int {
		mu.Lock()
		defer mu.Unlock()
		switch random.IntN(100) {
		case 0:
			return 0
		case 1:
			return 2
		}
		return 1
	}}
	f := newFabric(t, network, homa.Config{})
	fw, r, addr := streams(t, f, newEcho(t), nil)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			input := text(2_000_000)
			sameBytes(t, converse(t, addr, input, 100_000), input)
		})
	}
	wg.Wait()
	over(t, fw, r)
}

// TestStreamBackPressure stops a sender whose receiver does not read, in either
// direction, and holds little.
func TestStreamBackPressure(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	conns := make(chan *net.TCPConn)
	done := make(chan bool)
	server := serveTCP(t, func(conn *net.TCPConn) {
		conns <- conn
		<-done
	})
	fw, r, addr := streams(t, f, server, nil)
	input := text(12_000_000)
	for _, up := range []bool{true, false} {
		from, to := dial(t, addr), <-conns
		if err := to.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if !up {
			from, to = to, from
		}
		for _, err := range []error{to.SetReadBuffer(64 << 10), from.SetWriteBuffer(64 << 10)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		written := make(chan error, 1)
		go func() {
			_, err := from.Write(input)
			if err == nil {
				err = from.CloseWrite()
			}
			written <- err
		}()
		var stands uint64
		still := 0
		eventually(t, "it stands still", func() bool {
			time.Sleep(10 * time.Millisecond)
			a, b := fw.Stats(), r.Stats()
			moved := a.BytesIn + b.BytesIn
			if still++; moved != stands || moved == 0 {
				stands, still = moved, 0
			}
			return still > 20
		})
		select {
		case <-written:
			t.Fatal("everything was taken from the sender")
		default:
		}
		if s := f.client.Stats(); s.HeldSend+s.HeldReceive > 4<<20 {
			t.Errorf("%d bytes held", s.HeldSend+s.HeldReceive)
		}
		if s := r.Stats(); s.Buffered > 2*lastWindow {
			t.Errorf("%d bytes allowed", s.Buffered)
		}
		got, err := io.ReadAll(to)
		if err != nil {
			t.Fatal(err)
		}
		sameBytes(t, got, input)
		if err := <-written; err != nil {
			t.Error(err)
		}
		from.Close()
		to.Close()
	}
	close(done)
	over(t, fw, r)
}

// TestStreamIdle ends streams that nothing happens on, if the rule says so, and only
// then.
func TestStreamIdle(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	rule := framingOf(t, streamConfig)
	rule.Timeouts.Idle = 50 * time.Millisecond
	r := f.reverse(t, rule, nil, newEcho(t))
	fw, addr := f.forward(t, framingOf(t, streamConfig), nil)
	conn := dial(t, addr)
	write(t, conn, "x")
	expect(t, conn, "x")
	if rest, err := io.ReadAll(conn); err == nil {
		t.Errorf("%q", rest)
	}
	eventually(t, "both count it", func() bool {
		a, b := fw.Stats(), r.Stats()
		return a.Failed[Timeout] == 1 && b.Failed[Timeout] == 1
	})
}

// TestStreamRules resets streams whose chunks break the rules, and answers for those
// that are not there.
func TestStreamRules(t *testing.T) {
	f := newFabric(t, nil, homa.Config{Peer: homa.PeerConfig{TimeoutTicks: 100}})
	r := f.reverse(t, framingOf(t, streamConfig), nil, newEcho(t))
	send := func(h framing.Chunk, data string) (framing.Chunk, error) {
		h.Length = uint32(len(data))
		if h.Limit == 0 {
			h.Limit = 1000
		}
		answer, err := f.call(t, string(h.Append(nil))+data)
		var got framing.Chunk
		if err == nil {
			err = got.Decode([]byte(answer), int64(len(answer)))
		}
		return got, err
	}
	must := func(what string, h framing.Chunk, data string, flags framing.ChunkFlags, reason framing.ResetReason) framing.Chunk {
		t.Helper()
		got, err := send(h, data)
		if err != nil || got.Flags != flags || got.Reason != reason || got.Stream != h.Stream {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
		return got
	}
	must("unknown", framing.Chunk{Stream: 1}, "x", framing.ChunkReset, framing.ResetUnknownStream)
	if got := must("open", framing.Chunk{Flags: framing.ChunkOpen, Stream: 1}, "abc", 0, 0); got.Limit < 4096 {
		t.Errorf("limit %d", got.Limit)
	}
	must("poll", framing.Chunk{Flags: framing.ChunkPoll, Stream: 1}, "", 0, 0)
	must("again", framing.Chunk{Stream: 1}, "abc", 0, 0)
	must("end before it", framing.Chunk{Flags: framing.ChunkFin, Stream: 1, Offset: 2}, "", framing.ChunkReset, framing.ResetProtocol)
	must("after it", framing.Chunk{Stream: 1, Offset: 3}, "abc", framing.ChunkReset, framing.ResetProtocol)
	must("open", framing.Chunk{Flags: framing.ChunkOpen, Stream: 4}, "", 0, 0)
	must("never sent", framing.Chunk{Stream: 4, Received: 1}, "", framing.ChunkReset, framing.ResetProtocol)
	must("open", framing.Chunk{Flags: framing.ChunkOpen, Stream: 3}, "", 0, 0)
	must("reset", framing.Chunk{Flags: framing.ChunkReset, Reason: framing.ResetByPeer, Stream: 3}, "", 0, 0)
	for _, nonsense := range []string{"x", string(make([]byte, 100)), string(make([]byte, 900_000))} {
		if got, err := f.call(t, nonsense); err == nil {
			t.Errorf("%d bytes of nonsense: %q", len(nonsense), got)
		}
	}
	eventually(t, "no stream is left", func() bool { return r.Stats().Streams == 0 })
}

// TestStreamOrder puts chunks that overtake each other back into order.
func TestStreamOrder(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	got := make(chan []byte, 1)
	f.reverse(t, framingOf(t, streamConfig), nil, serveTCP(t, func(conn *net.TCPConn) {
		b, _ := io.ReadAll(conn)
		got <- b
	}))
	var wg sync.WaitGroup
	send := func(h framing.Chunk, data []byte) {
		h.Stream, h.Length, h.Limit = 7, uint32(len(data)), 1000
		if _, err := f.client.Call(context.Background(), serverHost, append(h.Append(nil), data...)); err != nil {
			t.Error(err)
		}
	}
	send(framing.Chunk{Flags: framing.ChunkOpen}, nil)
	input := text(4000)
	wg.Go(func() { send(framing.Chunk{Flags: framing.ChunkFin, Offset: 4000}, nil) })
	for _, at := range []int{3000, 1000, 2000} {
		wg.Go(func() { send(framing.Chunk{Offset: uint64(at)}, input[at:at+1000]) })
	}
	eventually(t, "they wait", func() bool { return f.server.Stats().ServerInService == 4 })
	send(framing.Chunk{}, input[:1000])
	wg.Wait()
	if b := <-got; !bytes.Equal(b, input) {
		t.Errorf("%q", b)
	}
}

// TestStreamForeignGateway resets clients when the other gateway says nonsense.
func TestStreamForeignGateway(t *testing.T) {
	f := newFabric(t, nil, homa.Config{Peer: homa.PeerConfig{TimeoutTicks: 100}})
	answers := make(chan func(h framing.Chunk) []byte, 9)
	f.handle(t, func(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
		b, err := req.ReadAll()
		if err != nil {
			return err
		}
		var h framing.Chunk
		if err := h.Decode(b, int64(len(b))); err != nil {
			t.Error(err)
		}
		if h.Flags&framing.ChunkOpen != 0 {
			_, err = w.Write((&framing.Chunk{Stream: h.Stream, Limit: 4096}).Append(nil))
		} else if h.Flags&framing.ChunkPoll != 0 {
			_, err = w.Write((<-answers)(h))
		} else {
			_, err = w.Write((&framing.Chunk{Stream: h.Stream, Limit: 4096}).Append(nil))
		}
		return err
	})
	_, addr := f.forward(t, framingOf(t, streamConfig), nil)
	for _, answer := range []func(h framing.Chunk) []byte{
		func(framing.Chunk) []byte { return []byte("nonsense") },
		func(h framing.Chunk) []byte {
			return append((&framing.Chunk{Flags: framing.ChunkFin, Stream: h.Stream, Length: 9}).Append(nil), "two"...)
		},
		func(h framing.Chunk) []byte {
			return (&framing.Chunk{Flags: framing.ChunkReset, Reason: framing.ResetByPeer, Stream: h.Stream}).Append(nil)
		},
	} {
		answers <- answer
		wantReset(t, addr)
	}
}
