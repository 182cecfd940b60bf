// Package taskcli is the noun "task" of the command line: what runs once, or at its times, at many sites.
//
// Only package cli imports it, and hands in what its commands share with the others. Results are asked of the
// hub's endpoint; objects are made and changed through the Kubernetes API, both with the caller's own rights.
package taskcli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/cli/hubclient"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// Deps are what package cli hands in.
type Deps struct {
	Streams genericiooptions.IOStreams
	// Hub finds the hub, Objects reaches the Kubernetes API, and Namespace is the one that is meant.
	Hub       func(context.Context) (*hubclient.Client, error)
	Objects   func() (client.Client, error)
	Namespace func() (string, error)
	// Usage marks an error as one of the command line, Hint adds what the person can do.
	Usage func(error) error
	Hint  func(err error, format string, args ...any) error
	// Group is the RunE of a command that only holds others.
	Group func(*cobra.Command, []string) error
}

// ErrSites means that the task did not succeed at some site.
var ErrSites = errors.New("the task did not succeed everywhere")

// New returns the command.
func New(d Deps) *cobra.Command {
	c := &cobra.Command{
		Use:   "task",
		Short: "Run something once at many sites, and see what became of it",
		Example: "  skerry task run clean-1 --app shop --sites zone=eu -- --older-than 30d\n" +
			"  skerry task list\n  skerry task results clean-1 --logs",
		Args: cobra.ArbitraryArgs,
		RunE: d.Group,
	}
	c.AddCommand(newRun(d), newList(d), newResults(d), newCancel(d))
	return c
}

// ref reads "NAME", "task/NAME" or "crontask/NAME".
func (d Deps) ref(arg string) (task.Ref, error) {
	ns, err := d.Namespace()
	if err != nil {
		return task.Ref{}, err
	}
	ref := task.Ref{Kind: task.KindTask, Namespace: ns, Name: arg}
	if kind, name, ok := strings.Cut(arg, "/"); ok {
		switch ref.Name = name; kind {
		case "task", "tasks":
		case "crontask", "crontasks":
			ref.Kind = task.KindCronTask
		default:
			return ref, d.Usage(fmt.Errorf("%q: want NAME, task/NAME or crontask/NAME", arg))
		}
	}
	return ref, d.Usage(ref.Validate())
}

func path(pattern string, ref task.Ref) string {
	return strings.NewReplacer("{namespace}", ref.Namespace, "{kind}", ref.Kind.Resource(), "{task}", ref.Name).Replace(pattern)
}

func results(ctx context.Context, hub *hubclient.Client, ref task.Ref) (task.Results, error) {
	var r task.Results
	err := hub.Get(ctx, path(task.PathResults, ref), nil, &r)
	return r, err
}

// showOutput prints what is kept of a run at each site. One site that cannot be asked keeps no other from being
// shown.
func showOutput(ctx context.Context, d Deps, hub *hubclient.Client, r task.Results, run int) error {
	failed := 0
	for _, s := range r.Sites {
		if len(s.Runs) <= run {
			continue
		}
		fmt.Fprintf(d.Streams.Out, "==> %s <==\n", s.Site)
		last := &lastByte{to: d.Streams.Out, last: '\n'}
		err := hub.Stream(ctx, path(task.PathOutput, r.Ref), outputQuery(s.Site, run), last)
		if last.last != '\n' {
			fmt.Fprintln(d.Streams.Out)
		}
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			failed++
			fmt.Fprintf(d.Streams.ErrOut, "%s: %v\n", s.Site, err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("the output of %d sites could not be had", failed)
	}
	return nil
}

func outputQuery(site fleet.SiteName, run int) url.Values {
	return url.Values{"site": {string(site)}, "run": {strconv.Itoa(run)}}
}

// lastByte remembers how what it passed on ended.
type lastByte struct {
	to   interface{ Write([]byte) (int, error) }
	last byte
}

// Write implements io.Writer.
func (l *lastByte) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.last = p[len(p)-1]
	}
	return l.to.Write(p)
}

func newCancel(d Deps) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel NAME",
		Short: "End a task: runs under way are ended, others do not begin",
		Long: "End a task: runs under way are ended, others do not begin. What became of it stays; `skerry delete task NAME`\n" +
			"removes that too. A site that is away hears of it when it returns.",
		Example: "  skerry task cancel clean-1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := d.ref(args[0])
			if err != nil {
				return err
			}
			if ref.Kind != task.KindTask {
				return d.Hint(d.Usage(fmt.Errorf("a schedule is not cancelled")), "set spec.suspend of CronTask %s, or delete it", ref.Name)
			}
			c, err := d.Objects()
			if err != nil {
				return err
			}
			var t v1alpha1.Task
			if err := c.Get(cmd.Context(), client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, &t); err != nil {
				return notFound(d, ref, err)
			}
			before := t.DeepCopy()
			t.Spec.Cancel = true
			if err := c.Patch(cmd.Context(), &t, client.MergeFrom(before)); err != nil {
				return fmt.Errorf("cancel task %s: %w", ref.Name, err)
			}
			fmt.Fprintf(d.Streams.Out, "task/%s is being cancelled\n", ref.Name)
			return nil
		},
	}
}

func notFound(d Deps, ref task.Ref, err error) error {
	if apierrors.IsNotFound(err) {
		return d.Hint(fmt.Errorf("there is no task %s in namespace %s", ref.Name, ref.Namespace), "see `skerry task list`")
	}
	return fmt.Errorf("read task %s: %w", ref.Name, err)
}
