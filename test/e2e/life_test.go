package e2e

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// TestShortFlowsLeaveNothing opens 1000 connections in a row and looks for what
// is left of them in both daemons.
func TestShortFlowsLeaveNothing(t *testing.T) {
	w := newWorld(t, options{bulk: true})
	server := w.serve(testnet.ServerAddr, echo)
	flow := func() {
		t.Helper()
		w.must(w.ask(w.app(), server))
	}
	type held struct {
		lab.Usage
		goroutines int
	}
	daemons := []*lab.Daemon{w.client, w.gateway}
	measure := func(d *lab.Daemon) (h held) {
		t.Helper()
		m, err := d.Metrics(w.ctx)
		w.must(err)
		h.goroutines = int(m["go_goroutines"])
		h.Usage, err = d.Usage()
		w.must(err)
		return h
	}
	noFlows := func() error {
		for _, d := range daemons {
			flows, err := d.Flows(w.ctx)
			if err != nil {
				return err
			}
			if len(flows) > 0 {
				return fmt.Errorf("%s has %d flows: %+v", d.Name, len(flows), flows[0])
			}
		}
		return nil
	}
	// Pools and the runtime take what they need for a while.
	for range 100 {
		flow()
	}
	w.eventually(10*time.Second, noFlows)
	before := map[*lab.Daemon]held{}
	for _, d := range daemons {
		before[d] = measure(d)
	}

	const count = 1000
	start := time.Now()
	for range count {
		flow()
	}
	t.Logf("%d flows in %v", count, time.Since(start).Round(time.Millisecond))

	w.eventually(10*time.Second, noFlows)
	for _, d := range daemons {
		// Sockets and timers of the last flows may take a moment.
		w.eventually(20*time.Second, func() error {
			b, a := before[d], measure(d)
			switch {
			case a.goroutines > b.goroutines+10:
				return fmt.Errorf("%s: %d goroutines, %d before", d.Name, a.goroutines, b.goroutines)
			case a.Descriptors > b.Descriptors+5:
				return fmt.Errorf("%s: %d descriptors, %d before", d.Name, a.Descriptors, b.Descriptors)
			// Closed sessions are remembered for a minute, at a few hundred
			// bytes each; a leak of one stream's buffers would be far more.
			case a.RSS > b.RSS+count*20<<10 && !raced(t):
				return fmt.Errorf("%s: %d KiB of memory, %d before", d.Name, a.RSS>>10, b.RSS>>10)
			}
			t.Logf("%s: goroutines %d -> %d, descriptors %d -> %d, memory %d -> %d KiB", d.Name,
				b.goroutines, a.goroutines, b.Descriptors, a.Descriptors, b.RSS>>10, a.RSS>>10)
			return nil
		})
	}
}

// raced reports whether the daemon was built with the race detector, which
// remembers every piece of memory that was ever touched.
func raced(t *testing.T) bool {
	t.Helper()
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// quick are timers that let a test see in seconds what takes minutes.
const quick = "associations: {keepalive: 1s, dead_after: 2s, session_grace: 3s}"

func hurry(c *lab.Config) { c.More = append(c.More, quick) }

// ends waits for the end of a connection and returns how it came.
func ends(c *net.TCPConn, patience time.Duration) error {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err := c.Read(make([]byte, 1))
	return err
}

// TestGatewayKilled: a gateway that dies without a word comes back, and with it
// the service; old flows are told.
func TestGatewayKilled(t *testing.T) {
	for name, change := range map[string]func(*lab.Config){"default timers": nil, "quick timers": hurry} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{client: change, gateway: change})
			server := w.serve(testnet.ServerAddr, echo)
			old := w.mustDial(server)
			w.must(echoed(old, "before"))

			w.gateway.Kill9()
			killed := time.Now()
			w.must(w.gateway.Restart(w.ctx))
			// What the application does next tells it.
			_, _ = io.WriteString(old, "after")
			w.eventually(40*time.Second, func() error { return w.ask(w.app(), server) })
			t.Logf("new flows %v after the kill", time.Since(killed).Round(10*time.Millisecond))
			if err := ends(old, 40*time.Second); err == nil || timedOut(err) {
				t.Errorf("the old flow: %v, want its end", err)
			}
			t.Logf("the old flow's end %v after the kill", time.Since(killed).Round(10*time.Millisecond))
		})
	}
}

// TestClientKilled: a client that dies without a word comes back; the gateway
// lets the flows of the dead one go.
func TestClientKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{client: hurry, gateway: hurry})
	ended := make(chan error, 1)
	var accepted atomic.Int32
	server := w.serve(testnet.ServerAddr, func(c *net.TCPConn) {
		if accepted.Add(1) > 1 {
			echo(c)
			return
		}
		_, err := io.Copy(c, c)
		ended <- err
	})
	w.must(echoed(w.mustDial(server), "before"))

	w.client.Kill9()
	killed := time.Now()
	w.must(w.client.Restart(w.ctx))
	w.up(w.client)
	w.eventually(20*time.Second, func() error { return w.ask(w.app(), server) })
	t.Logf("new flows %v after the kill", time.Since(killed).Round(10*time.Millisecond))

	select {
	case err := <-ended:
		if err == nil {
			t.Error("the server saw an orderly end of a flow that was cut")
		}
		t.Logf("the server's end after %v: %v", time.Since(killed).Round(10*time.Millisecond), err)
	case <-time.After(30 * time.Second):
		t.Error("the gateway still holds the flow of the dead client")
	}
	w.eventually(10*time.Second, func() error {
		flows, err := w.gateway.Flows(w.ctx)
		if err == nil && len(flows) > 0 {
			err = fmt.Errorf("the gateway has %d flows", len(flows))
		}
		return err
	})
}

// TestOutage: nothing arrives for a while; flows wait and go on, on a new
// association where the old one was given up.
func TestOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{
		client:  func(c *lab.Config) { c.More = append(c.More, "associations: {keepalive: 1s, dead_after: 2s}") },
		gateway: func(c *lab.Config) { c.More = append(c.More, "associations: {keepalive: 1s, dead_after: 2s}") },
	})
	server := w.serve(testnet.ServerAddr, echo)
	c := w.mustDial(server)
	w.must(echoed(c, "before"))
	made := w.onlyHandshake()
	w.must(w.Internet.BlockUDP())
	w.eventually(20*time.Second, func() error {
		s, err := w.client.Status(w.ctx)
		if err == nil && s.Peers[0].State == "up" {
			err = errors.New("the peer is still up")
		}
		return err
	})
	_, err := io.WriteString(c, "while")
	w.must(err)
	w.must(w.Internet.Heal())
	healed := time.Now()
	got := make([]byte, 5)
	_, err = io.ReadFull(c, got)
	w.must(err)
	t.Logf("the flow went on %v after the outage", time.Since(healed).Round(10*time.Millisecond))
	if string(got) != "while" {
		t.Errorf("the echo is %q", got)
	}
	if w.onlyHandshake().Equal(made) {
		t.Error("the association is still the old one")
	}
	w.must(echoed(c, "after"))
}

// TestGracefulStop: a daemon that is asked to stop lets its flows end.
func TestGracefulStop(t *testing.T) {
	for _, who := range []string{"gateway", "client"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{})
			const size = 4 << 20
			data := content(14, size)
			stopping := make(chan struct{})
			server := w.serve(testnet.ServerAddr, func(c *net.TCPConn) {
				// Half now, half when the daemon is on its way out.
				_, _ = c.Write(data[:size/2])
				<-stopping
				_, _ = c.Write(data[size/2:])
			})
			c := w.mustDial(server)
			got := make([]byte, size/2)
			_, err := io.ReadFull(c, got)
			w.must(err)

			d := map[string]*lab.Daemon{"gateway": w.gateway, "client": w.client}[who]
			stopped := make(chan error, 1)
			go func() { stopped <- d.Stop() }()
			w.eventually(5*time.Second, func() error {
				s, err := d.Status(w.ctx)
				if err == nil && !s.Draining {
					err = errors.New("not draining")
				}
				return err
			})
			if _, err := w.dialFrom(w.app(), server, 5*time.Second); err == nil {
				t.Error("a new flow was opened while the daemon drains")
			}
			close(stopping)
			rest, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(append(got, rest...), data) {
				t.Errorf("%d of %d bytes, %v", len(got)+len(rest), size, err)
			}
			w.must(c.Close())
			drained := time.Now()
			w.must(<-stopped)
			// It does not wait for anything when no flow is left.
			if took := time.Since(drained); took > 3*time.Second {
				t.Errorf("the daemon ended %v after its last flow", took)
			}
		})
	}
}

// TestStopIsBounded: a flow that does not end cannot hold a daemon for ever.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	c := w.mustDial(w.serve(testnet.ServerAddr, echo))
	w.must(echoed(c, "still here"))
	start := time.Now()
	w.must(w.gateway.Stop())
	t.Logf("stopped after %v", time.Since(start).Round(10*time.Millisecond))
	if err := ends(c, 10*time.Second); err == nil || timedOut(err) || err == io.EOF {
		t.Errorf("the flow: %v, want a reset", err)
	}
}
