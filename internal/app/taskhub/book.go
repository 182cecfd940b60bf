package taskhub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/hub"
	"github.com/skerry-dev/skerry/internal/wire"
)

// book is the decoded form of every site's section of tasks, and the only way to change one. It holds nothing
// that the desired state does not.
type book struct {
	desired *hub.Desired
	// freed is called with each task that found no room at some site, once that has room. It must not block.
	freed func(task.Ref)

	mu    sync.RWMutex
	sites map[fleet.SiteName]*page
}

// page is one site's section. Its mutex is held while the section is written.
type page struct {
	mu    sync.Mutex
	facts fleet.Facts
	tasks map[task.Ref]task.Entry
	// size of the section in bytes; full are the tasks for which it had no room.
	size int
	full map[task.Ref]bool
}

func newBook(d *hub.Desired) *book {
	return &book{desired: d, sites: map[fleet.SiteName]*page{}, freed: func(task.Ref) {}}
}

// load reads what a site was told by an earlier life of the hub.
func (b *book) load(site fleet.SiteName) ([]task.Ref, error) {
	body := b.desired.Section(site, task.SectionName)
	if body == nil {
		return nil, nil
	}
	section, err := task.DecodeSection(body)
	if err != nil {
		return nil, fmt.Errorf("site %s: %w", site, err)
	}
	p := b.page(site)
	p.facts, p.size = section.Facts, len(body)
	for _, e := range section.Tasks {
		p.tasks[e.Ref] = e
	}
	return slices.Collect(maps.Keys(p.tasks)), nil
}

func (b *book) page(site fleet.SiteName) *page {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.sites[site]
	if !ok {
		p = &page{tasks: map[task.Ref]task.Entry{}, full: map[task.Ref]bool{}}
		b.sites[site] = p
	}
	return p
}

// told returns what site was told of a task, and whether it was.
func (b *book) told(site fleet.SiteName, ref task.Ref) (task.Entry, bool) {
	p := b.page(site)
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.tasks[ref]
	return e, ok
}

// tell makes e what the site of these facts is told of a task; nil takes it away. It does nothing when nothing
// changes.
func (b *book) tell(ctx context.Context, facts fleet.Facts, ref task.Ref, e *task.Entry) error {
	p := b.page(facts.Name)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, had := p.tasks[ref]; e == nil && !had {
		return nil
	}
	section := task.Section{Facts: facts, Tasks: []task.Entry{}}
	for other, entry := range p.tasks {
		if other != ref {
			section.Tasks = append(section.Tasks, entry)
		}
	}
	if e != nil {
		section.Tasks = append(section.Tasks, *e)
	}
	body, err := section.Encode()
	if err != nil {
		if errors.Is(err, wire.ErrTooLarge) {
			p.full[ref] = true
		}
		return fmt.Errorf("site %s: %w", facts.Name, err)
	}
	if err := b.desired.Set(ctx, facts.Name, task.SectionName, body); err != nil {
		return err
	}
	p.facts = facts
	if e == nil {
		delete(p.tasks, ref)
	} else {
		p.tasks[ref] = *e
	}
	delete(p.full, ref)
	if len(body) < p.size {
		for other := range p.full {
			b.freed(other)
		}
		clear(p.full)
	}
	p.size = len(body)
	return nil
}

// withdraw takes a task from every site that was told of it.
func (b *book) withdraw(ctx context.Context, ref task.Ref) error {
	for _, site := range b.sitesOf(ref) {
		if err := b.tell(ctx, b.factsOf(site), ref, nil); err != nil {
			return fmt.Errorf("withdraw %s: %w", ref, err)
		}
	}
	return nil
}

// forget drops a site that is gone.
func (b *book) forget(site fleet.SiteName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sites, site)
}

// factsOf returns those that a site was last told.
func (b *book) factsOf(site fleet.SiteName) fleet.Facts {
	p := b.page(site)
	p.mu.Lock()
	defer p.mu.Unlock()
	facts := p.facts
	facts.Name = site
	return facts
}

func (b *book) names() []fleet.SiteName {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return slices.Sorted(maps.Keys(b.sites))
}

// sitesOf returns the sites that were told of a task, in order.
func (b *book) sitesOf(ref task.Ref) []fleet.SiteName {
	return slices.DeleteFunc(b.names(), func(site fleet.SiteName) bool {
		_, told := b.told(site, ref)
		return !told
	})
}

func (b *book) entriesAt(site fleet.SiteName) []task.Entry {
	b.mu.RLock()
	p, ok := b.sites[site]
	b.mu.RUnlock()
	if !ok {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.tasks))
}

func (b *book) refsAt(site fleet.SiteName) []task.Ref {
	var out []task.Ref
	for _, e := range b.entriesAt(site) {
		out = append(out, e.Ref)
	}
	return out
}

func (b *book) bundlesAt(site fleet.SiteName) []app.Bundle {
	var out []app.Bundle
	for _, e := range b.entriesAt(site) {
		if e.Bundle != nil {
			out = append(out, e.Bundle.Bundle)
		}
	}
	return out
}

func (b *book) bundles() []app.Bundle {
	seen := map[app.Bundle]bool{}
	for _, site := range b.names() {
		for _, bundle := range b.bundlesAt(site) {
			seen[bundle] = true
		}
	}
	return slices.Collect(maps.Keys(seen))
}
