package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerry-dev/skerry/internal/app/task"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/test/fleettest"
)

// chore is a program that does what its first argument says.
const chore = `#!/bin/sh
echo "$1 at $SKERRY_SITE by $SKERRY_TASK"
case "$1" in fail) exit 3;; sleep) sleep 60;; esac
`

// choreModule is the same as a module.
const choreModule = `package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Printf("%s at %s by %s\n", os.Args[1], os.Getenv("SKERRY_SITE"), os.Getenv("SKERRY_TASK"))
}
`

// bundleOf lays a bundle out and pushes it.
func bundleOf(t *testing.T, f *fleettest.Fleet, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	f.Skerry(t, "push", dir, "--version", "1.0.0")
}

func resultsOf(t *testing.T, f *fleettest.Fleet, name string) task.Results {
	t.Helper()
	var r task.Results
	must(t, json.Unmarshal([]byte(f.Skerry(t, "task", "results", name, "-o", "json")), &r))
	return r
}

func standings(r task.Results) string {
	var out []string
	for _, s := range r.Sites {
		out = append(out, fmt.Sprintf("%s %s", s.Site, s.Standing))
	}
	return strings.Join(out, ", ")
}

// tasks runs programs and modules once at three sites, one of which is away, and a schedule with the hub killed.
// The schedule takes up to a minute: cron knows nothing shorter.
func tasks(t *testing.T, f *fleettest.Fleet) {
	bundleOf(t, f, map[string]string{"chore.sh": chore, "bundle.yaml": "name: chore\nruntime: process\nbuild:\n  files: [{from: chore.sh, to: bin/chore, mode: \"0755\"}]\nprocess:\n  command: [bin/chore]\n"})
	bundleOf(t, f, map[string]string{"main.go": choreModule, "go.mod": "module chore\n\ngo 1.24\n", "bundle.yaml": "name: chore-wasm\nruntime: wasm\nbuild:\n  go: {package: .}\n"})
	f.Skerry(t, "label", "site", "shop-1", "shop-2", "crew=a")
	token := strings.TrimSpace(f.Skerry(t, "site", "token", "far-1", "--label", "crew=a"))
	dir, outer := fleettest.NewDir(t), t // the site outlives the steps
	stop := runSite(t, dir, token)
	connected := func() {
		t.Helper()
		fleettest.Eventually(t, time.Minute, "far-1 is connected", func() string {
			s, err := fleettest.StatusIn(dir)
			if err != nil || s.Link != fleet.LinkConnected {
				return fmt.Sprint(s.Link, err)
			}
			return ""
		})
	}
	connected()
	stop()
	f.Skerry(t, "wait", "site/far-1", "--for=condition=Ready=False", "--timeout=60s")

	t.Run("a site that is away holds up nobody, and runs it when it returns", func(t *testing.T) {
		for name, bundle := range map[string]string{"here": "chore:1.0.0", "here-wasm": "chore-wasm:1.0.0"} {
			out := f.Skerry(t, "task", "run", name, "--bundle", bundle, "--sites", "crew=a", "--logs", "--", "hello")
			for _, want := range []string{"1 of 3 sites are away", "hello at shop-1 by " + name, "hello at shop-2 by " + name} {
				if !strings.Contains(out, want) {
					t.Errorf("%s lacks %q:\n%s", name, want, out)
				}
			}
		}
		stop = runSite(outer, dir, token)
		connected()
		for _, name := range []string{"here", "here-wasm"} {
			fleettest.Eventually(t, time.Minute, name+" at far-1", func() string {
				if r := resultsOf(t, f, name); !r.Finished || standings(r) != "far-1 Succeeded, shop-1 Succeeded, shop-2 Succeeded" {
					return standings(r) + ": " + r.Message
				}
				return ""
			})
			if out := f.Skerry(t, "task", "results", name, "--logs"); !strings.Contains(out, "==> far-1 <==\nhello at far-1 by "+name+"\n") {
				t.Errorf("output of %s:\n%s", name, out)
			}
		}
		f.Skerry(t, "wait", "task/here", "--for=condition=Complete", "--timeout=10s")
	})
	t.Run("a run is ended at its deadline", func(t *testing.T) {
		out, err := f.TrySkerry("task", "run", "slow", "--bundle", "chore:1.0.0", "--sites", "crew=a", "--deadline", "1s", "--", "sleep")
		if err == nil || strings.Count(out, "it took longer than the deadline of 1s") < 3 {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("a failure is told, and ends the command with 1", func(t *testing.T) {
		out, err := f.TrySkerry("task", "run", "bad", "--bundle", "chore:1.0.0", "--sites", "crew=a", "--", "fail")
		if err == nil || !strings.Contains(out, "3 of 3 sites: the task did not succeed everywhere") {
			t.Errorf("%v\n%s", err, out)
		}
		for _, s := range resultsOf(t, f, "bad").Sites {
			if s.Runs[0].ExitCode != 3 || s.Runs[0].Tail != "fail at "+string(s.Site)+" by bad\n" {
				t.Errorf("site %s: %+v", s.Site, s.Runs[0])
			}
		}
	})
	t.Run("what cannot run says so", func(t *testing.T) {
		for name, row := range map[string]struct {
			args []string
			want string
		}{
			"no site":  {[]string{"--bundle", "chore:1.0.0", "--sites", "crew=none"}, "NoSites: placement.sites selects no site"},
			"no app":   {[]string{"--app", "nothing", "--all"}, "AppNotFound: work.app: there is no App nothing"},
			"no grant": {[]string{"--bundle", "chore:1.0.0", "--all", "-n", "kube-public"}, "no SiteGrant lets namespace kube-public use any runtime on any site"},
			"both":     {[]string{"--bundle", "chore:1.0.0", "--all", "--sites", "crew=a"}, "give one of --sites and --all"},
		} {
			out, err := f.TrySkerry(append([]string{"task", "run", "never-"}, row.args...)...)
			if err == nil || !strings.Contains(out, row.want) {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	})
	stop()
	t.Run("a schedule goes on with the hub killed", func(t *testing.T) { scheduled(t, f) })
	f.Skerry(t, "delete", "site", "far-1", "--wait=false")
}

func scheduled(t *testing.T, f *fleettest.Fleet) {
	cmd := exec.Command(programs.Skerry, "apply", "-f", "-")
	cmd.Env = f.Env()
	cmd.Stdin = strings.NewReader(`{apiVersion: skerry.dev/v1alpha1, kind: CronTask, metadata: {name: tick}, spec: {
  schedule: "* * * * *", work: {source: {bundle: "chore:1.0.0"}, args: [tick]}, placement: {sites: {matchLabels: {crew: a}}}}}`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f.Skerry(t, "wait", "crontask/tick", "--for=condition=Ready", "--timeout=60s")
	before := len(resultsOf(t, f, "crontask/tick").Sites[1].Runs)
	f.KillHub(t)
	outputs := func() int {
		files, err := filepath.Glob(filepath.Join(f.SiteDir("shop-1"), "tasks", "output", "*", "[0-9]*.log"))
		must(t, err)
		return len(files)
	}
	had := outputs()
	fleettest.Eventually(t, 75*time.Second, "a run without a hub", func() string {
		if n := outputs(); n <= had {
			return fmt.Sprintf("%d runs, %d before", n, had)
		}
		return ""
	})
	f.Start(t)
	fleettest.Eventually(t, time.Minute, "the hub hears of it", func() string {
		for _, s := range resultsOf(t, f, "crontask/tick").Sites {
			if s.Site == "shop-1" && len(s.Runs) > before && s.Runs[0].Phase == task.PhaseSucceeded && strings.HasPrefix(s.Runs[0].Tail, "tick at shop-1") {
				return ""
			}
		}
		return "not yet"
	})
	f.Skerry(t, "delete", "crontask", "tick")
	fleettest.Eventually(t, 30*time.Second, "what is deleted leaves nothing", func() string {
		if n := outputs(); n > 0 {
			return fmt.Sprintf("%d files are left", n)
		}
		return ""
	})
}
