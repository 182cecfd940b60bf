package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is a control group hierarchy as /proc/self/mountinfo shows it; see proc_pid_mountinfo(5).
type mount struct {
	root, point string
	version     int
	// controllers of a version 1 hierarchy.
	controllers []string
}

// findCgroups finds where this agent may make control groups. It changes nothing but, in version 2, what
// is needed to hand controllers on. name becomes the parent's.
func findCgroups(name string) *cgroups {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	own, _ := os.ReadFile("/proc/self/cgroup")
	return chooseCgroups(name, parseMounts(string(mounts)), parseOwn(string(own)))
}

func chooseCgroups(name string, mounts []mount, own map[string]string) *cgroups {
	c := &cgroups{enabled: map[string]bool{}, legacy: map[string]string{}, missing: map[string]string{}}
	for _, controller := range controllers {
		c.missing[controller] = "this machine has no such control group mounted"
	}
	for _, m := range mounts {
		if m.version != 1 {
			continue
		}
		for _, controller := range m.controllers {
			if !slices.Contains(controllers, controller) {
				continue
			}
			parent := filepath.Join(m.ownDir(own[controller]), name)
			if err := os.MkdirAll(parent, 0o755); err != nil {
				c.missing[controller] = err.Error()
				continue
			}
			_ = os.Remove(parent)
			c.legacy[controller] = parent
			delete(c.missing, controller)
		}
	}
	for _, m := range mounts {
		if m.version == 2 {
			c.chooseUnified(name, m, own[""])
			break
		}
	}
	return c
}

// chooseUnified takes as the parent's place the agent's own group or, for root, the top of the hierarchy:
// the first that hands on all controllers, or else the first in which a group can be made at all.
func (c *cgroups) chooseUnified(name string, m mount, own string) {
	places := []string{m.ownDir(own)}
	if os.Geteuid() == 0 && places[0] != m.point {
		places = append(places, m.point)
	}
	for _, place := range places {
		enabled, why := handOn(place)
		parent := filepath.Join(place, name)
		if err := os.MkdirAll(parent, 0o755); err != nil {
			c.noteMissing(err.Error())
			continue
		}
		_ = os.Remove(parent)
		if c.unified != "" && len(enabled) <= len(c.enabled) {
			continue
		}
		c.unified, c.enabled = parent, map[string]bool{}
		for _, controller := range enabled {
			if _, legacy := c.legacy[controller]; !legacy {
				c.enabled[controller] = true
				delete(c.missing, controller)
			}
		}
		if why != "" {
			c.noteMissing(why)
		}
		if len(c.missing) == 0 {
			return
		}
	}
}

func (c *cgroups) noteMissing(why string) {
	for controller := range c.missing {
		c.missing[controller] = why
	}
}

// handOn makes the group at dir hand its controllers on to children and returns those it does. A group that
// holds processes may not; when the agent is alone in it, it moves itself into a child first.
func handOn(dir string) (enabled []string, why string) {
	offered, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return nil, err.Error()
	}
	for _, controller := range controllers {
		if !slices.Contains(strings.Fields(string(offered)), controller) {
			continue
		}
		err := enable(dir, controller)
		if errors.Is(err, unix.EBUSY) && stepAside(dir) {
			err = enable(dir, controller)
		}
		if err != nil {
			why = fmt.Sprintf("the control group %s does not hand on its %s controller "+
				"(a systemd unit needs Delegate=yes): %v", dir, controller, err)
			continue
		}
		enabled = append(enabled, controller)
	}
	return enabled, why
}

func enable(dir, controller string) error {
	return writeFile(filepath.Join(dir, "cgroup.subtree_control"), "+"+controller)
}

// stepAside moves the agent from dir into a child of it, if no other process is in dir.
func stepAside(dir string) bool {
	self := strconv.Itoa(os.Getpid())
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil || strings.TrimSpace(string(procs)) != self {
		return false
	}
	child := filepath.Join(dir, "skerry-agent")
	if err := os.MkdirAll(child, 0o755); err != nil {
		return false
	}
	return writeFile(filepath.Join(child, "cgroup.procs"), self) == nil
}

// makeUnified makes an instance's version 2 group, and its parent when that is gone.
func (c *cgroups) makeUnified(dir string) error {
	if err := os.MkdirAll(c.unified, 0o755); err != nil {
		return err
	}
	for controller := range c.enabled {
		if err := enable(c.unified, controller); err != nil {
			return err
		}
	}
	return os.MkdirAll(dir, 0o755)
}

// ownDir is where the group with the given path, from /proc/self/cgroup, is found below the mount. In a
// container the mount may show only a part of the hierarchy.
func (m mount) ownDir(path string) string {
	rel, err := filepath.Rel(m.root, path)
	if err != nil || !filepath.IsLocal(rel) {
		return m.point
	}
	dir := filepath.Join(m.point, rel)
	if _, err := os.Stat(dir); err != nil {
		return m.point
	}
	return dir
}

func parseMounts(text string) []mount {
	var out []mount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		head, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(head) < 5 || len(tail) < 3 {
			continue
		}
		m := mount{root: head[3], point: head[4]}
		switch tail[0] {
		case "cgroup":
			m.version, m.controllers = 1, strings.Split(tail[2], ",")
		case "cgroup2":
			m.version = 2
		default:
			continue
		}
		out = append(out, m)
	}
	return out
}

// parseOwn reads /proc/self/cgroup, lines of "id:controllers:path"; the version 2 path has no controllers.
func parseOwn(text string) map[string]string {
	own := map[string]string{}
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for _, controller := range strings.Split(parts[1], ",") {
			own[controller] = parts[2]
		}
	}
	return own
}
