package tasksite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// onceID is the id of a Task's one run.
const onceID = "run"

// lostRecord is said of a Task that was over here before the site lost its disk.
const lostRecord = "it was over here before this site lost what it kept, or got another machine"

// noClock is what a task with StartBy waits for.
const noClock = "the time is not known, so that nobody can say whether it is too late"

// once brings a Task to its end, and returns when to go on where something was in the way.
func (w *worker) once(ctx context.Context, e task.Entry) time.Duration {
	if err := w.open(e.UID); err != nil {
		return w.stuck(err)
	}
	run, ok := w.kept(onceID)
	if !ok {
		run = keptRun{ID: onceID, Run: task.Run{Phase: task.PhasePending}}
		if e.Done {
			run.Phase, run.ExitCode, run.Message = task.PhaseMissed, -1, lostRecord
		}
		if err := w.change(func(r *record) { r.Runs = []keptRun{run} }); err != nil {
			return w.stuck(err)
		}
	}
	if run.Phase.Final() {
		w.waitsFor("")
		return 0
	}
	if err := w.execute(ctx, e, onceID, func() (verdict, string) { return w.mayBegin(e) }); err != nil {
		return w.stuck(err)
	}
	return 0
}

func (w *worker) stuck(err error) time.Duration {
	w.m.log.Error("task cannot go on", "task", w.ref.String(), "error", err)
	w.waitsFor(err.Error())
	return w.m.opts.LookAgain
}

// verdict says whether a run that did not begin yet may.
type verdict int

const (
	mayBegin verdict = iota
	mustWait
	tooLate
)

// mayBegin judges a Task by its startBy.
func (w *worker) mayBegin(e task.Entry) (verdict, string) {
	if e.StartBy == 0 {
		return mayBegin, ""
	}
	now, known := w.m.opts.Clock()
	if !known {
		return mustWait, noClock
	}
	if by := time.Unix(e.StartBy, 0); now.After(by) {
		return tooLate, fmt.Sprintf("this site heard of it, or could begin, only after startBy (%s)", by.UTC().Format(time.RFC3339))
	}
	return mayBegin, ""
}

// execute tries a run until it is over or ctx ends. A run that is on record as running was interrupted: the
// agent or the machine stopped in the middle of a try. judge is asked before the first try.
func (w *worker) execute(ctx context.Context, e task.Entry, id string, judge func() (verdict, string)) error {
	run, _ := w.kept(id)
	failed, why, code := run.Phase == task.PhaseRunning, "interrupted: the agent or the machine stopped while it ran", -1
	pause := w.m.opts.RetryAfter
	for {
		if e.Cancel {
			return w.end(id, task.PhaseCancelled, "the task was cancelled", run.ExitCode)
		}
		if failed {
			run, _ = w.kept(id)
			if run.Attempt > e.Retries {
				return w.end(id, task.PhaseFailed, why, code)
			}
			note := fmt.Sprintf("try %d of %d: %s", run.Attempt, e.Retries+1, why)
			if err := w.change(func(r *record) {
				edit(r, id, func(k *keptRun) { k.Message, k.ExitCode = task.Cut(note, task.MaxMessage), code })
			}); err != nil {
				return err
			}
			if !sleep(ctx, pause) {
				return w.cutShort(id)
			}
			pause = min(2*pause, w.m.opts.RetryAtMost)
		}
		var begun bool
		var err error
		begun, failed, why, code, err = w.try(ctx, e, id)
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil && (!begun || why != ""):
			return w.cutShort(id)
		case begun && !failed:
			return w.end(id, task.PhaseSucceeded, "", 0)
		case failed:
			continue
		}
		// It did not begin: what it needs is not here yet, or it must not.
		if run.Attempt == 0 {
			switch v, text := judge(); v {
			case tooLate:
				return w.end(id, task.PhaseMissed, text, -1)
			case mustWait:
				why = text
			case mayBegin:
			}
		}
		w.waitsFor(why)
		if !sleep(ctx, w.m.opts.LookAgain) {
			return w.cutShort(id)
		}
	}
}

// cutShort ends a run whose context ended. When the agent stops, the record stays as it is.
func (w *worker) cutShort(id string) error {
	if w.m.ctx.Err() != nil {
		return nil
	}
	run, _ := w.kept(id)
	return w.end(id, task.PhaseCancelled, "it was ended before it was done", run.ExitCode)
}

// try does one try. begun is false when nothing of it began, why saying what is in the way.
func (w *worker) try(ctx context.Context, e task.Entry, id string) (begun, failed bool, why string, code int, err error) {
	run, _ := w.kept(id)
	if run.Attempt == 0 {
		if v, text := w.mayBegin(e); v != mayBegin {
			return false, false, text, -1, nil
		}
	}
	patience := time.AfterFunc(time.Second, func() { w.waitsFor("the bundle is on its way") })
	err = w.prepare(ctx, e)
	patience.Stop()
	if err != nil {
		return w.notBegun(id, err)
	}
	select {
	case w.m.slots <- struct{}{}:
		defer func() { <-w.m.slots }()
	default:
		w.waitsFor(fmt.Sprintf("%d runs are under way at this site, which is as many as may be", cap(w.m.slots)))
		select {
		case w.m.slots <- struct{}{}:
			defer func() { <-w.m.slots }()
		case <-ctx.Done():
			return false, false, "stopped", -1, nil
		}
	}
	if run.Attempt == 0 { // it may have waited for long
		if v, text := w.mayBegin(e); v != mayBegin {
			return false, false, text, -1, nil
		}
	}
	out, err := openOutput(w.m.outputPath(e.UID, id), w.m.opts.OutputBytes)
	if err != nil {
		return false, false, "", -1, err
	}
	limit := time.Duration(e.DeadlineSeconds) * time.Second
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	outcome, runErr := w.m.jobs.RunJob(bounded, w.job(e, id, run.Attempt+1, out), func() error {
		begun = true
		return w.begin(id)
	})
	tail, lost := out.end()
	w.m.metrics.lost.Add(float64(lost))
	if !begun {
		return w.notBegun(id, runErr)
	}
	switch {
	case runErr != nil:
		failed, why, code = true, runErr.Error(), -1
	case errors.Is(bounded.Err(), context.DeadlineExceeded) && outcome.Reason != "":
		failed, why, code = true, fmt.Sprintf("it took longer than the deadline of %s and was ended", limit), -1
	default:
		failed, why, code = outcome.Reason != "", outcome.Reason, outcome.ExitCode
	}
	return begun, failed, why, code, w.change(func(r *record) { edit(r, id, func(k *keptRun) { k.Tail = tail }) })
}

// notBegun tells what may come from what never will.
func (w *worker) notBegun(id string, err error) (bool, bool, string, int, error) {
	if err == nil {
		err = errors.New("it did not begin")
	}
	if errors.Is(err, appsite.ErrNotYet) || errors.Is(err, context.Canceled) {
		return false, false, err.Error(), -1, nil
	}
	// A try that cannot begin as declared counts as one: else it would be tried for ever.
	if err := w.begin(id); err != nil {
		return false, false, "", -1, err
	}
	return true, true, err.Error(), -1, nil
}

// begin puts on record that a try begins.
func (w *worker) begin(id string) error {
	w.waitsFor("")
	now := w.m.now().Unix()
	return w.change(func(r *record) {
		edit(r, id, func(k *keptRun) {
			if k.Attempt == 0 {
				k.Started = now
			}
			k.Phase = task.PhaseRunning
			k.Attempt++
		})
	})
}

// end puts on record how a run ended.
func (w *worker) end(id string, phase task.Phase, why string, code int) error {
	w.waitsFor("")
	now := w.m.now().Unix()
	err := w.change(func(r *record) {
		edit(r, id, func(k *keptRun) {
			if k.Attempt == 0 {
				code = -1
			}
			k.Phase, k.Message, k.ExitCode, k.Finished = phase, task.Cut(why, task.MaxMessage), code, now
		})
	})
	if err != nil {
		return err
	}
	w.m.metrics.runs.WithLabelValues(string(phase)).Inc()
	w.happened(phase, why)
	w.m.log.Info("task is over", "task", w.ref.String(), "run", id, "phase", string(phase), "exit", code, "reason", why)
	return nil
}

// happened tells of what a person may have to look at.
func (w *worker) happened(phase task.Phase, why string) {
	e := fleet.Event{Class: fleet.ClassEvent, App: fleet.AppKey{Namespace: w.ref.Namespace, Name: w.ref.Name}, Message: w.ref.String() + ": " + why}
	if want := w.wants(); want != nil && want.App != "" {
		e.App.Name = want.App
	}
	switch phase {
	case task.PhaseFailed:
		e.Reason = task.EventFailed
	case task.PhaseMissed:
		e.Reason = task.EventMissed
	default:
		return
	}
	w.m.host.Events.Add(e)
}

func edit(r *record, id string, change func(*keptRun)) {
	if run := r.find(id); run != nil {
		change(run)
	}
}

// job is what a try runs.
func (w *worker) job(e task.Entry, id string, attempt int, out *output) appsite.Job {
	j := appsite.Job{
		Key: e.Ref.Key(), ID: fmt.Sprintf("task.%s.%s.%d", e.UID, id, attempt), Env: maps.Clone(e.Env), Output: out,
		Run: appsite.Run{Name: e.Name, Command: e.Command, Args: e.Args},
	}
	if e.App != "" {
		j.App = fleet.AppKey{Namespace: e.Namespace, Name: e.App}
	}
	return j
}

// sleep waits, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
