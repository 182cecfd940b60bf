package appsite

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// live is one running instance of a release. A goroutine follows its status until retire.
type live struct {
	rel release
	// id names the instance, as Spec.ID.
	id string
	// secrets are what the instance was given last; the worker's goroutine alone uses them.
	secrets  app.SecretValues
	instance Instance
	scratch  string
	// config is the directory of the app's configuration, empty when it has none.
	config string
	out    [2]*lineWriter
	// signals are to be sent once the instance runs, under the worker's lock.
	signals []string
	// status is the last one seen, under the worker's lock; changed has a value after it changed.
	status  Status
	changed chan struct{}
	// unfollow ends the follower, and followed closes when it has ended.
	unfollow chan struct{}
	followed chan struct{}
}

// files returns the directory of the release's files, verified just now, unpacking them when they are not
// there or not sound.
func (w *worker) files(ctx context.Context, rel release) (string, error) {
	f := w.fetcher(rel)
	return w.m.trees.Ensure(rel.Manifest, func() (io.ReadCloser, error) {
		return f.open(ctx, rel.Placement.Bundle.Repository, rel.Layer)
	})
}

// launch starts an instance of the release from dir, which files has just returned. It is nobody's yet.
func (w *worker) launch(ctx context.Context, rel release, dir string) (*live, error) {
	runtime, ok := w.m.runtimes[rel.Config.Runtime]
	if !ok {
		return nil, fmt.Errorf("this site has no runtime %q; it has %s: %w", rel.Config.Runtime,
			strings.Join(slices.Sorted(maps.Keys(w.m.runtimes)), ", "), app.ErrBundle)
	}
	var suffix [4]byte
	_, _ = rand.Read(suffix[:]) // never fails, as its documentation says
	id := fmt.Sprintf("%s.%s.%s", w.key.Namespace, w.key.Name, hex.EncodeToString(suffix[:]))
	l := &live{
		rel: rel, id: id, scratch: filepath.Join(w.m.scratchDir(), id),
		changed: make(chan struct{}, 1), unfollow: make(chan struct{}), followed: make(chan struct{}),
	}
	for n, stream := range []string{"out", "err"} {
		l.out[n] = &lineWriter{log: w.log, stream: stream, release: rel.Placement.Release}
	}
	if err := os.MkdirAll(l.scratch, 0o700); err != nil {
		return nil, fmt.Errorf("make scratch: %w", err)
	}
	data, err := w.m.makeDataDirs(w.key, rel)
	if err == nil && rel.Placement.Config != nil {
		l.config = filepath.Join(w.m.configDir(), id)
		err = writeConfig(l.config, rel.Placement.Config)
	}
	if err == nil {
		spec := Spec{
			App: w.key, Release: rel.Placement.Release, ID: id, Dir: dir, Scratch: l.scratch, DataDirs: data, ConfigDir: l.config,
			Config: rel.Config, Env: rel.environ(w.m.siteFacts(), w.m.link.path()), AllowRoot: rel.Placement.AllowRoot,
			Stdout: l.out[0], Stderr: l.out[1],
		}
		if err = w.handOut(l, &spec); err == nil {
			l.instance, err = runtime.Start(ctx, spec)
		}
	}
	if err != nil {
		return nil, errors.Join(err, l.remove(), w.m.takeBack(l))
	}
	l.status = l.instance.Status()
	go w.follow(l)
	return l, nil
}

// remove removes what was the instance's own.
func (l *live) remove() error {
	err := os.RemoveAll(l.scratch)
	if l.config != "" {
		err = errors.Join(err, os.RemoveAll(l.config))
	}
	return err
}

// follow takes up each change of the instance's status.
func (w *worker) follow(l *live) {
	defer close(l.followed)
	for {
		select {
		case <-l.instance.Changes():
		case <-l.unfollow:
			return
		}
		w.observe(l)
	}
}

// observe takes up the instance's status. An instance that crashes again and again stays in back-off, as
// people see it, until it is ready: each of its starts would else be a change.
func (w *worker) observe(l *live) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := l.instance.Status()
	if now.Phase == fleet.PhaseStarting && l.status.Phase == fleet.PhaseBackOff {
		now.Phase, now.Message = fleet.PhaseBackOff, l.status.Message
	}
	l.status = now
	select {
	case l.changed <- struct{}{}:
	default:
	}
	switch {
	case now.Phase == fleet.PhaseFailed, now.Phase == fleet.PhaseRunning && len(l.signals) > 0:
		w.wake()
	case now.Phase == fleet.PhaseRunning && l == w.current && w.want != nil && l.rel.digest() == w.want.Digest:
		w.failures = 0
	}
	w.refresh()
}

func (w *worker) statusOf(l *live) Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return l.status
}

// retire ends an instance that no new request reaches, and removes what was its own. The worker forgets it.
func (w *worker) retire(l *live) {
	if l == nil {
		return
	}
	err := l.instance.Stop(w.m.hard)
	close(l.unfollow)
	<-l.followed
	for _, out := range l.out {
		out.flush()
	}
	if err == nil {
		err = errors.Join(l.remove(), w.m.takeBack(l))
	}
	if err != nil {
		w.m.log.Error("instance did not end in order", "app", w.key.String(), "error", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.restarts += l.instance.Status().Restarts
	if w.current == l {
		w.current = nil
	}
	if w.candidate == l {
		w.candidate = nil
	}
	w.refresh()
}

// makeDataDirs makes the directories that outlive releases.
func (m *Module) makeDataDirs(key fleet.AppKey, rel release) (map[string]string, error) {
	dirs := map[string]string{}
	for _, name := range rel.Config.DataDirs() {
		dir := filepath.Join(m.dataDir(key), name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make data directory: %w", err)
		}
		dirs[name] = dir
	}
	return dirs, nil
}

func (m *Module) siteFacts() fleet.Facts {
	m.mu.Lock()
	defer m.mu.Unlock()
	facts := m.facts
	if facts.Name == "" {
		facts.Name = m.host.Name
	}
	return facts
}

// publicURL is where people reach a route of the gateway, empty while it does not listen.
func publicURL(gateway string, route site.Route) string {
	u, err := url.Parse(gateway)
	if err != nil || gateway == "" {
		return ""
	}
	if route.Host != "" {
		host := route.Host
		if port := u.Port(); port != "" {
			host += ":" + port
		}
		u.Host = host
	}
	u.Path = route.Path
	return u.String()
}
