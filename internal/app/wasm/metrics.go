package wasm

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/app/wasm/outbound"
)

// metrics are what the runtime counts.
type metrics struct {
	failures *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	tasks    *prometheus.CounterVec
	calls    *prometheus.CounterVec
	prepared prometheus.Counter
	compile  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, r *Runtime) (*metrics, error) {
	native := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{
			Name: name, Help: help, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
			NativeHistogramMinResetDuration: time.Hour,
		}
	}
	m := &metrics{
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skerry_wasm_failures_total", Help: "Requests that a module did not answer as it should, by app and reason.",
		}, []string{"app", "reason"}),
		seconds: prometheus.NewHistogramVec(native("skerry_wasm_request_seconds", "Time of whole requests, by app."), []string{"app"}),
		tasks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skerry_wasm_runs_total", Help: "Runs of tasks and schedules that ended, by app and reason; empty for an end in order.",
		}, []string{"app", "reason"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skerry_wasm_outbound_total", Help: "Outbound requests of modules, by app and result.",
		}, []string{"app", "result"}),
		prepared: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skerry_wasm_prepared_total", Help: "Requests that found a prepared instance.",
		}),
		compile: prometheus.NewHistogram(native("skerry_wasm_compile_seconds", "Time to compile a module or to read it back.")),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(
		reg.Register(m.failures), reg.Register(m.seconds), reg.Register(m.tasks), reg.Register(m.calls),
		reg.Register(m.prepared), reg.Register(m.compile),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "skerry_wasm_memory_bytes", Help: "Linear memory of all instances.",
		}, func() float64 { return float64(r.budget.used.Load()) })),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "skerry_wasm_instances", Help: "Instances, those that are prepared included.",
		}, func() float64 { return float64(r.guests.Load()) })),
	)
}

func (m *metrics) request(app string, f *failure, took time.Duration) {
	m.seconds.WithLabelValues(app).Observe(took.Seconds())
	if f != nil {
		m.failures.WithLabelValues(app, f.reason).Inc()
	}
}

func (m *metrics) task(app string, f *failure) {
	reason := ""
	if f != nil {
		reason = f.reason
	}
	m.tasks.WithLabelValues(app, reason).Inc()
}

func (m *metrics) called(app string, err error) {
	result := "answered"
	switch {
	case errors.Is(err, outbound.ErrRefused):
		result = "refused"
	case err != nil:
		result = "failed"
	}
	m.calls.WithLabelValues(app, result).Inc()
}

// forget drops what was counted of an app that left.
func (m *metrics) forget(app string) {
	of := prometheus.Labels{"app": app}
	m.failures.DeletePartialMatch(of)
	m.seconds.DeletePartialMatch(of)
	m.tasks.DeletePartialMatch(of)
	m.calls.DeletePartialMatch(of)
}
