package main

import (
	"context"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/cmd/internal/installer"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/apphub"
	"github.com/skerry-dev/skerry/internal/app/taskhub"
	"github.com/skerry-dev/skerry/internal/delivery/deliveryhub"
	"github.com/skerry-dev/skerry/internal/enroll/enrollhub"
	"github.com/skerry-dev/skerry/internal/event/eventhub"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/ociregistry"
	"github.com/skerry-dev/skerry/internal/secret/secrethub"
	"github.com/skerry-dev/skerry/internal/telemetry"
	"github.com/skerry-dev/skerry/internal/upkeep"
	"github.com/skerry-dev/skerry/internal/upkeep/upkeephub"
	"github.com/skerry-dev/skerry/internal/wire"
)

// features are the hub's halves. A new capability is one line in list; the site's are in
// cmd/internal/agent.
type features struct {
	enroll   *enrollhub.Feature
	apps     *apphub.Feature
	tasks    *taskhub.Feature
	secrets  *secrethub.Feature
	registry *registryFeature
	bus      *busFeature
	install  *installer.Feature
	events   *eventhub.Feature
	metrics  *metricsFeature
	agents   *upkeephub.Feature
}

func newFeatures(o hubOptions, metrics map[string]prometheus.Gatherer, bus *busParts, authority *enrollhub.Authority, gateways *enrollhub.GatewayAuthority) *features {
	found := &bundles{}
	f := &features{
		enroll:  enrollhub.NewFeature(enrollhub.FeatureOptions{Issuer: bus.issuer, Authority: authority, Gateways: gateways, BusURLs: bus.siteURLs, TTL: o.credentialLife, OtherURLs: o.otherURLs}),
		apps:    apphub.New(found),
		tasks:   taskhub.New(found),
		bus:     &busFeature{bus},
		install: installer.New(o.siteBinaries),
		events:  eventhub.New(bus.store),
		metrics: &metricsFeature{metrics},
	}
	f.secrets = secrethub.New(f.apps)
	f.apps.UseSecrets(f.secrets)
	f.agents = upkeephub.New(&agents{found})
	f.registry = &registryFeature{
		bundles: found, member: f.enroll.Member, siteBundles: f.siteContent, liveBundles: f.liveContent,
	}
	return f
}

// siteContent is what a site may fetch: its apps' and tasks' bundles and its agent.
func (f *features) siteContent(site fleet.SiteName) []app.Bundle {
	all := slices.Concat(f.apps.SiteBundles(site), f.tasks.SiteBundles(site))
	if d := f.agents.Content(site); d != "" {
		all = append(all, app.Bundle{Repository: upkeep.Repository, Digest: d})
	}
	return all
}

// liveContent is what must stay in the registry although no tag may name it.
func (f *features) liveContent() []app.Bundle {
	all := slices.Concat(f.apps.LiveBundles(), f.tasks.LiveBundles())
	for _, d := range f.agents.Live() {
		all = append(all, app.Bundle{Repository: upkeep.Repository, Digest: d})
	}
	return all
}

// bind hands the registry, which asks its feature for rights, to those who use it.
func (f *features) bind(r *ociregistry.Registry) {
	f.registry.registry = r
	f.registry.bundles.registry = r
}

// list is every feature of the hub, in the order of its setup.
func (f *features) list() []hub.Feature {
	return []hub.Feature{
		f.bus,
		f.enroll,
		f.registry,
		f.apps,
		f.tasks,
		f.secrets,
		f.agents,
		f.install,
		f.events,
		deliveryhub.New(),
		f.metrics,
	}
}

// busFeature lets sites reach the bus through the hub's port.
type busFeature struct{ bus *busParts }

// Name implements hub.Feature.
func (f *busFeature) Name() string { return "bus" }

// Setup implements hub.Feature.
func (f *busFeature) Setup(_ context.Context, h *hub.Host) error {
	h.Public.Handle(wire.PathBus, f.bus.webSocket)
	return f.bus.onTransport(func(site fleet.SiteName, _ fleet.MemberID, now fleet.Transport) { h.Fleet.Transport(site, now) })
}

// metricsFeature serves the hub's metrics on its port, to who may read the path in the Kubernetes API.
type metricsFeature struct {
	paths map[string]prometheus.Gatherer
}

// Name implements hub.Feature.
func (f *metricsFeature) Name() string { return "metrics" }

// Setup implements hub.Feature.
func (f *metricsFeature) Setup(_ context.Context, h *hub.Host) error {
	serve := telemetry.Handler(f.paths, nil)
	for path := range f.paths {
		h.Public.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if _, err := h.People.Check(r, hub.Right{Verb: "get", Path: path}); err != nil {
				hub.Fail(w, err)
				return
			}
			serve.ServeHTTP(w, r)
		})
	}
	return nil
}
