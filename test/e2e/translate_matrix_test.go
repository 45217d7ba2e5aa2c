package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/testnet"
)

// pace is how a client writes and reads; zero is as fast as it can.
type pace struct {
	// A request is written in that many pieces, with a pause between them.
	pieces int
	pause  time.Duration
	// Before it reads the client waits, and then takes little at a time.
	wait time.Duration
}

// slowly is a reader's pause after each piece of 64 KiB, at most.
func slowly() time.Duration {
	if long {
		return 200 * time.Millisecond
	}
	return 5 * time.Millisecond
}

// converse writes a request to a service and returns what comes back until done, or
// with nil until the server closes. Unlike exchange it may be called by any
// goroutine.
func (w *translators) converse(at netip.AddrPort, request string, done func([]byte) bool, p pace) (string, error) {
	c, err := w.dial(at)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if p.wait > 0 {
		_ = c.SetReadBuffer(64 << 10) // little waits in this kernel
	}
	written := make(chan error, 1)
	go func() { written <- write(c, request, p) }()
	time.Sleep(p.wait)
	var answer []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		answer = append(answer, buf[:n]...)
		switch {
		case done == nil && err == io.EOF, done != nil && done(answer):
			return string(answer), <-written
		case err != nil:
			return string(answer), fmt.Errorf("%v: %w after %d bytes: %.100q", at, err, len(answer), answer)
		case p.wait > 0:
			time.Sleep(slowly())
		}
	}
}

func write(c net.Conn, request string, p pace) error {
	step := (len(request) + max(1, p.pieces) - 1) / max(1, p.pieces)
	for i := 0; i < len(request); i += step {
		if i > 0 {
			time.Sleep(p.pause)
		}
		if _, err := io.WriteString(c, request[i:min(i+step, len(request))]); err != nil {
			return err
		}
	}
	return nil
}

// alike uses a service directly and, at some pace, through the gateways, and wants
// the same answers.
func (w *translators) alike(p *protocol, s service, request string, done func([]byte) bool, at pace) error {
	want, err := w.converse(s.direct(), request, done, pace{})
	if err != nil {
		return fmt.Errorf("directly: %w", err)
	}
	got, err := w.converse(s.through(), request, done, at)
	if err != nil {
		return err
	}
	if got, want = p.tidy(got), p.tidy(want); got != want || want == "" {
		return fmt.Errorf("%d bytes %.100q, want %d bytes %.100q", len(got), got, len(want), want)
	}
	return nil
}

// last writes a request, closes the half behind it, and returns all that comes until
// the connection ends, and how it did.
func (w *translators) last(at netip.AddrPort, request string) (answer string, err error) {
	c, err := w.dial(at)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, request)
		written <- errors.Join(err, c.CloseWrite())
	}()
	b, err := io.ReadAll(c)
	if err = errors.Join(err, <-written); timedOut(err) {
		err = fmt.Errorf("the connection is still there after %d bytes: %w", len(b), err)
	}
	return string(b), err
}

// told wants an answer that begins as it should, or a reset where that is empty.
func told(prefix, answer string, err error) error {
	if timedOut(err) || prefix == "" && (answer != "" || !wasReset(err)) || prefix != "" && !strings.HasPrefix(answer, prefix) {
		return fmt.Errorf("%d bytes %.100q, %v; want %q (empty: a reset)", len(answer), answer, err, prefix)
	}
	return nil
}

// told wants that the client learns of a server's failure: in words, or by a reset
// that leaves it with a part of the response at most.
func (p *protocol) told(whole, answer string, err error) error {
	if wasReset(err) && len(answer) < len(whole) && strings.HasPrefix(whole, answer) {
		return nil
	}
	return told(p.failed, answer, err)
}

// cases runs checks side by side and reports what they find by name.
func (w *translators) cases(checks map[string]func() error) {
	w.t.Helper()
	var wg sync.WaitGroup
	for name, check := range checks {
		wg.Go(func() {
			start := time.Now()
			if err := check(); err != nil {
				w.t.Errorf("%s: %v (%.1f s)", name, err, time.Since(start).Seconds())
			}
		})
	}
	wg.Wait()
}

// each makes checks of every protocol, by name.
func each(ps []*protocol, checks func(p *protocol) map[string]func() error) map[string]func() error {
	all := map[string]func() error{}
	for _, p := range ps {
		for name, check := range checks(p) {
			all[p.real.name+", "+name] = check
		}
	}
	return all
}

// TestTranslateMatrix: what goes wrong at either end, for each protocol. All share a
// pair of gateways, and leave nothing behind.
func TestTranslateMatrix(t *testing.T) {
	t.Parallel()
	need(t, "nginx=nginx-light", "redis-server=redis-server", "memcached=memcached", "dnsmasq=dnsmasq-base")
	ps := protocols()
	var services []service
	for _, p := range ps {
		services = append(services, p.real, p.fake)
	}
	w := newTranslators(t, services)
	w.file("small", content(70, 1000))
	w.file("large", content(71, 900_000))
	servers := w.realServers()
	standIns := map[*protocol]*standIn{}
	for _, p := range ps {
		standIns[p] = &standIn{p: p, arrived: map[string][]string{}}
		w.rawServer(p.fake, standIns[p].serve)
	}
	// Goroutines of Homa's ports stay for the next requests: as many as any of the
	// cases below needs at once are no leak.
	w.cases(each(ps, func(p *protocol) map[string]func() error {
		checks := map[string]func() error{}
		for i := range 12 {
			checks[fmt.Sprint("late ", i)] = func() error { return w.served(p, "late") }
		}
		return checks
	}))
	before := w.settled()
	phase := func(name string, checks func(w *translators, p *protocol) map[string]func() error) {
		w.run(name, func(w *translators, t *testing.T) {
			w.cases(each(ps, func(p *protocol) map[string]func() error { return checks(w, p) }))
			w.clean(before)
		})
	}

	wait := 3 * time.Second // more than Homa's patience
	if long {
		wait = 14 * time.Second // more than that with a response
	}
	phase("slow reader", func(w *translators, p *protocol) map[string]func() error {
		return map[string]func() error{"waits": func() error { return w.slowReader(p, wait) }}
	})
	phase("slow writer", func(w *translators, p *protocol) map[string]func() error {
		return w.slowWriter(p, standIns[p], pace{pieces: 3, pause: wait})
	})
	phase("truncated request", func(w *translators, p *protocol) map[string]func() error {
		return w.truncatedRequests(p, standIns[p])
	})
	phase("truncated, broken or large response", func(w *translators, p *protocol) map[string]func() error {
		return w.badResponses(p, standIns[p])
	})
	phase("broken or large request", func(w *translators, p *protocol) map[string]func() error {
		return w.badRequests(p, standIns[p])
	})
	w.run("broken RPC", func(w *translators, t *testing.T) {
		w.brokenRPCs(services)
		w.clean(before)
	})
	w.run("server dies", func(w *translators, t *testing.T) {
		servers = w.serversDie(ps, servers)
		w.clean(before)
	})
	w.run("loss", func(w *translators, t *testing.T) {
		w.must(w.Internet.Drop(0.01, "ip protocol 146"))
		w.cases(each(ps, func(p *protocol) map[string]func() error {
			return map[string]func() error{
				"large": func() error { return w.slowReader(p, 0) },
				"small": func() error {
					for range 30 {
						if err := w.alike(p, p.real, p.small, p.smallDone, pace{}); err != nil {
							return err
						}
					}
					return nil
				},
			}
		}))
		w.must(w.Internet.Heal())
		m, err := w.gateway.Metrics(w.ctx)
		if w.must(err); m[`tougw_homa_message_bytes_total{direction="resent"}`] == 0 {
			t.Error("nothing was sent again: was anything lost?")
		}
		w.clean(before)
	})
}

// slowReader requests much, reads nothing for a while, and then slowly.
func (w *translators) slowReader(p *protocol, wait time.Duration) error {
	if p.script != "" {
		return w.alike(p, p.real, p.script, p.scriptDone, pace{wait: wait})
	}
	script, done := p.echoes()
	return w.alike(p, p.fake, script, done, pace{wait: wait})
}

// slowWriter writes requests in pieces.
func (w *translators) slowWriter(p *protocol, s *standIn, at pace) map[string]func() error {
	return map[string]func() error{
		"small": func() error { return w.alike(p, p.real, p.small, p.smallDone, at) },
		"large": func() error {
			size := p.largest
			if long && size > 100_000 {
				size = 900_000
			}
			request := p.ask(size, "whole.slow")
			answer := p.whole(len(request))
			if got, err := w.converse(p.fake.through(), request, endsWith(answer), at); err != nil || got != answer {
				return fmt.Errorf("%.100q, %w", got, err)
			}
			if all := s.requests("whole.slow"); len(all) != 1 || all[0] != request || s.parted() > 0 {
				return fmt.Errorf("the server had %d requests and %d parts: %.200q", len(all), s.parted(), all)
			}
			return nil
		},
	}
}

// truncatedRequests ends connections within requests, in order and by a reset.
func (w *translators) truncatedRequests(p *protocol, s *standIn) map[string]func() error {
	checks := map[string]func() error{}
	for name, request := range map[string]string{"small": p.ask(0, "whole.cut"), "large": p.ask(p.largest, "whole.cut")} {
		half := request[:len(request)*2/3]
		checks["the client closes within a "+name+" one"] = func() error {
			answer, err := w.last(p.fake.through(), half)
			if timedOut(err) || strings.Contains(answer, p.whole(len(request))) {
				return fmt.Errorf("%.100q, %w", answer, err)
			}
			return w.next(p, s, "whole.cut", 0)
		}
		checks["the client resets within a "+name+" one"] = func() error {
			c, err := w.dial(p.fake.through())
			if err != nil {
				return err
			}
			if _, err = io.WriteString(c, half); err == nil {
				err = errors.Join(c.SetLinger(0), c.Close())
			}
			return errors.Join(err, w.next(p, s, "whole.cut", 0))
		}
	}
	return checks
}

// served wants that a request with that act is answered as usual.
func (w *translators) served(p *protocol, act string) error {
	got, err := w.last(p.fake.through(), p.ask(0, act))
	if err != nil || got != p.reply(1000) {
		return fmt.Errorf("%s: %.100q, %w", act, got, err)
	}
	return nil
}

// next wants that the next request is served, and how many of an act were.
func (w *translators) next(p *protocol, s *standIn, act string, count int) error {
	if err := w.served(p, "whole"); err != nil {
		return err
	}
	if n := len(s.requests(act)); n != count {
		return fmt.Errorf("the server had %d requests, want %d", n, count)
	}
	return nil
}

// badResponses has servers that close and reset within a response, send none, or
// none of the protocol, or more than Homa carries. Whatever it is, the request is
// sent once.
func (w *translators) badResponses(p *protocol, s *standIn) map[string]func() error {
	checks := map[string]func() error{}
	for act, whole := range map[string]string{
		"closes": p.reply(1000), "resets": p.reply(1000), "silent": p.reply(1000), "breaks": p.reply(p.largest),
		"garbage": p.reply(1000), "oversize": p.reply(1_100_000),
	} {
		if act == "garbage" && p.garbage == "" {
			continue
		}
		checks[act] = func() error {
			answer, err := w.last(p.fake.through(), p.ask(0, act+".through"))
			if p.stream() {
				err = w.asDirect(p, act, answer, err)
			} else {
				err = p.told(whole, answer, err)
			}
			return errors.Join(err, w.next(p, s, act+".through", 1))
		}
	}
	return checks
}

// asDirect wants that a stream has ended as one without gateways does.
func (w *translators) asDirect(p *protocol, act, answer string, err error) error {
	want, wantErr := w.last(p.fake.direct(), p.ask(0, act+".direct"))
	if wasReset(err) != wasReset(wantErr) || timedOut(err) || answer != want && !wasReset(err) {
		return fmt.Errorf("%d bytes, %w; directly %d bytes, %v", len(answer), err, len(want), wantErr)
	}
	return nil
}

// badRequests are no requests, or too large; no server sees them.
func (w *translators) badRequests(p *protocol, s *standIn) map[string]func() error {
	large := p.ask(1_100_000, "whole.large")
	if p.stream() {
		return map[string]func() error{"large": func() error {
			answer, err := w.last(p.fake.through(), large)
			if err != nil || answer != p.whole(len(large)) {
				return fmt.Errorf("%.100q, %w", answer, err)
			}
			return w.next(p, s, "whole.large", 1)
		}}
	}
	refused := func(request, prefix string) func() error {
		return func() error {
			answer, err := w.last(p.fake.through(), request)
			return errors.Join(told(prefix, answer, err), w.next(p, s, "whole.large", 0))
		}
	}
	checks := map[string]func() error{"large": refused(large, p.tooLarge)}
	if p.broken != "" {
		checks["broken"] = refused(p.broken, p.malformed)
	}
	return checks
}

// brokenRPCs are requests of Homa clients that are of no framing. They are not
// answered, and no server is asked.
func (w *translators) brokenRPCs(services []service) {
	w.t.Helper()
	client := w.node(w.app())
	checks := map[string]func() error{}
	for i, s := range services {
		if !strings.HasSuffix(s.name, "-fake") {
			continue
		}
		checks[s.name] = func() error {
			answer, err := client.Call(w.ctx, netip.AddrPortFrom(testnet.GatewayAddr, homaPort+uint16(i)), []byte("\xff\xff\x00"))
			if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
				return fmt.Errorf("%.100q", answer)
			}
			return nil
		}
	}
	w.cases(checks)
}

// serversDie kills the servers between requests and during them. The requests fail,
// and the first after the servers are back succeed.
func (w *translators) serversDie(ps []*protocol, servers []int) []int {
	w.t.Helper()
	served := func(when string) {
		w.cases(each(ps, func(p *protocol) map[string]func() error {
			return map[string]func() error{when: func() error { return w.isBack(p) }}
		}))
	}
	fails := func(when string) map[string]func() error {
		return each(ps, func(p *protocol) map[string]func() error {
			return map[string]func() error{when: func() error {
				answer, err := w.last(p.real.through(), p.small)
				if p.stream() && wasReset(err) {
					return nil
				}
				return told(p.failed, answer, err)
			}}
		})
	}
	served("before")
	w.kill(servers)
	w.cases(fails("no server"))
	servers = w.realServers()
	served("after a restart")

	// Stopped ones take requests and answer none.
	for _, g := range servers {
		w.must(syscall.Kill(-g, syscall.SIGSTOP))
	}
	checks := fails("died meanwhile")
	checks["killer"] = func() error {
		for _, p := range ps {
			err := testnet.Poll(w.within(20*time.Second), func() error {
				s, err := w.gateway.Status(w.ctx)
				if err != nil {
					return err
				}
				for _, r := range s.Translations {
					if r.Name == p.real.name && (r.Outstanding > 0 || r.Streams > 0) {
						return nil
					}
				}
				return fmt.Errorf("no request of %s is under way", p.real.name)
			})
			if err != nil {
				return err
			}
		}
		w.kill(servers)
		return nil
	}
	w.cases(checks)
	servers = w.realServers()
	served("after another restart")
	return servers
}

// isBack waits until a server is used again: one that could not be connected is left
// alone for a moment.
func (w *translators) isBack(p *protocol) error {
	want, err := w.converse(p.real.direct(), p.small, p.smallDone, pace{})
	if err != nil {
		return fmt.Errorf("directly: %w", err)
	}
	return testnet.Poll(w.within(10*time.Second), func() error {
		got, err := w.last(p.real.through(), p.small)
		if got, want := p.tidy(got), p.tidy(want); got != want || err != nil {
			return fmt.Errorf("%.100q, %w; want %.100q", got, err, want)
		}
		return nil
	})
}
