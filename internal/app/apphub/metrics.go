package apphub

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app"
)

// standings tells at how many sites each App stands how, as App.status says, when it is asked.
type standings struct {
	apps client.Reader
	desc *prometheus.Desc
}

func newStandings(apps client.Reader) standings {
	return standings{apps: apps, desc: prometheus.NewDesc("skerry_hub_app_sites",
		"Sites on which an app is placed, by where it stands there.", []string{"namespace", "app", "standing"}, nil)}
}

// collectTimeout bounds the wait for a cache that is not filled yet.
const collectTimeout = time.Second

// Describe implements prometheus.Collector.
func (s standings) Describe(ch chan<- *prometheus.Desc) { ch <- s.desc }

// Collect implements prometheus.Collector.
func (s standings) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	var list v1alpha1.AppList
	if s.apps.List(ctx, &list) != nil {
		return
	}
	for i := range list.Items {
		a := &list.Items[i]
		for standing, n := range map[app.Standing]int32{
			app.StandingHealthy: a.Status.Sites.Healthy, app.StandingProgressing: a.Status.Sites.Progressing,
			app.StandingWaiting: a.Status.Sites.Waiting, app.StandingFailed: a.Status.Sites.Failed,
		} {
			ch <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, float64(n), a.Namespace, a.Name, string(standing))
		}
	}
}
