package framing

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// The files of testdata are what real programs said on loopback, each direction
// of a TCP connection by itself: redis-cli 7.0.15 and redis-benchmark with
// redis-server, memcached 1.6.18 with scripts and with libmemcached's tools,
// curl 7.88.1 with nginx 1.22.1, dig 9.18 with dnsmasq 2.90.

// replay scans a recorded connection, sends all messages through encoders, and
// wants both directions back as they were.
type replay struct {
	requests, responses []message
	wire                struct{ requests, responses []byte }
	skipped             struct{ requests, responses int }
}

func play(t *testing.T, f Framing, name string) *replay {
	t.Helper()
	defer guard(t)
	p := new(replay)
	var err error
	client, server := recorded(t, name+".client"), recorded(t, name+".server")
	p.requests, p.skipped.requests, err = stable(f.Requests, f.Traits(), client, nil, 1, 2, 3)
	if err != nil {
		t.Fatalf("requests: %v", err)
	}
	var reqs []Request
	enc := f.RequestEncoder()
	for _, m := range p.requests {
		if m.req.Local {
			p.wire.requests = append(p.wire.requests, m.data...)
		} else if m.refused == nil {
			wire, _, err := encode(enc, m.data, nil, random(uint64(len(m.data))))
			if err != nil {
				t.Fatalf("request %s: %v", shown(m.data), err)
			}
			p.wire.requests = append(p.wire.requests, wire...)
		}
		if m.refused != nil {
			m.req.kind = mcLine // the real server answered it with one line
		}
		reqs = append(reqs, m.req)
	}
	given := reqs
	if f.Traits().Keyed {
		given = nil
	}
	p.responses, p.skipped.responses, err = stable(f.Responses, f.Traits(), server, given, 4, 5, 6)
	if err != nil {
		t.Fatalf("responses: %v", err)
	}
	denc := f.ResponseEncoder()
	i := 0
	for _, m := range p.responses {
		if m.unsolicited {
			p.wire.responses = append(p.wire.responses, m.data...)
			continue
		}
		if i == len(reqs) {
			t.Fatalf("a response %s to no request", shown(m.data))
		}
		wire, r, err := encode(denc, m.data, &reqs[i], random(uint64(len(m.data))))
		if err != nil {
			t.Fatalf("response %s: %v", shown(m.data), err)
		}
		if r.Close != m.close {
			t.Errorf("response %s: close %v when encoded", shown(m.data), r.Close)
		}
		p.wire.responses = append(p.wire.responses, wire...)
		i++
	}
	for ; i < len(reqs); i++ {
		if !reqs[i].Local && !f.Traits().Keyed {
			t.Errorf("request %d (%s) has no response", i, reqs[i].Name)
		}
	}
	return p
}

// same wants the bytes of both directions back.
func (p *replay) same(t *testing.T, name string) {
	t.Helper()
	if client := recorded(t, name+".client"); !bytes.Equal(p.wire.requests, client) {
		t.Errorf("the requests are %s, were %s", shown(p.wire.requests), shown(client))
	}
	if server := recorded(t, name+".server"); !bytes.Equal(p.wire.responses, server) {
		t.Errorf("the responses are %s, were %s", shown(p.wire.responses), shown(server))
	}
}

// summary describes messages in a line each.
func summary(all []message) string {
	var b strings.Builder
	for _, m := range all {
		fmt.Fprintf(&b, "%s %d", m.req.Name, len(m.data))
		for _, mark := range []struct {
			is   bool
			text string
		}{
			{m.req.Safe, "safe"}, {m.req.Quiet, "quiet"}, {m.req.Last, "last"}, {m.req.Local, "local"},
			{m.refused != nil, "refused"}, {m.unsolicited, "push"}, {m.close, "close"}, {m.interim != "", "interim"},
		} {
			if mark.is {
				b.WriteString(" " + mark.text)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestRecordedRedis(t *testing.T) {
	f := mustNew(t, Config{Type: TypeRESP, ConnectionState: "pass"})
	for _, name := range sessions(t, "redis-") {
		t.Run(name, func(t *testing.T) {
			p := play(t, f, name)
			if name == "redis-inline-0" { // it has empty commands
				if p.skipped.requests != len("\r\n*0\r\n") {
					t.Errorf("%d bytes skipped", p.skipped.requests)
				}
				return
			}
			p.same(t, name)
			pushes := 0
			for _, m := range p.responses {
				if m.unsolicited {
					pushes++
				}
			}
			if want := strings.Count(name, "resp3"); pushes != want {
				t.Errorf("%d pushes, want %d", pushes, want)
			}
		})
	}
}

func TestRecordedRedisRefusesState(t *testing.T) {
	defer guard(t)
	f := mustNew(t, Config{Type: TypeRESP})
	messages, _, err := stable(f.Requests, f.Traits(), recorded(t, "redis-cli-0.client"), nil)
	if err != nil {
		t.Fatal(err)
	}
	refused := ""
	for _, m := range messages {
		if m.refused != nil {
			refused += m.req.Name + " "
		}
	}
	if refused != "MULTI EXEC " {
		t.Errorf("refused: %s", refused)
	}
}

func TestRecordedMemcached(t *testing.T) {
	f := mustNew(t, Config{Type: TypeMemcached})
	for _, name := range sessions(t, "memcached-") {
		switch name {
		case "memcached-text-0", "memcached-meta-0", "memcached-quiet-0", "memcached-fenced-0":
			continue
		}
		t.Run(name, func(t *testing.T) { play(t, f, name).same(t, name) })
	}
}

// The recording without fences is what a client sees without us; the one with
// fences is the same client's connection as the encoder must write it.
func TestRecordedMemcachedFences(t *testing.T) {
	defer guard(t)
	f := mustNew(t, Config{Type: TypeMemcached})
	messages, _, err := stable(f.Requests, f.Traits(), recorded(t, "memcached-quiet-0.client"), nil, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	var wire []byte
	var reqs []Request
	enc := f.RequestEncoder()
	for _, m := range messages {
		if m.req.Local {
			continue
		}
		out, _, err := encode(enc, m.data, nil, bytewise)
		if err != nil {
			t.Fatal(err)
		}
		wire = append(wire, out...)
		reqs = append(reqs, m.req)
	}
	if want := recorded(t, "memcached-fenced-0.client"); !bytes.Equal(wire, want) {
		t.Fatalf("the requests are\n%swant\n%s", wire, want)
	}
	responses, _, err := stable(f.Responses, f.Traits(), recorded(t, "memcached-fenced-0.server"), reqs, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(responses) != len(reqs) {
		t.Fatalf("%d responses to %d requests", len(responses), len(reqs))
	}
	wire = nil
	denc := f.ResponseEncoder()
	for i, m := range responses {
		if len(m.data) == 0 {
			t.Errorf("the response %d is empty", i)
		}
		out, _, err := encode(denc, m.data, &reqs[i], bytewise)
		if err != nil {
			t.Fatal(err)
		}
		wire = append(wire, out...)
	}
	if want := recorded(t, "memcached-quiet-0.server"); !bytes.Equal(wire, want) {
		t.Errorf("the responses are\n%swant\n%s", wire, want)
	}
}

// What memcached answers by itself to wrong commands is what we answer.
func TestRecordedMemcachedErrors(t *testing.T) {
	defer guard(t)
	f := mustNew(t, Config{Type: TypeMemcached})
	for _, name := range []string{"memcached-text-0", "memcached-meta-0"} {
		messages, _, err := stable(f.Requests, f.Traits(), recorded(t, name+".client"), nil, 1, 2)
		if name == "memcached-meta-0" {
			// The syntax of memcached 1.6.0 for ms has no length of the data.
			if err == nil || err.(*Error).Fault != Malformed {
				t.Errorf("%s: %v", name, err)
			}
			answer, keep := f.Answer(nil, err.(*Error), nil)
			if string(answer) != "CLIENT_ERROR bad data chunk\r\n" || keep {
				t.Errorf("%q", answer)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var refused []string
		for _, m := range messages {
			if m.refused != nil {
				answer, keep := f.Answer(nil, m.refused, &m.req)
				if !keep {
					t.Errorf("%v ends the connection", m.refused)
				}
				refused = append(refused, string(answer))
			}
		}
		// "bogus"
		if got := strings.Join(refused, "|"); got != "ERROR\r\n" {
			t.Errorf("%q", got)
		}
	}
}

func TestRecordedDNS(t *testing.T) {
	f := mustNew(t, Config{Type: TypeDNS})
	for _, name := range sessions(t, "dnsmasq-") {
		t.Run(name, func(t *testing.T) {
			if name == "dnsmasq-dig-3" {
				defer guard(t)
				messages, _, err := stable(f.Requests, f.Traits(), recorded(t, name+".client"), nil)
				if err != nil || len(messages) != 1 || messages[0].refused == nil {
					t.Fatalf("%v %v: a zone transfer is not refused", messages, err)
				}
				answer, keep := f.Answer(nil, messages[0].refused, &messages[0].req)
				responses, _, err := stable(f.Responses, f.Traits(), answer, nil)
				if err != nil || !keep || len(responses) != 1 || responses[0].key != messages[0].req.Key || responses[0].data[3] != dnsNotImp {
					t.Errorf("answer %x: %v %v", answer, responses, err)
				}
				return
			}
			p := play(t, f, name)
			p.same(t, name)
			asked := make(map[uint64]bool)
			for _, m := range p.requests {
				asked[m.req.Key] = true
			}
			for _, m := range p.responses {
				if !asked[m.key] {
					t.Errorf("%#x is answered and was not asked", m.key)
				}
				delete(asked, m.key)
			}
			// dnsmasq closes a connection with an open question, which dig repeats.
			if want := strings.Count(name, "dig-0"); len(asked) != want {
				t.Errorf("%d questions are open, want %d", len(asked), want)
			}
			for _, m := range p.requests {
				answer, _ := f.Answer(nil, &Error{Fault: Timeout}, &m.req)
				q := len(m.req.question)
				if len(answer) != dnsPrefix+q || answer[5] != dnsServFail || !bytes.Equal(answer[dnsPrefix+dnsHeader:], m.data[dnsHeader:q]) {
					t.Errorf("answer %x", answer)
				}
			}
		})
	}
}

func TestRecordedHTTP(t *testing.T) {
	f := mustNew(t, Config{Type: TypeHTTP1})
	for name, want := range map[string][2]string{
		"nginx-close-0":     {"GET 84 safe\n", " 146 close\n"},
		"nginx-close-2":     {"GET 128 safe last\n", " 0 close\n"},
		"nginx-keepalive-1": {"HEAD 80 safe\nHEAD 87 safe\n", " 234\n 240\n"},
	} {
		t.Run(name, func(t *testing.T) {
			p := play(t, f, name)
			got := [2]string{summary(p.requests), summary(p.responses)}
			if name == "nginx-close-2" { // the end of the response is the end of the connection
				want[1] = fmt.Sprintf(" %d close\n", len(recorded(t, name+".server")))
			}
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
	for _, name := range sessions(t, "nginx-") {
		t.Run(name, func(t *testing.T) {
			p := play(t, f, name)
			const cont = "HTTP/1.1 100 Continue\r\n\r\n"
			server := recorded(t, name+".server")
			interim := bytes.Count(server, []byte(cont))
			if want := interim * len(cont); p.skipped.responses != want {
				t.Errorf("%d bytes skipped, want %d", p.skipped.responses, want)
			}
			for _, m := range p.requests {
				if m.interim != "" {
					interim--
				}
			}
			if interim != 0 {
				t.Errorf("nginx sent %d interim responses more than we", interim)
			}
			if want := strings.Count(name, "pipelined") * 2; p.skipped.requests != want {
				t.Errorf("%d bytes skipped, want %d", p.skipped.requests, want)
			}
			if p.skipped.requests == 0 && p.skipped.responses == 0 {
				p.same(t, name)
			}
		})
	}
}
