package appsite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// rollOut brings the app to a new release: beside the old one, or after it when they may not share data.
// When it fails, the old release answers as before.
func (w *worker) rollOut(ctx context.Context, want app.Placement) error {
	rel, err := w.prepare(ctx, want)
	if err != nil {
		return err
	}
	dir, err := w.files(ctx, rel) // before anything is stopped: it may take long
	if err != nil {
		return err
	}
	if _, err := w.secretsOf(rel); err != nil { // before anything is stopped
		return err
	}
	w.at(fleet.PhaseStarting)
	old := w.live()
	if old != nil && (rel.exclusive() || old.rel.exclusive()) {
		return w.replace(ctx, old, rel, dir)
	}
	next, err := w.tryOut(ctx, rel, dir)
	if err != nil {
		return err
	}
	if err := w.promote(next); err != nil {
		w.retire(next)
		return err
	}
	if old != nil {
		w.drain(old, w.m.opts.DrainWithin)
		w.retire(old)
		w.m.metrics.switchOvers.WithLabelValues(w.key.String()).Inc()
	}
	w.tidy(rel)
	return nil
}

// replace stops the old instance, then starts the new one, while the gateway holds requests.
func (w *worker) replace(ctx context.Context, old *live, rel release, dir string) error {
	w.hold(true)
	defer w.hold(false)
	w.drain(old, w.m.opts.HeldDrainWithin)
	w.retire(old)
	next, err := w.tryOut(ctx, rel, dir)
	if err == nil {
		if err = w.promote(next); err != nil {
			w.retire(next)
		}
	}
	if err != nil {
		// Also when something newer cut this short: that may take long, and the app shall not be away.
		if w.m.ctx.Err() == nil {
			err = errors.Join(err, w.restore(w.m.ctx, old.rel))
			if l := w.live(); l != nil {
				_ = w.awaitReady(ctx, l) // requests are held meanwhile; how it stands is told by its status
			}
		}
		return err
	}
	w.m.metrics.switchOvers.WithLabelValues(w.key.String()).Inc()
	w.tidy(rel)
	return nil
}

// prepare fetches and checks the release; nothing of what runs is touched.
func (w *worker) prepare(ctx context.Context, want app.Placement) (release, error) {
	rec := w.remembered()
	for _, known := range []*release{rec.Good, rec.Next} {
		if known != nil && known.digest() == want.Digest {
			return *known, w.claimTrees(*known)
		}
	}
	w.at(fleet.PhaseFetching)
	rel, err := w.fetcher(release{}).release(ctx, want)
	if err != nil {
		return rel, err
	}
	err = w.remember(func(r *appRecord) { r.Next = &rel })
	return rel, errors.Join(err, w.claimTrees(rel))
}

func (w *worker) remembered() appRecord {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.record
}

// remember changes the app's record on disk and in memory.
func (w *worker) remember(change func(*appRecord)) error {
	w.m.storing.Lock()
	defer w.m.storing.Unlock()
	rec := w.remembered()
	change(&rec)
	if err := w.m.bucket.Put(appKey+w.key.String(), rec); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.record = rec
	return nil
}

// fetcher returns a fetcher that keeps the content of the last good release, of rel and of what it fetches.
func (w *worker) fetcher(rel release) fetcher {
	kept := rel.Blobs
	if good := w.remembered().Good; good != nil {
		kept = append(kept[:len(kept):len(kept)], good.Blobs...)
	}
	return fetcher{content: w.m.host.Content, keep: func(more ...fleet.Digest) error {
		kept = append(kept, more...)
		return w.keep(kept...)
	}}
}

func (w *worker) keep(digests ...fleet.Digest) error {
	seen := map[fleet.Digest]bool{}
	var out []fleet.Digest
	for _, d := range digests {
		if !seen[d] {
			seen[d] = true
			out = append(out, d)
		}
	}
	if err := w.m.host.Content.Keep(contentOwner(w.key), out); err != nil {
		return fmt.Errorf("keep content: %w", err)
	}
	return nil
}

// claimTrees keeps the unpacked files of what runs, of the last good release and of rel.
func (w *worker) claimTrees(rel release) error {
	need := []fleet.Digest{rel.Manifest}
	if good := w.remembered().Good; good != nil {
		need = append(need, good.Manifest)
	}
	if l := w.live(); l != nil {
		need = append(need, l.rel.Manifest)
	}
	return w.m.trees.Claim(w.key, need...)
}

// tryOut starts an instance and waits until it is ready, for a bounded time.
func (w *worker) tryOut(ctx context.Context, rel release, dir string) (*live, error) {
	next, err := w.launch(ctx, rel, dir)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.candidate = next
	w.refresh()
	w.mu.Unlock()
	if err := w.awaitReady(ctx, next); err != nil {
		w.retire(next)
		return nil, err
	}
	return next, nil
}

func (w *worker) awaitReady(ctx context.Context, l *live) error {
	deadline := time.NewTimer(w.m.opts.ReadyWithin)
	defer deadline.Stop()
	w.observe(l)
	for {
		switch now := w.statusOf(l); now.Phase {
		case fleet.PhaseRunning:
			return nil
		case fleet.PhaseFailed:
			return errors.New(now.Message)
		}
		select {
		case <-l.changed:
		case <-deadline.C:
			return fmt.Errorf("not ready within %s: %s", w.m.opts.ReadyWithin, w.statusOf(l).Message)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// promote makes the instance the one that answers. The release is stored as the last good one first, so
// that an agent that is killed right after comes back with it.
func (w *worker) promote(l *live) error {
	if err := w.remember(func(r *appRecord) { r.Good, r.Next = &l.rel, nil }); err != nil {
		return err
	}
	w.rotated()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current, w.candidate = l, nil
	w.held = false
	w.failures = 0
	w.refresh()
	return nil
}

// restore starts a release that was good before and makes it the one that answers once it is ready.
func (w *worker) restore(ctx context.Context, rel release) error {
	dir, err := w.files(ctx, rel)
	var l *live
	if err == nil {
		l, err = w.launch(ctx, rel, dir)
	}
	if err != nil {
		return fmt.Errorf("last good release %s: %w", rel.Placement.Release, err)
	}
	w.mu.Lock()
	w.current = l
	w.refresh()
	w.mu.Unlock()
	w.observe(l)
	return nil
}

// hold makes the gateway hold the app's requests, or go on.
func (w *worker) hold(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = on
	w.refresh()
}

// drain waits for requests in flight to an instance to which no new ones go.
func (w *worker) drain(l *live, within time.Duration) {
	target := w.statusOf(l).Target
	if target == "" {
		return
	}
	ctx, cancel := context.WithTimeout(w.m.hard, within)
	defer cancel()
	if err := w.m.host.Router.Drain(ctx, target); err != nil {
		w.m.log.Warn("old instance is stopped with requests in flight", "app", w.key.String(), "error", err)
	}
}

// tidy lets go of everything that only earlier releases needed.
func (w *worker) tidy(rel release) {
	if err := errors.Join(w.keep(rel.Blobs...), w.claimTrees(rel)); err != nil {
		w.m.log.Warn("content of earlier releases stays", "app", w.key.String(), "error", err)
	}
}

// leave takes the app from the site, and reports whether nothing of it is left but what should be.
func (w *worker) leave() bool {
	w.at(fleet.PhaseStopping)
	if l := w.live(); l != nil {
		w.drain(l, w.m.opts.DrainWithin)
		w.retire(l)
	}
	w.mu.Lock()
	removeData := w.removeData
	w.mu.Unlock()
	// The record goes last, when the worker is dismissed; without releases in it, an agent that is killed
	// meanwhile comes back to go on here.
	errs := []error{
		w.remember(func(r *appRecord) { r.Good, r.Next = nil, nil }),
		w.log.remove(), w.keep(), w.m.trees.Claim(w.key),
	}
	_ = os.Remove(filepath.Dir(w.m.logDir(w.key))) // fails while another app of the namespace is there
	if removeData {
		errs = append(errs, os.RemoveAll(w.m.dataDir(w.key)))
		_ = os.Remove(filepath.Dir(w.m.dataDir(w.key)))
	}
	if err := errors.Join(errs...); err != nil {
		w.m.log.Error("app does not leave", "app", w.key.String(), "error", err)
		return false
	}
	w.m.host.Events.Add(fleet.Event{Class: fleet.ClassEvent, Reason: app.EventRemoved, App: w.key, Message: "the app has left the site"})
	return true
}

// shutDown stops the app for as long as the agent is down.
func (w *worker) shutDown() {
	w.mu.Lock()
	l := w.current
	w.closing = true
	w.refresh()
	w.mu.Unlock()
	if l != nil {
		w.drain(l, w.m.opts.HeldDrainWithin)
		w.retire(l)
	}
}
