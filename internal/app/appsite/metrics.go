package appsite

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// metrics are what the module counts, and what it reads off its apps when it is asked.
type metrics struct {
	module      *Module
	switchOvers *prometheus.CounterVec
	fetchErrors *prometheus.CounterVec
	phase       *prometheus.Desc
	restarts    *prometheus.Desc
	logLost     *prometheus.Desc
}

func newMetrics(m *Module) *metrics {
	return &metrics{
		module: m,
		switchOvers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skerry_app_switch_overs_total", Help: "Releases that took over from another, by app.",
		}, []string{"app"}),
		fetchErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skerry_app_fetch_errors_total", Help: "Failed tries to fetch a release's content, by app.",
		}, []string{"app"}),
		phase:    prometheus.NewDesc("skerry_app_phase", "One for the phase that the desired release is in, by app.", []string{"app", "phase"}, nil),
		restarts: prometheus.NewDesc("skerry_app_restarts_total", "Restarts of programs, by app.", []string{"app"}, nil),
		logLost:  prometheus.NewDesc("skerry_app_log_lines_lost_total", "Log lines that the disk did not take, by app.", []string{"app"}, nil),
	}
}

func (c *metrics) register(r prometheus.Registerer) error {
	return errors.Join(r.Register(c.switchOvers), r.Register(c.fetchErrors), r.Register(c))
}

// forget drops what was counted of an app that left.
func (c *metrics) forget(key fleet.AppKey) {
	c.switchOvers.DeleteLabelValues(key.String())
	c.fetchErrors.DeleteLabelValues(key.String())
}

// Describe implements prometheus.Collector.
func (c *metrics) Describe(out chan<- *prometheus.Desc) {
	out <- c.phase
	out <- c.restarts
	out <- c.logLost
}

// Collect implements prometheus.Collector.
func (c *metrics) Collect(out chan<- prometheus.Metric) {
	for _, w := range c.module.staff() {
		r, app := w.report(), w.key.String()
		out <- prometheus.MustNewConstMetric(c.phase, prometheus.GaugeValue, 1, app, string(r.Phase))
		out <- prometheus.MustNewConstMetric(c.restarts, prometheus.CounterValue, float64(r.Restarts), app)
		out <- prometheus.MustNewConstMetric(c.logLost, prometheus.CounterValue, float64(w.log.lostLines()), app)
	}
}
