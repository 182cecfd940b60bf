package process

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// instance keeps one program running until Stop. One goroutine, run, owns its life.
type instance struct {
	rt    *Runtime
	plan  plan
	group *group

	mu     sync.Mutex
	status appsite.Status
	// pid is that of the program while it runs and is not reaped, else zero.
	pid int

	changes chan struct{}
	// stop asks for a graceful end, kill for one at once; done closes after the end, and err is set before.
	stop, kill         chan struct{}
	stopOnce, killOnce sync.Once
	done               chan struct{}
	err                error
}

func newInstance(rt *Runtime, p plan, g *group) *instance {
	return &instance{
		rt: rt, plan: p, group: g,
		status:  appsite.Status{Phase: fleet.PhaseStarting, Since: time.Now()},
		changes: make(chan struct{}, 1),
		stop:    make(chan struct{}), kill: make(chan struct{}), done: make(chan struct{}),
	}
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

// Stop implements appsite.Instance.
func (i *instance) Stop(ctx context.Context) error {
	i.stopOnce.Do(func() { close(i.stop) })
	select {
	case <-i.done:
		return i.err
	case <-ctx.Done():
	}
	i.killOnce.Do(func() { close(i.kill) })
	<-i.done
	return i.err
}

// Signal implements appsite.Signaller. A program that does not run now reads what is new when it starts.
func (i *instance) Signal(name string) error {
	signal := unix.SignalNum(name)
	if signal == 0 {
		return fmt.Errorf("signal %q: there is no such signal: %w", name, ErrSpec)
	}
	i.mu.Lock() // what has ended is not reaped meanwhile, so its id stays its own
	defer i.mu.Unlock()
	if i.pid == 0 {
		return nil
	}
	if err := unix.Kill(i.pid, signal); err != nil {
		return fmt.Errorf("send %s to the program: %w", name, err)
	}
	return nil
}

func (i *instance) setPID(pid int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pid = pid
}

func (i *instance) set(phase fleet.Phase, message, target string) {
	i.mu.Lock()
	if i.status.Phase != phase {
		i.status.Since = time.Now()
	}
	i.status.Phase, i.status.Message, i.status.Target = phase, message, target
	i.mu.Unlock()
	select {
	case i.changes <- struct{}{}:
	default:
	}
}

func (i *instance) stopping() bool {
	select {
	case <-i.stop:
		return true
	default:
		return false
	}
}

// run starts the program again and again until it is told to stop or the program cannot be started.
func (i *instance) run() {
	defer close(i.done)
	defer i.rt.release(i.plan.spec.ID)
	wait := backOff{first: i.rt.opts.BackOff, max: i.rt.opts.MaxBackOff}
	portRaces := 0
	for !i.stopping() {
		end := i.runOnce()
		if end.err != nil { // what could not be ended must be known to Recover: its record stays
			i.err = end.err
			i.set(fleet.PhaseFailed, end.reason, "")
			<-i.stop
			return
		}
		if i.stopping() {
			break
		}
		if end.hopeless {
			i.set(fleet.PhaseFailed, end.reason, "")
			break
		}
		i.countRestart()
		if end.portTaken && portRaces < maxPortRaces {
			portRaces++
			continue
		}
		portRaces = 0
		if end.healthy >= i.rt.opts.HealthyAfter {
			wait.reset()
		}
		pause := wait.next()
		i.rt.log.Warn("program ended", append(appAttrs(i.plan.spec.App, i.plan.spec.ID), "reason", end.reason, "next", pause)...)
		i.set(fleet.PhaseBackOff, fmt.Sprintf("%s; next start in %s", end.reason, pause.Round(time.Millisecond)), "")
		i.pause(pause)
	}
	<-i.stop
	i.err = i.cleanUp()
}

// maxPortRaces bounds the immediate restarts after another program took the chosen port first.
const maxPortRaces = 5

func (i *instance) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-i.stop:
	}
}

func (i *instance) countRestart() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.status.Restarts++
}

// outside tells that the program could only be started outside of its version 2 control group.
func (i *instance) outside(err error) {
	i.rt.log.Warn("program runs outside of its control group", append(appAttrs(i.plan.spec.App, i.plan.spec.ID), "error", err)...)
	for _, l := range declared(i.plan.config.Limits) {
		if !i.rt.groups.enabled[l.controller] {
			continue // version 1 bounds it
		}
		i.mu.Lock()
		i.status.Conditions = map[string]string{conditionLimits: fmt.Sprintf(
			"the limits are not enforced: a program cannot be started in its control group: %v", err)}
		i.mu.Unlock()
	}
}

// cleanUp forgets the instance, of which nothing runs any more.
func (i *instance) cleanUp() error {
	if err := i.rt.groups.remove(i.group.dirs()); err != nil {
		i.rt.log.Warn("control group stays behind", append(appAttrs(i.plan.spec.App, i.plan.spec.ID), "error", err)...)
	}
	return i.rt.records.delete(i.plan.spec.ID)
}

// backOff is a wait that doubles up to a cap.
type backOff struct{ first, max, last time.Duration }

func (b *backOff) next() time.Duration {
	b.last = min(max(b.last*2, b.first), b.max)
	return b.last
}

func (b *backOff) reset() { b.last = 0 }
