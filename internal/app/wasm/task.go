package wasm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/schedule"
)

// defaultRun bounds a scheduled run that declares no time.
const defaultRun = 5 * time.Minute

// keepTask starts a task again and again.
func (i *instance) keepTask(ctx context.Context, t app.WasmTask) {
	wait := i.rt.opts.BackOff
	for {
		begun := time.Now()
		f := i.p.runTask(ctx, t.Name, t.Args, 0)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) >= i.rt.opts.HealthyAfter {
			wait = i.rt.opts.BackOff
		}
		i.countRestart()
		reason := "it ended by itself"
		if f != nil {
			reason = f.text
		}
		i.remark("Task/"+t.Name, "%s; started again after %s", reason, wait)
		i.rt.log.Warn("task ended", "app", i.p.spec.App.String(), "task", t.Name, "reason", reason, "next", wait)
		if !pause(ctx, wait) {
			return
		}
		wait = min(2*wait, i.rt.opts.MaxBackOff)
	}
}

var _ appsite.Finisher = (*Runtime)(nil)

// RunToEnd implements appsite.Finisher. The time is bounded by ctx alone.
func (r *Runtime) RunToEnd(ctx context.Context, spec appsite.Spec, run appsite.Run) (out appsite.Outcome, err error) {
	fail := func(err error) (appsite.Outcome, error) {
		return appsite.Outcome{}, fmt.Errorf("app %s, release %s: %w", spec.App, spec.Release, err)
	}
	if spec.Config.Wasm == nil {
		return fail(fmt.Errorf("config.wasm must be set: %w", ErrSpec))
	}
	config := *spec.Config.Wasm
	args := run.Args
	if len(run.Command) > 0 {
		config.Module, args = run.Command[0], slices.Concat(run.Command[1:], run.Args)
	}
	spec.Config.Wasm = &config
	p, err := r.newProgram(spec)
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if !r.claim(spec) {
		return fail(fmt.Errorf("instance %s runs already: %w", spec.ID, ErrSpec))
	}
	defer r.release(spec.ID)
	stop := context.AfterFunc(ctx, p.cancel)
	defer stop()
	if err := p.compile(); err != nil {
		return fail(err)
	}
	f, code := p.runOnce(ctx, run.Name, args, 0)
	if f == nil {
		p.metrics.task(spec.App.String(), nil)
		return appsite.Outcome{}, nil
	}
	if f.reason == reasonStopped {
		return appsite.Outcome{ExitCode: -1, Reason: "stopped"}, nil
	}
	p.metrics.task(spec.App.String(), f)
	return appsite.Outcome{ExitCode: code, Reason: f.text}, nil
}

// runTask runs the module once without a request, until it ends, ctx does, or the time is over, which zero
// does not bound. A nil failure is success, or an end because ctx ended.
func (p *program) runTask(ctx context.Context, name string, args []string, within time.Duration) *failure {
	f, _ := p.runOnce(ctx, name, args, within)
	if f != nil && f.reason == reasonStopped {
		return nil
	}
	p.metrics.task(p.spec.App.String(), f)
	return f
}

// runOnce does that, and returns the exit code too, -1 when the module did not get to return one.
func (p *program) runOnce(ctx context.Context, name string, args []string, within time.Duration) (*failure, int) {
	g := p.newGuest(args...)
	stop := context.AfterFunc(ctx, func() { g.cancel(failures[reasonStopped]) })
	defer stop()
	if within > 0 {
		limit := time.AfterFunc(within, func() { g.cancel(failures[reasonTime].with("The limit is %s.", within)) })
		defer limit.Stop()
	}
	out := &lineWriter{to: p.stdout}
	g.assign(&job{env: []string{"SKERRY_TASK=" + name}, stdout: taskOutput{out}})
	<-g.ended
	out.flush()
	var f *failure
	if errors.As(g.err, &f) {
		return f, g.exitCode
	}
	return nil, 0
}

// taskOutput is a task's standard output, which goes to the app's log.
type taskOutput struct{ *lineWriter }

// Write implements io.Writer.
func (o taskOutput) Write(p []byte) (int, error) {
	o.write(p)
	return len(p), nil
}

// makeKeepers returns those of the bundle's schedules.
func (i *instance) makeKeepers() []*schedule.Keeper {
	app := i.p.spec.App.String()
	var keepers []*schedule.Keeper
	for _, s := range i.p.config.Schedules {
		key := app + "/" + s.Name
		var k *schedule.Keeper
		k, err := schedule.New(schedule.Options{
			Name: key, Rules: s.ScheduleRules, Zone: i.p.spec.Env[appsite.EnvTimeZone], Clock: i.rt.opts.Clock,
			Store: i.rt.schedules.Of(key), Log: i.rt.log,
			Start: func(ctx context.Context, at time.Time) {
				under := fmt.Sprint(key, "@", at.Unix())
				i.rt.under.Store(under, true)
				defer i.rt.under.Delete(under)
				i.runScheduled(ctx, s)
			},
			Resume: func(_ context.Context, at time.Time) {
				if _, ok := i.rt.under.Load(fmt.Sprint(key, "@", at.Unix())); !ok { // else it is of the release before this
					i.remark("Schedule/"+s.Name, "the last run failed: it was stopped before it ended")
				}
			},
			Changed: func() { i.remarkPaused(s.Name, k.State().Paused) },
		})
		switch {
		case errors.Is(err, schedule.ErrZone):
			i.remark("TimeZone", "%s", err.Error())
		case err != nil: // the bundle was checked before
			i.remark("Schedule/"+s.Name, "%s", err.Error())
			continue
		}
		keepers = append(keepers, k)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keepers = keepers
	return keepers
}

func (i *instance) remarkPaused(name, why string) {
	if why == "" {
		i.remark("Clock", "")
		return
	}
	i.remark("Clock", "%s", why)
}

// wake makes schedules look at the clock.
func (i *instance) wake() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, k := range i.keepers {
		k.Wake()
	}
}

func (i *instance) runScheduled(ctx context.Context, s app.WasmSchedule) {
	within := time.Duration(s.TimeoutSeconds) * time.Second
	if within == 0 {
		within = defaultRun
	}
	if f := i.p.runTask(ctx, s.Name, s.Args, within); f != nil {
		i.remark("Schedule/"+s.Name, "the last run failed: %s", f.text)
		return
	}
	i.remark("Schedule/"+s.Name, "")
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
