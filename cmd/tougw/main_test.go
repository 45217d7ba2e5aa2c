package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

// result is what a call leaves behind.
type result struct {
	code           int
	stdout, stderr string
}

// tougw runs a command line.
func tougw(args ...string) result {
	var stdout, stderr bytes.Buffer
	code := execute(context.Background(), args, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

func (r result) check(t *testing.T, what string, want result) {
	t.Helper()
	if r != want {
		t.Errorf("%s:\ngot  %+v\nwant %+v", what, r, want)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "tougw: a command is missing\nRun 'tougw -h' for help.\n"},
		{"chekc", "tougw: unknown command \"chekc\"; did you mean \"check\"?\nRun 'tougw -h' for help.\n"},
		{"fly", "tougw: unknown command \"fly\"\nRun 'tougw -h' for help.\n"},
		{"--speed", "tougw: unknown flag: --speed\nRun 'tougw -h' for help.\n"},
		{"check", "tougw check: -c FILE is missing\nRun 'tougw check -h' for help.\n"},
		{"check -c", "tougw check: flag needs an argument: 'c' in -c\nRun 'tougw check -h' for help.\n"},
		{"check c.yaml", "tougw check: unexpected argument \"c.yaml\"\nRun 'tougw check -h' for help.\n"},
		{"check -x", "tougw check: unknown shorthand flag: 'x' in -x\nRun 'tougw check -h' for help.\n"},
		{"keygen", "tougw keygen: a command is missing\nRun 'tougw keygen -h' for help.\n"},
		{"keygen identiy", "tougw keygen: unknown command \"identiy\"; did you mean \"identity\"?\nRun 'tougw keygen -h' for help.\n"},
		{"keygen ca extra", "tougw keygen ca: unexpected argument \"extra\"\nRun 'tougw keygen ca -h' for help.\n"},
		{"keygen identity", "tougw keygen identity: NAME is missing\nRun 'tougw keygen identity -h' for help.\n"},
		{"keygen psk a b", "tougw keygen psk: unexpected argument \"b\"\nRun 'tougw keygen psk -h' for help.\n"},
		{"keygen ca --days 0", "tougw keygen ca: --days 0 is not in 1 to 36525\nRun 'tougw keygen ca -h' for help.\n"},
		{"keygen ca --days x", "tougw keygen ca: --days \"x\": invalid syntax\nRun 'tougw keygen ca -h' for help.\n"},
		{"trace now", "tougw trace: unexpected argument \"now\"\nRun 'tougw trace -h' for help.\n"},
		{"trace --addr here", "tougw trace: --addr: \"here\" is neither an address, nor an address and port, nor a prefix\nRun 'tougw trace -h' for help.\n"},
		{"trace --min-latency -5ms", "tougw trace: --min-latency: -5ms is negative\nRun 'tougw trace -h' for help.\n"},
		{"version now", "tougw version: unexpected argument \"now\"\nRun 'tougw version -h' for help.\n"},
	} {
		tougw(strings.Fields(c.args)...).check(t, c.args, result{exitUsage, "", c.want})
	}
}

// TestHelp asks every command for help: it is on stdout, and names the command.
func TestHelp(t *testing.T) {
	for _, args := range []string{"", "check", "keygen", "keygen ca", "keygen identity", "keygen psk", "trace", "homa", "homa ping", "homa serve", "homa bench", "version"} {
		r := tougw(append(strings.Fields(args), "-h")...)
		if r.code != exitOK || r.stderr != "" || !strings.Contains(r.stdout, strings.TrimSpace("tougw "+args)) || !strings.Contains(r.stdout, "--help") {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

// TestKeygenAndCheck makes what a client and a gateway need, and checks their
// configurations.
func TestKeygenAndCheck(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	tougw("keygen", "ca", "--out", dir).check(t, "ca", result{stdout: path("ca.crt") + "\n" + path("ca.key") + "\n"})
	tougw("keygen", "identity", "edge", "--ca", dir, "--out", dir).check(t, "edge", result{stdout: path("edge.crt") + "\n" + path("edge.key") + "\n"})
	tougw("keygen", "identity", "laptop-7", "--ca", dir, "--out", dir, "--days", "30").check(t, "laptop-7", result{stdout: path("laptop-7.crt") + "\n" + path("laptop-7.key") + "\n"})
	tougw("keygen", "psk", "phone", "--out", path("psk")).check(t, "phone", result{stdout: path("psk/phone.psk") + "\n"})

	tougw("keygen", "psk", "phone", "--out", path("psk")).check(t, "phone again", result{code: exitFailed,
		stderr: "tougw keygen psk: " + path("psk/phone.psk") + " exists already; it is never overwritten: remove it first if it is not needed\n"})
	tougw("keygen", "identity", "Phone", "--ca", dir, "--out", dir).check(t, "bad name", result{code: exitFailed,
		stderr: "tougw keygen identity: name \"Phone\" has upper-case letters: names are in lower case\n"})
	tougw("keygen", "identity", "phone", "--ca", path("none"), "--out", dir).check(t, "no CA", result{code: exitFailed,
		stderr: "tougw keygen identity: open " + path("none/ca.crt") + ": no such file or directory\n"})

	for name, content := range map[string]string{
		"client.yaml": `name: laptop-7
identity: {cert: laptop-7.crt, key: laptop-7.key, ca: ca.crt}
tun: {addresses: ["10.77.0.7/32"], routes: [default]}
peers: [{name: edge, endpoints: ["203.0.113.7:443"], server_name: edge}]
rules: [{action: tunnel, peer: edge}]
`,
		"gateway.yaml": `name: edge
identity: {cert: edge.crt, key: edge.key, ca: ca.crt, psk_dir: psk}
listen: ["0.0.0.0:443"]
accept: [{peer: "*", dst: ["0.0.0.0/0", "::/0"], action: tcp}]
`,
		"warned.yaml": `name: edge
identity: {cert: edge.crt, key: edge.key, ca: ca.crt}
listen: ["0.0.0.0:443"]
`,
		"broken.yaml": `name: edge
identity: {cert: edge.crt, key: none.key, ca: ca.crt}
listn: ["0.0.0.0:443"]
`,
	} {
		if err := os.WriteFile(path(name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tougw("check", "-c", path("client.yaml")).check(t, "client", result{stdout: path("client.yaml") + ": ok\n"})
	tougw("check", "--config", path("gateway.yaml")).check(t, "gateway", result{stdout: path("gateway.yaml") + ": ok\n"})
	tougw("check", "-c", path("warned.yaml")).check(t, "warned", result{
		stdout: path("warned.yaml") + ": ok\n",
		stderr: path("warned.yaml") + ":3:9: listen: warning: lets peers in, but without accept every flow of theirs is refused\n"})
	tougw("check", "-c", path("broken.yaml")).check(t, "broken", result{code: exitFailed, stderr: strings.ReplaceAll(`CFG:1:1: listen: is missing: a gateway needs listen; a client needs tun and peers; a translator needs translate
CFG:2:33: identity.key: open DIR/none.key: no such file or directory
CFG:3:1: listn: unknown key; did you mean "listen"?
`, "CFG", path("broken.yaml"))}.in(dir))
	tougw("check", "-c", path("none.yaml")).check(t, "none", result{code: exitFailed,
		stderr: path("none.yaml") + ": cannot be read: no such file or directory\n"})
}

// in puts the folder of the test in the place of DIR.
func (r result) in(dir string) result {
	r.stderr = strings.ReplaceAll(r.stderr, "DIR", dir)
	return r
}

func TestVersion(t *testing.T) {
	r := tougw("version")
	if r.code != exitOK || r.stderr != "" || !regexp.MustCompile(`^tougw +\S+\ncommit +.+\ngo +go\S+ \S+/\S+\n`).MatchString(r.stdout) {
		t.Errorf("%+v", r)
	}
	info := &debug.BuildInfo{
		Main: debug.Module{Version: "v0.2.0"},
		Deps: []*debug.Module{
			{Path: "github.com/pion/dtls/v3", Version: "v3.1.15"},
			{Path: "github.com/spf13/cobra", Version: "v1.10.2"},
			{Path: "gvisor.dev/gvisor", Version: "v0.0.1", Replace: &debug.Module{Version: "v0.0.2"}},
		},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abcdef"}, {Key: "vcs.modified", Value: "true"}},
	}
	for _, c := range []struct {
		version, commit string
		info            *debug.BuildInfo
		want            string
	}{
		{"", "", info, "v0.2.0|abcdef (modified)|gvisor.dev/gvisor v0.0.2|github.com/pion/dtls/v3 v3.1.15"},
		{"v1.0.0", "123456", info, "v1.0.0|123456|gvisor.dev/gvisor v0.0.2|github.com/pion/dtls/v3 v3.1.15"},
		{"", "", new(debug.BuildInfo), "(devel)|unknown"},
	} {
		var b bytes.Buffer
		if err := writeVersion(&b, c.version, c.commit, c.info); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(b.String()) {
			f := strings.Fields(line)
			switch f[0] {
			case "tougw", "commit":
				got = append(got, strings.Join(f[1:], " "))
			case "go":
			default:
				got = append(got, strings.Join(f, " "))
			}
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("got %s, want %s", s, c.want)
		}
	}
}
