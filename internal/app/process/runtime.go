// Package process runs programs of bundles on Linux. It implements appsite.Runtime for the runtime "process".
//
// A program is started from its bundle's directory, never through a shell, in a process group and, where
// the machine allows it, a control group of its own, always with no_new_privs. When the agent is root and
// the placement does not allow root, each app has an unprivileged user id of its own, kept in the store.
//
// That user must reach the bundle, its scratch and its data. The directories on the way there that lie
// below Options.StateDir are therefore made enterable, but not listable, by others (mode 0711); what lies
// in them keeps its own mode. Directories above StateDir belong to the machine and are never changed:
// Start refuses an instance whose user could not pass one of them, and names it.
//
// The package is imported by cmd alone. Start fails with an error that wraps ErrSpec for what cannot be
// run as declared; everything that happens later is told by Instance.Status.
package process

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
)

// ErrSpec is wrapped by every error about an instance that cannot be run as declared.
var ErrSpec = errors.New("cannot run as declared")

// Options configure a Runtime.
type Options struct {
	// Log is where the life of instances is told; nil discards it.
	Log *slog.Logger
	// StateDir is the agent's own directory, absolute. Everything in a Spec lies below it. It also names
	// this agent's control groups, so that two agents on one machine do not meet.
	StateDir string
	// Bucket keeps user ids and what runs. It belongs to the Runtime alone.
	Bucket *store.Bucket
	// FirstUID and LastUID bound the user ids given to apps; zero means 60000 and 64999.
	FirstUID, LastUID int
	// BackOff is the wait before the first restart, which doubles up to MaxBackOff and begins again after
	// HealthyAfter of running. Zero means 100 ms, 30 s and 60 s.
	BackOff, MaxBackOff, HealthyAfter time.Duration
}

// Runtime starts instances. It is safe for concurrent use.
type Runtime struct {
	opts    Options
	log     *slog.Logger
	users   *users
	ports   *ports
	groups  *cgroups
	records *records
	// spawning keeps a second instance of one id away.
	mu      sync.Mutex
	running map[string]bool
}

var _ appsite.Runtime = (*Runtime)(nil)

// New returns a Runtime that runs nothing yet.
func New(opts Options) (*Runtime, error) {
	if !filepath.IsAbs(opts.StateDir) {
		return nil, fmt.Errorf("process runtime: state directory %q must be absolute", opts.StateDir)
	}
	if opts.Bucket == nil {
		return nil, errors.New("process runtime: a bucket must be given")
	}
	opts.FirstUID = cmp.Or(opts.FirstUID, 60000)
	opts.LastUID = cmp.Or(opts.LastUID, 64999)
	opts.BackOff = cmp.Or(opts.BackOff, 100*time.Millisecond)
	opts.MaxBackOff = cmp.Or(opts.MaxBackOff, 30*time.Second)
	opts.HealthyAfter = cmp.Or(opts.HealthyAfter, time.Minute)
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	sum := sha256.Sum256([]byte(opts.StateDir))
	return &Runtime{
		opts:    opts,
		log:     log,
		users:   &users{bucket: opts.Bucket, first: opts.FirstUID, last: opts.LastUID, salt: opts.StateDir},
		ports:   newPorts(),
		groups:  findCgroups("skerry-" + hex.EncodeToString(sum[:8])),
		records: &records{bucket: opts.Bucket},
		running: map[string]bool{},
	}, nil
}

// Name returns "process".
func (r *Runtime) Name() string { return app.RuntimeProcess }

// Start begins one instance; see appsite.Runtime.
func (r *Runtime) Start(ctx context.Context, spec appsite.Spec) (appsite.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	plan, err := r.plan(spec)
	if err != nil {
		return nil, fmt.Errorf("app %s, release %s: %w", spec.App, spec.Release, err)
	}
	if !r.claim(spec.ID) {
		return nil, fmt.Errorf("app %s: instance %s runs already: %w", spec.App, spec.ID, ErrSpec)
	}
	group, remark := r.groups.create(spec.ID, plan.config.Limits)
	i := newInstance(r, plan, group)
	if remark != "" {
		i.status.Conditions = map[string]string{conditionLimits: remark}
		r.log.Warn("limits are not enforced", "app", spec.App.String(), "reason", remark)
	}
	go i.run()
	return i, nil
}

// plan checks the spec and prepares what has to exist before the program may start.
func (r *Runtime) plan(spec appsite.Spec) (plan, error) {
	p := plan{spec: spec}
	if spec.Config.Process == nil {
		return p, fmt.Errorf("config.process must be set: %w", ErrSpec)
	}
	if !app.LocalPath(spec.ID) || filepath.Base(spec.ID) != spec.ID {
		return p, fmt.Errorf("instance id %q is not a file name: %w", spec.ID, ErrSpec)
	}
	p.config = *spec.Config.Process
	if !filepath.IsAbs(spec.Scratch) || !filepath.IsAbs(spec.Dir) {
		return p, fmt.Errorf("directories %q and %q must be absolute: %w", spec.Dir, spec.Scratch, ErrSpec)
	}
	var err error
	if p.program, err = findProgram(spec.Dir, p.config.Command); err != nil {
		return p, err
	}
	if os.Geteuid() == 0 && !spec.AllowRoot {
		if p.uid, err = r.users.of(spec.App); err != nil {
			return p, err
		}
	}
	return p, prepareDirs(r.opts.StateDir, &p)
}

// plan is a checked Spec.
type plan struct {
	spec    appsite.Spec
	config  app.ProcessConfig
	program string
	// uid is the app's own user and group; zero keeps the agent's.
	uid int
	// task is the name of the task that this is a run of; empty for an app.
	task string
}

func (r *Runtime) claim(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[id] {
		return false
	}
	r.running[id] = true
	return true
}

func (r *Runtime) release(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, id)
}

// conditionLimits is the reason under which limits that the machine cannot enforce are told.
const conditionLimits = "LimitsNotEnforced"

func appAttrs(key fleet.AppKey, id string) []any {
	return []any{"app", key.String(), "instance", id}
}
