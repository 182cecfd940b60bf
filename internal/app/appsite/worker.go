package appsite

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// worker brings one app to what its placement says and keeps it there. Its goroutine, run, does one step
// after the other; a newer placement cuts the step under way short.
type worker struct {
	m   *Module
	key fleet.AppKey
	log *appLog
	// woken has a value after a change that run may have to look at; see due.
	woken chan struct{}
	// begun is whether run goes on; it belongs to the module's lock.
	begun bool

	mu sync.Mutex
	// want is the newest placement, nil when the app leaves; told is whether there was one yet.
	want       *app.Placement
	removeData bool
	// cut ends the step under way. news says that want changed since that step began.
	cut  context.CancelFunc
	news bool
	// record is as stored.
	record appRecord
	// current answers callers; candidate is on its way to replace it. Both may be nil.
	current, candidate *live
	// held keeps requests waiting while one instance follows another.
	held bool
	// closing says that the agent stops, and with it the app.
	closing bool
	// step is what the worker is at when no instance of the desired release says it.
	step view
	// failures is how often in a row the wanted release failed.
	failures int
	// shown is what reports say, and route what the gateway was told.
	shown view
	since time.Time
	route *site.Route
	// reported is what the host was last told to ask for.
	reported app.AppReport
	// restarts of instances that are gone.
	restarts int
}

// view is a phase with its reason.
type view struct {
	phase   fleet.Phase
	message string
}

func newWorker(m *Module, key fleet.AppKey, rec appRecord) *worker {
	return &worker{
		m: m, key: key, record: rec, removeData: rec.Desired.RemoveData,
		log: newAppLog(m.logDir(key)), woken: make(chan struct{}, 1), cut: func() {},
		step: view{phase: fleet.PhasePending}, since: time.Now(),
	}
}

// direct makes p what the worker works towards.
func (w *worker) direct(p *app.Placement) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p != nil {
		w.removeData = p.RemoveData
		w.record.Desired = *p
	}
	if p != nil && w.want != nil && p.Digest == w.want.Digest {
		w.want = p
		return
	}
	w.want = p
	w.failures = 0
	w.step = view{phase: fleet.PhasePending}
	w.news = true
	w.cut()
	w.wake()
	w.refresh()
}

// wipe makes the app leave with its data.
func (w *worker) wipe() {
	w.direct(nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removeData = true
}

func (w *worker) wants() *app.Placement {
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
func (w *worker) next() (*app.Placement, context.Context, context.CancelFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, cancel := context.WithCancel(w.m.ctx)
	w.cut, w.news = cancel, false
	return w.want, ctx, cancel
}

// run works until the app has left or the module stops.
func (w *worker) run() {
	defer w.log.close()
	for w.m.ctx.Err() == nil {
		want, ctx, cancel := w.next()
		var wait time.Duration
		if want == nil {
			if w.leave() && w.m.forget(w) {
				cancel()
				w.m.host.Changed()
				return
			}
			wait = w.m.opts.RetryAfter
		} else {
			wait = w.reconcile(ctx, *want)
		}
		cancel()
		w.pause(wait)
	}
	w.shutDown()
}

// pause waits until there is something to do again, at most for d unless that is zero.
func (w *worker) pause(d time.Duration) {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	for !w.due() {
		select {
		case <-w.woken:
		case <-after:
			return
		case <-w.m.ctx.Done():
			return
		}
	}
}

// due reports whether there is something to do before the time of a retry.
func (w *worker) due() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.news || w.current != nil && w.current.status.Phase == fleet.PhaseFailed
}

// reconcile takes the steps that are missing, and returns after how long to try again, zero for never.
func (w *worker) reconcile(ctx context.Context, want app.Placement) time.Duration {
	if l := w.live(); l != nil && w.statusOf(l).Phase == fleet.PhaseFailed {
		reason := w.statusOf(l).Message
		w.retire(l)
		return w.failing(ctx, want, errors.New(reason))
	}
	// After a restart of the agent, what last ran comes back before anything that needs the network.
	if good := w.remembered().Good; good != nil && w.live() == nil {
		if err := w.restore(ctx, *good); err != nil && good.digest() == want.Digest {
			return w.failing(ctx, want, err)
		}
	}
	if l := w.live(); l != nil && l.rel.digest() == want.Digest {
		w.tidy(l.rel)
		return 0
	}
	if err := w.rollOut(ctx, want); err != nil {
		return w.failing(ctx, want, err)
	}
	return 0
}

// failing notes that the release did not come up and returns when to try again.
func (w *worker) failing(ctx context.Context, want app.Placement, err error) time.Duration {
	if ctx.Err() != nil { // cut short by something newer, which the loop takes up at once
		return time.Nanosecond
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures++
	w.step = view{fleet.PhaseFailed, err.Error()}
	if errors.Is(err, errFetch) {
		w.step.phase = fleet.PhaseFetching
		w.m.metrics.fetchErrors.WithLabelValues(w.key.String()).Inc()
	}
	w.refresh()
	wait := w.m.opts.RetryAfter << min(w.failures-1, 20)
	wait = min(wait, w.m.opts.RetryAtMost)
	if w.current != nil && w.current.rel.exclusive() {
		wait = w.m.opts.RetryAtMost // each try takes away what answers now
	}
	w.m.log.Warn("release does not run", "app", w.key.String(), "release", want.Release, "error", err, "retry", wait)
	return wait
}

func (w *worker) live() *live {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current
}

// at says what the worker is doing. A retry says nothing: until it succeeds the failure stands.
func (w *worker) at(phase fleet.Phase) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failures == 0 {
		w.step = view{phase: phase}
	}
	w.refresh()
}

// refresh works out what reports and the gateway should say, and tells them if that changed. The caller
// holds the lock.
func (w *worker) refresh() {
	route := w.routing()
	if (route == nil) != (w.route == nil) || route != nil && *route != *w.route {
		if w.route = route; route == nil {
			w.m.host.Router.Remove(w.key)
		} else {
			w.m.host.Router.Set(w.key, *route)
		}
	}
	if now := w.seen(); now != w.shown {
		if now.phase != w.shown.phase {
			w.since = time.Now()
		}
		w.shown = now
	}
	if now := w.reportLocked(); !reflect.DeepEqual(now, w.reported) {
		w.reported = now
		w.m.host.Changed()
	}
}

// seen is where the desired release stands.
func (w *worker) seen() view {
	switch {
	case w.want != nil && w.current != nil && w.current.rel.digest() == w.want.Digest:
		return view{w.current.status.Phase, w.current.status.Message}
	case w.candidate != nil && w.failures == 0 && w.candidate.status.Phase != fleet.PhaseRunning:
		return view{w.candidate.status.Phase, w.candidate.status.Message}
	}
	return w.step
}

// routing is what the gateway should do with the app's requests, nil when it has none.
func (w *worker) routing() *site.Route {
	rel := w.want
	if w.current != nil {
		rel = &w.current.rel.Placement
	}
	if rel == nil || rel.Route == nil || w.want == nil {
		return nil
	}
	route := &site.Route{Host: rel.Route.Host, Path: rel.Route.Path, Release: rel.Release, State: site.RouteStarting}
	switch {
	case w.closing:
	case w.held:
		route.State = site.RouteHeld
	case w.current != nil && w.current.status.Phase == fleet.PhaseRunning:
		route.State, route.Target = site.RouteReady, w.current.status.Target
	case w.current != nil && w.current.status.Phase == fleet.PhaseFailed, w.current == nil && w.failures > 0:
		route.State = site.RouteDown
	}
	return route
}

// report is the app's part of the module's report, but for its counts.
func (w *worker) report() app.AppReport {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reportLocked()
}

func (w *worker) reportLocked() app.AppReport {
	r := app.AppReport{
		App: w.key, Phase: w.shown.phase, Message: w.shown.message, Since: w.since.Unix(), Restarts: w.restarts,
		Desired: release{Placement: w.record.Desired}.ref(),
	}
	if w.current == nil {
		return r
	}
	r.Restarts += w.current.status.Restarts
	r.Conditions = maps.Clone(w.current.status.Conditions)
	if w.current.status.Phase.Healthy() {
		r.Running = w.current.rel.ref()
	}
	if w.route != nil {
		r.URL = publicURL(w.m.host.Router.URL(), *w.route)
	}
	return r
}
