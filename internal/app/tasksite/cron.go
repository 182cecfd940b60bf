package tasksite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/schedule"
	"github.com/skerry-dev/skerry/internal/app/task"
)

// keep keeps a schedule until ctx ends, and returns when to go on where something was in the way. What runs when
// the schedule changes runs to its end first.
func (w *worker) keep(ctx context.Context, e task.Entry, zone string) time.Duration {
	if err := w.open(e.UID); err != nil {
		return w.stuck(err)
	}
	runs, endRuns := context.WithCancel(w.m.ctx)
	defer endRuns()
	k, err := schedule.New(schedule.Options{
		Name: w.ref.String(), Rules: e.Schedule.ScheduleRules, Zone: zone, Suspend: e.Schedule.Suspend,
		Clock: w.m.opts.Clock, Store: w.m.schedules.Of(scheduleKey + e.UID), Log: w.m.log, Changed: w.m.host.Changed,
		Start:  func(ctx context.Context, at time.Time) { w.scheduled(ctx, e, at, false) },
		Resume: func(ctx context.Context, at time.Time) { w.scheduled(ctx, e, at, true) },
	})
	if k == nil {
		return w.stuck(err)
	}
	w.mu.Lock()
	w.keeper, w.endRuns, w.waits = k, endRuns, ""
	if err != nil { // the zone is not known; UTC it is
		w.waits = err.Error()
	}
	if w.want == nil { // it left meanwhile
		endRuns()
	}
	w.mu.Unlock()
	var fetching sync.WaitGroup
	fetching.Go(func() { w.fetchAhead(ctx, e) })
	k.Run(ctx, runs)
	fetching.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endRuns = nil
	return 0
}

// fetchAhead fetches what the schedule runs before it is due: then there may be no network.
func (w *worker) fetchAhead(ctx context.Context, e task.Entry) {
	for e.Bundle != nil {
		err := w.prepare(ctx, e)
		if err == nil {
			w.waitsFor("")
			return
		}
		if ctx.Err() == nil {
			w.waitsFor(err.Error())
		}
		if !errors.Is(err, appsite.ErrNotYet) || !sleep(ctx, w.m.opts.LookAgain) {
			return
		}
	}
}

// scheduled does the run for one time of the schedule; again says that it began in an earlier life.
func (w *worker) scheduled(ctx context.Context, e task.Entry, at time.Time, again bool) {
	id := strconv.FormatInt(at.Unix(), 10)
	if _, ok := w.kept(id); !ok {
		// On record as begun with no word of it: the agent stopped right before.
		run := keptRun{ID: id, Run: task.Run{Time: at.Unix(), Phase: task.PhasePending, ExitCode: -1}}
		if again {
			run.Phase, run.Attempt = task.PhaseRunning, 1
		}
		if err := w.add(e, run); err != nil {
			w.m.log.Error("scheduled run is left out", "task", w.ref.String(), "time", at, "error", err)
			return
		}
	}
	if run, _ := w.kept(id); run.Phase.Final() {
		return
	}
	patience := time.Now().Add(time.Duration(e.DeadlineSeconds) * time.Second)
	err := w.execute(ctx, e, id, func() (verdict, string) {
		if time.Now().After(patience) {
			return tooLate, fmt.Sprintf("it could not begin within its deadline of %d s", e.DeadlineSeconds)
		}
		return mayBegin, ""
	})
	if err != nil {
		w.m.log.Error("scheduled run cannot go on", "task", w.ref.String(), "time", at, "error", err)
	}
}

// add puts a new run on record, and drops the oldest that are over, with their output.
func (w *worker) add(e task.Entry, run keptRun) error {
	var dropped []string
	err := w.change(func(r *record) {
		runs := []keptRun{run}
		for _, old := range r.Runs {
			if len(runs) >= e.Schedule.History && old.Phase.Final() {
				dropped = append(dropped, old.ID)
				continue
			}
			runs = append(runs, old)
		}
		r.Runs = runs
	})
	if err != nil {
		return err
	}
	for _, id := range dropped {
		if err := removeOutput(w.m.outputPath(e.UID, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.m.log.Warn("output of an old run stays", "task", w.ref.String(), "error", err)
		}
	}
	return nil
}
