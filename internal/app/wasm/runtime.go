package wasm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/schedule"
	"github.com/skerry-dev/skerry/internal/app/wasm/keyvalue"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
)

// ErrSpec is wrapped by every error about an instance that cannot be run as declared.
var ErrSpec = errors.New("cannot run as declared")

const pageBytes = 64 << 10

// Options configure a Runtime. The zero value of a field means its default.
type Options struct {
	// Log is where the life of instances is told; nil discards it.
	Log *slog.Logger
	// Metrics is where the runtime registers its own; nil registers them nowhere.
	Metrics prometheus.Registerer
	// CacheDir holds compiled modules, CacheBytes of them at most (1 GiB). It is absolute and the Runtime's
	// alone.
	CacheDir   string
	CacheBytes int64
	// MemoryBytes is how much linear memory all instances may have together; half of the machine's memory.
	MemoryBytes int64
	// IdleAfter is after how long without a request an app's prepared instances are let go, 5 min.
	IdleAfter time.Duration
	// BackOff is the wait before a task is started again, which doubles up to MaxBackOff and begins anew
	// after HealthyAfter of running. Zero means 100 ms, 30 s and 60 s.
	BackOff, MaxBackOff, HealthyAfter time.Duration
	// Clock is that of schedules; nil takes the machine's for right.
	Clock schedule.Clock
	// Schedules is where it is kept what ran when; nil keeps it in memory.
	Schedules *store.Bucket
}

// Runtime runs modules. It is safe for concurrent use.
type Runtime struct {
	opts    Options
	log     *slog.Logger
	cache   *cache
	budget  *budget
	metrics *metrics
	stores  *keyvalue.Stores
	// compiling is held by the one that compiles: it takes a whole core for seconds.
	compiling chan struct{}
	guests    atomic.Int64

	mu sync.Mutex
	// running are the instances by their ids, with the apps that they are of.
	running map[string]fleet.AppKey

	// schedules say what ran when, and under are the scheduled runs that are under way.
	schedules schedule.Records
	under     sync.Map
}

var _ appsite.Runtime = (*Runtime)(nil)

// New returns a Runtime that runs nothing yet.
func New(opts Options) (*Runtime, error) {
	if !filepath.IsAbs(opts.CacheDir) {
		return nil, fmt.Errorf("wasm runtime: cache directory %q must be absolute", opts.CacheDir)
	}
	opts.CacheBytes = cmp.Or(opts.CacheBytes, 1<<30)
	opts.MemoryBytes = cmp.Or(opts.MemoryBytes, machineMemory()/2)
	opts.IdleAfter = cmp.Or(opts.IdleAfter, 5*time.Minute)
	opts.BackOff = cmp.Or(opts.BackOff, 100*time.Millisecond)
	opts.MaxBackOff = cmp.Or(opts.MaxBackOff, 30*time.Second)
	opts.HealthyAfter = cmp.Or(opts.HealthyAfter, time.Minute)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Clock == nil {
		opts.Clock = func() (time.Time, bool) { return time.Now(), true }
	}
	if err := os.MkdirAll(opts.CacheDir, 0o700); err != nil {
		return nil, fmt.Errorf("wasm runtime: %w", err)
	}
	// Who can write here can run code as the agent.
	if err := os.Chmod(opts.CacheDir, 0o700); err != nil {
		return nil, fmt.Errorf("wasm runtime: %w", err)
	}
	r := &Runtime{
		opts: opts, log: opts.Log, budget: &budget{most: opts.MemoryBytes}, stores: keyvalue.NewStores(),
		cache:     &cache{dir: opts.CacheDir, most: opts.CacheBytes, open: map[string]*compilation{}},
		compiling: make(chan struct{}, 1), running: map[string]fleet.AppKey{},
		schedules: schedule.Records{Bucket: opts.Schedules},
	}
	var err error
	if r.metrics, err = newMetrics(opts.Metrics, r); err != nil {
		return nil, fmt.Errorf("wasm runtime: register metrics: %w", err)
	}
	return r, nil
}

// Name returns "wasm".
func (r *Runtime) Name() string { return app.RuntimeWasm }

// Recover implements appsite.Runtime: nothing of a module outlives the agent.
func (r *Runtime) Recover(context.Context) error { return nil }

// Start begins one instance; see appsite.Runtime.
func (r *Runtime) Start(ctx context.Context, spec appsite.Spec) (appsite.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fail := func(err error) (appsite.Instance, error) {
		return nil, fmt.Errorf("app %s, release %s: %w", spec.App, spec.Release, err)
	}
	p, err := r.newProgram(spec)
	if err != nil {
		return fail(err)
	}
	if !r.claim(spec) {
		return fail(errors.Join(fmt.Errorf("instance %s runs already: %w", spec.ID, ErrSpec), p.close()))
	}
	i := &instance{
		rt: r, p: p,
		status:  appsite.Status{Phase: fleet.PhaseStarting, Message: "compiling", Since: time.Now()},
		changes: make(chan struct{}, 1),
		slots:   make(chan struct{}, p.limits.Concurrency), used: make(chan struct{}, 1), left: make(chan struct{}, 1),
		pool: make(chan *guest, max(0, p.limits.Prepared-1)),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	i.handler = &handler{i}
	go i.run()
	return i, nil
}

// claim keeps a second instance of one id away.
func (r *Runtime) claim(spec appsite.Spec) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.running[spec.ID]; ok {
		return false
	}
	r.running[spec.ID] = spec.App
	return true
}

// release forgets an instance, and what was counted of its app with the last one.
func (r *Runtime) release(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := r.running[id]
	delete(r.running, id)
	for _, other := range r.running {
		if other == left {
			return
		}
	}
	r.metrics.forget(left.String())
}

// machineMemory is what the machine has, in bytes; 1 GiB where it does not say.
func machineMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 1 << 30
	}
	return int64(uint64(info.Totalram) * uint64(info.Unit))
}
