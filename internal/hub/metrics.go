package hub

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub/outage"
)

// linksCollector tells how many sites are connected, away or unknown, when it is asked.
type linksCollector struct {
	fleet *Fleet
	desc  *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c linksCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c linksCollector) Collect(ch chan<- prometheus.Metric) {
	links := c.fleet.Links()
	for _, link := range []fleet.Link{fleet.LinkConnected, fleet.LinkAway, fleet.LinkUnknown} {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(links[link]), string(link))
	}
}

// zonesCollector tells which zones are silent as a whole, when it is asked.
type zonesCollector struct {
	zones        *outage.Zones
	count, sites *prometheus.Desc
}

func newZonesCollector(z *outage.Zones) zonesCollector {
	return zonesCollector{
		zones: z,
		count: prometheus.NewDesc("skerry_hub_zones_silent", "Zones that fell silent as a whole.", nil, nil),
		sites: prometheus.NewDesc("skerry_hub_zone_silent_sites", "Sites away in a zone that fell silent as a whole; absent for others.", []string{"zone"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c zonesCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.count
	ch <- c.sites
}

// Collect implements prometheus.Collector.
func (c zonesCollector) Collect(ch chan<- prometheus.Metric) {
	outages := c.zones.Outages()
	ch <- prometheus.MustNewConstMetric(c.count, prometheus.GaugeValue, float64(len(outages)))
	for _, z := range outages {
		ch <- prometheus.MustNewConstMetric(c.sites, prometheus.GaugeValue, float64(z.Away), z.Name)
	}
}

// registerMetrics registers what the hub's host itself tells.
func registerMetrics(r prometheus.Registerer, f *Fleet, d *Desired) error {
	links := linksCollector{fleet: f, desc: prometheus.NewDesc("skerry_hub_sites", "Sites that were heard of, by link.", []string{"link"}, nil)}
	for _, c := range []prometheus.Collector{links, d.writes, f.reports} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}
