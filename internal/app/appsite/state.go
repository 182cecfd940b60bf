package appsite

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
)

// Records of the module in its bucket, besides those of trees.
const (
	sectionKey = "section" // the section as it came
	factsKey   = "facts"   // of the site, as last told
	appKey     = "app/"    // and the app's key: an appRecord
)

// appRecord is what must not be forgotten of one app.
type appRecord struct {
	// Desired is the newest placement; it says what becomes of data when the app leaves.
	Desired app.Placement `json:"desired"`
	// Good is the release that last became ready here.
	Good *release `json:"good,omitempty"`
	// Next is the release that was fetched to follow Good, so that it needs no network any more.
	Next *release `json:"next,omitempty"`
}

// keepStored keeps what the stored releases need, and removes other unpacked files.
func (m *Module) keepStored(records map[fleet.AppKey]appRecord) error {
	for key, rec := range records {
		var blobs, manifests []fleet.Digest
		for _, rel := range []*release{rec.Good, rec.Next} {
			if rel != nil {
				blobs, manifests = append(blobs, rel.Blobs...), append(manifests, rel.Manifest)
			}
		}
		if len(blobs) == 0 {
			continue // what was being fetched is still kept as it was
		}
		if err := errors.Join(m.host.Content.Keep(contentOwner(key), blobs), m.trees.Claim(key, manifests...)); err != nil {
			return err
		}
	}
	if err := m.keepJobs(); err != nil {
		return err
	}
	return m.trees.Sweep()
}

// Apply implements site.Module.
func (m *Module) Apply(_ context.Context, body []byte, facts fleet.Facts) error {
	section, err := decodeSection(body)
	if err != nil {
		return err
	}
	if section.Facts.Name == "" {
		section.Facts = facts
	}
	m.storing.Lock()
	defer m.storing.Unlock()
	records, err := m.records()
	if err != nil {
		return fmt.Errorf("apps: %w", err)
	}
	err = m.bucket.Update(func(w store.Writer) error {
		if err := w.Put(factsKey, section.Facts); err != nil {
			return err
		}
		if body == nil {
			if err := w.Delete(sectionKey); err != nil {
				return err
			}
		} else if err := w.PutBytes(sectionKey, body); err != nil {
			return err
		}
		for _, p := range section.Apps {
			rec := records[p.App]
			rec.Desired = p
			if err := w.Put(appKey+p.App.String(), rec); err != nil {
				return err
			}
			records[p.App] = rec
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("apps: %w", err)
	}
	m.direct(section, records)
	m.host.Changed()
	return nil
}

// direct tells each worker what its app should be, making those that are missing.
func (m *Module) direct(section app.Section, records map[fleet.AppKey]appRecord) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.facts = section.Facts
	wanted := map[fleet.AppKey]*app.Placement{}
	for i := range section.Apps {
		wanted[section.Apps[i].App] = &section.Apps[i]
	}
	for key := range records {
		m.employ(key, records[key])
	}
	for key := range wanted {
		m.employ(key, appRecord{})
	}
	for key, w := range m.apps {
		w.direct(wanted[key])
		if !w.begun {
			w.begun = true
			m.workers.Go(w.run)
		}
	}
}

func (m *Module) employ(key fleet.AppKey, rec appRecord) {
	if m.apps[key] == nil {
		m.apps[key] = newWorker(m, key, rec)
	}
}

// dismiss forgets an app that has left, and reports false when it was told of the app again meanwhile.
func (m *Module) dismiss(w *worker) bool {
	m.storing.Lock()
	defer m.storing.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.wants() != nil {
		return false
	}
	if err := m.bucket.Delete(appKey + w.key.String()); err != nil {
		m.log.Error("app does not leave", "app", w.key.String(), "error", err)
		return false
	}
	delete(m.apps, w.key)
	m.metrics.forget(w.key)
	m.host.Changed()
	return true
}

func (m *Module) records() (map[fleet.AppKey]appRecord, error) {
	keys, err := m.bucket.Keys()
	if err != nil {
		return nil, err
	}
	out := map[fleet.AppKey]appRecord{}
	for _, k := range keys {
		name, ok := strings.CutPrefix(k, appKey)
		if !ok {
			continue
		}
		key, err := fleet.ParseAppKey(name)
		if err != nil {
			return nil, fmt.Errorf("record %s: %w: %w", k, err, store.ErrDamaged)
		}
		var rec appRecord
		if err := m.bucket.Get(k, &rec); err != nil {
			return nil, err
		}
		out[key] = rec
	}
	return out, nil
}

// decodeSection reads a section; nil is one without apps.
func decodeSection(body []byte) (app.Section, error) {
	if body == nil {
		return app.Section{}, nil
	}
	return app.DecodeSection(body)
}
