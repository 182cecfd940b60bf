package taskcli

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/task"
)

// runFlags are those of "task run".
type runFlags struct {
	bundle, app, sites string
	all, wait, logs    bool
	command            string
	env                []string
	deadline, startIn  time.Duration
	ttl                time.Duration
	retries, atOnce    int32
	timeout            time.Duration
}

func newRun(d Deps) *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run NAME (--bundle BUNDLE | --app APP) (--sites SELECTOR | --all) [-- ARG...]",
		Short: "Run something once at each of some sites",
		Long: "Run something once at each of some sites, and wait until those that are connected are done. It prints what\n" +
			"became of it, site by site, and exits with 1 when a site failed, missed it, or was cancelled. Sites that are\n" +
			"away run it when they return, unless --start-within is over by then.\n\n" +
			"A NAME that ends in '-' gets a random ending.",
		Example: "  skerry task run clean-1 --app shop --sites zone=eu -- --older-than 30d\n" +
			"  skerry task run probe- --bundle probe:1.2.0 --all --deadline 30s --logs",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); dash != 1 && (dash >= 0 || len(args) != 1) {
				return d.Hint(d.Usage(fmt.Errorf("want one NAME")), "arguments for the task come behind `--`")
			}
			t, err := f.task(d, args)
			if err != nil {
				return err
			}
			return run(cmd.Context(), d, t, f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.bundle, "bundle", "", "what to run: NAME:VERSION or NAME@sha256:DIGEST, as `skerry push` prints it")
	flags.StringVar(&f.app, "app", "", "run in the release, configuration, data and secrets that this app has at each site")
	flags.StringVar(&f.sites, "sites", "", "label selector of the sites, such as zone=eu,kind!=test")
	flags.BoolVar(&f.all, "all", false, "at every site that the namespace is granted")
	flags.StringVar(&f.command, "command", "", "program, or module, of the bundle to run in place of its own")
	flags.StringArrayVar(&f.env, "env", nil, "NAME=VALUE to add to the environment; may be given again")
	flags.DurationVar(&f.deadline, "deadline", 10*time.Minute, "how long one run may take")
	flags.Int32Var(&f.retries, "retries", 0, "how often a site tries again")
	flags.Int32Var(&f.atOnce, "parallelism", 0, "how many connected sites may be at it at once; 0 for all")
	flags.DurationVar(&f.startIn, "start-within", 0, "a site that cannot begin within this misses it; 0 for no bound")
	flags.DurationVar(&f.ttl, "ttl", 24*time.Hour, "delete it with its results so long after its end; 0 keeps it")
	flags.BoolVar(&f.wait, "wait", true, "wait for the sites that are connected")
	flags.DurationVar(&f.timeout, "timeout", 0, "wait no longer than this; 0 for no bound. The task goes on")
	flags.BoolVar(&f.logs, "logs", false, "print all that the sites kept of its output, too")
	return c
}

// task makes the object.
func (f runFlags) task(d Deps, args []string) (*v1alpha1.Task, error) {
	if (f.bundle == "") == (f.app == "") {
		return nil, d.Usage(fmt.Errorf("give one of --bundle and --app"))
	}
	if (f.sites == "") == !f.all {
		return nil, d.Hint(d.Usage(fmt.Errorf("give one of --sites and --all")), "`skerry get sites --show-labels` lists sites and labels")
	}
	selector, err := parseSelector(f.sites)
	if err != nil {
		return nil, d.Usage(fmt.Errorf("--sites %q: %w", f.sites, err))
	}
	ns, err := d.Namespace()
	if err != nil {
		return nil, err
	}
	t := &v1alpha1.Task{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: args[0]},
		Spec: v1alpha1.TaskSpec{
			Work:        v1alpha1.TaskWork{App: f.app, Retries: f.retries, Deadline: &metav1.Duration{Duration: f.deadline}},
			Placement:   v1alpha1.Placement{Sites: *selector},
			Parallelism: f.atOnce,
		},
	}
	if strings.HasSuffix(args[0], "-") {
		t.GenerateName, t.Name = args[0], ""
	}
	if f.bundle != "" {
		t.Spec.Work.Source = &v1alpha1.AppSource{Bundle: f.bundle}
	}
	if f.command != "" {
		t.Spec.Work.Command = []v1alpha1.TaskArg{v1alpha1.TaskArg(f.command)}
	}
	for _, arg := range args[1:] {
		t.Spec.Work.Args = append(t.Spec.Work.Args, v1alpha1.TaskArg(arg))
	}
	for _, e := range f.env {
		name, value, ok := strings.Cut(e, "=")
		if !ok {
			return nil, d.Usage(fmt.Errorf("--env %q: want NAME=VALUE", e))
		}
		if t.Spec.Work.Env == nil {
			t.Spec.Work.Env = map[string]v1alpha1.EnvValue{}
		}
		t.Spec.Work.Env[name] = v1alpha1.EnvValue(value)
	}
	if f.startIn > 0 {
		t.Spec.StartBy = &metav1.Time{Time: time.Now().Add(f.startIn)}
	}
	if f.ttl > 0 {
		t.Spec.TTLAfterFinished = &metav1.Duration{Duration: f.ttl}
	}
	return t, nil
}

// parseSelector reads a selector as kubectl takes it; empty selects all.
func parseSelector(text string) (*metav1.LabelSelector, error) {
	requirements, err := labels.ParseToRequirements(text)
	if err != nil {
		return nil, err
	}
	out := &metav1.LabelSelector{}
	for _, r := range requirements {
		e := metav1.LabelSelectorRequirement{Key: r.Key(), Values: slices.Sorted(maps.Keys(r.Values()))}
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			e.Operator = metav1.LabelSelectorOpIn
		case selection.NotEquals, selection.NotIn:
			e.Operator = metav1.LabelSelectorOpNotIn
		case selection.Exists:
			e.Operator = metav1.LabelSelectorOpExists
		case selection.DoesNotExist:
			e.Operator = metav1.LabelSelectorOpDoesNotExist
		default:
			return nil, fmt.Errorf("%q cannot be used to select sites", r.Operator())
		}
		out.MatchExpressions = append(out.MatchExpressions, e)
	}
	return out, nil
}

// watchEvery is how often the results are asked for.
const watchEvery = 500 * time.Millisecond

func run(ctx context.Context, d Deps, t *v1alpha1.Task, f runFlags) error {
	hub, err := d.Hub(ctx)
	if err != nil {
		return err
	}
	c, err := d.Objects()
	if err != nil {
		return err
	}
	if err := c.Create(ctx, t); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return d.Hint(fmt.Errorf("there is a task %s already", t.Name), "a task runs once: take another name, or `%s-` for a random ending", t.Name)
		}
		return fmt.Errorf("make task: %w", err)
	}
	ref := task.Ref{Kind: task.KindTask, Namespace: t.Namespace, Name: t.Name}
	if !f.wait {
		fmt.Fprintf(d.Streams.Out, "task/%s\n", t.Name)
		return nil
	}
	waiting := ctx
	if f.timeout > 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	progress := &progress{out: d.Streams.ErrOut, line: isTerminal(d.Streams.ErrOut), name: t.Name}
	var r task.Results
	for done := false; !done; {
		if r, err = results(waiting, hub, ref); err == nil {
			progress.show(r)
			if done, err = settled(d, ref, r); err != nil {
				progress.end()
				return err
			}
		}
		if err != nil && waiting.Err() == nil {
			progress.end()
			return d.Hint(err, "the task goes on: `skerry task results %s`", t.Name)
		}
		select {
		case <-waiting.Done():
			progress.end()
			return d.Hint(fmt.Errorf("no longer waiting for task %s: %w", t.Name, waiting.Err()),
				"the task goes on: `skerry task results %s`, `skerry task cancel %s`", t.Name, t.Name)
		case <-time.After(wait(done)):
		}
	}
	progress.end()
	if err := printResults(d.Streams.Out, r, time.Now()); err != nil {
		return err
	}
	if f.logs {
		fmt.Fprintln(d.Streams.Out)
		if err := showOutput(ctx, d, hub, r, 0); err != nil {
			return err
		}
	}
	return judge(d, r)
}

func wait(done bool) time.Duration {
	if done {
		return 0
	}
	return watchEvery
}

// settled reports whether there is nothing to wait for: every site is done, or away. An error says that the task
// cannot run as it is.
func settled(d Deps, ref task.Ref, r task.Results) (bool, error) {
	if r.Finished {
		return true, nil
	}
	if r.Stalled {
		err := fmt.Errorf("task %s does not run: %s: %s", ref.Name, r.Reason, r.Message)
		return false, d.Hint(err, "it runs once that is mended; `skerry task cancel %s` gives it up", ref.Name)
	}
	away := 0
	for _, s := range r.Sites {
		switch {
		case s.Standing == task.StandingAway:
			away++
		case !s.Standing.Final():
			return false, nil
		}
	}
	return away > 0 && r.Reason != "", nil
}

// judge says how a task went, for the exit code.
func judge(d Deps, r task.Results) error {
	bad, away := 0, 0
	for _, s := range r.Sites {
		switch {
		case s.Standing == task.StandingAway:
			away++
		case s.Standing.Final() && s.Standing != task.Standing(task.PhaseSucceeded):
			bad++
		}
	}
	if away > 0 {
		fmt.Fprintf(d.Streams.ErrOut, "%d of %d sites are away: they run it when they return; `skerry task results %s` shows them\n", away, len(r.Sites), r.Name)
	}
	if bad > 0 {
		return d.Hint(fmt.Errorf("%d of %d sites: %w", bad, len(r.Sites), ErrSites), "`skerry task results %s --logs` shows all that they printed", r.Name)
	}
	return nil
}

// progress says how far a task is: on a terminal in one line, else in a line each time that it changes.
type progress struct {
	out  interface{ Write([]byte) (int, error) }
	line bool
	name string
	last string
}

func (p *progress) show(r task.Results) {
	counts := map[task.Standing]int{}
	for _, s := range r.Sites {
		counts[s.Standing]++
	}
	text := fmt.Sprintf("task/%s: %d sites", p.name, len(r.Sites))
	for _, standing := range []task.Standing{
		task.StandingWaiting, task.StandingAway, task.Standing(task.PhaseRunning), task.Standing(task.PhaseSucceeded),
		task.Standing(task.PhaseFailed), task.Standing(task.PhaseMissed), task.Standing(task.PhaseCancelled),
	} {
		if n := counts[standing]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, strings.ToLower(string(standing)))
		}
	}
	if text == p.last {
		return
	}
	p.last = text
	if p.line {
		fmt.Fprintf(p.out, "\r\x1b[K%s", text)
		return
	}
	fmt.Fprintln(p.out, text)
}

// end leaves the line to what comes next.
func (p *progress) end() {
	if p.line && p.last != "" {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

func isTerminal(out any) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
