package testnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func build(t *testing.T, opts Options) (context.Context, *Net) {
	t.Helper()
	Require(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	n, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, n
}

// echo serves one connection after another on a literal address.
func echo(t *testing.T, ns *Namespace, address string) {
	t.Helper()
	l, err := ns.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

// ping sends a line and expects it back.
func ping(ctx context.Context, from *Namespace, address string) error {
	c, err := from.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	if _, err := io.WriteString(c, "ping"); err != nil {
		return err
	}
	var got [4]byte
	_, err = io.ReadFull(c, got[:])
	return err
}

// pingBriefly is ping where silence is expected.
func pingBriefly(ctx context.Context, from *Namespace, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	return ping(ctx, from, address)
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestWhatIsNotTunnelledArrivesNowhere(t *testing.T) {
	ctx, n := build(t, Options{})
	echo(t, n.Server, netip.AddrPortFrom(ServerAddr, 7).String())
	echo(t, n.Server, netip.AddrPortFrom(ServerAddr6, 7).String())
	app := n.Sites[0].App
	for _, addr := range []netip.Addr{ServerAddr, ServerAddr6} {
		target := netip.AddrPortFrom(addr, 7).String()
		// The Internet knows no way to the server, nor one back to tell so.
		if err := pingBriefly(ctx, app, target); !timedOut(err) {
			t.Errorf("%s before RoutePlain: %v, want silence", target, err)
		}
		if err := ping(ctx, n.Gateway, target); err != nil {
			t.Errorf("%s from the gateway: %v", target, err)
		}
	}
	for _, addr := range []netip.Addr{GatewayAddr, GatewayAddr6} {
		target := netip.AddrPortFrom(addr, 8).String()
		if err := ping(ctx, n.Sites[0].Gateway, target); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s across the Internet: %v, want refused", target, err)
		}
	}
	if err := n.RoutePlain(); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []netip.Addr{ServerAddr, ServerAddr6} {
		if err := ping(ctx, app, netip.AddrPortFrom(addr, 7).String()); err != nil {
			t.Errorf("%s after RoutePlain: %v", addr, err)
		}
	}
}

func TestSitesShareTheirInnerAddresses(t *testing.T) {
	ctx, n := build(t, Options{Sites: 3})
	seen := map[netip.Addr]bool{}
	for _, s := range n.Sites {
		if seen[s.Addr] || seen[s.Addr6] {
			t.Errorf("%s: address used twice", s.Gateway.Name)
		}
		seen[s.Addr], seen[s.Addr6] = true, true
		l, err := s.App.Listen("tcp", netip.AddrPortFrom(AppAddr, 0).String())
		if err != nil {
			t.Errorf("%s has no address %s: %v", s.App.Name, AppAddr, err)
			continue
		}
		_ = l.Close()
		for _, addr := range []netip.Addr{GatewayAddr, GatewayAddr6} {
			if err := ping(ctx, s.Gateway, netip.AddrPortFrom(addr, 8).String()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s to %s: %v, want refused", s.Gateway.Name, addr, err)
			}
		}
	}
}

func TestAppOnGateway(t *testing.T) {
	_, n := build(t, Options{AppOnGateway: true})
	if n.Sites[0].App != n.Sites[0].Gateway {
		t.Error("the application has a namespace of its own")
	}
}

func TestFaults(t *testing.T) {
	ctx, n := build(t, Options{})
	from, err := n.Sites[0].Gateway.ListenPacket("udp", netip.AddrPortFrom(n.Sites[0].Addr, 5000).String())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := n.Gateway.ListenPacket("udp", netip.AddrPortFrom(GatewayAddr, 5000).String())
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	// arrived sends datagrams and counts those that arrive; the last one, on a
	// port that no fault matches, says that all others are through.
	arrived := func(count int) (got int) {
		t.Helper()
		flush, err := n.Gateway.ListenPacket("udp", netip.AddrPortFrom(GatewayAddr, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer flush.Close()
		var buf [2048]byte
		for i := range count {
			if _, err := from.WriteTo([]byte("datagram"), to.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			if i%100 != 99 && i != count-1 {
				continue
			}
			// One hundred at a time fit any socket buffer.
			_ = to.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			for {
				if _, _, err := to.ReadFrom(buf[:]); err != nil {
					break
				}
				got++
			}
		}
		return got
	}
	if got := arrived(100); got != 100 {
		t.Errorf("healthy: %d of 100 arrived", got)
	}
	if err := n.Internet.Drop(0.2, ""); err != nil {
		t.Fatal(err)
	}
	// 1000 trials at 0.2: five standard deviations are 63.
	if got := arrived(1000); got < 800-63 || got > 800+63 {
		t.Errorf("a fifth dropped: %d of 1000 arrived", got)
	}
	if err := n.Internet.BlockUDP(); err != nil {
		t.Fatal(err)
	}
	if got := arrived(100); got != 0 {
		t.Errorf("blocked: %d of 100 arrived", got)
	}
	if err := n.Internet.Heal(); err != nil {
		t.Fatal(err)
	}
	if got := arrived(100); got != 100 {
		t.Errorf("healed: %d of 100 arrived", got)
	}

	if err := n.Server.AddAddress("eth0", netip.MustParsePrefix("198.51.100.66/24")); err != nil {
		t.Fatal(err)
	}
	if err := n.Server.Blackhole("198.51.100.66"); err != nil {
		t.Fatal(err)
	}
	if err := pingBriefly(ctx, n.Gateway, "198.51.100.66:7"); !timedOut(err) {
		t.Errorf("black hole: %v, want a time-out", err)
	}
}

func TestCapture(t *testing.T) {
	ctx, n := build(t, Options{})
	file := filepath.Join(t.TempDir(), "out.pcap")
	capture, err := n.Internet.Capture(ctx, CaptureOptions{Link: "gw0", File: file, Filter: "udp"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.Sites[0].Gateway.Dial(ctx, "udp", netip.AddrPortFrom(GatewayAddr, 9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("canary in the mine")); err != nil {
		t.Fatal(err)
	}
	err = Poll(ctx, func() error {
		data, err := os.ReadFile(file)
		if err == nil && !strings.Contains(string(data), "canary in the mine") {
			err = errors.New("the datagram is not in the capture")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	packets, missed, err := capture.Stop()
	if packets != 1 || missed != 0 || err != nil {
		t.Errorf("Stop = %d, %d, %v, want 1 packet", packets, missed, err)
	}
}

func TestStateSeesChangesAndOnlyThose(t *testing.T) {
	ctx, n := build(t, Options{})
	state := func() string {
		t.Helper()
		s, err := n.Gateway.State(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := state()
	if err := ping(ctx, n.Gateway, netip.AddrPortFrom(ServerAddr, 7).String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
	if after := state(); after != before {
		t.Errorf("traffic changed the state:\n%s\n%s", before, after)
	}
	for name, change := range map[string]func() error{
		"route":  func() error { return n.Gateway.AddRoute(netip.MustParsePrefix("10.9.0.0/16"), ServerAddr) },
		"sysctl": func() error { return n.Gateway.Sysctl("net.ipv4.conf.all.rp_filter", "2") },
		"rules":  func() error { return n.Gateway.BlockUDP() },
		"mtu":    func() error { return n.Gateway.SetMTU("wan0", 1400) },
	} {
		before := state()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if state() == before {
			t.Errorf("a change of %s is not seen", name)
		}
	}
}

func TestProcess(t *testing.T) {
	ctx, n := build(t, Options{})
	if out, err := n.Server.Run(ctx, "ip", "-br", "addr", "show", "eth0"); err != nil || !strings.Contains(out, ServerAddr.String()) {
		t.Errorf("ip in the server: %q, %v", out, err)
	}
	if _, err := n.Server.Run(ctx, "ls", "/does/not/exist"); err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("a failing program: %v", err)
	}
	p, err := n.Server.Start(exec.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(5 * time.Second); err != nil {
		t.Errorf("Stop: %v", err)
	}
	stubborn := exec.Command("sh", "-c", `trap "" TERM; echo ready; while :; do sleep 1000; done`)
	out := &Output{}
	stubborn.Stdout = out
	p, err = n.Server.Start(stubborn)
	if err != nil {
		t.Fatal(err)
	}
	err = Poll(ctx, func() error {
		if out.String() == "" {
			return errors.New("the program is not ready")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(50 * time.Millisecond); err == nil {
		t.Error("Stop of a program that ignores SIGTERM: no error")
	}
}

// TestLeftovers kills a process that holds a Net and expects the next one to
// clean up behind it. The process is this test binary again.
func TestLeftovers(t *testing.T) {
	Require(t)
	const holder = "TESTNET_HOLD"
	if os.Getenv(holder) != "" {
		n, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := n.Server.Start(exec.Command("sleep", "1000"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("held %s %d\n", n.Server.Name, p.Process.Pid)
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestLeftovers$", "-test.v")
	cmd.Env = append(os.Environ(), holder+"=1")
	out := &Output{}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var name string
	var pid int
	err := Poll(ctx, func() error {
		text := out.String()
		i := strings.Index(text, "held ")
		if i < 0 || !strings.Contains(text[i:], "\n") {
			return fmt.Errorf("the holder says %q", text)
		}
		_, err := fmt.Sscanf(text[i:], "held %s %d", &name, &pid)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("/run/netns", name)

	build(t, Options{})
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("a living run was swept: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	build(t, Options{})
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s of a dead run is still there: %v", path, err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		// It may be waiting for a parent that reaps it.
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if !strings.Contains(string(status), ") Z ") {
			t.Errorf("the dead run's program %d still runs", pid)
		}
	}
}
