package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/testnet"
)

// TestTranslateToldFailures: with `failures: answer` a client learns at once, and in
// the words of the protocol, that a TCP server behind the other gateway failed,
// rather than that it is silent.
func TestTranslateToldFailures(t *testing.T) {
	t.Parallel()
	var ps []*protocol
	var services []service
	for _, p := range protocols() {
		if p.failed == "" {
			continue // there are no words
		}
		p.failed = strings.Replace(p.failed, "HTTP/1.1 50", "HTTP/1.1 502 ", 1)
		p.fake.far += ", failures: answer"
		ps, services = append(ps, p), append(services, p.fake)
	}
	w := newTranslators(t, services)
	before := w.settled()
	w.cases(each(ps, func(p *protocol) map[string]func() error {
		return map[string]func() error{"no server": func() error {
			answer, err := w.last(p.fake.through(), p.ask(0, "whole"))
			return told(p.failed, answer, err)
		}}
	}))
	standIns := map[*protocol]*standIn{}
	for _, p := range ps {
		standIns[p] = &standIn{p: p, arrived: map[string][]string{}}
		w.rawServer(p.fake, standIns[p].serve)
	}
	w.cases(each(ps, func(p *protocol) map[string]func() error {
		return map[string]func() error{"a server": func() error {
			return testnet.Poll(w.within(10*time.Second), func() error { return w.served(p, "whole") })
		}}
	}))
	w.cases(each(ps, func(p *protocol) map[string]func() error { return w.badResponses(p, standIns[p]) }))
	for _, p := range ps {
		// The one that breaks off within a large response, of which a part has left:
		// Homa has no word for that.
		want := uint64(1)
		if p.largest <= 32<<10 {
			want = 0
		}
		if r := w.rule(w.client, p.fake.name); r.Failed["timeout"] != want {
			t.Errorf("%s: %d clients were told that the server is silent, want %d: %v", p.fake.name, r.Failed["timeout"], want, r.Failed)
		}
	}
	w.clean(before)
}

// TestTranslateStreamOutage: connections over stream outlive an outage of the fabric
// and of either gateway that is much longer than Homa waits for a peer, as those of
// TCP do, and lose no byte.
func TestTranslateStreamOutage(t *testing.T) {
	t.Parallel()
	s := service{name: "bytes", port: 7300, framing: "{type: stream}"}
	w := newTranslators(t, []service{s}, "timeout: 100ms")
	w.rawServer(s, echo)
	before := w.settled()
	outage := 3 * time.Second
	if long {
		outage = 30 * time.Second
	}
	stopped := func(pid int) (begin, end func() error) {
		return func() error { return syscall.Kill(pid, syscall.SIGSTOP) }, func() error { return syscall.Kill(pid, syscall.SIGCONT) }
	}
	for _, o := range []struct {
		name string
		pid  int // of a gateway; 0 for the fabric
	}{{"far gateway", w.gateway.Cmd.Process.Pid}, {"near gateway", w.client.Cmd.Process.Pid}, {"fabric", 0}} {
		w.run(o.name, func(w *translators, t *testing.T) {
			busy, idle := w.open(s, 5), w.open(s, 15)
			begin, end := func() error { return w.Internet.Drop(1, "ip protocol 146") }, w.Internet.Heal
			if o.pid != 0 {
				begin, end = stopped(o.pid)
			}
			checks := map[string]func() error{"outage": func() error {
				err := begin()
				time.Sleep(outage)
				return errors.Join(err, end())
			}}
			for i, c := range busy {
				checks[fmt.Sprint("busy ", i)] = func() error { return pumped(c, 8<<20) }
			}
			w.cases(checks)
			checks = map[string]func() error{}
			for i, c := range idle {
				checks[fmt.Sprint("idle ", i)] = func() error { return echoed(c, "still here") }
			}
			w.cases(checks)
			for _, c := range append(busy, idle...) {
				w.must(c.Close())
			}
			w.clean(before)
		})
	}
}

// open connects to an echo server over stream. With little patience of Homa that may
// fail on a busy machine, and is tried again.
func (w *translators) open(s service, count int) (conns []*net.TCPConn) {
	w.t.Helper()
	for range count {
		w.eventually(20*time.Second, func() error {
			c, err := w.dial(s.through())
			if err == nil {
				err = echoed(c, "sign of life")
			}
			if err == nil {
				conns = append(conns, c)
			}
			return err
		})
	}
	return conns
}

// pumped sends size bytes to an echo server, and wants them back.
func pumped(c *net.TCPConn, size int) error {
	data := content(80, size)
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		written <- err
	}()
	back := make([]byte, size)
	_, err := io.ReadFull(c, back)
	if err == nil && sum(back) != sum(data) {
		err = errors.New("other bytes came back")
	}
	return errors.Join(err, <-written)
}

// TestTranslateStreamTimeouts: `timeouts.idle` and `timeouts.write` end connections
// over stream.
func TestTranslateStreamTimeouts(t *testing.T) {
	t.Parallel()
	const much = 10 * time.Second // on a busy machine
	idle := service{name: "idle", port: 7300, framing: "{type: stream}", more: "timeouts: {idle: 2s}"}
	stuck := service{name: "stuck", port: 7301, framing: "{type: stream}", more: "timeouts: {write: 1s}"}
	w := newTranslators(t, []service{idle, stuck})
	w.rawServer(idle, echo)
	reset := make(chan error, 1)
	w.rawServer(stuck, func(c *net.TCPConn) {
		for {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				reset <- err
				return
			}
		}
	})
	before := w.settled()

	reader := w.mustDial(stuck.through()) // and never reads
	c := w.mustDial(idle.through())
	for range 3 {
		w.must(echoed(c, "sign of life"))
		time.Sleep(time.Second) // is not idle
	}
	w.must(c.SetDeadline(time.Now().Add(much)))
	if b, err := io.ReadAll(c); len(b) > 0 || timedOut(err) {
		t.Errorf("idle for much longer than 2 s: %q, %v", b, err)
	}
	select {
	case <-reset:
	case <-time.After(much):
		t.Error("a client that has taken nothing for much longer than 1 s is still served")
	}
	w.must(errors.Join(reader.Close(), c.Close()))
	w.clean(before)
}
