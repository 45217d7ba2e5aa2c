package config

// goodTranslator stands between a fabric and everything else.
const goodTranslator = `name: door
translate:
- name: kv
  from: {tcp: "0.0.0.0:7000"}
  to: {homa: "10.1.0.5:4000"}
  framing: {type: length-prefixed, bytes: 4}
- name: legacy
  from: {homa: ":4100"}
  to: {tcp: ["127.0.0.1:6379", "127.0.0.1:6380"]}
  framing: {type: resp}
homa: {addresses: ["10.1.0.1"]}
`

const lp = `framing: {type: length-prefixed, bytes: 4}`

var translatorDefects = []defect{
	// Shape.
	{"nothing at all", "- name: kv\n  from: {tcp: \"0.0.0.0:7000\"}\n  to: {homa: \"10.1.0.5:4000\"}\n  " + lp, "- {}", "3:3: translate[0].framing: is missing: where a message of the TCP side ends\n3:3: translate[0].from: is missing: where clients arrive\n3:3: translate[0].name: is missing: what status and logs call it\n3:3: translate[0].to: is missing: the service that they reach"},
	{"name twice", "name: legacy", "name: kv", `7:9: translate[1].name: "kv" is there twice; it is translate[0].name already`},
	{"name in capitals", "name: legacy", "name: Legacy", `7:9: translate[1].name: "Legacy" has upper-case letters: names are in lower case`},
	{"empty from", `{tcp: "0.0.0.0:7000"}`, "{}", `4:9: translate[0].from: wants exactly one of tcp, tunnel and homa`},
	{"two from", `{tcp: "0.0.0.0:7000"}`, `{tcp: "0.0.0.0:7000", homa: ":1"}`, `4:9: translate[0].from: wants exactly one of tcp, tunnel and homa`},
	{"empty to", `{homa: "10.1.0.5:4000"}`, "{}", `5:7: translate[0].to: wants exactly one of tcp and homa`},
	{"two to", `{homa: "10.1.0.5:4000"}`, `{homa: "10.1.0.5:4000", tcp: "10.1.0.5:1"}`, `5:7: translate[0].to: wants exactly one of tcp and homa`},
	{"Homa to Homa", `{tcp: "0.0.0.0:7000"}`, `{homa: ":4000"}`, `3:3: translate[0]: one side is TCP and the other Homa, but both are Homa`},
	{"TCP to TCP", `{homa: "10.1.0.5:4000"}`, `{tcp: "10.1.0.5:4000"}`, `3:3: translate[0]: one side is TCP and the other Homa, but both are TCP`},
	{"unknown key", "name: legacy", "name: legacy\n  form: 1", `8:3: translate[1].form: unknown key; did you mean "from"?`},

	// Addresses.
	{"from without port", "0.0.0.0:7000", "0.0.0.0", `4:15: translate[0].from.tcp: "0.0.0.0" has no port; write "0.0.0.0:PORT"`},
	{"from a multicast address", "0.0.0.0:7000", "224.0.0.1:7000", `4:15: translate[0].from.tcp: "224.0.0.1" is a multicast address`},
	{"from a Homa address", `":4100"`, `"10.1.0.1:4100"`, `8:16: translate[1].from.homa: "10.1.0.1:4100" has an address; ports of Homa are served at all of homa.addresses: write ":4100"`},
	{"from a bad Homa port", `":4100"`, `":65536"`, `8:16: translate[1].from.homa: ":65536" has the port 65536, which is not in 1 to 65535`},
	{"to nowhere", "10.1.0.5:4000", "0.0.0.0:4000", `5:14: translate[0].to.homa: "0.0.0.0" cannot be connected to: it is not the address of one host`},
	{"to a name", "10.1.0.5:4000", "kv.example:4000", `5:14: translate[0].to.homa: "kv.example:4000" is not at an IP address (names are not resolved): "kv.example" is not one`},
	{"server twice", "127.0.0.1:6380", "127.0.0.1:6379", `9:32: translate[1].to.tcp[1]: "127.0.0.1:6379" is there twice; it is translate[1].to.tcp[0] already`},
	{"one bad server", `["127.0.0.1:6379", "127.0.0.1:6380"]`, `":6379"`, `9:13: translate[1].to.tcp: ":6379" has no address; write "0.0.0.0:6379" or "[::]:6379"`},
	{"no servers", `["127.0.0.1:6379", "127.0.0.1:6380"]`, `[]`, `9:13: translate[1].to.tcp: is an empty list; fill it or remove the key`},
	{"servers as keys", `["127.0.0.1:6379", "127.0.0.1:6380"]`, `{a: b}`, `9:13: translate[1].to.tcp: wants a list, not keys with values`},
	{"several Homa servers", `"10.1.0.5:4000"`, `["10.1.0.5:4000"]`, `5:14: translate[0].to.homa: wants a single value, not a list`},
	{"from a flow to a name", `{tcp: "0.0.0.0:7000"}`, `{tunnel: {dst: kv.example, port: 7000}}`, `4:24: translate[0].from.tunnel.dst: "kv.example" is not an IP address`},
	{"from a flow without port", `{tcp: "0.0.0.0:7000"}`, `{tunnel: {dst: 10.1.0.5}}`, `4:18: translate[0].from.tunnel.port: is missing: the port that the flows are for`},
	{"from a flow without address", `{tcp: "0.0.0.0:7000"}`, `{tunnel: {port: 0}}`, "4:18: translate[0].from.tunnel.dst: is missing: the address that the flows are for\n4:25: translate[0].from.tunnel.port: 0 is not in 1 to 65535"},
	{"from flows that nobody opens", `{tcp: "0.0.0.0:7000"}`, `{tunnel: {dst: 10.1.0.5, port: 7000}}`, `4:18: translate[0].from.tunnel: is for flows, but none come: there is neither accept, for those of peers, nor tun, for captured ones`},
	{"via a peer", `"10.1.0.5:4000"}`, `"10.1.0.5:4000", via: edge}`, `5:36: translate[0].to.via: no peer is called "edge"`},
	{"via with TCP", `"127.0.0.1:6380"]}`, `"127.0.0.1:6380"], via: edge}`, `9:56: translate[1].to.via: only a Homa server is behind a peer; TCP servers are reached by rules and accept`},

	// Clashes.
	{"port twice", `{homa: ":4100"}
  to: {tcp: ["127.0.0.1:6379", "127.0.0.1:6380"]}`, `{tcp: "127.0.0.1:7000"}
  to: {homa: "10.1.0.5:4001"}`, `8:15: translate[1].from.tcp: is taken: translate[0].from.tcp has it already`},
	{"port twice, both families", `{homa: ":4100"}
  to: {tcp: ["127.0.0.1:6379", "127.0.0.1:6380"]}`, `{tcp: ":7000"}
  to: {homa: "10.1.0.5:4001"}`, `8:15: translate[1].from.tcp: is taken: translate[0].from.tcp has it already`},
	{"Homa port twice", "- name: legacy", `- {name: a, from: {homa: ":4100"}, to: {tcp: "127.0.0.1:1"}, framing: {type: dns}}
- name: legacy`, `9:16: translate[2].from.homa: is taken: translate[1].from.homa has it already`},
	{"port of the admin server", "", "admin: {http: \"127.0.0.1:7000\"}\n", `4:15: translate[0].from.tcp: is taken: admin.http has it already`},
	{"stream at one end alone", `{homa: "10.1.0.5:4000"}
  framing: {type: length-prefixed, bytes: 4}`, `{homa: "10.1.0.1:4100"}
  framing: {type: stream}`, `6:19: translate[0].framing.type: is stream at this end and resp at the other, translate[1]: stream is for both ends or for none`},

	// Framing.
	{"framing without type", "{type: resp}", "{max: 1000}", `10:12: translate[1].framing.type: is missing: one of length-prefixed, delimiter, http1, resp, memcached, dns, stream`},
	{"framing of another type", "type: resp", "type: http", `10:19: translate[1].framing.type: "http" is not one of length-prefixed, delimiter, http1, resp, memcached, dns, stream; did you mean "http1"?`},
	{"framing with an unknown key", "type: resp", "type: resp, size: 3", `10:25: translate[1].framing.size: unknown key`},
	{"framing with the key of another type", "type: resp", "type: resp, bytes: 4", `10:32: translate[1].framing.bytes: messages of type resp do not have it; they have max, head, depth, connection_state`},
	{"framing with the default of another type", "type: resp", "type: resp, keep: true, offset: 0", "10:31: translate[1].framing.keep: messages of type resp do not have it; they have max, head, depth, connection_state\n10:45: translate[1].framing.offset: messages of type resp do not have it; they have max, head, depth, connection_state"},
	{"no bytes", ", bytes: 4", "", `6:12: translate[0].framing.bytes: is missing: the size of the length: 1, 2, 4, 8 or varint`},
	{"bad bytes", "bytes: 4", "bytes: 3", `6:43: translate[0].framing.bytes: 3 is not one of 1, 2, 4, 8, varint`},
	{"bytes out of range", "bytes: 4", "bytes: 0", `6:43: translate[0].framing.bytes: 0 is not in 1 to 8`},
	{"bytes that are a word", "bytes: 4", "bytes: variant", `6:43: translate[0].framing.bytes: wants 1, 2, 4, 8 or varint, not the text "variant"`},
	{"bad order", "bytes: 4", "bytes: 4, order: middle", `6:53: translate[0].framing.order: "middle" is not one of big, little`},
	{"bad counts", "bytes: 4", "bytes: 4, counts: all", `6:54: translate[0].framing.counts: "all" is not one of after, length, message`},
	{"offset out of range", "bytes: 4", "bytes: 4, offset: 1025", `6:54: translate[0].framing.offset: 1025 is not in 0 to 1024`},
	{"stripped with an offset", "bytes: 4", "bytes: 4, offset: 2, keep: false", `6:63: translate[0].framing.keep: false would lose the 2 bytes before the length`},
	{"keep that is a number", "bytes: 4", "bytes: 4, keep: 0", `6:52: translate[0].framing.keep: wants true or false, not the number 0`},
	{"message over Homa's", "bytes: 4", "bytes: 4, max: 1000001", `6:51: translate[0].framing.max: 1000001 is not in 1B to 1000000B`},
	{"message under its header", "bytes: 4", "bytes: 4, max: 3", `6:51: translate[0].framing.max: 3 is less than the header of a message`},
	{"no delimiter", "type: resp", "type: delimiter", `10:12: translate[1].framing.delimiter: is missing: what ends a message, such as "\n"; delimiter_hex has it in hexadecimal`},
	{"empty delimiter", "type: resp", `type: delimiter, delimiter: ""`, `10:41: translate[1].framing.delimiter: is empty; give it a text such as "\r\n" or remove the key`},
	{"two delimiters", "type: resp", `type: delimiter, delimiter: "\n", delimiter_hex: "0a"`, `10:62: translate[1].framing.delimiter_hex: stands for the same as delimiter; remove one of them`},
	{"delimiter in half bytes", "type: resp", `type: delimiter, delimiter_hex: "0d0"`, `10:45: translate[1].framing.delimiter_hex: "0d0" is not in hexadecimal, two digits a byte, such as "0d0a"`},
	{"hexadecimal delimiter of another type", "type: resp", `type: resp, delimiter_hex: "0d0a"`, `10:40: translate[1].framing.delimiter_hex: messages of type resp do not have it; they have max, head, depth, connection_state`},
	{"head too small", "type: resp", "type: resp, head: 100", `10:31: translate[1].framing.head: 100 is not in 512B to 1MiB`},
	{"depth too large", "type: resp", "type: resp, depth: 129", `10:32: translate[1].framing.depth: 129 is not in 1 to 128`},
	{"bad connection_state", "type: resp", "type: resp, connection_state: keep", `10:43: translate[1].framing.connection_state: "keep" is not one of refuse, pass`},
	{"stream without room", "type: resp", "type: stream, max: 32", `10:32: translate[1].framing.max: 32 leaves no room behind the 40 bytes of a header`},

	// Limits and the rest.
	{"no connections", lp, lp + "\n  limits: {connections: 0}", `7:25: translate[0].limits.connections: 0 is not in 1 to 1048576`},
	{"too many outstanding", lp, lp + "\n  limits: {outstanding: 65537, outstanding_all: 1048577}", "7:25: translate[0].limits.outstanding: 65537 is not in 1 to 65536\n7:49: translate[0].limits.outstanding_all: 1048577 is not in 1 to 1048576"},
	{"buffer under a message", lp, lp + "\n  limits: {buffer: 512KiB}", `7:20: translate[0].limits.buffer: 512KiB is less than one message, which may have 1000000 bytes`},
	{"limits of TCP servers", lp, lp + "\n  limits: {server_connections: 4, pipeline: 2}", "7:32: translate[0].limits.server_connections: is about TCP servers, and that of this rule speaks Homa\n7:45: translate[0].limits.pipeline: is about TCP servers, and that of this rule speaks Homa"},
	{"limits of TCP clients", "type: resp}", "type: resp}\n  limits: {connections: 4, outstanding: 2}", "11:25: translate[1].limits.connections: is about TCP clients, and those of this rule speak Homa\n11:41: translate[1].limits.outstanding: is about TCP clients, and those of this rule speak Homa"},
	{"times of TCP servers", lp, lp + "\n  timeouts: {connect: 1s}", `7:23: translate[0].timeouts.connect: is about TCP servers, and that of this rule speaks Homa`},
	{"times of TCP clients", "type: resp}", "type: resp}\n  timeouts: {write: 1s}", `11:21: translate[1].timeouts.write: is about TCP clients, and those of this rule speak Homa`},
	{"bad times", lp, lp + "\n  timeouts: {request: 25h, idle: 500ms, write: soon}", "7:23: translate[0].timeouts.request: 25h is not in 0s to 24h\n7:34: translate[0].timeouts.idle: 500ms is not in 1s to 720h, nor 0s for off\n7:48: translate[0].timeouts.write: \"soon\" is not a duration such as 500ms, 15s or 1h30m"},
	{"outage of requests", lp, lp + "\n  timeouts: {outage: 2s}", `7:22: translate[0].timeouts.outage: is about connections that go on, which only stream framing has: a request is not repeated`},
	{"outage without end", "type: resp}", "type: stream}\n  timeouts: {outage: 0s}", `11:22: translate[1].timeouts.outage: 0s is not in 1s to 24h`},
	{"connect without end", "type: resp}", "type: resp}\n  timeouts: {connect: 0s}", `11:23: translate[1].timeouts.connect: 0s is not in 1ms to 2m`},
	{"bad retry", lp, lp + "\n  retry: once", `7:10: translate[0].retry: wants true or false, not the text "once"`},
	{"retry of a stream", lp, "framing: {type: stream}\n  retry: true", `7:10: translate[0].retry: is about requests, and a stream has none`},
	{"bad failures", "type: resp}", "type: resp}\n  failures: ignore", `11:13: translate[1].failures: "ignore" is not one of abort, answer`},
	{"failures of a Homa server", lp, lp + "\n  failures: abort", `7:13: translate[0].failures: is about TCP servers, and that of this rule speaks Homa`},
	{"bad access_log", lp, lp + "\n  access_log: /var/log/x", `7:15: translate[0].access_log: wants true or false, not the text "/var/log/x"`},
	{"PROXY to Homa", lp, lp + "\n  proxy_protocol: {in: true, out: true}", `7:35: translate[0].proxy_protocol.out: is about TCP servers, and that of this rule speaks Homa`},
	{"PROXY from Homa", "type: resp}", "type: resp}\n  proxy_protocol: {in: true, out: true}", `11:24: translate[1].proxy_protocol.in: is about TCP clients, and those of this rule speak Homa`},
}

var homaDefects = []defect{
	{"address of no host", "10.1.0.1", "0.0.0.0", `11:20: homa.addresses[0]: "0.0.0.0" is not the address of one host`},
	{"address with a port", "10.1.0.1", "10.1.0.1:4000", `11:20: homa.addresses[0]: "10.1.0.1:4000" is not an IP address`},
	{"address in IPv6 form", "10.1.0.1", "::ffff:10.1.0.1", `11:20: homa.addresses[0]: "::ffff:10.1.0.1" is an IPv4 address in IPv6 form; write "10.1.0.1"`},
	{"address twice", `"10.1.0.1"`, `"10.1.0.1", "10.1.0.1"`, `11:32: homa.addresses[1]: "10.1.0.1" is there twice; it is homa.addresses[0] already`},
	{"bad device", "homa: {", "homa: {device: a/b, ", `11:16: homa.device: "a/b" has "/": only letters, digits, '-', '_' and '.' can be in it`},
	{"bad version", "homa: {", "homa: {version: 6.11, ", `11:17: homa.version: "6.11" is not one of main, 6.10, stripped, 6.1; did you mean "6.10"?`},
	{"versions of two protocols", "homa: {", "homa: {peers: [{address: 10.1.0.5, version: 6.1}], ", `11:45: homa.peers[0].version: 6.1 and homa.version main are different IP protocols; one instance speaks one of them`},
	{"peer without address", "homa: {", "homa: {peers: [{version: 6.10}], ", `11:16: homa.peers[0].address: is missing: the IP address of the host`},
	{"peer twice", "homa: {", "homa: {peers: [{address: 10.1.0.5}, {address: 10.1.0.5}], ", `11:47: homa.peers[1].address: "10.1.0.5" is there twice; it is homa.peers[0].address already`},
	{"unscheduled out of range", "homa: {", "homa: {unscheduled: 0, peers: [{address: 10.1.0.5, unscheduled: 1000001}], ", "11:21: homa.unscheduled: 0 is not in 1 to 1000000\n11:65: homa.peers[0].unscheduled: 1000001 is not in 1 to 1000000"},
	{"bad client port", "homa: {", "homa: {client_port: 0, ", `11:21: homa.client_port: 0 is not in 1 to 65535`},
	{"rate without unit", "homa: {", "homa: {link_rate: 25, ", `11:19: homa.link_rate: "25" is not a rate such as 400Mbit or 25Gbit`},
	{"rate of bytes", "homa: {", "homa: {link_rate: 25GiB, ", `11:19: homa.link_rate: "25GiB" is not a rate such as 400Mbit or 25Gbit`},
	{"rate out of range", "homa: {", "homa: {link_rate: 11Tbit, ", `11:19: homa.link_rate: 11Tbit is not in 1Mbit to 10Tbit, nor 0 for off`},
	{"too few code points", "homa: {", "homa: {dscp: [0, 8], ", `11:14: homa.dscp: has 2 numbers, not 8: one for each priority, the lowest first`},
	{"code point out of range", "homa: {", "homa: {dscp: [0, 8, 16, 24, 32, 40, 48, 64], ", `11:41: homa.dscp[7]: 64 is not in 0 to 63`},
	{"link priority out of range", "homa: {", "homa: {link_priority: [0, 1, 2, 3, 4, 5, 6, -1], ", `11:45: homa.link_priority[7]: -1 is not in 0 to 4294967295`},
	{"time-out below the resends", "homa: {", "homa: {resend: 60ms, ", `11:16: homa.resend: a time-out of 100ms leaves no room to ask again after 60ms: it is at least twice homa.resend`},
	{"time-out not in milliseconds", "homa: {", "homa: {timeout: 100100us, ", `11:17: homa.timeout: 100100us is not in whole milliseconds`},
	{"window out of range", "homa: {", "homa: {window: 8KiB, ", `11:16: homa.window: 8KiB is not in 16KiB to 1MiB`},
	{"memory out of range", "homa: {", "homa: {receive_memory: 1MiB, send_memory: 1TiB, ", "11:24: homa.receive_memory: 1MiB is not in 4MiB to 64GiB\n11:43: homa.send_memory: \"1TiB\" is not a size such as 65536, 512KiB or 8MiB"},
}
