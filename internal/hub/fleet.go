package hub

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// awayAfter is how long a site may be silent before it counts as away: three of its signs of life.
const awayAfter = 3 * wire.AliveSeconds * time.Second

// Fleet knows the newest report of every site and whether the site is there. It keeps both in memory
// alone; reports are stored on the bus and read again at the next start.
type Fleet struct {
	bus   wire.Bus
	store wire.Store
	log   *slog.Logger
	now   func() time.Time
	// reports counts reports, by whether they were taken.
	reports *prometheus.CounterVec

	mu       sync.Mutex
	sites    map[fleet.SiteName]*siteState
	started  time.Time
	watchers []func(fleet.SiteName)
}

type siteState struct {
	report    wire.Report
	hasReport bool
	// lastHeard is zero when nothing was heard since this hub started.
	lastHeard time.Time
	leaving   bool
	reason    fleet.Leaving
	transport fleet.Transport
	// heardBy is what connected neighbours say of the site.
	heardBy map[fleet.SiteName]bool
	link    fleet.Link
}

// NewFleet returns a Fleet that knows nothing; Run fills it.
func NewFleet(bus wire.Bus, store wire.Store, log *slog.Logger, now func() time.Time) *Fleet {
	return &Fleet{bus: bus, store: store, log: log, now: now, sites: map[fleet.SiteName]*siteState{}, started: now(),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "skerry_hub_reports_total", Help: "Reports of sites, by what became of them."}, []string{"result"})}
}

// OnChange registers fn to be called with each site whose report or link changed. It must not block. Only
// before Run.
func (f *Fleet) OnChange(fn func(fleet.SiteName)) { f.watchers = append(f.watchers, fn) }

// Report returns the newest report of site and whether there is one.
func (f *Fleet) Report(site fleet.SiteName) (wire.Report, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.sites[site]
	if !ok || !s.hasReport {
		return wire.Report{}, false
	}
	return s.report, true
}

// Link returns whether site is there. LinkUnknown: this hub started too recently to say.
func (f *Fleet) Link(site fleet.SiteName) fleet.Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	link := f.linkOf(f.sites[site])
	if link == fleet.LinkUnknown {
		f.state(site) // whoever asked is told when it is known, of a site that never comes too
	}
	return link
}

func (f *Fleet) linkOf(s *siteState) fleet.Link {
	switch now := f.now(); {
	case s != nil && s.leaving:
		return fleet.LinkAway
	case s != nil && !s.lastHeard.IsZero() && now.Sub(s.lastHeard) < awayAfter:
		return fleet.LinkConnected
	case (s == nil || s.lastHeard.IsZero()) && now.Sub(f.started) < awayAfter:
		return fleet.LinkUnknown
	}
	return fleet.LinkAway
}

// LastHeard returns when site was last heard of by this hub; zero when it was not.
func (f *Fleet) LastHeard(site fleet.SiteName) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s, ok := f.sites[site]; ok {
		return s.lastHeard
	}
	return time.Time{}
}

// Forget drops what is known and stored of a site.
func (f *Fleet) Forget(ctx context.Context, site fleet.SiteName) error {
	if err := f.store.Purge(ctx, wire.ReportPattern(site)); err != nil {
		return fmt.Errorf("site %s: forget reports: %w", site, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s, ok := f.sites[site]; ok {
		f.takeNeighbours(site, s.report.Neighbours, nil)
	}
	delete(f.sites, site)
	return nil
}

// ForgetMember drops the stored report of one member, which another replaced.
func (f *Fleet) ForgetMember(ctx context.Context, site fleet.SiteName, member fleet.MemberID) error {
	if err := f.store.Purge(ctx, wire.ReportSubject(site, member)); err != nil {
		return fmt.Errorf("site %s: forget report of member %s: %w", site, member, err)
	}
	f.mu.Lock()
	s, ok := f.sites[site]
	ok = ok && s.hasReport && s.report.Member == member
	if ok {
		s.report, s.hasReport = wire.Report{}, false
	}
	f.mu.Unlock()
	if ok {
		f.changed(site)
	}
	return nil
}

// Run follows reports and signs of life until ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	cancel, err := f.bus.Subscribe(ctx, wire.AllAlive, f.heard)
	if err != nil {
		return fmt.Errorf("listen for signs of life: %w", err)
	}
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { f.sweep(ctx) })
	for {
		err := f.store.Watch(ctx, wire.AllReports, f.reported)
		if ctx.Err() != nil {
			return nil
		}
		f.log.Warn("following reports was interrupted and starts again", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// Links counts the sites that were heard of, by link.
func (f *Fleet) Links() map[fleet.Link]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[fleet.Link]int{}
	for _, s := range f.sites {
		out[f.linkOf(s)]++
	}
	return out
}

// NeedLeaderElection makes a Fleet run on every hub, leader or not: each answers views.
func (f *Fleet) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable.
func (f *Fleet) Start(ctx context.Context) error { return f.Run(ctx) }

func (f *Fleet) reported(m wire.Message) {
	if m.Subject == "" {
		return
	}
	site, member, err := wire.ParseReport(m.Subject)
	if err != nil {
		f.log.Warn("ignoring a report", "subject", m.Subject, "error", err)
		return
	}
	report, err := wire.DecodeReport(m.Data)
	if err != nil || report.Site != site || report.Member != member {
		// The subject is what the bus enforced; a body that says otherwise is a fault or a lie.
		f.log.Warn("ignoring a report", "site", site, "member", member, "error", err)
		f.reports.WithLabelValues("refused").Inc()
		return
	}
	f.mu.Lock()
	s := f.state(site)
	if s.hasReport && !report.Newer(s.report) {
		f.mu.Unlock()
		return
	}
	told := f.takeNeighbours(site, s.report.Neighbours, report.Neighbours)
	s.report, s.hasReport = report, true
	f.mu.Unlock()
	f.reports.WithLabelValues("taken").Inc()
	f.changed(site)
	for _, other := range told {
		f.changed(other)
	}
}

func (f *Fleet) heard(m wire.Message) {
	site, _, err := wire.ParseAlive(m.Subject)
	if err != nil {
		return
	}
	var alive wire.Alive
	if err := wire.DecodeJSON("alive", m.Data, &alive); err != nil {
		f.log.Warn("ignoring a sign of life", "site", site, "error", err)
		return
	}
	f.mu.Lock()
	s := f.state(site)
	s.lastHeard, s.leaving, s.reason = f.now(), alive.Leaving, alive.Reason
	changed := f.update(s)
	f.mu.Unlock()
	if changed {
		f.changed(site)
	}
}

// sweep finds the sites that fell silent.
func (f *Fleet) sweep(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var changed []fleet.SiteName
		f.mu.Lock()
		for name, s := range f.sites {
			if f.update(s) {
				changed = append(changed, name)
			}
		}
		f.mu.Unlock()
		slices.Sort(changed)
		for _, name := range changed {
			f.changed(name)
		}
	}
}

// update recomputes a site's link and reports whether it changed. The caller holds f.mu.
func (f *Fleet) update(s *siteState) bool {
	link := f.linkOf(s)
	if link == s.link {
		return false
	}
	s.link = link
	return true
}

func (f *Fleet) state(site fleet.SiteName) *siteState {
	s, ok := f.sites[site]
	if !ok {
		s = &siteState{link: fleet.LinkUnknown}
		f.sites[site] = s
	}
	return s
}

func (f *Fleet) changed(site fleet.SiteName) {
	for _, fn := range f.watchers {
		fn(site)
	}
}
