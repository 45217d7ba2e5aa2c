package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// goodClient and goodGateway are complete; each case of the battery changes one
// place in one of them.
const (
	goodClient = `name: laptop-7
identity: {psk: {identity: laptop-7, key_file: laptop-7.psk}}
tun: {addresses: ["10.77.0.7/24"]}
peers: [{name: edge, endpoints: ["203.0.113.7:443"]}]
rules: [{action: tunnel, peer: edge}]
`
	goodGateway = `name: edge
identity: {cert: edge.crt, key: edge.key, ca: ca.crt}
listen: ["0.0.0.0:443"]
accept: [{peer: "laptop-*", dst: ["10.0.0.0/8"], action: tcp}]
`
)

// defect is one change to a good file, and all that Parse says about it.
type defect struct {
	name     string
	old, new string // what is replaced; an empty old appends new
	want     string // without "c.yaml:"
}

// clientDefects and gatewayDefects are one defect each, of every kind that a
// value can have and for every key that has rules of its own.
var clientDefects = []defect{
	// Keys.
	{"unknown key at the top", "", "peerz: []\n", `6:1: peerz: unknown key; did you mean "peers"?`},
	{"unknown key, nothing like it", "", "speed: 1\n", `6:1: speed: unknown key`},
	{"unknown key deep", "name: edge", "nam: edge, name: edge", `4:10: peers[0].nam: unknown key; did you mean "name"?`},
	{"key of another part", "", "server_name: edge\n", `6:1: server_name: unknown key; it belongs to peers`},
	{"key of the top level", "tun: {", "tun: {accept: [], ", `3:7: tun.accept: unknown key; it belongs to the top level`},
	{"key that needs quotes", "", "\"a b\\n\": 1\n", `6:1: "a b\n": unknown key`},
	{"key twice", "", "name: other\n", `6:1: name: is there twice; the first is in line 1`},
	{"key without value", "", "log:\n", `6:5: log: has no value; give it one or remove the key`},
	{"key that is a list", "", "? [a, b]\n: c\n", `6:3: has a list as a key; keys are single words`},
	{"merge key", "tun: {", "tun: {<<: {mtu: 1500}, ", `3:7: tun."<<": merge keys are not supported; write the keys out`},

	// Types.
	{"number for a name", "name: laptop-7\n", "name: 7\n", `1:7: name: wants a name, not the number 7`},
	{"empty text", "name: laptop-7\n", "name: \"\"\n", `1:7: name: is empty; give it a name or remove the key`},
	{"list for a value", "name: laptop-7\n", "name: [a]\n", `1:7: name: wants a single value, not a list`},
	{"value for a list", `["10.77.0.7/24"]`, `10.77.0.7/24`, `3:18: tun.addresses: wants a list, not the text "10.77.0.7/24"; write it in brackets`},
	{"keys for a list", `[{action: tunnel, peer: edge}]`, `{action: tunnel, peer: edge}`, `5:8: rules: wants a list, not keys with values`},
	{"value for keys", "", "log: debug\n", `6:6: log: wants keys with values, not the text "debug"`},
	{"empty list", `["203.0.113.7:443"]`, `[]`, `4:33: peers[0].endpoints: is an empty list; fill it or remove the key`},
	{"list entry without value", `["203.0.113.7:443"]`, `["203.0.113.7:443", ~]`, `4:53: peers[0].endpoints[1]: has no value; give it one or remove the key`},
	{"foreign tag", "name: laptop-7\n", "name: !secret x\n", `1:7: name: wants a name, not "x" with the tag "!secret"`},
	{"truth value", "name: laptop-7\n", "name: true\n", `1:7: name: wants a name, not the truth value true`},
	{"date", "name: laptop-7\n", "name: 2026-01-01\n", `1:7: name: wants a name, not the date 2026-01-01`},
	{"text for a number", "", "flows: {max: many}\n", `6:14: flows.max: wants a whole number, not the text "many"`},
	{"fraction", "", "flows: {max: 1.5}\n", `6:14: flows.max: wants a whole number, not the number 1.5`},

	// Ranges.
	{"number too large", "", "flows: {max: 1048577}\n", `6:14: flows.max: 1048577 is not in 1 to 1048576`},
	{"number far too large", "", "flows: {max: 99999999999999999999}\n", `6:14: flows.max: 99999999999999999999 is not in 1 to 1048576`},
	{"number negative", "", "flows: {keepalive: {count: -1}}\n", `6:28: flows.keepalive.count: -1 is not in 1 to 127`},
	{"number octal or not", "", "flows: {max: 017}\n", `6:14: flows.max: 017 has a leading zero, which means octal to some; write it without`},
	{"more per source than in all", "", "flows: {opening_max: 10, opening_per_source: 11}\n", `6:46: flows.opening_per_source: 11 is more than flows.opening_max, which is 10`},
	{"more opening than flows", "", "flows: {max: 10, opening_max: 11}\n", `6:31: flows.opening_max: 11 is more than flows.max, which is 10`},
	{"half open per source", "", "associations: {half_open_per_source: 2000}\n", `6:38: associations.half_open_per_source: 2000 is more than associations.half_open_max, which is 1024`},
	{"size too small", "", "flows: {buffer_max: 1KiB}\n", `6:21: flows.buffer_max: 1KiB is not in 64KiB to 256MiB`},
	{"size too large for a number", "", "flows: {buffer_max: 9223372036854775807GiB}\n", `6:21: flows.buffer_max: 9223372036854775807GiB is not in 64KiB to 256MiB`},
	{"size with a strange unit", "", "flows: {buffer_max: 8MB}\n", `6:21: flows.buffer_max: "8MB" is not a size such as 65536, 512KiB or 8MiB`},

	// Durations.
	{"duration without unit", "", "flows: {connect_timeout: 15}\n", `6:26: flows.connect_timeout: wants a duration with its unit, such as 15s, not the number 15`},
	{"duration with a strange unit", "", "flows: {connect_timeout: 2 min}\n", `6:26: flows.connect_timeout: "2 min" is not a duration such as 500ms, 15s or 1h30m`},
	{"duration out of range", "", "flows: {connect_timeout: 1h}\n", `6:26: flows.connect_timeout: 1h is not in 1s to 10m`},
	{"duration negative", "", "associations: {session_grace: -1s}\n", `6:31: associations.session_grace: -1s is not in 0s to 24h`},
	{"duration below its range, which may be off", "", "flows: {idle_timeout: 1s}\n", `6:23: flows.idle_timeout: 1s is not in 10s to 720h, nor 0s for off`},
	{"duration not in seconds", "", "flows: {keepalive: {interval: 1500ms}}\n", `6:31: flows.keepalive.interval: 1500ms is not in whole seconds`},

	// Words.
	{"bad word", "", "log: {level: inof}\n", `6:14: log.level: "inof" is not one of debug, info, warn, error; did you mean "info"?`},
	{"bad word in capitals", "", "log: {format: JSON}\n", `6:15: log.format: "JSON" is not one of text, json; did you mean "json"?`},
	{"bad word, nothing like it", "", "log: {level: loud}\n", `6:14: log.level: "loud" is not one of debug, info, warn, error`},
	{"bad action", "action: tunnel", "action: tunel", `5:18: rules[0].action: "tunel" is not one of tunnel, direct, reject; did you mean "tunnel"?`},
	{"bad backend", "tun: {", "tun: {backend: netlnk, ", `3:16: tun.backend: "netlnk" is not one of auto, netlink, water; did you mean "netlink"?`},

	// Prefixes.
	{"prefix without length", `"10.77.0.7/24"`, `"10.77.0.7"`, `3:19: tun.addresses[0]: "10.77.0.7" has no prefix length; for this one address write "10.77.0.7/32"`},
	{"prefix with a bad address", `"10.77.0.7/24"`, `"10.77.0.777/24"`, `3:19: tun.addresses[0]: "10.77.0.777/24" is not a prefix such as "192.0.2.0/24": "10.77.0.777" is not an IP address`},
	{"prefix with a bad length", `"10.77.0.7/24"`, `"10.77.0.7/33"`, `3:19: tun.addresses[0]: "10.77.0.7/33" is not a prefix such as "192.0.2.0/24": the length "33" is not in 0 to 32`},
	{"prefix that is a word", "tun: {", "tun: {routes: [all], ", `3:16: tun.routes[0]: "all" is not a prefix such as "192.0.2.0/24": "all" is not an IP address`},
	{"host bits", "tun: {", `tun: {routes: ["198.51.100.1/24"], `, `3:16: tun.routes[0]: "198.51.100.1/24" has bits set after the first 24; did you mean "198.51.100.0/24"?`},
	{"host bits in a rule", "{action: tunnel", `{dst: ["2001:db8::1/32"], action: tunnel`, `5:16: rules[0].dst[0]: "2001:db8::1/32" has bits set after the first 32; did you mean "2001:db8::/32"?`},
	{"IPv4 in IPv6 form", "{action: tunnel", `{dst: ["::ffff:10.0.0.0/104"], action: tunnel`, `5:16: rules[0].dst[0]: "::ffff:10.0.0.0/104" is an IPv4 prefix in IPv6 form; write it as IPv4`},
	{"route twice", "tun: {", `tun: {routes: [default, "::/0"], `, `3:25: tun.routes[1]: "::/0" is there twice; it is tun.routes[0] already`},
	{"default misspelt", "tun: {", `tun: {routes: [defalt], `, `3:16: tun.routes[0]: "defalt" is not a prefix such as "192.0.2.0/24", nor the word default; did you mean "default"?`},
	{"multicast route", "tun: {", `tun: {routes: ["224.0.0.0/4"], `, `3:16: tun.routes[0]: "224.0.0.0/4" cannot be captured: it is no unicast traffic to other hosts`},
	{"address twice", `"10.77.0.7/24"`, `"10.77.0.7/24", "10.77.0.7/32"`, `3:35: tun.addresses[1]: "10.77.0.7" is there twice; it is in tun.addresses[0] already`},
	{"address of no interface", `"10.77.0.7/24"`, `"127.0.0.1/8"`, `3:19: tun.addresses[0]: "127.0.0.1" cannot be the address of an interface`},

	// Addresses and ports.
	{"bad address", "203.0.113.7:443", "203.0.113.300:443", `4:34: peers[0].endpoints[0]: "203.0.113.300:443" is not at an IP address (names are not resolved): "203.0.113.300" is not one`},
	{"name for an address", "203.0.113.7:443", "gw.example.com:443", `4:34: peers[0].endpoints[0]: "gw.example.com:443" is not at an IP address (names are not resolved): "gw.example.com" is not one`},
	{"address without port", "203.0.113.7:443", "203.0.113.7", `4:34: peers[0].endpoints[0]: "203.0.113.7" has no port; write "203.0.113.7:PORT"`},
	{"IPv6 without port", "203.0.113.7:443", "2001:db8::7", `4:34: peers[0].endpoints[0]: "2001:db8::7" has no port; write "[2001:db8::7]:PORT"`},
	{"IPv6 without brackets", "203.0.113.7:443", "1:2:3:4:5:6:7:8:443", `4:34: peers[0].endpoints[0]: "1:2:3:4:5:6:7:8:443" needs brackets; write "[1:2:3:4:5:6:7:8]:443"`},
	{"IPv4 in brackets", "203.0.113.7:443", "[203.0.113.7]:443", `4:34: peers[0].endpoints[0]: "[203.0.113.7]:443" has brackets around an IPv4 address; write "203.0.113.7:443"`},
	{"IPv4 endpoint in IPv6 form", "203.0.113.7:443", "[::ffff:203.0.113.7]:443", `4:34: peers[0].endpoints[0]: "[::ffff:203.0.113.7]:443" is an IPv4 address in IPv6 form; write "203.0.113.7:443"`},
	{"endpoint without address", "203.0.113.7:443", ":443", `4:34: peers[0].endpoints[0]: ":443" has no address; write "0.0.0.0:443" or "[::]:443"`},
	{"endpoint of no host", "203.0.113.7:443", "0.0.0.0:443", `4:34: peers[0].endpoints[0]: "0.0.0.0" cannot be dialled: it is not the address of one host`},
	{"endpoint twice", `"203.0.113.7:443"`, `"203.0.113.7:443", "203.0.113.7:443"`, `4:53: peers[0].endpoints[1]: "203.0.113.7:443" is there twice; it is peers[0].endpoints[0] already`},
	{"bad port", "203.0.113.7:443", "203.0.113.7:https", `4:34: peers[0].endpoints[0]: "203.0.113.7:https" has the port "https", which is not a number`},
	{"port zero", "203.0.113.7:443", "203.0.113.7:0", `4:34: peers[0].endpoints[0]: "203.0.113.7:0" has the port 0, which is not in 1 to 65535`},
	{"port too large", "203.0.113.7:443", "203.0.113.7:65536", `4:34: peers[0].endpoints[0]: "203.0.113.7:65536" has the port 65536, which is not in 1 to 65535`},
	{"no port after the colon", "203.0.113.7:443", "203.0.113.7:", `4:34: peers[0].endpoints[0]: "203.0.113.7:" has no port`},
	{"bad port in a rule", "{action: tunnel", `{ports: [70000], action: tunnel`, `5:18: rules[0].ports[0]: "70000" has the port 70000, which is not in 1 to 65535`},
	{"empty port range", "{action: tunnel", `{ports: ["90-80"], action: tunnel`, `5:18: rules[0].ports[0]: "90-80" is empty: 90 is more than 80`},
	{"open port range", "{action: tunnel", `{ports: ["80-"], action: tunnel`, `5:18: rules[0].ports[0]: "80-" has no port`},

	// Names.
	{"name of the instance", "name: laptop-7\n", "name: my laptop\n", `1:7: name: "my laptop" has " ": only letters, digits, '-', '_' and '.' can be in it`},
	{"name of the instance hides", "name: laptop-7\n", "name: ..\n", `1:7: name: ".." does not start with a letter or digit`},
	{"name in capitals", "name: edge,", "name: Edge,", "4:16: peers[0].name: \"Edge\" has upper-case letters: names are in lower case\n5:32: rules[0].peer: no peer is called \"edge\"; did you mean \"Edge\"?"},
	{"name that is an address", "identity: laptop-7,", "identity: 10.0.0.1,", `2:28: identity.psk.identity: "10.0.0.1" ends in a number, like an IP address: names are DNS names`},
	{"interface name too long", "tun: {", "tun: {name: abcdefghijklmnop, ", `3:13: tun.name: "abcdefghijklmnop" has 16 characters, more than 15`},
	{"interface name with a slash", "tun: {", "tun: {name: a/b, ", `3:13: tun.name: "a/b" has "/": only letters, digits, '-', '_' and '.' can be in it`},
	{"interface that exists", "tun: {", "tun: {name: lo, ", `3:13: tun.name: "lo" means something else to the kernel`},
	{"dangling peer", "peer: edge", "peer: egde", `5:32: rules[0].peer: no peer is called "egde"; did you mean "edge"?`},
	{"dangling peer, nothing like it", "peer: edge", "peer: backup", `5:32: rules[0].peer: no peer is called "backup"`},
	{"peer twice", `"203.0.113.7:443"]}`, `"203.0.113.7:443"]}, {name: edge, endpoints: ["203.0.113.8:443"]}`, `4:62: peers[1].name: "edge" is there twice; it is peers[0].name already`},
	{"socket too long", "", "admin: {socket: /run/" + strings.Repeat("x", 108) + "}\n", `6:17: admin.socket: the path has 113 bytes; a socket can have 107`},

	// MTU.
	{"MTU too small", "tun: {", "tun: {mtu: 500, ", `3:12: tun.mtu: 500 is not in 576 to 65535`},
	{"MTU too large", "tun: {", "tun: {mtu: 65536, ", `3:12: tun.mtu: 65536 is not in 576 to 65535`},
	{"MTU too small for IPv6", "tun: {", `tun: {mtu: 1279, routes: ["2001:db8::/32"], `, `3:12: tun.mtu: 1279 is less than 1280, which the IPv6 addresses and routes of the device need`},
	{"MTU that is a word", "tun: {", "tun: {mtu: atuo, ", `3:12: tun.mtu: wants auto or a whole number, not the text "atuo"; did you mean "auto"?`},
	{"path MTU too small", "{name: edge", "{path_mtu: 575, name: edge", `4:20: peers[0].path_mtu: 575 is not in 576 to 65535`},
	{"path MTU too small for IPv6", `{name: edge, endpoints: ["203.0.113.7:443"`, `{path_mtu: 1279, name: edge, endpoints: ["[2001:db8::7]:443"`, `4:20: peers[0].path_mtu: 1279 is less than 1280, which every IPv6 path carries`},
	{"too many queues", "tun: {", "tun: {queues: 17, ", `3:15: tun.queues: 17 is not in 1 to 16`},
	{"no mark", "tun: {", "tun: {mark: 0, ", `3:13: tun.mark: 0 is not in 1 to 4294967295`},

	// Missing keys.
	{"no identity", "identity: {psk: {identity: laptop-7, key_file: laptop-7.psk}}\n", "", "1:1: identity: is missing: who we are: cert, key and ca, or psk, or psk_dir\n3:9: peers[0].server_name: is missing: the DNS name that its certificate must have"},
	{"empty identity", "{psk: {identity: laptop-7, key_file: laptop-7.psk}}", "{}", "2:11: identity: has none of cert with key and ca, psk, or psk_dir\n4:9: peers[0].server_name: is missing: the DNS name that its certificate must have"},
	{"no psk identity", "identity: laptop-7, ", "", `2:17: identity.psk.identity: is missing: the name that the key proves`},
	{"no psk file", ", key_file: laptop-7.psk", "", "2:17: identity.psk.key_file: is missing: the file that `tougw keygen psk` wrote"},
	{"no addresses", `addresses: ["10.77.0.7/24"]`, "", `3:6: tun.addresses: is missing: the addresses of the device, such as ["10.77.0.7/32"]`},
	{"no peer name", "name: edge, ", "", "4:9: peers[0].name: is missing: what rules call it\n5:32: rules[0].peer: no peer is called \"edge\""},
	{"no endpoints", `, endpoints: ["203.0.113.7:443"]`, "", `4:9: peers[0].endpoints: is missing: where it listens, such as ["203.0.113.7:443"]`},
	{"no action", "action: tunnel, ", "", `5:9: rules[0].action: is missing: one of tunnel, direct, reject`},
	{"tunnel to nobody", ", peer: edge", "", `5:9: rules[0].peer: is missing: the action tunnel needs a peer to send to`},
	{"no rules", "rules: [{action: tunnel, peer: edge}]\n", "", `1:1: rules: is missing: with tun, rules say what happens to captured flows, such as {action: tunnel, peer: NAME}`},

	// Combinations.
	{"cert and psk", "identity: {psk", "identity: {cert: a.crt, key: a.key, ca: ca.crt, psk", `2:54: identity.psk: cannot be there beside cert: a peer that we dial gets one proof`},
	{"psk_dir without listen", "identity: {psk", "identity: {psk_dir: psk, psk", `2:21: identity.psk_dir: has the keys of those who dial us, but there is no listen`},
	{"direct with a peer", "action: tunnel", "action: direct", `5:32: rules[0].peer: only the action tunnel sends to a peer, not direct`},
	{"rules without tun", "tun: {addresses: [\"10.77.0.7/24\"]}\n", "", `4:8: rules: are for captured flows, but there is no tun`},
	{"tun without anybody", "peers: [{name: edge, endpoints: [\"203.0.113.7:443\"]}]\nrules: [{action: tunnel, peer: edge}]", "rules: [{action: reject}]", "2:17: identity.psk: is for dialling, but there are no peers; a gateway has psk_dir\n3:6: tun: captures traffic, but there are neither peers nor listen to tunnel it to"},
	{"nothing to do", "tun: {addresses: [\"10.77.0.7/24\"]}\npeers: [{name: edge, endpoints: [\"203.0.113.7:443\"]}]\nrules: [{action: tunnel, peer: edge}]\n", "accept: [{peer: x, dst: [\"0.0.0.0/0\"], action: tcp}]\n", "1:1: listen: is missing: a gateway needs listen; a client needs tun and peers; a translator needs translate\n2:17: identity.psk: is for dialling, but there are no peers; a gateway has psk_dir\n3:9: accept: is for the flows of peers, but there are neither listen nor peers"},

	// YAML.
	{"syntax: bracket", `["10.77.0.7/24"]`, `["10.77.0.7/24"`, `3:33: yaml: did not find expected ',' or ']' while parsing a flow sequence that starts in line 3`},
	{"syntax: indentation", "", "log:\n  level: info\n format: text\n", `8:2: yaml: did not find expected key while parsing a block mapping that starts in line 1`},
	{"syntax: tab", "", "log:\n\tlevel: info\n", `7:1: yaml: a tab cannot indent YAML; use spaces`},
	{"syntax: quote", "", "log: {level: \"info}\n", `6:14: yaml: found unexpected end of stream while scanning a quoted scalar`},
	{"syntax: colon", "", "log: level: info\n", `6:11: yaml: mapping values are not allowed in this context`},
	{"syntax: no colon", "", "log\n", `6:1: yaml: could not find expected ':' while scanning a simple key`},
	{"syntax: anchor", "", "log: *nowhere\n", `6:6: yaml: unknown anchor 'nowhere' referenced`},
	{"control character", "", "log: {level: \"\x1b[31m\"}\n", `6:15: yaml: the control character U+001B cannot be in a file`},
	{"not text", "", "\xff\xfe", `6:1: yaml: this is not UTF-8 text`},
	{"two documents", "", "---\nname: other\n", `6:1: yaml: a second document starts here; a configuration has one`},
}

var gatewayDefects = []defect{
	{"listen without address", "0.0.0.0:443", ":443", `3:10: listen[0]: ":443" has no address; write "0.0.0.0:443" or "[::]:443"`},
	{"listen on multicast", "0.0.0.0:443", "224.0.0.1:443", `3:10: listen[0]: "224.0.0.1" is a multicast address`},
	{"listen twice", `"0.0.0.0:443"`, `"0.0.0.0:443", "0.0.0.0:443"`, `3:25: listen[1]: "0.0.0.0:443" is there twice; "0.0.0.0:443" covers it`},
	{"listen covered", `"0.0.0.0:443"`, `"0.0.0.0:443", "192.0.2.1:443"`, `3:25: listen[1]: "192.0.2.1:443" is there twice; "0.0.0.0:443" covers it`},
	{"listen covers", `"0.0.0.0:443"`, `"0.0.0.0:443", "[::]:443"`, `3:25: listen[1]: "[::]:443" is there twice; "0.0.0.0:443" covers it`},
	{"bad pattern", `"laptop-*"`, `"laptop/*"`, `4:17: accept[0].peer: "laptop/*" has "/": only letters, digits, '-', '_', '.', '*' and '?' can be in it`},
	{"accept of nobody", `peer: "laptop-*", `, "", `4:10: accept[0].peer: is missing: the identities that it is for; "*" is all`},
	{"accept to nowhere", `dst: ["10.0.0.0/8"], `, "", `4:10: accept[0].dst: is missing: what they may reach, such as ["10.0.0.0/8"]`},
	{"accept without action", `, action: tcp`, "", `4:10: accept[0].action: is missing: one of tcp, reject, homa`},
	{"bad accept action", `action: tcp`, "action: tpc", `4:58: accept[0].action: "tpc" is not one of tcp, reject, homa; did you mean "tcp"?`},
	{"dst twice", `"10.0.0.0/8"`, `"10.0.0.0/8", "10.0.0.0/8"`, `4:49: accept[0].dst[1]: "10.0.0.0/8" is there twice; it is accept[0].dst[0] already`},
	{"no cert", "cert: edge.crt, ", "", `2:11: identity.cert: is missing: it is one of three that go together: cert, key and ca`},
	{"no ca", ", ca: ca.crt", "", `2:11: identity.ca: is missing: it is one of three that go together: cert, key and ca`},
	{"psk on a gateway", "{cert: edge.crt, key: edge.key, ca: ca.crt}", "{psk: {identity: edge, key_file: edge.psk}}", "2:11: identity.cert: is missing: those who dial us are proven by cert with key and ca, or by psk_dir\n2:17: identity.psk: is for dialling, but there are no peers; a gateway has psk_dir"},
	{"peers with psk_dir alone", "{cert: edge.crt, key: edge.key, ca: ca.crt}", "{psk_dir: psk}\npeers: [{name: a, endpoints: [\"192.0.2.1:443\"], server_name: a}]", "2:11: identity.cert: is missing: to dial peers we need cert with key and ca, or psk"},
	{"metrics at a name", "", "admin: {http: \"localhost:9180\"}\n", `5:15: admin.http: "localhost:9180" is not at an IP address (names are not resolved): "localhost" is not one`},
}

// apply returns base with the defect in it.
func (d *defect) apply(t testing.TB, base string) string {
	t.Helper()
	if d.old == "" {
		return base + d.new
	}
	if n := strings.Count(base, d.old); n != 1 {
		t.Fatalf("%q is in the base %d times", d.old, n)
	}
	return strings.Replace(base, d.old, d.new, 1)
}

func TestDefects(t *testing.T) {
	for _, set := range []struct {
		name, base string
		defects    []defect
	}{
		{"client", goodClient, clientDefects},
		{"gateway", goodGateway, gatewayDefects},
		{"translator", goodTranslator, translatorDefects},
		{"homa", goodTranslator, homaDefects},
	} {
		if _, err := Parse("c.yaml", []byte(set.base)); err != nil {
			t.Fatalf("good %s: %v", set.name, err)
		}
		for _, d := range set.defects {
			t.Run(set.name+"/"+d.name, func(t *testing.T) {
				content := d.apply(t, set.base)
				cfg, err := Parse("c.yaml", []byte(content))
				if cfg != nil || err == nil {
					t.Fatalf("no error, want\n%s", d.want)
				}
				var want []string
				for line := range strings.Lines(d.want) {
					want = append(want, "c.yaml:"+strings.TrimSuffix(line, "\n"))
				}
				if got := err.Error(); got != strings.Join(want, "\n") {
					t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
				}
			})
		}
	}
}

// TestAllErrorsOfAFile puts many defects into one file: all are found in one
// run, in the order of their places.
func TestAllErrorsOfAFile(t *testing.T) {
	const content = `nmae: x
log: {level: inof, format: 3}
identity: {cert: a.crt, key: b.key}
listen: [":443", "1.2.3.4", "[::]:443"]
tun:
  addresses: ["10.0.0.1"]
  routes: [defalt, "10.0.0.1/8"]
  mtu: 100
  server_name: foo
peers:
- name: edge
  endpoints: ["203.0.113.300:443"]
rules:
- {action: tunel, peer: edge}
- {action: tunnel, ports: [70000, "9-1"]}
flows: {connect_timeout: 15, keepalive: {idle: 1500ms}}
associations:
`
	const want = `c.yaml:1:1: nmae: unknown key; did you mean "name"?
c.yaml:2:14: log.level: "inof" is not one of debug, info, warn, error; did you mean "info"?
c.yaml:2:28: log.format: wants one of text, json, not the number 3
c.yaml:3:11: identity.ca: is missing: it is one of three that go together: cert, key and ca
c.yaml:4:10: listen[0]: ":443" has no address; write "0.0.0.0:443" or "[::]:443"
c.yaml:4:18: listen[1]: "1.2.3.4" has no port; write "1.2.3.4:PORT"
c.yaml:6:15: tun.addresses[0]: "10.0.0.1" has no prefix length; for this one address write "10.0.0.1/32"
c.yaml:7:12: tun.routes[0]: "defalt" is not a prefix such as "192.0.2.0/24", nor the word default; did you mean "default"?
c.yaml:7:20: tun.routes[1]: "10.0.0.1/8" has bits set after the first 8; did you mean "10.0.0.0/8"?
c.yaml:8:8: tun.mtu: 100 is not in 576 to 65535
c.yaml:9:3: tun.server_name: unknown key; it belongs to peers
c.yaml:11:3: peers[0].server_name: is missing: the DNS name that its certificate must have
c.yaml:12:15: peers[0].endpoints[0]: "203.0.113.300:443" is not at an IP address (names are not resolved): "203.0.113.300" is not one
c.yaml:14:12: rules[0].action: "tunel" is not one of tunnel, direct, reject; did you mean "tunnel"?
c.yaml:15:3: rules[1].peer: is missing: the action tunnel needs a peer to send to
c.yaml:15:28: rules[1].ports[0]: "70000" has the port 70000, which is not in 1 to 65535
c.yaml:15:35: rules[1].ports[1]: "9-1" is empty: 9 is more than 1
c.yaml:16:26: flows.connect_timeout: wants a duration with its unit, such as 15s, not the number 15
c.yaml:16:48: flows.keepalive.idle: 1500ms is not in whole seconds
c.yaml:17:14: associations: has no value; give it one or remove the key`
	_, err := Parse("c.yaml", []byte(content))
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	var one *Error
	if !errors.As(err, &one) || one.Line != 1 || one.Key != "nmae" {
		t.Errorf("errors.As gives %v", one)
	}
}

func TestFilesOfOneLine(t *testing.T) {
	for _, c := range []struct{ content, want string }{
		{"", "c.yaml:1:1: yaml: the file is empty"},
		{"# nothing\n", "c.yaml:1:1: yaml: the file is empty"},
		{"--- # nothing\n", "c.yaml:1:1: yaml: the file is empty"},
		{"hello\n", `c.yaml:1:1: wants keys with values, not the text "hello"`},
		{"[a]\n", "c.yaml:1:1: wants keys with values, not a list"},
		{strings.Repeat("#\n", maxFile/2) + "#", "c.yaml: is larger than 1048576 bytes"},
	} {
		_, err := Parse("c.yaml", []byte(c.content))
		if err == nil || err.Error() != c.want {
			t.Errorf("%.20q: got %v, want %s", c.content, err, c.want)
		}
	}
}

func TestAliases(t *testing.T) {
	content := strings.Replace(goodClient, "rules: [", `rules: [{dst: &a ["192.0.2.0/24"], action: reject}, {dst: *a, ports: [25], action: direct}, `, 1)
	cfg, err := Parse("c.yaml", []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(cfg.Rules[0].Dst, cfg.Rules[1].Dst) || len(cfg.Rules[1].Dst) != 1 {
		t.Errorf("alias is %v, anchor %v", cfg.Rules[1].Dst, cfg.Rules[0].Dst)
	}
	// A value that is in itself is as deep as the keys are.
	if _, err := Parse("c.yaml", []byte("rules: &a [*a, *a]\npeers: *a\n")); err == nil {
		t.Error("a value in itself is accepted")
	}
}

// TestAliasBomb has a list of lists that stands for more values than a file can have.
func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("rules:\n- {action: reject, dst: &a [")
	for i := range 2000 {
		fmt.Fprintf(&b, "10.%d.%d.0/24,", i/256, i%256)
	}
	b.WriteString("]}\n")
	for range 2000 {
		b.WriteString("- {action: reject, dst: *a}\n")
	}
	_, err := Parse("c.yaml", []byte(b.String()))
	want := fmt.Sprintf("c.yaml: has more than %d values: its aliases repeat too much", maxNodes)
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 60000 {
		fmt.Fprintf(&b, "x%d: 1\n", i)
	}
	_, err := Parse("c.yaml", []byte(b.String()))
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != maxCollected {
		t.Fatalf("%d errors are kept, want %d", len(errs), maxCollected)
	}
	lines := strings.Split(errs.Error(), "\n")
	if len(lines) != maxShown+1 || lines[maxShown] != "c.yaml: 950 more errors are not shown" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}
