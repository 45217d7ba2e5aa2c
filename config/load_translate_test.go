package config

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tougw/tougw/framing"
)

// TestLoadTranslate gives every key another value than its default.
func TestLoadTranslate(t *testing.T) {
	cfg, err := Parse("c.yaml", []byte(`name: door
accept: [{peer: "edge-*", dst: ["10.1.0.5/32"], ports: ["7000"], action: homa}]
identity: {psk_dir: psk}
listen: ["0.0.0.0:443"]
translate:
- name: kv
  from: {tunnel: {dst: 10.1.0.5, port: 7000}}
  to: {homa: "10.1.0.5:4000"}
  framing: {type: length-prefixed, bytes: varint, order: big, offset: 3, counts: message, pipeline: true, max: 64KiB}
  limits: {connections: 1, outstanding: 2, outstanding_all: 3, buffer: 128KiB}
  timeouts: {request: 0s, idle: 0s, write: 0s}
  retry: true
  proxy_protocol: {in: true}
  access_log: true
- name: lines
  from: {homa: ":4100"}
  to: {tcp: "[2001:db8::1]:7"}
  framing: {type: delimiter, delimiter_hex: "00ff", keep: false}
  limits: {server_connections: 4, pipeline: 5}
  timeouts: {connect: 6s, idle: 7s}
  failures: abort
  proxy_protocol: {out: true}
- name: cache
  from: {tcp: ":6379"}
  to: {homa: "10.1.0.6:4000"}
  framing: {type: resp, head: 1KiB, depth: 3, connection_state: pass}
- name: shell
  from: {homa: ":4022"}
  to: {tcp: ["127.0.0.1:22"]}
  framing: {type: stream}
  timeouts: {outage: 2m}
- name: names
  from: {homa: ":4053"}
  to: {tcp: ["127.0.0.1:53"]}
  framing: {type: dns}
  failures: answer
homa:
  addresses: ["10.1.0.1", "2001:db8::2"]
  device: eth1
  version: 6.1
  peers: [{address: 10.1.0.9, unscheduled: 10}]
  unscheduled: 20
  client_port: 40000
  link_rate: 25Gbit
  dscp: [1, 2, 3, 4, 5, 6, 7, 8]
  link_priority: [1, 1, 1, 1, 1, 1, 1, 0x10010]
  resend: 10ms
  timeout: 1s
  incoming: 96KiB
  window: 64KiB
  receive_memory: 128MiB
  send_memory: 1GiB
`))
	if err != nil {
		t.Fatal(err)
	}
	kv := Translate{
		Name: "kv", From: TranslateFrom{TranslateTunnel, netip.MustParseAddrPort("10.1.0.5:7000")},
		To: TranslateTo{Kind: TranslateHoma, Addrs: addrPorts("10.1.0.5:4000")},
		Framing: framing.Config{
			Type: "length-prefixed", Varint: true, Order: "big", Offset: 3, Counts: "message", Pipeline: true, Max: 64 << 10,
		},
		Limits: TranslateLimits{
			Connections: 1, Outstanding: 2, OutstandingAll: 3, Buffer: 128 << 10, ServerConnections: 64, Pipeline: 32,
		},
		Timeouts: TranslateTimeouts{Connect: 5 * time.Second, Outage: time.Minute},
		Retry:    true, ProxyIn: true, AccessLog: true,
	}
	lines := DefaultTranslate(TranslateTCP, false)
	lines.Name, lines.From = "lines", TranslateFrom{TranslateHoma, netip.AddrPortFrom(netip.Addr{}, 4100)}
	lines.To = TranslateTo{Kind: TranslateTCP, Addrs: addrPorts("[2001:db8::1]:7")}
	lines.Framing = framing.Config{Type: "delimiter", Delimiter: []byte{0, 255}, Strip: true, Max: framing.DefaultMax}
	lines.Limits.ServerConnections, lines.Limits.Pipeline = 4, 5
	lines.Timeouts.Connect, lines.Timeouts.Idle, lines.ProxyOut = 6*time.Second, 7*time.Second, true
	cache := DefaultTranslate(TranslateHoma, false)
	cache.Name, cache.From = "cache", TranslateFrom{TranslateTCP, netip.AddrPortFrom(netip.Addr{}, 6379)}
	cache.To = TranslateTo{Kind: TranslateHoma, Addrs: addrPorts("10.1.0.6:4000")}
	cache.Framing = framing.Config{Type: "resp", Head: 1024, Depth: 3, ConnectionState: "pass", Max: framing.DefaultMax}
	shell := DefaultTranslate(TranslateTCP, true)
	shell.Name, shell.From = "shell", TranslateFrom{TranslateHoma, netip.AddrPortFrom(netip.Addr{}, 4022)}
	shell.To = TranslateTo{Kind: TranslateTCP, Addrs: addrPorts("127.0.0.1:22")}
	shell.Framing = framing.Config{Type: "stream", Max: framing.DefaultMax}
	shell.Timeouts.Outage = 2 * time.Minute
	names := DefaultTranslate(TranslateTCP, false)
	names.Name, names.From = "names", TranslateFrom{TranslateHoma, netip.AddrPortFrom(netip.Addr{}, 4053)}
	names.To = TranslateTo{Kind: TranslateTCP, Addrs: addrPorts("127.0.0.1:53")}
	names.Framing, names.AnswerFailures = framing.Config{Type: "dns", Max: framing.DefaultMax}, true
	if want := []Translate{kv, lines, cache, shell, names}; !reflect.DeepEqual(cfg.Translate, want) {
		t.Errorf("got\n%+v\nwant\n%+v", cfg.Translate, want)
	}
	homa := Homa{
		Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("2001:db8::2")},
		Device:    "eth1", Version: "6.1", Peers: []HomaPeer{{netip.MustParseAddr("10.1.0.9"), "6.1", 10}},
		Unscheduled: 20, ClientPort: 40000, LinkRate: 25e9, DSCP: [8]uint8{1, 2, 3, 4, 5, 6, 7, 8},
		LinkPriority: []uint32{1, 1, 1, 1, 1, 1, 1, 0x10010}, Resend: 10 * time.Millisecond, Timeout: time.Second,
		Incoming: 96 << 10, Window: 64 << 10, ReceiveMemory: 128 << 20, SendMemory: 1 << 30,
	}
	if !reflect.DeepEqual(cfg.Homa, homa) {
		t.Errorf("got\n%+v\nwant\n%+v", cfg.Homa, homa)
	}
	if cfg.Accept[0].Action != ActionHoma || !cfg.UsesHoma() || len(cfg.Warnings) > 0 {
		t.Errorf("accept %+v, warnings\n%v", cfg.Accept, cfg.Warnings)
	}
}

func TestTranslateDelimiter(t *testing.T) {
	for _, c := range []struct{ key, want string }{
		{`delimiter: "\n"`, "\n"},
		{`delimiter: "\r\n\0"`, "\r\n\x00"},
		{`delimiter: END`, "END"},
		{`delimiter_hex: "0D0a"`, "\r\n"},
		{`delimiter_hex: 30`, "0"},
	} {
		content := strings.Replace(goodTranslator, "type: resp", "type: delimiter, "+c.key, 1)
		cfg, err := Parse("c.yaml", []byte(content))
		if err != nil {
			t.Errorf("%s: %v", c.key, err)
		} else if got := string(cfg.Translate[1].Framing.Delimiter); got != c.want {
			t.Errorf("%s: got %q, want %q", c.key, got, c.want)
		}
	}
}

func TestTranslateWarnings(t *testing.T) {
	for _, c := range []struct{ content, want string }{
		{goodTranslator, ""},
		{goodGateway + "homa: {device: eth1}\n", `c.yaml:5:7: homa: warning: has no effect: no translate rule sends or serves Homa here, and no accept rule opens it to peers`},
		{strings.Replace(goodGateway, "action: tcp", "action: homa", 1), ""},
		{strings.Replace(goodTranslator, "type: resp}", "type: resp}\n  failures: answer", 1), ""},
		{strings.Replace(goodTranslator, "type: resp}", "type: stream}\n  failures: answer", 1), `c.yaml:11:13: translate[1].failures: warning: answer has no effect: stream has no words for a failure, so that the RPC is aborted all the same`},
		{strings.Replace(goodTranslator, ":4100", ":32768", 1), `c.yaml:8:16: translate[1].from.homa: warning: 32768 is a port that Linux hosts cannot call: servers have 1 to 32767 there`},
	} {
		cfg, err := Parse("c.yaml", []byte(c.content))
		if err != nil {
			t.Errorf("%v in\n%s", err, c.content)
		} else if got := cfg.Warnings.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
