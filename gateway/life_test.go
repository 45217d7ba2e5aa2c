package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tougw/tougw/bridge"
	"github.com/tougw/tougw/dtls"
	"github.com/tougw/tougw/internal/admin"
	"github.com/tougw/tougw/internal/simnet"
	"github.com/tougw/tougw/tun"
	"github.com/tougw/tougw/tunnel"
)

// wait gives what Run returned.
func (r *running) wait(what string) error {
	r.t.Helper()
	select {
	case err := <-r.done:
		close(r.done)
		return err
	case <-time.After(20 * time.Second):
		r.t.Fatalf("Run has not returned after 20 s: %s", what)
		return nil
	}
}

func TestRunOnce(t *testing.T) {
	w := newWorld(t)
	_, edge := w.pair()
	if err := edge.Run(t.Context()); !errors.Is(err, errRan) {
		t.Errorf("second Run beside the first: %v", err)
	}
	edge.end()
	if err := edge.Run(t.Context()); !errors.Is(err, errRan) {
		t.Errorf("second Run after the first: %v", err)
	}
}

// A part that fails takes the others down with it, those that wait for the
// device included.
func TestFailureOfAPartEndsRun(t *testing.T) {
	w := newWorld(t)
	var sock atomic.Pointer[dtls.Socket]
	yaml := strings.Replace(clientYAML("laptop-1"), "peers:", "listen: [\"192.0.2.1:443\"]\npeers:", 1)
	r := w.prepare(clientAddr, yaml, func(o *Options) {
		listen := o.Listen
		o.Listen = func(bind netip.AddrPort) (dtls.Socket, error) {
			s, err := listen(bind)
			if bind.Port() == 443 {
				sock.Store(&s)
			}
			return s, err
		}
	})
	r.run()
	<-r.ready
	(*sock.Load()).Close()
	err := r.wait("a listening socket failed")
	if err == nil || !strings.Contains(err.Error(), "listening on") {
		t.Errorf("Run: %v", err)
	}
	if _, err := os.Stat(r.cfg.Admin.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the admin socket is left: %v", err)
	}
}

// What fails at the start leaves nothing behind, so that the next start finds
// everything free.
func TestFailedStartLeavesNothing(t *testing.T) {
	w := newWorld(t)
	broken := errors.New("no such backend")
	yaml := strings.Replace(clientYAML("laptop-1"), "peers:", "listen: [\"192.0.2.1:443\", \"192.0.2.1:444\"]\npeers:", 1)
	for name, change := range map[string]func(*Options){
		"device": func(o *Options) {
			o.OpenDevice = func(tun.Config) (Device, error) { return nil, broken }
		},
		"second socket": func(o *Options) {
			listen := o.Listen
			o.Listen = func(bind netip.AddrPort) (dtls.Socket, error) {
				if bind.Port() == 444 {
					return nil, broken
				}
				return listen(bind)
			}
		},
	} {
		r := w.prepare(clientAddr, yaml, change)
		r.run()
		if err := r.wait(name); !errors.Is(err, broken) {
			t.Errorf("%s: Run: %v", name, err)
		}
		if _, err := os.Stat(r.cfg.Admin.Socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the admin socket is left: %v", name, err)
		}
	}
	w.start(clientAddr, yaml).end()
}

// The admin socket is there before the device is, and may be asked at once.
func TestStatusDuringTheStart(t *testing.T) {
	w := newWorld(t)
	asked := make(chan error, 1)
	r := w.prepare(clientAddr, clientYAML("laptop-1"))
	open := r.opt.OpenDevice
	r.opt.OpenDevice = func(c tun.Config) (Device, error) {
		go func() {
			st, err := admin.NewClient(r.cfg.Admin.Socket).Status(context.Background())
			if err == nil && st.Tun == nil {
				err = errors.New("answered without the device")
			}
			asked <- err
		}()
		time.Sleep(50 * time.Millisecond) // let the question come first
		return open(c)
	}
	r.run()
	<-r.ready
	if err := <-asked; err != nil {
		t.Error(err)
	}
}

// A client that stops says so for each flow: the edge must not keep them for a
// return that will not happen.
func TestStoppedClientLeavesNoFlowsBehind(t *testing.T) {
	w := newWorld(t)
	client, edge := w.pair()
	port := serve(t, echo)
	for i := range 20 {
		if err := pingPong(client.dial(destAddr, port), fmt.Sprint("flow ", i)); err != nil {
			t.Fatal(err)
		}
	}
	client.end()
	eventually(t, "no flows at the edge", func() bool { return edge.bridge.Len() == 0 })
}

// Drops of a socket that is gone are not forgotten with it.
func TestDropsNeverGoBack(t *testing.T) {
	w := newWorld(t)
	client, edge := w.pair()
	for _, p := range []uint16{1, 2} {
		if _, err := client.tryDial(netip.MustParseAddr("198.51.100.13"), p, 5*time.Second); err == nil {
			t.Fatal("a rejected flow was opened")
		}
	}
	before := map[string]uint64{}
	for _, d := range client.Status().Drops {
		if _, twice := before[d.Where+"."+d.Reason]; twice {
			t.Errorf("%s %s is listed twice", d.Where, d.Reason)
		}
		before[d.Where+"."+d.Reason] = d.Count
	}
	if before["flow.prohibited"] != 2 {
		t.Errorf("flow.prohibited is %d, want 2", before["flow.prohibited"])
	}
	for _, name := range []string{"handshake.unknown_ca", "dtls.replay", "tunnel.foreign_session", "stack.past", "capture.udp", "flow.refused"} {
		if _, ok := before[name]; !ok {
			t.Errorf("%s is not listed", name)
		}
	}
	edge.end()
	eventually(t, "peer down", func() bool { ok, _ := client.Ready(); return !ok })
	w.start(edgeAddr, edgeYAML)
	w.waitUp(client)
	for _, d := range client.Status().Drops {
		if d.Count < before[d.Where+"."+d.Reason] {
			t.Errorf("%s %s went from %d to %d", d.Where, d.Reason, before[d.Where+"."+d.Reason], d.Count)
		}
	}
}

func TestFailuresAreTold(t *testing.T) {
	g := new(Gateway)
	for _, c := range []struct {
		err  error
		want string
	}{
		{tunnel.ErrOverload, "overload"},
		{tunnel.ErrDraining, "draining"},
		{fmt.Errorf("open: %w", tunnel.ErrNoPeer), "no_peer"},
		{errors.Join(tunnel.ErrName, io.EOF), "name"},
		{syscall.EACCES, "prohibited"},
		{fmt.Errorf("connect: %w", syscall.ECONNREFUSED), "refused"},
		{syscall.EHOSTUNREACH, "host_unreachable"},
		{syscall.ENETUNREACH, "net_unreachable"},
		{timeout(context.DeadlineExceeded), "timeout"},
		{syscall.ECONNRESET, "reset"},
		{io.EOF, "other"},
	} {
		before := g.failedFlows()
		g.countFailed(c.err)
		for i, f := range failures {
			n := g.failed[i].Swap(0)
			if (f.reason == c.want) != (n == 1) {
				t.Errorf("%v counted %d as %s, want %s", c.err, n, f.reason, c.want)
			}
		}
		if before != 0 {
			t.Errorf("%d left", before)
		}
	}
}

// The server is done and the edge has all of its answer when the path fails and
// the edge is asked to stop: it waits until the answer is there.
func TestStopDeliversWhatIsUnderWay(t *testing.T) {
	w := newWorld(t)
	client, edge := w.pair()
	edge.opt.DrainTimeout = 20 * time.Second
	const size = 10_000
	asked, answer := make(chan struct{}), make(chan struct{})
	c := client.dial(destAddr, serve(t, func(c *net.TCPConn) {
		defer c.Close()
		io.Copy(io.Discard, c)
		close(asked)
		<-answer
		io.Copy(c, noise(5, size))
	}))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	<-asked
	w.net.SetLink(edgeAddr, clientAddr, simnet.Link{Blackhole: true})
	close(answer)
	eventually(t, "both directions ended", func() bool {
		f := edge.bridge.Flows(0)
		return len(f) == 0 || f[0].State == bridge.StateClosing
	})
	edge.stop()
	eventually(t, "draining", edge.draining.Load)
	time.Sleep(50 * time.Millisecond) // nothing holds the edge up but this flow
	w.net.SetLink(edgeAddr, clientAddr, simnet.Link{})
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := download(c, 5, size); err != nil {
		t.Error(err)
	}
}

// The application has gone away before the far side was connected: the server
// that then is connected in vain learns of it, and nothing is left.
func TestApplicationThatGivesUpLeavesNothing(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	edge := w.prepare(edgeAddr, edgeYAML, func(o *Options) {
		dial := o.DialTCP
		o.DialTCP = func(ctx context.Context, dst netip.AddrPort) (bridge.Stream, error) {
			<-release
			return dial(ctx, dst)
		}
	})
	edge.run()
	<-edge.ready
	client := w.start(clientAddr, clientYAML("laptop-1"))
	w.waitUp(client)
	ended := make(chan error, 1)
	port := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err := c.Read(make([]byte, 1))
		ended <- err
	})
	done := make(chan error, 1)
	go func() {
		_, err := client.tryDial(destAddr, port, 500*time.Millisecond)
		done <- err
	}()
	eventually(t, "opening", func() bool { return edge.opening.Load() == 1 })
	if err := <-done; err == nil {
		t.Fatal("connected before the far side")
	}
	close(release)
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server got %v", err)
	}
	for _, r := range []*running{client, edge} {
		eventually(t, "nothing left", func() bool { return r.opening.Load() == 0 && r.bridge.Len() == 0 })
	}
}
