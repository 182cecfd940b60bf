package process

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/store"
	"github.com/skerry-dev/skerry/internal/testenv"
)

// agent is a whole agent in a process of its own: it starts one app, says so, and waits to be killed.
func agent() int {
	state := os.Getenv("AGENT_STATE")
	st, err := store.Open(filepath.Join(state, "store.db"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	bucket, err := st.Bucket("process")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	rt, err := New(Options{StateDir: state, Bucket: bucket})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if os.Getenv("AGENT_NO_CGROUPS") != "" {
		rt.groups = &cgroups{}
	}
	scratch := filepath.Join(state, "scratch", "one")
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		fmt.Println(err)
		return 1
	}
	i, err := rt.Start(context.Background(), appsite.Spec{
		App: fleet.AppKey{Namespace: "default", Name: "hello"}, Release: "r", ID: "one",
		Dir: filepath.Join(state, "bundle"), Scratch: scratch,
		Config: app.BundleConfig{Process: &app.ProcessConfig{Command: []string{"bin/app"}}},
		Env:    map[string]string{childMode: os.Getenv("AGENT_APP")},
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for i.Status().Phase != fleet.PhaseRunning {
		<-i.Changes()
	}
	fmt.Println("running")
	select {}
}

// controlGroups needs a machine that lets this process make control groups.
func controlGroups(e *env) testenv.Need {
	return testenv.Need{Name: "the right to make control groups", Met: func() bool {
		return len(e.rt.groups.legacy) > 0 || e.rt.groups.unified != ""
	}}
}

func TestRecoverEndsWhatAKilledAgentLeft(t *testing.T) {
	for name, row := range map[string]struct {
		reason, app, noCgroups string
	}{
		"control groups":       {"a process that left group and environment is still in the control group", "orphans", ""},
		"without them":         {"environment and process group are enough for a usual app", "stubborn", "1"},
		"process group member": {"a child with a bare environment is in the group of its living leader", "orphans-grouped", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			if row.noCgroups == "" {
				testenv.Require(t, controlGroups(e))
			}
			rec := killedAgent(t, e, row.app, row.noCgroups)
			left := rec.leftovers()
			if len(left) < 3 {
				t.Fatalf("%s: %d processes are left, want the app and two of its own", row.reason, len(left))
			}
			rt := e.newRuntime(Options{})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := rt.Recover(ctx); err != nil {
				t.Fatal(err)
			}
			for _, pid := range left {
				if alive(pid) {
					t.Errorf("%s: process %d is alive", row.reason, pid)
				}
			}
			if all, err := rt.records.all(); err != nil || len(all) != 0 {
				t.Errorf("records %v stay behind (%v)", all, err)
			}
		})
	}
}

func TestRecoverWithoutAStore(t *testing.T) {
	e := newEnv(t)
	testenv.Require(t, controlGroups(e))
	rec := killedAgent(t, e, "serve", "")
	rt := e.newRuntime(Options{})
	if err := rt.records.delete("one"); err != nil {
		t.Fatal(err)
	}
	if err := rt.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := rec.leftovers(); len(left) != 0 {
		t.Errorf("processes %v are alive", left)
	}
	for _, dir := range rec.Groups {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("control group %s stays behind", dir)
		}
	}
}

// killedAgent runs an agent until its app answers, kills it with SIGKILL, and returns its record.
func killedAgent(t *testing.T, e *env, appMode, noCgroups string) record {
	t.Helper()
	if err := e.closeStore(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(e.state, "bundle", "bin", "app"))
	cmd.Env = []string{childMode + "=agent", "AGENT_STATE=" + e.state, "AGENT_APP=" + appMode, "AGENT_NO_CGROUPS=" + noCgroups}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if killErr := cmd.Process.Kill(); killErr != nil {
		t.Fatal(killErr)
	}
	_ = cmd.Wait()
	if err != nil || strings.TrimSpace(line) != "running" {
		t.Fatalf("agent said %q (%v)", line, err)
	}
	e.openStore()
	return readRecord(t, e, "one")
}

func TestRecoverNeverKillsAnother(t *testing.T) {
	e := newEnv(t)
	bystander := exec.Command(filepath.Join(e.state, "bundle", "bin", "app"))
	bystander.Env = []string{childMode + "=sleep"}
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bystander.Process.Kill(); bystander.Wait() })
	pid := bystander.Process.Pid
	stat, err := readStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	for id, rec := range map[string]record{
		"recycled":     {Boot: bootID(), PID: pid, Start: stat.start - 1, Scratch: "/nowhere"},
		"other-boot":   {Boot: "another", PID: pid, Start: stat.start, Scratch: "/nowhere"},
		"empty":        {Boot: bootID()},
		"never-forked": {Boot: bootID(), Scratch: "/nowhere", Groups: []string{"/sys/fs/cgroup/none"}},
	} {
		if err := e.rt.records.put(id, rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.rt.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !alive(pid) {
		t.Error("a process that was never ours was killed")
	}
	if all, err := e.rt.records.all(); err != nil || len(all) != 0 {
		t.Errorf("records %v stay behind (%v)", all, err)
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte("42 (a) b (c)) S 1 40 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2"))
	if err != nil || got.pgrp != 40 || got.start != 98765 || got.state != 'S' {
		t.Errorf("got %+v, %v: a name may hold spaces and parentheses", got, err)
	}
	for _, bad := range []string{"", "42 (a", "42 (a) S 1 2", ") ) )"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
