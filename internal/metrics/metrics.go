// Package metrics renders counters that other packages own in the exposition
// format of Prometheus. It reads snapshots when it is asked and holds no state
// of its own. Names follow tougw_<subsystem>_<what>_<unit>[_total].
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Registry collects what is registered, and figures of the process and the Go
// runtime.
type Registry struct {
	reg *prometheus.Registry
}

// New makes a registry.
func New() *Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &Registry{r}
}

// Counter registers a value that only grows.
func (r *Registry) Counter(name, help string, read func() uint64) {
	r.reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
		func() float64 { return float64(read()) }))
}

// Gauge registers a value that goes up and down.
func (r *Registry) Gauge(name, help string, read func() float64) {
	r.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

// Sample is one value of a family with its label values.
type Sample struct {
	Labels []string
	Value  float64
}

// Counters registers a family of counters; read gives its samples, whose
// labels must be as many as labels. Their number must be bounded.
func (r *Registry) Counters(name, help string, labels []string, read func() []Sample) {
	r.reg.MustRegister(&family{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue, read})
}

// Gauges is as Counters, for values that go up and down.
func (r *Registry) Gauges(name, help string, labels []string, read func() []Sample) {
	r.reg.MustRegister(&family{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue, read})
}

// Handler serves the metrics.
func (r *Registry) Handler() http.Handler { return promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{}) }

// Gatherer gives the metrics to tests.
func (r *Registry) Gatherer() prometheus.Gatherer { return r.reg }

type family struct {
	desc *prometheus.Desc
	typ  prometheus.ValueType
	read func() []Sample
}

func (f *family) Describe(ch chan<- *prometheus.Desc) { ch <- f.desc }

func (f *family) Collect(ch chan<- prometheus.Metric) {
	for _, s := range f.read() {
		m, err := prometheus.NewConstMetric(f.desc, f.typ, s.Value, s.Labels...)
		if err != nil {
			m = prometheus.NewInvalidMetric(f.desc, err)
		}
		ch <- m
	}
}
