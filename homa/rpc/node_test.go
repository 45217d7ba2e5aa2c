package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	clientAddr = netip.MustParseAddr("10.0.0.1")
	serverAddr = netip.MustParseAddr("10.0.0.2")
	server     = netip.AddrPortFrom(serverAddr, 4000)
)

func newNode(t *testing.T, network *carrier.Network, addr netip.Addr, config rpc.Config) *rpc.Node {
	t.Helper()
	port, err := network.Attach(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := rpc.NewNode(port, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// pair is a client and a server on a network.
func pair(t *testing.T, network *carrier.Network, config rpc.Config) (client, server *rpc.Node) {
	t.Helper()
	return newNode(t, network, clientAddr, config), newNode(t, network, serverAddr, config)
}

func listen(t *testing.T, n *rpc.Node, config rpc.ServeConfig, h rpc.HandlerFunc) *rpc.Server {
	t.Helper()
	s, err := n.Listen(server.Port(), h, config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// echo answers with the request.
func echo(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
	b, err := req.ReadAll()
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// message is n bytes that differ from message to message.
func message(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + n)
	}
	return b
}

func TestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := pair(t, &carrier.Network{}, rpc.Config{})
		listen(t, node, rpc.ServeConfig{}, echo)
		for _, size := range []int{1, 100, 1424, 1425, 40_000, 40_001, 500_000, rpc.MaxMessage} {
			request := message(size)
			response, err := client.Call(t.Context(), server, request)
			if err != nil || !bytes.Equal(response, request) {
				t.Fatalf("%d bytes: %d came back, %v", size, len(response), err)
			}
		}
		if s := client.Stats(); s.Called != 8 || s.Completed != 8 {
			t.Errorf("%+v", s)
		}
	})
}

func TestCallWithLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		random := rand.New(rand.NewPCG(1, 2))
		network := &carrier.Network{Fate: func(netip.Addr, netip.Addr, []byte) int {
			mu.Lock()
			defer mu.Unlock()
			switch random.IntN(20) {
			case 0, 1:
				return 0
			case 2:
				return 2
			}
			return 1
		}}
		client, node := pair(t, network, rpc.Config{})
		var runs atomic.Int64
		listen(t, node, rpc.ServeConfig{}, func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
			runs.Add(1)
			return echo(ctx, req, w)
		})
		const each = 30
		sizes := []int{1, 1425, 30_000, 200_000}
		var wg sync.WaitGroup
		for _, size := range sizes {
			wg.Go(func() {
				for range each {
					request := message(size)
					response, err := client.Call(t.Context(), server, request)
					if err != nil || !bytes.Equal(response, request) {
						t.Errorf("%d bytes: %d came back, %v", size, len(response), err)
					}
				}
			})
		}
		wg.Wait()
		if n := runs.Load(); n != each*int64(len(sizes)) {
			t.Errorf("%d requests were executed %d times", each*len(sizes), n)
		}
		if s := client.Stats(); s.BytesResent == 0 {
			t.Errorf("nothing was lost: %+v", s)
		}
	})
}

// TestThousandCallsAtOnce runs in a bubble so that a slow machine is no time-out.
func TestThousandCallsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := pair(t, &carrier.Network{}, rpc.Config{})
		// All requests are in service before the first is answered.
		const count = 1000
		var here sync.WaitGroup
		here.Add(count)
		listen(t, node, rpc.ServeConfig{}, func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
			here.Done()
			here.Wait()
			return echo(ctx, req, w)
		})
		var wg sync.WaitGroup
		for i := range count {
			wg.Go(func() {
				request := message(1 + i*3)
				response, err := client.Call(t.Context(), server, request)
				if err != nil || !bytes.Equal(response, request) {
					t.Errorf("call %d: %d bytes, %v", i, len(response), err)
				}
			})
		}
		wg.Wait()
		for _, n := range []*rpc.Node{client, node} {
			if s := n.Stats(); s.CallsFailed+s.ServedFailed != 0 || s.HeldReceive != 0 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// TestStreams sends and answers in pieces.
func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 700_000
		client, node := pair(t, &carrier.Network{}, rpc.Config{Engine: homa.Config{ReceiveWindow: 50_000}})
		listen(t, node, rpc.ServeConfig{}, func(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
			if req.Len() != size || req.Client().Addr() != clientAddr {
				return fmt.Errorf("request of %d bytes from %s", req.Len(), req.Client())
			}
			b, err := io.ReadAll(req)
			if err != nil {
				return err
			}
			slices.Reverse(b)
			if err := w.SetLength(len(b)); err != nil {
				return err
			}
			for piece := range slices.Chunk(b, 12_345) {
				if _, err := w.Write(piece); err != nil {
					return err
				}
			}
			return nil
		})
		request := message(size)
		call, err := client.Open(t.Context(), server, size)
		if err != nil {
			t.Fatal(err)
		}
		defer call.Close()
		for piece := range slices.Chunk(request, 54_321) {
			if n, err := call.Write(piece); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		if length, err := call.Response(); length != size || err != nil {
			t.Fatal(length, err)
		}
		response, err := io.ReadAll(call)
		slices.Reverse(response)
		if err != nil || !bytes.Equal(response, request) {
			t.Fatalf("%d bytes came back, %v", len(response), err)
		}
		if n, err := call.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after the end: %d, %v", n, err)
		}
	})
}

// TestRequestBackPressure lets a server read nothing for a while.
func TestRequestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window, ahead = 64 << 10, 64 << 10
		client, node := pair(t, &carrier.Network{}, rpc.Config{Engine: homa.Config{ReceiveWindow: window, SendAhead: ahead}})
		read := make(chan struct{})
		listen(t, node, rpc.ServeConfig{}, func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
			<-read
			return echo(ctx, req, w)
		})
		call, err := client.Open(t.Context(), server, rpc.MaxMessage)
		if err != nil {
			t.Fatal(err)
		}
		defer call.Close()
		var written atomic.Int64
		request := message(rpc.MaxMessage)
		done := make(chan error, 1)
		go func() {
			for piece := range slices.Chunk(request, 10_000) {
				if _, err := call.Write(piece); err != nil {
					done <- err
					return
				}
				written.Add(int64(len(piece)))
			}
			_, err := io.Copy(io.Discard, call)
			done <- err
		}()
		time.Sleep(time.Second) // of the bubble: longer than any time-out
		synctest.Wait()
		if n := written.Load(); n > window+ahead+100_000 || n < ahead {
			t.Errorf("%d bytes were taken though nobody reads", n)
		}
		if held := node.Stats().HeldReceive; held > 2*window {
			t.Errorf("the server holds %d bytes", held)
		}
		close(read)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestResponseBackPressure lets a client read nothing for a while.
func TestResponseBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window, ahead = 64 << 10, 64 << 10
		client, node := pair(t, &carrier.Network{}, rpc.Config{Engine: homa.Config{ReceiveWindow: window, SendAhead: ahead}})
		var written atomic.Int64
		listen(t, node, rpc.ServeConfig{}, func(_ context.Context, _ *rpc.Request, w *rpc.ResponseWriter) error {
			if err := w.SetLength(rpc.MaxMessage); err != nil {
				return err
			}
			for piece := range slices.Chunk(message(rpc.MaxMessage), 10_000) {
				if _, err := w.Write(piece); err != nil {
					return err
				}
				written.Add(int64(len(piece)))
			}
			return nil
		})
		call, err := client.Open(t.Context(), server, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer call.Close()
		if _, err := call.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := call.Response(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := written.Load(); n > window+ahead+100_000 || n < ahead {
			t.Errorf("%d bytes were taken though nobody reads", n)
		}
		response, err := io.ReadAll(call)
		if err != nil || !bytes.Equal(response, message(rpc.MaxMessage)) {
			t.Errorf("%d bytes came back, %v", len(response), err)
		}
	})
}

// TestErrors meets each way in which a call fails.
func TestErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &carrier.Network{}
		client, node := pair(t, network, rpc.Config{})
		listen(t, node, rpc.ServeConfig{}, func(context.Context, *rpc.Request, *rpc.ResponseWriter) error {
			return errors.New("no answer")
		})
		silent := netip.MustParseAddr("10.0.0.9")
		if _, err := network.Attach(silent); err != nil {
			t.Fatal(err)
		}
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		hurried, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		all := []error{rpc.ErrTimeout, rpc.ErrRefused, rpc.ErrUnreachable, rpc.ErrNotHoma, rpc.ErrAborted, rpc.ErrTooLong, rpc.ErrAddress,
			context.Canceled, context.DeadlineExceeded, net.ErrClosed}
		for _, c := range []struct {
			name string
			ctx  context.Context
			to   netip.AddrPort
			size int
			want []error
			took time.Duration // at most
		}{
			{"silent host", t.Context(), netip.AddrPortFrom(silent, 4000), 10, []error{rpc.ErrTimeout}, 120 * time.Millisecond},
			{"handler that fails", t.Context(), server, 10, []error{rpc.ErrTimeout}, 250 * time.Millisecond},
			{"port that nobody serves", t.Context(), netip.AddrPortFrom(serverAddr, 4001), 10, []error{rpc.ErrRefused, rpc.ErrUnreachable}, 0},
			{"host that is not there", t.Context(), netip.MustParseAddrPort("10.0.0.77:4000"), 10, []error{rpc.ErrUnreachable}, 0},
			{"too long", t.Context(), server, rpc.MaxMessage + 1, []error{rpc.ErrTooLong}, 0},
			{"empty", t.Context(), server, 0, []error{rpc.ErrTooLong}, 0},
			{"port 0", t.Context(), netip.AddrPortFrom(serverAddr, 0), 10, []error{rpc.ErrAddress}, 0},
			{"no address", t.Context(), netip.AddrPort{}, 10, []error{rpc.ErrAddress}, 0},
			{"canceled before", canceled, server, 10, []error{context.Canceled}, 0},
			{"deadline", hurried, netip.AddrPortFrom(silent, 4000), 10, []error{context.DeadlineExceeded}, 20 * time.Millisecond},
		} {
			begun := time.Now()
			_, err := client.Call(c.ctx, c.to, message(c.size))
			if took := time.Since(begun); took > c.took {
				t.Errorf("%s: took %v, want at most %v", c.name, took, c.took)
			}
			for _, e := range all {
				if is, want := errors.Is(err, e), slices.Contains(c.want, e); is != want {
					t.Errorf("%s: %q is %q: %v, want %v", c.name, err, e, is, want)
				}
			}
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := pair(t, &carrier.Network{}, rpc.Config{})
		listen(t, node, rpc.ServeConfig{}, func(ctx context.Context, _ *rpc.Request, _ *rpc.ResponseWriter) error {
			<-ctx.Done() // there is no cancel on the wire: this is the end of the node
			return ctx.Err()
		})
		why := errors.New("changed our mind")
		for _, stream := range []bool{false, true} {
			ctx, cancel := context.WithCancelCause(t.Context())
			failed := make(chan error, 1)
			go func() {
				if !stream {
					_, err := client.Call(ctx, server, message(100))
					failed <- err
					return
				}
				call, err := client.Open(ctx, server, 100)
				if err == nil {
					defer call.Close()
					if _, err = call.Write(message(100)); err == nil {
						_, err = call.Response()
					}
				}
				failed <- err
			}()
			time.Sleep(300 * time.Millisecond) // longer than the time-out: the server says that it works
			synctest.Wait()
			select {
			case err := <-failed:
				t.Fatalf("ended early: %v", err)
			default:
			}
			begun := time.Now()
			cancel(why)
			if err := <-failed; !errors.Is(err, why) || time.Since(begun) != 0 {
				t.Errorf("stream %v: %v after %v", stream, err, time.Since(begun))
			}
		}
		if s := client.Stats(); s.ClientOutgoing+s.ClientIncoming != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestCloseOfCall ends a stream in the middle, from another goroutine.
func TestCloseOfCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := pair(t, &carrier.Network{}, rpc.Config{})
		listen(t, node, rpc.ServeConfig{}, func(ctx context.Context, _ *rpc.Request, _ *rpc.ResponseWriter) error {
			<-ctx.Done()
			return ctx.Err()
		})
		call, err := client.Open(t.Context(), server, 100)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := call.Write(message(101)); n != 0 || !errors.Is(err, rpc.ErrTooLong) {
			t.Errorf("more than the length: %d, %v", n, err)
		}
		if _, err := call.Write(message(100)); err != nil {
			t.Fatal(err)
		}
		failed := make(chan error)
		go func() {
			_, err := call.Read(make([]byte, 1))
			failed <- err
		}()
		synctest.Wait()
		if err := call.Close(); err != nil {
			t.Error(err)
		}
		if err := <-failed; !errors.Is(err, rpc.ErrAborted) {
			t.Errorf("%v", err)
		}
		if _, err := call.Write([]byte{0}); !errors.Is(err, rpc.ErrAborted) {
			t.Errorf("Write after Close: %v", err)
		}
		if err := call.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestCloseOfNode ends everything that waits, on both sides.
func TestCloseOfNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := pair(t, &carrier.Network{}, rpc.Config{})
		ended := make(chan error, 10)
		listen(t, node, rpc.ServeConfig{}, func(ctx context.Context, _ *rpc.Request, _ *rpc.ResponseWriter) error {
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		})
		served := make(chan error, 1)
		go func() { served <- node.Serve(context.Background(), 5000, rpc.HandlerFunc(echo)) }()
		failed := make(chan error, 10)
		for range 5 {
			go func() {
				_, err := client.Call(t.Context(), server, message(100))
				failed <- err
			}()
		}
		call, err := client.Open(t.Context(), server, 100)
		if err != nil {
			t.Fatal(err)
		}
		defer call.Close()
		go func() {
			_, err := call.Response()
			failed <- err
		}()
		synctest.Wait()
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		for range 6 {
			if err := <-failed; !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v", err)
			}
		}
		if _, err := client.Call(t.Context(), server, message(1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Call after Close: %v", err)
		}
		if _, err := client.Open(t.Context(), server, 1); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Open after Close: %v", err)
		}
		if _, err := client.Listen(1, rpc.HandlerFunc(echo), rpc.ServeConfig{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Listen after Close: %v", err)
		}
		if err := node.Close(); err != nil {
			t.Error(err)
		}
		if len(ended) != 5 { // the streamed request never began
			t.Errorf("%d handlers ended", len(ended))
		}
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
		<-client.Done()
	})
}

// TestCloseAcknowledges lets the server forget what a client that ends has received.
func TestCloseAcknowledges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := pair(t, &carrier.Network{}, rpc.Config{})
		listen(t, node, rpc.ServeConfig{}, echo)
		if _, err := client.Call(t.Context(), server, message(10)); err != nil {
			t.Fatal(err)
		}
		if s := node.Stats(); s.ServerOutgoing != 1 {
			t.Fatalf("%+v", s)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if s := node.Stats(); s.ServerOutgoing != 0 || s.Acked != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := pair(t, &carrier.Network{}, rpc.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- node.Serve(ctx, server.Port(), rpc.HandlerFunc(echo)) }()
		synctest.Wait()
		if err := node.Serve(ctx, server.Port(), rpc.HandlerFunc(echo)); !errors.Is(err, rpc.ErrAddress) {
			t.Errorf("port served twice: %v", err)
		}
		if _, err := client.Call(t.Context(), server, message(1)); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if _, err := client.Call(t.Context(), server, message(1)); !errors.Is(err, rpc.ErrRefused) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestConcurrency bounds handlers; who waits is served in turn.
func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := pair(t, &carrier.Network{}, rpc.Config{})
		var running, most atomic.Int64
		listen(t, node, rpc.ServeConfig{Concurrency: 3}, func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(40 * time.Millisecond)
			return echo(ctx, req, w)
		})
		begun := time.Now()
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				if _, err := client.Call(t.Context(), server, message(10)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() != 3 {
			t.Errorf("%d handlers at a time", most.Load())
		}
		if took := time.Since(begun); took < 400*time.Millisecond || took > 420*time.Millisecond {
			t.Errorf("30 requests, 3 at a time of 40 ms each, took %v", took)
		}
	})
}

// TestHandlerErrors looks at what OnError is told.
func TestHandlerErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := pair(t, &carrier.Network{}, rpc.Config{})
		told := make(chan error, 1)
		failure := errors.New("failure")
		var handler rpc.HandlerFunc
		listen(t, node, rpc.ServeConfig{OnError: func(from netip.AddrPort, err error) {
			if from.Addr() != clientAddr {
				t.Errorf("error of %s", from)
			}
			told <- err
		}}, func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error { return handler(ctx, req, w) })
		for _, c := range []struct {
			name    string
			handler rpc.HandlerFunc
			want    string
			is      error
		}{
			{"its own", func(context.Context, *rpc.Request, *rpc.ResponseWriter) error { return failure }, "failure", failure},
			{"no response", func(context.Context, *rpc.Request, *rpc.ResponseWriter) error { return nil }, "no response", rpc.ErrNoResponse},
			{"half a response", func(_ context.Context, _ *rpc.Request, w *rpc.ResponseWriter) error {
				if err := w.SetLength(10); err != nil {
					return err
				}
				_, err := w.Write(message(4))
				return err
			}, "6 bytes shorter", nil},
			{"too long", func(_ context.Context, _ *rpc.Request, w *rpc.ResponseWriter) error {
				_, err := w.Write(message(rpc.MaxMessage + 1))
				return err
			}, "1000001", rpc.ErrTooLong},
			{"length of 0", func(_ context.Context, _ *rpc.Request, w *rpc.ResponseWriter) error { return w.SetLength(0) }, "of 0 bytes", rpc.ErrTooLong},
			{"late length", func(_ context.Context, _ *rpc.Request, w *rpc.ResponseWriter) error {
				if _, err := w.Write(message(1)); err != nil {
					return err
				}
				return w.SetLength(1)
			}, "SetLength", nil},
		} {
			handler = c.handler
			if _, err := client.Call(t.Context(), server, message(10)); !errors.Is(err, rpc.ErrTimeout) {
				t.Errorf("%s: the client got %v", c.name, err)
			}
			err := <-told
			if !bytes.Contains([]byte(err.Error()), []byte(c.want)) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%s: %q, want %q", c.name, err, c.want)
			}
		}
	})
}

// TestServerClose drops requests that wait for a handler.
func TestServerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := pair(t, &carrier.Network{}, rpc.Config{})
		s := listen(t, node, rpc.ServeConfig{Concurrency: 1}, func(ctx context.Context, _ *rpc.Request, _ *rpc.ResponseWriter) error {
			<-ctx.Done()
			return ctx.Err()
		})
		failed := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := client.Call(t.Context(), server, message(10))
				failed <- err
			}()
		}
		synctest.Wait()
		s.Close()
		s.Close()
		for range 3 {
			if err := <-failed; !errors.Is(err, rpc.ErrTimeout) && !errors.Is(err, rpc.ErrRefused) {
				t.Errorf("%v", err)
			}
		}
		listen(t, node, rpc.ServeConfig{}, echo)
		if _, err := client.Call(t.Context(), server, message(10)); err != nil {
			t.Error(err)
		}
	})
}

// TestMTU lets packets be of the size that the carrier allows.
func TestMTU(t *testing.T) {
	for _, mtu := range []int{600, 1500, carrier.MaxPacket} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			largest := 0
			network := &carrier.Network{MTU: mtu, Fate: func(_, _ netip.Addr, data []byte) int {
				mu.Lock()
				defer mu.Unlock()
				largest = max(largest, len(data))
				return 1
			}}
			client, node := pair(t, network, rpc.Config{})
			listen(t, node, rpc.ServeConfig{}, echo)
			request := message(100_000)
			response, err := client.Call(t.Context(), server, request)
			if err != nil || !bytes.Equal(response, request) {
				t.Fatalf("MTU %d: %d bytes, %v", mtu, len(response), err)
			}
			if largest != mtu-20 {
				t.Errorf("MTU %d: the largest packet has %d bytes", mtu, largest)
			}
		})
	}
}

// TestCarrierFailure ends calls when the carrier does.
func TestCarrierFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &carrier.Network{}
		port, err := network.Attach(clientAddr)
		if err != nil {
			t.Fatal(err)
		}
		broken := &brokenCarrier{Port: port, broke: make(chan struct{})}
		client, err := rpc.NewNode(broken, rpc.Config{})
		if err != nil {
			t.Fatal(err)
		}
		newNode(t, network, serverAddr, rpc.Config{})
		failed := make(chan error, 1)
		go func() {
			_, err := client.Call(t.Context(), netip.AddrPortFrom(serverAddr, 1), message(1))
			failed <- err
		}()
		close(broken.broke)
		if err := <-failed; !errors.Is(err, errBroken) {
			t.Errorf("%v", err)
		}
		<-client.Done()
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
}

var errBroken = errors.New("broken")

// brokenCarrier fails to receive once it broke.
type brokenCarrier struct {
	*carrier.Port
	broke chan struct{}
}

func (b *brokenCarrier) Receive(int, []carrier.Packet) (int, error) {
	<-b.broke
	return 0, errBroken
}

func TestBadConfig(t *testing.T) {
	network := &carrier.Network{}
	port, err := network.Attach(clientAddr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rpc.NewNode(port, rpc.Config{Engine: homa.Config{FirstID: 3}}); err == nil {
		t.Error("an odd first id was taken")
	}
	if err := port.Send(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the carrier was left open: %v", err)
	}
}

// TestWriteBesideResponse: one goroutine may supply the request while another waits
// for the response; neither takes the other's word.
func TestWriteBesideResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := pair(t, &carrier.Network{}, rpc.Config{Engine: homa.Config{SendAhead: 16 << 10}})
		listen(t, node, rpc.ServeConfig{}, func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
			b := make([]byte, 10_000)
			for {
				_, err := io.ReadFull(req, b)
				if err == io.EOF {
					break
				} else if err != nil && err != io.ErrUnexpectedEOF {
					return err
				}
				time.Sleep(time.Millisecond) // the client waits for grants now and then
			}
			_, err := w.Write([]byte("done"))
			return err
		})
		for range 20 {
			c, err := client.Open(t.Context(), server, 300_000)
			if err != nil {
				t.Fatal(err)
			}
			written := make(chan error, 1)
			go func() {
				_, err := c.Write(message(300_000))
				written <- err
			}()
			if n, err := c.Response(); n != 4 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			if err := <-written; err != nil {
				t.Error(err)
			}
			c.Close()
		}
	})
}

// TestWriteOfFinishedCall: what comes too late is told apart from other errors.
func TestWriteOfFinishedCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, node := pair(t, &carrier.Network{}, rpc.Config{})
		listen(t, node, rpc.ServeConfig{}, echo)
		c, err := client.Open(t.Context(), server, 5)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
			t.Fatalf("%q, %v", b, err)
		}
		if _, err := c.Write([]byte("more")); !errors.Is(err, rpc.ErrState) {
			t.Errorf("Write of a finished call: %v", err)
		}
	})
}

func TestNilHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newNode(t, &carrier.Network{}, serverAddr, rpc.Config{})
		for _, h := range []rpc.Handler{nil, rpc.HandlerFunc(nil)} {
			if _, err := node.Listen(4000, h, rpc.ServeConfig{}); err == nil {
				t.Errorf("%T nil was taken", h)
			}
		}
		listen(t, node, rpc.ServeConfig{}, echo) // the port is free
	})
}
