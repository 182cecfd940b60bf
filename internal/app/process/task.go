package process

import (
	"context"
	"fmt"
	"slices"

	"github.com/skerry-dev/skerry/internal/app/appsite"
)

// envTask is the variable that tells a program which task it is.
const envTask = "SKERRY_TASK"

var _ appsite.Finisher = (*Runtime)(nil)

// RunToEnd implements appsite.Finisher. The program has no port and no probes.
func (r *Runtime) RunToEnd(ctx context.Context, spec appsite.Spec, run appsite.Run) (appsite.Outcome, error) {
	fail := func(err error) (appsite.Outcome, error) {
		return appsite.Outcome{}, fmt.Errorf("app %s, release %s: %w", spec.App, spec.Release, err)
	}
	if spec.Config.Process == nil {
		return fail(fmt.Errorf("config.process must be set: %w", ErrSpec))
	}
	config := *spec.Config.Process
	if len(run.Command) > 0 {
		config.Command = run.Command
	}
	config.Command = slices.Concat(config.Command, run.Args)
	spec.Config.Process = &config
	p, err := r.plan(spec)
	if err != nil {
		return fail(err)
	}
	p.task = run.Name
	if !r.claim(spec.ID) {
		return fail(fmt.Errorf("instance %s runs already: %w", spec.ID, ErrSpec))
	}
	defer r.release(spec.ID)
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	group, remark := r.groups.create(spec.ID, config.Limits)
	if remark != "" {
		r.log.Warn("limits are not enforced", "app", spec.App.String(), "task", run.Name, "reason", remark)
	}
	i := newInstance(r, p, group)
	a := &attempt{i: i, exited: make(chan struct{}), killed: group.oomKills()}
	if err := a.start(); err != nil {
		_ = i.cleanUp() // nothing runs; a record that stays is found by Recover
		return fail(err)
	}
	reason := ""
	select {
	case <-a.exited:
	case <-ctx.Done():
		reason = "stopped"
	}
	end := a.finish(reason)
	if end.err != nil { // what could not be ended must be known to Recover: its record stays
		return fail(end.err)
	}
	out := appsite.Outcome{ExitCode: -1, Reason: end.reason}
	if reason == "" && a.cmd.ProcessState != nil {
		if out.ExitCode = a.cmd.ProcessState.ExitCode(); out.ExitCode == 0 {
			out.Reason = ""
		}
	}
	if err := i.cleanUp(); err != nil {
		return out, fmt.Errorf("app %s: %w", spec.App, err)
	}
	return out, nil
}
