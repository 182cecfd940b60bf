package apphub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire"
)

// book is the decoded form of every site's section of apps, and the only way to change one. It holds
// nothing that the desired state does not.
type book struct {
	desired *hub.Desired
	// changed is called with a site after what it is told changed.
	changed func(fleet.SiteName)

	mu    sync.RWMutex
	sites map[fleet.SiteName]*page
	// where lists the sites that were told of an app.
	where map[fleet.AppKey]map[fleet.SiteName]bool
	// lost are the sites whose section was not found at the start, although machines of theirs run; pending
	// the apps that were not looked at since. See settled.
	lost    map[fleet.SiteName]bool
	pending map[fleet.AppKey]bool

	// freed is called with each app that was kept from a route at some site once that route is free, or from a
	// site that was full once that has room. It must
	// not block. It is set before the book is used.
	freed func(fleet.AppKey)
}

// page is one site's section. Its mutex is held while the section is written, so that two apps that
// change at once do not lose each other's placement.
type page struct {
	mu    sync.Mutex
	facts fleet.Facts
	apps  map[fleet.AppKey]app.Placement
	// kept are the apps that wanted a route which another has, by route.
	kept map[app.Route]map[fleet.AppKey]bool
	// body is the section as it was last stored, by this life of the hub; nil before.
	body []byte
	// size of the section in bytes; full are the apps for which it had no room.
	size int
	full map[fleet.AppKey]bool
}

func newBook(d *hub.Desired, changed func(fleet.SiteName)) *book {
	return &book{
		desired: d, changed: changed, sites: map[fleet.SiteName]*page{}, where: map[fleet.AppKey]map[fleet.SiteName]bool{},
		lost: map[fleet.SiteName]bool{}, pending: map[fleet.AppKey]bool{}, freed: func(fleet.AppKey) {},
	}
}

// rebuild says that a site's section was lost. Nothing is written for the site until every one of apps was
// looked at: a section with the first of them alone would make the site remove the others.
func (b *book) rebuild(site fleet.SiteName, apps []fleet.AppKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost[site] = true
	b.desired.Hold(site, app.SectionName)
	for _, key := range apps {
		b.pending[key] = true
	}
}

// settled says that an app was looked at since the start. After the last one the sections that were lost are
// written whole.
func (b *book) settled(ctx context.Context, key fleet.AppKey) error {
	b.mu.Lock()
	delete(b.pending, key)
	var ready []fleet.SiteName
	if len(b.pending) == 0 {
		ready = slices.Sorted(maps.Keys(b.lost))
	}
	b.mu.Unlock()
	for _, site := range ready {
		if err := b.writeLost(ctx, site); err != nil {
			return err
		}
	}
	return nil
}

func (b *book) writeLost(ctx context.Context, site fleet.SiteName) error {
	p := b.page(site)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.facts.Name != "" {
		body, err := app.Section{Facts: p.facts, Apps: slices.Collect(maps.Values(p.apps))}.Encode()
		if err != nil {
			return fmt.Errorf("site %s: %w", site, err)
		}
		if err := b.desired.Set(ctx, site, app.SectionName, body); err != nil {
			return err
		}
	}
	if err := b.desired.Release(ctx, site); err != nil {
		return err
	}
	b.mu.Lock()
	delete(b.lost, site)
	b.mu.Unlock()
	b.changed(site)
	return nil
}

func (b *book) anyLost() bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.lost) > 0
}

func (b *book) isLost(site fleet.SiteName) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.lost[site]
}

// load reads what a site was told by an earlier life of the hub, and reports whether anything is known.
func (b *book) load(site fleet.SiteName) (known bool, err error) {
	body := b.desired.Section(site, app.SectionName)
	if body == nil {
		return false, nil
	}
	section, err := app.DecodeSection(body)
	if err != nil {
		return false, fmt.Errorf("site %s: %w", site, err)
	}
	p := b.page(site)
	p.facts, p.size = section.Facts, len(body)
	for _, placement := range section.Apps {
		p.apps[placement.App] = placement
		b.note(site, placement.App, true)
	}
	return true, nil
}

func (b *book) page(site fleet.SiteName) *page {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.sites[site]
	if !ok {
		p = &page{apps: map[fleet.AppKey]app.Placement{}, kept: map[app.Route]map[fleet.AppKey]bool{}, full: map[fleet.AppKey]bool{}}
		b.sites[site] = p
	}
	return p
}

func (b *book) note(site fleet.SiteName, key fleet.AppKey, told bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if told {
		if b.where[key] == nil {
			b.where[key] = map[fleet.SiteName]bool{}
		}
		b.where[key][site] = true
		return
	}
	delete(b.where[key], site)
	if len(b.where[key]) == 0 {
		delete(b.where, key)
	}
}

// told returns what site was told of an app; the zero Placement when nothing.
func (b *book) told(site fleet.SiteName, key fleet.AppKey) app.Placement {
	b.mu.RLock()
	p, ok := b.sites[site]
	b.mu.RUnlock()
	if !ok {
		return app.Placement{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.apps[key]
}

// tell makes placement what the site of these facts runs of its app; nil takes the app away. The site's
// other apps stay as they are. It does nothing when nothing changes. Two apps never have one route at a site:
// the one that was told first keeps it, and the other gets a routeTakenError.
func (b *book) tell(ctx context.Context, facts fleet.Facts, key fleet.AppKey, placement *app.Placement) error {
	p := b.page(facts.Name)
	p.mu.Lock()
	defer p.mu.Unlock()
	old, had := p.apps[key]
	if placement == nil && !had {
		return nil
	}
	if placement != nil && old.Digest != placement.Digest {
		if holder, taken := p.holder(*placement); taken {
			p.keep(*placement.Route, key)
			return &routeTakenError{holder}
		}
	}
	if placement != nil && had && old.Digest == placement.Digest && b.unchanged(p, facts) {
		return nil
	}
	section := app.Section{Facts: facts}
	for k, other := range p.apps {
		if k != key {
			section.Apps = append(section.Apps, other)
		}
	}
	if placement != nil {
		section.Apps = append(section.Apps, *placement)
	}
	body, err := section.Encode()
	if err != nil {
		if errors.Is(err, wire.ErrTooLarge) {
			p.full[key] = true
		}
		return fmt.Errorf("site %s: %w", facts.Name, err)
	}
	if !b.isLost(facts.Name) {
		if err := b.desired.Set(ctx, facts.Name, app.SectionName, body); err != nil {
			return err
		}
	}
	p.facts = facts
	p.body = b.desired.Section(facts.Name, app.SectionName)
	if placement == nil {
		delete(p.apps, key)
	} else if old.Digest != placement.Digest || !had {
		p.apps[key] = *placement
	}
	b.note(facts.Name, key, placement != nil)
	delete(p.full, key)
	if len(body) < p.size {
		for other := range p.full {
			b.freed(other)
		}
		clear(p.full)
	}
	p.size = len(body)
	if old.Route != nil && (placement == nil || placement.Route == nil || *placement.Route != *old.Route) {
		b.free(p, *old.Route)
	}
	if placement == nil || old.Digest != placement.Digest {
		b.changed(facts.Name)
	}
	return nil
}

// unchanged reports whether a site of these facts is told what its page says: nothing else was stored since this
// life of the hub stored it, which spares a pass over many sites to make every section again. The caller holds
// p.mu.
func (b *book) unchanged(p *page, facts fleet.Facts) bool {
	now := b.desired.Section(facts.Name, app.SectionName)
	return len(p.body) > 0 && len(now) == len(p.body) && &now[0] == &p.body[0] && !b.isLost(facts.Name) &&
		p.facts.Zone == facts.Zone && p.facts.TimeZone == facts.TimeZone && maps.Equal(p.facts.Labels, facts.Labels)
}

// forget drops a site that is gone.
func (b *book) forget(site fleet.SiteName) {
	for _, key := range b.appsAt(site) {
		b.note(site, key, false)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sites, site)
}

// facts returns those that a site was last told.
func (b *book) factsOf(site fleet.SiteName) fleet.Facts {
	p := b.page(site)
	p.mu.Lock()
	defer p.mu.Unlock()
	facts := p.facts
	facts.Name = site
	return facts
}

// sitesOf returns the sites that were told of an app, in order.
func (b *book) sitesOf(key fleet.AppKey) []fleet.SiteName {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]fleet.SiteName, 0, len(b.where[key]))
	for site := range b.where[key] {
		out = append(out, site)
	}
	slices.Sort(out)
	return out
}

// apps returns every app that some site was told of.
func (b *book) apps() []fleet.AppKey {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]fleet.AppKey, 0, len(b.where))
	for key := range b.where {
		out = append(out, key)
	}
	return out
}

// placementsAt returns what site is told to run.
func (b *book) placementsAt(site fleet.SiteName) []app.Placement {
	b.mu.RLock()
	p, ok := b.sites[site]
	b.mu.RUnlock()
	if !ok {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.apps))
}

func (b *book) appsAt(site fleet.SiteName) []fleet.AppKey {
	var out []fleet.AppKey
	for _, placement := range b.placementsAt(site) {
		out = append(out, placement.App)
	}
	return out
}

func (b *book) bundlesAt(site fleet.SiteName) []app.Bundle {
	var out []app.Bundle
	for _, placement := range b.placementsAt(site) {
		out = append(out, placement.Bundle)
	}
	return out
}

func (b *book) bundles() []app.Bundle {
	b.mu.RLock()
	sites := make([]fleet.SiteName, 0, len(b.sites))
	for site := range b.sites {
		sites = append(sites, site)
	}
	b.mu.RUnlock()
	seen := map[app.Bundle]bool{}
	var out []app.Bundle
	for _, site := range sites {
		for _, bundle := range b.bundlesAt(site) {
			if !seen[bundle] {
				seen[bundle] = true
				out = append(out, bundle)
			}
		}
	}
	return out
}

func objectKey(key fleet.AppKey) types.NamespacedName {
	return types.NamespacedName{Namespace: key.Namespace, Name: key.Name}
}
