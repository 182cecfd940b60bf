package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/wire"
)

// roundEnv is the variable of the app by which releases are told apart.
const roundEnv = "ROUND"

// apps is the module of apps of a light site: it says at once that it runs what it is told.
type apps struct {
	host *site.Host

	mu      sync.Mutex
	reports []app.AppReport
	// rounds are those of the placements told, by their digests.
	rounds map[fleet.Digest]string
}

var _ site.Module = (*apps)(nil)

// Name implements site.Module.
func (*apps) Name() string { return app.SectionName }

// Start implements site.Module.
func (*apps) Start(context.Context) error { return nil }

// Stop implements site.Module.
func (*apps) Stop(context.Context) error { return nil }

// Apply implements site.Module.
func (a *apps) Apply(_ context.Context, body []byte, _ fleet.Facts) error {
	var section app.Section
	if body != nil {
		var err error
		if section, err = app.DecodeSection(body); err != nil {
			return err
		}
	}
	now := time.Now().Unix()
	reports, rounds := []app.AppReport{}, map[fleet.Digest]string{}
	for _, p := range section.Apps {
		ref := app.ReleaseRef{Release: p.Release, Version: p.Version, Digest: p.Digest}
		reports = append(reports, app.AppReport{App: p.App, Desired: ref, Running: ref, Phase: fleet.PhaseRunning, Since: now})
		rounds[p.Digest] = p.Env[roundEnv]
	}
	a.mu.Lock()
	a.reports, a.rounds = reports, rounds
	a.mu.Unlock()
	a.host.Changed()
	return nil
}

// Report implements site.Module.
func (a *apps) Report() any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return app.Report{Apps: a.reports}
}

// roundOf returns the round of a placement that the site was told last; empty when it is another.
func (a *apps) roundOf(digest fleet.Digest) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rounds[digest]
}

// noGateway is the gateway of a site that serves nobody.
type noGateway struct{}

var _ site.Gateway = noGateway{}

// Name implements site.Module.
func (noGateway) Name() string { return "gateway" }

// Start implements site.Module.
func (noGateway) Start(context.Context) error { return nil }

// Apply implements site.Module.
func (noGateway) Apply(context.Context, []byte, fleet.Facts) error { return nil }

// Report implements site.Module.
func (noGateway) Report() any { return nil }

// Stop implements site.Module.
func (noGateway) Stop(context.Context) error { return nil }

// Set implements site.Router.
func (noGateway) Set(fleet.AppKey, site.Route) {}

// Remove implements site.Router.
func (noGateway) Remove(fleet.AppKey) {}

// Drain implements site.Router.
func (noGateway) Drain(context.Context, string) error { return nil }

// Counts implements site.Router.
func (noGateway) Counts() map[fleet.AppKey]fleet.RequestCounts { return nil }

// URL implements site.Router.
func (noGateway) URL() string { return "" }

// noContent refuses to fetch: light sites need no content.
type noContent struct{}

var errNoContent = errors.New("a light site fetches no content")

// Fetch implements site.Fetcher.
func (noContent) Fetch(context.Context, string, site.ContentRef, int64) (io.ReadCloser, error) {
	return nil, errNoContent
}

// watched is a site's bus that notes what of it was acknowledged.
type watched struct {
	wire.Bus
	times *times
	apps  *apps
	site  fleet.SiteName
	log   *slog.Logger
}

// Publish implements wire.Bus.
func (w *watched) Publish(ctx context.Context, subject string, data []byte) error {
	err := w.Bus.Publish(ctx, subject, data)
	if _, _, bad := wire.ParseAlive(subject); err == nil && bad == nil {
		w.times.sentAlive()
	}
	return err
}

// Get implements wire.Bus.
func (w *watched) Get(ctx context.Context, subject string) (wire.Message, error) {
	m, err := w.Bus.Get(ctx, subject)
	if subject == wire.DesiredSubject(w.site, wire.ManifestSection) && (err == nil || errors.Is(err, wire.ErrNotFound)) {
		w.times.pulled()
	}
	return m, err
}

// Put implements wire.Bus.
func (w *watched) Put(ctx context.Context, subject string, data []byte, revision uint64) (uint64, error) {
	stored, err := w.Bus.Put(ctx, subject, data, revision)
	if _, _, bad := wire.ParseReport(subject); err != nil || bad != nil {
		return stored, err
	}
	round, bad := w.roundIn(data)
	if bad != nil {
		w.log.Error("own report cannot be read", "error", bad)
	}
	w.times.reported(round)
	return stored, err
}

// roundIn returns the round of the app that a report says runs; empty when none does.
func (w *watched) roundIn(data []byte) (string, error) {
	report, err := wire.DecodeReport(data)
	if err != nil {
		return "", err
	}
	part := report.Modules[app.SectionName]
	if part == nil {
		return "", nil
	}
	var r app.Report
	if err := wire.DecodeJSON("report of apps", part, &r); err != nil {
		return "", fmt.Errorf("own report: %w", err)
	}
	if len(r.Apps) == 0 {
		return "", nil
	}
	return w.apps.roundOf(r.Apps[0].Running.Digest), nil
}
