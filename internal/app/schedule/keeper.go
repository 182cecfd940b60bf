// Package schedule runs things at their times at a site, whatever happened to the site in between.
//
// It is the one place that knows of cron, time zones, missed times and runs that meet: tasks and the schedules
// of bundles use it. What was decided is stored before it is done, so that no time is decided on twice, by a
// clock that was set back, by a crash, or by a power cut. While the time is not known nothing is decided.
// Site halves and runtimes import it. It does not know what a run is, nor where its outcome goes.
package schedule

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
)

// Clock tells the site's corrected time; known is false while nobody knows it.
type Clock func() (now time.Time, known bool)

// Store keeps the record of one schedule.
type Store interface {
	// Load returns the record; the zero Record when there is none.
	Load() (Record, error)
	// Update replaces the record by what change makes of it, with nobody in between. It is on disk when
	// Update returns.
	Update(change func(Record) Record) error
}

// Options are what a Keeper is made of.
type Options struct {
	// Name is for the log.
	Name  string
	Rules app.ScheduleRules
	// Zone is a name of the IANA time zone database; empty for UTC.
	Zone string
	// Suspend lets times pass without a run.
	Suspend bool
	Clock   Clock
	Store   Store
	// Start does one run for the time at and returns at its end. It ends early when ctx does.
	Start func(ctx context.Context, at time.Time)
	// Resume is called in place of Start, once, for each run that began in an earlier life and whose end
	// nobody saw. It may have done its work, or a part.
	Resume func(ctx context.Context, at time.Time)
	// Changed is called after State changed; nil calls nobody. It must not block.
	Changed func()
	Log     *slog.Logger
}

// maxBeside bounds how many runs of one schedule are under way at once with ConcurrencyAllow.
const maxBeside = 4

// maxWait is after how long the clock is looked at again at the latest: somebody may have set it.
const maxWait = time.Minute

// State is where a schedule stands.
type State struct {
	// Next is when it is due next; zero while that is not known.
	Next time.Time
	// Paused says why nothing runs; empty when all is well.
	Paused string
	Record Record
}

// Keeper keeps one schedule. Make it with New, and Run it once.
type Keeper struct {
	o     Options
	times Times
	rule  string
	// look has a value when the clock is to be looked at before its time.
	look chan struct{}

	mu      sync.Mutex
	state   State
	running []*run
	wg      sync.WaitGroup
}

type run struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// New returns a keeper that does nothing yet. An error that wraps ErrZone comes with a keeper that goes by
// UTC; with any other there is none.
func New(o Options) (*Keeper, error) {
	times, err := NewTimes(o.Rules.Cron, o.Zone)
	if times.when == nil {
		return nil, err
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return &Keeper{o: o, times: times, rule: o.Rules.Cron + " " + times.zone.String(), look: make(chan struct{}, 1)}, err
}

// Wake makes the keeper look at the clock now. It never blocks.
func (k *Keeper) Wake() {
	select {
	case k.look <- struct{}{}:
	default:
	}
}

// State returns where the schedule stands.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// Run keeps the schedule until ctx ends, and returns when no run is under way any more. runs ends those that are;
// one that it ended has no end on record, and is resumed in another life.
func (k *Keeper) Run(ctx, runs context.Context) {
	defer k.wg.Wait()
	rec, err := k.o.Store.Load()
	if err != nil {
		k.stuck(fmt.Errorf("read what ran: %w", err))
	}
	for _, at := range rec.Begun {
		k.start(runs, at, k.o.Resume)
	}
	for ctx.Err() == nil {
		wait := k.step(runs)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-k.look:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// step does what is due, and returns after how long to look again at the latest.
func (k *Keeper) step(runs context.Context) time.Duration {
	now, known := k.o.Clock()
	if !known {
		k.set(func(s *State) {
			s.Paused, s.Next = "schedules wait: the time is not known, as the hub did not tell it yet and the machine's clock cannot be trusted", time.Time{}
		})
		return maxWait
	}
	next, start, err := k.take(now)
	if err != nil {
		return k.stuck(err)
	}
	if !start.IsZero() {
		k.start(runs, start, k.o.Start)
	}
	due := k.times.Next(now)
	k.set(func(s *State) {
		s.Record, s.Next, s.Paused = next, due, ""
		if k.o.Suspend {
			s.Next, s.Paused = time.Time{}, "suspended"
		}
	})
	if !start.IsZero() && len(next.Queue) > 0 && k.room() {
		return 0
	}
	return min(max(due.Sub(now), time.Millisecond), maxWait)
}

// take decides what is due, and stores it: start is then on record as begun, before anything of it is.
func (k *Keeper) take(now time.Time) (next Record, start time.Time, err error) {
	before, err := k.o.Store.Load()
	if err != nil {
		return before, start, fmt.Errorf("read what ran: %w", err)
	}
	// Most looks find nothing to do, and cost no write.
	if next = decide(before, k.rule, k.times, k.o.Rules, now); len(next.Queue) == 0 && equal(before, next) {
		return next, start, nil
	}
	err = k.o.Store.Update(func(rec Record) Record {
		next = decide(rec, k.rule, k.times, k.o.Rules, now)
		if k.o.Suspend {
			next.Queue = nil
		}
		if start = k.admit(&next); !start.IsZero() {
			next.Begun = append(slices.Clone(next.Begun), start)
		}
		return next
	})
	if err != nil {
		return next, time.Time{}, fmt.Errorf("remember what runs: %w", err)
	}
	return next, start, nil
}

// ended takes a run off the record.
func (k *Keeper) ended(at time.Time) error {
	return k.o.Store.Update(func(rec Record) Record {
		rec.Begun = slices.DeleteFunc(slices.Clone(rec.Begun), at.Equal)
		return rec
	})
}

// admit takes from the queue what may begin now; the zero time when nothing. What catches up goes one after the
// other, whatever the rule.
func (k *Keeper) admit(rec *Record) time.Time {
	if len(rec.Queue) == 0 {
		return time.Time{}
	}
	k.mu.Lock()
	under := len(k.running)
	k.mu.Unlock()
	at := rec.Queue[0]
	switch {
	case under == 0:
	case k.o.Rules.Concurrency == app.ConcurrencyReplace:
		at = rec.Queue[len(rec.Queue)-1]
		rec.Skipped += uint64(len(rec.Queue) - 1)
		rec.Queue = nil
		k.endRunning()
		return at
	case k.o.Rules.Concurrency == app.ConcurrencyAllow && under < maxBeside:
	case k.o.Rules.Missed == app.MissedRunAll:
		return time.Time{} // it waits in the queue, which is bounded
	default:
		rec.Skipped += uint64(len(rec.Queue))
		rec.Queue = nil
		k.o.Log.Warn("scheduled run is left out: the one before is still under way", "schedule", k.o.Name, "time", at)
		return time.Time{}
	}
	rec.Queue = slices.Clone(rec.Queue[1:])
	return at
}

func (k *Keeper) room() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.o.Rules.Concurrency == app.ConcurrencyAllow && len(k.running) < maxBeside
}

// endRunning ends what is under way. What comes next waits for it.
func (k *Keeper) endRunning() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.running {
		r.cancel()
	}
}

// start does a run, after those that were told to end.
func (k *Keeper) start(runs context.Context, at time.Time, do func(context.Context, time.Time)) {
	own, cancel := context.WithCancel(runs)
	r := &run{cancel: cancel, done: make(chan struct{})}
	k.mu.Lock()
	var before []*run
	if k.o.Rules.Concurrency == app.ConcurrencyReplace {
		before = append(before, k.running...)
	}
	k.running = append(k.running, r)
	k.mu.Unlock()
	k.wg.Go(func() {
		defer cancel()
		for _, earlier := range before {
			<-earlier.done
		}
		do(own, at)
		if runs.Err() == nil { // else nobody saw the run's own end
			if err := k.ended(at); err != nil {
				k.o.Log.Error("the end of a scheduled run is not on record", "schedule", k.o.Name, "error", err)
			}
		}
		k.mu.Lock()
		k.running = slices.DeleteFunc(k.running, func(other *run) bool { return other == r })
		k.mu.Unlock()
		close(r.done)
		k.Wake() // the queue may hold more
	})
}

func (k *Keeper) stuck(err error) time.Duration {
	k.o.Log.Error("schedule cannot go on", "schedule", k.o.Name, "error", err)
	k.set(func(s *State) { s.Paused, s.Next = err.Error(), time.Time{} })
	return maxWait
}

func (k *Keeper) set(edit func(*State)) {
	k.mu.Lock()
	before := k.state
	edit(&k.state)
	changed := before.Paused != k.state.Paused || !before.Next.Equal(k.state.Next) || !equal(before.Record, k.state.Record)
	k.mu.Unlock()
	if changed {
		k.o.Changed()
	}
}

func equal(a, b Record) bool {
	return a.Rule == b.Rule && a.Last.Equal(b.Last) && a.Skipped == b.Skipped && a.Missed == b.Missed &&
		slices.EqualFunc(a.Queue, b.Queue, time.Time.Equal) && slices.EqualFunc(a.Begun, b.Begun, time.Time.Equal)
}
