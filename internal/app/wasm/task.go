package wasm

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
)

// defaultRun bounds a scheduled run that declares no time.
const defaultRun = 5 * time.Minute

// keepTask starts a task again and again.
func (i *instance) keepTask(ctx context.Context, t app.WasmTask) {
	wait := i.rt.opts.BackOff
	for {
		begun := time.Now()
		f := i.runTask(ctx, t.Name, t.Args, 0)
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

// runTask runs the module once without a request, until it ends, ctx does, or the time is over, which zero
// does not bound.
func (i *instance) runTask(ctx context.Context, name string, args []string, within time.Duration) *failure {
	g := i.p.newGuest(args...)
	stop := context.AfterFunc(ctx, func() { g.cancel(failures[reasonStopped]) })
	defer stop()
	if within > 0 {
		limit := time.AfterFunc(within, func() { g.cancel(failures[reasonTime].with("The limit is %s.", within)) })
		defer limit.Stop()
	}
	out := &lineWriter{to: i.p.stdout}
	g.assign(&job{env: []string{"SKERRY_TASK=" + name}, stdout: taskOutput{out}})
	<-g.ended
	out.flush()
	var f *failure
	if errors.As(g.err, &f) && f.reason != reasonStopped {
		i.p.metrics.task(i.p.spec.App.String(), f)
		return f
	}
	if g.err == nil {
		i.p.metrics.task(i.p.spec.App.String(), nil)
	}
	return nil
}

// taskOutput is a task's standard output, which goes to the app's log.
type taskOutput struct{ *lineWriter }

// Write implements io.Writer.
func (o taskOutput) Write(p []byte) (int, error) {
	o.write(p)
	return len(p), nil
}

// planned is a schedule and its next run.
type planned struct {
	app.WasmSchedule
	when cron.Schedule
	next time.Time
	busy chan struct{}
}

// keepSchedules starts scheduled runs at their times. A run that is still under way is not started twice. A
// time that passed while the agent was down, or the machine slept, is left out.
func (i *instance) keepSchedules(ctx context.Context, workers *sync.WaitGroup) {
	zone, plan := i.zone(), i.plan()
	var last time.Time // when the clock was looked at last; zero: it was unknown, or never looked at
	for {
		now, wait := i.rt.opts.Now().In(zone), unknownWait
		if now.IsZero() {
			i.remark("Clock", "schedules wait: the machine's clock is wrong, and the hub did not say the time yet")
		} else {
			if last.IsZero() || now.Before(last) {
				// What was planned by a wrong clock is planned anew.
				i.remark("Clock", "")
				for _, e := range plan {
					e.next = e.when.Next(now)
				}
			}
			wait = i.runDue(ctx, workers, plan, now)
		}
		last = now
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-i.clock:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// zone is where the site's clocks are.
func (i *instance) zone() *time.Location {
	name := i.p.spec.Env[appsite.EnvTimeZone]
	if name == "" {
		return time.UTC
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		i.remark("TimeZone", "schedules run in UTC: this agent does not know the site's time zone %q", name)
		return time.UTC
	}
	return zone
}

func (i *instance) plan() []*planned {
	var plan []*planned
	for _, s := range i.p.config.Schedules {
		when, err := app.ParseCron(s.Cron)
		if err != nil { // the bundle was checked before
			i.remark("Schedule/"+s.Name, "%s", err.Error())
			continue
		}
		plan = append(plan, &planned{WasmSchedule: s, when: when, busy: make(chan struct{}, 1)})
	}
	return plan
}

// runDue starts what is due at now, and returns how long the next run, or look at the clock, has to wait.
func (i *instance) runDue(ctx context.Context, workers *sync.WaitGroup, plan []*planned, now time.Time) time.Duration {
	first := now.Add(maxWait)
	for _, e := range plan {
		if !e.next.After(now) {
			select {
			case e.busy <- struct{}{}:
				workers.Go(func() {
					defer func() { <-e.busy }()
					i.runScheduled(ctx, e.WasmSchedule)
				})
			default:
				i.rt.log.Warn("scheduled run is left out: the one before is still under way", "app", i.p.spec.App.String(), "schedule", e.Name)
			}
			e.next = e.when.Next(now)
		}
		if e.next.Before(first) {
			first = e.next
		}
	}
	return first.Sub(now)
}

// wake makes schedules look at the clock.
func (i *instance) wake() {
	select {
	case i.clock <- struct{}{}:
	default:
	}
}

// maxWait is after how long schedules look at the clock again at the latest: somebody may have set it.
const maxWait = time.Minute

// unknownWait is after how long a clock that is unknown is looked at again.
const unknownWait = 10 * time.Second

func (i *instance) runScheduled(ctx context.Context, s app.WasmSchedule) {
	within := time.Duration(s.TimeoutSeconds) * time.Second
	if within == 0 {
		within = defaultRun
	}
	if f := i.runTask(ctx, s.Name, s.Args, within); f != nil {
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
