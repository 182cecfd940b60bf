package appsite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
)

// Errors of jobs, beside those that wrap app.ErrBundle, for what cannot be run at all.
var (
	// ErrNotYet means that what a job runs is not here yet, and may come: it is to be tried again.
	ErrNotYet = errors.New("is not here yet")
	// ErrNoApp means that the site has no such app, or none that ever became ready.
	ErrNoApp = errors.New("this site has no such app")
)

// jobKey is the prefix of records of what jobs run, beside those of apps.
const jobKey = "job/"

// Job is one run of something to its end.
type Job struct {
	// Key names what the job is of, among jobs; not an app's name, since no app's holds a dot.
	Key fleet.AppKey
	// App is the app in whose present release, data and secrets the job runs; when it is the zero key,
	// the job runs in what Prepare got for Key.
	App fleet.AppKey
	// ID names the run at this site, unique over its life, safe as a file name.
	ID  string
	Run Run
	// Env is added to the environment.
	Env map[string]string
	// Output takes what is printed, both streams. Writes must not fail nor block for long, and may come from two
	// goroutines.
	Output io.Writer
}

// Prepare fetches what a job of its own bundle runs, and keeps it at the site until Forget. The placement's App
// is the job's key. It does nothing when the same is there. An error that wraps ErrNotYet is to be tried again.
func (m *Module) Prepare(ctx context.Context, p app.Placement) error {
	if have, err := m.job(p.App); err == nil && have.digest() == p.Digest {
		return nil
	}
	rel, err := m.jobFetcher(p.App).release(ctx, p)
	if err == nil {
		if err = m.bucket.Put(jobKey+p.App.String(), rel); err == nil {
			err = m.trees.Claim(p.App, rel.Manifest)
		}
	}
	if errors.Is(err, errFetch) {
		err = fmt.Errorf("%w: %w", err, ErrNotYet)
	}
	return err
}

// Forget removes what Prepare kept, with the job's data directories.
func (m *Module) Forget(key fleet.AppKey) error {
	err := errors.Join(m.bucket.Delete(jobKey+key.String()), m.trees.Claim(key), m.host.Content.Keep(jobOwner(key), nil),
		os.RemoveAll(m.dataDir(key)))
	_ = os.Remove(filepath.Dir(m.dataDir(key))) // fails while an app of the namespace has data
	return err
}

// RunJob runs a job and returns when nothing of it is left. started is called right before the program begins,
// and an error of it keeps it from beginning. ctx ends the run.
func (m *Module) RunJob(ctx context.Context, j Job, started func() error) (Outcome, error) {
	rel, err := m.jobRelease(j)
	if err != nil {
		return Outcome{}, err
	}
	runtime, ok := m.runtimes[rel.Config.Runtime].(Finisher)
	if !ok {
		return Outcome{}, fmt.Errorf("this site cannot run tasks of runtime %q: %w", rel.Config.Runtime, app.ErrBundle)
	}
	// The files stay while the run needs them, whatever becomes of the app.
	hold := fleet.AppKey{Namespace: "run", Name: j.ID}
	if err := m.trees.Claim(hold, rel.Manifest); err != nil {
		return Outcome{}, err
	}
	defer func() {
		if err := m.trees.Claim(hold); err != nil {
			m.log.Warn("files of a run stay", "run", j.ID, "error", err)
		}
	}()
	f := m.jobFetcher(j.Key)
	dir, err := m.trees.Ensure(rel.Manifest, func() (io.ReadCloser, error) {
		return f.open(ctx, rel.Placement.Bundle.Repository, rel.Layer)
	})
	if err != nil {
		if errors.Is(err, errFetch) {
			err = fmt.Errorf("%w: %w", err, ErrNotYet)
		}
		return Outcome{}, err
	}
	return m.finish(ctx, runtime, j, rel, dir, started)
}

// finish gives the run its directories, configuration and secrets, and takes them back.
func (m *Module) finish(ctx context.Context, runtime Finisher, j Job, rel release, dir string, started func() error) (out Outcome, err error) {
	key := rel.Placement.App
	spec := Spec{
		App: key, Release: rel.Placement.Release, ID: j.ID, Dir: dir, Scratch: filepath.Join(m.scratchDir(), j.ID),
		Config: rel.Config, Env: rel.environ(m.siteFacts(), m.link.path()), AllowRoot: rel.Placement.AllowRoot,
		Stdout: j.Output, Stderr: j.Output,
	}
	maps.Copy(spec.Env, j.Env)
	defer func() { err = errors.Join(err, os.RemoveAll(spec.Scratch)) }()
	if err := os.MkdirAll(spec.Scratch, 0o700); err != nil {
		return out, fmt.Errorf("make scratch: %w", err)
	}
	if spec.DataDirs, err = m.makeDataDirs(key, rel); err != nil {
		return out, err
	}
	if rel.Placement.Config != nil {
		spec.ConfigDir = filepath.Join(m.configDir(), j.ID)
		defer func() { err = errors.Join(err, os.RemoveAll(spec.ConfigDir)) }()
		if err := writeConfig(spec.ConfigDir, rel.Placement.Config); err != nil {
			return out, err
		}
	}
	if refs := rel.Placement.Secrets; len(refs) > 0 {
		values, err := m.resolveSecrets(key.Namespace, refs)
		if errors.Is(err, app.ErrSecretMissing) {
			err = fmt.Errorf("%w: %w", err, ErrNotYet)
		}
		if err != nil {
			return out, err
		}
		for name, value := range values.Env() {
			spec.Env[name] = string(value)
		}
		if app.HasFiles(refs) {
			defer func() { err = errors.Join(err, m.memory.Remove(j.ID)) }()
			if spec.SecretDir, err = m.memory.Write(j.ID, values.Files()); err != nil {
				return out, err
			}
		}
	}
	if err := started(); err != nil {
		return out, err
	}
	return runtime.RunToEnd(ctx, spec, j.Run)
}

// jobRelease returns what a job runs: the app's present release, or what was prepared.
func (m *Module) jobRelease(j Job) (release, error) {
	if j.App == (fleet.AppKey{}) {
		rel, err := m.job(j.Key)
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) {
			return rel, fmt.Errorf("the bundle of %s: %w", j.Key, ErrNotYet)
		}
		return rel, err
	}
	m.mu.Lock()
	w := m.apps[j.App]
	m.mu.Unlock()
	if w == nil || w.wants() == nil {
		return release{}, fmt.Errorf("app %s: %w: %w", j.App, ErrNoApp, ErrNotYet)
	}
	good := w.remembered().Good
	if good == nil {
		return release{}, fmt.Errorf("app %s has no release that became ready here: %w: %w", j.App, ErrNoApp, ErrNotYet)
	}
	return *good, nil
}

func (m *Module) job(key fleet.AppKey) (release, error) {
	var rel release
	err := m.bucket.Get(jobKey+key.String(), &rel)
	return rel, err
}

// keepJobs keeps what jobs run, after a start.
func (m *Module) keepJobs() error {
	keys, err := m.bucket.Keys()
	if err != nil {
		return err
	}
	for _, k := range keys {
		name, ok := strings.CutPrefix(k, jobKey)
		if !ok {
			continue
		}
		namespace, job, _ := strings.Cut(name, "/")
		key := fleet.AppKey{Namespace: namespace, Name: job}
		rel, err := m.job(key)
		if errors.Is(err, store.ErrDamaged) { // it is prepared anew
			continue
		}
		if err := errors.Join(err, m.host.Content.Keep(jobOwner(key), rel.Blobs), m.trees.Claim(key, rel.Manifest)); err != nil {
			return err
		}
	}
	return nil
}

// jobFetcher returns a fetcher that keeps what it fetches, and nothing else, for the job.
func (m *Module) jobFetcher(key fleet.AppKey) fetcher {
	var kept []fleet.Digest
	return fetcher{content: m.host.Content, keep: func(more ...fleet.Digest) error {
		kept = append(kept, more...)
		return m.host.Content.Keep(jobOwner(key), kept)
	}}
}

// jobOwner is the name under which a job keeps content.
func jobOwner(key fleet.AppKey) string { return "jobs/" + key.String() }
