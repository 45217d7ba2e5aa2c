package tun

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// helperEnv makes the test binary open a device, say so, and wait to be
// killed. Its value is the folder of the journal and the backend.
const helperEnv = "TUN_TEST_HELPER"

func TestMain(m *testing.M) {
	if v := os.Getenv(helperEnv); v != "" {
		dir, backend, _ := strings.Cut(v, "|")
		if _, err := Open(captureAll(dir, Backend(backend))); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("open")
		io.Copy(io.Discard, os.Stdin) // until the parent kills us or ends
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// captureAll is what the helper opens.
func captureAll(dir string, b Backend) Config {
	return Config{
		Name: "tou0", Backend: b, RunDir: dir,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.7/32")},
		Routes:    append(DefaultRoutes(), netip.MustParsePrefix("198.51.100.0/24")),
	}
}

// helper prepares the helper to run in the namespace of the calling thread.
func helper(t *testing.T, dir string, b Backend) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperEnv+"="+dir+"|"+string(b))
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// startHelper runs the helper until it has opened its device.
func startHelper(t *testing.T, dir string, b Backend) *exec.Cmd {
	t.Helper()
	cmd := helper(t, dir, b)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			kill(t, cmd)
		}
	})
	line := make([]byte, 1024)
	n, err := out.Read(line)
	if got := strings.TrimSpace(string(line[:n])); got != "open" {
		t.Fatalf("helper says %q, %v", got, err)
	}
	return cmd
}

// kill ends the helper as kill -9 does, and waits for it.
func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("helper ended by itself")
	}
}

// namespace moves the test into a network namespace of its own, in which only
// the loopback device is there and up. What the test starts on other threads
// is not in it, but open devices and sockets stay where they were made.
func namespace(t *testing.T) {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no TUN devices here: %v", err)
	}
	unix.Close(fd)
	runtime.LockOSThread()
	before, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		before.Close()
		runtime.UnlockOSThread()
		t.Skipf("no network namespaces here: %v", err)
	}
	t.Cleanup(func() {
		defer before.Close()
		if err := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Errorf("the thread stays in the namespace: %v", err)
			return // locked: it ends with the test
		}
		runtime.UnlockOSThread()
	})
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// open opens c, with a folder for the journal, and closes it after the test.
func open(t *testing.T, c Config) Device {
	t.Helper()
	if c.RunDir == "" {
		c.RunDir = t.TempDir()
	}
	d, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return d
}

// uplink opens a device that plays the host's own connection: the network
// 192.0.2.0/24 (and 2001:db8:1::/64) and the default routes of main.
func uplink(t *testing.T) Device {
	t.Helper()
	d := open(t, Config{Name: "up0", Queues: 1, Addresses: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8:1::2/64"),
	}})
	link, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range DefaultRoutes() {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(p)}); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// hostState lists all that Open may change: links, addresses, routes of all
// tables, rules and reverse path filters.
func hostState(t *testing.T) string {
	t.Helper()
	var lines []string
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		a := l.Attrs()
		lines = append(lines, fmt.Sprintf("link %d %s %s mtu %d %v", a.Index, a.Name, l.Type(), a.MTU, a.Flags))
		s, err := readSysctl("ipv4/conf/" + a.Name + "/rp_filter")
		lines = append(lines, fmt.Sprintf("rp_filter %s %s %v", a.Name, s, err))
	}
	all, err := readSysctl(rpFilterAll)
	lines = append(lines, fmt.Sprintf("rp_filter all %s %v", all, err))
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		lines = append(lines, "addr "+a.String())
	}
	for _, f := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(f, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			lines = append(lines, "route "+r.String())
		}
		rules, err := netlink.RuleList(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			lines = append(lines, fmt.Sprintf("rule %d not=%v mark=%#x suppress=%d %v", f, r.Invert, r.Mark, r.SuppressPrefixlen, r))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// sameState fails the test when the host is not as before.
func sameState(t *testing.T, before string) {
	t.Helper()
	after := hostState(t)
	if after == before {
		return
	}
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, l := range a {
		if !slices.Contains(b, l) {
			t.Errorf("gone: %s", l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			t.Errorf("left: %s", l)
		}
	}
	t.Fatal("the host is not as it was before")
}

// emptyDir fails the test when something is left in the folder of the journal.
func emptyDir(t *testing.T, dir string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil || len(es) > 0 {
		t.Fatalf("folder of the journal: %v, %v", es, err)
	}
}

// within fails the test when f does not end in time, which is generous.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		buf := make([]byte, 1<<16)
		t.Fatalf("%s does not end\n%s", what, bytes.TrimSpace(buf[:runtime.Stack(buf, true)]))
	}
}

func isErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}
