package wasm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/app/schedule"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// instance is one release of an app at work. A goroutine, run, owns its life.
type instance struct {
	rt      *Runtime
	p       *program
	handler *handler

	mu     sync.Mutex
	status appsite.Status

	changes chan struct{}
	// slots has a value for each request that is served; waiting counts those that wait for one.
	slots   chan struct{}
	waiting atomic.Int64
	// requests waits for the handler's calls.
	requests sync.WaitGroup
	// pool holds prepared guests; used has a value after a request came, left after one ended.
	pool       chan *guest
	used, left chan struct{}

	// keepers of the schedules, set before the instance runs.
	keepers []*schedule.Keeper

	stop     chan struct{}
	stopOnce sync.Once
	done     chan struct{}
	err      error
}

// Status implements appsite.Instance.
func (i *instance) Status() appsite.Status {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.status
	s.Conditions = maps.Clone(s.Conditions)
	return s
}

// Changes implements appsite.Instance.
func (i *instance) Changes() <-chan struct{} { return i.changes }

// Stop implements appsite.Instance. Requests that are served go on until ctx ends; tasks end at once.
func (i *instance) Stop(ctx context.Context) error {
	i.stopOnce.Do(func() {
		i.mu.Lock() // after it no request is admitted
		defer i.mu.Unlock()
		close(i.stop)
	})
	select {
	case <-i.done:
		return i.err
	case <-ctx.Done():
	}
	i.p.cancel()
	<-i.done
	return i.err
}

func (i *instance) set(edit func(*appsite.Status)) {
	i.mu.Lock()
	phase := i.status.Phase
	edit(&i.status)
	if i.status.Phase != phase {
		i.status.Since = time.Now()
	}
	i.mu.Unlock()
	select {
	case i.changes <- struct{}{}:
	default:
	}
}

func (i *instance) run() {
	defer close(i.done)
	defer i.rt.release(i.p.spec.ID)
	// ctx ends with Stop: nothing new begins.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := i.compile(); err != nil {
		i.set(func(s *appsite.Status) { s.Phase, s.Message = fleet.PhaseFailed, err.Error() })
		<-i.stop
		i.err = i.p.close()
		return
	}
	var workers sync.WaitGroup
	if i.p.limits.Prepared > 0 {
		workers.Go(func() { i.prepare(ctx) })
	}
	for _, t := range i.p.config.Tasks {
		workers.Go(func() { i.keepTask(ctx, t) })
	}
	for _, k := range i.makeKeepers() {
		workers.Go(func() { k.Run(ctx, ctx) })
	}
	i.set(func(s *appsite.Status) {
		s.Phase, s.Message, s.Target, s.Handler = fleet.PhaseRunning, "", "wasm:"+i.p.spec.ID, i.handler
	})
	<-i.stop
	cancel()
	i.requests.Wait()
	i.p.cancel()
	workers.Wait()
	i.err = i.p.close()
}

// compile compiles until Stop.
func (i *instance) compile() error {
	compiled := make(chan error, 1)
	go func() { compiled <- i.p.compile() }()
	select {
	case err := <-compiled:
		return err
	case <-i.stop:
		i.p.cancel()
		return errors.Join(<-compiled, errors.New("stopped"))
	}
}

// prepare keeps guests ready while the app is in use.
func (i *instance) prepare(ctx context.Context) {
	idle := time.NewTimer(i.rt.opts.IdleAfter)
	defer idle.Stop()
	for ctx.Err() == nil {
		i.awaitQuiet(ctx)
		g := i.p.newGuest()
		select {
		case <-g.parked:
		case <-g.ended: // it failed; whoever takes it makes another
		case <-ctx.Done():
		}
		if i.offer(ctx, g, idle) {
			continue
		}
		g.end()
		i.drain()
		if ctx.Err() != nil {
			return
		}
		select {
		case <-i.used:
			idle.Reset(i.rt.opts.IdleAfter)
		case <-ctx.Done():
		}
	}
	i.drain()
}

// quietWithin is how long requests that are served hold back the making of another instance.
const quietWithin = 50 * time.Millisecond

// awaitQuiet lets requests that are served have the processors, while another instance is prepared already.
func (i *instance) awaitQuiet(ctx context.Context) {
	patience := time.NewTimer(quietWithin)
	defer patience.Stop()
	for len(i.slots) > 0 && len(i.pool) > 0 {
		select {
		case <-i.left:
		case <-patience.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// offer waits until somebody takes g, and reports false when nobody came for long or ctx ended.
func (i *instance) offer(ctx context.Context, g *guest, idle *time.Timer) bool {
	for {
		select {
		case i.pool <- g:
			return true
		case <-i.used:
			idle.Reset(i.rt.opts.IdleAfter)
		case <-idle.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (i *instance) drain() {
	for {
		select {
		case g := <-i.pool:
			g.end()
		default:
			return
		}
	}
}

// take returns a guest without a job, a prepared one if there is any.
func (i *instance) take() *guest {
	g := i.takePrepared()
	select {
	case i.used <- struct{}{}:
	default:
	}
	if g == nil {
		return i.p.newGuest()
	}
	i.rt.metrics.prepared.Inc()
	return g
}

func (i *instance) takePrepared() *guest {
	for {
		select {
		case g := <-i.pool:
			select {
			case <-g.ended: // it failed; what hindered it may be over
			default:
				return g
			}
		default:
			return nil
		}
	}
}

// admit begins a request, unless the instance is being stopped.
func (i *instance) admit() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	select {
	case <-i.stop:
		return false
	default:
	}
	i.requests.Add(1)
	return true
}

// enter waits for a slot, in a bounded crowd.
func (i *instance) enter(ctx context.Context) *failure {
	select {
	case i.slots <- struct{}{}:
		return nil
	default:
	}
	if i.waiting.Add(1) > int64(i.p.limits.Queue) {
		i.waiting.Add(-1)
		return failures[reasonBusy]
	}
	defer i.waiting.Add(-1)
	patience := time.NewTimer(i.p.timeout())
	defer patience.Stop()
	select {
	case i.slots <- struct{}{}:
		return nil
	case <-patience.C:
		return failures[reasonBusy]
	case <-ctx.Done():
		return failures[reasonGone]
	case <-i.p.ctx.Done():
		return failures[reasonStopped]
	}
}

func (i *instance) leave() {
	<-i.slots
	select {
	case i.left <- struct{}{}:
	default:
	}
}

func (i *instance) countRestart() { i.set(func(s *appsite.Status) { s.Restarts++ }) }

// remark sets a standing remark, or takes it away when text is empty.
func (i *instance) remark(reason, format string, args ...any) {
	i.set(func(s *appsite.Status) {
		conditions := maps.Clone(s.Conditions)
		if conditions == nil {
			conditions = map[string]string{}
		}
		delete(conditions, reason)
		if format != "" {
			conditions[reason] = fmt.Sprintf(format, args...)
		}
		s.Conditions = conditions
	})
}
