package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa/probe"
	"github.com/tougw/tougw/internal/testnet"
)

func TestHomaUsageErrors(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"homa", "tougw homa: a command is missing"},
		{"homa png", `tougw homa: unknown command "png"; did you mean "ping"?`},
		{"homa ping", "tougw homa ping: HOST:PORT is missing"},
		{"homa ping 10.0.0.2", `tougw homa ping: "10.0.0.2" has no port: want HOST:PORT, or [ADDRESS]:PORT for IPv6`},
		{"homa ping fe80::1", `tougw homa ping: "fe80::1" has no port: want HOST:PORT, or [ADDRESS]:PORT for IPv6`},
		{"homa ping :4000", `tougw homa ping: "" is not the address of a host`},
		{"homa ping [fe80::1]:4000", "tougw homa ping: fe80::1 is link-local and says no device: want [fe80::1%DEVICE]:4000"},
		{"homa ping 10.0.0.2:4000 --bind fd94::1,fd94::2", "tougw homa ping: --bind has no address of the family of 10.0.0.2"},
		{"homa bench [fd94::2]:4000 --bind 10.0.0.1", "tougw homa bench: --bind has no address of the family of fd94::2"},
		{"homa ping 10.0.0.2:4000 -s 10k", `tougw homa ping: --size "10k": invalid syntax`},
		{"homa serve --port 70000 --echo", `tougw homa serve: --port "70000": value out of range`},
		{"homa ping 10.0.0.2:4000 -i soon", `tougw homa ping: --interval "soon": want seconds, or a number with a unit such as 500ms`},
		{"homa ping 10.0.0.2:4000 -i -0.5", "tougw homa ping: --interval -500ms is negative"},
		{"homa bench 10.0.0.2:4000 --duration 0", "tougw homa bench: --duration 0s is not above 0"},
		{"homa ping 10.0.0.2:0", `tougw homa ping: port of "10.0.0.2:0" is not in 1 to 65535`},
		{"homa ping 10.0.0.2:70000", `tougw homa ping: port of "10.0.0.2:70000" is not in 1 to 65535`},
		{"homa ping 10.0.0.2:4000 -c 0", "tougw homa ping: --count 0 is not above 0"},
		{"homa ping 10.0.0.2:4000 -s 0", "tougw homa ping: --size 0 is not in 1 to 1000000"},
		{"homa ping 10.0.0.2:4000 -s 1000001", "tougw homa ping: --size 1000001 is not in 1 to 1000000"},
		{"homa ping 10.0.0.2:4000 -i -1s", "tougw homa ping: --interval -1s is negative"},
		{"homa ping 10.0.0.2:4000 --bind here", `tougw homa ping: --bind "here" is not an IP address`},
		{"homa ping 10.0.0.2:4000 --speak 5.4", `tougw homa ping: --speak "5.4" is none of main, 6.10, stripped, 6.1`},
		{"homa serve --echo", "tougw homa serve: --port is missing or 0: want 1 to 65535; Linux hosts call ports up to 32767"},
		{"homa serve --port 4000", "tougw homa serve: --echo or --sink is missing"},
		{"homa serve --port 4000 --echo --sink", "tougw homa serve: --echo and --sink exclude each other"},
		{"homa bench 10.0.0.2:4000 --workload W1 -s 5", "tougw homa bench: --size and --workload exclude each other"},
		{"homa ping 0.0.0.0:4000", `tougw homa ping: "0.0.0.0" is not the address of a host`},
		{"homa bench [ff02::1]:4000", `tougw homa bench: "ff02::1" is not the address of a host`},
		{"homa bench 10.0.0.2:4000 --workload W6", `tougw homa bench: --workload "W6" is not one of W1, W2, W3, W4, W5`},
		{"homa bench 10.0.0.2:4000 --concurrency 0", "tougw homa bench: --concurrency 0 is not in 1 to 65536"},
		{"homa bench 10.0.0.2:4000 --duration 0s", "tougw homa bench: --duration 0s is not above 0"},
	} {
		path, _, _ := strings.Cut(c.want, ":")
		tougw(strings.Fields(c.args)...).check(t, c.args, result{exitUsage, "", c.want + "\nRun '" + path + " -h' for help.\n"})
	}
}

func TestSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"5": 5 * time.Second, "0.2": 200 * time.Millisecond, ".5": 500 * time.Millisecond, "-1": -time.Second,
		"1500ms": 1500 * time.Millisecond, "5m": 5 * time.Minute, "1m30s": 90 * time.Second, "0": 0,
	} {
		var s seconds
		if err := s.Set(text); err != nil || time.Duration(s) != want || s.String() != want.String() {
			t.Errorf("%q is %s, %v, want %s", text, &s, err, want)
		}
	}
	for _, text := range []string{"", "s", "5 s", "inf", "nan", "1e30", "5x"} {
		if err := new(seconds).Set(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestResolve(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd94::2")
	both := func(_ context.Context, network, host string) ([]netip.Addr, error) {
		if network != "ip" || host != "server" {
			return nil, fmt.Errorf("lookup of %s %s", network, host)
		}
		return []netip.Addr{v6, netip.AddrFrom16(v4.As16())}, nil
	}
	for _, c := range []struct{ bind, want string }{{"", "fd94::2"}, {"10.0.0.1", "10.0.0.2"}, {"fd94::1", "fd94::2"}, {"fd94::1 10.0.0.1", "fd94::2"}} {
		var local []netip.Addr
		for _, text := range strings.Fields(c.bind) {
			local = append(local, netip.MustParseAddr(text))
		}
		if got, err := resolve(t.Context(), "server", local, both); err != nil || got.String() != c.want {
			t.Errorf("with --bind %q: %s, %v, want %s", c.bind, got, err, c.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		_, err := resolve(t.Context(), "server", nil, func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// within runs a command line in a namespace until it ends or ctx does.
func within(ctx context.Context, t *testing.T, ns *testnet.Namespace, args string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := 0
	err := ns.Do(func() error {
		code = execute(ctx, strings.Fields(args), &stdout, &stderr)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return result{code, stdout.String(), stderr.String()}
}

// TestHoma pings and measures a server in another namespace.
func TestHoma(t *testing.T) {
	testnet.Require(t)
	n, err := testnet.New(testnet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.RoutePlain(); err != nil {
		t.Fatal(err)
	}
	app := n.Sites[0].App
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	// Nobody serves yet, and then nobody serves that port.
	r := within(ctx, t, app, "homa ping 198.51.100.2:4000 -c 1")
	if r.code != exitFailed || !strings.Contains(r.stdout, "protocol unreachable: the host does not know Homa") ||
		r.stderr != "" {
		t.Errorf("without a server: %+v", r)
	}
	// Nor does bench wait for its end.
	r = within(ctx, t, app, "homa bench 198.51.100.2:4000 --duration 1h")
	if r.code != exitFailed || r.stdout != "" || !strings.HasPrefix(r.stderr, "tougw homa bench: 198.51.100.2:4000: no call was answered: protocol unreachable: the host does not know Homa (1)") {
		t.Errorf("bench without a server: %+v", r)
	}
	// Names are those of this machine, which all namespaces share.
	if r := within(ctx, t, app, "homa ping localhost:4000 -c 1 --bind 127.0.0.1"); !strings.HasPrefix(r.stdout, "HOMA PING 127.0.0.1:4000: 100 bytes\n") {
		t.Errorf("a name: %+v", r)
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan result)
	for _, args := range []string{"homa serve --port 4000 --echo --bind 198.51.100.2", "homa serve --port 4001 --sink --bind 2001:db8:3::2"} {
		go func() { served <- within(serving, t, n.Server, args) }()
	}
	for _, to := range []string{"198.51.100.2:4000", "[2001:db8:3::2]:4001"} {
		if err := testnet.Poll(ctx, func() error {
			_, err := app.Run(ctx, "true")
			if r := within(ctx, t, app, "homa ping "+to+" -c 1"); r.code != exitOK {
				return context.DeadlineExceeded
			}
			return err
		}); err != nil {
			t.Fatalf("%s: %v", to, err)
		}
	}
	r = within(ctx, t, app, "homa ping 198.51.100.2:4002 -c 1")
	if r.code != exitFailed || !strings.Contains(r.stdout, "seq=1 port unreachable: nobody serves it\n") {
		t.Errorf("another port: %+v", r)
	}

	r = within(ctx, t, app, "homa ping 198.51.100.2:4000 -c 3 -s 2000 -i 0.001")
	want := regexp.MustCompile(`^HOMA PING 198\.51\.100\.2:4000: 2000 bytes
(2000 bytes from 198\.51\.100\.2:4000: seq=\d time=\d+\.\d{3} ms
){3}
--- 198\.51\.100\.2:4000 ---
3 calls, 3 answered, 0% lost, \d+ms
round trip min/avg/p50/p99/max = (\d+\.\d{3}/?){5} ms
$`)
	if r.code != exitOK || r.stderr != "" || !want.MatchString(r.stdout) {
		t.Errorf("ping: %+v", r)
	}

	r = within(ctx, t, app, "homa bench [2001:db8:3::2]:4001 --workload w4 --concurrency 5 --duration 700ms --json")
	var report probe.Report
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != exitOK || r.stderr != "" {
		t.Fatalf("bench: %v, %+v", err, r)
	}
	if report.Answered == 0 || report.Workload != "W4" || len(report.BySize) < 5 || report.SendRate < report.ReceiveRate || report.Concurrency != 5 {
		t.Errorf("%+v", report)
	}
	r = within(ctx, t, app, "homa bench 198.51.100.2:4000 -s 500 --duration 100ms")
	if r.code != exitOK || r.stderr != "" || !strings.Contains(r.stdout, "500 bytes, 1 outstanding") {
		t.Errorf("bench: %+v", r)
	}

	canceled, end := context.WithCancel(ctx)
	end()
	r = within(canceled, t, n.Server, "homa serve --port 40000 --echo")
	if !strings.HasSuffix(r.stderr, "warning: port 40000: Linux hosts call ports up to 32767 only\n") {
		t.Errorf("a high port: %+v", r)
	}

	// A host without a route, in a namespace that routes to neighbours only.
	r = within(ctx, t, n.Internet, "homa ping 172.16.0.1:4000 -c 1")
	r.check(t, "no route", result{exitFailed, "", "tougw homa ping: rawip: 172.16.0.1: network is unreachable\n"})

	stop()
	for range 2 {
		r := <-served
		if r.code != exitOK || r.stderr != "" || !regexp.MustCompile(`^serving Homa port 400\d: (echo|sink)\n\d+ requests: \d+ answered, \d+ lost because their client gave up or fell silent\n$`).MatchString(r.stdout) {
			t.Errorf("serve: %+v", r)
		}
	}
}

// TestHomaWithoutCapability runs ping as somebody who may not.
func TestHomaWithoutCapability(t *testing.T) {
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // the thread is not given back: it ends with this goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Error(err)
		}
		done <- tougw("homa", "ping", "127.0.0.1:4000", "-c", "1")
	}()
	(<-done).check(t, "ping", result{exitFailed, "",
		"tougw homa ping: rawip: raw IPv4 socket: operation not permitted: CAP_NET_RAW is needed (run as root, or setcap cap_net_raw+ep)\n"})
}
