package rawip_test

import (
	"context"
	"sync"
	"testing"

	"github.com/tougw/tougw/homa/rawip"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/internal/testnet"
)

// BenchmarkCalls measures calls through three routers, by messages' length and
// how many are outstanding.
func BenchmarkCalls(b *testing.B) {
	for _, c := range []struct {
		name        string
		size, calls int
	}{{"100B", 100, 1}, {"100Bx100", 100, 100}, {"500KB", 500_000, 1}, {"500KBx8", 500_000, 8}} {
		b.Run(c.name, func(b *testing.B) {
			testnet.Require(b)
			n, err := testnet.New(testnet.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer n.Close()
			if err := n.RoutePlain(); err != nil {
				b.Fatal(err)
			}
			var nodes [2]*rpc.Node
			for i, ns := range []*testnet.Namespace{n.Sites[0].App, n.Server} {
				var conn *rawip.Conn
				err := ns.Do(func() (err error) {
					conn, err = rawip.Open(rawip.Config{})
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
				if nodes[i], err = rpc.NewNode(conn, rpc.Config{}); err != nil {
					b.Fatal(err)
				}
				defer nodes[i].Close()
			}
			answer := make([]byte, 100)
			_, err = nodes[1].Listen(port, rpc.HandlerFunc(func(_ context.Context, _ *rpc.Request, w *rpc.ResponseWriter) error {
				_, err := w.Write(answer)
				return err
			}), rpc.ServeConfig{})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			var wg sync.WaitGroup
			calls := make(chan struct{}, c.calls)
			for range c.calls {
				wg.Go(func() {
					request := message(c.size)
					for range calls {
						if _, err := nodes[0].Call(context.Background(), servers["IPv4"], request); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for b.Loop() {
				calls <- struct{}{}
			}
			close(calls)
			wg.Wait()
		})
	}
}
