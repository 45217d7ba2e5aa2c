package e2e

import (
	"bytes"
	bigendian "encoding/binary"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// protocol is a framing with two servers behind it: a real program, and a stand-in
// of the test that does what no real one can be made to. What a stand-in does stands
// in each request, so that many cases can share one at a time.
type protocol struct {
	real, fake service
	// small is a request to the real server, script many with large answers; done
	// tells that all answers are there, nil when the server closes after them.
	small, script         string
	smallDone, scriptDone func(answer []byte) bool
	// ask is a request to the stand-in with a body of size bytes, reply a response
	// of it; stored is the one to a large request, where no other would be right.
	ask    func(size int, act string) string
	reply  func(size int) string
	stored string
	// suffix is what follows the act in a request.
	suffix string
	// broken is no request, garbage no response; empty where any bytes are one.
	broken, garbage string
	// How the gateway's answers begin, empty for a reset: when the server failed, when
	// the request is too large, when it is broken.
	failed, tooLarge, malformed string
	// largest is the size of a message below the limit.
	largest int
}

// stream tells that there are no messages, and all goes on as without gateways.
func (p *protocol) stream() bool { return strings.Contains(p.fake.framing, "stream") }

// play is how a stand-in ends a request: its act.
func play(act string) string { return "act=" + act + ";" }

// fill is a body of size bytes that repeats nothing of a protocol.
func fill(size int) string { return strings.Repeat("0123456789", size/10+1)[:size] }

// whole is the stand-in's usual answer to a request of size bytes.
func (p *protocol) whole(size int) string {
	if p.stored != "" && size > 1000 {
		return p.stored
	}
	return p.reply(1000)
}

// lateness is how long a stand-in keeps a request, so that others come meanwhile.
const lateness = 300 * time.Millisecond

// standIn is a server of the test for one protocol.
type standIn struct {
	p  *protocol
	mu sync.Mutex
	// arrived holds the requests that arrived whole, by act.
	arrived map[string][]string
	// parts is how many requests did not.
	parts int
}

// requests are those that arrived whole for an act.
func (s *standIn) requests(act string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.arrived[act])
}

// parted is how many requests arrived as a part.
func (s *standIn) parted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts
}

// serve plays the server on a connection.
func (s *standIn) serve(c *net.TCPConn) {
	var request []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			if len(request) > 0 {
				s.mu.Lock()
				s.parts++
				s.mu.Unlock()
			}
			return
		}
		request = append(request, buf[:n]...)
		act, ok := bytes.CutSuffix(request, []byte(";"+s.p.suffix))
		if !ok {
			continue
		}
		act = act[bytes.LastIndex(act, []byte("act="))+len("act="):]
		s.mu.Lock()
		s.arrived[string(act)] = append(s.arrived[string(act)], string(request))
		s.mu.Unlock()
		if !s.act(c, string(act), request) {
			return
		}
		request = nil
	}
}

// act answers a request and tells whether the connection goes on. The name of an act
// has a part before a dot which says what it is.
func (s *standIn) act(c *net.TCPConn, name string, request []byte) bool {
	name, _, _ = strings.Cut(name, ".")
	answer := s.p.whole(len(request))
	switch name {
	case "late":
		time.Sleep(lateness)
	case "echo":
		answer = string(request)
	case "silent":
		return false
	case "closes", "resets":
		answer = answer[:len(answer)/2]
	case "breaks":
		answer = s.p.reply(s.p.largest)
		answer = answer[:len(answer)*2/3]
	case "garbage":
		answer = s.p.garbage
	case "oversize":
		answer = s.p.reply(1_100_000)
	}
	if _, err := c.Write([]byte(answer)); err != nil {
		return false
	}
	switch name {
	case "resets":
		_ = c.SetLinger(0)
		return false
	case "closes", "breaks":
		return false
	}
	return true
}

// question asks dnsmasq for a name of the zone test.
func question(id int, name string, typ byte) string {
	return string(bigendian.BigEndian.AppendUint16(nil, uint16(id))) + "\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" +
		fmt.Sprintf("%c%s\x04test\x00\x00%c\x00\x01", len(name), name, typ)
}

// framed16 is a message behind two bytes of length, as DNS has it.
func framed16(m string) string {
	return string(bigendian.BigEndian.AppendUint16(nil, uint16(len(m)))) + m
}

// messages16 cuts such messages apart.
func messages16(b []byte) (messages []string) {
	for len(b) >= 2 && len(b) >= 2+int(bigendian.BigEndian.Uint16(b)) {
		n := 2 + int(bigendian.BigEndian.Uint16(b))
		messages, b = append(messages, string(b[:n])), b[n:]
	}
	return messages
}

// tidy takes out what may differ from run to run: the date, and the order of answers
// of DNS.
func (p *protocol) tidy(answer string) string {
	if strings.Contains(p.real.framing, "dns") {
		all := messages16([]byte(answer))
		slices.Sort(all)
		return strings.Join(all, "")
	}
	return date.ReplaceAllString(answer, "Date: -")
}

// endsWith returns a test for the end of answers.
func endsWith(suffix string) func([]byte) bool {
	return func(answer []byte) bool { return bytes.HasSuffix(answer, []byte(suffix)) }
}

// protocols are all framings. Real servers of those that are nobody's protocol are
// programs whose messages they happen to fit.
func protocols() []*protocol {
	const size = 300_000
	webScript := strings.Repeat("GET /large HTTP/1.1\r\nHost: web\r\n\r\n", 5) + fetch("GET", "/large")
	names := ""
	for i := range 100 { // dnsmasq closes after the 100th
		names += framed16(question(i, "large", 16))
	}
	one := framed16(question(1, "host", 1))
	oneDone := func(answer []byte) bool { return len(messages16(answer)) == 1 }
	const fakeLimits = "timeouts: {idle: 1s}, limits: {pipeline: 1, server_connections: 64}"

	ps := []*protocol{{
		real:   webService,
		fake:   service{framing: "{type: http1}"},
		small:  fetch("GET", "/small"),
		script: webScript,
		ask: func(size int, act string) string {
			body := fill(size) + play(act)
			return fmt.Sprintf("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		},
		reply: func(size int) string {
			return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, fill(size))
		},
		broken: "\x00\x01\x02\r\n\r\n", garbage: "\x00no response\r\n\r\n",
		failed: "HTTP/1.1 50", tooLarge: "HTTP/1.1 413 ", malformed: "HTTP/1.1 400 ",
	}, {
		real:  redisService,
		fake:  service{framing: "{type: resp}"},
		small: resp("GET", "none"), smallDone: endsWith("$-1\r\n"),
		script:     resp("SET", "k", fill(size)) + strings.Repeat(resp("GET", "k"), 15) + resp("ECHO", "end of test"),
		scriptDone: endsWith(endOfScript),
		ask:        func(size int, act string) string { return resp("SET", "k", fill(size)+play(act)) },
		reply:      func(size int) string { return fmt.Sprintf("$%d\r\n%s\r\n", size, fill(size)) },
		suffix:     "\r\n",
		broken:     "*x\r\n", garbage: "no response\r\n",
		failed: "-ERR gateway: ", tooLarge: "-ERR ", malformed: "-ERR Protocol error",
	}, {
		real:  cacheService,
		fake:  service{framing: "{type: memcached}"},
		small: "get none\r\n", smallDone: endsWith("END\r\n"),
		script:     fmt.Sprintf("set k 0 0 %d\r\n%s\r\n", size, fill(size)) + strings.Repeat("get k\r\n", 15) + "mn\r\n",
		scriptDone: endsWith("MN\r\n"),
		// The answer to a set is a line, so what wants a large one gets.
		ask: func(size int, act string) string {
			if size == 0 {
				return "get " + play(act) + "\r\n"
			}
			value := fill(size) + play(act)
			return fmt.Sprintf("set k 0 0 %d\r\n%s\r\n", len(value), value)
		},
		reply:  func(size int) string { return fmt.Sprintf("VALUE k 0 %d\r\n%s\r\nEND\r\n", size, fill(size)) },
		suffix: "\r\n", stored: "STORED\r\n",
		broken: "set a 0 0 x\r\n", garbage: "no response\r\n",
		failed: "SERVER_ERROR gateway: ", tooLarge: "SERVER_ERROR object too large", malformed: "CLIENT_ERROR ",
	}, {
		real:  nameService,
		fake:  service{framing: "{type: dns, max: 2000}"},
		small: one, smallDone: oneDone,
		script: names, scriptDone: func(answer []byte) bool { return len(messages16(answer)) == 100 },
		ask: func(size int, act string) string {
			return framed16(question(1, "host", 1) + fill(min(size, 3000)) + play(act))
		},
		reply:  func(size int) string { return framed16("\x00\x01\x81\x80" + fill(min(size, 3000))) },
		broken: framed16("abcde"), garbage: one,
		failed:  framed16(question(1, "host", 1))[:4] + "\x81\x02", // SERVFAIL
		largest: 1500,
	}, {
		// DNS is length-prefixed, too.
		real:  service{port: 7100, behind: nameService.port, framing: "{type: length-prefixed, bytes: 2}"},
		fake:  frameService,
		small: one, smallDone: oneDone,
		ask:    func(size int, act string) string { return frame(fill(size) + play(act)) },
		reply:  func(size int) string { return frame(fill(size)) },
		broken: "\x7f\xff\xff\xff" + fill(1000), garbage: "\x7f\xff\xff\xff" + fill(1000),
	}, {
		// So are inline commands of Redis lines.
		real:  service{port: 7101, behind: redisService.port, framing: `{type: delimiter, delimiter: "\r\n"}`},
		fake:  service{framing: `{type: delimiter, delimiter: "\n"}`},
		small: "PING\r\n", smallDone: endsWith("+PONG\r\n"),
		ask:    func(size int, act string) string { return fill(size) + play(act) + "\n" },
		reply:  func(size int) string { return fill(size) + "\n" },
		suffix: "\n",
	}, {
		real:   service{port: 7102, behind: lab.HTTPPort, framing: "{type: stream}"},
		fake:   service{framing: "{type: stream}", far: "timeouts: {connect: 2s}"},
		small:  fetch("GET", "/small"),
		script: webScript,
		ask:    func(size int, act string) string { return fill(size) + play(act) },
		reply:  fill,
	}}
	for i, name := range []string{"http1", "resp", "memcached", "dns", "length-prefixed", "delimiter", "stream"} {
		p := ps[i]
		p.real.name, p.fake.name, p.fake.port = name, name+"-fake", 7200+uint16(i)
		if p.fake.far == "" {
			p.fake.far = fakeLimits
		}
		if p.largest == 0 {
			p.largest = size
		}
	}
	return ps
}

// echoes is a script for the stand-in, for protocols whose real server has no large
// answers.
func (p *protocol) echoes() (script string, done func([]byte) bool) {
	script = strings.Repeat(p.ask(300_000, "echo"), 15)
	return script, func(answer []byte) bool { return len(answer) == len(script) }
}

// realServers starts the programs and returns their process groups.
func (w *translators) realServers() (groups []int) {
	w.t.Helper()
	dns := []string{"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file=", "--bind-interfaces",
		"--listen-address=" + testnet.ServerAddr.String(), "--host-record=host.test,192.0.2.99", "--txt-record=large.test" + strings.Repeat(","+fill(250), 40), "--local=/test/"}
	cache := []string{"-u", "root", "-l", testnet.ServerAddr.String(), "-p", fmt.Sprint(cacheService.port), "-U", "0"}
	// A killed nginx leaves its file, and a new one listens before it writes its own.
	w.must(os.RemoveAll(w.Path("nginx.pid")))
	w.must(w.Nginx(w.ctx))
	nginx := 0
	w.eventually(10*time.Second, func() error {
		pid, err := os.ReadFile(w.Path("nginx.pid"))
		if err == nil {
			nginx, err = strconv.Atoi(strings.TrimSpace(string(pid)))
		}
		return err
	})
	return []int{nginx, w.redis().Process.Pid,
		w.server("memcached", cacheService.port, cache...).Process.Pid,
		w.server("dnsmasq", nameService.port, dns...).Process.Pid}
}

// kill ends process groups and waits until nothing is left of them.
func (w *translators) kill(groups []int) {
	w.t.Helper()
	for _, g := range groups {
		w.must(syscall.Kill(-g, syscall.SIGKILL))
	}
	w.eventually(10*time.Second, func() error {
		for _, g := range groups {
			if err := syscall.Kill(-g, 0); err != syscall.ESRCH {
				return fmt.Errorf("process group %d: %v", g, err)
			}
		}
		return nil
	})
}
