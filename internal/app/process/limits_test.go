package process

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/testenv"
)

// limitsOf needs a machine that enforces a controller's limits on this process's children.
func limitsOf(e *env, controller string) testenv.Need {
	return testenv.Need{Name: "the right to make " + controller + " control groups", Met: func() bool {
		return e.rt.groups.missing[controller] == ""
	}}
}

func TestMemoryLimitKillsAndTells(t *testing.T) {
	e := newEnv(t)
	testenv.Require(t, limitsOf(e, "memory"))
	i := e.start(e.spec("bomb", func(_ *appsite.Spec, c *app.ProcessConfig) { c.Limits.MemoryBytes = 64 << 20 }))
	s := e.await(i, "the kill", func(s appsite.Status) bool { return s.Phase == fleet.PhaseBackOff })
	if !strings.Contains(s.Message, "out of memory (limit 67108864 bytes)") {
		t.Errorf("message %q does not tell of the limit", s.Message)
	}
	if len(s.Conditions) != 0 {
		t.Errorf("conditions %v on a machine that enforces limits", s.Conditions)
	}
}

func TestProcessLimitHolds(t *testing.T) {
	e := newEnv(t)
	testenv.Require(t, limitsOf(e, "pids"))
	i := e.start(e.spec("serve", func(_ *appsite.Spec, c *app.ProcessConfig) { c.Limits.PIDs = 40 }))
	target := e.awaitRunning(i).Target
	g := i.(*instance).group
	if limit, err := os.ReadFile(filepath.Join(g.dir("pids"), "pids.max")); err != nil || strings.TrimSpace(string(limit)) != "40" {
		t.Errorf("pids.max is %q, want 40 (%v)", limit, err)
	}
	// The app may die of it: a Go program that is refused a thread does. What counts is that the kernel refused.
	if resp, err := http.Get(target + "/fork?n=200"); err == nil {
		resp.Body.Close()
	}
	events, err := os.ReadFile(filepath.Join(g.dir("pids"), "pids.events"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(string(events), "max 0") {
		t.Errorf("two hundred children under a limit of 40: %s", events)
	}
}

func TestCPULimitIsSet(t *testing.T) {
	e := newEnv(t)
	testenv.Require(t, limitsOf(e, "cpu"))
	spec := e.spec("serve", func(_ *appsite.Spec, c *app.ProcessConfig) { c.Limits.CPUMillis = 250 })
	i := e.start(spec)
	e.awaitRunning(i)
	g := i.(*instance).group
	file, want := "cpu.cfs_quota_us", "25000"
	if g.legacy["cpu"] == "" {
		file, want = "cpu.max", "25000 100000"
	}
	data, err := os.ReadFile(filepath.Join(g.dir("cpu"), file))
	if err != nil || strings.TrimSpace(string(data)) != want {
		t.Errorf("%s is %q, want %q (%v)", file, data, want, err)
	}
	if members := groupPIDs([]string{g.dir("cpu")}); len(members) == 0 {
		t.Error("the app is not in its control group")
	}
}

func TestLimitsThatCannotHoldAreTold(t *testing.T) {
	e := newEnv(t)
	e.rt.groups = chooseCgroups("none", nil, nil)
	i := e.start(e.spec("serve", func(_ *appsite.Spec, c *app.ProcessConfig) {
		c.Limits = app.Limits{MemoryBytes: 1 << 20, PIDs: 7}
	}))
	s := e.awaitRunning(i)
	want := map[string]string{conditionLimits: "the memory limit of 1048576 bytes is not enforced: this machine has no such control group mounted; " +
		"the process limit of 7 is not enforced: this machine has no such control group mounted"}
	if diff := cmp.Diff(want, s.Conditions); diff != "" {
		t.Error(diff)
	}
}

func TestNoLimitsNoRemark(t *testing.T) {
	c := chooseCgroups("none", nil, nil)
	if _, remark := c.create("x", app.Limits{}); remark != "" {
		t.Errorf("remark %q on an app that declares no limit", remark)
	}
}

// TestUnifiedFiles checks what is written to a version 2 hierarchy, on a directory with the kernel's file
// names: few test machines hand a whole version 2 hierarchy to a test.
func TestUnifiedFiles(t *testing.T) {
	root := t.TempDir()
	own := filepath.Join(root, "unit.service")
	fake := func(dir string, files ...string) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	fake(own, "cgroup.subtree_control", "cgroup.procs")
	if err := os.WriteFile(filepath.Join(own, "cgroup.controllers"), []byte("cpu memory pids io\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	mounts := parseMounts("41 31 0:38 / " + root + " rw,relatime - cgroup2 cgroup2 rw\n")
	c := chooseCgroups("skerry-x", mounts, parseOwn("0::/unit.service\n"))
	if len(c.missing) != 0 {
		t.Fatalf("controllers are missing: %v", c.missing)
	}
	fake(filepath.Join(own, "skerry-x"), "cgroup.subtree_control")
	dir := filepath.Join(own, "skerry-x", "one")
	fake(dir, "memory.max", "memory.swap.max", "cpu.max", "pids.max", "cgroup.procs")
	g, remark := c.create("one", app.Limits{MemoryBytes: 1000, CPUMillis: 1500, PIDs: 10})
	if remark != "" {
		t.Fatal(remark)
	}
	g.settle()
	got := map[string]string{}
	for _, f := range []string{"memory.max", "memory.swap.max", "cpu.max", "pids.max"} {
		data, _ := os.ReadFile(filepath.Join(dir, f))
		got[f] = string(data)
	}
	want := map[string]string{"memory.max": "1000", "memory.swap.max": "0", "cpu.max": "150000 100000", "pids.max": "10"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestProgramThatCannotBeBornInItsGroup gives a directory that is no control group for one.
func TestProgramThatCannotBeBornInItsGroup(t *testing.T) {
	e := newEnv(t)
	spec := e.spec("serve", func(_ *appsite.Spec, c *app.ProcessConfig) { c.Limits.MemoryBytes = 1 << 30 })
	parent := filepath.Join(e.state, "no-cgroup")
	if err := os.MkdirAll(filepath.Join(parent, spec.ID), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"cgroup.subtree_control", spec.ID + "/memory.max"} {
		if err := os.WriteFile(filepath.Join(parent, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e.rt.groups = &cgroups{unified: parent, enabled: map[string]bool{"memory": true}}
	i := e.start(spec)
	s := e.awaitRunning(i)
	if !strings.Contains(s.Conditions[conditionLimits], "cannot be started in its control group") {
		t.Errorf("conditions are %v", s.Conditions)
	}
}

func TestOwnDirInAContainer(t *testing.T) {
	m := mount{root: "/docker/abc", point: "/sys/fs/cgroup/memory", version: 1}
	for path, want := range map[string]string{
		"/docker/abc": "/sys/fs/cgroup/memory", // the mount shows our own group as its top
		"/elsewhere":  "/sys/fs/cgroup/memory", // not below what is mounted: the top is all we see
	} {
		if got := m.ownDir(path); got != want {
			t.Errorf("own group of %s is %s, want %s", path, got, want)
		}
	}
}
