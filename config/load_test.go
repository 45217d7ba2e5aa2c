package config

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/pki"
)

// credentials makes a folder with all files that the tests' configurations
// name, and returns it.
func credentials(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := pki.CA(dir, pki.Validity{})
	must(err)
	for _, name := range []string{"laptop-7", "edge"} {
		_, err = pki.Identity(name, dir, dir, pki.Validity{})
		must(err)
	}
	_, err = pki.PSK("laptop-7", filepath.Join(dir, "psk"))
	must(err)
	_, err = pki.PSK("laptop-7", dir)
	must(err)
	return dir
}

// put writes content as c.yaml into dir and returns its path.
func put(t *testing.T, dir, content string) string {
	t.Helper()
	path := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func prefixes(s ...string) []netip.Prefix {
	var l []netip.Prefix
	for _, p := range s {
		l = append(l, netip.MustParsePrefix(p))
	}
	return l
}

func addrPorts(s ...string) []netip.AddrPort {
	var l []netip.AddrPort
	for _, a := range s {
		l = append(l, netip.MustParseAddrPort(a))
	}
	return l
}

func pattern(t *testing.T, s string) Pattern {
	t.Helper()
	p, err := ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestLoadClient gives every key of a client another value than its default.
func TestLoadClient(t *testing.T) {
	dir := credentials(t)
	path := put(t, dir, `
name: Laptop_7.home
log: {level: debug, format: json}
admin: {socket: admin.sock, http: "[::1]:9180"}
identity: {psk: {identity: laptop-7, key_file: laptop-7.psk}}
tun:
  name: tun.9
  addresses: ["10.77.0.7/24", "2001:db8::7/64"]
  routes: [default, "198.51.100.0/24"]
  mtu: 9000
  backend: water
  queues: 4
  mark: 0xff
peers:
  - {name: edge, endpoints: ["203.0.113.7:443", "[2001:db8::1]:4433"], path_mtu: 1492}
  - {name: edge-2, endpoints: ["203.0.113.8:443"], server_name: edge-2.example}
rules:
  - {dst: ["192.0.2.0/24", "2001:db8::/32"], ports: [22, "80-90"], action: direct}
  - {action: tunnel, peer: edge-2}
accept:
  - {peer: "E*", dst: ["10.77.0.7/32"], ports: ["22"], action: reject}
flows:
  connect_timeout: 90s
  idle_timeout: 1h30m
  keepalive: {idle: 0, interval: 20s, count: 3}
  buffer_max: 131072
  max: 100
  opening_max: 50
  opening_per_source: 7
associations:
  keepalive: 1s
  dead_after: 2s
  handshake_timeout: 3s
  half_open_max: 4
  half_open_per_source: 3
  session_grace: 0s
  rekey_after: 20s
  rekey_bytes: 2MiB
  offload: off
`)
	want := &Config{
		File:     path,
		Name:     "Laptop_7.home",
		Log:      Log{Level: slog.LevelDebug, Format: FormatJSON},
		Admin:    Admin{Socket: filepath.Join(dir, "admin.sock"), HTTP: netip.MustParseAddrPort("[::1]:9180")},
		Identity: Identity{PSK: &PSK{Identity: "laptop-7", KeyFile: filepath.Join(dir, "laptop-7.psk")}},
		Tun: &Tun{
			Name:      "tun.9",
			Addresses: prefixes("10.77.0.7/24", "2001:db8::7/64"),
			Routes:    prefixes("0.0.0.0/0", "::/0", "198.51.100.0/24"),
			MTU:       9000,
			Backend:   BackendWater,
			Queues:    4,
			Mark:      0xff,
		},
		Peers: []Peer{
			{Name: "edge", Endpoints: addrPorts("203.0.113.7:443", "[2001:db8::1]:4433"), PathMTU: 1492},
			{Name: "edge-2", Endpoints: addrPorts("203.0.113.8:443"), ServerName: "edge-2.example"},
		},
		Rules: []Rule{
			{Dst: prefixes("192.0.2.0/24", "2001:db8::/32"), Ports: []PortRange{{22, 22}, {80, 90}}, Action: ActionDirect},
			{Action: ActionTunnel, Peer: "edge-2"},
		},
		Accept: []Accept{
			{Peer: pattern(t, "e*"), Dst: prefixes("10.77.0.7/32"), Ports: []PortRange{{22, 22}}, Action: ActionReject},
		},
		Homa: Default().Homa,
		Flows: Flows{
			ConnectTimeout:   90 * time.Second,
			IdleTimeout:      90 * time.Minute,
			Keepalive:        Keepalive{Interval: 20 * time.Second, Count: 3},
			BufferMax:        128 << 10,
			Max:              100,
			OpeningMax:       50,
			OpeningPerSource: 7,
		},
		Associations: Associations{
			Keepalive:         time.Second,
			DeadAfter:         2 * time.Second,
			HandshakeTimeout:  3 * time.Second,
			HalfOpenMax:       4,
			HalfOpenPerSource: 3,
			RekeyAfter:        20 * time.Second, RekeyBytes: 2 << 20, Offload: OffloadOff,
		},
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if !got.Tun.DefaultRoute() {
		t.Error("DefaultRoute is false")
	}
	if p := got.Peer("edge-2"); p != &got.Peers[1] {
		t.Errorf("Peer gives %v", p)
	}
	if p := got.Peer("nobody"); p != nil {
		t.Errorf("Peer of nobody gives %v", p)
	}
}

// TestLoadDefaults gives nothing that has a default.
func TestLoadDefaults(t *testing.T) {
	dir := credentials(t)
	path := put(t, dir, goodGateway)
	want := Default()
	want.File = path
	want.Name = "edge"
	want.Admin.Socket = "/run/tougw/edge.sock"
	want.Identity = Identity{Cert: filepath.Join(dir, "edge.crt"), Key: filepath.Join(dir, "edge.key"), CA: filepath.Join(dir, "ca.crt")}
	want.Listen = addrPorts("0.0.0.0:443")
	want.Accept = []Accept{{Peer: pattern(t, "laptop-*"), Dst: prefixes("10.0.0.0/8"), Action: ActionTCP}}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if !got.Identity.HasCert() {
		t.Error("HasCert is false")
	}
}

func TestLoweredDefaults(t *testing.T) {
	cfg, err := Parse("c.yaml", []byte(goodGateway+"flows: {max: 100}\nassociations: {half_open_max: 8}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if f := cfg.Flows; f.OpeningMax != 100 || f.OpeningPerSource != 100 {
		t.Errorf("opening_max %d and opening_per_source %d are not lowered to max", f.OpeningMax, f.OpeningPerSource)
	}
	if a := cfg.Associations; a.HalfOpenPerSource != 8 {
		t.Errorf("half_open_per_source %d is not lowered to half_open_max", a.HalfOpenPerSource)
	}
}

func TestNameIsHostName(t *testing.T) {
	host, err := os.Hostname()
	if err != nil || checkInstance(host) != nil {
		t.Skipf("this host has no name that can be used: %q, %v", host, err)
	}
	cfg, err := Parse("c.yaml", []byte(strings.Replace(goodClient, "name: laptop-7\n", "", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if want := "/run/tougw/" + host + ".sock"; cfg.Name != host || cfg.Admin.Socket != want {
		t.Errorf("name %q and socket %q, want %q and %q", cfg.Name, cfg.Admin.Socket, host, want)
	}
}

// TestFiles changes the files that a configuration names.
func TestFiles(t *testing.T) {
	const withDir = `name: edge
identity: {cert: edge.crt, key: edge.key, ca: ca.crt, psk_dir: psk/}
listen: ["0.0.0.0:443"]
accept: [{peer: "laptop-*", dst: ["10.0.0.0/8"], action: tcp}]
`
	for _, c := range []struct {
		name    string
		content string
		change  string // a shell-like list of steps, see apply
		want    string // DIR stands for the folder, CFG for the file
	}{
		{"good", withDir, "", ""},
		{"missing cert", goodGateway, "rm edge.crt", "CFG:2:18: identity.cert: open DIR/edge.crt: no such file or directory"},
		{"missing all", goodGateway, "rm edge.crt, rm edge.key, rm ca.crt", "CFG:2:18: identity.cert: open DIR/edge.crt: no such file or directory\n" +
			"CFG:2:33: identity.key: open DIR/edge.key: no such file or directory\n" +
			"CFG:2:47: identity.ca: open DIR/ca.crt: no such file or directory"},
		{"key that its group can read", goodGateway, "chmod640 edge.key", "CFG:2:33: identity.key: DIR/edge.key has mode 0640, so that others than its owner have access; run: chmod 600 DIR/edge.key"},
		{"key that all can read", goodGateway, "chmod604 edge.key", "CFG:2:33: identity.key: DIR/edge.key has mode 0604, so that others than its owner have access; run: chmod 600 DIR/edge.key"},
		{"key of another certificate", goodGateway, "cp laptop-7.key edge.key", "CFG:2:33: identity.key: DIR/edge.key is not the key of DIR/edge.crt: tls: private key does not match public key"},
		{"cert that is a key", goodGateway, "cp edge.key edge.crt", "CFG:2:18: identity.cert: DIR/edge.crt has no PEM certificate"},
		{"key that is a cert", goodGateway, "cp edge.crt edge.key", "CFG:2:33: identity.key: DIR/edge.key has no PEM private key"},
		{"ca that is a folder", goodGateway, "rm ca.crt, mkdir ca.crt", "CFG:2:47: identity.ca: DIR/ca.crt is not a regular file"},
		{"ca that is text", goodGateway, "text ca.crt", "CFG:2:47: identity.ca: DIR/ca.crt has no PEM certificate"},
		{"missing psk", goodClient, "rm laptop-7.psk", "CFG:2:48: identity.psk.key_file: open DIR/laptop-7.psk: no such file or directory"},
		{"psk that others can read", goodClient, "chmod644 laptop-7.psk", "CFG:2:48: identity.psk.key_file: DIR/laptop-7.psk has mode 0644, so that others than its owner have access; run: chmod 600 DIR/laptop-7.psk"},
		{"psk that is text", goodClient, "text laptop-7.psk", "CFG:2:48: identity.psk.key_file: DIR/laptop-7.psk is not one line of hexadecimal digits"},
		{"missing psk_dir", withDir, "rm psk", "CFG:2:64: identity.psk_dir: open DIR/psk: no such file or directory"},
		{"empty psk_dir", withDir, "rm psk, mkdir psk", "CFG:2:64: identity.psk_dir: DIR/psk has no file NAME.psk"},
		{"psk_dir with defects", withDir, "cp laptop-7.psk psk/a.psk, cp psk/a.psk psk/b.psk, cp laptop-7.psk psk/C.psk, text psk/d.psk",
			"CFG:2:64: identity.psk_dir: DIR/psk/C.psk: name \"C\" has upper-case letters: names are in lower case\n" +
				"CFG:2:64: identity.psk_dir: DIR/psk/b.psk has the same key as DIR/psk/a.psk: a key proves one name\n" +
				"CFG:2:64: identity.psk_dir: DIR/psk/d.psk is not one line of hexadecimal digits"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := credentials(t)
			apply(t, dir, c.change)
			path := put(t, dir, c.content)
			_, err := Load(path)
			got := ""
			if err != nil {
				got = err.Error()
			}
			want := strings.ReplaceAll(strings.ReplaceAll(c.want, "DIR", dir), "CFG", path)
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// apply runs steps such as "rm FILE, cp FROM TO" in dir.
func apply(t *testing.T, dir, steps string) {
	t.Helper()
	for step := range strings.SplitSeq(steps, ", ") {
		f := strings.Fields(step)
		if len(f) == 0 {
			continue
		}
		path := filepath.Join(dir, f[len(f)-1])
		var err error
		switch f[0] {
		case "rm":
			err = os.RemoveAll(path)
		case "mkdir":
			err = os.Mkdir(path, 0o755)
		case "chmod604":
			err = os.Chmod(path, 0o604)
		case "chmod640":
			err = os.Chmod(path, 0o640)
		case "chmod644":
			err = os.Chmod(path, 0o644)
		case "text":
			err = os.WriteFile(path, []byte("no key\n"), 0o600)
		case "cp":
			var b []byte
			if b, err = os.ReadFile(filepath.Join(dir, f[1])); err == nil {
				err = os.WriteFile(path, b, 0o600)
			}
		default:
			t.Fatalf("unknown step %q", step)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnreadableConfig(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(dir, "none.yaml"): ": cannot be read: no such file or directory",
		dir:                             ": is a folder, not a file",
	} {
		_, err := Load(path)
		if err == nil || err.Error() != path+want {
			t.Errorf("got %v, want %s%s", err, path, want)
		}
	}
}

// TestPeek reads a file whose certificates and keys are out of reach.
func TestPeek(t *testing.T) {
	path := put(t, t.TempDir(), goodGateway)
	cfg, err := Peek(path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Admin.Socket != "/run/tougw/edge.sock" {
		t.Errorf("socket is %s", cfg.Admin.Socket)
	}
	if _, err := Load(path); err == nil {
		t.Error("Load did not look at the files")
	}
}

func TestLongAndStrangeValues(t *testing.T) {
	for _, c := range []struct{ value, want string }{
		{strings.Repeat("é", 40), `"` + strings.Repeat("é", 30) + `"... has "é": only letters, digits, '-', '_' and '.' can be in it`},
		{"a" + strings.Repeat("é", 40), `"a` + strings.Repeat("é", 29) + `"... has "é": only letters, digits, '-', '_' and '.' can be in it`},
		{strings.Repeat("a", 65), `"` + strings.Repeat("a", 60) + `"... has 65 characters, more than 64`},
		{`"a\u202Eb"`, `"a\u202eb" has "\u202e": only letters, digits, '-', '_' and '.' can be in it`},
	} {
		_, err := Parse("c.yaml", []byte(strings.Replace(goodClient, "name: laptop-7\n", "name: "+c.value+"\n", 1)))
		if want := "c.yaml:1:7: name: " + c.want; err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	// The names of files come into messages as they are.
	cfg := strings.Replace(goodClient, "laptop-7.psk", "\"a\\e[31m\"", 1)
	_, err := Load(put(t, t.TempDir(), cfg))
	if err == nil || strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), `/a\x1b[31m: no such file`) {
		t.Errorf("got %q", err)
	}
}

func TestWarnings(t *testing.T) {
	dir := credentials(t)
	// Certificates of two years ago and of next year.
	for name, from := range map[string]time.Time{
		"old": time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC),
		"new": time.Date(9998, 1, 2, 3, 4, 5, 0, time.UTC),
	} {
		caDir := filepath.Join(dir, name+"-ca")
		v := pki.Validity{NotBefore: from, For: 24 * time.Hour}
		if _, err := pki.CA(caDir, v); err != nil {
			t.Fatal(err)
		}
		if _, err := pki.Identity(name, caDir, dir, v); err != nil {
			t.Fatal(err)
		}
	}
	// The certificate of the CA has no DNS name.
	for _, c := range []struct{ name, content, want string }{
		{"expired", strings.NewReplacer("edge.crt", "old.crt", "edge.key", "old.key").Replace(goodGateway),
			"2:18: identity.cert: warning: the certificate expired on 2020-01-03 03:04:05"},
		{"not valid yet", strings.NewReplacer("edge.crt", "new.crt", "edge.key", "new.key").Replace(goodGateway),
			"2:18: identity.cert: warning: the certificate is valid from 9998-01-02 03:04:05 only"},
		{"no DNS name", strings.NewReplacer("edge.crt", "ca.crt", "edge.key", "ca.key").Replace(goodGateway),
			"2:18: identity.cert: warning: the certificate has no DNS name: it proves no identity (a CN does not count)"},
		{"metrics for all", goodGateway + "admin: {http: \"0.0.0.0:80\"}\n",
			"5:15: admin.http: warning: 0.0.0.0:80 can be reached from other hosts, and has no access control"},
		{"nothing accepted", strings.Replace(goodGateway, "accept: [{peer: \"laptop-*\", dst: [\"10.0.0.0/8\"], action: tcp}]\n", "", 1),
			"3:9: listen: warning: lets peers in, but without accept every flow of theirs is refused"},
		{"ranges that stay closed", strings.Replace(goodGateway, `"10.0.0.0/8"`, `"127.0.0.0/8", "127.0.0.1/32", "0.0.0.0/0", "::/0", "fe80::/10"`, 1),
			"4:35: accept[0].dst[0]: warning: 127.0.0.0/8 opens nothing: loopback and link-local addresses are reached only by a rule that lists the one address\nCFG:4:87: accept[0].dst[4]: warning: fe80::/10 opens nothing: loopback and link-local addresses are reached only by a rule that lists the one address"},
		{"dialled for nothing", "name: a\nidentity: {psk: {identity: laptop-7, key_file: laptop-7.psk}}\npeers: [{name: edge, endpoints: [\"192.0.2.1:443\"]}]\n",
			"3:8: peers: warning: are dialled for nothing: there is neither tun nor accept"},
		{"rule that is never reached", strings.Replace(goodClient, "peer: edge}", "peer: edge}, {action: reject}", 1),
			"5:39: rules[1]: warning: is never reached: rules[0] is for all flows"},
		{"name close to that of a peer", strings.Replace(goodGateway, "ca: ca.crt}", "ca: ca.crt}\npeers: [{name: edge-2, endpoints: [\"192.0.2.1:443\"], server_name: edge-2}]\ntun: {addresses: [\"10.0.0.1/32\"]}\nrules: [{dst: [\"10.1.0.0/16\"], action: tunnel, peer: laptop-7}, {action: tunnel, peer: egde-2}]", 1),
			"5:88: rules[1].peer: warning: no peer is called \"egde-2\", so it stands for a peer that dials us; did you mean \"edge-2\"?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := put(t, dir, c.content)
			cfg, err := Load(path)
			if err != nil {
				t.Fatal(err)
			}
			want := path + ":" + strings.ReplaceAll(c.want, "CFG", path)
			if got := cfg.Warnings.Error(); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
