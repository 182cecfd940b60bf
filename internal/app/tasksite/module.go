// Package tasksite is the site half of tasks: it runs what the site's section names once, or at its times, and
// keeps what became of it.
//
// It implements site.Module. Each task has a goroutine of its own, its worker. That a run begins is on disk
// before anything of it is, so that one which a crash or a power cut interrupted is known as such: it counts as
// a failed try. What a task left behind is remembered by the object's uid even after the section names it no
// more, so that a hub which tells it again does not make it run again.
//
// What runs, and in which directories, with which configuration and secrets, is package appsite's. Only cmd
// imports this package.
package tasksite

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/schedule"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// Jobs runs programs to their end: the module of apps.
type Jobs interface {
	// Prepare fetches what the job with the placement's app as its key runs, and keeps it until Forget.
	Prepare(ctx context.Context, p app.Placement) error
	Forget(key fleet.AppKey) error
	// RunJob runs a job and returns at its end; started is called right before it begins.
	RunJob(ctx context.Context, j appsite.Job, started func() error) (appsite.Outcome, error)
}

// Options are the module's bounds, zero for the default.
type Options struct {
	// Clock tells the site's corrected time; nil takes the machine's for right.
	Clock schedule.Clock
	// RetryAfter is the pause before a second try, 10 s, which doubles up to RetryAtMost, 6 min.
	RetryAfter, RetryAtMost time.Duration
	// LookAgain is how long to wait for what is not here yet, 5 s.
	LookAgain time.Duration
	// Beside is how many runs may be under way at once at the site, 4.
	Beside int
	// OutputBytes is how much of a run's output is kept, 256 KiB: the newest.
	OutputBytes int64
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = func() (time.Time, bool) { return time.Now(), true }
	}
	o.RetryAfter = cmp.Or(o.RetryAfter, 10*time.Second)
	o.RetryAtMost = cmp.Or(o.RetryAtMost, 6*time.Minute)
	o.LookAgain = cmp.Or(o.LookAgain, 5*time.Second)
	o.Beside = cmp.Or(o.Beside, 4)
	o.OutputBytes = cmp.Or(o.OutputBytes, 256<<10)
	return o
}

// Module is the site's half of tasks.
type Module struct {
	host      *site.Host
	opts      Options
	jobs      Jobs
	log       *slog.Logger
	records   *records
	schedules *schedule.Records
	metrics   *metrics
	// slots has a value for each run that is under way.
	slots chan struct{}

	// ctx ends when the module is to stop.
	ctx     context.Context
	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu    sync.Mutex
	tasks map[task.Ref]*worker
}

var (
	_ site.Module = (*Module)(nil)
	_ site.Wiper  = (*Module)(nil)
)

// New returns the module. It does nothing before Start.
func New(host *site.Host, jobs Jobs, opts Options) *Module {
	opts = opts.withDefaults()
	m := &Module{
		host: host, opts: opts, jobs: jobs, log: host.Log, records: &records{bucket: host.Bucket},
		schedules: &schedule.Records{Bucket: host.Bucket}, metrics: newMetrics(),
		slots: make(chan struct{}, opts.Beside), tasks: map[task.Ref]*worker{},
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	host.Calls.HandleStream(task.MethodOutput, func(_ context.Context, body json.RawMessage, out site.Stream) error {
		req, err := task.DecodeOutputRequest(body)
		if err != nil {
			return err
		}
		return m.output(req, out)
	})
	return m
}

// Name implements site.Module.
func (m *Module) Name() string { return task.SectionName }

// Start implements site.Module. Tasks begin with Apply, which the agent calls with what is on disk.
func (m *Module) Start(context.Context) error {
	if err := m.metrics.register(m.host.Metrics); err != nil {
		return fmt.Errorf("tasks: register metrics: %w", err)
	}
	return m.records.prune()
}

// Apply implements site.Module.
func (m *Module) Apply(_ context.Context, body []byte, facts fleet.Facts) error {
	var section task.Section
	if body != nil {
		var err error
		if section, err = task.DecodeSection(body); err != nil {
			return err
		}
		facts = section.Facts
	}
	wanted := map[task.Ref]*task.Entry{}
	for i := range section.Tasks {
		wanted[section.Tasks[i].Ref] = &section.Tasks[i]
	}
	known, err := m.records.kept()
	if err != nil {
		return fmt.Errorf("tasks: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for ref := range wanted {
		m.employ(ref)
	}
	for _, ref := range known { // one that was told to leave before a crash goes on leaving
		m.employ(ref)
	}
	for ref, w := range m.tasks {
		w.direct(wanted[ref], facts.TimeZone)
		if !w.begun {
			w.begun = true
			m.workers.Go(w.run)
		}
	}
	m.host.Changed()
	return nil
}

func (m *Module) employ(ref task.Ref) {
	if m.tasks[ref] == nil {
		m.tasks[ref] = newWorker(m, ref)
	}
}

// dismiss forgets a worker whose task has left, and reports false when it was told of it again meanwhile.
func (m *Module) dismiss(w *worker) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.wants() != nil {
		return false
	}
	delete(m.tasks, w.ref)
	m.host.Changed()
	return true
}

// Report implements site.Module.
func (m *Module) Report() any {
	m.mu.Lock()
	workers := slices.Collect(maps.Values(m.tasks))
	m.mu.Unlock()
	var r task.Report
	for _, w := range workers {
		if state, ok := w.state(); ok {
			r.Tasks = append(r.Tasks, state)
		}
	}
	if len(r.Tasks) == 0 {
		return nil
	}
	slices.SortFunc(r.Tasks, func(a, b task.State) int { return strings.Compare(a.Ref.String(), b.Ref.String()) })
	return r.Bounded()
}

// Stop implements site.Module. Runs under way are ended; at the next start they count as interrupted.
func (m *Module) Stop(ctx context.Context) error {
	m.cancel()
	done := make(chan struct{})
	go func() {
		m.workers.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("tasks: runs do not end: %w", ctx.Err())
	}
}

// Wipe implements site.Wiper.
func (m *Module) Wipe(ctx context.Context) error {
	if err := m.Stop(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	workers := slices.Collect(maps.Values(m.tasks))
	clear(m.tasks)
	m.mu.Unlock()
	var errs []error
	for _, w := range workers {
		errs = append(errs, m.jobs.Forget(w.ref.Key()))
	}
	keys, err := m.host.Bucket.Keys()
	errs = append(errs, err)
	for _, key := range keys {
		errs = append(errs, m.host.Bucket.Delete(key))
	}
	entries, err := os.ReadDir(m.host.Dir)
	errs = append(errs, err)
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(m.host.Dir, e.Name())))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tasks: wipe: %w", err)
	}
	return nil
}

// now is the corrected time, or the machine's where nobody knows better.
func (m *Module) now() time.Time {
	now, known := m.opts.Clock()
	if !known {
		return time.Now()
	}
	return now
}
