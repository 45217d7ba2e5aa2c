package translate

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
)

// TestRelay accounts for requests that succeed, that nobody serves, and that the end
// of the gateway cuts off.
func TestRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFabric(t, nil, homa.Config{})
		f.handle(t, func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
			b, err := req.ReadAll()
			if err != nil {
				return err
			}
			if string(b) == "wait" {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			time.Sleep(time.Second)
			_, err = w.Write(append(b, b...))
			return err
		})
		tunnel := &carrier.Network{Gateways: true}
		attach := func(addr string, config homa.Config) *rpc.Node {
			c, err := tunnel.Attach(netip.MustParseAddr(addr))
			if err != nil {
				t.Fatal(err)
			}
			n, err := rpc.NewNode(c, rpc.Config{Engine: config})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { n.Close() })
			return n
		}
		gateway := netip.MustParseAddr("fd00::1")
		peer := attach("fd00::2", homa.Config{})
		tracer := NewTracer(TracerConfig{})
		relay := NewRelay("accept[0]", tracer)
		server, err := attach("fd00::1", homa.Config{AnyPort: true}).Listen(0, rpc.HandlerFunc(
			func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
				to, err := req.Target()
				if err != nil {
					return err
				}
				return relay.Serve(ctx, req, w, "branch", to, f.client.Open)
			}), rpc.ServeConfig{})
		if err != nil {
			t.Fatal(err)
		}
		begin := func(port uint16, request []byte) *rpc.Call {
			c, n, err := peer.OpenWith(t.Context(), netip.AddrPortFrom(serverHost.Addr(), port), len(request), rpc.OpenOptions{Via: gateway, First: request})
			if err == nil && n < len(request) {
				_, err = c.Write(request[n:])
			}
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		expect := func(call *rpc.Call, result Result) Record {
			t.Helper()
			synctest.Wait() // the client may have its answer before
			kept := tracer.Last(Filter{ID: idOf(call.ID())})
			if len(kept) != 1 {
				t.Fatalf("kept %+v", kept)
			}
			r := kept[0]
			if r.Result != result || r.Rule != "accept[0]" || r.Direction != "relay" || r.Peer != "branch" || (r.Error == "") != (result == OK) {
				t.Errorf("%+v, want %s", r, result)
			}
			if again := tracer.Last(Filter{ID: r.RelayID}); len(again) != 1 || again[0].ID != r.ID {
				t.Errorf("by the id %q of the other side: %+v", r.RelayID, again)
			}
			return r
		}

		request := text(100_000)
		call := begin(homaPort, request)
		if got, err := io.ReadAll(call); err != nil || !bytes.Equal(got, append(request, request...)) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		r := expect(call, OK)
		if r.RequestBytes != 100_000 || r.ResponseBytes != 200_000 || r.Server != serverHost || r.Service < time.Second ||
			r.Queue < 0 || r.Transport < 0 || r.Queue+r.Service+r.Transport != r.Total || r.GrantsSent == 0 || r.GrantsReceived == 0 {
			t.Errorf("%+v", r)
		}
		call.Close()

		call = begin(homaPort+1, []byte("x"))
		if _, err := call.Response(); err == nil {
			t.Error("nobody serves the port")
		}
		expect(call, Unreachable)
		call.Close()

		call = begin(homaPort, []byte("wait"))
		synctest.Wait()
		if n := relay.Stats().Outstanding; n != 1 {
			t.Errorf("%d under way", n)
		}
		server.Close()
		expect(call, Aborted)
		call.Close()

		synctest.Wait()
		s := relay.Stats()
		if s.Requests != 3 || s.Failed[Unreachable] != 1 || s.Failed[Aborted] != 1 || s.BytesIn != 100_005 || s.BytesOut != 200_000 || s.Outstanding != 0 {
			t.Errorf("%+v", s)
		}
	})
}
