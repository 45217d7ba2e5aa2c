package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/admin"
)

// running is a running `tougw run`.
type running struct {
	t      *testing.T
	dir    string
	file   string // its configuration
	socket string
	stop   context.CancelFunc
	done   chan result
}

// startDaemon runs a gateway on a port of loopback.
func startDaemon(t *testing.T) *running {
	t.Helper()
	d := &running{t: t, dir: t.TempDir(), done: make(chan result, 1)}
	d.file, d.socket = filepath.Join(d.dir, "edge.yaml"), filepath.Join(d.dir, "edge.sock")
	tougw("keygen", "ca", "--out", d.dir)
	tougw("keygen", "identity", "edge", "--ca", d.dir, "--out", d.dir)
	probe, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := probe.LocalAddr().String()
	probe.Close()
	content := `name: edge
identity: {cert: edge.crt, key: edge.key, ca: ca.crt}
listen: ["` + port + `"]
admin: {socket: ` + d.socket + `}
accept: [{peer: "*", dst: ["0.0.0.0/0"], action: tcp}]
`
	if err := os.WriteFile(d.file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, d.stop = context.WithCancel(context.Background())
	go func() {
		var stdout, stderr bytes.Buffer
		code := execute(ctx, []string{"run", "-c", d.file}, &stdout, &stderr)
		d.done <- result{code, stdout.String(), stderr.String()}
	}()
	t.Cleanup(d.stop)
	for deadline := time.Now().Add(10 * time.Second); tougw("status", "--socket", d.socket).code != exitOK; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.stop()
			t.Fatalf("no answer within 10 s: %+v", <-d.done)
		}
	}
	return d
}

func TestRunStatusAndFlows(t *testing.T) {
	d := startDaemon(t)
	// Whoever asks need not be able to read the keys.
	if err := os.Remove(filepath.Join(d.dir, "edge.key")); err != nil {
		t.Fatal(err)
	}
	for _, by := range [][]string{{"--socket", d.socket}, {"-c", d.file}} {
		r := tougw(append([]string{"status"}, by...)...)
		if r.code != exitOK || r.stderr != "" ||
			!regexp.MustCompile(`^edge: tougw \S+, process \d+, up \S+, instance [0-9a-f]{8}\nflows: 0 active`).MatchString(r.stdout) ||
			!strings.Contains(r.stdout, "socket: 127.0.0.1:") || !strings.Contains(r.stdout, "\nPEER ") {
			t.Errorf("status %v: %+v", by, r)
		}
		var st admin.Status
		r = tougw(append([]string{"status", "--json"}, by...)...)
		if err := json.Unmarshal([]byte(r.stdout), &st); err != nil || r.code != exitOK || st.Name != "edge" || st.PID != os.Getpid() ||
			len(st.Drops) == 0 || !strings.Contains(r.stdout, "\"peers\": []") {
			t.Errorf("status --json %v: %v %+v", by, err, r)
		}
		tougw(append([]string{"flows"}, by...)...).check(t, "flows", result{
			stdout: "ID  DIRECTION  PEER  SOURCE  DESTINATION  STATE  AGE  UP  DOWN\n"})
		tougw(append([]string{"flows", "--json"}, by...)...).check(t, "flows --json", result{stdout: "[]\n"})
	}

	for _, args := range [][]string{{"trace"}, {"trace", "--last", "--json"}} {
		tougw(append(args, "--socket", d.socket)...).check(t, "trace without translations", result{code: exitFailed,
			stderr: "tougw trace: " + d.socket + ": the daemon answered 503 Service Unavailable: this instance does not translate: its configuration has no translate rule, and no accept with action homa\n"})
	}

	d.stop()
	r := <-d.done
	if r.code != exitOK || r.stdout != "" || !strings.Contains(r.stderr, "level=INFO msg=running subsystem=gateway name=edge") {
		t.Errorf("run: %+v", r)
	}
	if _, err := os.Lstat(d.socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	tougw("status", "-c", d.file).check(t, "after the end", result{code: exitFailed,
		stderr: "tougw status: " + d.socket + ": no such admin socket: is tougw running?\n"})
}

func TestRunTwice(t *testing.T) {
	d := startDaemon(t)
	tougw("run", "-c", d.file).check(t, "second run", result{code: exitFailed,
		stderr: "tougw run: admin socket " + d.socket + ": another daemon is running on this socket\n"})
	if r := tougw("status", "--socket", d.socket); r.code != exitOK {
		t.Errorf("the first one: %+v", r)
	}
	d.stop()
	if r := <-d.done; r.code != exitOK {
		t.Errorf("run: %+v", r)
	}
}

func TestRunRefusesWhatCheckRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("name: edge\nlistn: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check, run := tougw("check", "-c", file), tougw("run", "-c", file)
	if run.code != exitFailed || run.stdout != "" || run.stderr != check.stderr || !strings.HasPrefix(run.stderr, file+":") {
		t.Errorf("run: %+v\ncheck: %+v", run, check)
	}
}

func TestNobodyToAsk(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	l, err := net.Listen("unix", path("dead.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // as a daemon that was killed
	if err := os.WriteFile(path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []string{"status", "flows", "trace"} {
		for name, want := range map[string]string{
			"none.sock": path("none.sock") + ": no such admin socket: is tougw running?",
			"dead.sock": path("dead.sock") + ": nobody answers on this admin socket: tougw is not running",
			"file":      path("file") + ": nobody answers on this admin socket: tougw is not running",
		} {
			tougw(cmd, "--socket", path(name)).check(t, cmd+" "+name, result{code: exitFailed, stderr: "tougw " + cmd + ": " + want + "\n"})
		}
		tougw(cmd, "-c", path("none.yaml")).check(t, cmd+" without a file", result{code: exitFailed,
			stderr: path("none.yaml") + ": cannot be read: no such file or directory\n"})
		if r := tougw(cmd, "-c", "a", "--socket", "b"); r.code == exitOK || !strings.Contains(r.stderr, "socket") {
			t.Errorf("%s with both: %+v", cmd, r)
		}
		if r := tougw(cmd, "-h"); r.code != exitOK || !strings.Contains(r.stdout, "--socket") {
			t.Errorf("%s -h: %+v", cmd, r)
		}
	}
}

func TestWhichSocket(t *testing.T) {
	dir := t.TempDir()
	ask := func(want, problem string) {
		t.Helper()
		got, err := adminSocket("", "", dir)
		if got != want || (err == nil) != (problem == "") || err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("got %q %v, want %q %q", got, err, want, problem)
		}
	}
	ask("", "no admin socket in "+dir+": is tougw running?")
	path := func(name string) string { return filepath.Join(dir, name) }
	listen := func(name string) net.Listener {
		l, err := net.Listen("unix", path(name))
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		t.Cleanup(func() { l.Close() })
		return l
	}
	a := listen("a.sock")
	ask(path("a.sock"), "")
	listen("b.sock")
	ask("", "several admin sockets in "+dir)
	a.Close() // killed
	ask(path("b.sock"), "")
	if got, err := adminSocket("x", "", dir); got != "x" || err != nil {
		t.Errorf("--socket x: %q %v", got, err)
	}
}
