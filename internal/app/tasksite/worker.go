package tasksite

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/app/schedule"
	"github.com/skerry-dev/skerry/internal/app/task"
)

// worker does what one task says. Its goroutine, run, does one step after the other; news of the task cuts the
// step under way short where they concern it.
type worker struct {
	m   *Module
	ref task.Ref
	// woken has a value after a change that run may have to look at.
	woken chan struct{}
	// preparing has a value while the bundle is fetched: two at once would each let go of what the other keeps.
	preparing chan struct{}
	// begun is whether run goes on; it belongs to the module's lock.
	begun bool

	// storing is held while the record is changed and stored; it is taken before mu.
	storing sync.Mutex

	mu sync.Mutex
	// want is the newest entry, nil when the task leaves, and zone the site's time zone.
	want *task.Entry
	zone string
	// news says that want changed since the step under way began, and cut ends that step.
	news bool
	cut  context.CancelFunc
	// endRuns ends the runs of a schedule; nil when none may be under way.
	endRuns context.CancelFunc
	// record is as stored.
	record record
	// waits says what the task waits for, keeper is that of a schedule. Both are what reports say.
	waits  string
	keeper *schedule.Keeper
}

func newWorker(m *Module, ref task.Ref) *worker {
	return &worker{m: m, ref: ref, woken: make(chan struct{}, 1), preparing: make(chan struct{}, 1), cut: func() {}}
}

// direct makes e what the worker works towards.
func (w *worker) direct(e *task.Entry, zone string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old, oldZone := w.want, w.zone
	w.want, w.zone = e, zone
	if old != nil && e != nil && !w.concerns(*old, oldZone, *e, zone) {
		return
	}
	if e == nil && old == nil && w.begun {
		return
	}
	if w.endRuns != nil && (e == nil || old == nil || old.UID != e.UID) {
		w.endRuns()
	}
	w.news = true
	w.cut()
	w.wake()
}

// concerns reports whether the step under way must take a change up. A Task that goes on is not run anew since
// its site's labels changed; a schedule is kept as it is said now.
func (w *worker) concerns(old task.Entry, oldZone string, e task.Entry, zone string) bool {
	if old.UID != e.UID || old.Cancel != e.Cancel {
		return true
	}
	if e.Kind == task.KindTask {
		return false
	}
	before, err := old.Digest()
	after, err2 := e.Digest()
	return err != nil || err2 != nil || before != after || oldZone != zone
}

func (w *worker) wants() *task.Entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.want
}

func (w *worker) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// next returns what to work towards and a context that ends when that changes.
func (w *worker) next() (*task.Entry, string, context.Context, context.CancelFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, cancel := context.WithCancel(w.m.ctx)
	w.cut, w.news = cancel, false
	return w.want, w.zone, ctx, cancel
}

// run works until the task has left or the module stops.
func (w *worker) run() {
	for w.m.ctx.Err() == nil {
		want, zone, ctx, cancel := w.next()
		var again time.Duration
		switch {
		case want == nil:
			if again = w.leave(); again == 0 && w.m.dismiss(w) {
				cancel()
				return
			}
		case want.Kind == task.KindCronTask:
			again = w.keep(ctx, *want, zone)
		default:
			again = w.once(ctx, *want)
		}
		cancel()
		w.pause(again)
	}
}

// pause waits until there is something to do, at most for d unless that is zero.
func (w *worker) pause(d time.Duration) {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	for {
		w.mu.Lock()
		news := w.news
		w.mu.Unlock()
		if news {
			return
		}
		select {
		case <-w.woken:
		case <-after:
			return
		case <-w.m.ctx.Done():
			return
		}
	}
}

// open makes the record of a uid the worker's, and lets go of those of earlier objects of this name.
func (w *worker) open(uid string) error {
	w.mu.Lock()
	have := w.record.UID
	w.mu.Unlock()
	if have == uid {
		return nil
	}
	uids, err := w.m.records.uids(w.ref)
	if err != nil {
		return err
	}
	for _, other := range uids {
		if other != uid {
			if err := w.letGo(other); err != nil {
				return err
			}
		}
	}
	rec, err := w.m.records.load(w.ref, uid)
	if err != nil {
		return err
	}
	rec.Gone = 0
	if err := w.m.records.save(rec); err != nil {
		return err
	}
	w.mu.Lock()
	w.record = rec
	w.mu.Unlock()
	return nil
}

// letGo removes what a task that left has here, but for the word of what became of it.
func (w *worker) letGo(uid string) error {
	rec, err := w.m.records.load(w.ref, uid)
	if err != nil {
		return err
	}
	for i := range rec.Runs { // what was under way was ended before
		if run := &rec.Runs[i]; !run.Phase.Final() {
			run.Phase, run.Message, run.Finished = task.PhaseCancelled, "the task was taken from this site", w.m.now().Unix()
		}
	}
	return errors.Join(
		os.RemoveAll(w.m.outputDir(uid)),
		w.m.jobs.Forget(w.ref.Key()),
		w.m.schedules.Forget(scheduleKey+uid),
		w.m.records.leave(rec),
	)
}

// leave takes the task from the site, and returns when to try again; zero when nothing of it is left.
func (w *worker) leave() time.Duration {
	uids, err := w.m.records.uids(w.ref)
	for _, uid := range uids {
		err = errors.Join(err, w.letGo(uid))
	}
	if err = errors.Join(err, w.m.records.prune()); err != nil {
		w.m.log.Error("task does not leave", "task", w.ref.String(), "error", err)
		return w.m.opts.LookAgain
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.record, w.waits, w.keeper = record{}, "", nil
	return 0
}

// prepare fetches the bundle of e, if it has one of its own.
func (w *worker) prepare(ctx context.Context, e task.Entry) error {
	if e.Bundle == nil {
		return nil
	}
	select {
	case w.preparing <- struct{}{}:
		defer func() { <-w.preparing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return w.m.jobs.Prepare(ctx, *e.Bundle)
}

// change changes the record on disk and in memory.
func (w *worker) change(edit func(*record)) error {
	w.storing.Lock()
	defer w.storing.Unlock()
	w.mu.Lock()
	rec := w.record
	rec.Runs = slices.Clone(rec.Runs)
	w.mu.Unlock()
	edit(&rec)
	if err := w.m.records.save(rec); err != nil {
		return err
	}
	w.mu.Lock()
	w.record = rec
	w.mu.Unlock()
	w.m.host.Changed()
	return nil
}

// kept returns a run as it is on record.
func (w *worker) kept(id string) (keptRun, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if run := w.record.find(id); run != nil {
		return *run, true
	}
	return keptRun{}, false
}

// runID returns the id of a run, counted from the newest.
func (w *worker) runID(uid string, n int) (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.record.UID != uid || n >= len(w.record.Runs) {
		return "", false
	}
	return w.record.Runs[n].ID, true
}

// waitsFor says what the task waits for; empty when for nothing.
func (w *worker) waitsFor(what string) {
	w.mu.Lock()
	changed := w.waits != what
	w.waits = what
	w.mu.Unlock()
	if changed {
		w.m.host.Changed()
	}
}

// state is the task's part of the report; false when there is nothing to say of it any more.
func (w *worker) state() (task.State, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.want == nil {
		return task.State{}, false
	}
	s := task.State{Ref: w.ref, UID: w.want.UID, Message: w.waits}
	if d, err := w.want.Digest(); err == nil {
		s.Digest = string(d)
	}
	if w.record.UID != w.want.UID {
		return s, true
	}
	for _, run := range w.record.Runs {
		s.Runs = append(s.Runs, run.Run)
	}
	if w.keeper != nil {
		at := w.keeper.State()
		s.Skipped, s.Missed = at.Record.Skipped, at.Record.Missed
		if !at.Next.IsZero() {
			s.Next = at.Next.Unix()
		}
		if at.Paused != "" {
			s.Message = at.Paused
		}
	}
	return s, true
}
