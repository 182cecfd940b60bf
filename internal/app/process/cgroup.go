package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
)

// controllers are the kinds of limit that this package sets, by their names in both versions of control groups.
var controllers = []string{"memory", "cpu", "pids"}

// cgroups are the control groups of one agent: under a parent that is named after it, one group an
// instance. Version 2 is used for whatever it offers, version 1 for the rest; a machine that mounts both
// ("hybrid") has its controllers in version 1 and still lets version 2 keep track of processes.
type cgroups struct {
	mu sync.Mutex
	// unified is the parent in the version 2 hierarchy, empty when there is none that can be used.
	unified string
	// enabled are the controllers that unified offers to its children.
	enabled map[string]bool
	// legacy are the parents in version 1 hierarchies, by controller.
	legacy map[string]string
	// missing says, by controller, why there is none.
	missing map[string]string
}

// group is one instance's control group. A nil group limits and finds nothing. It is not safe for
// concurrent use, but for pids and kill.
type group struct {
	owner   *cgroups
	unified string
	legacy  map[string]string
	// pids is the limit of processes, zero for none; see settle.
	pids int
}

// create makes the group of instance id with the limits. remark is empty when all limits hold, otherwise
// a sentence that says which do not, and why. A machine without control groups yields a nil group.
func (c *cgroups) create(id string, limits app.Limits) (g *group, remark string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g = &group{owner: c, legacy: map[string]string{}, pids: limits.PIDs}
	missing := map[string]string{}
	for name, why := range c.missing {
		missing[name] = why
	}
	if c.unified != "" {
		dir := filepath.Join(c.unified, id)
		if err := c.makeUnified(dir); err == nil {
			g.unified = dir
		} else {
			for name := range c.enabled {
				missing[name] = err.Error()
			}
		}
	}
	for name, parent := range c.legacy {
		dir := filepath.Join(parent, id)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			missing[name] = err.Error()
			continue
		}
		g.legacy[name] = dir
	}
	var unmet []string
	for _, l := range declared(limits) {
		why, ok := missing[l.controller]
		if !ok {
			if err := g.limit(l); err != nil {
				why, ok = err.Error(), true
			}
		}
		if ok {
			unmet = append(unmet, fmt.Sprintf("the %s limit of %s is not enforced: %s", l.name, l.shown, why))
		}
	}
	if g.unified == "" && len(g.legacy) == 0 {
		g = nil
	}
	return g, strings.Join(unmet, "; ")
}

// dir is where the group's files of a controller are, empty when nowhere.
func (g *group) dir(controller string) string {
	if dir, ok := g.legacy[controller]; ok {
		return dir
	}
	if g.owner.enabled[controller] {
		return g.unified
	}
	return ""
}

// settle sets the limit of processes to what was declared, once the program has begun.
func (g *group) settle() {
	if g == nil || g.pids == 0 || g.dir("pids") == "" {
		return
	}
	_ = writeFile(filepath.Join(g.dir("pids"), "pids.max"), strconv.Itoa(g.pids))
}

// loosen makes room for the forking thread before a restart.
func (g *group) loosen() {
	if g == nil || g.pids == 0 || g.dir("pids") == "" {
		return
	}
	_ = writeFile(filepath.Join(g.dir("pids"), "pids.max"), strconv.Itoa(g.pids+1))
}

// enter moves one thread into the version 1 groups.
func (g *group) enter(tid int) error {
	if g == nil {
		return nil
	}
	for _, dir := range g.legacy {
		if err := writeFile(filepath.Join(dir, "tasks"), strconv.Itoa(tid)); err != nil {
			return fmt.Errorf("enter control group: %w", err)
		}
	}
	return nil
}

// unifiedDir opens the version 2 group for a child to be born in; nil when there is none.
func (g *group) unifiedDir() *os.File {
	if g == nil || g.unified == "" {
		return nil
	}
	dir, err := os.Open(g.unified)
	if err != nil {
		return nil
	}
	return dir
}

// dirs lists every directory of the group.
func (g *group) dirs() []string {
	if g == nil {
		return nil
	}
	var out []string
	if g.unified != "" {
		out = append(out, g.unified)
	}
	for _, dir := range g.legacy {
		out = append(out, dir)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// oomKills counts how often the kernel killed a process of the group for want of memory.
func (g *group) oomKills() uint64 {
	if g == nil {
		return 0
	}
	file := "memory.events"
	if _, legacy := g.legacy["memory"]; legacy {
		file = "memory.oom_control"
	}
	data, err := os.ReadFile(filepath.Join(g.dir("memory"), file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			count, _ := strconv.ParseUint(n, 10, 64)
			return count
		}
	}
	return 0
}

// groupPIDs lists the processes in the directories of a group, the agent itself left out: it shows there
// while a thread of it forks.
func groupPIDs(dirs []string) []int {
	var pids []int
	for _, dir := range dirs {
		data, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for field := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// strays lists the groups of instances that lie in this agent's place and that nobody knows.
func (c *cgroups) strays(known map[string]bool) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	parents := []string{c.unified}
	for _, parent := range c.legacy {
		parents = append(parents, parent)
	}
	var out []string
	for _, parent := range parents {
		entries, err := os.ReadDir(parent)
		if parent == "" || err != nil {
			continue // there is none until the first instance
		}
		for _, e := range entries {
			if e.IsDir() && !known[e.Name()] {
				out = append(out, filepath.Join(parent, e.Name()))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// removePatience is how long the kernel may take to let go of a group whose last process just ended.
const removePatience = 2 * time.Second

// remove removes the directories of a group, and the agent's parent when it was the last one.
func (c *cgroups) remove(dirs []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, dir := range dirs {
		deadline := time.Now().Add(removePatience)
		err := os.Remove(dir)
		for err != nil && !errors.Is(err, fs.ErrNotExist) && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
			err = os.Remove(dir)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove control group: %w", err))
		}
		_ = os.Remove(filepath.Dir(dir)) // fails while another instance is in it
	}
	return errors.Join(errs...)
}

// writeFile writes to a file that the kernel made: it must exist, or the control group does not offer it.
func writeFile(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
