package ociregistry

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the registry's figures. Labels are bounded: method and kind come from fixed lists.
type metrics struct {
	requests *prometheus.CounterVec
	sent     prometheus.Counter
	received prometheus.Counter
	corrupt  prometheus.Counter
	removed  prometheus.Counter
	uploads  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skerry_registry_requests_total", Help: "Requests by method, kind of target and status.",
		}, []string{"method", "kind", "code"}),
		sent:     counter("skerry_registry_sent_bytes_total", "Bytes of answers."),
		received: counter("skerry_registry_received_bytes_total", "Bytes of uploads and manifests."),
		corrupt:  counter("skerry_registry_corrupt_blobs_total", "Blobs that did not match their digest and were set aside."),
		removed:  counter("skerry_registry_collected_bytes_total", "Bytes that collection removed."),
		uploads:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "skerry_registry_open_uploads", Help: "Uploads that are open."}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.sent, m.received, m.corrupt, m.removed, m.uploads} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) observe(method string, k kind, rec *recorder) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete:
	default:
		method = "other"
	}
	status := rec.status
	if status == 0 {
		status = http.StatusOK
	}
	m.requests.WithLabelValues(method, string(k), strconv.Itoa(status)).Inc()
	m.sent.Add(float64(rec.bytes))
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// WriteHeader notes the first status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write counts what was sent.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
