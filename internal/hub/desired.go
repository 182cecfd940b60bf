package hub

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Desired is what every site is told: the one writer of manifests and sections. A section has one owner,
// which alone calls Set for it.
//
// A section is stored before the manifest that names its digest, and the manifest before the hint. A hub
// that dies in between leaves a manifest that still names the old body's digest; the owner's next Set
// mends it, since it compares with the manifest.
type Desired struct {
	bus   wire.Bus
	store wire.Store
	log   *slog.Logger
	epoch string
	// writes counts manifests that were written.
	writes prometheus.Counter

	mu    sync.Mutex
	sites map[fleet.SiteName]*desiredSite
}

type desiredSite struct {
	mu       sync.Mutex
	manifest wire.Manifest
	revision uint64
	sections map[string][]byte
	// holder is the section whose owner holds the site, and waiting what others told it meanwhile; see Hold.
	holder  string
	waiting map[string][]byte
}

// LoadDesired reads what was stored before and returns when all of it is known.
func LoadDesired(ctx context.Context, bus wire.Bus, store wire.Store, log *slog.Logger) (*Desired, error) {
	d := &Desired{bus: bus, store: store, log: log, sites: map[fleet.SiteName]*desiredSite{},
		writes: prometheus.NewCounter(prometheus.CounterOpts{Name: "skerry_hub_manifests_written_total", Help: "Manifests written for sites."})}
	if err := d.loadEpoch(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	caughtUp := false
	err := store.Watch(ctx, wire.AllDesired, func(m wire.Message) {
		if caughtUp {
			return
		}
		if m.Subject == "" {
			caughtUp = true
			cancel()
			return
		}
		d.load(m)
	})
	if !caughtUp {
		return nil, fmt.Errorf("read the desired state of sites: %w", err)
	}
	return d, nil
}

func (d *Desired) loadEpoch(ctx context.Context) error {
	m, err := d.bus.Get(ctx, wire.HubEpochSubject)
	if errors.Is(err, wire.ErrNotFound) {
		epoch := rand.Text()
		if _, err = d.bus.Put(ctx, wire.HubEpochSubject, []byte(epoch), 0); err == nil {
			d.epoch = epoch
			return nil
		}
		if errors.Is(err, wire.ErrConflict) { // another hub was quicker
			m, err = d.bus.Get(ctx, wire.HubEpochSubject)
		}
	}
	if err != nil {
		return fmt.Errorf("read the hub's epoch: %w", err)
	}
	d.epoch = string(m.Data)
	return nil
}

func (d *Desired) load(m wire.Message) {
	if m.Subject == wire.HubEpochSubject {
		return
	}
	site, section, err := wire.ParseDesired(m.Subject)
	if err != nil {
		d.log.Warn("ignoring a stored subject", "subject", m.Subject, "error", err)
		return
	}
	s := d.site(site)
	if section != wire.ManifestSection {
		s.sections[section] = m.Data
		return
	}
	d.loadManifest(site, s, m)
}

// loadManifest takes a stored manifest; of a damaged one its revision alone, so that it can be replaced.
func (d *Desired) loadManifest(site fleet.SiteName, s *desiredSite, m wire.Message) {
	manifest, err := wire.DecodeManifest(m.Data)
	if err != nil {
		d.log.Error("stored manifest is damaged and will be written anew", "site", site, "error", err)
		manifest = wire.Manifest{}
	}
	s.manifest, s.revision = manifest, m.Revision
}

func (d *Desired) site(name fleet.SiteName) *desiredSite {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.sites[name]
	if !ok {
		s = &desiredSite{sections: map[string][]byte{}}
		d.sites[name] = s
	}
	return s
}

// Section returns the body that site is told under name; nil when there is none. It must not be changed.
func (d *Desired) Section(site fleet.SiteName, name string) []byte {
	s := d.site(site)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sections[name]
}

// Manifest returns what site is told now; its generation is zero when it was never told anything.
func (d *Desired) Manifest(site fleet.SiteName) wire.Manifest {
	s := d.site(site)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.manifest
}

// Hold keeps what other sections' owners tell a site until Release. The owner of a section that was lost calls it
// before any reconciler runs: a manifest of another section alone would make the site remove what it has of this one.
func (d *Desired) Hold(site fleet.SiteName, section string) {
	s := d.site(site)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holder, s.waiting = section, map[string][]byte{}
}

// Release tells the site what others said while it was held. It is called again until it succeeds.
func (d *Desired) Release(ctx context.Context, site fleet.SiteName) error {
	s := d.site(site)
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, body := range s.waiting {
		if err := d.set(ctx, site, s, name, body); err != nil {
			return err
		}
		delete(s.waiting, name)
	}
	s.holder, s.waiting = "", nil
	return nil
}

// Set makes body the section of that name for site and tells the site; nil removes it. It does nothing
// when the site is told the same already, and nothing to a site that is being wiped. A site that another section's
// owner holds is told later.
func (d *Desired) Set(ctx context.Context, site fleet.SiteName, name string, body []byte) error {
	s := d.site(site)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != "" && s.holder != name {
		s.waiting[name] = body
		return nil
	}
	return d.set(ctx, site, s, name, body)
}

// set is Set of a site that nobody holds. The caller holds s.mu.
func (d *Desired) set(ctx context.Context, site fleet.SiteName, s *desiredSite, name string, body []byte) error {
	old, had := s.manifest.Sections[name]
	current := d.current(s.manifest)
	switch {
	case s.manifest.Wipe:
		return nil
	case body == nil && !had && current:
		return nil
	case body != nil && had && current && old.Digest == fleet.DigestOf(body) && bytes.Equal(s.sections[name], body):
		return nil
	}
	if body != nil {
		if _, err := d.bus.Put(ctx, wire.DesiredSubject(site, name), body, wire.AnyRevision); err != nil {
			return fmt.Errorf("site %s: store section %s: %w", site, name, err)
		}
	}
	return d.write(ctx, site, s, func(m *wire.Manifest) {
		if body == nil {
			delete(m.Sections, name)
			delete(s.sections, name)
			return
		}
		m.Sections[name] = wire.SectionRef{Digest: fleet.DigestOf(body), Size: int64(len(body))}
		s.sections[name] = body
	})
}

// current reports whether a manifest is of this life of the hub's memory.
func (d *Desired) current(m wire.Manifest) bool { return strings.HasPrefix(m.HubEpoch, d.epoch+".") }

// BeginAgain tells a site everything under a new epoch, when the site has seen a later generation of the
// same epoch than is stored here: the bus was restored from a backup, and the site would ignore what it is
// told until the numbers had caught up.
func (d *Desired) BeginAgain(ctx context.Context, site fleet.SiteName, epoch string, seen uint64) error {
	s := d.site(site)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.manifest.Generation == 0 || epoch != s.manifest.HubEpoch || seen <= s.manifest.Generation {
		return nil
	}
	d.log.Warn("a site has seen a later generation than is stored: telling it everything anew", "site", site, "seen", seen, "stored", s.manifest.Generation)
	return d.write(ctx, site, s, func(m *wire.Manifest) { m.HubEpoch = d.newEpoch() })
}

// newEpoch names one life of one site's manifests.
func (d *Desired) newEpoch() string { return d.epoch + "." + rand.Text() }

// Wipe asks the site to remove everything and forget who it is. Set does nothing after it.
func (d *Desired) Wipe(ctx context.Context, site fleet.SiteName) error {
	s := d.site(site)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.manifest.Wipe {
		return nil
	}
	return d.write(ctx, site, s, func(m *wire.Manifest) {
		m.Wipe = true
		clear(m.Sections)
	})
}

// write stores the next generation of a site's manifest and hints at it. The caller holds s.mu.
func (d *Desired) write(ctx context.Context, site fleet.SiteName, s *desiredSite, change func(*wire.Manifest)) error {
	next := wire.Manifest{HubEpoch: s.manifest.HubEpoch, Generation: s.manifest.Generation + 1, Wipe: s.manifest.Wipe, Sections: map[string]wire.SectionRef{}}
	if !d.current(s.manifest) {
		// A Site that is deleted and made again counts from one: its manifests carry an epoch of their own,
		// so that a machine that was away meanwhile takes them for newer.
		next.HubEpoch = d.newEpoch()
	}
	for name, ref := range s.manifest.Sections {
		next.Sections[name] = ref
	}
	change(&next)
	data, err := next.Encode()
	if err != nil {
		return fmt.Errorf("site %s: %w", site, err)
	}
	revision, err := d.bus.Put(ctx, wire.DesiredSubject(site, wire.ManifestSection), data, s.revision)
	if errors.Is(err, wire.ErrConflict) {
		d.reload(ctx, site, s)
	}
	if err != nil {
		return fmt.Errorf("site %s: store manifest: %w", site, err)
	}
	s.manifest, s.revision = next, revision
	d.writes.Inc()
	// A lost hint costs time, not correctness: the site looks again by itself.
	if err := d.bus.Publish(ctx, wire.HintSubject(site), nil); err != nil {
		d.log.Debug("hint was not sent", "site", site, "error", err)
	}
	return nil
}

// reload takes what another hub wrote, so that the caller's next try starts from it. What cannot be read now
// stays as it was: the next try fails and reloads again.
func (d *Desired) reload(ctx context.Context, site fleet.SiteName, s *desiredSite) {
	m, err := d.bus.Get(ctx, wire.DesiredSubject(site, wire.ManifestSection))
	if errors.Is(err, wire.ErrNotFound) {
		s.manifest, s.revision, s.sections = wire.Manifest{}, 0, map[string][]byte{}
		return
	}
	if err != nil {
		return
	}
	d.loadManifest(site, s, m)
	s.sections = map[string][]byte{}
	for name := range s.manifest.Sections {
		if body, err := d.bus.Get(ctx, wire.DesiredSubject(site, name)); err == nil {
			s.sections[name] = body.Data
		}
	}
}

// Forget removes everything that is stored for site.
func (d *Desired) Forget(ctx context.Context, site fleet.SiteName) error {
	if err := d.store.Purge(ctx, wire.DesiredPattern(site)); err != nil {
		return fmt.Errorf("site %s: forget desired state: %w", site, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sites, site)
	return nil
}
