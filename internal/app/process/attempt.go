package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// defaultGrace is app.ProcessConfig.StopGraceSeconds when that is zero.
const defaultGrace = 10

// killPatience is how long the kernel may take to end what was killed. A process that outlives it hangs in
// the kernel, on a dead disk for instance.
const killPatience = 10 * time.Second

// pipeDelay is how long output is awaited after the program's end from whoever still holds the pipe.
const pipeDelay = time.Second

// outcome is how one run of the program ended.
type outcome struct {
	reason string
	// hopeless says that another start would end the same; portTaken that another program has the port.
	hopeless, portTaken bool
	// healthy is how long the program was ready.
	healthy time.Duration
	// err is set when not everything could be ended.
	err error
}

// attempt is one run of the program.
type attempt struct {
	i      *instance
	port   int
	cmd    *exec.Cmd
	record record
	// exited closes when the program has ended; it is reaped in finish.
	exited chan struct{}
	// killed is the kernel's count of kills for want of memory before this run.
	killed uint64
	// ready is since when the program is ready; zero while it is not.
	ready   time.Time
	healthy time.Duration
}

// runOnce starts the program and returns when nothing of it runs any more.
func (i *instance) runOnce() outcome {
	i.set(fleet.PhaseStarting, "", "")
	port, err := i.rt.ports.take()
	if err != nil {
		return outcome{reason: err.Error()}
	}
	defer i.rt.ports.put(port)
	a := &attempt{i: i, port: port, exited: make(chan struct{}), killed: i.group.oomKills()}
	if err := a.start(); err != nil {
		return outcome{reason: err.Error(), hopeless: hopeless(err)}
	}
	reason := a.watch()
	return a.finish(reason)
}

func (a *attempt) start() error {
	p := a.i.plan
	a.record = record{Boot: bootID(), Scratch: p.spec.Scratch, Groups: a.i.group.dirs()}
	if err := a.i.rt.records.put(p.spec.ID, a.record); err != nil {
		return err
	}
	a.i.group.loosen()
	if err := a.spawnAnyhow(); err != nil {
		return err
	}
	a.i.group.settle()
	a.record.PID = a.cmd.Process.Pid
	a.i.setPID(a.record.PID)
	stat, err := readStat(a.record.PID)
	if err == nil {
		a.record.Start = stat.start
		err = a.i.rt.records.put(p.spec.ID, a.record)
	}
	go func() {
		awaitExit(a.record.PID)
		close(a.exited)
	}()
	if err != nil {
		return errors.Join(err, a.finish("").err)
	}
	return nil
}

// spawnAnyhow does without the version 2 control group when the program starts only so: old kernels and
// some sandboxes know no birth into a control group.
func (a *attempt) spawnAnyhow() error {
	g := a.i.group
	err := a.spawn(g)
	if err == nil || g == nil || g.unified == "" {
		return err
	}
	unified := g.unified
	g.unified = ""
	if a.spawn(g) != nil {
		g.unified = unified
		return err
	}
	a.i.outside(err)
	return nil
}

func (a *attempt) spawn(g *group) error {
	p := a.i.plan
	a.cmd = &exec.Cmd{
		Path: p.program, Args: append([]string{p.program}, p.config.Command[1:]...),
		Dir: p.work(), Env: p.environ(a.port),
		Stdout: p.spec.Stdout, Stderr: p.spec.Stderr, WaitDelay: pipeDelay,
	}
	return spawn(a.cmd, g, p.uid)
}

// watch follows the program until it ends, fails its liveness probe or is to be stopped, and says why in words.
func (a *attempt) watch() string {
	ctx, cancel := context.WithCancel(context.Background())
	var probes sync.WaitGroup
	defer probes.Wait()
	defer cancel()
	found := make(chan health)
	tell := func(h health) {
		select {
		case found <- h:
		case <-ctx.Done():
		}
	}
	config := a.i.plan.config
	probes.Go(func() { watchReadiness(ctx, a.port, config.Readiness, tell) })
	probes.Go(func() { watchLiveness(ctx, a.port, config.Liveness, tell) })
	defer a.lostReady()
	for {
		select {
		case <-a.exited:
			return ""
		case <-a.i.stop:
			return "stopped"
		case h := <-found:
			a.lostReady()
			if h.dead {
				a.i.set(fleet.PhaseBackOff, h.reason+"; being stopped for a restart", "")
				return h.reason
			}
			if h.ready {
				a.ready = time.Now()
				a.i.set(fleet.PhaseRunning, "", "http://"+loopback(a.port))
			} else {
				a.i.set(fleet.PhaseStarting, h.reason, "")
			}
		}
	}
}

func (a *attempt) lostReady() {
	if !a.ready.IsZero() {
		a.healthy = max(a.healthy, time.Since(a.ready))
		a.ready = time.Time{}
	}
}

// finish ends the program, gracefully if it still runs, then everything else of it, and reaps it. The
// process group's id stays the program's own until it is reaped, so no other group can be hit.
func (a *attempt) finish(reason string) outcome {
	pgid := a.record.PID
	grace := time.Duration(cmp.Or(a.i.plan.config.StopGraceSeconds, defaultGrace)) * time.Second
	select {
	case <-a.exited:
	default:
		_ = unix.Kill(-pgid, unix.SIGTERM)
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-a.exited:
		case <-a.i.kill:
		case <-t.C:
			a.i.rt.log.Warn("program did not stop in time and is killed",
				append(appAttrs(a.i.plan.spec.App, a.i.plan.spec.ID), "grace", grace)...)
		}
	}
	// Whatever the program started and left in its group or control group ends with it.
	ctx, cancel := context.WithTimeout(context.Background(), killPatience)
	defer cancel()
	err := a.killRest(ctx, pgid)
	a.i.setPID(0)
	if err == nil {
		_ = a.cmd.Wait()
	}
	end := outcome{reason: reason, healthy: a.healthy, err: err}
	if err != nil {
		end.reason = err.Error()
	} else if reason == "" {
		end.reason = a.exitReason()
		end.portTaken = portTaken(a.port)
	}
	return end
}

// killRest kills what belongs to the instance until only the unreaped program itself is left.
func (a *attempt) killRest(ctx context.Context, pgid int) error {
	for {
		_ = unix.Kill(-pgid, unix.SIGKILL)
		left := a.record.leftovers()
		for _, pid := range left {
			killIf(pid, func() bool { return a.record.owns(pid) })
		}
		select {
		case <-a.exited:
			if len(left) == 0 {
				return nil
			}
		default:
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v were killed and do not end: %w", left, ctx.Err())
		case <-time.After(sweepEvery):
		}
	}
}

// exitReason says how the program ended.
func (a *attempt) exitReason() string {
	if n := a.i.group.oomKills(); n > a.killed {
		return fmt.Sprintf("killed by the kernel: out of memory (limit %d bytes)", a.i.plan.config.Limits.MemoryBytes)
	}
	state := a.cmd.ProcessState
	if state == nil {
		return "ended in a way that the kernel did not tell"
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return fmt.Sprintf("killed by signal %d (%s)", status.Signal(), status.Signal())
	}
	return fmt.Sprintf("exited with status %d", state.ExitCode())
}
