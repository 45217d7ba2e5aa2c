package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/packet"
)

// waitFor polls cond until it is true.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within 15 s", what)
		}
	}
}

// eachKind runs test over kernel sockets and over the portable streams.
func eachKind(t *testing.T, test func(t *testing.T, r *relay)) {
	for _, portable := range []bool{false, true} {
		t.Run(map[bool]string{false: "kernel", true: "portable"}[portable], func(t *testing.T) {
			test(t, &relay{Bridge: New(Config{}), d: NewDialer(DialerConfig{}), portable: portable})
		})
	}
}

func wantRead(t *testing.T, c net.Conn, want string, end error) {
	t.Helper()
	got, err := io.ReadAll(c)
	if err == nil {
		err = io.EOF
	}
	if string(got) != want || !errors.Is(err, end) {
		t.Errorf("read %d bytes, %v; want %d bytes, %v", len(got), err, len(want), end)
	}
}

func rst(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// The cases of goals.md section 2.1, with a gate instead of a delay: the server
// answers when the test has seen that the flow is half-closed and stays so.

func TestClientFINThenAnswer(t *testing.T) {
	eachKind(t, func(t *testing.T, r *relay) {
		gate := make(chan struct{})
		startRelay(t, r, serve(t, func(c *net.TCPConn) {
			wantRead(t, c, "request", io.EOF)
			<-gate
			fmt.Fprint(c, "answer")
		}))
		c := dial(t, r.Addr)
		fmt.Fprint(c, "request")
		c.CloseWrite()
		waitFor(t, "half-closed flow", func() bool {
			fs := r.Flows(0)
			return len(fs) == 1 && fs[0].State == StateHalfClosedA && fs[0].BytesUp == 7
		})
		close(gate)
		wantRead(t, c, "answer", io.EOF)
		waitFor(t, "end", func() bool { return r.Stats().Ended[Finished] == 1 })
	})
}

func TestServerFINThenUpload(t *testing.T) {
	eachKind(t, func(t *testing.T, r *relay) {
		upload := strings.Repeat("0123456789abcdef", 1<<16)
		done := make(chan struct{})
		startRelay(t, r, serve(t, func(c *net.TCPConn) {
			defer close(done)
			c.CloseWrite()
			wantRead(t, c, upload, io.EOF)
		}))
		c := dial(t, r.Addr)
		wantRead(t, c, "", io.EOF)
		waitFor(t, "half-closed flow", func() bool { return r.Flows(0)[0].State == StateHalfClosedB })
		if _, err := io.WriteString(c, upload); err != nil {
			t.Error(err)
		}
		c.CloseWrite()
		<-done
		waitFor(t, "end", func() bool { return r.Stats().Ended[Finished] == 1 })
	})
}

func TestServerRST(t *testing.T) {
	eachKind(t, func(t *testing.T, r *relay) {
		data := strings.Repeat("x", 100<<10)
		startRelay(t, r, serve(t, func(c *net.TCPConn) {
			c.Read(make([]byte, 1))
			io.WriteString(c, data)
			waitFor(t, "data at the bridge", func() bool { return r.Flows(0)[0].BytesDown == uint64(len(data)) })
			rst(c)
		}))
		c := dial(t, r.Addr)
		c.Write([]byte("x"))
		wantRead(t, c, data, syscall.ECONNRESET)
		waitFor(t, "end", func() bool { return r.Stats().Ended[ResetByB] == 1 })
	})
}

func TestClientRST(t *testing.T) {
	eachKind(t, func(t *testing.T, r *relay) {
		done := make(chan struct{})
		startRelay(t, r, serve(t, func(c *net.TCPConn) {
			defer close(done)
			wantRead(t, c, "x", syscall.ECONNRESET)
		}))
		c := dial(t, r.Addr)
		c.Write([]byte("x"))
		waitFor(t, "byte", func() bool { fs := r.Flows(0); return len(fs) == 1 && fs[0].BytesUp == 1 })
		rst(c)
		<-done
		waitFor(t, "end", func() bool { return r.Stats().Ended[ResetByA] == 1 })
	})
}

// TestCloseWithUnreadData: a server that closes without reading all answers with
// RST; the client has got the answer and then sees the reset.
func TestCloseWithUnreadData(t *testing.T) {
	eachKind(t, func(t *testing.T, r *relay) {
		startRelay(t, r, serve(t, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 10))
			io.WriteString(c, "too much")
			waitFor(t, "answer at the bridge", func() bool { return r.Flows(0)[0].BytesDown == 8 })
		}))
		c := dial(t, r.Addr)
		c.Write(make([]byte, 1000))
		wantRead(t, c, "too much", syscall.ECONNRESET)
	})
}

func TestRSTWhileTheReaderStandsStill(t *testing.T) {
	sent := make(chan int, 1)
	r := newRelay(t, serve(t, func(c *net.TCPConn) {
		sent <- fill(t, c)
		rst(c)
	}), Config{}, DialerConfig{})
	c := dial(t, r.Addr)
	<-sent // the path is full
	waitFor(t, "reset at the bridge", func() bool { return r.Flows(0)[0].State == StateResetting })
	got, err := io.Copy(io.Discard, c)
	if !errors.Is(err, syscall.ECONNRESET) || got == 0 {
		t.Errorf("%d bytes, %v", got, err)
	}
}

// fill writes to c until the path has taken nothing for a while, and returns how
// much it took.
func fill(t testing.TB, c *net.TCPConn) (n int) {
	p := make([]byte, 16<<10)
	for {
		if err := c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		m, err := c.Write(p)
		n += m
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n
		}
		if err != nil {
			t.Error(err)
			return n
		}
	}
}

// TestDownloadsAreWhole has the server close at once after each answer.
func TestDownloadsAreWhole(t *testing.T) {
	eachKind(t, func(t *testing.T, r *relay) {
		total := 10000
		if r.portable {
			total = 504
		}
		var content [64 << 10]byte
		for i := range content {
			content[i] = byte(i * 7 >> 3)
		}
		startRelay(t, r, serve(t, func(c *net.TCPConn) {
			var req [2]byte
			if _, err := io.ReadFull(c, req[:]); err != nil {
				t.Error(err)
			}
			c.Write(content[:1+int(req[0])<<8+int(req[1])])
		}))
		before := goroutines()
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(w), 1))
				for range total / 8 {
					size := 1 + rnd.IntN(len(content))
					c, err := net.Dial("tcp", r.Addr.String())
					if err != nil {
						t.Error(err)
						return
					}
					c.SetDeadline(time.Now().Add(20 * time.Second))
					c.Write([]byte{byte((size - 1) >> 8), byte(size - 1)})
					got, err := io.ReadAll(c)
					if err != nil || !bytes.Equal(got, content[:size]) {
						t.Errorf("%d of %d bytes, %v", len(got), size, err)
					}
					c.Close()
				}
			})
		}
		wg.Wait()
		waitFor(t, "end of all flows", func() bool { return r.Len() == 0 })
		if s := r.Stats(); s.Ended[Finished] != uint64(total) {
			t.Errorf("%+v", s)
		}
		waitFor(t, "end of all goroutines", func() bool { return goroutines() <= before+8 })
	})
}

// goroutines counts goroutines; those of the runtime's own are few and steady.
func goroutines() int { return runtime.NumGoroutine() }

func descriptors(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestIdleFlowsHaveNoGoroutines(t *testing.T) {
	const flows = 1000
	var mu sync.Mutex
	var server []net.Conn
	ln := listen(t, 0)
	accepted := make(chan struct{})
	go func() { // a server without a goroutine per connection
		defer close(accepted)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			server = append(server, c)
			mu.Unlock()
		}
	}()
	r := newRelay(t, ln.Addr().(*net.TCPAddr).AddrPort(), Config{}, DialerConfig{})
	first := dial(t, r.Addr) // starts the poller
	waitFor(t, "first flow", func() bool { return r.Len() == 1 })
	g0, fd0 := goroutines(), descriptors(t)
	var clients []*net.TCPConn
	for range flows - 1 {
		clients = append(clients, dial(t, r.Addr))
	}
	clients = append(clients, first)
	waitFor(t, "flows", func() bool { return r.Len() == flows })
	for _, c := range clients {
		c.Write([]byte("x"))
	}
	waitFor(t, "bytes", func() bool { return r.Stats().BytesUp == flows })
	// Workers that have not begun when g0 was taken stay.
	waitFor(t, "rest", func() bool { return goroutines() <= g0+2*runtime.GOMAXPROCS(0) })
	for _, c := range clients {
		c.Close()
	}
	waitFor(t, "half-closed flows", func() bool {
		for _, f := range r.Flows(0) {
			if f.State != StateHalfClosedA {
				return false
			}
		}
		return true
	})
	ln.Close()
	<-accepted
	for _, c := range server {
		if _, err := c.Read(make([]byte, 2)); err != nil { // else it would be reset
			t.Error(err)
		}
		c.Close()
	}
	waitFor(t, "end", func() bool { return r.Len() == 0 })
	if s := r.Stats(); s.Ended[Finished] != flows {
		t.Errorf("%+v", s)
	}
	// The test's own connections are closed as well by now.
	waitFor(t, "closed descriptors", func() bool { return descriptors(t) <= fd0 })
}

// bounded are settings that hold the buffers of a flow to a ceiling.
func bounded(ceiling int) (Config, DialerConfig) {
	return Config{BufferMax: ceiling}, DialerConfig{StartBuffer: 16 << 10}
}

// ownBuffer fixes the buffers of the programs in the tests of absorption: the
// kernel tunes those of a writer by several times what was acknowledged to it,
// and more if it remembers the path, and what is to be measured is ours.
const ownBuffer = 256 << 10

func TestReaderThatNeverReads(t *testing.T) {
	for _, upload := range []bool{false, true} {
		t.Run(map[bool]string{false: "download", true: "upload"}[upload], func(t *testing.T) {
			cfg, dcfg := bounded(8 << 20)
			result := make(chan int, 1)
			hold := make(chan struct{})
			defer close(hold)
			write := func(c *net.TCPConn) {
				c.SetWriteBuffer(ownBuffer / 2) // the kernel doubles it
				result <- fill(t, c)
			}
			r := newRelay(t, serve(t, func(c *net.TCPConn) {
				if upload {
					c.SetReadBuffer(ownBuffer / 2)
				} else {
					write(c)
				}
				<-hold
			}), cfg, dcfg)
			c := dial(t, r.Addr)
			if upload {
				write(c)
			} else {
				c.SetReadBuffer(ownBuffer / 2)
			}
			n := <-result
			t.Logf("%d KiB absorbed, kernels included", n>>10)
			// Of ours: the receive buffer, what was read, what was not sent.
			if ours := n - 2*ownBuffer; ours > 96<<10 {
				t.Errorf("%d KiB absorbed for a reader that never reads, %d KiB of it ours", n>>10, ours>>10)
			}
			rst(c)
		})
	}
}

// TestReaderThatStops reads long enough for all buffers to grow, then stops.
func TestReaderThatStops(t *testing.T) {
	const ceiling = 1 << 20
	for _, upload := range []bool{false, true} {
		t.Run(map[bool]string{false: "download", true: "upload"}[upload], func(t *testing.T) {
			cfg, dcfg := bounded(ceiling)
			result := make(chan int, 1)
			hold := make(chan struct{})
			defer close(hold)
			const read = 64 << 20
			source := func(c *net.TCPConn) { c.SetWriteBuffer(ownBuffer / 2); result <- fill(t, c) - read }
			sink := func(c *net.TCPConn) {
				c.SetReadBuffer(ownBuffer / 2)
				if _, err := io.CopyN(io.Discard, c, read); err != nil {
					t.Error(err)
				}
			}
			r := newRelay(t, serve(t, func(c *net.TCPConn) {
				if upload {
					sink(c)
				} else {
					source(c)
				}
				<-hold
			}), cfg, dcfg)
			c := dial(t, r.Addr)
			if upload {
				source(c)
			} else {
				sink(c)
			}
			n := <-result
			t.Logf("%d KiB absorbed after the reader stopped, kernels included", n>>10)
			// Beside the receive buffer: what was read, and what was not sent.
			if ours := n - 2*ownBuffer; ours > ceiling+packet.Size+DefaultNotSent+64<<10 {
				t.Errorf("%d KiB absorbed by us, ceiling %d KiB", ours>>10, ceiling>>10)
			}
			rst(c)
		})
	}
}
