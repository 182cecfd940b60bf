package appsite_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/app"
	"github.com/skerry-dev/skerry/internal/app/appsite"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/site"
	"github.com/skerry-dev/skerry/internal/store"
	"github.com/skerry-dev/skerry/internal/testenv"
)

// sent are the secrets that a hub sent to the box.
type sent struct {
	mu     sync.Mutex
	values map[string]map[string]fleet.SecretValue
	told   []func()
}

func (s *sent) Secret(namespace, name string) (map[string]fleet.SecretValue, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	values, ok := s.values[namespace+"/"+name]
	return values, ok
}

func (s *sent) OnChange(fn func()) { s.told = append(s.told, fn) }

// put sends a Secret; nil values take it away.
func (s *sent) put(name string, values map[string]string) {
	s.mu.Lock()
	if values == nil {
		delete(s.values, name)
	} else {
		s.values[name] = map[string]fleet.SecretValue{}
	}
	for k, v := range values {
		s.values[name][k] = fleet.SecretValue(v)
	}
	s.mu.Unlock()
	for _, fn := range s.told {
		fn()
	}
}

func password(v string) map[string]string { return map[string]string{"password": v} }

// vault is a box whose runtime is scripted and whose secrets are sent.
type vault struct {
	*box
	rt     *scripted
	sent   *sent
	memory string
}

// lock runs fn on a vault in a bubble of its own time.
func lock(t *testing.T, rt *scripted, fn func(*testing.T, *vault)) {
	t.Helper()
	testenv.Require(t, testenv.Memory())
	synctest.Test(t, func(t *testing.T) {
		memory, err := os.MkdirTemp(testenv.MemoryDir, "skerry-test-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(memory)
		v := &vault{box: newBox(t), rt: rt, sent: &sent{values: map[string]map[string]fleet.SecretValue{}}, memory: memory}
		v.begin(memory)
		fn(t, v)
		v.halt()
		if left := v.files(); len(left) > 0 {
			t.Errorf("after the end there are files of secrets: %v", left)
		}
	})
}

func (v *vault) begin(places ...string) {
	v.t.Helper()
	v.boot(appsite.Options{Secrets: v.sent, MemoryPlaces: places}, func(*store.Bucket) []appsite.Runtime { return []appsite.Runtime{v.rt} })
}

// files are those below the box's place in memory, by name and content.
func (v *vault) files() map[string]string {
	v.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(v.memory, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		out[d.Name()] += string(data)
		return err
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return out
}

// needing is a placement of a version that needs secrets.
func (v *vault) needing(version string, refs ...app.SecretRef) app.Placement {
	v.t.Helper()
	p := v.push(version, nil)
	p.Secrets = refs
	return sealed(v.t, p)
}

func envRef() app.SecretRef {
	return app.SecretRef{Name: "db", Env: []app.SecretEnv{{Name: "DB_PASSWORD", Key: "password"}}, OnChange: app.SecretRestart}
}

func fileRef(change app.SecretChange) app.SecretRef {
	return app.SecretRef{Name: "db", Files: []app.SecretFile{{Path: "db/pass", Key: "password"}}, OnChange: change, Signal: "SIGHUP"}
}

func (v *vault) story(what string, want ...string) {
	v.t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, v.rt.story()); diff != "" {
		v.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func (v *vault) remarks(what string, want map[string]string) {
	v.t.Helper()
	if diff := cmp.Diff(want, v.report().Conditions); diff != "" {
		v.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestAppWaitsForItsSecret(t *testing.T) {
	lock(t, &scripted{}, func(t *testing.T, v *vault) {
		p := v.needing("1", envRef())
		v.apply(p)
		v.story("nothing starts without the secret")
		r := v.report()
		if r.Phase != fleet.PhasePending || !strings.Contains(r.Message, "waits for the hub to send it: secret db") {
			t.Errorf("report is %s %q", r.Phase, r.Message)
		}
		v.sent.put("other/db", password("of another namespace"))
		v.story("a Secret of that name in another namespace is not it")
		v.sent.put("default/db", map[string]string{"user": "ana"})
		v.story("nor is one without the key")
		if r := v.report(); !strings.Contains(r.Message, "secret db: key password") {
			t.Errorf("report says %q", r.Message)
		}
		v.sent.put("default/db", password("hunter2"))
		v.story("it starts at once when it comes", "start hello-1")
		if got := v.rt.newest().spec.Env["DB_PASSWORD"]; got != "hunter2" {
			t.Errorf("the variable is %q", got)
		}
		if !v.report().Healthy() {
			t.Errorf("report is %+v", v.report())
		}
		if text := fmt.Sprintf("%v %+v %#v %s", v.rt.newest().spec, v.rt.newest().spec, v.rt.newest().spec, v.rt.newest().spec); strings.Contains(text, "hunter2") {
			t.Errorf("a spec shows the values: %s", text)
		}
	})
}

func TestExclusiveAppIsNotStoppedForAReleaseThatWaits(t *testing.T) {
	lock(t, &scripted{}, func(t *testing.T, v *vault) {
		one := v.push("1", exclusive)
		v.apply(one)
		v.story("the first release", "start hello-1")
		two := v.push("2", exclusive)
		two.Secrets = []app.SecretRef{envRef()}
		two = sealed(t, two)
		v.apply(two)
		v.story("the first one goes on while the second waits")
		v.sent.put("default/db", password("x"))
		v.story("then they change", "stop hello-1", "start hello-2")
	})
}

func TestChangedVariableStartsAnew(t *testing.T) {
	lock(t, &scripted{}, func(t *testing.T, v *vault) {
		v.sent.put("default/db", password("one"))
		p := v.needing("1", envRef())
		v.apply(p)
		v.story("first", "start hello-1")
		v.router.story()
		v.sent.put("default/db", password("one"))
		v.sent.put("default/db", map[string]string{"password": "one", "user": "a key that the app does not use"})
		v.sent.put("default/else", password("x"))
		v.story("nothing that the app uses changed")

		v.sent.put("default/db", password("two"))
		v.story("the new instance comes before the old one goes", "start hello-1", "stop hello-1")
		if got := v.rt.newest().spec.Env["DB_PASSWORD"]; got != "two" {
			t.Errorf("the variable is %q", got)
		}
		if diff := cmp.Diff([]string{"hello-1 ready"}, v.router.story()); diff != "" {
			t.Errorf("callers noticed (-want +got):\n%s", diff)
		}
		if r := v.report(); !r.Healthy() || r.Desired.Digest != p.Digest || len(r.Conditions) > 0 {
			t.Errorf("report is %+v", r)
		}
	})
}

func TestChangedFilesAreSignalled(t *testing.T) {
	lock(t, &scripted{hears: true}, func(t *testing.T, v *vault) {
		v.sent.put("default/db", password("one"))
		v.apply(v.needing("1", fileRef(app.SecretSignal)))
		v.story("first", "start hello-1")
		spec := v.rt.newest().spec
		if !strings.HasPrefix(spec.SecretDir, v.memory+"/") {
			t.Errorf("directory of secrets is %q", spec.SecretDir)
		}
		v.sent.put("default/db", password("two"))
		v.story("files, then the signal, and nothing else", "SIGHUP hello-1")
		data, err := os.ReadFile(filepath.Join(spec.SecretDir, "db/pass"))
		if err != nil || string(data) != "two" {
			t.Errorf("the file holds %q, %v", data, err)
		}
		v.sent.put("default/db", password("two"))
		v.story("the same again is no change")
	})
}

func TestSignalWaitsUntilTheProgramRuns(t *testing.T) {
	rt := &scripted{hears: true, scripts: map[string]script{"hello-1": {readyIn: 10 * time.Second}}}
	lock(t, rt, func(t *testing.T, v *vault) {
		v.sent.put("default/db", password("one"))
		v.apply(v.needing("1", fileRef(app.SecretSignal)))
		v.story("first", "start hello-1")
		v.sent.put("default/db", password("two"))
		v.story("a program that starts may not take a signal yet")
		time.Sleep(11 * time.Second)
		v.story("now it does", "SIGHUP hello-1")
		if diff := cmp.Diff(map[string]string{"pass": "two"}, v.files()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSignalIsSentAlthoughTheSecretWent(t *testing.T) {
	rt := &scripted{hears: true, scripts: map[string]script{"hello-1": {readyIn: 10 * time.Second}}}
	lock(t, rt, func(t *testing.T, v *vault) {
		v.sent.put("default/db", password("one"))
		v.apply(v.needing("1", fileRef(app.SecretSignal)))
		time.Sleep(11 * time.Second)
		v.halt()
		v.rt.story()
		v.begin(v.memory)
		v.story("the agent was started anew", "start hello-1")
		v.sent.put("default/db", password("two"))
		synctest.Wait()
		if diff := cmp.Diff(map[string]string{"pass": "two"}, v.files()); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		v.sent.put("default/db", nil)
		v.story("it does not run yet")
		time.Sleep(11 * time.Second)
		v.story("the files were replaced: it is told of them", "SIGHUP hello-1")
	})
}

func TestRuntimeThatKnowsNoSignalStartsAnew(t *testing.T) {
	lock(t, &scripted{}, func(_ *testing.T, v *vault) {
		v.sent.put("default/db", password("one"))
		v.apply(v.needing("1", fileRef(app.SecretSignal)))
		v.story("first", "start hello-1")
		v.sent.put("default/db", password("two"))
		v.story("in place of a signal", "start hello-1", "stop hello-1")
	})
}

func TestChangedFilesWithoutASignal(t *testing.T) {
	lock(t, &scripted{hears: true}, func(t *testing.T, v *vault) {
		v.sent.put("default/db", password("one"))
		v.apply(v.needing("1", fileRef(app.SecretNone)))
		v.story("first", "start hello-1")
		v.sent.put("default/db", password("two"))
		v.story("nothing is told")
		if diff := cmp.Diff(map[string]string{"pass": "two"}, v.files()); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	})
}

func TestAppGoesOnWithoutASecretThatWent(t *testing.T) {
	lock(t, &scripted{hears: true}, func(t *testing.T, v *vault) {
		v.sent.put("default/db", password("one"))
		v.apply(v.needing("1", fileRef(app.SecretSignal)))
		v.story("first", "start hello-1")
		v.sent.put("default/db", nil)
		v.story("nothing is done")
		v.remarks("but told", map[string]string{"SecretsOutdated": "the app goes on with earlier values: waits for the hub to send it: secret db: secret is missing"})
		if diff := cmp.Diff(map[string]string{"pass": "one"}, v.files()); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		v.sent.put("default/db", password("one"))
		v.story("it is back as it was")
		v.remarks("and the remark goes", nil)
	})
}

func TestSecretThatTheAppDoesNotStartWith(t *testing.T) {
	rt := &scripted{scripts: map[string]script{}}
	lock(t, rt, func(t *testing.T, v *vault) {
		v.sent.put("default/db", password("one"))
		p := v.needing("1", envRef())
		v.apply(p)
		v.story("first", "start hello-1")
		rt.scripts["hello-1"] = script{fail: true}
		v.sent.put("default/db", password("wrong"))
		v.story("the new instance fails, the old one goes on", "start hello-1", "stop hello-1")
		v.remarks("told", map[string]string{"SecretsOutdated": "the app goes on with earlier values: cannot be run"})
		if r := v.report(); !r.Healthy() {
			t.Errorf("report is %+v", r)
		}
		time.Sleep(4 * time.Second)
		v.story("tried again after 1 s, 2 s", "start hello-1", "stop hello-1", "start hello-1", "stop hello-1")
		delete(rt.scripts, "hello-1")
		v.sent.put("default/db", password("right"))
		v.story("a corrected one is taken at once", "start hello-1", "stop hello-1")
		v.remarks("and the remark goes", nil)
		if got := rt.newest().spec.Env["DB_PASSWORD"]; got != "right" {
			t.Errorf("the variable is %q", got)
		}
	})
}

func TestLastGoodReleaseTakesNewSecrets(t *testing.T) {
	rt := &scripted{hears: true, scripts: map[string]script{"hello-2": {fail: true}}}
	lock(t, rt, func(t *testing.T, v *vault) {
		v.sent.put("default/db", password("one"))
		v.apply(v.needing("1", fileRef(app.SecretSignal)))
		v.story("first", "start hello-1")
		v.apply(v.needing("2", fileRef(app.SecretSignal)))
		v.story("the second fails", "start hello-2", "stop hello-2")
		v.sent.put("default/db", password("two"))
		synctest.Wait()
		if story := rt.story(); len(story) == 0 || story[0] != "SIGHUP hello-1" {
			t.Errorf("the first release was not told: %v", story)
		}
		if got := v.files(); got["pass"] != "two" {
			t.Errorf("files are %v", got)
		}
	})
}

func TestFilesNeedMemory(t *testing.T) {
	lock(t, &scripted{}, func(t *testing.T, v *vault) {
		v.halt()
		v.begin("/proc") // no disk, but nowhere to write either
		v.sent.put("default/db", password("one"))
		v.apply(v.needing("1", fileRef(app.SecretNone)))
		v.story("nothing starts")
		r := v.report()
		if r.Phase != fleet.PhaseFailed || !strings.Contains(r.Message, "no directory in memory") {
			t.Errorf("report is %s %q", r.Phase, r.Message)
		}
		if !strings.Contains(r.Conditions["SecretsNotInMemory"], "/proc is not in memory") {
			t.Errorf("conditions are %v", r.Conditions)
		}
		v.apply(v.needing("2", envRef()))
		v.story("variables need none", "start hello-2")
		v.remarks("and the remark goes", nil)
		v.apply(v.needing("3", fileRef(app.SecretNone)))
		v.story("the second goes on while the third cannot start")
		v.apply(v.push("4", nil))
		v.story("nor do apps without secrets", "start hello-4", "stop hello-2")
		v.remarks("and the remark goes", nil)
	})
}

func TestNewReleaseHasTheNewestSecrets(t *testing.T) {
	rt := &scripted{scripts: map[string]script{}}
	lock(t, rt, func(_ *testing.T, v *vault) {
		v.sent.put("default/db", password("one"))
		v.apply(v.needing("1", envRef()))
		v.story("first", "start hello-1")
		rt.scripts["hello-1"] = script{fail: true}
		v.sent.put("default/db", password("two"))
		v.story("this release does not start with it", "start hello-1", "stop hello-1")
		v.apply(v.needing("2", envRef()))
		v.story("another one does", "start hello-2", "stop hello-1")
		v.remarks("and the remark goes", nil)
	})
}

func TestSecretsAreNeverOnTheDisk(t *testing.T) {
	lock(t, &scripted{hears: true}, func(t *testing.T, v *vault) {
		v.sent.put("default/db", password("plain-value-one"))
		p := v.needing("1", envRef(), app.SecretRef{Name: "keys", OnChange: app.SecretSignal, Signal: "SIGHUP"})
		v.sent.put("default/keys", map[string]string{"pem": "plain-value-two"})
		v.apply(p)
		v.story("first", "start hello-1")
		v.sent.put("default/keys", map[string]string{"pem": "plain-value-three"})
		v.story("changed", "SIGHUP hello-1")
		v.sent.put("default/db", password("plain-value-four"))
		v.story("changed", "start hello-1", "stop hello-1")
		found := 0
		err := filepath.WalkDir(v.dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte("plain-value")) {
				t.Errorf("%s holds a value", path)
			}
			found += bytes.Count(data, []byte(p.Digest))
			return err
		})
		if err != nil || found == 0 {
			t.Errorf("the placement was not found on the disk: this test looks in the wrong place: %v", err)
		}
	})
}

func TestKilledAgentLeavesNoFiles(t *testing.T) {
	lock(t, &scripted{}, func(t *testing.T, v *vault) {
		v.sent.put("default/db", password("one"))
		v.apply(v.needing("1", fileRef(app.SecretNone)))
		v.story("first", "start hello-1")
		// What a killed agent leaves in its place.
		left, err := filepath.Glob(filepath.Join(v.memory, "skerry-*"))
		if err != nil || len(left) != 1 {
			t.Fatalf("the agent's directory in memory is %v, %v", left, err)
		}
		v.halt()
		orphan := filepath.Join(left[0], "default.hello.dead")
		if err := os.MkdirAll(orphan, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(orphan, "pass"), []byte("old"), 0o400); err != nil {
			t.Fatal(err)
		}
		v.rt.story()
		v.begin(v.memory)
		v.story("it comes back with its secret, without a network", "start hello-1")
		if diff := cmp.Diff(map[string]string{"pass": "one"}, v.files()); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		if got := v.router.last(); got.State != site.RouteReady {
			t.Errorf("route is %+v", got)
		}
	})
}
