package httpgateway

import (
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// counts holds what was counted for each app: for reports, and the same as metrics. Apps that left keep
// their counts, as counts only grow within an agent's life.
type counts struct {
	mu      sync.Mutex
	apps    map[fleet.AppKey]*fleet.RequestCounts
	unknown uint64
	bounds  []float64

	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	strays   prometheus.Counter
}

func newCounts(reg prometheus.Registerer) (*counts, error) {
	c := &counts{
		apps:   map[fleet.AppKey]*fleet.RequestCounts{},
		bounds: fleet.LatencyBounds(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skerry_gateway_requests_total",
			Help: "Requests answered, by app and class of status.",
		}, []string{"app", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "skerry_gateway_latency_seconds",
			Help:                            "Time to the first byte of the answer, by app.",
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"app"}),
		strays: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skerry_gateway_unknown_requests_total",
			Help: "Requests that matched no route.",
		}),
	}
	if reg == nil {
		return c, nil
	}
	for _, m := range []prometheus.Collector{c.requests, c.latency, c.strays} {
		if err := reg.Register(m); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *counts) add(app fleet.AppKey, status int, latency time.Duration) {
	ms := float64(latency) / float64(time.Millisecond)
	c.mu.Lock()
	n := c.apps[app]
	if n == nil {
		n = &fleet.RequestCounts{Buckets: make([]uint64, len(c.bounds)+1)}
		c.apps[app] = n
	}
	n.Requests++
	if status >= 500 {
		n.Errors++
	}
	n.Buckets[sort.SearchFloat64s(c.bounds, ms)]++
	c.mu.Unlock()
	c.requests.WithLabelValues(app.String(), strconv.Itoa(status/100)+"xx").Inc()
	c.latency.WithLabelValues(app.String()).Observe(latency.Seconds())
}

func (c *counts) addUnknown() {
	c.mu.Lock()
	c.unknown++
	c.mu.Unlock()
	c.strays.Inc()
}

func (c *counts) unknownTotal() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unknown
}

// all returns a copy.
func (c *counts) all() map[fleet.AppKey]fleet.RequestCounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[fleet.AppKey]fleet.RequestCounts, len(c.apps))
	for app, n := range c.apps {
		copied := *n
		copied.Buckets = slices.Clone(n.Buckets)
		out[app] = copied
	}
	return out
}
