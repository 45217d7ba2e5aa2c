package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/tougw/tougw/internal/testnet"
)

func TestTranslateMemcached(t *testing.T) {
	t.Parallel()
	need(t, "memcached=memcached", "memccp=libmemcached-tools", "memccat=libmemcached-tools")
	w := newTranslators(t, []service{cacheService})
	w.server("memcached", cacheService.port, "-u", "root", "-l", testnet.ServerAddr.String(), "-p", fmt.Sprint(cacheService.port), "-U", "0")
	before := w.settled()

	w.run("text commands", func(w *translators, t *testing.T) {
		script := "flush_all\r\nset a 5 0 3\r\nx\r\n\r\nget a\r\nget a none b\r\nadd a 0 0 1\r\nz\r\nset n 0 0 1\r\n7\r\nincr n 5\r\ndecr n 2\r\n" +
			"append a 0 0 1\r\n!\r\nget a n\r\ndelete n\r\ndelete n\r\ntouch a 100\r\nset q 0 0 1 noreply\r\n1\r\nget q\r\nversion\r\n"
		for _, step := range []int{0, 1} {
			w.same(fmt.Sprintf("in pieces of %d", step), cacheService, func(at netip.AddrPort) string {
				return w.exchange(at, script+"get end\r\nset end 0 0 3\r\nend\r\nmn\r\n", step, "STORED\r\nMN\r\n")
			})
		}
	})
	w.run("meta commands", func(w *translators, t *testing.T) {
		w.same("meta", cacheService, func(at netip.AddrPort) string {
			return w.exchange(at, "flush_all\r\nms k 4 T0\r\nabcd\r\nmg k v t f\r\nmg none v\r\nmg none v q\r\nma k\r\nmd k\r\nmg k v\r\nmn\r\n", 0, "MN\r\n")
		})
	})
	w.run("memccp and memccat", func(w *translators, t *testing.T) {
		data := content(40, 500_000)
		file, err := w.WriteFile("item", string(data))
		w.must(err)
		w.same("item", cacheService, func(at netip.AddrPort) string {
			servers := "--servers=" + at.String()
			w.output("", "memccp", servers, file)
			w.output("", "memccat", servers, "--file="+w.Path("back"), "item")
			back, err := os.ReadFile(w.Path("back"))
			w.must(err)
			w.must(os.Remove(w.Path("back")))
			return sum(back)
		})
	})
	w.clean(before)
}

func TestTranslateDNS(t *testing.T) {
	t.Parallel()
	need(t, "dnsmasq=dnsmasq-base", "dig=bind9-dnsutils")
	w := newTranslators(t, []service{nameService})
	w.server("dnsmasq", nameService.port, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file=",
		"--listen-address="+testnet.ServerAddr.String(), "--bind-interfaces", "--host-record=host.test,192.0.2.99,2001:db8::99",
		"--txt-record=text.test,"+strings.Repeat("text ", 40), "--local=/test/")
	before := w.settled()

	for _, question := range [][]string{{"host.test", "A"}, {"host.test", "AAAA"}, {"text.test", "TXT"}, {"none.test", "A"}, {"host.test", "A", "host.test", "AAAA", "text.test", "TXT"}} {
		w.same(strings.Join(question, " "), nameService, func(at netip.AddrPort) string {
			args := append([]string{"@" + at.Addr().String(), "-p", fmt.Sprint(at.Port()), "+tcp", "+keepopen", "+nostats", "+qid=4711", "+nocookie", "+tries=1"}, question...)
			out := w.output("", "dig", args...)
			// The first line names the server.
			_, out, _ = strings.Cut(strings.TrimSpace(out), "\n")
			return out
		})
	}
	// 100 questions before the first answer is read; each has its length in front.
	question := "\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04host\x04test\x00\x00\x01\x00\x01"
	var script strings.Builder
	for i := range 100 {
		fmt.Fprintf(&script, "\x00%c\x00%c%s", len(question)+2, i, question)
	}
	got, n := w.exchange(nameService.through(), script.String(), 0, halfClosed), 0
	for ; len(got) > 14; n++ {
		length := int(got[0])<<8 | int(got[1])
		if id := got[3]; int(id) != n || length > len(got)-2 {
			t.Fatalf("answer %d has the id %d and %d bytes of %d: %q", n, id, length, len(got)-2, got)
		}
		if answers := got[9]; answers != 1 {
			t.Errorf("answer %d holds %d records: %q", n, answers, got[:2+length])
		}
		got = got[2+length:]
	}
	if n != 100 || got != "" {
		t.Errorf("%d answers, want 100; %d bytes more", n, len(got))
	}
	w.clean(before)
}

func TestTranslateSSH(t *testing.T) {
	t.Parallel()
	need(t, "ssh=openssh-client", "scp=openssh-client", "sshd=openssh-server")
	w := newTranslators(t, []service{shellService})
	args, err := w.SSHServer(w.ctx)
	w.must(err)
	before := w.settled()

	w.run("command", func(w *translators, t *testing.T) {
		w.same("output", shellService, func(at netip.AddrPort) string {
			return w.output("typed\n", "ssh", append(args, "root@"+at.Addr().String(), "cat; seq 100000")...)
		})
	})
	w.run("copy", func(w *translators, t *testing.T) {
		size := 5 << 20
		if long {
			size = 200 << 20
		}
		_, err := w.WriteFile("file", string(content(41, size)))
		w.must(err)
		there := "root@" + doorAddr.String() + ":" + w.Path("there")
		w.output("", "scp", append(args, w.Path("file"), there)...)
		w.output("", "scp", append(args, there, w.Path("back"))...)
		for _, name := range []string{"there", "back"} {
			if got, want := w.sumFile(name), w.sumFile("file"); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
	})
	w.clean(before)
}
