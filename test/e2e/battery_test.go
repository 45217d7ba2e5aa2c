package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// The cases that tunnels which end TCP are known to fail: how a connection
// opens, closes and breaks must look to both ends as without a tunnel. The
// pauses are what is tested, not waits for a state.

const replySize = 1 << 20

// TestHalfCloseByClient: the client says all it has to say, and the server
// takes its time to answer.
func TestHalfCloseByClient(t *testing.T) {
	t.Parallel()
	pauses := []time.Duration{0, 2 * time.Second, 15 * time.Second}
	if long {
		pauses = append(pauses, 75*time.Second, 10*time.Minute)
	}
	w := newWorld(t, options{limit: pauses[len(pauses)-1] + time.Minute})
	for _, pause := range pauses {
		w.run(pause.String(), func(w *world, t *testing.T) {
			t.Parallel()
			reply := content(7, replySize)
			server := w.serve(testnet.ServerAddr, func(c *net.TCPConn) {
				request, err := io.ReadAll(c)
				if string(request) != "request" || err != nil {
					t.Errorf("the server read %q, %v", request, err)
				}
				time.Sleep(pause)
				if _, err := c.Write(reply); err != nil {
					t.Errorf("the server's answer: %v", err)
				}
			})
			c := w.mustDial(server)
			_, err := io.WriteString(c, "request")
			w.must(errors.Join(err, c.CloseWrite()))
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, reply) {
				t.Errorf("the client read %d bytes, %v; want all %d", len(got), err, len(reply))
			}
		})
	}
}

// TestHalfCloseByServer: the server ends its side at once, and the client
// uploads later.
func TestHalfCloseByServer(t *testing.T) {
	t.Parallel()
	pauses := []time.Duration{8 * time.Second}
	if long {
		pauses = append(pauses, 75*time.Second)
	}
	w := newWorld(t, options{limit: pauses[len(pauses)-1] + time.Minute})
	for _, pause := range pauses {
		w.run(pause.String(), func(w *world, t *testing.T) {
			t.Parallel()
			upload := content(8, replySize)
			arrived := make(chan error, 1)
			server := w.serve(testnet.ServerAddr, func(c *net.TCPConn) {
				err := c.CloseWrite()
				got, readErr := io.ReadAll(c)
				if !bytes.Equal(got, upload) {
					err = fmt.Errorf("the server read %d bytes, want all %d", len(got), len(upload))
				}
				arrived <- errors.Join(err, readErr)
			})
			c := w.mustDial(server)
			if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("the client read %d bytes, %v; want the end", n, err)
			}
			time.Sleep(pause)
			_, err := c.Write(upload)
			w.must(errors.Join(err, c.CloseWrite()))
			w.must(<-arrived)
		})
	}
}

// reset closes a connection with a RST.
func reset(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) }

func TestResets(t *testing.T) {
	w := newWorld(t, options{})
	for _, addr := range []netip.Addr{testnet.ServerAddr, testnet.ServerAddr6} {
		w.run("by the server "+addr.String(), func(w *world, t *testing.T) {
			server := w.serve(addr, func(c *net.TCPConn) {
				if _, err := io.ReadFull(c, make([]byte, 7)); err != nil {
					t.Error(err)
				}
				if err := reset(c); err != nil {
					t.Error(err)
				}
			})
			c := w.mustDial(server)
			_, err := io.WriteString(c, "request")
			w.must(err)
			if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client read %d bytes, %v; want ECONNRESET", n, err)
			}
		})
		w.run("by the client "+addr.String(), func(w *world, t *testing.T) {
			seen := make(chan error, 1)
			server := w.serve(addr, func(c *net.TCPConn) {
				if _, err := io.ReadFull(c, make([]byte, 7)); err != nil {
					t.Error(err)
				}
				if _, err := c.Write([]byte("go on")); err != nil {
					t.Error(err)
				}
				_, err := c.Read(make([]byte, 1))
				seen <- err
			})
			c := w.mustDial(server)
			_, err := io.WriteString(c, "request")
			w.must(err)
			_, err = io.ReadFull(c, make([]byte, 5))
			w.must(errors.Join(err, reset(c)))
			if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the server read %v, want ECONNRESET", err)
			}
		})
	}
}

// TestOpening: the client learns what the gateway learned of the server, as
// itself and in time.
func TestOpening(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	const dead, dead6 = "198.51.100.66", "2001:db8:3::66"
	w.must(errors.Join(
		w.Server.AddAddress("eth0", netip.MustParsePrefix(dead+"/24")),
		w.Server.AddAddress("eth0", netip.MustParsePrefix(dead6+"/64")),
		w.Server.Blackhole(dead, dead6),
	))
	for _, c := range []struct {
		name, to string
		patience time.Duration
		want     func(error) bool
	}{
		{"closed port", "198.51.100.2:9", 2 * time.Second, refused},
		{"closed port, IPv6", "[2001:db8:3::2]:9", 2 * time.Second, refused},
		// No such host on the link: the gateway's kernel knows after three
		// attempts to resolve its address, a second each.
		{"no such host", "198.51.100.77:80", 10 * time.Second, unreachable},
		{"no such host, IPv6", "[2001:db8:3::77]:80", 10 * time.Second, unreachable},
		{"silent host", dead + ":80", 6 * time.Second, timedOut},
		{"silent host, IPv6", "[" + dead6 + "]:80", 6 * time.Second, timedOut},
	} {
		w.run(c.name, func(w *world, t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := w.dialFrom(w.app(), netip.MustParseAddrPort(c.to), c.patience)
			if !c.want(err) {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		})
	}
}

func refused(err error) bool     { return errors.Is(err, syscall.ECONNREFUSED) }
func unreachable(err error) bool { return errors.Is(err, syscall.EHOSTUNREACH) }

// TestDownloadsAreWhole: the server closes as soon as it has written; whoever
// drops what is under way then truncates.
func TestDownloadsAreWhole(t *testing.T) {
	count, limit := 300, 2*time.Minute
	if long {
		count, limit = 10_000, 30*time.Minute
	}
	const (
		largest = 4 << 20
		workers = 8
	)
	w := newWorld(t, options{limit: limit, bulk: true})
	source := content(9, largest)
	server := w.serve(testnet.ServerAddr, func(c *net.TCPConn) {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		n := int(size[0])<<24 | int(size[1])<<16 | int(size[2])<<8 | int(size[3])
		_, _ = c.Write(source[:n])
	})
	download := func(n int) error {
		c, err := w.dialFrom(w.app(), server, 30*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}); err != nil {
			return err
		}
		rest := source[:n]
		buf := make([]byte, 256<<10)
		for {
			k, err := c.Read(buf)
			if k > len(rest) || !bytes.Equal(buf[:k], rest[:k]) {
				return fmt.Errorf("wrong bytes at %d of %d", n-len(rest), n)
			}
			rest = rest[k:]
			if err == io.EOF && len(rest) == 0 {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%d of %d bytes are missing: %w", len(rest), n, err)
			}
		}
	}
	sizes := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	for range workers {
		wg.Go(func() {
			for n := range sizes {
				if err := download(n); err != nil {
					mu.Lock()
					if failed++; failed <= 10 {
						t.Error(err)
					}
					mu.Unlock()
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(9, 9))
	for i := range count {
		n := largest
		if i%3 != 0 {
			n = 1 + rng.IntN(largest)
		}
		sizes <- n
	}
	close(sizes)
	wg.Wait()
	if failed > 0 {
		t.Errorf("%d of %d downloads failed", failed, count)
	}
}

// stall is how long nothing must be taken from a writer before we believe that
// nothing will be.
const stall = 3 * time.Second

// absorbed writes until nothing has been taken for a while and returns how
// many bytes were.
func absorbed(c *net.TCPConn) (n int64, err error) {
	buf := make([]byte, 16<<10)
	for {
		_ = c.SetWriteDeadline(time.Now().Add(stall))
		k, err := c.Write(buf)
		n += int64(k)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if k == 0 {
				return n, nil
			}
			continue
		}
		if err != nil {
			return n, err
		}
	}
}

// TestBackPressure: what the tunnel and all kernels together take for a reader
// that does not read.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	// hold keeps a connection open, after having read some of it, until the
	// test ends.
	hold := func(w *world, read int64) netip.AddrPort {
		ctx, cancel := context.WithCancel(w.ctx)
		w.t.Cleanup(cancel)
		return w.serve(testnet.ServerAddr, func(c *net.TCPConn) {
			_, _ = io.CopyN(io.Discard, c, read)
			<-ctx.Done()
		})
	}
	t.Run("a reader that never reads", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, options{})
		n, err := absorbed(w.mustDial(hold(w, 0)))
		w.must(err)
		kernels := w.kernelBuffers()
		t.Logf("%d KiB, of them %d KiB in kernels", n>>10, kernels>>10)
		if n > 1<<20 {
			t.Errorf("%d bytes were taken, more than 1 MiB; %d of them are in kernels", n, kernels)
		}
	})
	t.Run("a reader that stops", func(t *testing.T) {
		t.Parallel()
		const ceiling, read = 1 << 20, 64 << 20
		more := fmt.Sprintf("flows: {buffer_max: %d}", ceiling)
		w := newWorld(t, options{
			client:  func(c *lab.Config) { c.More = append(c.More, more) },
			gateway: func(c *lab.Config) { c.More = append(c.More, more) },
		})
		n, err := absorbed(w.mustDial(hold(w, read)))
		w.must(err)
		n -= read
		kernels := w.kernelBuffers()
		t.Logf("%d KiB, of them %d KiB in kernels", n>>10, kernels>>10)
		// Each gateway may hold its ceiling, and on each leg is a segment that
		// one end has sent and the other not yet counted.
		const segment = 64 << 10
		if most := int64(2*ceiling + 3*segment); n-kernels > most {
			t.Errorf("%d bytes were taken and are not in kernels, more than %d", n-kernels, most)
		}
	})
}

// kernelBuffers is what the kernels of the application, the gateway and the
// server hold of all connections, in bytes.
func (w *world) kernelBuffers() (n int64) {
	w.t.Helper()
	for _, ns := range []*testnet.Namespace{w.app(), w.Gateway, w.Server} {
		out, err := ns.Run(w.ctx, "ss", "-tnH", "state", "established")
		w.must(err)
		for line := range strings.Lines(out) {
			var received, sent int64
			if _, err := fmt.Sscan(line, &received, &sent); err != nil {
				w.t.Fatalf("ss: %q: %v", line, err)
			}
			n += received + sent
		}
	}
	return n
}
