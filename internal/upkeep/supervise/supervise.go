// Package supervise starts a site's agent and, when a new one is tried, goes back by itself to the one before unless
// the new one proves healthy in time.
//
// A supervisor is not upgraded together with the agent that it tries. It does little: it starts the program that package
// slots names, passes signals on, and judges a trial by what the agent says on its local socket. An agent that ends
// outside of a trial ends the supervisor with it, whose own service manager starts both again.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/skerry-dev/skerry/internal/upkeep/slots"
)

// Env tells an agent that it was started by a supervisor, and so may ask for a trial.
const Env = "SKERRY_SUPERVISED"

// Options of a supervisor.
type Options struct {
	// DataDir is the agent's. Base is the installed program and BaseArgs the arguments with which it is an agent, Args
	// those of the programs in slots.
	DataDir, Base  string
	BaseArgs, Args []string
	Log            *slog.Logger
	// Steady is how long an agent must be healthy without a break; zero means 5 s. Poll is how often it is asked; zero
	// means 250 ms. Grace is how long an agent may take to stop; zero means 60 s.
	Steady, Poll, Grace time.Duration
}

// againAfter is the pause before an agent that ended in a trial is tried again.
const againAfter = 500 * time.Millisecond

// badGrace is how long an agent may take to stop that was found bad: nothing of a site answers meanwhile.
const badGrace = 10 * time.Second

// supervisor is a run of Run.
type supervisor struct {
	o     Options
	slots *slots.Slots
	home  *home
	// deadline is that of the trial under way, which does not begin anew with an attempt; zero: none.
	deadline time.Time
}

// Run starts the agent until ctx ends, when it asks it to stop and waits, or until it ends outside of a trial. An agent
// that failed is an *exec.ExitError.
func Run(ctx context.Context, o Options) error {
	if o.Steady == 0 {
		o.Steady = 5 * time.Second
	}
	if o.Poll == 0 {
		o.Poll = 250 * time.Millisecond
	}
	if o.Grace == 0 {
		o.Grace = 60 * time.Second
	}
	s := &supervisor{o: o, slots: slots.Open(o.DataDir), home: leaveHome(o.Log)}
	for {
		again, err := s.once(ctx)
		if !again || ctx.Err() != nil {
			return err
		}
	}
}

// once runs one agent and reports whether another one is to be started.
func (s *supervisor) once(ctx context.Context) (again bool, err error) {
	program, record, trial, err := s.slots.Next(s.o.Base)
	if err != nil {
		return false, err
	}
	child, err := s.start(program)
	if err != nil {
		return s.notStarted(program, trial, err)
	}
	verdicts := make(chan string, 1)
	judging, enough := context.WithCancel(ctx)
	var judge sync.WaitGroup
	defer judge.Wait()
	defer enough()
	if trial {
		s.o.Log.Info("a new agent is tried", "version", record.Version, "attempts left", record.Attempts, "deadline", record.DeadlineSeconds)
		if s.deadline.IsZero() {
			s.deadline = time.Now().Add(time.Duration(record.DeadlineSeconds) * time.Second)
		}
		deadline := s.deadline
		judge.Go(func() { verdicts <- s.judge(judging, record, child.pid, deadline) })
	}
	for {
		select {
		case <-ctx.Done():
			child.stop(s.o.Grace)
			return false, nil
		case reason := <-verdicts:
			if ctx.Err() != nil {
				continue // it was not judged: ctx ended
			}
			trial, s.deadline = false, time.Time{}
			if reason == "" {
				s.o.Log.Info("the new agent is healthy", "version", record.Version)
				if err := s.slots.Confirm(); err != nil {
					s.o.Log.Error("the new agent runs, but is tried again at the next start", "error", err)
				}
				continue
			}
			child.stop(min(s.o.Grace, badGrace))
			return true, s.goBack(record, reason)
		case <-child.done:
			return s.ended(ctx, record, trial, child.err)
		}
	}
}

// notStarted deals with a program that the kernel refuses.
func (s *supervisor) notStarted(program string, trial bool, err error) (again bool, _ error) {
	switch {
	case trial:
		return true, s.slots.Fail("it cannot be started: " + err.Error())
	case program != s.o.Base:
		s.o.Log.Error("the agent cannot be started: the installed one takes its place", "program", program, "error", err)
		return true, s.slots.Abandon()
	}
	return false, fmt.Errorf("start the agent: %w", err)
}

// ended deals with an agent that ended by itself.
func (s *supervisor) ended(ctx context.Context, record slots.Record, trial bool, end error) (again bool, _ error) {
	if trial {
		why := "it ended with " + describe(end)
		if record.Attempts < 1 {
			s.deadline = time.Time{}
			return true, s.goBack(record, why+" in each of its attempts")
		}
		s.o.Log.Warn("the new agent ended and is tried again", "version", record.Version, "error", why)
		select {
		case <-ctx.Done():
		case <-time.After(againAfter):
		}
		return true, nil
	}
	r, ok, err := s.slots.Record()
	if err != nil {
		return false, err
	}
	if ok && r.State == slots.Trial { // it asked for one
		return true, nil
	}
	return false, end
}

func (s *supervisor) goBack(record slots.Record, reason string) error {
	s.o.Log.Error("the new agent is not healthy: the one before takes its place", "version", record.Version, "reason", reason)
	return s.slots.Fail(reason)
}

func describe(end error) string {
	if end == nil {
		return "status 0"
	}
	return end.Error()
}

// judge returns when the agent was healthy for long enough, with nothing; or at the deadline, with why it was not.
func (s *supervisor) judge(ctx context.Context, record slots.Record, pid int, deadline time.Time) string {
	tick := time.NewTicker(s.o.Poll)
	defer tick.Stop()
	since, wrong := time.Time{}, "its local socket does not answer"
	for {
		select {
		case <-ctx.Done():
			return ""
		case <-tick.C:
		}
		now := "" // what is wrong now
		health, err := Ask(ctx, s.o.DataDir)
		switch {
		case err != nil:
			now = "its local socket does not answer: " + err.Error()
		case health.PID != pid:
			now = fmt.Sprintf("another agent, process %d, answers", health.PID)
		default:
			now = health.worse(record)
		}
		if now != "" {
			since, wrong = time.Time{}, now
		} else if since.IsZero() {
			since = time.Now()
		}
		if !since.IsZero() && time.Since(since) >= s.o.Steady {
			return ""
		}
		if time.Now().After(deadline) {
			return fmt.Sprintf("after %d s %s", record.DeadlineSeconds, wrong)
		}
	}
}

// child is a running agent.
type child struct {
	pid     int
	process *os.Process
	done    chan struct{} // closed when it has ended
	err     error         // how; of who saw done closed
}

// start starts a program. The kernel kills it with its supervisor: it must not hold the data directory against the next.
func (s *supervisor) start(program string) (*child, error) {
	c := &child{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel takes the end of the thread that started a process for that of its parent.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		args := s.o.Args
		if program == s.o.Base {
			args = s.o.BaseArgs
		}
		cmd := exec.Command(program, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), Env+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		undo := s.home.place(cmd.SysProcAttr)
		err := cmd.Start()
		undo()
		if err == nil {
			c.pid, c.process = cmd.Process.Pid, cmd.Process
		}
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// stop asks the agent to end, and ends it when it does not.
func (c *child) stop(grace time.Duration) {
	if err := c.process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		_ = c.process.Kill()
	}
	select {
	case <-c.done:
	case <-time.After(grace):
		_ = c.process.Kill()
		<-c.done
	}
}
