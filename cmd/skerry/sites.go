package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skerry-dev/skerry/cmd/internal/dirs"
	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/enroll/enrollsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
)

// localSite is a site that `up` runs on this machine, as a process of its own that outlives the hub.
type localSite struct {
	name string
	dir  string
	// gateway is the address at which it serves by preference.
	gateway string
}

// status asks the site's agent; an error that wraps site.ErrNoAgent when none runs.
func (s localSite) status(ctx context.Context) (site.Status, error) {
	var status site.Status
	err := s.ask(ctx, "/status", &status)
	return status, err
}

// askTimeout bounds a question to an agent on this machine.
const askTimeout = 2 * time.Second

func (s localSite) ask(ctx context.Context, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return err
	}
	res, err := site.LocalClient(s.dir).Do(req)
	if err != nil {
		return fmt.Errorf("ask agent of site %s: %w", s.name, err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(answer); err != nil {
		return fmt.Errorf("ask agent of site %s: %w", s.name, err)
	}
	return nil
}

// serves reports whether the agent says that an app of the example's namespace is healthy.
func (s localSite) serves(ctx context.Context, name string) bool {
	var r app.Report
	if err := s.ask(ctx, "/apps", &r); err != nil {
		return false
	}
	return slices.ContainsFunc(r.Apps, func(a app.AppReport) bool {
		return a.App == fleet.AppKey{Namespace: exampleNamespace, Name: name} && a.Healthy()
	})
}

// enrolled reports whether the site joined before, so that it needs no token.
func (s localSite) enrolled() bool {
	_, err := os.Stat(filepath.Join(s.dir, enrollsite.IdentityFile))
	return err == nil
}

// start starts the agent in a process group of its own, so that Ctrl-C and the end of this program do not
// reach it. The token, if any, travels by environment: arguments are for everybody to read.
func (s localSite) start(binary, token string) (*exec.Cmd, error) {
	if err := dirs.Make(s.dir); err != nil {
		return nil, fmt.Errorf("site %s: %w", s.name, err)
	}
	logFile, err := os.OpenFile(filepath.Join(s.dir, "agent.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of site %s: %w", s.name, err)
	}
	defer logFile.Close()
	cmd := exec.Command(binary, "site", "run", "--data-dir", s.dir, "--gateway-addr", s.gateway)
	cmd.Env = append(os.Environ(), "SKERRY_JOIN_TOKEN="+token)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start site %s: %w", s.name, err)
	}
	return cmd, nil
}

// stopTimeout is how long a process may take to stop in order.
const stopTimeout = 40 * time.Second

// stop asks the agent to stop and returns when its process has ended. No agent is no error.
func (s localSite) stop(ctx context.Context) error {
	status, err := s.status(ctx)
	if errors.Is(err, site.ErrNoAgent) {
		return nil
	}
	if err != nil {
		return err
	}
	return endProcess(ctx, status.PID)
}

// endProcess sends SIGTERM and waits, by a file descriptor that cannot come to mean another process.
func endProcess(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, stopTimeout, fmt.Errorf("process %d did not stop within %s", pid, stopTimeout))
	defer cancel()
	return awaitExit(ctx, fd)
}

// exitPoll is how often a wait for a process looks whether it is still wanted.
const exitPoll = 200 * time.Millisecond

// awaitExit returns when the process of a pidfd has ended, child or not, or with ctx's cause.
func awaitExit(ctx context.Context, fd int) error {
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(exitPoll.Milliseconds()))
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for a process: %w", err)
		}
	}
	return context.Cause(ctx)
}

// awaitEnd returns when the agent that runs now has ended, at once when none runs, or with ctx's cause.
func (s localSite) awaitEnd(ctx context.Context) error {
	status, err := s.status(ctx)
	if err != nil {
		return ctx.Err()
	}
	fd, err := unix.PidfdOpen(status.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch agent of site %s: %w", s.name, err)
	}
	defer unix.Close(fd)
	return awaitExit(ctx, fd)
}
