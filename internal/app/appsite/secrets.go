package appsite

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/secretdir"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// Secrets has the site's secrets in the clear. It is safe for concurrent use.
type Secrets interface {
	// Secret returns the values of a Secret by key, false when the site has none. They must not be changed.
	Secret(namespace, name string) (values map[string]fleet.SecretValue, ok bool)
	// OnChange registers fn to be called after secrets came, changed or went. fn must not block.
	OnChange(fn func())
}

// Signaller is an Instance that can be told by a signal that its files changed.
type Signaller interface {
	// Signal sends a signal, such as "SIGHUP", to the program, if it runs.
	Signal(name string) error
}

// Reasons of standing remarks.
const (
	conditionNotInMemory = "SecretsNotInMemory"
	conditionOutdated    = "SecretsOutdated"
)

// openMemory finds where files of secrets may lie, and removes those of an earlier life.
func (m *Module) openMemory() {
	sum := sha256.Sum256([]byte(m.host.Dir))
	m.memory, m.noMemory = secretdir.Open(m.opts.MemoryPlaces, "skerry-"+hex.EncodeToString(sum[:8]))
	if m.noMemory != nil {
		m.log.Warn("apps can have no files of secrets here", "error", m.noMemory)
	}
	if m.opts.Secrets != nil {
		m.opts.Secrets.OnChange(m.secretsChanged)
	}
}

func (m *Module) closeMemory() error {
	if m.memory == nil {
		return nil
	}
	return m.memory.Close()
}

// secretsChanged lets every worker whose app uses secrets look at them again.
func (m *Module) secretsChanged() {
	for _, w := range m.staff() {
		w.mu.Lock()
		if len(w.record.Desired.Secrets) > 0 || w.current != nil && len(w.current.rel.Placement.Secrets) > 0 {
			w.secretNews = true
			w.wake()
		}
		w.mu.Unlock()
	}
}

// secretsOf returns what a release gets of the site's secrets now. Nothing of what runs is touched.
func (w *worker) secretsOf(rel release) (app.SecretValues, error) {
	refs := rel.Placement.Secrets
	if app.HasFiles(refs) && w.m.memory == nil {
		w.remark(conditionNotInMemory, w.m.noMemory.Error())
		return nil, fmt.Errorf("files of secrets: %w", w.m.noMemory)
	}
	w.remark(conditionNotInMemory, "")
	return w.m.resolveSecrets(w.key.Namespace, refs)
}

// resolveSecrets returns what refs name of the secrets that the site has now.
func (m *Module) resolveSecrets(namespace string, refs []app.SecretRef) (app.SecretValues, error) {
	if app.HasFiles(refs) && m.memory == nil {
		return nil, fmt.Errorf("files of secrets: %w", m.noMemory)
	}
	values, err := app.ResolveSecrets(refs, func(name string) (map[string]fleet.SecretValue, bool) {
		if m.opts.Secrets == nil {
			return nil, false
		}
		return m.opts.Secrets.Secret(namespace, name)
	})
	if errors.Is(err, app.ErrSecretMissing) {
		err = fmt.Errorf("waits for the hub to send it: %w", err)
	}
	return values, err
}

// handOut gives an instance that is about to start its secrets. They are in the spec alone, which is never
// stored, and in memory.
func (w *worker) handOut(l *live, spec *Spec) error {
	var err error
	if l.secrets, err = w.secretsOf(l.rel); err != nil {
		return err
	}
	for name, value := range l.secrets.Env() {
		spec.Env[name] = string(value)
	}
	if !app.HasFiles(l.rel.Placement.Secrets) {
		return nil
	}
	spec.SecretDir, err = w.m.memory.Write(l.id, l.secrets.Files())
	return err
}

// takeBack removes the files of an instance that has ended.
func (m *Module) takeBack(l *live) error {
	if m.memory == nil || !app.HasFiles(l.rel.Placement.Secrets) {
		return nil
	}
	return m.memory.Remove(l.id)
}

// remark keeps a standing remark, or drops it when message is empty.
func (w *worker) remark(reason, message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.remarks[reason] == message {
		return
	}
	w.remarks = maps.Clone(w.remarks) // reports hold the last one
	switch {
	case message == "" && len(w.remarks) == 1:
		w.remarks = nil
	case message == "":
		delete(w.remarks, reason)
	case w.remarks == nil:
		w.remarks = map[string]string{reason: message}
	default:
		w.remarks[reason] = message
	}
	w.refresh()
}

// rotate brings an instance that runs to the newest values of its secrets, in the way that its references
// declare, and returns after how long to try again, zero for never. Whatever fails, the instance goes on with
// the values that it has.
func (w *worker) rotate(ctx context.Context, l *live) time.Duration {
	w.sendSignals(l) // of files that were replaced before: whatever follows may fail
	newer, err := w.secretsOf(l.rel)
	if err != nil {
		w.remark(conditionOutdated, "the app goes on with earlier values: "+err.Error())
		return 0
	}
	changed := l.secrets.Changed(newer)
	if len(changed) > 0 && slices.ContainsFunc(changed, func(r app.SecretRef) bool { return needsRestart(r, l.instance) }) {
		return w.restart(ctx, l)
	}
	if len(changed) > 0 {
		if err := w.rewrite(l, newer, changed); err != nil {
			return w.notRotated(ctx, err)
		}
	}
	w.sendSignals(l)
	w.rotated()
	return 0
}

func needsRestart(ref app.SecretRef, i Instance) bool {
	switch ref.OnChange {
	case app.SecretNone:
		return false
	case app.SecretSignal:
		_, ok := i.(Signaller)
		return !ok
	}
	return true
}

// restart lets a new instance of the same release follow.
func (w *worker) restart(ctx context.Context, l *live) time.Duration {
	w.m.log.Info("secrets changed: the app is started anew", "app", w.key.String(), "release", l.rel.Placement.Release)
	if err := w.rollOut(ctx, l.rel.Placement); err != nil {
		return w.notRotated(ctx, err)
	}
	return 0
}

// rewrite replaces the files of a running instance, and notes the signal that is to follow.
func (w *worker) rewrite(l *live, newer app.SecretValues, changed []app.SecretRef) error {
	if app.HasFiles(l.rel.Placement.Secrets) {
		if _, err := w.m.memory.Write(l.id, newer.Files()); err != nil {
			return err
		}
	}
	l.secrets = newer
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ref := range changed {
		if ref.OnChange == app.SecretSignal && !slices.Contains(l.signals, ref.Signal) {
			l.signals = append(l.signals, ref.Signal)
		}
	}
	w.m.log.Info("secrets changed: files are replaced", "app", w.key.String(), "release", l.rel.Placement.Release, "signals", l.signals)
	return nil
}

// sendSignals sends the signals that are due, once the instance runs: before, a program may not yet be able
// to take one, and would end.
func (w *worker) sendSignals(l *live) {
	w.mu.Lock()
	var due []string
	if l.status.Phase == fleet.PhaseRunning {
		due, l.signals = l.signals, nil
	}
	w.mu.Unlock()
	to, ok := l.instance.(Signaller)
	for _, name := range due {
		if !ok {
			return // needsRestart made sure of it
		}
		if err := to.Signal(name); err != nil {
			w.m.log.Warn("app was not told of its secrets", "app", w.key.String(), "signal", name, "error", err)
		}
	}
}

// rotated notes that what runs has the newest secrets.
func (w *worker) rotated() {
	w.remark(conditionOutdated, "")
	w.rotations = 0
}

// notRotated notes that newer secrets did not reach the app and returns when to try again.
func (w *worker) notRotated(ctx context.Context, err error) time.Duration {
	if ctx.Err() != nil {
		return time.Nanosecond
	}
	w.remark(conditionOutdated, "the app goes on with earlier values: "+strings.TrimSpace(err.Error()))
	w.rotations++
	wait := min(w.m.opts.RetryAfter<<min(w.rotations-1, 20), w.m.opts.RetryAtMost)
	if l := w.live(); l != nil && l.rel.exclusive() {
		wait = w.m.opts.RetryAtMost
	}
	w.m.log.Warn("app does not take newer secrets", "app", w.key.String(), "error", err, "retry", wait)
	return wait
}
