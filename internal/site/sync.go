package site

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
	"github.com/skerry-dev/skerry/internal/wire"
)

// How often the site looks for a new manifest by itself, when no hint came, and how soon again after it
// could not.
const (
	recheckEvery = 5 * time.Minute
	retryEvery   = 2 * time.Second
)

// Keys of the agent's own records.
const (
	keyManifest = "manifest"
	keyEpoch    = "epoch"
	keySequence = "sequence"
	keyWiped    = "wiped"
	keySection  = "section/"
)

// load reads what an earlier life of this agent kept. A record that the disk damaged is as good as none: the
// hub has the manifest and its sections again, and reports begin a new epoch.
func (a *Agent) load() error {
	err := errors.Join(
		a.read(keyManifest, &a.manifest), a.read(keyWiped, &a.wiped), a.read(keySequence, &a.reserved), a.read(keyEpoch, &a.epoch))
	if err != nil {
		return err
	}
	for name, ref := range a.manifest.Sections {
		body, err := a.bucket.GetBytes(keySection + name)
		if err == nil {
			err = ref.Digest.Check(body)
		}
		if err != nil {
			a.log.Error("a stored section is damaged and is fetched again", "section", name, "error", err)
			delete(a.manifest.Sections, name)
			a.damaged = append(a.damaged, name)
		}
	}
	a.sequence = a.reserved
	if a.epoch != "" && a.reserved != 0 {
		return nil
	}
	a.epoch, a.sequence, a.reserved = rand.Text(), 0, 0
	err = a.bucket.Update(func(w store.Writer) error {
		return errors.Join(w.Put(keyEpoch, a.epoch), w.Put(keySequence, 0))
	})
	if err != nil {
		return fmt.Errorf("begin an epoch of reports: %w", err)
	}
	return nil
}

// read decodes a record into v, which stays zero when there is none that can be read.
func (a *Agent) read(key string, v any) error {
	err := a.bucket.Get(key, v)
	if errors.Is(err, store.ErrDamaged) {
		a.log.Error("a stored record is damaged and is made anew", "record", key, "error", err)
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("load %s: %w", key, err)
	}
	return nil
}

// applyAll hands every module its stored section, or nil when the manifest has none for it: how a site starts
// with no network, and how it ends what it was killed in. Before the first manifest nothing is known.
func (a *Agent) applyAll(ctx context.Context) {
	if a.manifest.Generation == 0 {
		return
	}
	for _, m := range a.modules {
		if !slices.Contains(a.damaged, m.Name()) {
			a.apply(ctx, m)
		}
	}
}

// apply hands a module the stored body of its section, nil when there is none.
func (a *Agent) apply(ctx context.Context, m Module) {
	body, err := a.bucket.GetBytes(keySection + m.Name())
	if _, ok := a.manifest.Sections[m.Name()]; !ok || errors.Is(err, store.ErrNotFound) {
		body, err = nil, nil
	}
	if err == nil {
		err = m.Apply(ctx, body, a.takeFacts(body))
	}
	a.setProblem(m.Name(), err)
}

// takeFacts finds the site's facts in a section that carries them; they stay what they were otherwise.
func (a *Agent) takeFacts(body []byte) fleet.Facts {
	var carrier struct {
		Facts *fleet.Facts `json:"facts"`
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if json.Unmarshal(body, &carrier) == nil && carrier.Facts != nil {
		a.facts = *carrier.Facts
	}
	if a.facts.Name == "" {
		a.facts.Name = a.o.Site
	}
	return a.facts
}

// follow pulls the manifest when the link comes up, when the hub hints, and every now and then.
func (a *Agent) follow(ctx context.Context) error {
	timer := time.NewTimer(recheckEvery)
	defer timer.Stop()
	subscribed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case link := <-a.links:
			a.linkChanged(link)
			if link != fleet.LinkConnected {
				continue
			}
		case <-a.hints:
		case <-timer.C:
		}
		var err error
		if !subscribed {
			// Kept for the life of the agent: the bus subscribes again after each break.
			_, err = a.o.Bus.Subscribe(ctx, wire.HintSubject(a.o.Site), func(wire.Message) { replace(a.hints, struct{}{}) })
			subscribed = err == nil
		}
		// Pulled after the subscription, so that no hint is missed in between.
		err = errors.Join(err, a.pull(ctx))
		switch {
		case errors.Is(err, ErrWiped):
			return err
		case ctx.Err() != nil:
			return nil
		case err != nil && a.currentLink() == fleet.LinkConnected:
			a.setProblem(partSync, err)
			timer.Reset(jitter(retryEvery))
		default:
			a.setProblem(partSync, nil)
			timer.Reset(jitter(recheckEvery))
		}
	}
}

func jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(mathrand.Int64N(int64(d)))
}

func (a *Agent) currentLink() fleet.Link {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.link
}

func (a *Agent) linkChanged(link fleet.Link) {
	a.mu.Lock()
	old := a.link
	a.link = link
	a.mu.Unlock()
	a.noteLink(old, link)
	if link == fleet.LinkConnected {
		replace(a.calls.connected, struct{}{}) // a sign of life at once
		replace(a.linked, struct{}{})
	}
	for _, m := range a.modules {
		if w, ok := m.(LinkWatcher); ok {
			w.LinkChanged(link)
		}
	}
	a.notifyChanged()
}

// pull takes the newest manifest with every section that it changes: all of it is on disk before any
// module hears of it.
func (a *Agent) pull(ctx context.Context) error {
	m, err := a.o.Bus.Get(ctx, wire.DesiredSubject(a.o.Site, wire.ManifestSection))
	if errors.Is(err, wire.ErrNotFound) {
		return nil // nothing was ever desired of this site
	}
	if err != nil {
		return fmt.Errorf("get manifest: %w", err)
	}
	next, err := wire.DecodeManifest(m.Data)
	if err != nil {
		return err
	}
	// A wipe that failed or was interrupted goes on, and what the disk damaged is fetched again, although
	// the manifest is the one that is known.
	same := next.HubEpoch == a.manifest.HubEpoch && next.Generation == a.manifest.Generation
	if !next.Newer(a.manifest) && (!same || !next.Wipe && len(a.damaged) == 0) {
		return nil
	}
	if next.Wipe {
		return a.wipe(ctx, next)
	}
	bodies, err := a.fetchSections(ctx, next)
	if err != nil {
		return err
	}
	if err := a.keep(next, bodies); err != nil {
		return err
	}
	old := a.manifest
	a.mu.Lock()
	a.manifest, a.wiped = next, false
	a.mu.Unlock()
	a.damaged = nil
	a.log.Info("took a new manifest", "generation", next.Generation)
	for _, mod := range a.modules {
		if next.Sections[mod.Name()] != old.Sections[mod.Name()] {
			a.apply(ctx, mod)
		}
	}
	a.notifyChanged()
	return nil
}

// fetchSections gets the bodies that next names and the kept manifest does not.
func (a *Agent) fetchSections(ctx context.Context, next wire.Manifest) (map[string][]byte, error) {
	bodies := map[string][]byte{}
	for name, ref := range next.Sections {
		if a.manifest.Sections[name] == ref {
			continue
		}
		m, err := a.o.Bus.Get(ctx, wire.DesiredSubject(a.o.Site, name))
		if err != nil {
			return nil, fmt.Errorf("get section %s: %w", name, err)
		}
		if err := ref.Digest.Check(m.Data); err != nil {
			// The hub is writing the next generation right now; its hint follows.
			return nil, fmt.Errorf("section %s is not the one that manifest %d names: %w", name, next.Generation, err)
		}
		bodies[name] = m.Data
	}
	return bodies, nil
}

func (a *Agent) keep(next wire.Manifest, bodies map[string][]byte) error {
	return a.bucket.Update(func(w store.Writer) error {
		for name := range a.manifest.Sections {
			if _, stays := next.Sections[name]; !stays {
				if err := w.Delete(keySection + name); err != nil {
					return err
				}
			}
		}
		for name, body := range bodies {
			if err := w.PutBytes(keySection+name, body); err != nil {
				return err
			}
		}
		if !next.Wipe {
			if err := w.Delete(keyWiped); err != nil { // a machine that joined again
				return err
			}
		}
		return w.Put(keyManifest, next)
	})
}

// wipe removes everything because the hub deleted this site, says so, and forgets who it was.
func (a *Agent) wipe(ctx context.Context, next wire.Manifest) error {
	a.log.Warn("the hub deleted this site: removing its apps and their data")
	if err := a.keep(next, nil); err != nil {
		return err
	}
	a.mu.Lock()
	a.manifest = next
	a.mu.Unlock()
	for _, m := range a.modules {
		if err := m.Apply(ctx, nil, a.takeFacts(nil)); err != nil {
			return fmt.Errorf("wipe module %s: %w", m.Name(), err)
		}
		if w, ok := m.(Wiper); ok {
			if err := w.Wipe(ctx); err != nil {
				return fmt.Errorf("wipe module %s: %w", m.Name(), err)
			}
		}
	}
	if err := a.bucket.Put(keyWiped, true); err != nil {
		return err
	}
	a.mu.Lock()
	a.wiped = true
	a.mu.Unlock()
	if err := a.sendReport(ctx); err != nil {
		// Not told: the hub sees the site off after a while without its word.
		a.log.Warn("could not tell the hub that this site is wiped", "error", err)
	}
	if a.o.Forget != nil {
		if err := a.o.Forget(); err != nil {
			return fmt.Errorf("forget identity: %w", err)
		}
	}
	return ErrWiped
}
