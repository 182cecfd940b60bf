package enrollhub

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func newRequests() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "skerry_enroll_requests_total", Help: "Requests to join and to renew, by what became of them.",
	}, []string{"kind", "decision"})
}

// decision is what became of a request, as it stands in the audit log.
func decision(err error) string {
	var r *refusal
	switch {
	case err == nil:
		return "admitted"
	case errors.As(err, &r):
		return r.reason
	}
	return "failed"
}

// register makes what enrolment knows visible.
func (f *Feature) register(r prometheus.Registerer) error {
	collectors := []prometheus.Collector{f.desk.requests}
	authorities := map[string]interface{ Expires() time.Time }{"hub-authority": f.o.Authority}
	if f.o.Gateways != nil {
		authorities["gateway-authority"] = f.o.Gateways
	}
	for name, a := range authorities {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "skerry_certificate_expires_timestamp_seconds", Help: "When a certificate ends, in seconds since 1970.",
			ConstLabels: prometheus.Labels{"certificate": name},
		}, func() float64 { return float64(a.Expires().Unix()) }))
	}
	for _, c := range collectors {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("metrics of enrolment: %w", err)
		}
	}
	return nil
}
