package appsite_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/store"
)

// play runs fn on a box with a scripted runtime, in a bubble of its own time.
func play(t *testing.T, scripts map[string]script, fn func(*testing.T, *box, *scripted)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		rt := &scripted{scripts: scripts}
		b.bootScripted(rt)
		fn(t, b, rt)
		b.halt()
	})
}

func (b *box) bootScripted(rt *scripted) {
	b.t.Helper()
	b.boot(appsite.Options{}, func(*store.Bucket) []appsite.Runtime { return []appsite.Runtime{rt} })
}

// expect compares the report, without times and counts.
func (b *box) expect(what string, want app.AppReport) {
	b.t.Helper()
	got := b.report()
	got.Since, got.Counts = 0, fleet.RequestCounts{}
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func ref(p app.Placement) app.ReleaseRef {
	return app.ReleaseRef{Release: p.Release, Version: p.Version, Digest: p.Digest}
}

func (b *box) entries(dir string) []string {
	b.t.Helper()
	list, err := os.ReadDir(filepath.Join(b.dir, dir))
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

func TestFirstReleaseAndSwitchOver(t *testing.T) {
	play(t, map[string]script{"hello-2": {readyIn: 5 * time.Second}}, func(t *testing.T, b *box, rt *scripted) {
		one, two := b.push("1", nil), b.push("2", nil)
		b.apply(one)
		synctest.Wait()
		b.expect("the first release runs", app.AppReport{App: helloKey, Desired: ref(one), Running: ref(one), Phase: fleet.PhaseRunning})
		if got := b.router.last(); got.State != site.RouteReady || got.Target != "http://127.0.0.1:1" || got.Path != "/hello" {
			t.Errorf("route is %+v", got)
		}
		b.router.story()

		b.apply(two)
		time.Sleep(4 * time.Second)
		b.expect("the old one answers while the new one starts", app.AppReport{
			App: helloKey, Desired: ref(two), Running: ref(one), Phase: fleet.PhaseStarting, Message: "not yet"})
		if story := b.router.story(); len(story) != 0 {
			t.Errorf("routes changed before the new release was ready: %v", story)
		}
		time.Sleep(2 * time.Second)
		b.expect("the new one took over", app.AppReport{App: helloKey, Desired: ref(two), Running: ref(two), Phase: fleet.PhaseRunning})
		if diff := cmp.Diff([]string{"hello-2 ready"}, b.router.story()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"start hello-1", "start hello-2", "stop hello-1"}, rt.story()); diff != "" {
			t.Error(diff)
		}
		if n := len(b.entries("apps/unpacked")); n != 1 {
			t.Errorf("%d unpacked bundles stay, want that of the running release", n)
		}
		if n := len(b.entries("apps/scratch")); n != 1 {
			t.Errorf("%d scratch directories stay", n)
		}
		if n := len(b.entries("content")); n != 4 {
			t.Errorf("%d blobs are kept, want index, manifest, config and layer", n)
		}
	})
}

func TestBrokenReleaseKeepsTheOldOne(t *testing.T) {
	for name, row := range map[string]struct {
		reason  string
		script  script
		after   time.Duration
		message string
	}{
		"never ready": {"the deadline passes", script{never: true}, 61 * time.Second, "not ready within 1m0s: not yet"},
		"failed":      {"the runtime gives up", script{fail: true}, 100 * time.Millisecond, "cannot be run"},
		"refused":     {"the runtime does not take it", script{refuse: true}, 100 * time.Millisecond, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, map[string]script{"hello-2": row.script}, func(t *testing.T, b *box, rt *scripted) {
				one, two := b.push("1", nil), b.push("2", nil)
				b.apply(one)
				synctest.Wait()
				b.router.story()
				b.apply(two)
				time.Sleep(row.after)
				want := app.AppReport{App: helloKey, Desired: ref(two), Running: ref(one), Phase: fleet.PhaseFailed, Message: row.message}
				b.expect(row.reason, want)
				if story := b.router.story(); len(story) != 0 {
					t.Errorf("routes changed: %v", story)
				}
				since := b.report().Since
				time.Sleep(time.Hour)
				b.expect("retries do not flap", want)
				if b.report().Since != since {
					t.Error("a retry that failed like the first moved the time of the phase")
				}
				b.apply(one)
				synctest.Wait()
				b.expect("going back is at once", app.AppReport{App: helloKey, Desired: ref(one), Running: ref(one), Phase: fleet.PhaseRunning})
				if n := len(b.entries("apps/scratch")); n != 1 {
					t.Errorf("%d scratch directories stay", n)
				}
			})
		})
	}
}

func TestFailedReleaseIsRetriedWithBackOff(t *testing.T) {
	play(t, map[string]script{"hello-1": {refuse: true}}, func(t *testing.T, b *box, rt *scripted) {
		begun := time.Now()
		b.apply(b.push("1", nil))
		var at []int
		for seen := 0; len(at) < 13; time.Sleep(time.Second) {
			synctest.Wait()
			if n := len(rt.story()); n > 0 {
				seen += n
				at = append(at, int(time.Since(begun).Seconds()))
			}
		}
		want := []int{0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 1623, 2223}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("seconds at which it was tried (-want +got):\n%s", diff)
		}
		if got := b.router.last(); got.State != site.RouteDown {
			t.Errorf("an app that cannot run has route %+v", got)
		}
	})
}

func TestNewerPlacementSupersedes(t *testing.T) {
	play(t, map[string]script{"hello-2": {never: true}}, func(t *testing.T, b *box, rt *scripted) {
		one, two, three := b.push("1", nil), b.push("2", nil), b.push("3", nil)
		b.apply(one)
		synctest.Wait()
		b.apply(two)
		time.Sleep(10 * time.Second)
		b.apply(three)
		synctest.Wait()
		b.expect("the newest runs at once", app.AppReport{App: helloKey, Desired: ref(three), Running: ref(three), Phase: fleet.PhaseRunning})
		want := []string{"start hello-1", "start hello-2", "stop hello-2", "start hello-3", "stop hello-1"}
		if diff := cmp.Diff(want, rt.story()); diff != "" {
			t.Error(diff)
		}
		b.apply(two)
		time.Sleep(10 * time.Second)
		b.apply(three)
		synctest.Wait()
		if diff := cmp.Diff([]string{"start hello-2", "stop hello-2"}, rt.story()); diff != "" {
			t.Errorf("back to what runs must not restart it:\n%s", diff)
		}
	})
}

func exclusive(bd *bundle) {
	bd.config.Process.ExclusiveData = true
	bd.config.Process.Data = []string{"db"}
}

func TestExclusiveDataIsNeverShared(t *testing.T) {
	play(t, map[string]script{"hello-2": {readyIn: 3 * time.Second}, "hello-3": {fail: true}}, func(t *testing.T, b *box, rt *scripted) {
		one, two, three := b.push("1", exclusive), b.push("2", exclusive), b.push("3", exclusive)
		b.apply(one)
		synctest.Wait()
		b.apply(two)
		time.Sleep(5 * time.Second)
		if diff := cmp.Diff([]string{"start hello-1", "stop hello-1", "start hello-2"}, rt.story()); diff != "" {
			t.Errorf("two releases shared the data:\n%s", diff)
		}
		if diff := cmp.Diff([]string{"hello-1 starting", "hello-1 ready", "hello-1 held", "hello-2 held", "hello-2 ready"}, b.router.story()); diff != "" {
			t.Error(diff)
		}
		b.apply(three)
		time.Sleep(5 * time.Second)
		b.expect("the last good one is back", app.AppReport{
			App: helloKey, Desired: ref(three), Running: ref(two), Phase: fleet.PhaseFailed, Message: "cannot be run"})
		if diff := cmp.Diff([]string{"stop hello-2", "start hello-3", "stop hello-3", "start hello-2"}, rt.story()); diff != "" {
			t.Error(diff)
		}
		time.Sleep(8 * time.Minute)
		if story := rt.story(); len(story) != 0 {
			t.Errorf("a retry took the app away too soon: %v", story)
		}
	})
}

func TestAgentRestartNeedsNoNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		rt := &scripted{scripts: map[string]script{"hello-2": {never: true}}}
		b.bootScripted(rt)
		one, two, three := b.push("1", nil), b.push("2", nil), b.push("3", nil)
		b.apply(one)
		synctest.Wait()
		b.apply(two)
		time.Sleep(10 * time.Second)
		b.halt()
		b.content.online(false)
		rt.story()

		// The next life: the last good release answers, and the one under way is tried again, off the disk.
		b.bootScripted(rt)
		synctest.Wait()
		b.expect("after a restart", app.AppReport{App: helloKey, Desired: ref(two), Running: ref(one), Phase: fleet.PhaseStarting, Message: "not yet"})
		if diff := cmp.Diff([]string{"start hello-1", "start hello-2"}, rt.story()); diff != "" {
			t.Error(diff)
		}
		// A release that is not on disk waits for the network and leaves the good one alone.
		b.apply(three)
		time.Sleep(time.Hour)
		b.expect("without a network", app.AppReport{App: helloKey, Desired: ref(three), Running: ref(one), Phase: fleet.PhaseFetching})
		b.halt()

		b.bootScripted(rt)
		synctest.Wait()
		b.expect("restarted without a network", app.AppReport{App: helloKey, Desired: ref(three), Running: ref(one), Phase: fleet.PhaseFetching})
		b.halt()
		b.content.online(true)
		b.bootScripted(rt)
		synctest.Wait()
		b.expect("with the network back", app.AppReport{App: helloKey, Desired: ref(three), Running: ref(three), Phase: fleet.PhaseRunning})
		b.halt()
	})
}

func TestChangedFilesNeverRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		rt := &scripted{}
		b.bootScripted(rt)
		one := b.push("1", nil)
		b.apply(one)
		synctest.Wait()
		dir := rt.newest().spec.Dir
		for name, row := range map[string]struct {
			reason string
			harm   func() error
		}{
			"changed":    {"other bytes", func() error { return os.WriteFile(filepath.Join(dir, "bin/app"), []byte("evil"), 0o755) }},
			"mode":       {"a data file that became a program", func() error { return os.Chmod(filepath.Join(dir, "share/page.html"), 0o755) }},
			"missing":    {"a file is gone", func() error { return os.Remove(filepath.Join(dir, "share/page.html")) }},
			"additional": {"a file more", func() error { return os.WriteFile(filepath.Join(dir, "bin/more"), nil, 0o755) }},
			"tree gone":  {"the whole tree", func() error { return os.RemoveAll(dir) }},
			"and blob": {"the layer on disk is corrupt too", func() error {
				for _, name := range b.entries("content") {
					if err := os.WriteFile(filepath.Join(b.dir, "content", name), []byte("rubbish"), 0o600); err != nil {
						return err
					}
				}
				return os.RemoveAll(dir)
			}},
		} {
			b.halt()
			if err := row.harm(); err != nil {
				t.Fatal(err)
			}
			b.bootScripted(rt)
			synctest.Wait()
			data, err := os.ReadFile(filepath.Join(dir, "bin/app"))
			if err != nil || string(data) != "program 1" {
				t.Errorf("%s (%s): ran %q, %v", name, row.reason, data, err)
			}
			page, err := os.Stat(filepath.Join(dir, "share/page.html"))
			if err != nil || page.Mode().Perm() != 0o644 {
				t.Errorf("%s (%s): page is %v, %v", name, row.reason, page, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "bin/more")); err == nil {
				t.Errorf("%s (%s): a file of somebody else is in the bundle", name, row.reason)
			}
			b.expect("it runs all the same", app.AppReport{App: helloKey, Desired: ref(one), Running: ref(one), Phase: fleet.PhaseRunning})
		}
		b.halt()
	})
}

func TestBundleThatCannotRunHere(t *testing.T) {
	for name, row := range map[string]struct {
		reason string
		edit   func(*bundle)
		says   []string
	}{
		"platform": {"built for another machine", func(bd *bundle) { bd.platform.Architecture = "riscv64" },
			[]string{"bundle has nothing for linux/", "it has linux/riscv64"}},
		"runtime": {"this site has no such runtime", func(bd *bundle) { bd.config.Runtime = "quantum" },
			[]string{`no runtime "quantum"`, "it has process"}},
		"config": {"the config is wrong", func(bd *bundle) { bd.config.Process.Command = []string{"/bin/sh"} },
			[]string{"process.command[0]"}},
		"path": {"a file leaves the bundle", func(bd *bundle) { bd.files["../evil"] = "x" },
			[]string{`"../evil"`, "not a clean path"}},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(t *testing.T, b *box, rt *scripted) {
				b.apply(b.push("1", row.edit))
				synctest.Wait()
				r := b.report()
				if r.Phase != fleet.PhaseFailed {
					t.Errorf("%s: phase %s", row.reason, r.Phase)
				}
				for _, text := range row.says {
					if !strings.Contains(r.Message, text) {
						t.Errorf("%s: message %q lacks %q", row.reason, r.Message, text)
					}
				}
				if len(rt.story()) != 0 {
					t.Error("it was started")
				}
			})
		})
	}
}

func TestCrashLoopDoesNotFlap(t *testing.T) {
	play(t, nil, func(t *testing.T, b *box, rt *scripted) {
		one := b.push("1", nil)
		b.apply(one)
		synctest.Wait()
		b.router.story()
		a := rt.newest()
		crash := appsite.Status{Phase: fleet.PhaseBackOff, Message: "exited with status 3", Restarts: 1,
			Conditions: map[string]string{"LimitsNotEnforced": "no cgroups"}}
		a.become(crash)
		time.Sleep(time.Second)
		want := app.AppReport{App: helloKey, Desired: ref(one), Phase: fleet.PhaseBackOff, Message: "exited with status 3",
			Restarts: 1, Conditions: map[string]string{"LimitsNotEnforced": "no cgroups"}}
		b.expect("crashed", want)
		a.become(appsite.Status{Phase: fleet.PhaseStarting, Restarts: 1, Conditions: crash.Conditions})
		time.Sleep(time.Second)
		b.expect("the next start is not news yet", want)
		a.become(appsite.Status{Phase: fleet.PhaseRunning, Restarts: 1, Target: "http://127.0.0.1:99"})
		synctest.Wait()
		b.expect("back", app.AppReport{App: helloKey, Desired: ref(one), Running: ref(one), Phase: fleet.PhaseRunning, Restarts: 1})
		if got := b.router.last().Target; got != "http://127.0.0.1:99" {
			t.Errorf("the gateway was not told of the new port: %s", got)
		}
		if diff := cmp.Diff([]string{"hello-1 starting", "hello-1 ready"}, b.router.story()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"event AppRunning", "alarm AppCrashed", "event AppRunning"}, b.events.take()); diff != "" {
			t.Errorf("what happened (-want +got):\n%s", diff)
		}
		a.become(appsite.Status{Phase: fleet.PhaseFailed, Message: "gave up"})
		time.Sleep(2 * time.Second)
		b.expect("an instance that gave up is replaced", app.AppReport{App: helloKey, Desired: ref(one), Running: ref(one), Phase: fleet.PhaseRunning, Restarts: 0})
	})
}

// TestStoredReleaseIsTheOneThatRan directs the module while it stores what became ready: neither may
// overwrite what the other stored.
func TestStoredReleaseIsTheOneThatRan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		rt := &scripted{}
		b.bootScripted(rt)
		one, two := b.push("1", nil), b.push("2", nil)
		var last app.Placement
		for n := range 60 {
			last = []app.Placement{one, two}[n%2]
			b.apply(last)
			if n%3 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		b.halt()
		b.content.online(false)
		rt.story()
		b.bootScripted(rt)
		synctest.Wait()
		if diff := cmp.Diff([]string{"start " + last.Release}, rt.story()); diff != "" {
			t.Errorf("the next life began with (-want +got):\n%s", diff)
		}
		b.halt()
	})
}

func TestExclusiveReleaseThatIsSuperseded(t *testing.T) {
	play(t, map[string]script{"hello-2": {never: true}}, func(t *testing.T, b *box, rt *scripted) {
		one, two, three := b.push("1", exclusive), b.push("2", exclusive), b.push("3", exclusive)
		b.apply(one)
		synctest.Wait()
		b.apply(two)
		time.Sleep(10 * time.Second)
		b.content.online(false)
		b.apply(three)
		time.Sleep(time.Hour)
		b.expect("the good one answers while the newest cannot be fetched", app.AppReport{
			App: helloKey, Desired: ref(three), Running: ref(one), Phase: fleet.PhaseFetching})
		if got := b.router.last(); got.State != site.RouteReady || got.Release != "hello-1" {
			t.Errorf("route is %+v", got)
		}
		want := []string{"start hello-1", "stop hello-1", "start hello-2", "stop hello-2", "start hello-1"}
		if diff := cmp.Diff(want, rt.story()); diff != "" {
			t.Error(diff)
		}
	})
}
