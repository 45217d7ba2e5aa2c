package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

func TestHTTP(t *testing.T) {
	w := newWorld(t, options{bulk: true})
	w.must(w.Nginx(w.ctx))

	w.run("get", func(w *world, t *testing.T) {
		for _, size := range []int{0, 1, 1000, 65536, 1 << 20, 50 << 20} {
			want := w.file("get", content(1, size))
			w.curl("-o", w.Path("got"), url(testnet.ServerAddr, "get"))
			if got := w.sumFile("got"); got != want {
				t.Errorf("%d bytes: got %s, want %s", size, got, want)
			}
		}
	})

	w.run("upload", func(w *world, t *testing.T) {
		// The server says what arrived; nginx-light has no module for uploads.
		l, err := w.Server.Listen("tcp", netip.AddrPortFrom(testnet.ServerAddr, 8080).String())
		w.must(err)
		server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			hash := sha256.New()
			n, err := io.Copy(hash, r.Body)
			fmt.Fprintf(rw, "%d %s %v", n, hex.EncodeToString(hash.Sum(nil)), err)
		})}
		go server.Serve(l)
		defer server.Close()
		for _, size := range []int{1, 1 << 20, 50 << 20} {
			data := content(2, size)
			_, err := w.WriteFile("upload", string(data))
			w.must(err)
			got := w.curl("-T", w.Path("upload"), "http://"+l.Addr().String()+"/")
			if want := fmt.Sprintf("%d %s <nil>", size, sum(data)); got != want {
				t.Errorf("the server says %q, want %q", got, want)
			}
		}
	})

	w.run("keep-alive", func(w *world, t *testing.T) {
		w.file("small", content(3, 1000))
		u := url(testnet.ServerAddr, "small?[1-50]")
		got := w.curl("-o", "/dev/null", "-w", "%{num_connects} ", u)
		if want := "1" + strings.Repeat(" 0", 49); strings.TrimSpace(got) != want {
			t.Errorf("new connections for each request: %q, want %q", got, want)
		}
	})

	w.run("200 at once", func(w *world, t *testing.T) {
		const count = 200
		want := w.file("many", content(4, 256<<10))
		w.curl("--parallel", "--parallel-immediate", "--parallel-max", fmt.Sprint(count),
			"-o", w.Path("many-#1"), url(testnet.ServerAddr, fmt.Sprintf("many?[1-%d]", count)))
		for i := range count {
			if got := w.sumFile(fmt.Sprintf("many-%d", i+1)); got != want {
				t.Errorf("download %d: got %s, want %s", i+1, got, want)
			}
		}
	})
}

func TestIperf(t *testing.T) {
	w := newWorld(t, options{bulk: true})
	w.must(w.IperfServer(w.ctx, w.Server))
	for _, o := range []lab.IperfOptions{
		{Streams: 1}, {Streams: 1, Down: true}, {Streams: 4}, {Streams: 4, Down: true},
	} {
		name := map[bool]string{false: "up", true: "down"}[o.Down]
		w.run(fmt.Sprintf("%d streams %s", o.Streams, name), func(w *world, t *testing.T) {
			o.To, o.Seconds = testnet.ServerAddr, 3
			r, err := lab.Iperf(w.within(20*time.Second), w.app(), o)
			w.must(err)
			t.Logf("%.2f Gbit/s", r.Gbps())
			// Not a benchmark: this much goes through any tunnel that works.
			if r.Gbps() < 0.05 {
				t.Errorf("%.3f Gbit/s, want at least 0.05", r.Gbps())
			}
		})
	}
}

// TestFamilies sends both address families through a tunnel over each.
func TestFamilies(t *testing.T) {
	for name, endpoint := range map[string]netip.Addr{"over IPv4": testnet.GatewayAddr, "over IPv6": testnet.GatewayAddr6} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{client: func(c *lab.Config) {
				c.Peers[0].Endpoint = netip.AddrPortFrom(endpoint, lab.Port)
			}})
			w.must(w.Nginx(w.ctx))
			want := w.file("file", content(5, 5<<20))
			for _, server := range []netip.Addr{testnet.ServerAddr, testnet.ServerAddr6} {
				w.curl("-o", w.Path("got"), url(server, "file"))
				if got := w.sumFile("got"); got != want {
					t.Errorf("%v: got %s, want %s", server, got, want)
				}
			}
			status, err := w.client.Status(w.ctx)
			w.must(err)
			if got := status.Peers[0].Endpoint; got != netip.AddrPortFrom(endpoint, lab.Port).String() {
				t.Errorf("the endpoint is %s, want %v", got, endpoint)
			}
		})
	}
}
