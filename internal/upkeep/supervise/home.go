package supervise

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// cgroupMount is where systemd mounts control groups of version 2; cgroups(7).
const cgroupMount = "/sys/fs/cgroup"

// controllers are those that agents hand on to apps.
var controllers = []string{"cpu", "memory", "pids"}

// home is the control group that a service manager delegated, with a group of its own for each agent that is started:
// an agent bounds its apps in groups below its own, which the kernel allows only where nothing else lives. The zero
// value and nil place nothing.
type home struct {
	dir  string
	next int
}

// leaveHome moves the supervisor into a group of its own below the one that it was given, so that agents can have theirs.
// Where that is not possible agents share its group, and say of apps which limits do not hold.
func leaveHome(log *slog.Logger) *home {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	path, ok := unifiedPath(string(own))
	if !ok || path == "/" {
		return nil
	}
	h := &home{dir: filepath.Join(cgroupMount, path)}
	if err := h.leave(); err != nil {
		log.Debug("agents share the supervisor's control group", "group", h.dir, "error", err)
		return nil
	}
	return h
}

// unifiedPath finds the group of version 2 in /proc/self/cgroup; false where version 1 has controllers.
func unifiedPath(text string) (path string, ok bool) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	path, ok = strings.CutPrefix(lines[0], "0::")
	return path, ok && len(lines) == 1
}

func (h *home) leave() error {
	own := filepath.Join(h.dir, "skerry-supervisor")
	if err := os.MkdirAll(own, 0o755); err != nil {
		return err
	}
	self := fmt.Append(nil, os.Getpid())
	if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), self, 0o644); err != nil {
		return err
	}
	for _, c := range controllers {
		if err := os.WriteFile(filepath.Join(h.dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			// Back, so that agents stay where they were meant to be.
			return errors.Join(err, os.WriteFile(filepath.Join(h.dir, "cgroup.procs"), self, 0o644))
		}
	}
	return nil
}

// place makes a process start in a new group below home. undo closes what that took, once the process has started.
func (h *home) place(attr *syscall.SysProcAttr) (undo func()) {
	if h == nil {
		return func() {}
	}
	h.next++
	old, _ := filepath.Glob(filepath.Join(h.dir, "skerry-agent-*"))
	for _, dir := range old {
		removeGroups(dir)
	}
	dir := filepath.Join(h.dir, fmt.Sprintf("skerry-agent-%d", h.next))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return func() {}
	}
	f, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(f.Fd())
	return func() { _ = f.Close() }
}

// removeGroups removes a group and those below it; one that still holds a process stays.
func removeGroups(dir string) {
	below, _ := os.ReadDir(dir)
	for _, e := range below {
		if e.IsDir() {
			removeGroups(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}
