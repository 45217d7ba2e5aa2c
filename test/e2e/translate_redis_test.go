package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/tougw/tougw/internal/testnet"
)

// redis starts a Redis server without persistence.
func (w *translators) redis() *testnet.Process {
	w.t.Helper()
	return w.server("redis-server", redisService.port, "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--appendonly", "no",
		"--dir", w.Dir, "--daemonize", "no", "--port", fmt.Sprint(redisService.port))
}

// redisArgs are the arguments of clients of Redis.
func redisArgs(at netip.AddrPort, more ...string) []string {
	return append([]string{"-h", at.Addr().String(), "-p", fmt.Sprint(at.Port())}, more...)
}

// resp is a command in the protocol of Redis.
func resp(words ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b.String()
}

// endOfScript is what Redis answers last, and how it is asked to: a client that just
// closed its half would lose answers.
var endOfScript = "$11\r\nend of test\r\n"

func TestTranslateRedis(t *testing.T) {
	t.Parallel()
	need(t, "redis-server=redis-server", "redis-cli=redis-tools", "redis-benchmark=redis-tools")
	w := newTranslators(t, []service{redisService})
	w.redis()
	before := w.settled()

	w.run("redis-cli", func(w *translators, t *testing.T) {
		w.same("commands", redisService, func(at netip.AddrPort) string {
			return w.output("flushall\nset a 1\nincr a\nget a\nget none\nrpush l x y z\nlrange l 0 -1\nhset h f v\nhgetall h\nlpop none\nincr l\nnosuch\n",
				"redis-cli", redisArgs(at)...)
		})
		w.same("RESP3", redisService, func(at netip.AddrPort) string {
			return w.exchange(at, resp("FLUSHALL")+resp("HSET", "h", "f", "v")+resp("HGETALL", "h")+resp("SMEMBERS", "none")+resp("ECHO", "end of test"), 0, endOfScript)
		})
	})
	w.run("bytes", func(w *translators, t *testing.T) {
		binary := string(content(20, 70_000))
		script := resp("FLUSHALL") + resp("SET", "k\r\n\x00", binary) + resp("GET", "k\r\n\x00") + resp("STRLEN", "k\r\n\x00") + resp("GET", "")
		for _, step := range []int{0, 1000} {
			w.same(fmt.Sprintf("in pieces of %d", step), redisService, func(at netip.AddrPort) string {
				return w.exchange(at, script+resp("ECHO", "end of test"), step, endOfScript)
			})
		}
		w.same("byte by byte", redisService, func(at netip.AddrPort) string {
			return w.exchange(at, resp("SET", "a", "b")+resp("GET", "a")+"PING\r\n"+resp("ECHO", "x\r\ny")+resp("ECHO", "end of test"), 1, endOfScript)
		})
	})
	w.run("pipelined", func(w *translators, t *testing.T) {
		var script strings.Builder
		script.WriteString(resp("FLUSHALL"))
		for i := range 2000 {
			script.WriteString(resp("ECHO", fmt.Sprintf("answer %d", i)))
		}
		w.same("2000 commands at once", redisService, func(at netip.AddrPort) string {
			return w.exchange(at, script.String()+resp("ECHO", "end of test"), 0, endOfScript)
		})
	})
	w.run("large", func(w *translators, t *testing.T) {
		value := string(content(21, 999_000))
		w.same("almost 1 MB", redisService, func(at netip.AddrPort) string {
			return w.exchange(at, resp("SET", "big", value)+resp("GET", "big")+resp("ECHO", "end of test"), 0, endOfScript)
		})
	})
	w.run("redis-benchmark", func(w *translators, t *testing.T) {
		requests := "2000"
		if long {
			requests = "100000"
		}
		failed := w.rule(w.client, "redis").FailedTotal()
		for _, args := range [][]string{{"-c", "1"}, {"-c", "50"}, {"-c", "50", "-P", "16"}} {
			out := w.output("", "redis-benchmark", redisArgs(redisService.through(), append(args, "-t", "set,get,incr,lpush,mset", "-n", requests, "-d", "100", "--csv")...)...)
			if got := strings.Count(out, "\n"); got != 6 {
				t.Errorf("%v: %d lines, want 6: %s", args, got, out)
			}
		}
		if now := w.rule(w.client, "redis").FailedTotal(); now != failed {
			t.Errorf("%d requests failed", now-failed)
		}
	})
	w.clean(before)
}
