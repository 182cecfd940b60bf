package appsite

import (
	"cmp"
	"context"
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
	"github.com/skerry-dev/skerry/internal/app/secretdir"
	"github.com/skerry-dev/skerry/internal/app/unpacked"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/store"
)

// Options are the module's bounds of time, zero for the default, and where it finds what it does not own.
type Options struct {
	// Secrets are the site's; nil when it has none.
	Secrets Secrets
	// MemoryPlaces are where a directory in memory is looked for; nil means secretdir.Places.
	MemoryPlaces []string
	// ReadyWithin is how long a new release may take to become ready, 60 s.
	ReadyWithin time.Duration
	// DrainWithin bounds the wait for requests in flight to an old instance, 30 s; HeldDrainWithin the same
	// while new requests are held, 5 s, as those wait no longer than site.HoldSeconds.
	DrainWithin, HeldDrainWithin time.Duration
	// RetryAfter is the wait before a failed release is tried again, 1 s, which doubles up to RetryAtMost,
	// 10 min. Where a try would stop what answers now, as with exclusive data, the wait is RetryAtMost.
	RetryAfter, RetryAtMost time.Duration
}

func (o Options) withDefaults() Options {
	if o.MemoryPlaces == nil {
		o.MemoryPlaces = secretdir.Places()
	}
	o.ReadyWithin = cmp.Or(o.ReadyWithin, time.Minute)
	o.DrainWithin = cmp.Or(o.DrainWithin, 30*time.Second)
	o.HeldDrainWithin = cmp.Or(o.HeldDrainWithin, 5*time.Second)
	o.RetryAfter = cmp.Or(o.RetryAfter, time.Second)
	o.RetryAtMost = cmp.Or(o.RetryAtMost, 10*time.Minute)
	return o
}

// Module is the site's half of apps. Each app has one goroutine, its worker, which alone starts, switches
// and stops its releases.
type Module struct {
	host     *site.Host
	opts     Options
	runtimes map[string]Runtime
	trees    *unpacked.Trees
	metrics  *metrics
	link     *linkFile
	bucket   *store.Bucket
	log      *slog.Logger
	// memory is where files of secrets lie; nil when there is no place, as noMemory says.
	memory   *secretdir.Root
	noMemory error

	// ctx ends when the module is to stop; hard ends when it may not wait any longer.
	ctx, hard          context.Context
	cancel, cancelHard context.CancelFunc
	workers            sync.WaitGroup

	// storing is held while app records are read, changed and stored. It is taken before mu, which is taken
	// before a worker's own lock.
	storing sync.Mutex

	mu   sync.Mutex
	apps map[fleet.AppKey]*worker
	// facts of the site, as the newest section says them.
	facts fleet.Facts
}

var (
	_ site.Module      = (*Module)(nil)
	_ site.Wiper       = (*Module)(nil)
	_ site.LinkWatcher = (*Module)(nil)
)

// New returns the module with default bounds. It does nothing before Start.
func New(host *site.Host, runtimes ...Runtime) *Module { return NewWith(host, Options{}, runtimes...) }

// NewWith returns the module with the given bounds.
func NewWith(host *site.Host, opts Options, runtimes ...Runtime) *Module {
	m := &Module{
		host: host, opts: opts.withDefaults(), bucket: host.Bucket, log: host.Log,
		runtimes: map[string]Runtime{},
		trees:    unpacked.New(filepath.Join(host.Dir, "unpacked"), host.Bucket),
		link:     &linkFile{dir: filepath.Join(host.Dir, "hub")},
		apps:     map[fleet.AppKey]*worker{},
	}
	for _, r := range runtimes {
		m.runtimes[r.Name()] = r
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.hard, m.cancelHard = context.WithCancel(context.Background())
	m.metrics = newMetrics(m)
	m.registerCalls()
	return m
}

// Name implements site.Module.
func (m *Module) Name() string { return app.SectionName }

// Start ends what an earlier life left, and brings back every app from what is on disk.
func (m *Module) Start(ctx context.Context) error {
	if err := m.metrics.register(m.host.Metrics); err != nil {
		return fmt.Errorf("apps: register metrics: %w", err)
	}
	for _, r := range m.runtimes {
		if err := r.Recover(ctx); err != nil {
			return fmt.Errorf("apps: %w", err)
		}
	}
	if err := errors.Join(os.RemoveAll(m.scratchDir()), os.RemoveAll(m.configDir())); err != nil {
		return fmt.Errorf("apps: remove scratch and configuration of an earlier life: %w", err)
	}
	m.openMemory()
	m.LinkChanged(fleet.LinkUnknown) // the disk may be full, and apps run without
	records, err := m.records()
	if err != nil {
		return fmt.Errorf("apps: %w", err)
	}
	if err := m.keepStored(records); err != nil {
		return fmt.Errorf("apps: %w", err)
	}
	body, err := m.bucket.GetBytes(sectionKey)
	if errors.Is(err, store.ErrNotFound) {
		body, err = nil, nil
	}
	if err != nil {
		return fmt.Errorf("apps: %w", err)
	}
	section, err := decodeSection(body)
	if err != nil { // it was checked before it was stored: the agent is older than the one that stored it
		m.log.Error("stored section cannot be read; apps run at their last good release", "error", err)
		for _, rec := range records {
			section.Apps = append(section.Apps, rec.Desired)
		}
	}
	if err := m.bucket.Get(factsKey, &section.Facts); err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("apps: %w", err)
	}
	m.direct(section, records)
	return nil
}

// LinkChanged implements site.LinkWatcher.
func (m *Module) LinkChanged(link fleet.Link) {
	if err := m.link.set(link); err != nil {
		m.log.Warn("apps are not told of the hub", "error", err)
	}
}

// Stop implements site.Module: apps are drained and stopped.
func (m *Module) Stop(ctx context.Context) error {
	m.cancel()
	stop := context.AfterFunc(ctx, m.cancelHard)
	defer stop()
	m.workers.Wait()
	m.cancelHard()
	return m.closeMemory()
}

// Wipe implements site.Wiper: every app leaves with its data, whatever was declared of it.
func (m *Module) Wipe(ctx context.Context) error {
	m.mu.Lock()
	for _, w := range m.apps {
		w.wipe()
	}
	m.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { m.cancelHard(); m.cancel() })
	defer stop()
	m.workers.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("apps: wipe: apps are left: %w", err)
	}
	records, err := m.records()
	if err != nil {
		return fmt.Errorf("apps: wipe: %w", err)
	}
	var errs []error
	for key := range records { // the module was stopped before, or a removal failed
		errs = append(errs, m.host.Content.Keep(contentOwner(key), nil))
	}
	keys, err := m.bucket.Keys()
	errs = append(errs, err)
	for _, key := range keys {
		errs = append(errs, m.bucket.Delete(key))
	}
	entries, err := os.ReadDir(m.host.Dir)
	errs = append(errs, err)
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(m.host.Dir, e.Name())))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("apps: wipe: %w", err)
	}
	return nil
}

// Report implements site.Module.
func (m *Module) Report() any {
	return app.Report{Apps: m.reports()}
}

// staff lists the workers in no order.
func (m *Module) staff() []*worker {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.apps))
}

func (m *Module) reports() []app.AppReport {
	workers := m.staff()
	counts := m.host.Router.Counts()
	out := make([]app.AppReport, 0, len(workers))
	for _, w := range workers {
		r := w.report()
		r.Counts = counts[w.key]
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b app.AppReport) int { return strings.Compare(a.App.String(), b.App.String()) })
	return out
}

func (m *Module) scratchDir() string { return filepath.Join(m.host.Dir, "scratch") }

func (m *Module) configDir() string { return filepath.Join(m.host.Dir, "config") }

func (m *Module) dataDir(key fleet.AppKey) string {
	return filepath.Join(m.host.Dir, "data", key.Namespace, key.Name)
}

func (m *Module) logDir(key fleet.AppKey) string {
	return filepath.Join(m.host.Dir, "logs", key.Namespace, key.Name)
}

// contentOwner is the name under which the app keeps content.
func contentOwner(key fleet.AppKey) string { return "apps/" + key.String() }
