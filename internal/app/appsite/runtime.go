// Package appsite is the site half of apps: it keeps each app of the site's section running at the
// release it should, through the runtimes that cmd hands in.
//
// It implements site.Module and owns the life of every release at the site: content, unpacking, starting
// the new beside the old, switching the gateway, draining, and returning to the last good one. Runtimes
// only run one instance. It must not be imported but by cmd and by runtimes.
//
// Each app has a goroutine of its own, so that one that fails or waits for the network holds up no other.
// Nothing fails loudly after Start: what cannot run is told as a phase with a message in the module's
// Report, the last good release goes on, and the failed one is tried again with a growing pause. All that
// an instance is started from is verified against what was unpacked from a verified blob; a runtime's own
// restarts of a crashed program are not verified again.
package appsite

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// Runtime runs instances of one kind of bundle.
type Runtime interface {
	// Name is the runtime's name in bundles, such as "process".
	Name() string
	// Recover ends whatever an earlier life of this agent left running. It is called once, before Start.
	Recover(ctx context.Context) error
	// Start begins one instance and returns before it is ready. ctx bounds the call, not the instance.
	// An error means that the instance cannot run as declared and a retry would not help.
	Start(ctx context.Context, spec Spec) (Instance, error)
}

// Spec is one instance to run.
type Spec struct {
	App     fleet.AppKey
	Release string
	// ID names the instance at this site, unique over its life, safe as a file name.
	ID string
	// Dir holds the bundle's files, verified and read-only. Scratch is the instance's own, empty, removed
	// by the caller after Stop.
	Dir     string
	Scratch string
	// DataDirs are the directories that outlive releases, by name. They exist; the runtime gives them to
	// the user that it runs the instance as.
	DataDirs map[string]string
	Config   app.BundleConfig
	// Env is the whole declared environment, without PORT and what the runtime itself adds. It holds the values
	// of secrets: it must not be stored, logged, or part of an error.
	Env map[string]string
	// ConfigDir holds the files of the app's configuration and SecretDir those of its secrets, the latter
	// in memory only. Both are the caller's, which may replace single files in them while the instance
	// runs; the runtime lets the instance read them, and names the latter to it in SKERRY_SECRETS_DIR. Empty
	// when the app has none.
	ConfigDir string
	SecretDir string
	// AllowRoot permits running as the agent's own user when that is root.
	AllowRoot bool
	// Stdout and Stderr take what the program prints. Writes never fail and never block for long.
	Stdout io.Writer
	Stderr io.Writer
}

// Format shows which instance a spec is of, whatever the verb: its environment holds secrets.
func (s Spec) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "instance %s of app %s", s.ID, s.App) }

// LogValue shows which instance a spec is of.
func (s Spec) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(s)) }

// Instance is one running instance. The runtime restarts it as its kind requires until Stop. All methods
// are safe for concurrent use.
type Instance interface {
	// Status returns where the instance stands now.
	Status() Status
	// Changes yields a value after Status changed. It is never closed; a reader that is late sees one.
	Changes() <-chan struct{}
	// Stop ends the instance, gracefully first, and returns when nothing of it runs any more. When ctx
	// ends it is killed. It may be called more than once.
	Stop(ctx context.Context) error
}

// Status is a snapshot of an instance.
type Status struct {
	// Phase is PhaseStarting, PhaseRunning, PhaseBackOff or PhaseFailed.
	Phase   fleet.Phase
	Message string
	// Since is when Phase began, by the monotonic clock of this process.
	Since    time.Time
	Restarts int
	// Target is the URL at which a ready instance answers, and Handler what answers inside this process,
	// as in site.Route.
	Target  string
	Handler http.Handler
	// Conditions are standing remarks, by reason.
	Conditions map[string]string
}

// Finisher is a Runtime that can run a bundle to its end, as tasks need it.
type Finisher interface {
	Runtime
	// RunToEnd runs what spec and run say once, with the limits, user and sandbox of an instance, and returns
	// when nothing of it is left. When ctx ends it is stopped, gracefully first. An error means that it did not
	// begin, or that something of it could not be ended.
	RunToEnd(ctx context.Context, spec Spec, run Run) (Outcome, error)
}

// Run is what a Finisher runs of a bundle.
type Run struct {
	// Name is told in SKERRY_TASK.
	Name string
	// Command replaces the bundle's when it is not empty; its first entry is a path inside the bundle. Args
	// follow the command.
	Command, Args []string
}

// Outcome is how a run ended.
type Outcome struct {
	// ExitCode is what the program returned; -1 when it was killed or did not say.
	ExitCode int
	// Reason says in words why it failed; empty when it succeeded.
	Reason string
}
