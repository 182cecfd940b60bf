package appsite

import (
	"context"
	"errors"
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
	// want is the newest placement, nil when the app leaves.
	want       *app.Placement
	removeData bool
	// cut ends the step under way. news says that want changed since that step began.
	cut  context.CancelFunc
	news bool
	// secretNews says that secrets of the site changed since the step under way began.
	secretNews bool
	// remarks are standing ones of the worker's own, by reason.
	remarks map[string]string
	// rotations is how often in a row the app did not start with newer secrets.
	rotations int
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
	w.mu.Lock()
	w.removeData = true
	w.mu.Unlock()
	w.direct(nil)
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
	w.cut, w.news, w.secretNews = cancel, false, false
	return w.want, ctx, cancel
}

// run works until the app has left or the module stops.
func (w *worker) run() {
	defer w.log.close()
	for w.m.ctx.Err() == nil {
		want, ctx, cancel := w.next()
		var wait time.Duration
		if want == nil {
			if w.leave() && w.m.dismiss(w) {
				cancel()
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
	return w.news || w.secretNews || w.current != nil &&
		(w.current.status.Phase == fleet.PhaseFailed || w.current.status.Phase == fleet.PhaseRunning && len(w.current.signals) > 0)
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
		return w.rotate(ctx, l)
	} else if l != nil && w.failed() {
		w.rotate(ctx, l) // the last good release goes on, with the newest secrets
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
	if errors.Is(err, app.ErrSecretMissing) {
		w.step.phase = fleet.PhasePending
	}
	if errors.Is(err, errFetch) {
		w.step.phase = fleet.PhaseFetching
		w.m.metrics.fetchErrors.WithLabelValues(w.key.String()).Inc()
	}
	w.refresh()
	wait := w.m.opts.RetryAfter << min(w.failures-1, 20)
	wait = min(wait, w.m.opts.RetryAtMost)
	if errors.Is(err, errFetch) {
		wait = min(wait, fetchAgainAtMost) // a disk that is full may have room at any moment, and a try costs little
	}
	if w.current != nil && w.current.rel.exclusive() {
		wait = w.m.opts.RetryAtMost // each try takes away what answers now
	}
	w.m.log.Warn("release does not run", "app", w.key.String(), "release", want.Release, "error", err, "retry", wait)
	return wait
}

// fetchAgainAtMost bounds the wait for content that cannot be fetched or stored.
const fetchAgainAtMost = time.Minute

// failed reports whether the wanted release failed before.
func (w *worker) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failures > 0
}

func (w *worker) live() *live {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current
}
