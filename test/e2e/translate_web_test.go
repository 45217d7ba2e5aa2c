package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
)

// date is the header field that differs from run to run.
var date = regexp.MustCompile(`(?m)^Date: .*$`)

// fetch is a request for one page after which the server closes.
func fetch(method, path string, more ...string) string {
	return method + " " + path + " HTTP/1.1\r\nHost: web\r\n" + strings.Join(append(more, "Connection: close\r\n"), "") + "\r\n"
}

func TestTranslateHTTP(t *testing.T) {
	t.Parallel()
	need(t, "nginx=nginx-light", "curl=curl", "wrk=wrk")
	w := newTranslators(t, []service{webService})
	w.must(w.Nginx(w.ctx))
	sizes := []int{0, 1, 1000, 65536, 900_000}
	for _, size := range sizes {
		w.file(fmt.Sprint(size), content(30, size))
	}
	before := w.settled()
	// ask is exchange without what differs from run to run.
	ask := func(request string, step int) func(at netip.AddrPort) string {
		return func(at netip.AddrPort) string {
			return date.ReplaceAllString(w.exchange(at, request, step, ""), "Date: -")
		}
	}

	w.run("bytes", func(w *translators, t *testing.T) {
		for _, size := range sizes {
			w.same(fmt.Sprintf("GET of %d bytes", size), webService, ask(fetch("GET", fmt.Sprintf("/%d", size)), 0))
		}
		w.same("HEAD", webService, ask(fetch("HEAD", "/900000"), 0))
		w.same("404", webService, ask(fetch("GET", "/none"), 0))
		w.same("405", webService, ask(fetch("POST", "/1000", "Content-Length: 3\r\n")+"abc", 0))
		w.same("chunked request", webService, ask(fetch("POST", "/1000", "Transfer-Encoding: chunked\r\n")+"3\r\nabc\r\n0\r\n\r\n", 0))
		w.same("range", webService, ask(fetch("GET", "/65536", "Range: bytes=5-10\r\n"), 0))
		w.same("byte by byte", webService, ask(fetch("GET", "/1000"), 1))
		var many strings.Builder
		for i := range 50 {
			fmt.Fprintf(&many, "GET /%d HTTP/1.1\r\nHost: web\r\nX: %d\r\n\r\n", sizes[i%4], i)
		}
		w.same("pipelined", webService, ask(many.String()+fetch("GET", "/1"), 0))
	})
	w.run("curl", func(w *translators, t *testing.T) {
		for _, size := range sizes {
			w.same(fmt.Sprintf("%d bytes", size), webService, func(at netip.AddrPort) string {
				out := w.curl("-i", fmt.Sprintf("http://%v/%d", at, size))
				return date.ReplaceAllString(out, "Date: -")
			})
		}
		url := fmt.Sprintf("http://%v/1000?[1-50]", webService.through())
		if got := strings.TrimSpace(w.curl("-o", "/dev/null", "-w", "%{num_connects} ", url)); got != "1"+strings.Repeat(" 0", 49) {
			t.Errorf("new connections for each request: %q", got)
		}
		w.must(w.parallel("900000", 20))
	})
	w.run("too large", func(w *translators, t *testing.T) {
		w.file("large", content(31, 1_100_000))
		got := w.curlStatus(fmt.Sprintf("http://%v/large", webService.through()))
		if got != "502" {
			t.Errorf("a response of more than Homa carries: status %s, want 502", got)
		}
		_, err := w.WriteFile("upload", string(content(32, 1_100_000)))
		w.must(err)
		if got := w.curlStatus("-T", w.Path("upload"), fmt.Sprintf("http://%v/upload", webService.through())); got != "413" {
			t.Errorf("a request of more than Homa carries: status %s, want 413", got)
		}
	})
	w.run("wrk", func(w *translators, t *testing.T) {
		seconds := "1s"
		if long {
			seconds = "30s"
		}
		out := w.output("", "wrk", "-t1", "-c50", "-d"+seconds, fmt.Sprintf("http://%v/1000", webService.through()))
		if strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx") || !strings.Contains(out, "Requests/sec") {
			t.Error(out)
		}
	})
	w.clean(before)
}

// parallel downloads a page many times at once and compares each.
func (w *translators) parallel(page string, count int) error {
	w.curl("--parallel", "--parallel-immediate", "--parallel-max", fmt.Sprint(count),
		"-o", w.Path("many-#1"), fmt.Sprintf("http://%v/%s?[1-%d]", webService.through(), page, count))
	want := w.sumFile("www/" + page)
	for i := range count {
		if got := w.sumFile(fmt.Sprintf("many-%d", i+1)); got != want {
			return fmt.Errorf("download %d: got %s, want %s", i+1, got, want)
		}
	}
	return nil
}

// curlStatus is the status of a response, whatever it is.
func (w *translators) curlStatus(args ...string) string {
	w.t.Helper()
	ctx := w.within(30 * time.Second)
	// curl fails when the connection ends before it has sent everything, which is
	// what a server may do that has refused.
	out, err := w.app().Run(ctx, "curl", append([]string{"-sS", "-o", "/dev/null", "-w", "%{http_code}"}, args...)...)
	if err != nil {
		w.t.Logf("curl: %v", err)
	}
	return out
}
