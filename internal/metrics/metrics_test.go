package metrics

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestExposition(t *testing.T) {
	n := uint64(41)
	r := New()
	r.Counter("tougw_a_total", "As.", func() uint64 { n++; return n })
	r.Gauge("tougw_b", "Bs.", func() float64 { return -1.5 })
	r.Counters("tougw_c_total", "Cs.", []string{"peer", "way"}, func() []Sample {
		return []Sample{{[]string{"x\"\n", "in"}, 1}, {[]string{"y", "out"}, 1 << 60}}
	})
	r.Gauges("tougw_d", "Ds.", []string{"peer"}, func() []Sample { return nil })
	get := func() string {
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if w.Code != 200 {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
		return w.Body.String()
	}
	first, second := get(), get()
	for _, want := range []string{
		"# HELP tougw_a_total As.\n# TYPE tougw_a_total counter\ntougw_a_total 42\n",
		"# TYPE tougw_b gauge\ntougw_b -1.5\n",
		"# TYPE tougw_c_total counter\ntougw_c_total{peer=\"x\\\"\\n\",way=\"in\"} 1\ntougw_c_total{peer=\"y\",way=\"out\"} 1.152921504606847e+18\n",
		"go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(first, want) {
			t.Errorf("no %q in\n%s", want, first)
		}
	}
	if !strings.Contains(second, "tougw_a_total 43\n") {
		t.Error("a snapshot was kept")
	}
	if strings.Contains(first, "tougw_d") {
		t.Error("a family without samples is shown")
	}
}

func TestWrongLabelsAreReported(t *testing.T) {
	r := New()
	r.Gauges("tougw_d", "Ds.", []string{"peer"}, func() []Sample { return []Sample{{[]string{"a", "b"}, 1}} })
	if _, err := r.Gatherer().Gather(); err == nil {
		t.Error("two values for one label went unnoticed")
	}
}
